"""Files called .weights.h5: what they consist of, and in Keras Applications."""

import sys

import h5py
import numpy as np
import pytest
import small_twins

from checkpoints.hdf5 import Hdf5
from checkpoints.reader import CheckpointError, open_checkpoint
from exporters import images
from exporters.containers.keras import application
from exporters.errors import ArtifactError, MissingLibraryError
from exporters.network.tasks import TASKS

CHECKPOINT = small_twins.CHECKPOINT
LAYERS = [
    *("conv2d", "batch_normalization", "conv2d_1", "batch_normalization_1"),
    *("batch_normalization_2", "conv2d_2", "block_conv", "predictions"),
]
CASES = [("classification", (299, 299)), ("feature_vector", (224, 320))]


small = small_twins.writing("keras-weights")


@pytest.mark.parametrize("task", TASKS)
def test_a_file_says_what_it_is(small, task):
    small_twins.check_what_it_says(small(task), "keras-weights", task)


@pytest.mark.parametrize("task", TASKS)
def test_it_holds_the_variables_as_they_are(small, task):
    small_twins.check_variables(small(task), task)


def test_both_layouts_are_of_the_same_arrays(small):
    path = small()
    with h5py.File(path) as file:
        assert list(file.attrs["layer_names"]) == LAYERS
        weight_names = list(file["block_conv"].attrs["weight_names"])
        assert weight_names == ["block_conv/kernel:0", "block_conv/bias:0"]
        assert file["block_conv"][weight_names[0]] == file["layers/conv2d_3/vars/0"]
        norm = file["batch_normalization_2/batch_normalization_2/moving_variance:0"]
        assert norm == file["layers/batch_normalization_2/vars/2"]
        assert tuple(file.attrs["labels"].split("\n")) == small_twins.small_build.LABELS
    numbers = sum(values.size for values in CHECKPOINT.values())
    assert path.stat().st_size < 4 * numbers + 100_000


def test_the_same_inputs_give_the_same_bytes(small):
    small_twins.check_same_bytes(small)


@pytest.mark.parametrize("end", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(small, end):
    path = small()
    content = path.read_bytes()
    path.write_bytes(content[: int(end * len(content))])
    with pytest.raises(ArtifactError, match=f"{path} is truncated or damaged"):
        application.open(path)
    with pytest.raises(CheckpointError, match=f"{path} is truncated or damaged"):
        open_checkpoint(path)


def test_a_file_of_another_tool(small):
    path = small()
    with h5py.File(path, "r+") as file:
        del file.attrs["irv2"]
    small_twins.check_a_file_without_a_record(path, "in HDF5 by another tool")


@pytest.mark.parametrize("record", ["", "{", "3", '{"format": 3}'])
def test_a_damaged_record(small, record):
    path = small()
    with h5py.File(path, "r+") as file:
        file.attrs["irv2"] = record
    with pytest.raises(ArtifactError, match=f"{path} holds no record of irv2"):
        application.open(path)


def test_layers_that_are_not_listed_are_told(small):
    path = small()
    with h5py.File(path, "r+") as file:
        file.attrs["layer_names"] = [b"conv2d"]
    problems = application.open(path).check()
    assert problems == [
        "the layers that older versions of Keras look for are not listed"
    ]


def test_without_keras_it_can_be_opened_and_not_run(small, monkeypatch):
    artifact = application.open(small())
    monkeypatch.setitem(sys.modules, "keras", None)
    assert artifact.weights()
    with pytest.raises(MissingLibraryError, match="Keras cannot be imported"):
        artifact.run(images.generate(1, 75, 75))


@pytest.mark.parametrize("layout", ["newer", "older", "in a model", "saved model"])
def test_the_way_back_from_every_layout(small, tmp_path, layout):
    """Names of an older layout depend on what a process made before."""
    source, path = small(), tmp_path / "other.h5"
    with h5py.File(source) as file, h5py.File(path, "w") as other:
        if layout == "newer":
            file.copy("layers", other)
        elif layout == "in a model":
            other.create_group("layers/functional")
            file.copy("layers", other["layers/functional"])
            other["layers/dense/vars/0"] = np.ones((16, 3), np.float32)
        else:
            root = other
            if layout == "saved model":
                root = other.create_group("model_weights")
            order = [f"{name}_x" for name in LAYERS]
            root.attrs["layer_names"] = [name.encode() for name in order]
            for name in LAYERS:
                group = root.create_group(f"{name}_x")
                names = file[name].attrs["weight_names"]
                for weight in names:
                    group[weight] = file[name][weight][()]
                group.attrs["weight_names"] = [n.encode() for n in names]
    found = open_checkpoint(path, check_layout=False)
    assert found.container == "HDF5"
    if layout == "in a model":
        ours = {n: v for n, v in found.items() if n in CHECKPOINT}
        assert found.keys() - ours.keys() == {"layers/dense/vars/0"}
        for name, values in ours.items():
            np.testing.assert_array_equal(values, CHECKPOINT[name])
        assert ours.keys() == CHECKPOINT.keys()
    else:
        assert found.identity == CHECKPOINT.identity


# HDF5 files that would have a reader follow them, or make room for what is not there


def refused(path):
    with (
        path.open("rb") as file,
        pytest.raises(CheckpointError, match=f"{path} is truncated") as caught,
        Hdf5(file, str(path)),
    ):
        pass
    return str(caught.value)


def test_links_out_of_a_file_are_not_followed(tmp_path):
    other, path = tmp_path / "other.h5", tmp_path / "links.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones(3)
    for link in (h5py.ExternalLink(str(other), "secret"), h5py.SoftLink("/elsewhere")):
        with h5py.File(path, "w") as file:
            file["layers"] = link
        assert "layers is a link to somewhere else" in refused(path)


def test_values_out_of_a_file_are_not_read(tmp_path):
    outside, path = tmp_path / "values", tmp_path / "external.h5"
    outside.write_bytes(bytes(40))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10,), "f", external=[(str(outside), 0, 40)])
    assert "x has its values somewhere else" in refused(path)
    with h5py.File(path, "w") as file:
        virtual = h5py.VirtualLayout((3,), "f8")
        virtual[:] = h5py.VirtualSource(str(outside), "x", (3,))
        file.create_virtual_dataset("x", virtual)
    assert "x has its values somewhere else" in refused(path)


