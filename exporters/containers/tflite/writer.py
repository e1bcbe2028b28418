"""Writes a network as a TFLite model, in one of four precisions.

Operators, their versions and what is quantized are as TensorFlow's converter has them
for the same network; but where weights are int8, the classifier is a convolution. TFLite
before 2.10 gives zeros for a FULLY_CONNECTED whose int8 weights have a scale per output
channel; for a CONV_2D it has always known them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, assert_never

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters import float16
from exporters.containers.tflite.flatbuffer import ModelBuilder
from exporters.errors import ExportError
from exporters.network.folding import Weights
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
    inputs_of,
    transpose,
)
from exporters.network.quantization import (
    UINT8_ZERO,
    Integers,
    Precision,
    Quantization,
    QuantizedNetwork,
    of_kernel,
)

INPUT = "images"
CONVOLUTION = "/convolution"
"""Ends the name of what a classifier gives before it is flattened."""
_FLOAT32_VERSION = 1
_INT8_VERSION = 2
_INT8_WEIGHTS_VERSION = 3
_DYNAMIC_VERSION = 5
_FLOAT16_VERSION = 3


def write(
    network: Network,
    weights: Mapping[str, Weights],
    image_size: tuple[int, int],
    precision: Precision,
    outputs: Mapping[str, str],
    *,
    description: str = "",
    metadata: Mapping[str, bytes] | None = None,
    quantized: QuantizedNetwork | None = None,
    outer_type: str = "float32",
) -> memoryview:
    """Writes a network as a TFLite flatbuffer.

    Args:
      network: the layers.
      weights: of the layers, by scope.
      image_size: (height, width) in pixels.
      precision: in what numbers.
      outputs: name in the signature -> name of a layer.
      description: of the model, for people.
      metadata: name -> content of the model's metadata.
      quantized: the network in integers, if that is its precision.
      outer_type: "float32", "uint8" or "int8", of the input and output where all
        between is quantized.

    Raises:
      ExportError: a weight is too large for float16.
    """
    writer: _Writer
    in_float = precision.float_layers(network)
    if precision.weights == "int8":
        network = _without_matrices(network, in_float)
    if quantized:
        writer = _Int8Writer(
            network, weights, image_size, quantized, in_float, outer_type
        )
    elif precision.weights == "int8":
        writer = _DynamicInt8Writer(network, weights, image_size, in_float)
    elif precision.weights == "float16":
        writer = _Float16Writer(network, weights, image_size)
    else:
        writer = _Writer(network, weights, image_size)
    inputs = {INPUT: writer.add_input()}
    for layer in network.layers:
        writer.add_layer(layer)
    results = {name: writer.add_output(name, layer) for name, layer in outputs.items()}
    return writer.builder.finish(inputs, results, description, metadata or {})


class _Writer:
    """Adds a network's layers to a model, in float32.

    Attributes:
      builder: of the model.
      network: what is written.
      weights: of the layers, by scope.
      shapes: of the activations, for a batch of one.
      indices: of the activations' tensors, by name.
    """

    version = _FLOAT32_VERSION

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, Weights],
        image_size: tuple[int, int],
    ):
        self.builder = ModelBuilder()
        self.network = network
        self.weights = weights
        self.shapes = {
            name: (1, *shape) for name, shape in network.shapes(image_size).items()
        }
        self.indices: dict[str, int] = {}
        self._means = {
            layer.name: layer.input
            for layer in network.layers
            if isinstance(layer, GlobalMean)
        }
        self._flattened = {
            layer.input for layer in network.layers if isinstance(layer, Flatten)
        }

    def add_input(self) -> int:
        """Adds the images and returns the model's input."""
        return self.add_activation(self.network.input)

    def add_output(self, name: str, layer: str) -> int:
        """Returns the model's output for a layer, which may be named if it is added."""
        return self.indices[layer]

    def add_layer(self, layer: Layer) -> None:
        """Adds a layer with its weights."""
        match layer:
            case Conv():
                self._add_weighted("CONV_2D", layer, **_strides(layer), **_relu(layer))
            case Dense():
                self._add_weighted("FULLY_CONNECTED", layer)
            case Pool(name, x, kind, window):
                operator = "MAX_POOL_2D" if kind == "max" else "AVERAGE_POOL_2D"
                size: dict[str, Any] = {
                    "filterHeight": window[0],
                    "filterWidth": window[1],
                }
                self._add(operator, [x], name, **_strides(layer), **size)
            case Concat(name, inputs):
                axis = len(self.shapes[name]) - 1
                self._add("CONCATENATION", inputs, name, axis=axis)
            case Add(name, inputs):
                self._add("ADD", inputs, name, **_relu(layer))
            case GlobalMean(name, x):
                if name not in self._flattened:
                    self._add_mean(x, name, keepDims=True)
            case Flatten(name, x):
                if x in self._means:  # One operator takes the mean and flattens it.
                    self._add_mean(self._means[x], name)
                else:
                    shape = np.array([-1, *self.shapes[name][1:]], np.int32)
                    constant = self.builder.add_constant("shape", shape)
                    version = _FLOAT32_VERSION  # Of all types.
                    self._add(
                        "RESHAPE", [x], name, version=version, constants=[constant]
                    )
            case Softmax():
                self.add_softmax(layer)
            case _:
                assert_never(layer)

    def _add_mean(self, x: str, name: str, **options: Any) -> None:
        axes = self.builder.add_constant("axes", np.array([1, 2], np.int32))
        self._add("MEAN", [x], name, constants=[axes], **options)

    def add_softmax(self, layer: Softmax) -> None:
        self._add("SOFTMAX", [layer.input], layer.name, beta=1.0)

    def _add_weighted(self, operator: str, layer: Conv | Dense, **options: Any) -> None:
        kernel, bias, version = self.add_weights(layer)
        self._add(
            operator,
            [layer.input],
            layer.name,
            version=version,
            constants=[kernel, bias],
            **options,
        )

    def _add(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        *,
        version: int | None = None,
        constants: Sequence[int] = (),
        **options: Any,
    ) -> None:
        tensors = [*map(self.operand, inputs), *constants]
        self.builder.add_operator(
            operator,
            version or self.version,
            tensors,
            self.add_activation(output),
            **options,
        )

    def operand(self, name: str) -> int:
        """Returns the tensor of an activation that was added."""
        return self.indices[name]

    def add_activation(self, name: str) -> int:
        """Adds the tensor of an activation."""
        index = self.builder.add_activation(name, self.shapes[name], np.float32)
        self.indices[name] = index
        return index

    def add_weights(self, layer: Conv | Dense) -> tuple[int, int, int]:
        """Adds a layer's weights and biases; returns both, and the operator's version."""
        weights = self.weights[layer.scope]
        kernel = self.add_float(
            f"{layer.scope}/weights", _kernel(layer, weights.kernel)
        )
        bias = self.add_float(f"{layer.scope}/biases", weights.bias)
        return kernel, bias, _FLOAT32_VERSION

    def add_float(self, name: str, values: np.ndarray) -> int:
        """Adds weights or biases that a float32 operator can use."""
        return self.builder.add_constant(name, values)

    def add_kernel(self, layer: Conv | Dense, kernel: Integers) -> int:
        """Adds a layer's quantized kernel."""
        values = _kernel(layer, kernel.values)
        name = f"{layer.scope}/weights"
        return self.builder.add_constant(name, values, kernel.quantization)


