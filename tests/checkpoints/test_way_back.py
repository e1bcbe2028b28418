"""Checkpoints out of what was made of them: SavedModels, modules, weights of twins."""

import shutil

import numpy as np
import pytest
import small_checkpoints

from checkpoints import files
from checkpoints.reader import Checkpoint, CheckpointError, open_checkpoint
from exporters.build import Build
from exporters.formats import FORMATS
from exporters.network.tasks import TASKS
from exporters.record import make

VARIABLES = small_checkpoints.variables()
IDENTITY = Checkpoint(VARIABLES, path="memory").identity


@pytest.fixture
def module(tmp_path):
    """A directory as TF Hub's modules of TensorFlow 1 are: variables by their names."""
    path = tmp_path / "module"
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"")
    small_checkpoints.write_v2(VARIABLES, path / "variables" / "variables")
    return path


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """A SavedModel of TensorFlow 2: variables by where an object has them."""
    import tensorflow as tf

    path = tmp_path_factory.mktemp("saved") / "model"
    model = tf.Module()
    model.parts = [tf.Variable(values, name=name) for name, values in VARIABLES.items()]
    tf.saved_model.save(model, str(path))
    return path


def open_any(path):
    return open_checkpoint(path, check_layout=False)


def test_a_module(module):
    found = open_any(module)
    assert found.container == "SavedModel"
    assert found.identity == IDENTITY
    assert found.path == module


def test_a_saved_model_of_objects(objects):
    found = open_any(objects)
    assert found.container == "SavedModel"
    assert found.identity == IDENTITY


def test_the_variables_of_a_saved_model(objects):
    """People name the file that looks like a checkpoint."""
    found = open_any(objects / "variables" / "variables.index")
    assert found.identity == IDENTITY


def test_a_module_in_tf_hubs_cache(module, tmp_path):
    """There a directory is called by a hash, and a text beside it says of what."""
    place = tmp_path / "tfhub_modules" / "0a1b2c"
    shutil.copytree(module, place)
    (place.parent / "0a1b2c.descriptor.txt").write_text("Module: https://tfhub.dev/x/1")
    assert open_any(place).identity == IDENTITY


def test_what_a_form_does_not_hold_is_said(module):
    assert open_any(module).notes == (
        "There is no auxiliary head: this form does not hold one.",
    )


def test_a_head_that_is_there_is_not_denied(tmp_path, monkeypatch):
    monkeypatch.setattr("checkpoints.layout.has_auxiliary_head", lambda variables: True)
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"")
    small_checkpoints.write_v2(VARIABLES, tmp_path / "variables" / "variables")
    assert open_any(tmp_path).notes == ()


def test_a_saved_model_without_variables(module):
    shutil.rmtree(module / "variables")
    with pytest.raises(CheckpointError, match=f"{module} is a SavedModel without vari"):
        open_any(module)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_damaged_variables_of_a_saved_model(module, suffix):
    path = module / "variables" / f"variables{suffix}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{module}.* is truncated or damaged"):
        open_any(module)


def test_a_saved_model_of_another_network(module):
    with pytest.raises(CheckpointError, match=f"{module} is not a checkpoint of incep"):
        open_checkpoint(module)


# The whole network


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "task"),
    [
        ("v1", "feature_vector"),
        ("v3", "classification"),
        ("v4", "feature_vector"),
        ("v5", "classification"),
    ],
)
def test_from_every_published_format(exported, stand_in_checkpoint, format, task):
    path = exported / f"inception_resnet_v2-{task}-{format}-stand-in"
    found = open_checkpoint(path)
    assert found.is_stand_in and not found.has_auxiliary_head
    if task == "classification":
        assert found.identity == stand_in_checkpoint.identity
        assert found.num_classes == 1001
    else:
        assert found.identity == stand_in_checkpoint.identity_of_features
        assert found.num_classes is None
        assert any("no classifier" in note for note in found.notes)
    for name, values in found.items():
        np.testing.assert_array_equal(values, stand_in_checkpoint[name])


@pytest.mark.slow
def test_from_v3_to_other_formats_byte_by_byte(exported, twins, tmp_path, build):
    """What people still have in a cache is as good as the checkpoint it was made of."""
    found = open_checkpoint(exported / "inception_resnet_v2-classification-v3-stand-in")
    task = TASKS["classification"]
    rebuild = Build(found, labels=build.labels, graphs=build.graphs)
    for name in ("v5", "keras", "keras-weights", "timm"):
        row = FORMATS[name]
        place = exported if name == "v5" else twins
        expected = place / row.artifact_name(task, is_stand_in=True)
        path = tmp_path / expected.name
        row.write(rebuild, task, make(name, task.name, found, {}), path)
        assert files.digests(path) == files.digests(expected), name
        again = open_checkpoint(path)
        if not row.container.leaves_background_out:
            assert again.identity == found.identity
        assert again.identity_of_features == found.identity_of_features
        shutil.rmtree(path) if path.is_dir() else path.unlink()