def test_a_group_within_itself(tmp_path):
    path = tmp_path / "loop.h5"
    with h5py.File(path, "w") as file:
        file.create_group("a")["b"] = file["/"]
    assert "within itself" in refused(path)


def test_claims_of_values_that_are_not_there(tmp_path):
    path = tmp_path / "claims.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 36,), "f")
    assert "x claims" in refused(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 36,), "f", chunks=(1 << 16,))
    assert "it claims" in refused(path)


def test_values_of_no_dtype_of_numpys(tmp_path):
    path = tmp_path / "text.h5"
    with h5py.File(path, "w") as file:
        file["x"] = "text"
    with path.open("rb") as file, Hdf5(file, str(path)) as arrays:
        with pytest.raises(CheckpointError, match=f"{path}: x is of dtype"):
            arrays.read("x")


# The whole network


@pytest.fixture
def written(twins):
    """The files of both tasks."""
    name = "inception_resnet_v2-{}-keras-weights-stand-in.weights.h5"
    return {task: twins / name.format(task) for task in TASKS}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "size"), CASES)
def test_keras_applications_computes_what_tf_slim_does(written, reference, task, size):
    """In `tests/consumers`, each task does at both sizes, and with Keras 2."""
    with application.open(written[task]) as artifact:
        assert artifact.check() == []
        batch = images.generate(2, *size, seed=3)
        output = TASKS[task].output
        found = artifact.run(batch)[output]
        expected = reference.outputs(batch, [output])[output]
        if task == "classification":
            expected = expected[:, artifact.first_class :]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_what_is_lost_on_the_way_back_is_said(written, stand_in_checkpoint):
    """Without "background", it is another network: of 1000 classes."""
    found = open_checkpoint(written["classification"])
    assert found.num_classes == 1000
    assert found.identity != stand_in_checkpoint.identity
    assert found.identity_of_features == stand_in_checkpoint.identity_of_features
    assert any('"background"' in note for note in found.notes)
    features = open_checkpoint(written["feature_vector"])
    assert features.identity == stand_in_checkpoint.identity_of_features