class _Float16Writer(_Writer):
    def add_float(self, name: str, values: np.ndarray) -> int:
        half = self.builder.add_constant(name, float16.rounded(name, values))
        full = self.builder.add_tensor(f"{name}/float32", values.shape, np.float32)
        self.builder.add_operator("DEQUANTIZE", _FLOAT16_VERSION, [half], full)
        return full


class _DynamicInt8Writer(_Writer):
    def __init__(
        self,
        network: Network,
        weights: Mapping[str, Weights],
        image_size: tuple[int, int],
        in_float: Collection[str],
    ):
        super().__init__(network, weights, image_size)
        self.in_float = in_float

    def add_weights(self, layer: Conv | Dense) -> tuple[int, int, int]:
        weights = self.weights[layer.scope]
        if layer.name in self.in_float:
            return super().add_weights(layer)
        rounding = of_kernel(weights.kernel)
        integers = Integers(rounding.quantize(weights.kernel, np.int8), rounding)
        return (
            self.add_kernel(layer, integers),
            self.add_float(f"{layer.scope}/biases", weights.bias),
            _DYNAMIC_VERSION,
        )


class _Int8Writer(_Writer):
    """In integers, but for some layers; `indices` are of the integers."""

    version = _INT8_VERSION

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, Weights],
        image_size: tuple[int, int],
        quantized: QuantizedNetwork,
        in_float: Collection[str],
        outer_type: str,
    ):
        super().__init__(network, weights, image_size)
        self.quantized = quantized
        self.quantizations = dict(quantized.activations)
        for layer in network.layers:
            if isinstance(layer, Flatten) and layer.name in self.quantizations:
                # It changes no number.
                self.quantizations[layer.input] = self.quantizations[layer.name]
        self.in_float = in_float
        self.outer_type = np.dtype(outer_type)
        self._floats: dict[str, int] = {}
        self._float_layers = _FloatLayers(self, image_size)

    def add_layer(self, layer: Layer) -> None:
        if layer.name not in self.in_float:
            super().add_layer(layer)
            return
        self._float_layers.add_layer(layer)
        if layer.name in self.quantizations:
            operands = [self._floats[layer.name]], self.add_activation(layer.name)
            self.builder.add_operator("QUANTIZE", _FLOAT32_VERSION, *operands)

    def add_activation(self, name: str) -> int:
        index = self.builder.add_activation(
            name, self.shapes[name], np.int8, self.quantizations[name]
        )
        self.indices[name] = index
        return index

    def as_float(self, name: str) -> int:
        """Returns the tensor of an activation in float32, added if need be."""
        if name not in self._floats:
            operands = [self.indices[name]], self.add_float_activation(name)
            self.builder.add_operator("DEQUANTIZE", _INT8_VERSION, *operands)
        return self._floats[name]

    def add_float_activation(self, name: str) -> int:
        """Adds the tensor of an activation in float32."""
        own = f"{name}/float32" if name in self.quantizations else name
        index = self.builder.add_activation(own, self.shapes[name], np.float32)
        self._floats[name] = index
        return index

    def add_input(self) -> int:
        images = self.network.input
        if images not in self.quantizations:
            self._check_outer_type(INPUT)
        if self.outer_type == np.int8:
            return super().add_input()
        outer = self.add_outer(INPUT, images)
        is_float = self.outer_type == np.float32
        if is_float:
            self._floats[images] = outer
        if images not in self.quantizations:
            return outer
        version = _FLOAT32_VERSION if is_float else _INT8_VERSION
        self.builder.add_operator("QUANTIZE", version, [outer], super().add_input())
        return outer

    def add_output(self, name: str, layer: str) -> int:
        if layer not in self.quantizations:
            self._check_outer_type(name)
            return self._floats[layer]
        inner = self.indices[layer]
        if self.outer_type == np.int8:
            return inner
        outer = self.add_outer(name, layer)
        operator = "DEQUANTIZE" if self.outer_type == np.float32 else "QUANTIZE"
        self.builder.add_operator(operator, _INT8_VERSION, [inner], outer)
        return outer

    def _check_outer_type(self, name: str) -> None:
        if self.outer_type != np.float32:
            raise ExportError(
                f"{name} stays in float32, which was asked for, and cannot be "
                f"{self.outer_type} as well"
            )

    def add_outer(self, name: str, activation: str) -> int:
        """Adds the tensor that stands for an activation outside of the model."""
        rounding = None
        if self.outer_type == np.uint8:
            inner = self.quantizations[activation]
            rounding = Quantization(inner.scale, inner.zero_point + UINT8_ZERO)
        shape = self.shapes[activation]
        return self.builder.add_activation(name, shape, self.outer_type, rounding)

    def add_softmax(self, layer: Softmax) -> None:
        if self.outer_type != np.float32:
            super().add_softmax(layer)
            return
        # In float32: as int8, probabilities would be multiples of 1/256.
        logits = self.add_output(f"{layer.name}/logits", layer.input)
        del self.quantizations[layer.name]
        output = self.add_float_activation(layer.name)
        self.builder.add_operator(
            "SOFTMAX", _FLOAT32_VERSION, [logits], output, beta=1.0
        )

    def add_weights(self, layer: Conv | Dense) -> tuple[int, int, int]:
        quantized = self.quantized.weights[layer.scope]
        bias = quantized.bias
        assert isinstance(bias, Integers)
        return (
            self.add_kernel(layer, quantized.kernel),
            self.builder.add_constant(
                f"{layer.scope}/biases", bias.values, bias.quantization
            ),
            _INT8_WEIGHTS_VERSION,
        )


