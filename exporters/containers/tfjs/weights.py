"""The weights of a TF.js model: a manifest, and the files that it names.

All values lie one after the other, cut into files of 4 MiB. Those of kernels and biases
may be stored as float16, or as uint8 with a scale and a minimum for each array, which
loaders turn into float32 (`quantization` in TF.js's io/types.ts).
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters import float16
from exporters.artifact import StoredWeight
from exporters.errors import ArtifactError
from exporters.network import quantization
from exporters.network.quantization import UINT8_ZERO, Quantization

SHARD_BYTES = 4 << 20

_DTYPES = ("float32", "int32")
_MOST_WEIGHTS = 10_000
_MOST_DIMENSIONS = 8
_MULTIPLE = 1e-3
"""How far the minimum of uint8 may be from a multiple of its scale, in steps."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A weight, and what the manifest says of it.

    Attributes:
      spec: name, shape, dtype and, if it has one, quantization; as JSON values.
      values: as they are stored.
    """

    spec: Mapping[str, Any]
    values: np.ndarray


def encode(name: str, values: np.ndarray, stored: str) -> Entry:
    """Returns a weight as it is stored.

    Args:
      name: of its node in the graph.
      values: float32 or int32.
      stored: "float32", "float16" or "uint8"; what is int32 stays so.

    Raises:
      ExportError: a value is too large for float16.
    """
    spec = {"name": name, "shape": list(values.shape), "dtype": values.dtype.name}
    if values.dtype != np.float32 or stored == "float32":
        return Entry(spec, values)
    if stored == "float16":
        facts = {"dtype": stored, "original_dtype": "float32"}
        rounded = float16.rounded(name, values)
        return Entry(spec | {"quantization": facts}, rounded)
    rounding = quantization.of_range(float(values.min()), float(values.max()))
    integers = rounding.quantize(values, np.int8).view(np.uint8) ^ UINT8_ZERO
    scale = float(rounding.scale[0])
    affine = {
        "dtype": stored,
        "min": -scale * (rounding.zero_point + UINT8_ZERO),
        "scale": scale,
        "original_dtype": "float32",
    }
    return Entry(spec | {"quantization": affine}, integers)


def write(entries: Sequence[Entry], directory: Path) -> list[dict[str, Any]]:
    """Writes the files of weights, and returns their manifest."""
    data = np.concatenate(
        [
            np.ascontiguousarray(entry.values).reshape(-1).view(np.uint8)
            for entry in entries
        ]
    )
    paths = _file_names(data.nbytes)
    for number, name in enumerate(paths):
        start = number * SHARD_BYTES
        (directory / name).write_bytes(data[start : start + SHARD_BYTES].data)
    return [{"paths": paths, "weights": [dict(entry.spec) for entry in entries]}]


def _file_names(total: int) -> list[str]:
    count = -(-total // SHARD_BYTES)
    return [f"group1-shard{number}of{count}.bin" for number in range(1, count + 1)]


def read(directory: Path, manifest: Any, source: str) -> dict[str, StoredWeight]:
    """Reads the weights that a manifest names, those of uint8 as int8.

    Nothing is read before all sizes are known to fit.

    Args:
      directory: where the files are.
      manifest: JSON value, to be checked.
      source: what to call its place in an error.

    Raises:
      ArtifactError: the manifest is none that `write` made, or a file is missing or of
        another size.
    """
    group = _checked_group(manifest, source)
    specs = [_checked_spec(spec, source) for spec in group["weights"]]
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise problem(source, "two weights of one name", "a name for each")
    total = sum(spec.bytes for spec in specs)
    count = -(-total // SHARD_BYTES)
    paths = group["paths"]
    if len(paths) != count or paths != _file_names(total):
        raise problem(
            source,
            f"weights of {total:,} bytes in the files {reprlib.repr(paths)}",
            f"{count:,} files, group1-shard1of{count}.bin and so on",
        )
    for number, name in enumerate(paths, start=1):
        file = directory / name
        expected = min(SHARD_BYTES, total - (number - 1) * SHARD_BYTES)
        if not file.is_file():
            raise ArtifactError(f"{file} is missing. Export the artifact again.")
        if file.stat().st_size != expected:
            raise problem(str(file), f"{file.stat().st_size:,} bytes", f"{expected:,}")
    data = np.empty(total, np.uint8)
    for number, name in enumerate(paths):
        start = number * SHARD_BYTES
        with (directory / name).open("rb") as file:
            file.readinto(data[start : start + SHARD_BYTES].data)
    weights = {}
    start = 0
    for spec in specs:
        weights[spec.name] = spec.decode(data[start : start + spec.bytes])
        start += spec.bytes
    return weights


@dataclasses.dataclass(frozen=True)
class _Spec:
    """What a manifest says of a weight, checked.

    Attributes:
      name: of its node in the graph.
      shape: of the array.
      dtype: in which it is stored.
      quantization: what int8 stands for, which is uint8 in the file; None for others.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    quantization: Quantization | None

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def decode(self, data: np.ndarray) -> StoredWeight:
        values = data.view(self.dtype).reshape(self.shape)
        if self.dtype == np.uint8:
            values = (values ^ UINT8_ZERO).view(np.int8)
        return StoredWeight(values, self.quantization)


