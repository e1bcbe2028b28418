"""What is read from both forms of checkpoints: what TensorFlow itself reads, or nothing."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import small_checkpoints

from checkpoints import saved_slices, table, tensors, wire
from checkpoints.bundle import Bundle
from checkpoints.errors import CheckpointError
from checkpoints.regular_file import open_regular
from checkpoints.saved_slices import SavedSlices
from checkpoints.tensors import Spec

DATA = ".data-00000-of-00001"
V1_DTYPES = (
    *("float16", "float32", "float64", "complex64", "complex128", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16"),
)
V2_DTYPES = (*V1_DTYPES, "uint32", "uint64")


def variables_of(dtypes):
    """Every shape and any bytes for each dtype, and the ends of its range."""
    noise = np.random.default_rng(0)
    made = {}
    for name in dtypes:
        dtype = np.dtype(name)
        if dtype.kind == "b":
            matrix = noise.integers(0, 2, (7, 300)).astype(bool)
        else:
            noisy = noise.integers(0, 256, 7 * 300 * dtype.itemsize, dtype=np.uint8)
            matrix = noisy.view(dtype).reshape(7, 300)
        made[f"{name}/matrix"] = matrix
        made[f"{name}/vector"] = matrix[0]
        made[f"{name}/number"] = matrix[0, 0]
        made[f"{name}/empty"] = matrix[:0]
        made[f"{name}/empty in the middle"] = np.zeros((3, 0, 2), dtype)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            made[f"{name}/limits"] = np.array([limits.min, limits.max, 0, 1], dtype)
    made["größe/" + "x" * 600] = np.float32([1.5])
    return made


def assert_same(found, expected):
    expected = np.asarray(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()  # Whatever the bytes of a NaN are.


def read_v1(path):
    with open_regular(path) as file:
        stored = SavedSlices(file, str(path))
        return {name: stored.read(name) for name in stored.specs}


def read_v2(prefix):
    stored = Bundle(prefix, str(prefix))
    return {name: stored.read(name) for name in stored.specs}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same kinds of variables in a V1 file, and with one and three data files."""
    folder = tmp_path_factory.mktemp("written")
    small_checkpoints.write_v1(variables_of(V1_DTYPES), folder / "v1")
    small_checkpoints.write_v2(variables_of(V2_DTYPES), folder / "v2")
    small_checkpoints.write_v2(variables_of(V2_DTYPES), folder / "sharded", shards=3)
    return folder


# Beside TensorFlow


@pytest.mark.parametrize("name", ["v1", "v2", "sharded"])
def test_everything_is_what_tensorflow_wrote_and_reads(written, name):
    import tensorflow as tf

    found = (read_v1 if name == "v1" else read_v2)(written / name)
    expected = variables_of(V1_DTYPES if name == "v1" else V2_DTYPES)
    assert found.keys() == expected.keys()
    reader = tf.train.load_checkpoint(str(written / name))
    compared = 0
    for variable, value in found.items():
        assert_same(value, expected[variable])
        try:
            its_own = reader.get_tensor(variable)
        except tf.errors.UnimplementedError:  # Some dtypes, in V1.
            continue
        assert_same(value, its_own)
        compared += 1
    assert compared > 0.6 * len(found)


@pytest.mark.parametrize("name", ["v1", "v2", "sharded"])
def test_names_shapes_and_dtypes_without_values(written, name):
    if name == "v1":
        with open_regular(written / name) as file:
            specs = SavedSlices(file, "v1").specs
    else:
        specs = Bundle(written / name, name).specs
    expected = variables_of(V1_DTYPES if name == "v1" else V2_DTYPES)
    assert specs == {
        variable: Spec(value.dtype.name, np.shape(value))
        for variable, value in expected.items()
    }


