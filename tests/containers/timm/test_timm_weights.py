"""Files for timm: what they consist of, as safetensors, and those that are damaged.

timm itself opens them in `tests/consumers`.
"""

import json
import sys

import numpy as np
import pytest
import small_twins

from checkpoints import safetensors
from checkpoints import twins as tables
from checkpoints.reader import CheckpointError, open_checkpoint
from checkpoints.safetensors import SafeTensors
from exporters import images
from exporters.containers.timm import container
from exporters.errors import ArtifactError, MissingLibraryError
from exporters.network.tasks import TASKS

CHECKPOINT = small_twins.CHECKPOINT
KERNEL = "scope/left/Relu/weights"


small = small_twins.writing("timm")


def contents(path):
    """Arrays and metadata, read by the format's own description."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        dtype = {"F32": "<f4", "I64": "<i8"}[entry["dtype"]]
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        values = np.frombuffer(content[start:end], dtype)
        arrays[name] = values.reshape(entry["shape"])
    return arrays, metadata


def rewrite(path, arrays, metadata):
    with path.open("wb") as file:
        safetensors.write(file, arrays, metadata)


@pytest.mark.parametrize("task", TASKS)
def test_a_file_says_what_it_is(small, task):
    small_twins.check_what_it_says(small(task), "timm", task)


@pytest.mark.parametrize("task", TASKS)
def test_it_holds_the_variables_as_they_are(small, task):
    small_twins.check_variables(small(task), task)


def test_the_state_dict(small):
    arrays, _ = contents(small())
    kernel = CHECKPOINT["scope/first/Relu/weights"]
    np.testing.assert_array_equal(
        arrays["first.conv.weight"], kernel.transpose(3, 2, 0, 1)
    )
    np.testing.assert_array_equal(
        arrays["classif.weight"], CHECKPOINT["scope/logits/weights"].T
    )
    assert (arrays["first.bn.weight"] == 1).all()
    counter = arrays["first.bn.num_batches_tracked"]
    assert (counter.shape, counter.dtype, counter) == ((), np.int64, 0)
    assert arrays["block.0.up.bias"].shape == (16,)
    assert "block.0.up.bn.weight" not in arrays
    assert "classif.weight" not in contents(small("feature_vector"))[0]


def test_metadata(small):
    _, metadata = contents(small())
    assert metadata["format"] == "pt"
    assert metadata["architecture"] == "inception_resnet_v2"
    assert metadata["num_classes"] == "6"
    assert json.loads(metadata["mean"]) == json.loads(metadata["std"]) == [0.5] * 3
    assert tuple(metadata["labels"].split("\n")) == small_twins.small_build.LABELS
    _, metadata = contents(small("feature_vector"))
    assert metadata["num_classes"] == "0" and "labels" not in metadata


def test_the_same_inputs_give_the_same_bytes(small):
    small_twins.check_same_bytes(small)
    first = small().read_bytes()
    assert int.from_bytes(first[:8], "little") % 8 == 0


@pytest.mark.parametrize("cut", [4, 100, 2000, -1000, -1])
def test_a_truncated_file(small, cut):
    path = small()
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=f"{path} is truncated or damaged"):
        container.open(path)


def test_a_file_of_another_tool(small):
    path = small()
    arrays, _metadata = contents(path)
    rewrite(path, arrays, {"format": "pt"})
    small_twins.check_a_file_without_a_record(
        path, "safetensors file of another tool's"
    )


@pytest.mark.parametrize("record", ["", "{", "3", '{"format": 3}'])
def test_a_damaged_record(small, record):
    path = small()
    arrays, metadata = contents(path)
    rewrite(path, arrays, metadata | {"irv2": record})
    with pytest.raises(ArtifactError, match=f"{path} holds no record of irv2"):
        container.open(path)


def test_what_timm_needs_and_tf_slim_has_not(small):
    path = small()
    arrays, metadata = contents(path)
    del arrays["first.bn.weight"]
    rewrite(path, arrays, metadata)
    assert container.open(path).check() == ["first.bn.weight: missing"]


def test_arrays_of_another_network_are_told(small):
    path = small()
    arrays, metadata = contents(path)
    rewrite(path, arrays | {"more.weight": np.ones(3, "f")}, metadata)
    assert "more.weight" in container.open(path).weights()


def test_without_timm_it_can_be_opened_and_not_run(small, monkeypatch):
    artifact = container.open(small())
    monkeypatch.setitem(sys.modules, "timm", None)
    assert artifact.weights()
    with pytest.raises(MissingLibraryError, match="timm cannot be imported"):
        artifact.run(images.generate(1, 75, 75))


# The way back


def test_the_way_back_gives_the_same_network(small):
    found = open_checkpoint(small(), check_layout=False)
    assert found.container == "safetensors"
    assert found.identity == CHECKPOINT.identity
    assert any("no auxiliary head" in note for note in found.notes)


def test_gammas_are_multiplied_into_kernels(small):
    """gamma * (k * x - mean) / deviation is (gamma * k * x - gamma * mean) / deviation."""
    path = small()
    arrays, metadata = contents(path)
    gamma = np.linspace(0.5, 2, 8, dtype=np.float32)
    arrays["block.0.left.bn.weight"] = gamma
    rewrite(path, arrays, metadata)
    found = open_checkpoint(path, check_layout=False)
    assert any("1 batch norms have a gamma" in note for note in found.notes)
    mean = "scope/left/Relu/BatchNorm/moving_mean"
    for name in (KERNEL, mean):
        np.testing.assert_array_equal(found[name], CHECKPOINT[name] * gamma)
    changed = {n for n in found if not np.array_equal(found[n], CHECKPOINT[n])}
    assert changed == {KERNEL, mean}


# safetensors


HEADERS = [
    b"{",
    b"[]",
    b"3",
    b'{"x": 3}',
    b'{"__metadata__": {"a": 3}}',
    b'{"x": {"dtype": "F32", "shape": [1]}}',
    b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}',
    b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}',
    b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
    b'{"x": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}',
    b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '
    b'"y": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_that_say_nothing_possible(tmp_path, header):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with (
        path.open("rb") as file,
        pytest.raises(CheckpointError, match=f"{path} is truncated or damaged"),
    ):
        SafeTensors(file, str(path))


def test_a_header_that_is_too_large(tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with (
        path.open("rb") as file,
        pytest.raises(CheckpointError, match="a header of 1099511627776 bytes"),
    ):
        SafeTensors(file, str(path))


def test_dtypes(tmp_path):
    path = tmp_path / "good.safetensors"
    header = {
        "half": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "brain": {"dtype": "BF16", "shape": [2], "data_offsets": [4, 8]},
        "none": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [8, 12]},
    }
    text = json.dumps(header).encode()
    half = np.array([1.5, -2], "<f2").tobytes()
    path.write_bytes(len(text).to_bytes(8, "little") + text + half + bytes(8))
    with path.open("rb") as file:
        arrays = SafeTensors(file, str(path))
        assert arrays.read("half").tolist() == [1.5, -2]
        assert arrays.specs["brain"].dtype == "bfloat16"
        for name in ("brain", "none"):
            with pytest.raises(CheckpointError, match=f"{name} is of dtype"):
                arrays.read(name)


def test_layouts_of_torch():
    values = np.arange(120).reshape(2, 3, 4, 5)
    assert tables.to_torch(values).shape == (5, 4, 2, 3)
    for array in (values, values[0, 0], values[0, 0, 0]):
        np.testing.assert_array_equal(tables.from_torch(tables.to_torch(array)), array)


# The whole network


@pytest.mark.slow
def test_the_way_back_of_the_whole_network(twins, stand_in_checkpoint):
    """Without "background", it is another network: of 1000 classes."""
    name = "inception_resnet_v2-{}-timm-stand-in.safetensors"
    found = open_checkpoint(twins / name.format("classification"))
    assert found.num_classes == 1000
    assert found.identity_of_features == stand_in_checkpoint.identity_of_features
    assert any('"background"' in note for note in found.notes)
    features = open_checkpoint(twins / name.format("feature_vector"))
    assert features.identity == stand_in_checkpoint.identity_of_features
