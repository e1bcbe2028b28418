"""One quantization for every format: ranges, scales, rounding, what stays float."""

import warnings

import numpy as np
import pytest
import small_networks
from small_networks import conv, network

from exporters import calibration
from exporters.network.folding import Weights
from exporters.network.layers import Concat, Pool, Softmax
from exporters.network.quantization import (
    PROBABILITIES,
    Precision,
    Quantization,
    Statistics,
    of_activations,
    of_kernel,
    of_range,
    quantize,
    quantize_network,
    rounding_shift,
)

BLOCK = small_networks.BLOCK
INT8 = Precision("int8", "int8")
IMAGES = of_range(0, 1)


@pytest.fixture(autouse=True)
def arithmetic_is_sound():
    """NumPy only warns of overflow, division by zero, and NaN as an integer."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


# What stays in float


def test_a_format_without_integers_or_halves_is_in_float_throughout():
    assert Precision().float_layers(BLOCK) == {layer.name for layer in BLOCK.layers}
    assert Precision().quantized_activations(BLOCK) == set()


def test_layers_in_float_are_named_by_endpoints():
    precision = Precision(
        "int8", "int8", in_float=("Conv2d_1a_3x3", "Logits", "elsewhere")
    )
    assert precision.float_layers(BLOCK) == {"first/Relu", "head/logits"}


def test_sums_in_float_leave_what_they_add_in_integers():
    precision = Precision("int8", "int8", float_sums=("sum", "left", "elsewhere"))
    assert precision.float_layers(BLOCK) == {"sum/Relu"}
    # The head reads integers.
    assert precision.quantized_activations(BLOCK) == INT8.quantized_activations(BLOCK)


def test_what_is_computed_in_integers_is_rounded_and_what_they_are_computed_of():
    every = {layer.name for layer in BLOCK.layers}
    assert INT8.quantized_activations(BLOCK) == every | {"in"}
    # The convolutions read what "first" gives, which is rounded for them.
    precision = Precision(
        "int8", "int8", in_float=("Conv2d_1a_3x3", "global_pool", "PreLogitsFlatten")
    )
    assert precision.quantized_activations(BLOCK) == every - {"head/mean"}
    assert Precision("int8").quantized_activations(BLOCK) == set()
    assert Precision("float16", "float16").quantized_activations(BLOCK) == set()


# Ranges


@pytest.mark.parametrize("low, high", [(0, 6), (-3, 5), (2, 3), (-5, -4), (0, 0)])
def test_ranges_are_covered_and_zero_is_exact(low, high):
    found = of_range(low, high)
    values = np.linspace(min(low, 0), max(high, 0), 1001)
    integers = found.quantize(values, np.int8)
    error = np.abs(found.dequantize(integers) - values)
    # The ends may be a rounded zero point away: one step, not half a step.
    assert error.max() <= 1.01 * found.scale[0]
    zero = found.quantize(np.zeros(1), np.int8)
    assert found.dequantize(zero) == 0


def test_pixels_are_exact():
    pixels = np.arange(256, dtype=np.float32) / 255
    np.testing.assert_array_equal(
        IMAGES.quantize(pixels, np.int8), np.arange(-128, 128)
    )


@pytest.mark.parametrize("high", [1e-45, 1e-39, 1e-30, 1e4, 1e30, 3e38])
def test_ranges_of_any_size_have_scales_that_can_be_divided_by(high):
    found = of_range(0, high)
    assert np.isfinite(found.scale).all()
    assert np.isfinite(1 / found.scale).all()
    assert found.quantize(np.array([0, high]), np.int8)[0] == -128


def test_integers_are_the_nearest_that_the_type_has():
    found = Quantization(np.array([0.5], np.float32), 10)
    values = np.array([-100, -0.26, -0.24, 0, 0.74, 0.76, 100])
    integers = found.quantize(values, np.int8)
    assert integers.dtype == np.int8
    assert integers.tolist() == [-128, 9, 10, 10, 11, 12, 127]
    np.testing.assert_array_equal(found.dequantize(integers[1:3]), [-0.5, 0])


# Activations


def test_pools_and_concatenations_share_one_scale():
    small = network(
        conv("a", "in"),
        conv("b", "in"),
        Pool("pool", "b", "max", (3, 3), 1, "SAME"),
        Concat("joined", ("a", "pool")),
        Concat("again", ("joined", "b")),
        conv("c", "again"),
        Softmax("p", "c"),
    )
    ranges = {
        "in": (0.0, 1.0),
        "a": (0.0, 2.0),
        "b": (-1.0, 1.0),
        "pool": (-0.5, 1.0),
        "joined": (-0.5, 2.0),
        "again": (-1.0, 2.0),
        "c": (0.0, 5.0),
        "p": (0.0, 0.1),
    }
    found = of_activations(small, ranges, ranges)
    for name in ("b", "pool", "joined", "again"):
        assert found[name] == found["a"]
    assert found["a"].scale[0] == pytest.approx(3 / 255)
    assert found["c"].scale[0] == pytest.approx(5 / 255)
    assert found["in"].scale[0] == pytest.approx(1 / 255)
    assert found["p"] is PROBABILITIES


def test_what_stays_in_float_has_no_part_in_a_scale():
    small = network(conv("a", "in"), conv("b", "in"), Concat("joined", ("a", "b")))
    ranges = {"in": (0.0, 1.0), "a": (0.0, 9.0), "b": (0.0, 1.0), "joined": (0.0, 1.0)}
    found = of_activations(small, ranges, {"in", "b", "joined"})
    assert found.keys() == {"in", "b", "joined"}
    assert found["joined"].scale[0] == pytest.approx(1 / 255)


# Kernels


def test_kernels_are_rounded_by_half_a_step_of_their_channel():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 7, 5)) * 10.0 ** np.arange(-2, 3)
    found = of_kernel(kernel.astype(np.float32))
    integers = found.quantize(kernel, np.int8)
    assert np.abs(integers).max(axis=(0, 1, 2)).tolist() == [127] * 5
    error = np.abs(found.dequantize(integers) - kernel).max(axis=(0, 1, 2))
    assert (error <= 0.5001 * found.scale).all()
    assert found.zero_point == 0


def test_matrices_have_a_scale_for_each_unit():
    kernel = np.array([[1, -10], [-2, 5]], np.float32)
    np.testing.assert_allclose(of_kernel(kernel).scale, [2 / 127, 10 / 127])


@pytest.mark.parametrize("size", [1e-5, 1e5])
def test_a_channel_of_another_size_costs_the_others_nothing(size):
    kernel = np.random.default_rng(0).normal(size=(1, 1, 64, 4)).astype(np.float32)
    alone = of_kernel(kernel)
    kernel[..., 2] *= size
    found = of_kernel(kernel)
    others = [0, 1, 3]
    np.testing.assert_array_equal(found.scale[others], alone.scale[others])
    np.testing.assert_allclose(found.scale[2], alone.scale[2] * size, rtol=1e-6)


# Layers: kernel and bias


def _layer(kernel_size=1.0, bias_size=1.0, channels=6) -> Weights:
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 5, channels)) * kernel_size
    bias = random.normal(size=channels) * bias_size
    return Weights(kernel.astype(np.float32), bias.astype(np.float32))


def _rounded(weights, source=IMAGES, mean=0.5):
    """A layer in integers, and the values that these stand for."""
    mean = np.full(weights.kernel.shape[-2], mean, np.float32)
    found = quantize(weights, source, mean)
    assert found.kernel.values.dtype == np.int8
    assert found.bias.values.dtype == np.int32
    for integers in (found.kernel, found.bias):
        assert np.isfinite(integers.quantization.scale).all()
        assert (integers.quantization.scale > 0).all()
    kernel = found.kernel.quantization.dequantize(found.kernel.values)
    return found, kernel, found.bias.quantization.dequantize(found.bias.values)


def test_biases_count_in_steps_of_input_times_kernel():
    found, _, _ = _rounded(_layer())
    products = found.kernel.quantization.scale * IMAGES.scale
    np.testing.assert_array_equal(found.bias.quantization.scale, products)


def test_rounding_a_layer_leaves_its_mean_output_where_it_was():
    weights = _layer()
    mean = 0.5
    found, kernel, bias = _rounded(weights, mean=mean)
    step = found.bias.quantization.scale
    before = mean * weights.kernel.sum(axis=(0, 1, 2)) + weights.bias
    after = mean * kernel.sum(axis=(0, 1, 2)) + bias
    np.testing.assert_array_less(np.abs(after - before), step)
    # Which rounding the bias alone does not give.
    assert (np.abs(bias - weights.bias) > 3 * step).any()


def test_rounding_shift_is_what_rounding_does_to_the_mean_output():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 5, 4))
    rounded = np.rint(kernel * 4) / 4
    patches = random.uniform(0, 1, (1000, 3, 3, 5))
    patches -= patches.mean(axis=(0, 1, 2))
    patches += (mean := random.uniform(0, 1, 5))
    patches += mean - patches.mean(axis=0)  # The same mean at every position.
    moved = np.einsum("nhwi,hwio->no", patches, rounded - kernel).mean(axis=0)
    np.testing.assert_allclose(rounding_shift(kernel, rounded, mean), moved, rtol=1e-4)


def test_rounding_shift_of_a_matrix():
    kernel = np.array([[1.0, 2], [3, 4]])
    moved = np.array([[0.5, 0], [0, -1]])
    shift = rounding_shift(kernel, kernel + moved, np.array([10.0, 1]))
    np.testing.assert_array_equal(shift, [5, -1])


@pytest.mark.parametrize("bias_size", [0, 1e-30, 1e-3, 1, 1e6])
@pytest.mark.parametrize("kernel_size", [0, 1e-42, 1e-30, 1e-3, 1, 1e5])
def test_layers_of_any_size_fit_their_integers(kernel_size, bias_size):
    weights = _layer(kernel_size, bias_size)
    for source in (IMAGES, of_range(0, 1e-40), of_range(0, 0), of_range(-1e4, 1e4)):
        mean = 0.4 * float(source.scale[0]) * 255
        found, kernel, bias = _rounded(weights, source, mean)
        shift = mean * (kernel - weights.kernel).sum(axis=(0, 1, 2))
        step = found.bias.quantization.scale
        error = np.abs(bias - (weights.bias - shift))
        assert (error <= 0.501 * step + 1e-6 * np.abs(weights.bias)).all()


def test_what_is_always_0_has_scales_that_runtimes_take():
    """XNNPACK refuses input times kernel of 256 times the output's scale, and more."""
    large, small = of_range(0, 1e4), of_range(0, 1e-3)
    found, _, _ = _rounded(_layer(kernel_size=0, bias_size=0), large)
    products = found.bias.quantization.scale
    assert (products / small.scale < 256).all()
    assert (products / of_range(0, 0).scale < 256).all()