class _FloatLayers(_Writer):
    """Adds those layers to a model in integers that stay in float32."""

    def __init__(self, model: _Int8Writer, image_size: tuple[int, int]):
        super().__init__(model.network, model.weights, image_size)
        self.builder = model.builder
        self._model = model

    def operand(self, name: str) -> int:
        return self._model.as_float(name)

    def add_activation(self, name: str) -> int:
        return self._model.add_float_activation(name)


def _without_matrices(network: Network, in_float: Collection[str]) -> Network:
    """Returns the network with fully connected layers as 1 x 1 convolutions.

    What was flattened before is flattened after.
    """
    flat = {layer.name: layer for layer in network.layers if isinstance(layer, Flatten)}
    layers: list[Layer] = []
    for layer in network.layers:
        if not isinstance(layer, Dense) or layer.name in in_float:
            layers.append(layer)
            continue
        name = f"{layer.name}{CONVOLUTION}"
        grid = flat[layer.input].input
        layers += [
            Conv(name, grid, layer.scope, layer.units, (1, 1), relu=False),
            Flatten(layer.name, name),
        ]
    read = {name for layer in layers for name in inputs_of(layer)}
    kept = [
        layer
        for layer in layers
        if layer.name not in flat or layer.name in read | {layers[-1].name}
    ]
    return dataclasses.replace(network, layers=tuple(kept))


def _kernel(layer: Conv | Dense, values: np.ndarray) -> np.ndarray:
    """A layer's kernel as TFLite has it; a matrix may have become a convolution's."""
    if isinstance(layer, Conv) and values.ndim == 2:
        values = values[np.newaxis, np.newaxis]
    return to_tflite(values)


def to_tflite(kernel: np.ndarray) -> np.ndarray:
    """Moves the output channel of a TensorFlow kernel to the front."""
    axes = ("HWIO", "OHWI") if kernel.ndim == 4 else ("IO", "OI")
    return np.ascontiguousarray(transpose(kernel, *axes))


def from_tflite(kernel: np.ndarray) -> np.ndarray:
    """Reverses `to_tflite`."""
    axes = ("OHWI", "HWIO") if kernel.ndim == 4 else ("OI", "IO")
    return transpose(kernel, *axes)


def _strides(layer: Conv | Pool) -> dict[str, Any]:
    padding = getattr(schema.Padding, layer.padding)
    return {"padding": padding, "strideH": layer.stride, "strideW": layer.stride}


def _relu(layer: Conv | Add) -> dict[str, Any]:
    if not layer.relu:
        return {}
    return {"fusedActivationFunction": schema.ActivationFunctionType.RELU}
