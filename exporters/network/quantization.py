"""Integer quantization, the same for every format: ranges, scales, rounding.

Activations are asymmetric, or symmetric on request, with one scale per tensor, kernels
symmetric with one scale per output channel, biases int32 in steps of the products that
they are added to. See
Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2017, https://arxiv.org/abs/1712.05877, and
https://ai.google.dev/edge/litert/models/quantization_spec.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

from exporters.network.folding import Weights
from exporters.network.layers import (
    Add,
    Concat,
    Network,
    Pool,
    Softmax,
    inputs_of,
)

UINT8_ZERO = 128
"""What uint8 has where int8 has 0."""

_LEAST_CHANNEL_SCALE = 1e-6
"""Smallest scale of a kernel's channel, relative to the kernel's largest."""
_LARGEST_WEIGHT = 127
_LARGEST_REDUCED_WEIGHT = 64
"""Two products with uint8, 2 * 64 * 255, do not saturate int16; with 65 they do."""
_LARGEST_ACTIVATION = 127
"""Of symmetric ones, whose range is the same on both sides of 0."""
_LARGEST_BIAS = 2.0**30
_LEAST_SCALE = 2.0**-60
"""Of activations and kernels: float32 can still divide by the product of two."""


@dataclasses.dataclass(frozen=True)
class Quantization:
    """What integers q stand for: scale * (q - zero_point).

    Attributes:
      scale: float32 [1], or [channels] along the last axis.
      zero_point: the same for all channels.
    """

    scale: np.ndarray
    zero_point: int = 0

    def quantize(self, values: np.ndarray, dtype: type) -> np.ndarray:
        """Returns the nearest integers that the type has."""
        limits = np.iinfo(dtype)
        integers = np.rint(values / self.scale.astype(np.float64)) + self.zero_point
        return np.clip(integers, limits.min, limits.max).astype(dtype)

    def dequantize(self, integers: np.ndarray) -> np.ndarray:
        """Returns the float64 values that integers stand for."""
        values = integers.astype(np.float64) - self.zero_point
        return values * self.scale.astype(np.float64)


@dataclasses.dataclass(frozen=True)
class Precision:
    """In which numbers a format stores weights and computes activations.

    Attributes:
      weights: of kernels: "float32", "float16", "int8" by channel, or "uint8" by tensor.
      activations: of what layers compute: the same, "int8" by measured ranges.
      in_float: endpoints, by TF-Slim's names, whose layers stay float32 throughout.
      float_blocks: blocks, as `Network.blocks` names them, that do so too; and with them
        what reads nothing else and has no weights, as the probabilities of logits.
      float_sums: residual blocks whose sum stays float32, from one to the next; what they
        add to it is computed in integers.
      is_symmetric: whether the zero points of int8 activations are 0, but for those that
        a container prescribes.
      is_reduced: whether int8 kernels are in [-64, 64], and not in [-127, 127].
      biases: of layers that compute in integers: "int32" or "float32".
    """

    weights: Literal["float32", "float16", "int8", "uint8"] = "float32"
    activations: Literal["float32", "float16", "int8"] = "float32"
    in_float: tuple[str, ...] = ()
    float_blocks: tuple[str, ...] = ()
    float_sums: tuple[str, ...] = ()
    is_symmetric: bool = False
    is_reduced: bool = False
    biases: Literal["int32", "float32"] = "int32"

    @property
    def largest_weight(self) -> int:
        """The largest magnitude of an int8 kernel's integers."""
        return _LARGEST_REDUCED_WEIGHT if self.is_reduced else _LARGEST_WEIGHT

    def float_layers(self, network: Network) -> frozenset[str]:
        """Names of the layers that stay float32."""
        if self.weights == "float32":
            return frozenset(layer.name for layer in network.layers)
        endpoints, blocks = network.endpoints, network.blocks
        found = {endpoints[name] for name in self.in_float if name in endpoints}
        sums = {layer.name for layer in network.layers if isinstance(layer, Add)}
        found.update(*(sums.intersection(blocks.get(b, ())) for b in self.float_sums))
        if self.float_blocks:
            found.update(*(blocks.get(name, ()) for name in self.float_blocks))
            weighted = {layer.name for layer in network.weighted}
            alone = {
                name
                for names in blocks.values()
                if weighted.isdisjoint(names)
                for name in names
            }
            for layer in network.layers:
                if layer.name in alone and found.issuperset(inputs_of(layer)):
                    found.add(layer.name)
        return frozenset(found)

    def quantized_activations(self, network: Network) -> frozenset[str]:
        """Names of the layers, or of the input, whose output is quantized.

        It is if it is computed in integers, or if integers are computed of it.
        """
        if self.activations != "int8":
            return frozenset()
        in_float = self.float_layers(network)
        computed = [layer for layer in network.layers if layer.name not in in_float]
        return frozenset(layer.name for layer in computed).union(
            *(inputs_of(layer) for layer in computed)
        )