def test_dead_channels_stay_dead_and_keep_their_bias():
    weights = _layer()
    weights.kernel[..., 1] = 0
    weights.kernel[..., 2] = 0
    weights.kernel[..., 3] = 1e-25
    weights.bias[2] = 1000
    _, kernel, bias = _rounded(weights)
    assert not kernel[..., 1:4].any()
    np.testing.assert_allclose(bias[1:4], weights.bias[1:4], rtol=1e-5, atol=1e-7)


def test_a_bias_that_dwarfs_its_kernel_fits():
    weights = _layer(kernel_size=1e-5, bias_size=1e6)
    _, _, bias = _rounded(weights)
    np.testing.assert_allclose(bias, weights.bias, rtol=1e-5)


# Networks


@pytest.fixture(scope="module")
def weights():
    return small_networks.weights(BLOCK)


@pytest.fixture(scope="module")
def statistics(weights) -> Statistics:
    return calibration.measure(BLOCK, weights, small_networks.images(4))


def test_a_network_in_integers_throughout(weights, statistics):
    found = quantize_network(BLOCK, weights, statistics, INT8)
    assert found.activations.keys() == INT8.quantized_activations(BLOCK)
    assert list(found.weights) == [layer.scope for layer in BLOCK.weighted]
    for layer in BLOCK.weighted:
        of = found.weights[layer.scope]
        products = of.kernel.quantization.scale * found.activations[layer.input].scale
        np.testing.assert_array_equal(of.bias.quantization.scale, products)


