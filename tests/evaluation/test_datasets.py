"""Images and their labels, in every layout; and whatever lies between them."""

import io

import numpy as np
import pytest
import records
from PIL import Image

from exporters.errors import EvaluationError
from exporters.evaluation.datasets import open_dataset
from exporters.images import ImageError


def save(path, level=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((90, 80, 3), level, np.uint8)).save(path)
    return path


def encoded(level=100):
    stream = io.BytesIO()
    Image.fromarray(np.full((90, 80, 3), level, np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def rows(dataset):
    return [(example.name, example.label) for example in dataset.examples]


# A folder a class


def test_a_directory_with_a_subdirectory_per_class(tmp_path):
    save(tmp_path / "n02" / "b.JPEG")
    save(tmp_path / "n02" / "a.png")
    save(tmp_path / "n01" / "images" / "deep.jpg")
    (tmp_path / "n03").mkdir()
    (tmp_path / "n03" / "notes.txt").write_text("no image")
    save(tmp_path / "loose.png")
    (tmp_path / ".hidden").write_text("")
    found = open_dataset(tmp_path)
    assert rows(found) == [
        ("n01/images/deep.jpg", "n01"),
        ("n02/a.png", "n02"),
        ("n02/b.JPEG", "n02"),
    ]
    assert found.empty == ("n03",)
    assert found.problems == {
        "n03/notes.txt": "not called like an image",
        "loose.png": "it lies beside the directories of classes",
    }
    content = (tmp_path / "n02" / "a.png").read_bytes()
    assert found.examples[1].content() == content


def test_an_image_that_is_gone_is_named(tmp_path):
    path = save(tmp_path / "n02" / "a.png")
    (example,) = open_dataset(tmp_path).examples
    path.unlink()
    with pytest.raises(ImageError, match=r"n02/a\.png cannot be read: No such file"):
        example.content()


# ImageNet's validation images


@pytest.fixture
def flat(tmp_path):
    directory = tmp_path / "val"
    for number in (1, 2, 3):
        save(directory / f"ILSVRC2012_val_0000000{number}.JPEG")
    return directory


def ground_truth(directory, text):
    path = directory.parent / "labels.txt"
    path.write_text(text)
    return path


def test_labels_in_the_order_of_names(flat):
    file = ground_truth(flat, "n01751748\n970\n\n230\n")
    found = open_dataset(flat, file)
    assert [label for _, label in rows(found)] == ["n01751748", 970, 230]
    assert rows(found)[0][0] == "ILSVRC2012_val_00000001.JPEG"


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
def test_names_and_labels(flat, separator):
    lines = [
        f"val/ILSVRC2012_val_0000000{n}.JPEG{separator}{n + 60}" for n in (3, 1, 2)
    ]
    found = open_dataset(flat, ground_truth(flat, "\n".join(lines)))
    assert [label for _, label in rows(found)] == [61, 62, 63]


def test_kaggles_list(flat):
    file = ground_truth(
        flat,
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000003,n02110185 5 5 10 10 n02110185 20 20 40 40 \n"
        "ILSVRC2012_val_00000001,n01751748 1 2 3 4 \n"
        "ILSVRC2012_val_00000009,n01751748 1 2 3 4 \n",
    )
    found = open_dataset(flat, file)
    assert [label for _, label in rows(found)] == ["n01751748", "n02110185"]
    assert found.problems == {
        "ILSVRC2012_val_00000002.JPEG": "labels.txt has no label of it",
        "ILSVRC2012_val_00000009": "listed, and not there",
    }


def test_the_devkits_numbers_are_refused(flat):
    numbers = [490, 361, 171, 822, 297, 482, 13, 704, 599, 164, 5]
    file = ground_truth(flat, "\n".join(map(str, numbers)))
    with pytest.raises(EvaluationError, match=r"devkit.*order of its own.*synsets"):
        open_dataset(flat, file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\n2\n", "has 2 labels, and .*val 3 images"),
        ("", "is empty"),
        ("a.png 1\n2\n", "the line '2'; expected the name of an image and its label"),
    ],
)
def test_a_ground_truth_that_does_not_fit(flat, text, expected):
    with pytest.raises(EvaluationError, match=expected):
        open_dataset(flat, ground_truth(flat, text))


def test_a_ground_truth_that_is_no_text(flat):
    file = ground_truth(flat, "")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvaluationError, match="no text in UTF-8"):
        open_dataset(flat, file)


