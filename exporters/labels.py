"""The names of the 1001 classes, in the order of the logits."""

from __future__ import annotations

import functools
import importlib.resources


@functools.cache
def labels() -> tuple[str, ...]:
    """Returns the class names; the first is "background"."""
    file = importlib.resources.files("exporters") / "data/imagenet_labels.tsv"
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(line.split("\t")[2] for line in lines)