def test_what_numpy_has_no_dtype_for_is_listed_and_not_read(tmp_path):
    import tensorflow as tf

    odd = {
        "bfloat16": tf.constant([1.0], tf.bfloat16),
        "string": tf.constant(["text"]),
        "qint8": tf.quantization.quantize([1.0], -1.0, 1.0, tf.qint8).output,
        "float8_e5m2": tf.cast([1.0], tf.dtypes.experimental.float8_e5m2),
    }
    small_checkpoints.write_v2(odd | {"float32": np.float32([1])}, tmp_path / "v2")
    stored = Bundle(tmp_path / "v2", "some/prefix")
    assert {spec.dtype for spec in stored.specs.values()} == odd.keys() | {"float32"}
    for dtype in odd:
        with pytest.raises(CheckpointError) as caught:
            stored.read(dtype)
        assert str(caught.value) == (
            f"some/prefix: variable {dtype} is of dtype {dtype}, whose values cannot "
            "be read."
        )
    assert_same(stored.read("float32"), np.float32([1]))


PARTITIONS = {
    "rows": {"0,2:-": np.s_[:2], "2,5:-": np.s_[2:]},
    "columns": {
        "-:0,100": np.s_[:, :100],
        "-:100,150": np.s_[:, 100:250],
        "-:250,50": np.s_[:, 250:],
    },
    "both": {
        "0,3:0,9": np.s_[:3, :9],
        "0,3:9,291": np.s_[:3, 9:],
        "3,4:0,300": np.s_[3:],
    },
}


@pytest.mark.parametrize("form", ["v1", "v2", "sharded"])
def test_partitioned_variables(tmp_path, form):
    import tensorflow as tf

    whole = variables_of(["float32"])["float32/matrix"]
    names, slices, parts = [], [], []
    for name, described in PARTITIONS.items():
        for text, place in described.items():
            names.append(name)
            slices.append(f"7 300 {text}")
            parts.append(whole[place])
    path = tmp_path / form
    if form == "v1":
        tf.raw_ops.SaveSlices(
            filename=str(path), tensor_names=names, shapes_and_slices=slices, data=parts
        )
        found = read_v1(path)
    else:
        shards = 1 if form == "v2" else 2
        prefixes = [str(path) + f"-{shard}" for shard in range(shards)]
        for shard, prefix in enumerate(prefixes):
            mine = range(shard, len(names), shards)
            tf.raw_ops.SaveV2(
                prefix=prefix,
                tensor_names=[names[n] for n in mine],
                shape_and_slices=[slices[n] for n in mine],
                tensors=[parts[n] for n in mine],
            )
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=prefixes, destination_prefix=str(path)
        )
        found = read_v2(path)
    assert found.keys() == PARTITIONS.keys()
    for value in found.values():
        assert_same(value, whole)


def test_what_is_written_is_what_tensorflow_reads(tmp_path):
    import tensorflow as tf

    variables = {
        name: value
        for name, value in variables_of(V1_DTYPES).items()
        if value.dtype == np.float32
    }
    with (tmp_path / "v1").open("wb") as file:
        saved_slices.write(variables, file)
    reader = tf.train.load_checkpoint(str(tmp_path / "v1"))
    shapes = reader.get_variable_to_shape_map()
    assert shapes == {name: list(value.shape) for name, value in variables.items()}
    for name, value in variables.items():
        assert_same(np.asarray(reader.get_tensor(name)), value)
    found = read_v1(tmp_path / "v1")
    assert found.keys() == variables.keys()
    for name, value in variables.items():
        assert_same(found[name], value)


def test_big_endian_values(tmp_path):
    values = np.arange(6, dtype=">f4").reshape(2, 3)
    write_bundle(tmp_path / "v2", [entry(values)], wire.field(2, 1))
    assert_same(read_v2(tmp_path / "v2")["x"], values.astype("<f4"))


# Damage