PROBABILITIES = Quantization(np.array([1 / 256], np.float32), -128)
"""The one quantization that TFLite's int8 SOFTMAX may have."""


@dataclasses.dataclass(frozen=True)
class Integers:
    """Integers and what they stand for."""

    values: np.ndarray
    quantization: Quantization


@dataclasses.dataclass(frozen=True)
class QuantizedWeights:
    """A layer's weights in integers.

    Attributes:
      kernel: int8 [height, width, inputs, channels], or [inputs, units].
      bias: int32 or float32 [channels], or [units].
    """

    kernel: Integers
    bias: Integers | np.ndarray


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What activations are like over calibration images, by layer.

    Attributes:
      ranges: (minimum, maximum), zero included.
      means: float32 [channels], the mean of each channel.
    """

    ranges: Mapping[str, tuple[float, float]]
    means: Mapping[str, np.ndarray]

    def with_input_range(
        self, images: str, input_range: tuple[float, float]
    ) -> Statistics:
        """Returns the statistics for images in another range than [0, 1]."""
        low, high = input_range
        mean = low + (high - low) * self.means[images]
        return Statistics(
            {**self.ranges, images: input_range},
            {**self.means, images: mean.astype(np.float32)},
        )


def of_range(low: float, high: float, *, is_symmetric: bool = False) -> Quantization:
    """Returns the int8 quantization of a range; zero is represented exactly.

    Symmetric is [-127, 127], of whichever side of 0 goes further.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    if is_symmetric:
        scale = max(-low, high) / _LARGEST_ACTIVATION
    if scale < _LEAST_SCALE:  # Of what is always 0, as good as any.
        scale = 1.0
    if is_symmetric:
        return Quantization(np.array([scale], np.float32))
    zero_point = int(np.clip(round(-128 - low / scale), -128, 127))
    return Quantization(np.array([scale], np.float32), zero_point)


def of_kernel(
    kernel: np.ndarray,
    bias: np.ndarray | float = 0.0,
    input_scale: float = 1.0,
    largest_weight: int = _LARGEST_WEIGHT,
) -> Quantization:
    """Returns the int8 quantization of a kernel, symmetric.

    Args:
      kernel: float32, output channel last.
      bias: float32 [channels], if it is quantized as well: in steps of input scale
        times kernel scale, which must not get so small that their count overflows
        int32.
      input_scale: of the input activations.
      largest_weight: magnitude of the largest integer.
    """
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    scale = largest.astype(np.float64) / largest_weight
    least = max(scale.max() * _LEAST_CHANNEL_SCALE, _LEAST_SCALE)
    scale = np.maximum(scale, least)
    scale = np.maximum(scale, np.abs(bias) / _LARGEST_BIAS / input_scale)
    return Quantization(scale.astype(np.float32))


