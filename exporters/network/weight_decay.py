"""The losses by which training keeps weights small, as artifacts offer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from exporters.network.inception_resnet_v2 import WEIGHT_DECAY

_TOLERANCE = 1e-5
"""Relative; sums of float32 squares are not of one order."""


def problems(
    found: Sequence[float] | Sequence[np.ndarray], variables: Mapping[str, np.ndarray]
) -> list[str]:
    """Says in words how losses differ from those of the variables.

    Args:
      found: the losses, in any order.
      variables: name -> array; those that are not regularized are passed over.
    """
    expected = sorted(
        WEIGHT_DECAY / 2 * float(np.vdot(value, value.astype(np.float64)))
        for name, value in variables.items()
        if name.endswith(("/weights", "/biases"))
    )
    if len(found) != len(expected):
        return [f"{len(found)} regularization losses, expected {len(expected)}"]
    if np.allclose(sorted(map(float, found)), expected, _TOLERANCE, 1e-12):
        return []
    return ["regularization losses: not those of the weights"]
