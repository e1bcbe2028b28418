"""The 908 variables of the published checkpoint, and the check against them."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from checkpoints.errors import CheckpointError
from checkpoints.tensors import Spec

BOOKKEEPING_VARIABLES = frozenset({"global_step"})
"""Variables that a training checkpoint may carry beside the published ones."""

_MAX_LINES = 4  # for each kind of problem


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
      CheckpointLayoutError: as `check_specs` and `check_values` do.
    """
    specs = {name: Spec(str(v.dtype), v.shape) for name, v in variables.items()}
    check_specs(specs, source)
    check_values(variables, source)


def check_specs(specs: Mapping[str, Spec], source: str) -> None:
    """Checks names, shapes and dtypes of a checkpoint's variables.

    Args:
      specs: variable name -> dtype and shape.
      source: what to call the checkpoint in the error, usually its path.

    Raises:
      CheckpointLayoutError: with all problems at once: missing and unexpected
        variables, wrong shapes, wrong dtypes.
    """
    expected = variable_shapes()
    problems: dict[str, list[str]] = {
        "missing": [name for name in expected if name not in specs],
        "unexpected": [
            name
            for name in specs
            if name not in expected and name not in BOOKKEEPING_VARIABLES
        ],
        "of the wrong shape": [],
        "of the wrong dtype": [],
    }
    for name in expected.keys() & specs.keys():
        spec = specs[name]
        if spec.shape != expected[name]:
            problems["of the wrong shape"].append(
                f"{name}: {list(spec.shape)}, expected {list(expected[name])}"
            )
        if spec.dtype != "float32":
            problems["of the wrong dtype"].append(
                f"{name}: {spec.dtype}, expected float32"
            )
    _raise(
        f"{source} is not a checkpoint of inception_resnet_v2. Found {len(specs)} "
        f"variables, expected the {len(expected)} that TF-Slim's definition has:",
        problems,
    )


def check_values(variables: Mapping[str, np.ndarray], source: str) -> None:
    """Checks the values of the network's variables.

    Args:
      variables: variable name -> float32 array.
      source: what to call the checkpoint in the error, usually its path.

    Raises:
      CheckpointLayoutError: with all problems at once: values that are not finite or,
        for moving variances, negative.
    """
    problems: dict[str, list[str]] = {"not finite": [], "negative": []}
    for name in variable_shapes().keys() & variables.keys():
        value = variables[name]
        bad = value.size - np.count_nonzero(np.isfinite(value))
        if bad:
            problems["not finite"].append(f"{name}: {bad} of {value.size} values")
        elif name.endswith("/moving_variance") and (value < 0).any():
            problems["negative"].append(f"{name}: minimum {value.min()}")
    _raise(f"{source} holds values that no network can work with:", problems)


def _raise(headline: str, problems: Mapping[str, list[str]]) -> None:
    """Raises an error with a few lines for each kind of problem, if there are any."""
    message = [headline]
    for kind, lines in problems.items():
        if lines:
            message.append(f"  {len(lines)} {kind}:")
            message += [f"    {line}" for line in sorted(lines)[:_MAX_LINES]]
        if len(lines) > _MAX_LINES:
            message.append(f"    and {len(lines) - _MAX_LINES} more")
    if len(message) > 1:
        raise CheckpointLayoutError("\n".join(message))
