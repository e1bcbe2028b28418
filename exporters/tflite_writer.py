"""Writes a network as a TFLite model, in one of four precisions.

Operators, their versions and what is quantized are as TensorFlow's converter has them
for the same network; but where weights are int8, the classifier is a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.artifact import ExportError
from exporters.tflite_flatbuffer import ModelBuilder
from exporters.tflite_network import Layer, Network
from exporters.tflite_quantization import (
    Quantization,
    Statistics,
    of_activations,
    of_kernel,
    rounding_shift,
)

FLOAT32 = "tflite-float32"
DYNAMIC_INT8, INT8 = "tflite-dynamic-int8", "tflite-int8"

INPUT = "images"
BIAS_SHIFTS = "irv2_bias_shifts"
"""Name of the metadata that holds what was taken off the biases: float32, one after the
other in the order of layers."""

_LEAST_QUANTIZED = 1024
"""Smaller kernels stay float32 where the activations do. That is the first one, on
which accuracy depends most."""
_FLOAT32_VERSION = 1
_INT8_VERSION = 2
_INT8_WEIGHTS_VERSION = 3
_DYNAMIC_VERSION = 5
_FLOAT16_VERSION = 3
_UINT8_ZERO = 128
"""What uint8 has where int8 has 0."""


def write(
    network: Network,
    precision: str,
    outputs: Mapping[str, str],
    *,
    description: str = "",
    metadata: Mapping[str, bytes] | None = None,
    statistics: Statistics | None = None,
    outer_type: str = "float32",
) -> memoryview:
    """Writes a network as a TFLite flatbuffer.

    Args:
      network: in float32.
      precision: name of the format, such as "tflite-float16".
      outputs: name in the signature -> name of a layer.
      description: of the model, for people.
      metadata: name -> content of the model's metadata.
      statistics: of the activations, for "tflite-int8".
      outer_type: "float32", "uint8" or "int8", of the input and output of
        "tflite-int8".

    Raises:
      ExportError: a weight is too large for float16.
    """
    if precision in (DYNAMIC_INT8, INT8):
        network = network.without_matrices()
    writer = _writer(network, precision, statistics, np.dtype(outer_type))
    inputs = {INPUT: writer.add_input()}
    for layer in network.layers:
        writer.add_layer(layer)
    results = {name: writer.add_output(name, layer) for name, layer in outputs.items()}
    metadata = dict(metadata or {})
    if writer.bias_shifts:
        metadata[BIAS_SHIFTS] = b"".join(
            writer.bias_shifts.get(name, np.zeros_like(values)).tobytes()
            for name, values in network.biases().items()
        )
    return writer.builder.finish(inputs, results, description, metadata)


def _writer(network, precision, statistics, outer_type) -> _Writer:
    match precision:
        case "tflite-float32":
            return _Writer(network)
        case "tflite-float16":
            return _Float16Writer(network)
        case "tflite-dynamic-int8":
            return _DynamicInt8Writer(network)
        case "tflite-int8":
            return _Int8Writer(network, statistics, outer_type)
    raise ValueError(f"unknown precision {precision!r}")


class _Writer:
    """Adds a network's layers to a model, in float32.

    Attributes:
      builder: of the model.
      network: what is written.
      indices: of the activations' tensors, by name.
      bias_shifts: what was taken off a bias, by the bias's name.
    """

    version = _FLOAT32_VERSION

    def __init__(self, network: Network):
        self.builder = ModelBuilder()
        self.network = network
        self.indices: dict[str, int] = {}
        self.bias_shifts = dict(network.bias_shifts)

    def add_input(self) -> int:
        """Adds the images and returns the model's input."""
        shape = (1, *self.network.image_size, 3)
        return self.add_activation(self.network.images, shape)

    def add_output(self, name: str, layer: str) -> int:
        """Returns the model's output for a layer, which may be named if it is added."""
        return self.indices[layer]

    def add_layer(self, layer: Layer) -> None:
        """Adds a layer with its weights."""
        inputs = [self.indices[name] for name in layer.inputs]
        version = self.version
        if layer.scope:
            *weights, version = self.add_weights(layer)
            inputs += weights
        elif layer.operator == "MEAN":
            axes = np.array([1, 2], np.int32)
            inputs.append(self.builder.add_constant("axes", axes))
        elif layer.operator == "RESHAPE":
            shape = np.array([-1, *layer.shape[1:]], np.int32)
            inputs.append(self.builder.add_constant("shape", shape))
            version = _FLOAT32_VERSION  # Of all types.
        output = self.add_activation(layer.name, layer.shape)
        options = _options(layer)
        self.builder.add_operator(layer.operator, version, inputs, output, **options)

    def add_activation(self, name: str, shape: tuple[int, ...]) -> int:
        """Adds the tensor of an activation."""
        index = self.builder.add_activation(name, shape, np.float32)
        self.indices[name] = index
        return index

    def add_weights(self, layer: Layer) -> tuple[int, int, int]:
        """Adds a layer's weights and biases; returns both, and the operator's version."""
        names = f"{layer.scope}/weights", f"{layer.scope}/biases"
        kernel, bias = (self.add_float(name) for name in names)
        return kernel, bias, _FLOAT32_VERSION

    def add_float(self, name: str) -> int:
        """Adds weights or biases that a float32 operator can use."""
        return self.builder.add_constant(name, self.network.weights[name])


