"""Tests of exporters.containers.tflite.quantization."""

import numpy as np
import pytest
from exporters.containers.tflite.network import Layer, Network
from exporters.containers.tflite.quantization import (
    PROBABILITIES,
    Quantization,
    of_activations,
    of_kernel,
    of_range,
    rounding_shift,
)


@pytest.mark.parametrize("low, high", [(0, 6), (-3, 5), (2, 3), (-5, -4), (0, 0)])
def test_ranges_are_covered_and_zero_is_exact(low, high):
    quantization = of_range(low, high)
    values = np.linspace(min(low, 0), max(high, 0), 1001)
    integers = quantization.quantize(values, np.int8)
    error = np.abs(quantization.dequantize(integers) - values)
    # The ends may be a rounded zero point away: one step, not half a step.
    assert error.max() <= 1.01 * quantization.scale[0]
    zero = quantization.quantize(np.zeros(1), np.int8)
    assert quantization.dequantize(zero) == 0


def test_pixels_are_exact():
    quantization = of_range(0, 1)
    pixels = np.arange(256, dtype=np.float32) / 255
    np.testing.assert_array_equal(
        quantization.quantize(pixels, np.int8), np.arange(-128, 128)
    )


def test_kernels_are_rounded_by_half_a_step_of_their_channel():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(5, 3, 3, 7)) * 10.0 ** np.arange(-2, 3).reshape(
        -1, 1, 1, 1
    )
    quantization = of_kernel(kernel.astype(np.float32))
    integers = quantization.quantize(kernel, np.int8)
    assert np.abs(integers).max(axis=(1, 2, 3)).tolist() == [127] * 5
    error = np.abs(quantization.dequantize(integers) - kernel).max(axis=(1, 2, 3))
    assert (error <= 0.5001 * quantization.scale).all()


def test_channels_without_weights_have_biases_that_fit():
    kernel = np.zeros((3, 1, 1, 2), np.float32)
    kernel[0] = 1
    bias = np.array([1, 1000, 0], np.float32)
    quantization = of_kernel(kernel, bias, input_scale=0.001)
    assert (quantization.scale > 0).all()
    bias_quantization = Quantization(quantization.scale * np.float32(0.001))
    integers = bias_quantization.quantize(bias, np.int32)
    np.testing.assert_allclose(bias_quantization.dequantize(integers), bias, rtol=1e-5)
    assert (of_kernel(np.zeros((2, 3), np.float32)).scale > 0).all()


def test_pools_and_concatenations_share_one_scale():
    shape = (1, 4, 4, 2)
    layers = (
        Layer("CONV_2D", "a", ("images",), shape),
        Layer("CONV_2D", "b", ("images",), shape),
        Layer("MAX_POOL_2D", "pool", ("b",), shape),
        Layer("CONCATENATION", "joined", ("a", "pool"), shape),
        Layer("CONV_2D", "c", ("joined",), shape),
        Layer("SOFTMAX", "p", ("c",), shape),
    )
    network = Network("images", (4, 4), layers, {})
    ranges = {
        "images": (0.0, 1.0),
        "a": (0.0, 2.0),
        "b": (-1.0, 1.0),
        "pool": (-1.0, 1.0),
        "joined": (-1.0, 2.0),
        "c": (0.0, 5.0),
        "p": (0.0, 0.1),
    }
    found = of_activations(network, ranges)
    assert found["a"] == found["b"] == found["pool"] == found["joined"]
    assert found["a"].scale[0] == pytest.approx(3 / 255)
    assert found["c"].scale[0] == pytest.approx(5 / 255)
    assert found["images"].scale[0] == pytest.approx(1 / 255)
    assert found["p"] is PROBABILITIES


def test_rounding_shift_is_what_rounding_does_to_the_mean_output():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(4, 3, 3, 5))
    rounded = np.rint(kernel * 4) / 4
    patches = random.uniform(0, 1, (1000, 3, 3, 5))
    patches -= patches.mean(axis=(0, 1, 2))
    patches += (mean := random.uniform(0, 1, 5))
    patches += mean - patches.mean(axis=0)  # The same mean at every position.
    moved = np.einsum("nhwi,ohwi->no", patches, rounded - kernel).mean(axis=0)
    np.testing.assert_allclose(rounding_shift(kernel, rounded, mean), moved, rtol=1e-4)
