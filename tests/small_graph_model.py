"""A TF.js model of a block, which is small and quick."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import small_networks
from small_networks import BLOCK

from exporters.formats import FORMATS
from exporters.network.tasks import CLASSIFICATION, Task
from exporters.record import Record

WEIGHTS = small_networks.weights(BLOCK)
LABELS = ("background", "daisy", "rose", "<b>tulip</b>", "Ümlaut", "iris")


def write(
    path: Path,
    name: str = "tfjs-v3",
    task: Task = CLASSIFICATION,
    *,
    is_stand_in: bool = True,
    num_classes: int = len(LABELS),
) -> Path:
    """Writes a model in a format, of a checkpoint with classes of its own or not."""
    build: Any = types.SimpleNamespace(
        network=BLOCK, weights=lambda: WEIGHTS, labels=LABELS
    )
    provenance = "stand-in" if is_stand_in else "unverified"
    record = Record(name, task.name, "0" * 64, provenance, is_stand_in, num_classes)
    FORMATS[name].write(build, task, record, path)
    return path


def content(path: Path) -> dict[str, Any]:
    """What model.json says."""
    return json.loads((path / "model.json").read_text(encoding="utf-8"))


def outputs(images: np.ndarray, task: Task) -> np.ndarray:
    """What the block computes, by TensorFlow's own functions."""
    return small_networks.run(BLOCK, WEIGHTS, images)[BLOCK.endpoints[task.endpoint]]
