"""The twins of `small_build`'s block: its files are written and read in no time."""

from __future__ import annotations

import numpy as np
import pytest
import small_build

from checkpoints import keras_weights, twins
from checkpoints.reader import Checkpoint, open_checkpoint
from exporters.errors import ForeignFileError
from exporters.formats import FORMATS, open_artifact
from exporters.network.tasks import TASKS

CHECKPOINT = small_build.checkpoint()
_ROWS = (
    twins._Row("scope/first/Relu", 1, 2, "conv2d", "first"),
    twins._Row("scope/left/Relu", 4, 5, "conv2d_1", "block.0.left"),
    # Branches are not in the order of the definition, as in Keras's network.
    twins._Row("scope/right/Relu", 7, 6, "conv2d_2", "block.0.right"),
    twins._Row("scope/up", 9, None, "block_conv", "block.0.up"),
    twins._Row("scope/logits", 12, None, "predictions", "classif"),
)


def install(monkeypatch) -> None:
    """Puts the block, and where its twins keep variables, in the network's place."""
    small_build.install(monkeypatch)
    monkeypatch.setattr(twins, "_rows", lambda: _ROWS)
    for name in ("keras_layers", "timm_names", "timm_gammas"):
        monkeypatch.setattr(twins, name, getattr(twins, name).__wrapped__)
    monkeypatch.setattr(keras_weights, "_LAST_KERNEL", "scope/up/weights")


def write(directory, format, task="classification", checkpoint=CHECKPOINT):
    """Writes a file of the block, once it is installed."""
    row = FORMATS[format]
    path = directory / f"{task}{row.container.suffix}"
    build = small_build.build(checkpoint)
    return small_build.write(build, row, TASKS[task], path)


def variables(task="classification", checkpoint: Checkpoint = CHECKPOINT):
    """Those that a file of a task holds."""
    return {
        name: values
        for name, values in checkpoint.items()
        if task == "classification" or not name.startswith("scope/logits/")
    }


def writing(format):
    """A fixture that writes a file of the block, for a task."""

    @pytest.fixture
    def small(monkeypatch, tmp_path):
        install(monkeypatch)
        return lambda task="classification": write(tmp_path, format, task)

    return small


# What holds for the weights of every twin


def check_what_it_says(path, format, task) -> None:
    artifact, row = open_artifact(path)
    assert row.name == artifact.format == format
    assert artifact.task.name == artifact.record.task == task
    assert artifact.record.checkpoint_identity == CHECKPOINT.identity
    assert artifact.input_range == (-1, 1)
    assert artifact.check() == []
    names = small_build.LABELS if task == "classification" else ()
    assert tuple(artifact.labels()) == names


def check_variables(path, task) -> None:
    artifact, _ = open_artifact(path)
    found, expected = artifact.weights(), variables(task)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].values, values)


def check_same_bytes(small) -> None:
    first = small().read_bytes()
    assert small().read_bytes() == first


def check_a_file_without_a_record(path, said) -> None:
    """Another tool's: no artifact, and a checkpoint all the same."""
    with pytest.raises(ForeignFileError, match=said):
        open_artifact(path)
    assert open_checkpoint(path, check_layout=False).identity == CHECKPOINT.identity
