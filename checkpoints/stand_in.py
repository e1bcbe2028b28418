"""Generated checkpoints with the published layout, for machines without the real one.

A stand-in classifies nothing. It is recognized as one wherever it is opened, by the
zero mean of its kernels (see `checkpoints.reader`).
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from checkpoints import files, layout, saved_slices
from checkpoints.scratch import scratch_beside

_DEVIATIONS = {"beta": 0.1, "biases": 0.05, "moving_mean": 0.1}


def generate(
    seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> dict[str, np.ndarray]:
    """Generates the 908 variables from a seed.

    Each variable has a random generator of its own, seeded by the CRC-32 of
    "seed:name", so the same seed gives the same bytes on every machine. Kernels are
    normal with He's deviation, sqrt(2 / inputs), and lose the mean of each output
    channel; moving variances are uniform in [0.5, 1.5]; the rest is normal with
    deviation 0.1 (beta, moving means) or 0.05 (biases).

    Args:
      seed: any integer.
      progress: called with the number of variables made so far, and that of all.

    Returns:
      Variable name -> float32 array.
    """
    shapes = layout.variable_shapes()
    variables = {}
    for number, (name, shape) in enumerate(shapes.items(), start=1):
        random = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
        kind = name.rpartition("/")[2]
        if kind == "weights":
            value = random.standard_normal(shape)
            inputs = tuple(range(len(shape) - 1))
            value -= value.mean(axis=inputs)
            value *= np.sqrt(2 / np.prod(shape[:-1]))
        elif kind == "moving_variance":
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.standard_normal(shape) * _DEVIATIONS[kind]
        variables[name] = value.astype(np.float32)
        if progress:
            progress(number, len(shapes))
    return variables


def write_v1(variables: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes variables as one file in TensorFlow's V1 checkpoint format, as published.

    The file appears at `path` only whole, and replaces the one that is there; its
    directory is made if there is none.

    Args:
      variables: name -> float32 array.
      path: the file.

    Raises:
      OSError: the file cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with scratch_beside(path) as scratch:
        unfinished = scratch / "unfinished"
        with unfinished.open("wb") as file:
            saved_slices.write(variables, file)
        files.replace({unfinished: path}, scratch)
