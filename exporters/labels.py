"""Names of classes, in the order of the logits, and which of them others have."""

from __future__ import annotations

import functools
import importlib.resources
from pathlib import Path

from exporters.errors import ExportError
from exporters.network.layers import NUM_CLASSES

_MOST_BYTES = 16 << 20


def first_without_background(num_classes: int | None) -> int:
    """Returns the first class that other libraries have: of 1001, all but "background".

    Own classes, however many, are all there.
    """
    return 1 if num_classes == NUM_CLASSES else 0


def imagenet_labels() -> tuple[str, ...]:
    """Returns the names of the 1001 published classes; the first is "background"."""
    return tuple(name for _, name in _imagenet_classes())


def imagenet_synsets() -> tuple[str, ...]:
    """Returns the synsets of the 1001 published classes; the first has none, ""."""
    return tuple(synset for synset, _ in _imagenet_classes())


@functools.cache
def _imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Returns the synset and the name of each class."""
    file = importlib.resources.files("exporters") / "data/imagenet_labels.tsv"
    rows = (line.split("\t") for line in file.read_text("utf-8").splitlines())
    return tuple((synset, name) for _, synset, name in rows)


def read_labels(file: Path) -> tuple[str, ...]:
    """Reads names of classes from a text file, one a line.

    Raises:
      ExportError: the file is no such list.
      OSError: it cannot be read.
    """
    if file.stat().st_size > _MOST_BYTES:
        raise ExportError(f"{file} has {file.stat().st_size} bytes; expected a list.")
    try:
        names = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ExportError(
            f"{file} is no text in UTF-8 ({error.reason} at byte {error.start}); "
            "expected the name of a class in each line."
        ) from error
    names = [name.strip() for name in names]
    empty = [number for number, name in enumerate(names, start=1) if not name]
    if empty:
        raise ExportError(
            f"{file} has an empty line {empty[0]}; expected the name of a class in each."
        )
    if not names:
        raise ExportError(
            f"{file} is empty; expected the name of a class in each line."
        )
    return tuple(names)


def as_labels(value: object) -> list[str]:
    """Returns the names of classes that JSON in an artifact holds, none if no names."""
    is_names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return value if is_names else []  # type: ignore[return-value]


def labels_for(
    num_classes: int | None, given: tuple[str, ...] | None, source: str = "labels"
) -> tuple[str, ...] | None:
    """Returns the names of a network's classes: those given, or ImageNet's for 1001.

    Args:
      num_classes: of the network; None if it has no classifier.
      given: names for it, if somebody gave some.
      source: what to call them in an error.

    Raises:
      ExportError: there are more or fewer names than classes.
    """
    if given is None:
        return imagenet_labels() if num_classes == NUM_CLASSES else None
    if num_classes is None:
        raise ExportError(
            f"{source}: the network has no classifier to name classes of."
        )
    if len(given) != num_classes:
        raise ExportError(
            f"{source}: {len(given)} names, expected one for each of the network's "
            f"{num_classes} classes."
        )
    return given
