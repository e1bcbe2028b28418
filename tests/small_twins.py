"""The twins of `small_build`'s block: its files are written and read in no time."""

from __future__ import annotations

import small_build

from checkpoints import keras_weights, twins
from checkpoints.reader import Checkpoint
from exporters.formats import FORMATS
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