@pytest.mark.parametrize("name", ["v1", "v2.index", f"v2{DATA}"])
def test_a_changed_bit_is_found_or_does_not_matter(tmp_path, name):
    made = small_checkpoints.variables()
    small_checkpoints.write_v1(made, tmp_path / "v1")
    small_checkpoints.write_v2(made, tmp_path / "v2")
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    noise = random.Random(4)
    places = [*range(8 * 60), *range(8 * (len(content) - 60), 8 * len(content))]
    places += [noise.randrange(8 * len(content)) for _ in range(2000)]
    harmless = 0
    with path.open("r+b", buffering=0) as file:
        for place in places:
            file.seek(place // 8)
            file.write(bytes([content[place // 8] ^ 1 << place % 8]))
            try:
                found = read_v1(path) if name == "v1" else read_v2(tmp_path / "v2")
            except CheckpointError as error:
                assert str(tmp_path) in str(error)
            else:
                harmless += 1
                for variable, value in made.items():
                    assert_same(found[variable], value)
            file.seek(place // 8)
            file.write(content[place // 8 : place // 8 + 1])
    assert harmless <= (8 * 40 if name != f"v2{DATA}" else 0) * 2


@pytest.mark.parametrize("name", ["v1", "v2.index", f"v2{DATA}"])
def test_truncated_anywhere(tmp_path, name):
    made = {"a": np.ones((3, 9), np.float32), "b": np.ones(7, np.float32)}
    small_checkpoints.write_v1(made, tmp_path / "v1")
    small_checkpoints.write_v2(made, tmp_path / "v2")
    path = tmp_path / name
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="truncated"):
            read_v1(path) if name == "v1" else read_v2(tmp_path / "v2")


# Right checksums over what is wrong: V1


def shape(*sizes):
    return b"".join(wire.field(2, wire.field(1, size % 2**64)) for size in sizes)


def whole(rank=1):
    return wire.field(1, b"") * rank


def part(*extents):
    return b"".join(
        wire.field(1, wire.field(1, start % 2**64) + wire.field(2, length % 2**64))
        for start, length in extents
    )


def meta(*slices, name=b"x", sizes=(3,), dtype=1):
    described = b"".join(wire.field(4, each) for each in slices)
    return wire.field(
        1,
        wire.field(1, name)
        + wire.field(2, shape(*sizes))
        + wire.field(3, dtype)
        + described,
    )


def tensor(values, field=5):
    return wire.field(2, wire.field(3, wire.field(field, values)))


KEY = tensors.slice_key("x", ((0, None),))
FLOATS = np.float32([1, 2, 3]).tobytes()


def v1_error(folder, listed, values=None, key=KEY):
    entries = {b"": wire.field(1, listed)}
    if values is not None:
        entries[key] = values
    with (folder / "v1").open("wb") as file:
        table.write(((key, [value]) for key, value in entries.items()), file)
    with pytest.raises(CheckpointError) as caught:
        read_v1(folder / "v1")
    message = str(caught.value)
    assert message.startswith(str(folder / "v1"))
    assert len(message) < len(str(folder)) + 250
    return message


def test_the_messages_of_these_tests_are_right(tmp_path):
    with (tmp_path / "v1").open("wb") as file:
        listed = [(b"", [wire.field(1, meta(whole()))]), (KEY, [tensor(FLOATS)])]
        table.write(listed, file)
    assert_same(read_v1(tmp_path / "v1")["x"], np.float32([1, 2, 3]))


@pytest.mark.parametrize(
    ("listed", "values", "problem"),
    [
        (meta(whole()), None, "variable x: it has no values"),
        (meta(whole()), tensor(FLOATS[:8]), "it has 2 of 3 values"),
        (meta(whole()), tensor(FLOATS[:7]), "variable x: buffer size must be"),
        (meta(whole()), tensor(FLOATS, field=6), "it has 0 of 3 values"),
        (meta(whole()), b"\x12\x7f", "field 2 ends after"),
        (meta(whole(), sizes=(2**40,)), tensor(FLOATS), "it has 3 of 1099511627776"),
        (meta(whole(), sizes=(-1,)), tensor(FLOATS), "a shape of 1 dimensions [-1]"),
        (meta(whole(), sizes=(1,) * 300), tensor(FLOATS), "a shape of 33 dimensions"),
        (meta(whole(2)), tensor(FLOATS), "a slice of 2 dimensions of 1"),
        (meta(), tensor(FLOATS), "its slices have 0 of 3 values"),
        (meta(whole(), part((0, 1))), tensor(FLOATS), "its slices have 4 of 3 values"),
        (meta(*[part((0, 1))] * 3), tensor(FLOATS), "a slice of it is there twice"),
        (meta(part((1, 3))), tensor(FLOATS), "a slice from 1 to 4 of 3"),
        (meta(part((-1, 3))), tensor(FLOATS), "a slice from -1 to 2 of 3"),
        (meta(part((2, -1))), tensor(FLOATS), "a slice from 2 to 1 of 3"),
        (meta(whole(), dtype=3), tensor(b"\xff" * 9, 7), "a number that does not end"),
        (meta(whole(), dtype=3), tensor(b"\x01\x02", 7), "it has 2 of 3 values"),
        (meta(whole(), dtype=3), tensor(b"\1\2" + b"\x80" * 11 + b"\1", 7), "not end"),
        (meta(whole()) * 2, tensor(FLOATS), "x is there twice"),
        (meta(whole(), name=b"\xff"), tensor(FLOATS), "can't decode"),
        (meta(whole(), name=b"a\x1b[2J"), tensor(FLOATS), r"of the name 'a\x1b[2J'"),
        (meta(*[whole()] * 100_001), tensor(FLOATS), "over 100000 variables"),
        (meta(whole()), tensor(FLOATS) * 2, "it has its field 2 twice"),
        (wire.field(2, wire.field(2, 7)), None, "it is of version 7, expected 1"),
        (b"\x0a\x7f", None, "its list of variables: field 1 ends after"),
    ],
)
def test_lies_in_v1(tmp_path, listed, values, problem):
    assert problem in v1_error(tmp_path, listed, values)


def test_slices_of_v1_that_overlap(tmp_path):
    listed = meta(part((0, 2)), part((1, 2)), sizes=(4,))
    entries = [(b"", [wire.field(1, listed)])]
    for start in (0, 1):
        key = tensors.slice_key("x", ((start, 2),))
        entries.append((key, [tensor(FLOATS[:8])]))
    with (tmp_path / "v1").open("wb") as file:
        table.write(entries, file)
    with pytest.raises(CheckpointError, match="variable x: its slices overlap"):
        read_v1(tmp_path / "v1")


def test_a_table_that_is_no_checkpoint(tmp_path):
    with (tmp_path / "v1").open("wb") as file:
        table.write([(b"key", [b"value"])], file)
    with pytest.raises(CheckpointError, match="it has no list of variables"):
        read_v1(tmp_path / "v1")
    (tmp_path / "v1").rename(tmp_path / "v2.index")
    with pytest.raises(CheckpointError, match="it has no header"):
        read_v2(tmp_path / "v2")


# The same: V2


def entry(values=None, **changed):
    """A BundleEntryProto, by default one that is right for `values` at the beginning."""
    values = np.float32([1, 2, 3]) if values is None else values
    facts = {
        "dtype": 1,
        "shape": shape(*values.shape),
        "shard": 0,
        "offset": 0,
        "size": values.nbytes,
        "slices": b"",
    } | changed
    checksum = table.crc32c(values.tobytes()).to_bytes(4, "little")
    return {
        "key": facts.get("key", b"x"),
        "values": values.tobytes(),
        "message": wire.field(1, facts["dtype"])
        + wire.field(2, facts["shape"])
        + wire.field(3, facts["shard"])
        + wire.field(4, facts["offset"])
        + wire.field(5, facts["size"])
        + wire.varint(6 << 3 | 5)
        + checksum
        + facts["slices"],
    }


def write_bundle(prefix, entries, more_header=b""):
    header = wire.field(1, 1) + more_header
    index = io.BytesIO()
    table.write(
        [(b"", [header]), *((each["key"], [each["message"]]) for each in entries)],
        index,
    )
    Path(f"{prefix}.index").write_bytes(index.getvalue())
    Path(f"{prefix}{DATA}").write_bytes(entries[0]["values"] if entries else b"")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"size": 8}, "variable x: it has 8 bytes for 3 values"),
        (
            {"size": 2**62, "shape": shape(2**60)},
            f"v2{DATA} is truncated or damaged: it has 12",
        ),
        ({"shape": shape(2**60)}, "it has 12 bytes for 1152921504606846976 values"),
        ({"shape": shape(0, 2**62), "size": 0}, "variable x: "),
        ({"shape": shape(-3)}, "a shape of 1 dimensions [-3]"),
        ({"shape": wire.field(3, 1)}, "a shape that is not known"),
        ({"offset": 1}, f"v2{DATA} is truncated or damaged: it has 12 bytes"),
        ({"offset": 2**63}, f"v2{DATA} is truncated or damaged: it has 12 bytes"),
        ({"shard": 7}, "data file"),
        ({"shard": 2**63}, "data file"),
        (
            {"dtype": 2, "size": 24},
            f"v2{DATA} is truncated or damaged: it has 12 bytes",
        ),
        ({"dtype": 99}, "variable x is of dtype number 99, whose values"),
        (
            {"slices": wire.field(7, part((0, 3)))},
            "variable x: a slice of it is missing",
        ),
        ({"slices": wire.field(7, part((0, 2)))}, "its slices have 2 of 3 values"),
        ({"key": b"\xff"}, "can't decode"),
        ({"key": b"a\x1b[2J"}, r"a variable of the name 'a\x1b[2J'"),
    ],
)
def test_lies_in_v2(tmp_path, changed, problem):
    write_bundle(tmp_path / "v2", [entry(**changed)])
    with pytest.raises(CheckpointError) as caught:
        read_v2(tmp_path / "v2")
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "v2"))
    assert problem in message


def test_many_variables_in_the_same_bytes(tmp_path):
    """Little in the files, and as much in memory as anybody likes."""
    names = [f"{number:03}".encode() for number in range(100)]
    write_bundle(tmp_path / "v2", [entry(key=name) for name in names])
    with pytest.raises(CheckpointError, match=r"has 12 bytes.* values of 1,200 bytes"):
        read_v2(tmp_path / "v2")


def test_a_later_version(tmp_path):
    write_bundle(tmp_path / "v2", [entry()], wire.field(3, wire.field(2, 2)))
    with pytest.raises(CheckpointError, match="it is of version 2, expected 1"):
        read_v2(tmp_path / "v2")


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_changes_under_right_checksums_are_no_crash(tmp_path, form):
    noise = random.Random(5)
    slices = wire.field(7, part((0, 3)))
    plain = {
        "v1": [meta(whole()), tensor(FLOATS)],
        "v2": [wire.field(1, 1), entry(slices=slices)["message"]],
    }[form]
    for _ in range(700):
        changed = [bytearray(message) for message in plain]
        for _ in range(noise.randrange(1, 4)):
            message = noise.choice(changed)
            message[noise.randrange(len(message))] = noise.randrange(256)
        first, second = map(bytes, changed)
        try:
            if form == "v1":
                with (tmp_path / "v1").open("wb") as file:
                    first = wire.field(1, first)
                    table.write([(b"", [first]), (KEY, [second])], file)
                read_v1(tmp_path / "v1")
            else:
                made = entry() | {"message": second}
                write_bundle(tmp_path / "v2", [made], first)
                read_v2(tmp_path / "v2")
        except CheckpointError:
            pass
