"""The network as a TF.js graph: TensorFlow's GraphDef in JSON, without weights.

Ops and names are those that the converter of TF.js made of a `hub.Module`: everything
that is computed below `module_apply_default/`, weights below `module/`, and what follows
a convolution fused with it.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import numpy as np

from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.network.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    Layer,
    Network,
    Pool,
    Softmax,
)

INPUT = "images"
OUTPUT = "default"
"""Key of the output in the signature, as in that of the `hub.Module`."""
WEIGHTS = "module/"
"""What the names of weights begin with."""
_APPLIED = "module_apply_default/"
_FEATURE_VECTOR = f"{_APPLIED}hub_output/feature_vector/SpatialSqueeze"
_FIXED_MEAN = f"{_APPLIED}InceptionResnetV2/Logits/AvgPool_1a_8x8/AvgPool"
_CONCAT_AXIS = f"{_APPLIED}InceptionResnetV2/InceptionResnetV2/concat/axis"
_VERSIONS = {"producer": 27, "minConsumer": 12}
"""Of GraphDef, as TensorFlow 1.12 wrote it."""
_FLOAT, _INTEGER = "DT_FLOAT", "DT_INT32"


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph, as JSON.

    Attributes:
      topology: GraphDef, whose constants have no values.
      signature: SignatureDef, from `INPUT` to `OUTPUT`.
      output: name of the node that gives the output.
      weights: name of a kernel or bias -> its shape.
      constants: name -> int32 values, of all other constants.
    """

    topology: Mapping[str, Any]
    signature: Mapping[str, Any]
    output: str
    weights: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, np.ndarray]


def build(network: Network, image_size: tuple[int, int] | None) -> Graph:
    """Returns the graph of a network.

    Args:
      network: its last layer gives the output.
      image_size: (height, width) in pixels; None for any.
    """
    # All that depends on the size is the mean of a graph that is bound to one.
    shapes = network.shapes(image_size or (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE))
    images = (-1, *(image_size or (-1, -1)), 3)
    writer = _Writer(network, shapes, is_bound=image_size is not None)
    writer.add("Placeholder", INPUT, [], dtype=_type(_FLOAT), shape=_shape(images))
    for layer in network.layers:
        writer.add_layer(layer)
    last = network.layers[-1].name
    output = writer.names[last]
    return Graph(
        topology={"node": writer.nodes, "library": {}, "versions": _VERSIONS},
        signature={
            "inputs": {INPUT: _tensor(INPUT, images)},
            "outputs": {OUTPUT: _tensor(output, (-1, *shapes[last]))},
        },
        output=output,
        weights=writer.weights,
        constants=writer.constants,
    )