def of_activations(
    network: Network,
    ranges: Mapping[str, tuple[float, float]],
    quantized: Collection[str],
    *,
    is_symmetric: bool = False,
) -> dict[str, Quantization]:
    """Returns the int8 quantization of the activations of a network.

    Layers that pass integers on as they are, pools and concatenations, have one scale
    for their inputs and their output.

    Args:
      network: its input is an activation too.
      ranges: layer -> (minimum, maximum), of these at least.
      quantized: names of the activations that are quantized.
      is_symmetric: whether zero points are 0; not those of probabilities.
    """
    names = [network.input, *(layer.name for layer in network.layers)]
    groups = {name: {name} for name in names if name in quantized}
    for layer in network.layers:
        if layer.name in groups and isinstance(layer, Pool | Concat):
            members = (groups[name] for name in inputs_of(layer) if name in groups)
            group = groups[layer.name].union(*members)
            groups.update(dict.fromkeys(group, group))
    softmax = {layer.name for layer in network.layers if isinstance(layer, Softmax)}
    quantizations = {}
    for name, group in groups.items():
        if name in softmax:
            quantizations[name] = PROBABILITIES
            continue
        lows, highs = zip(*(ranges[member] for member in group))
        quantizations[name] = of_range(min(lows), max(highs), is_symmetric=is_symmetric)
    return quantizations


def quantize(
    weights: Weights,
    source: Quantization,
    source_mean: np.ndarray,
    precision: Precision = Precision(),
) -> QuantizedWeights:
    """Rounds a layer's weights.

    Args:
      weights: in float32.
      source: quantization of the activations that the layer reads.
      source_mean: [input channels], of these activations.
      precision: how far kernels go, and in what numbers biases are.
    """
    kernel = of_kernel(
        weights.kernel,
        weights.bias if precision.biases == "int32" else 0.0,
        float(source.scale[0]),
        precision.largest_weight,
    )
    integers = kernel.quantize(weights.kernel, np.int8)
    shift = rounding_shift(weights.kernel, kernel.dequantize(integers), source_mean)
    if precision.biases == "float32":
        return QuantizedWeights(Integers(integers, kernel), weights.bias - shift)
    bias = Quantization(kernel.scale * source.scale)
    return QuantizedWeights(
        Integers(integers, kernel),
        Integers(bias.quantize(weights.bias - shift, np.int32), bias),
    )


def rounding_shift(
    kernel: np.ndarray, rounded: np.ndarray, input_mean: np.ndarray
) -> np.ndarray:
    """How far rounding a kernel moves the mean of each output channel.

    Taking it off the bias removes the systematic part of the rounding error
    (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", 2019, section 4.2, https://arxiv.org/abs/1906.04721).

    Args:
      kernel: [height, width, inputs, channels], or [inputs, units].
      rounded: the values its integers stand for.
      input_mean: [inputs], of the activations it is applied to.

    Returns:
      float32 [channels].
    """
    moved = (rounded - kernel).sum(axis=tuple(range(kernel.ndim - 2)))
    # No product of matrices: its last bits may depend on the number of cores.
    return (moved * input_mean[:, None]).sum(axis=0).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class QuantizedNetwork:
    """A network in integers, as far as its precision says.

    Attributes:
      activations: layer or input -> how its output is rounded.
      weights: scope -> rounded weights, of the layers that compute in integers.
    """

    activations: Mapping[str, Quantization]
    weights: Mapping[str, QuantizedWeights]


def quantize_network(
    network: Network,
    weights: Mapping[str, Weights],
    statistics: Statistics,
    precision: Precision,
) -> QuantizedNetwork:
    """Rounds activations and weights.

    Args:
      network: the whole network.
      weights: by scope, in float32.
      statistics: of the activations, for images of the range that `weights` are for.
      precision: what stays float32.
    """
    activations = of_activations(
        network,
        statistics.ranges,
        precision.quantized_activations(network),
        is_symmetric=precision.is_symmetric,
    )
    in_float = precision.float_layers(network)
    rounded = {
        layer.scope: quantize(
            weights[layer.scope],
            activations[layer.input],
            statistics.means[layer.input],
            precision,
        )
        for layer in network.weighted
        if layer.name not in in_float
    }
    return QuantizedNetwork(activations, rounded)