def test_layers_in_float_are_not_rounded(weights, statistics):
    precision = Precision("int8", "int8", in_float=("Conv2d_1a_3x3", "Logits"))
    found = quantize_network(BLOCK, weights, statistics, precision)
    in_float = {"scope/first/Relu", "scope/logits"}
    assert found.weights.keys() == {x.scope for x in BLOCK.weighted} - in_float
    # What a layer in integers reads is as it is without the exceptions.
    whole = quantize_network(BLOCK, weights, statistics, INT8)
    for scope, expected in found.weights.items():
        np.testing.assert_array_equal(
            expected.kernel.values, whole.weights[scope].kernel.values
        )


def test_biases_are_corrected_by_the_means_of_what_their_layer_reads(
    weights, statistics
):
    found = quantize_network(BLOCK, weights, statistics, INT8)
    for layer in BLOCK.weighted:
        expected = quantize(
            weights[layer.scope],
            found.activations[layer.input],
            statistics.means[layer.input],
        )
        np.testing.assert_array_equal(
            found.weights[layer.scope].bias.values, expected.bias.values
        )


def test_statistics_of_images_in_another_range(statistics):
    signed = statistics.with_input_range("in", (-1.0, 1.0))
    assert signed.ranges["in"] == (-1, 1)
    np.testing.assert_allclose(signed.means["in"], 2 * statistics.means["in"] - 1)
    for name in statistics.ranges.keys() - {"in"}:
        assert signed.ranges[name] == statistics.ranges[name]
        assert signed.means[name] is statistics.means[name]
    assert statistics.ranges["in"] == (0, 1)