class _Writer:
    """Adds a network's layers to a graph.

    Attributes:
      nodes: so far, each after those that it reads.
      names: layer, or the network's input -> its node.
      weights: name of a kernel or bias -> its shape.
      constants: name -> values, of other constants.
    """

    def __init__(
        self,
        network: Network,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        is_bound: bool,
    ):
        self.nodes: list[dict[str, Any]] = []
        self.names = {network.input: INPUT}
        self.weights: dict[str, tuple[int, ...]] = {}
        self.constants: dict[str, np.ndarray] = {}
        self._last = network.layers[-1]
        self._shapes = shapes
        self._is_bound = is_bound

    def add_layer(self, layer: Layer) -> None:
        """Adds a layer; where it has weights, constants without values."""
        name = self.names[layer.name] = self._node_name(layer)
        match layer:
            case Conv(_, x, scope):
                kernel = (*layer.window, self._shapes[x][-1], layer.channels)
                self.add(
                    "_FusedConv2D",
                    name,
                    [self.names[x], *self._add_weights(scope, kernel)],
                    T=_type(_FLOAT),
                    num_args=_integer(1),
                    fused_ops=_texts(
                        ["BiasAdd", "Relu"] if layer.relu else ["BiasAdd"]
                    ),
                    epsilon={"f": 0.0},
                    dilations=_integers((1, 1, 1, 1)),
                    **_window(layer.stride, layer.padding),
                )
            case Pool(_, x, kind, window, stride, padding):
                op = "MaxPool" if kind == "max" else "AvgPool"
                self._add_pool(op, name, x, window, stride, padding)
            case Concat(_, inputs):
                axis = self._add_constant(_CONCAT_AXIS, np.array(3, np.int32))
                self.add(
                    "ConcatV2",
                    name,
                    [*(self.names[x] for x in inputs), axis],
                    N=_integer(len(inputs)),
                    T=_type(_FLOAT),
                    Tidx=_type(_INTEGER),
                )
            case Add(_, inputs, relu):
                sum_ = f"{name.removesuffix('Relu')}add" if relu else name
                self.add("Add", sum_, [self.names[x] for x in inputs], T=_type(_FLOAT))
                if relu:
                    self.add("Relu", name, [sum_], T=_type(_FLOAT))
            case GlobalMean(_, x) if self._is_bound:
                height, width, _ = self._shapes[x]
                self._add_pool("AvgPool", name, x, (height, width), 1, "VALID")
            case GlobalMean(_, x):
                axes = np.array([1, 2], np.int32)
                axes_name = self._add_constant(f"{name}/reduction_indices", axes)
                self.add(
                    "Mean",
                    name,
                    [self.names[x], axes_name],
                    T=_type(_FLOAT),
                    Tidx=_type(_INTEGER),
                    keep_dims={"b": True},
                )
            case Flatten(_, x) if layer is self._last:
                squeezed = _integers((1, 2))
                source = [self.names[x]]
                self.add(
                    "Squeeze", name, source, T=_type(_FLOAT), squeeze_dims=squeezed
                )
            case Flatten(_, x):
                shape = np.array([-1, *self._shapes[layer.name]], np.int32)
                shape_name = self._add_constant(f"{name}/shape", shape)
                self.add(
                    "Reshape",
                    name,
                    [self.names[x], shape_name],
                    T=_type(_FLOAT),
                    Tshape=_type(_INTEGER),
                )
            case Dense(_, x, scope, units):
                matrix = (self._shapes[x][-1], units)
                self.add(
                    "_FusedMatMul",
                    name,
                    [self.names[x], *self._add_weights(scope, matrix)],
                    T=_type(_FLOAT),
                    transpose_a={"b": False},
                    transpose_b={"b": False},
                    num_args=_integer(1),
                    fused_ops=_texts(["BiasAdd"]),
                    epsilon={"f": 0.0},
                )
            case Softmax(_, x):
                self.add("Softmax", name, [self.names[x]], T=_type(_FLOAT))
            case _:
                assert_never(layer)

    def _node_name(self, layer: Layer) -> str:
        if isinstance(layer, Flatten) and layer is self._last:
            return _FEATURE_VECTOR
        if isinstance(layer, GlobalMean) and self._is_bound:
            return _FIXED_MEAN
        return f"{_APPLIED}{layer.name}"

    def _add_pool(
        self,
        op: str,
        name: str,
        x: str,
        window: tuple[int, int],
        stride: int,
        padding: str,
    ) -> None:
        self.add(
            op,
            name,
            [self.names[x]],
            T=_type(_FLOAT),
            ksize=_integers((1, *window, 1)),
            **_window(stride, padding),
        )

    def _add_weights(self, scope: str, kernel: tuple[int, ...]) -> list[str]:
        names = [f"{WEIGHTS}{scope}/weights", f"{WEIGHTS}{scope}/biases"]
        for name, shape in zip(names, (kernel, kernel[-1:])):
            self.weights[name] = shape
            self._add_const(name, _FLOAT, shape)
        return names

    def _add_constant(self, name: str, values: np.ndarray) -> str:
        """Adds a constant, unless it is there already."""
        if name not in self.constants:
            self.constants[name] = values
            self._add_const(name, _INTEGER, values.shape)
        return name

    def _add_const(self, name: str, dtype: str, shape: Sequence[int]) -> None:
        tensor = {"dtype": dtype, "tensorShape": _dimensions(shape)}
        self.add("Const", name, [], dtype=_type(dtype), value={"tensor": tensor})

    def add(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Adds a node."""
        self.nodes.append(
            {"name": name, "op": op, "input": list(inputs), "attr": attributes}
        )


# Attributes as JSON has them: integers are text, and text is in base64.


def _type(dtype: str) -> dict[str, str]:
    return {"type": dtype}


def _shape(sizes: Sequence[int]) -> dict[str, Any]:
    return {"shape": _dimensions(sizes)}


def _dimensions(sizes: Sequence[int]) -> dict[str, Any]:
    return {"dim": [{"size": str(size)} for size in sizes]}


def _tensor(node: str, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": f"{node}:0", "dtype": _FLOAT, "tensorShape": _dimensions(shape)}


def _integer(value: int) -> dict[str, str]:
    return {"i": str(value)}


def _integers(values: Sequence[int]) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def _text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def _texts(values: Sequence[str]) -> dict[str, Any]:
    return {"list": {"s": [_text(value)["s"] for value in values]}}


def _window(stride: int, padding: str) -> dict[str, Any]:
    return {
        "strides": _integers((1, stride, stride, 1)),
        "padding": _text(padding),
        "data_format": _text("NHWC"),
    }