class _Float16Writer(_Writer):
    def add_float(self, name: str) -> int:
        values = self.network.weights[name]
        largest = np.abs(values).max()
        if largest > np.finfo(np.float16).max:
            raise ExportError(f"{name} has the value {largest}, too large for float16.")
        half = self.builder.add_constant(name, values.astype(np.float16))
        full = self.builder.add_tensor(f"{name}/float32", values.shape, np.float32)
        self.builder.add_operator("DEQUANTIZE", _FLOAT16_VERSION, [half], full)
        return full


class _DynamicInt8Writer(_Writer):
    def add_weights(self, layer: Layer) -> tuple[int, int, int]:
        name = f"{layer.scope}/weights"
        kernel = self.network.weights[name]
        if kernel.size < _LEAST_QUANTIZED:
            return super().add_weights(layer)
        quantization = of_kernel(kernel)
        integers = quantization.quantize(kernel, np.int8)
        return (
            self.builder.add_constant(name, integers, quantization),
            self.add_float(f"{layer.scope}/biases"),
            _DYNAMIC_VERSION,
        )


class _Int8Writer(_Writer):
    version = _INT8_VERSION

    def __init__(self, network: Network, statistics: Statistics, outer_type: np.dtype):
        super().__init__(network)
        self.quantizations = of_activations(network, statistics.ranges)
        self.means = statistics.means
        self.outer_type = outer_type

    def add_activation(self, name: str, shape: tuple[int, ...]) -> int:
        quantization = self.quantizations[name]
        index = self.builder.add_activation(name, shape, np.int8, quantization)
        self.indices[name] = index
        return index

    def add_input(self) -> int:
        if self.outer_type == np.int8:
            return super().add_input()
        outer = self.add_outer(
            INPUT, self.network.images, (1, *self.network.image_size, 3)
        )
        is_float = self.outer_type == np.float32
        version = _FLOAT32_VERSION if is_float else _INT8_VERSION
        self.builder.add_operator("QUANTIZE", version, [outer], super().add_input())
        return outer

    def add_output(self, name: str, layer: str) -> int:
        inner = self.indices[layer]
        if layer not in self.quantizations or self.outer_type == np.int8:
            return inner
        outer = self.add_outer(name, layer, self.builder.shape(inner))
        operator = "DEQUANTIZE" if self.outer_type == np.float32 else "QUANTIZE"
        self.builder.add_operator(operator, _INT8_VERSION, [inner], outer)
        return outer

    def add_outer(self, name: str, activation: str, shape: Sequence[int]) -> int:
        """Adds the tensor that stands for an activation outside of the model."""
        quantization = None
        if self.outer_type == np.uint8:
            inner = self.quantizations[activation]
            quantization = Quantization(inner.scale, inner.zero_point + _UINT8_ZERO)
        return self.builder.add_activation(name, shape, self.outer_type, quantization)

    def add_layer(self, layer: Layer) -> None:
        if layer.operator == "SOFTMAX" and self.outer_type == np.float32:
            # In float32: as int8, probabilities would be multiples of 1/256.
            logits = self.add_output(f"{layer.name}/logits", layer.inputs[0])
            del self.quantizations[layer.name]
            output = super().add_activation(layer.name, layer.shape)
            self.builder.add_operator(
                "SOFTMAX", _FLOAT32_VERSION, [logits], output, **_options(layer)
            )
        else:
            super().add_layer(layer)

    def add_weights(self, layer: Layer) -> tuple[int, int, int]:
        name, bias_name = f"{layer.scope}/weights", f"{layer.scope}/biases"
        kernel, bias = self.network.weights[name], self.network.weights[bias_name]
        source = self.quantizations[layer.inputs[0]]
        quantization = of_kernel(kernel, bias, float(source.scale[0]))
        integers = quantization.quantize(kernel, np.int8)
        shift = rounding_shift(
            kernel, quantization.dequantize(integers), self.means[layer.inputs[0]]
        )
        self.bias_shifts[bias_name] = self.bias_shifts.get(bias_name, 0) + shift
        bias_quantization = Quantization(quantization.scale * source.scale)
        bias_integers = bias_quantization.quantize(bias - shift, np.int32)
        return (
            self.builder.add_constant(name, integers, quantization),
            self.builder.add_constant(bias_name, bias_integers, bias_quantization),
            _INT8_WEIGHTS_VERSION,
        )


def _options(layer: Layer) -> dict[str, Any]:
    """Returns the options of a layer's operator, by their names in the schema."""
    options: dict[str, Any] = {}
    if layer.has_relu:
        options["fusedActivationFunction"] = schema.ActivationFunctionType.RELU
    if layer.operator in ("CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D"):
        options["padding"] = getattr(schema.Padding, layer.padding)
        options["strideH"], options["strideW"] = layer.strides
    if layer.operator in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        options["filterHeight"], options["filterWidth"] = layer.window
    if layer.operator == "FULLY_CONNECTED":
        options["asymmetricQuantizeInputs"] = True  # As the converter has it.
    if layer.operator == "MEAN":
        options["keepDims"] = len(layer.shape) == 4
    if layer.operator == "CONCATENATION":
        options["axis"] = len(layer.shape) - 1
    if layer.operator == "SOFTMAX":
        options["beta"] = 1.0
    return options
