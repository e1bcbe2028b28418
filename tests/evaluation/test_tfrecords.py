"""TFRecord files and tf.train.Example messages, as TensorFlow writes them."""

import numpy as np
import pytest
import records

from exporters.evaluation import tfrecords
from exporters.evaluation.tfrecords import RecordError

CONTENTS = [b"one", b"", b"three" * 1000]


@pytest.fixture
def file(tmp_path):
    return records.write(tmp_path / "x.tfrecord", CONTENTS)


def places(file):
    return (place for place, _ in tfrecords.scan(file))


def test_records_of_tensorflows_writer_are_read(tmp_path):
    import tensorflow as tf

    path = tmp_path / "x.tfrecord"
    feature, value = tf.train.Feature, tf.train.BytesList(value=[b"pixels", b"more"])
    features = {
        "image/encoded": feature(bytes_list=value),
        "image/class/label": feature(int64_list=tf.train.Int64List(value=[-7, 3])),
        "image/scale": feature(float_list=tf.train.FloatList(value=[0.5])),
        "empty": feature(int64_list=tf.train.Int64List()),
        "none": feature(),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"another")
        writer.write(example.SerializeToString())
    assert tfrecords.is_one(path)
    first, second = places(path)
    assert first.read() == b"another"
    found = tfrecords.parse_example(second.read())
    assert found.keys() == features.keys()
    assert tfrecords.one_bytes(found["image/encoded"]) == b"pixels"
    assert tfrecords.one_integer(found["image/class/label"]) == -7
    for name in ("empty", "none", "image/scale"):
        assert tfrecords.one_integer(found[name]) is None
        assert tfrecords.one_bytes(found[name]) is None


def test_tensorflow_reads_what_the_tests_write(file):
    import tensorflow as tf

    found = [x.numpy() for x in tf.data.TFRecordDataset(str(file))]
    assert found == CONTENTS
    content = records.tf_slim(b"pixels", 3, "n01440764")
    feature = tf.train.Example.FromString(content).features.feature
    assert feature["image/encoded"].bytes_list.value == [b"pixels"]
    assert feature["image/class/label"].int64_list.value == [3]


def test_scanning(file):
    found = list(tfrecords.scan(file))
    assert [place.size for place, _ in found] == [len(x) for x in CONTENTS]
    assert [place.read() for place, _ in found] == CONTENTS
    assert [bytes(content) for _, content in found] == CONTENTS


def test_a_damaged_record_is_found_and_those_behind_it_are_read(file):
    content = bytearray(file.read_bytes())
    content[12] ^= 1
    file.write_bytes(content)
    first, second, third = places(file)
    with pytest.raises(RecordError, match="checksum"):
        first.read()
    assert (second.read(), third.read()) == (CONTENTS[1], CONTENTS[2])


def test_a_damaged_length_ends_the_file(file):
    content = bytearray(file.read_bytes())
    content[12 + 3 + 4] ^= 1
    file.write_bytes(content)
    found = places(file)
    assert next(found).read() == b"one"
    with pytest.raises(RecordError, match="damaged at byte 19"):
        next(found)


@pytest.mark.parametrize("cut", [1, 3, 5, 5000, 5010])
def test_a_file_that_was_cut(file, cut):
    content = file.read_bytes()
    file.write_bytes(content[:-cut])
    found = places(file)
    assert [next(found).size, next(found).size] == [3, 0]
    with pytest.raises(RecordError):
        next(found)


@pytest.mark.parametrize("content", [b"", b"short", bytes(100), b"\x89PNG" * 30])
def test_what_is_no_tfrecord_file(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert not tfrecords.is_one(tmp_path / "x")
    assert not tfrecords.is_one(tmp_path)


def test_any_bytes_are_an_example_or_an_error():
    random = np.random.default_rng(0)
    good = records.tf_slim(b"pixels", 3, "n01440764", "name.JPEG")
    for _ in range(500):
        content = np.frombuffer(good, np.uint8).copy()
        content[random.integers(0, len(content), 3)] = random.integers(0, 256, 3)
        try:
            found = tfrecords.parse_example(content.tobytes())
            tfrecords.one_bytes(found.get("image/encoded"))
            tfrecords.one_integer(found.get("image/class/label"))
        except RecordError as error:
            assert "no tf.train.Example" in str(error)