def test_images_without_labels(flat):
    with pytest.raises(EvaluationError, match=r"without labels.*--ground-truth"):
        open_dataset(flat)
    found = open_dataset(flat, needs_labels=False)
    assert [label for _, label in rows(found)] == [None] * 3


def test_a_ground_truth_without_effect(tmp_path):
    save(tmp_path / "n01" / "a.png")
    with pytest.raises(EvaluationError, match="--ground-truth has no effect on"):
        open_dataset(tmp_path, tmp_path / "labels.txt")


# TFRecords


def test_tf_slims_records(tmp_path):
    records.write(
        tmp_path / "validation-00001-of-00002",
        [records.tf_slim(encoded(), 389, "n02510455", "c.JPEG")],
    )
    records.write(
        tmp_path / "validation-00000-of-00002",
        [
            records.tf_slim(encoded(10), 1, "n01440764", "b.JPEG"),
            records.tf_slim(encoded(20), 2, "", "a.JPEG"),
        ],
    )
    (tmp_path / "labels.txt").write_text("0:tench")
    found = open_dataset(tmp_path)
    assert rows(found) == [
        ("b.JPEG", "n01440764"),
        ("a.JPEG", 2),
        ("c.JPEG", "n02510455"),
    ]
    assert [example.content() for example in found.examples] == [
        encoded(10),
        encoded(20),
        encoded(),
    ]
    assert found.problems == {"labels.txt": "not called like an image"}


def test_tfdss_records(tmp_path):
    path = tmp_path / "imagenet2012-validation.tfrecord-00000-of-00001"
    images = [
        records.tfds(encoded(), 65, "x.JPEG"),
        records.tfds(encoded(), 0, "y.JPEG"),
    ]
    records.write(path, images)
    found = open_dataset(path)
    assert rows(found) == [("x.JPEG", 65), ("y.JPEG", 0)]
    assert found.examples[0].content() == encoded()


def test_records_whose_names_are_no_names_have_numbers(tmp_path):
    path = tmp_path / "x.tfrecord"
    records.write(path, [records.tfds(encoded(), label, "same") for label in (1, 2)])
    assert rows(open_dataset(path)) == [("x.tfrecord#0", 1), ("x.tfrecord#1", 2)]


def test_damaged_records_stay_and_are_named(tmp_path):
    good = records.tf_slim(encoded(), 1)
    path = records.write(
        tmp_path / "x.tfrecord",
        [good, b"\xff\xff", records.example({"text": b"no image"}), good, good],
    )
    content = bytearray(path.read_bytes())
    content[len(good) // 2] ^= 1
    path.write_bytes(content[:-100])
    found = open_dataset(path)
    assert len(found.examples) == 4
    assert list(found.problems) == ["x.tfrecord"]
    assert "4 records before it are read" in found.problems["x.tfrecord"]
    told = []
    for example in found.examples:
        try:
            assert example.content() == encoded()
        except ImageError as error:
            told.append(str(error))
    assert len(told) == 3
    assert "x.tfrecord#0 cannot be read: its checksum" in told[0]
    assert "x.tfrecord#1 cannot be read: it is no tf.train.Example" in told[1]
    assert "x.tfrecord#2 has no image" in told[2]
    assert "found text" in told[2]


# Nothing


def test_nothing_to_be_found(tmp_path):
    with pytest.raises(EvaluationError, match=r"nowhere does not exist\. Expected"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(EvaluationError, match=r"holds no images\. Found: nothing"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(EvaluationError, match=r"Found: notes\.txt \(not called"):
        open_dataset(tmp_path)
    with pytest.raises(EvaluationError, match=r"notes\.txt is no TFRecord file"):
        open_dataset(tmp_path / "notes.txt")
