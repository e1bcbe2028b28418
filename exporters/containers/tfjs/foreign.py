"""TF.js models of any tool's: graphs, or Keras's layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import files
from checkpoints.regular_file import open_regular
from exporters.artifact import first_line
from exporters.errors import ArtifactError
from exporters.identifying.contents import Contents, Node, StoredArray

_MODEL = "model.json"
_KINDS = ("graph-model", "layers-model")
_DTYPES = ("float32", "float16", "int32", "uint8", "uint16", "bool")
_MOST_WEIGHTS = 100_000


def read(path: Path) -> Contents:
    """Reads the weights of a model's directory, and the nodes of its graph.

    Raises:
      ArtifactError: a file is missing, or damaged.
    """
    source = path / _MODEL
    try:
        model = files.read_json(source)
        if model.get("format", _KINDS[0]) not in _KINDS:
            raise ValueError(f"the format {model['format']!r}")
        arrays = [
            array
            for group in model["weightsManifest"]
            for array in _arrays(path, group)
        ]
        nodes = list(_nodes(model["modelTopology"]))
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise ArtifactError(f"{source} is damaged: {first_line(error)}") from error
    except OSError as error:
        raise ArtifactError(
            f"{source} cannot be read, or a file that it names: {first_line(error)}"
        ) from error
    return Contents("TF.js", arrays, nodes)


def _nodes(topology: dict[str, Any]) -> Iterator[Node]:
    """Those of a graph but for constants; models of layers have none."""
    for node in topology.get("node", ()):
        if node["op"] != "Const":
            inputs = [name.partition(":")[0] for name in node.get("input", ())]
            yield Node(node["op"].lower(), inputs, [node["name"]])


def _arrays(directory: Path, group: dict[str, Any]) -> Iterator[StoredArray]:
    """The weights of a group, which lie in its files one after the other."""
    specs = group["weights"]
    if len(specs) > _MOST_WEIGHTS:
        raise ValueError(f"{len(specs):,} weights")
    data = b"".join(_content(directory, name) for name in group["paths"])
    start = 0
    for spec in specs:
        rounding = spec.get("quantization", {})
        stored = rounding.get("dtype", spec["dtype"])
        if stored == "string":  # Of no size that is known.
            return
        if stored not in _DTYPES:
            raise ValueError(f"{spec['name']} is of dtype {stored!r}")
        dtype, shape = np.dtype(stored), tuple(map(int, spec["shape"]))
        end = start + math.prod(shape) * dtype.itemsize
        if min(shape, default=1) < 0 or end > len(data):
            raise ValueError(f"{spec['name']} is beyond the end of {group['paths']}")
        values = np.frombuffer(data[start:end], dtype).reshape(shape)
        start = end
        array, steps = values.astype(np.float32), None
        if "scale" in rounding:
            steps = np.full(1, rounding["scale"], np.float32)
            array = array * steps + np.float32(rounding["min"])
        yield StoredArray(spec["name"], array, stored, steps)


def _content(directory: Path, name: str) -> bytes:
    """A file beside the model; no path leads out of its directory."""
    if Path(name).name != name:
        raise ValueError(f"its weights are said to be at {name!r}")
    with open_regular(directory / name) as file:
        content: bytes = file.read()
    return content
