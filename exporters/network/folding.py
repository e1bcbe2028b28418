"""Everything linear in one kernel and one bias a layer, for formats that only infer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from exporters.network.inception_resnet_v2 import BATCH_NORM_EPSILON
from exporters.network.layers import Conv, Dense, Network


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a layer multiplies by and adds.

    Attributes:
      kernel: float32 [height, width, inputs, channels], or [inputs, units].
      bias: float32 [channels], or [units].
    """

    kernel: np.ndarray
    bias: np.ndarray


def fold(
    network: Network,
    checkpoint: Mapping[str, np.ndarray],
    input_range: tuple[float, float] = (0.0, 1.0),
) -> dict[str, Weights]:
    """Folds batch norm, the scales of residuals and the range of the images.

    The network was trained on images in [-1, 1]; how those of a format get there is
    part of the first kernel. All is computed in float64, and rounded once.

    Args:
      network: the layers that weights are wanted for.
      checkpoint: variable name -> array.
      input_range: values of black and white in the images that the format takes.

    Returns:
      Scope -> the layer's weights, in the order of layers.

    Raises:
      ValueError: a layer pads the images. A folded kernel would pad with black, and
        not with the grey that the network was trained with.
    """
    low, high = input_range
    factor = 2 / (high - low)
    return {
        layer.scope: _fold(layer, checkpoint, factor, -1 - factor * low, network.input)
        for layer in network.weighted
    }


def _fold(
    layer: Conv | Dense,
    checkpoint: Mapping[str, np.ndarray],
    factor: float,
    shift: float,
    images: str,
) -> Weights:
    def variable(name: str) -> np.ndarray:
        return checkpoint[f"{layer.scope}/{name}"].astype(np.float64)

    kernel = variable("weights")
    if isinstance(layer, Conv) and layer.normalized:
        variance = variable("BatchNorm/moving_variance")
        gain = 1 / np.sqrt(variance + BATCH_NORM_EPSILON)
        kernel = kernel * gain
        bias = variable("BatchNorm/beta") - variable("BatchNorm/moving_mean") * gain
    else:
        bias = variable("biases")
    if isinstance(layer, Conv):
        kernel, bias = kernel * layer.scale, bias * layer.scale
    if layer.input == images:
        if isinstance(layer, Conv) and layer.padding != "VALID":
            raise ValueError(f"{layer.name} pads the images")
        inputs = tuple(range(kernel.ndim - 1))
        kernel, bias = kernel * factor, bias + shift * kernel.sum(axis=inputs)
    return Weights(kernel.astype(np.float32), bias.astype(np.float32))