def as_float32(weight: StoredWeight) -> np.ndarray:
    """Returns the values that a loader computes with; int32 as it is."""
    if weight.quantization:
        return weight.quantization.dequantize(weight.values).astype(np.float32)
    if weight.values.dtype == np.float16:
        return weight.values.astype(np.float32)
    return weight.values


def _checked_group(manifest: Any, source: str) -> dict[str, Any]:
    match manifest:
        case [{"paths": list(), "weights": list() as weights} as group]:
            if len(weights) <= _MOST_WEIGHTS:
                return group
    raise problem(
        source,
        f"the weightsManifest {reprlib.repr(manifest)}",
        f"one group with paths and at most {_MOST_WEIGHTS:,} weights",
    )


def _checked_spec(spec: Any, source: str) -> _Spec:
    match spec:
        case {"name": str(name), "shape": list(shape), "dtype": str(dtype)} if (
            dtype in _DTYPES
            and len(shape) <= _MOST_DIMENSIONS
            and all(type(size) is int and size >= 0 for size in shape)
        ):
            facts = spec.get("quantization")
            if facts is None:
                return _Spec(name, tuple(shape), np.dtype(dtype), None)
            if dtype == "float32":
                return _Spec(name, tuple(shape), *_checked_quantization(facts, source))
    raise problem(
        source,
        f"the weight {reprlib.repr(spec)}",
        "a name, a shape and a dtype, which is float32 or int32; float32 may be stored "
        "as float16 or uint8",
    )


def _checked_quantization(
    facts: Any, source: str
) -> tuple[np.dtype, Quantization | None]:
    match facts:
        case {"dtype": "float16"}:
            return np.dtype(np.float16), None
        case {"dtype": "uint8", "min": float(least), "scale": float(scale)} if (
            math.isfinite(least) and math.isfinite(scale) and scale > 0
        ):
            zero = round(-least / scale)
            if abs(least + zero * scale) <= _MULTIPLE * scale and 0 <= zero <= 255:
                rounding = np.array([scale], np.float32)
                return np.dtype(np.uint8), Quantization(rounding, zero - UINT8_ZERO)
    raise problem(
        source,
        f"the quantization {reprlib.repr(facts)}",
        "the dtype float16; or uint8, with a scale and a min that is one of -255 to 0 "
        "times the scale",
    )


def problem(source: str, found: str, expected: str) -> ArtifactError:
    """Returns an error on a file of a model."""
    return ArtifactError(
        f"{source} has {found}; expected {expected}. It is damaged, or was changed: "
        "export it again."
    )
