"""The network in TFLite's operators: convolutions with bias and activation in one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from exporters.inference_graph import InferenceGraph

_OPERATORS = {
    "Conv2D": "CONV_2D",
    "MatMul": "FULLY_CONNECTED",
    "MaxPool": "MAX_POOL_2D",
    "AvgPool": "AVERAGE_POOL_2D",
    "Mean": "MEAN",
    "ConcatV2": "CONCATENATION",
    "AddV2": "ADD",
    "Softmax": "SOFTMAX",
}
_MERGED = ("BiasAdd", "Relu", "Squeeze")
_TO_TFLITE = {4: (3, 0, 1, 2), 2: (1, 0)}
_FROM_TFLITE = {4: (1, 2, 3, 0), 2: (1, 0)}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One TFLite operator with one output.

    Attributes:
      operator: TFLite's name, such as "CONV_2D".
      name: of the output tensor.
      inputs: names of the input activations.
      shape: of the output, for a batch of one.
      scope: where its weights and biases are in the checkpoint, if it has any.
      window: (height, width) of a kernel or pool.
      strides: (vertical, horizontal).
      padding: "SAME" or "VALID".
      has_relu: whether the output is rectified.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    scope: str = ""
    window: tuple[int, ...] = (1, 1)
    strides: tuple[int, ...] = (1, 1)
    padding: str = "VALID"
    has_relu: bool = False


@dataclasses.dataclass(frozen=True)
class Network:
    """All layers from the images to one output.

    Attributes:
      images: name of the input tensor.
      image_size: (height, width) in pixels.
      layers: each after the layers it reads; the last one's output is the network's.
      weights: "<scope>/weights" and "<scope>/biases" -> float32 array. The axes of
        kernels are TFLite's: output channel, (height, width,) input channel.
      bias_shifts: what was taken off a bias of the checkpoint, by the bias's name.
    """

    images: str
    image_size: tuple[int, int]
    layers: tuple[Layer, ...]
    weights: Mapping[str, np.ndarray]
    bias_shifts: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def up_to(self, operator: str) -> Network:
        """Returns the part that ends with the first layer of an operator."""
        operators = [layer.operator for layer in self.layers]
        end = operators.index(operator) + 1
        return dataclasses.replace(self, layers=self.layers[:end])

    def biases(self) -> dict[str, np.ndarray]:
        """Returns the biases by name, in the order of layers."""
        names = [f"{layer.scope}/biases" for layer in self.layers if layer.scope]
        return {name: self.weights[name] for name in names}

    def without_matrices(self) -> Network:
        """Returns the network with its matrix as the kernel of a 1 x 1 convolution.

        Its output is reshaped to what it was, and the mean before it keeps its axes.
        TFLite before 2.10 gives zeros for a FULLY_CONNECTED whose int8 weights have a
        scale per output channel; for a CONV_2D it has always known them.
        """
        layers: list[Layer] = []
        weights = dict(self.weights)
        for layer in self.layers:
            if layer.operator == "FULLY_CONNECTED":
                mean = layers.pop()
                layers.append(dataclasses.replace(mean, shape=_with_grid(mean.shape)))
                convolution = dataclasses.replace(
                    layer,
                    operator="CONV_2D",
                    name=f"{layer.name}/convolution",
                    shape=_with_grid(layer.shape),
                )
                layers.append(convolution)
                kernel = f"{layer.scope}/weights"
                weights[kernel] = weights[kernel][:, np.newaxis, np.newaxis]
                layer = Layer("RESHAPE", layer.name, (convolution.name,), layer.shape)
            layers.append(layer)
        return dataclasses.replace(self, layers=tuple(layers), weights=weights)

    def with_signed_input(self) -> Network:
        """Returns the network for images in [-1, 1] instead of [0, 1].

        This takes the 2x - 1 out of the first convolution again. Its kernel changes by
        a factor of two, exactly.
        """
        scope = self.layers[0].scope
        kernel = self.weights[f"{scope}/weights"] / 2
        shift = -kernel.sum(axis=(1, 2, 3))
        bias = self.weights[f"{scope}/biases"] - shift
        changed = {f"{scope}/weights": kernel, f"{scope}/biases": bias}
        return dataclasses.replace(
            self,
            weights={**self.weights, **changed},
            bias_shifts={f"{scope}/biases": shift},
        )


def kernel_to_tflite(kernel: np.ndarray) -> np.ndarray:
    """Moves the output channel of a TensorFlow kernel to the front."""
    return np.ascontiguousarray(kernel.transpose(_TO_TFLITE[kernel.ndim]))


def kernel_from_tflite(kernel: np.ndarray, rank: int) -> np.ndarray:
    """Reverses `kernel_to_tflite`.

    Args:
      kernel: output channel first.
      rank: in the checkpoint, where a matrix (2) may be a 1 x 1 convolution here.
    """
    kernel = kernel.transpose(_FROM_TFLITE[kernel.ndim])
    return kernel.reshape(kernel.shape[-rank:])


def _with_grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[batch, channels] with a height and width of one."""
    batch, channels = shape
    return batch, 1, 1, channels


def from_inference_graph(graph: InferenceGraph, image_size: tuple[int, int]) -> Network:
    """Merges the ops of a graph into TFLite's operators, for one image size."""
    from tensorflow import make_ndarray

    constants: dict[str, np.ndarray] = {}
    layers: dict[str, Layer] = {}  # By name of the output so far.
    shapes: dict[str, tuple[int, ...]] = {graph.images: (1, *image_size, 3)}
    for node in graph.graph_def.node:
        if node.op == "Const":
            constants[node.name] = make_ndarray(node.attr["value"].tensor)
            continue
        if node.op in _MERGED:
            layer = dataclasses.replace(layers.pop(node.input[0]), name=node.name)
            if node.op == "Relu":
                layer = dataclasses.replace(layer, has_relu=True)
            elif node.op == "Squeeze":
                layer = dataclasses.replace(layer, shape=(1, layer.shape[-1]))
        elif node.op in _OPERATORS:
            layer = _layer(node, shapes, constants)
        else:
            continue
        layers[node.name] = layer
        shapes[node.name] = layer.shape
    weights = {
        name: kernel_to_tflite(value) if name.endswith("/weights") else value
        for name, value in constants.items()
        if name.endswith(("/weights", "/biases"))
    }
    return Network(graph.images, image_size, tuple(layers.values()), weights)


def _layer(node, shapes, constants) -> Layer:
    inputs = tuple(name for name in node.input if name in shapes)
    batch, *grid, channels = shapes[inputs[0]]
    facts = {}
    if node.op in ("Conv2D", "MatMul"):
        kernel = constants[node.input[1]]
        channels = kernel.shape[-1]
        facts["scope"] = node.input[1].removesuffix("/weights")
        facts["window"] = kernel.shape[:-2]
    elif node.op in ("MaxPool", "AvgPool"):
        facts["window"] = tuple(node.attr["ksize"].list.i[1:3])
    elif node.op == "ConcatV2":
        channels = sum(shapes[name][-1] for name in inputs)
    elif node.op == "Mean":
        grid = [1, 1]
    if node.op in ("Conv2D", "MaxPool", "AvgPool"):
        facts["strides"] = strides = tuple(node.attr["strides"].list.i[1:3])
        facts["padding"] = padding = node.attr["padding"].s.decode()
        if padding == "VALID":
            grid = [n - window + 1 for n, window in zip(grid, facts["window"])]
        grid = [-(-n // stride) for n, stride in zip(grid, strides)]
    shape = (batch, *grid, channels)
    return Layer(_OPERATORS[node.op], node.name, inputs, shape, **facts)
