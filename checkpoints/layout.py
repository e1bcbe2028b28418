"""The 908 variables of the published checkpoint, and the check against them."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from checkpoints.errors import CheckpointError

BOOKKEEPING_VARIABLES = frozenset({"global_step"})
"""Variables that a training checkpoint may carry beside the published ones."""

_MAX_LINES_PER_PROBLEM = 4


class CheckpointLayoutError(CheckpointError):
    """A checkpoint whose variables are not those of inception_resnet_v2."""


@functools.cache
def variable_shapes() -> Mapping[str, tuple[int, ...]]:
    """Returns name -> shape of the published variables, all of them float32.

    The list was enumerated from TF-Slim's definition of the network. It includes the
    auxiliary head and the 1001-class classifier: 59,244,594 numbers in all.
    """
    text = (importlib.resources.files("checkpoints") / "data/variables.tsv").read_text()
    shapes = {}
    for line in text.splitlines():
        name, shape, _ = line.split("\t")
        shapes[name] = tuple(int(size) for size in shape.split("x"))
    return MappingProxyType(shapes)


def check(variables: Mapping[str, np.ndarray], source: str) -> None:
    """Checks names, shapes, dtypes and values of a checkpoint's variables.

    Args:
      variables: variable name -> array.
      source: what to call the checkpoint in the error, usually its path.

    Raises:
      CheckpointLayoutError: with all problems at once: missing and unexpected
        variables, wrong shapes, wrong dtypes, values that are not finite or, for
        moving variances, negative.
    """
    expected = variable_shapes()
    problems = {
        "missing": [name for name in expected if name not in variables],
        "unexpected": [
            name
            for name in variables
            if name not in expected and name not in BOOKKEEPING_VARIABLES
        ],
        "of the wrong shape": [],
        "of the wrong dtype": [],
        "not finite": [],
        "negative": [],
    }
    for name in expected.keys() & variables.keys():
        value = variables[name]
        if value.shape != expected[name]:
            problems["of the wrong shape"].append(
                f"{name}: {list(value.shape)}, expected {list(expected[name])}"
            )
        if value.dtype != np.float32:
            problems["of the wrong dtype"].append(
                f"{name}: {value.dtype}, expected float32"
            )
            continue
        bad = value.size - np.count_nonzero(np.isfinite(value))
        if bad:
            problems["not finite"].append(f"{name}: {bad} of {value.size} values")
        elif name.endswith("/moving_variance") and (value < 0).any():
            problems["negative"].append(f"{name}: minimum {value.min()}")

    found = {kind: lines for kind, lines in problems.items() if lines}
    if not found:
        return
    message = [
        f"{source} is not a checkpoint of inception_resnet_v2. Found {len(variables)} "
        f"variables, expected the {len(expected)} that TF-Slim's definition has:"
    ]
    for kind, lines in found.items():
        message.append(f"  {len(lines)} {kind}:")
        message += [f"    {line}" for line in sorted(lines)[:_MAX_LINES_PER_PROBLEM]]
        if len(lines) > _MAX_LINES_PER_PROBLEM:
            message.append(f"    and {len(lines) - _MAX_LINES_PER_PROBLEM} more")
    raise CheckpointLayoutError("\n".join(message))
