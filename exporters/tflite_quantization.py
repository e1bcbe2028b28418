"""Quantization as TFLite's specification has it: int8 activations and kernels.

https://ai.google.dev/edge/litert/models/quantization_spec: activations asymmetric, per
tensor; kernels symmetric, per output channel; biases int32.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from exporters.tflite_network import Network

_SHARED_SCALE = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "CONCATENATION", "RESHAPE")
"""Operators whose inputs and output must have one scale and zero point."""
_LEAST_CHANNEL_SCALE = 1e-6
"""Smallest scale of a kernel's channel, relative to the kernel's largest."""
_LARGEST_BIAS = 2.0**30


@dataclasses.dataclass(frozen=True)
class Quantization:
    """What integers q stand for: scale * (q - zero_point).

    Attributes:
      scale: float32 [1], or [channels] along the first axis.
      zero_point: the same for all channels.
    """

    scale: np.ndarray
    zero_point: int = 0

    def quantize(self, values: np.ndarray, dtype: type) -> np.ndarray:
        """Returns the nearest integers that the type has."""
        limits = np.iinfo(dtype)
        integers = np.rint(values / self._scale(values.ndim)) + self.zero_point
        return np.clip(integers, limits.min, limits.max).astype(dtype)

    def dequantize(self, integers: np.ndarray) -> np.ndarray:
        """Returns the float64 values that integers stand for."""
        values = integers.astype(np.float64) - self.zero_point
        return values * self._scale(integers.ndim)

    def _scale(self, rank: int) -> np.ndarray:
        """The scale, shaped to go with arrays of a rank."""
        return self.scale.astype(np.float64).reshape(-1, *[1] * (rank - 1))


PROBABILITIES = Quantization(np.array([1 / 256], np.float32), -128)
"""The one quantization that int8 SOFTMAX may have."""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What activations are like over calibration images, by tensor name.

    Attributes:
      ranges: (minimum, maximum).
      means: [channels].
    """

    ranges: Mapping[str, tuple[float, float]]
    means: Mapping[str, np.ndarray]

    def with_signed_input(self, images: str) -> Statistics:
        """Returns the statistics for images in [-1, 1] instead of [0, 1]."""
        return Statistics(
            {**self.ranges, images: (-1.0, 1.0)},
            {**self.means, images: 2 * self.means[images] - 1},
        )


def of_range(low: float, high: float) -> Quantization:
    """Returns the int8 quantization of a range; zero is represented exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    zero_point = int(np.clip(round(-128 - low / scale), -128, 127))
    return Quantization(np.array([scale], np.float32), zero_point)


def of_kernel(
    kernel: np.ndarray, bias: np.ndarray | float = 0.0, input_scale: float = 1.0
) -> Quantization:
    """Returns the int8 quantization of a kernel, to [-127, 127].

    Args:
      kernel: float32, output channel first.
      bias: float32 [channels], if it is quantized as well: in steps of input scale
        times kernel scale, which must not get so small that their count overflows
        int32.
      input_scale: of the input activations.
    """
    scale = np.abs(kernel).reshape(len(kernel), -1).max(axis=1).astype(np.float64) / 127
    scale = np.maximum(scale, scale.max() * _LEAST_CHANNEL_SCALE)
    scale = np.maximum(scale, np.abs(bias) / _LARGEST_BIAS / input_scale)
    scale[scale == 0] = 1.0
    return Quantization(scale.astype(np.float32))


def of_activations(
    network: Network, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, Quantization]:
    """Returns the int8 quantization of each activation of a network.

    Args:
      network: in float32.
      ranges: activation -> (minimum, maximum), of these at least; of activations with
        the same scale one is enough.
    """
    names = [network.images, *(layer.name for layer in network.layers)]
    groups = {name: {name} for name in names}  # Of activations with the same scale.
    for layer in network.layers:
        if layer.operator in _SHARED_SCALE:
            group = groups[layer.name].union(*(groups[name] for name in layer.inputs))
            groups.update(dict.fromkeys(group, group))
    quantizations = {}
    for name in names:
        known = (ranges[member] for member in groups[name] if member in ranges)
        lows, highs = zip(*known)
        quantizations[name] = of_range(min(lows), max(highs))
    for layer in network.layers:
        if layer.operator == "SOFTMAX":
            quantizations[layer.name] = PROBABILITIES
    return quantizations


def rounding_shift(
    kernel: np.ndarray, rounded: np.ndarray, input_mean: np.ndarray
) -> np.ndarray:
    """How far rounding a kernel moves the mean of each output channel.

    Taking it off the bias removes the systematic part of the rounding error
    (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", 2019, section 4.2, https://arxiv.org/abs/1906.04721).

    Args:
      kernel: output channel first, input channel last.
      rounded: the values its integers stand for.
      input_mean: [input channels] of the activations it is applied to.

    Returns:
      float32 [output channels].
    """
    shift = (rounded - kernel) @ input_mean
    return shift.reshape(len(kernel), -1).sum(axis=1).astype(np.float32)


def measure(model: bytes, network: Network, images: np.ndarray) -> Statistics:
    """Runs a float32 model on images and notes what its activations are like.

    Args:
      model: flatbuffer of the network, with every layer's output as an output.
      network: in float32.
      images: float32 [count, height, width, 3] in [0, 1].
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=os.cpu_count())
    run = interpreter.get_signature_runner()
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    means: dict[str, np.ndarray] = {}
    for image in images:
        for name, values in run(images=image[np.newaxis]).items():
            mean = values.reshape(-1, values.shape[-1]).mean(axis=0) / len(images)
            means[name] = means.get(name, 0.0) + mean
            lows[name] = min(lows.get(name, 0.0), float(values.min()))
            highs[name] = max(highs.get(name, 0.0), float(values.max()))
    ranges = {name: (lows[name], highs[name]) for name in lows}
    ranges[network.images] = (0.0, 1.0)  # All that an image can have.
    means[network.images] = images.mean(axis=(0, 1, 2))
    return Statistics(ranges, means)
