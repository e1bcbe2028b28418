"""What a file holds, whatever tool made it: arrays, and what is done to images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

_ARITHMETIC = {
    "mul": "*",
    "add": "+",
    "addv2": "+",
    "biasadd": "+",
    "sub": "-",
    "div": "/",
    "realdiv": "/",
}
_PASSED = {
    *("cast", "identity", "transpose", "reshape", "squeeze", "quantize", "dequantize"),
    *("quantizelinear", "dequantizelinear", "placeholderwithdefault", "resizebilinear"),
    *("resize", "pad", "padv2", "clip", "stopgradient", "snapshot", "expanddims"),
}
_MOST_STEPS = 50
_ORDERED = ("ONNX", "TFLite", "OpenVINO", "TF.js")
"""Forms whose nodes come after those that they read."""


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array as a file holds it.

    Attributes:
      name: what the file calls it.
      values: float32, of what it stands for; integers as they are, less their zero
        point, where the file does not say in which steps.
      dtype: in which it is stored.
      steps: of integers, to be multiplied with `values`' shape by broadcasting; None for
        floats, and where the file does not say.
    """

    name: str
    values: np.ndarray
    dtype: str
    steps: np.ndarray | None = None

    @property
    def is_integer(self) -> bool:
        """Whether values are rounded to integers."""
        return "int" in self.dtype

    @property
    def is_vector(self) -> bool:
        """Whether it may be a layer's biases, or a part of its batch norm."""
        is_long = self.values.size == max(self.values.shape, default=0) > 1
        return is_long and self.dtype != "int64"  # Of shapes.

    @property
    def rounding(self) -> float:
        """Root of the mean square of what rounding to integers changes a value by."""
        if not self.is_integer:
            return 0.0
        steps = np.ones(1) if self.steps is None else self.steps
        return float(np.sqrt(np.mean(np.square(steps, dtype=np.float64)) / 12))


@dataclasses.dataclass(frozen=True)
class Node:
    """A step of a graph: what it does to which tensors, by their names."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Affine:
    """`scale * x + offset`, for each number of images or for each of their channels."""

    scale: np.ndarray
    offset: np.ndarray


UNCHANGED = Affine(np.ones(1), np.zeros(1))


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
      form: "ONNX", "TFLite", "SavedModel", "frozen graph", "TF.js", "OpenVINO", "HDF5",
        "Keras", "safetensors", "PyTorch" or what `checkpoints.location` says.
      arrays: all of them, in an order of names or of use that is their makers'.
      nodes: of the graph, where there is one.
      preprocessing: what is done to images before the first layer; None where the file
        does not say.
    """

    form: str
    arrays: Sequence[StoredArray]
    nodes: Sequence[Node] = ()
    preprocessing: Affine | None = None

    def in_order_of_use(self) -> Sequence[StoredArray]:
        """The arrays in the order in which the graph's layers read them.

        Names decide where there is no graph, or none whose nodes are in order.
        """
        if self.form not in _ORDERED:
            return self.arrays
        used: dict[str, int] = {}
        makers = {name: node for node in self.nodes for name in node.outputs}
        for number, node in enumerate(self.nodes):
            if node.kind in _PASSED:
                continue
            for name in node.inputs:
                while name in makers and makers[name].kind in _PASSED:
                    name = makers[name].inputs[0]
                used.setdefault(name, number)
        last = len(self.nodes)
        return sorted(self.arrays, key=lambda array: used.get(array.name, last))

    def before(self, kernel: str) -> Affine | None:
        """What is done to images before the layer that has a kernel.

        Args:
          kernel: its name.

        Returns:
          None where that cannot be told.
        """
        if self.preprocessing is not None or not self.nodes:
            return self.preprocessing
        constants = {array.name: array.values for array in self.arrays}
        makers = {name: node for node in self.nodes for name in node.outputs}
        names = {kernel}
        for node in self.nodes:
            if not names & set(node.inputs):
                continue
            if "conv" in node.kind:
                return _before(node.inputs[0], makers, constants)
            names.update(node.outputs)
        return None


def _before(
    name: str, makers: Mapping[str, Node], constants: Mapping[str, np.ndarray]
) -> Affine | None:
    scale, offset = np.ones(1), np.zeros(1)
    for _ in range(_MOST_STEPS):
        node = makers.get(name)
        if node is None or not node.inputs:
            return Affine(scale, offset)
        if node.kind in _PASSED:
            name = node.inputs[0]
            continue
        sign = _ARITHMETIC.get(node.kind)
        if sign is None or len(node.inputs) < 2:
            return None
        first, second = (
            _constant(source, makers, constants) for source in node.inputs[:2]
        )
        is_second = first is None
        value = second if first is None else first
        if value is None or (first is not None and second is not None):
            return None
        name = node.inputs[0 if is_second else 1]
        # What has been found so far comes after this step: x becomes this step's result.
        if sign == "*":
            scale = scale * value
        elif sign == "/" and is_second:
            scale = scale / value
        elif sign == "+":
            offset = offset + scale * value
        elif sign == "-" and is_second:
            offset = offset - scale * value
        else:
            return None
    return None


def _constant(
    name: str, makers: Mapping[str, Node], constants: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """A number, or one for each of three channels."""
    for _ in range(_MOST_STEPS):
        if name in constants:
            values = constants[name].astype(np.float64).reshape(-1)
            return values if values.size in (1, 3) else None
        node = makers.get(name)
        if node is None or node.kind not in _PASSED or not node.inputs:
            return None
        name = node.inputs[0]
    return None


def kernels_in(arrays: Sequence[StoredArray]) -> Iterator[StoredArray]:
    """The arrays that may be kernels: of two dimensions or more, and not tiny."""
    for array in arrays:
        shape = array.values.shape
        if not 2 <= len(shape) <= 4 or array.values.size < _LEAST_KERNEL:
            continue
        # Biases may have other dimensions, of 1; so has a matrix for one class.
        if len(shape) == 2 or array.values.size > max(shape):
            yield array


_LEAST_KERNEL = 128
"""Numbers; the network's smallest kernel has 864."""
