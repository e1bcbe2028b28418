"""What float16 can hold, said in the user's words where something does not fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporters.errors import ExportError

_LARGEST = float(np.finfo(np.float16).max)
_HEADROOM = 2
"""How far activations have to stay below the largest number: images differ."""


def rounded(name: str, values: np.ndarray) -> np.ndarray:
    """Returns a weight in float16.

    Args:
      name: of the weight.
      values: float32.

    Raises:
      ExportError: a value is too large.
    """
    largest = np.abs(values).max()
    if largest > _LARGEST:
        raise ExportError(
            f"{name} reaches {largest:.6g}: too much for float16, which ends at "
            f"{_LARGEST:.6g}. Use float32, or int8."
        )
    return values.astype(np.float16)


def check_activations(ranges: Mapping[str, tuple[float, float]]) -> None:
    """Checks that float16 can hold what a network computes.

    Args:
      ranges: layer -> (minimum, maximum) over the calibration images.

    Raises:
      ExportError: values are too large, or nearly.
    """
    for name, bounds in ranges.items():
        largest = np.abs(bounds).max()
        if largest > _LARGEST / _HEADROOM:
            raise ExportError(
                f"{name} reaches {largest:.6g} on the calibration images: too much for "
                f"float16, which ends at {_LARGEST:.6g}. Use float32, or int8."
            )
