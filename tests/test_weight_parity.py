"""Comparing numbers: a test for each of the rules that exporters.weight_parity lists."""

import dataclasses

import numpy as np
import pytest

from exporters.artifact import StoredWeight
from exporters.network import quantization
from exporters.network.folding import Weights
from exporters.network.layers import Conv, Network, Pool
from exporters.network.quantization import Precision, Quantization, Statistics
from exporters.reference import Activations
from exporters.weight_parity import activation_problems, compare_folded_weights

RANDOM = np.random.default_rng(0)
NETWORK = Network(
    "images",
    (
        Conv("a", "images", "A", 6, (3, 3), padding="VALID"),
        Pool("p", "a", "max", (2, 2), 2, "VALID"),
        Conv("b", "p", "B", 5, (1, 1), relu=False),
    ),
    {"A": "a", "P": "p", "B": "b"},
)
WEIGHTS = {
    "A": Weights(
        RANDOM.normal(size=(3, 3, 3, 6)).astype(np.float32),
        RANDOM.normal(size=6).astype(np.float32),
    ),
    "B": Weights(
        RANDOM.normal(size=(1, 1, 6, 5)).astype(np.float32),
        RANDOM.normal(size=5).astype(np.float32),
    ),
}
EXPECTED = {
    f"{scope}/{kind}": value
    for scope, weights in WEIGHTS.items()
    for kind, value in (("weights", weights.kernel), ("biases", weights.bias))
}
RANGES = {"images": (0.0, 1.0), "a": (0.0, 3.0), "p": (0.0, 3.0), "b": (-2.0, 2.0)}
MEANS = {"images": np.full(3, 0.5), "a": np.full(6, 0.8), "p": np.full(6, 0.9)}
ACTIVATIONS = Activations(RANGES, MEANS)

FLOAT32 = Precision()
FLOAT16 = Precision("float16", in_float=("A",))
DYNAMIC = Precision("int8", in_float=("A",))
UINT8 = Precision("uint8", in_float=("A",))
INT8 = Precision("int8", "int8")


def quantized(statistics=None):
    statistics = statistics or Statistics(RANGES, MEANS)
    return quantization.quantize_network(NETWORK, WEIGHTS, statistics, INT8)


def stored_int8(result=None):
    result = result or quantized()
    found = {}
    for scope, weights in result.weights.items():
        for kind, integers in (("weights", weights.kernel), ("biases", weights.bias)):
            found[f"{scope}/{kind}"] = StoredWeight(
                integers.values, integers.quantization
            )
    return found


def stored(precision):
    """What an artifact of a precision holds, if it is right."""
    if precision is INT8:
        return stored_int8()
    found = {name: StoredWeight(value) for name, value in EXPECTED.items()}
    if precision is FLOAT16:
        for name in ("B/weights", "B/biases"):
            found[name] = StoredWeight(EXPECTED[name].astype(np.float16))
    if precision in (DYNAMIC, UINT8):
        kernel = EXPECTED["B/weights"]
        rounding = quantization.of_kernel(kernel)
        if precision is UINT8:
            rounding = quantization.of_range(float(kernel.min()), float(kernel.max()))
        integers = rounding.quantize(EXPECTED["B/weights"], np.int8)
        found["B/weights"] = StoredWeight(integers, rounding)
    return found


def wrong(precision, found, rounded=None):
    if rounded is None:
        rounded = quantized().activations if precision is INT8 else {}
    return compare_folded_weights(
        found,
        EXPECTED,
        network=NETWORK,
        precision=precision,
        rounded=rounded,
        activations=ACTIVATIONS,
    ).wrong


def with_values(weight, change):
    values = weight.values.copy()
    change(values)
    return dataclasses.replace(weight, values=values)


def with_scale(weight, factor):
    rounding = weight.quantization
    scale = (rounding.scale * factor).astype(np.float32)
    return dataclasses.replace(
        weight, quantization=Quantization(scale, rounding.zero_point)
    )


ALL = pytest.mark.parametrize(
    "precision",
    [FLOAT32, FLOAT16, DYNAMIC, UINT8, INT8],
    ids=["float32", "float16", "dynamic", "uint8", "int8"],
)


INTEGERS = pytest.mark.parametrize(
    "precision", [DYNAMIC, UINT8, INT8], ids=["dynamic", "uint8", "int8"]
)


@ALL
def test_right_weights_pass(precision):
    assert wrong(precision, stored(precision)) == ()


@ALL
def test_1_missing_unexpected_and_transposed_weights(precision):
    found = stored(precision)
    found["C/weights"] = found.pop("A/biases")
    values = found["B/weights"].values.transpose(0, 1, 3, 2)
    found["B/weights"] = dataclasses.replace(found["B/weights"], values=values)
    assert wrong(precision, found) == (
        "A/biases: missing",
        "B/weights: shape [1, 1, 5, 6], expected [1, 1, 6, 5]",
        "C/weights: unexpected",
    )


def test_2_other_numbers_than_the_format_promises():
    for precision in (FLOAT16, DYNAMIC, UINT8, INT8):
        assert "expected" in str(wrong(precision, stored(FLOAT32)))
        assert "expected float32" in str(wrong(FLOAT32, stored(precision)))
    with_first_in_half = stored(FLOAT16)
    values = EXPECTED["A/weights"].astype(np.float16)
    with_first_in_half["A/weights"] = StoredWeight(values)
    assert wrong(FLOAT16, with_first_in_half) == (
        "A/weights: stored as float16, expected float32",
    )


def test_3_float32_by_one_last_bit():
    def change(values):
        values[0, 0, 1, 2] = np.nextafter(values[0, 0, 1, 2], np.float32(9))

    found = stored(FLOAT32)
    found["B/weights"] = with_values(found["B/weights"], change)
    (line,) = wrong(FLOAT32, found)
    assert line.startswith("B/weights: 1 of 30 values differ")


def test_4_float16_by_one_last_bit():
    def change(values):
        values[3] = np.nextafter(values[3], np.float16(9))

    found = stored(FLOAT16)
    found["B/biases"] = with_values(found["B/biases"], change)
    (line,) = wrong(FLOAT16, found)
    assert line.startswith("B/biases: 1 of 5 values differ")


@INTEGERS
@pytest.mark.parametrize("factor", [1.01, 0.5, 2, 10, 1e6])
def test_5_scales_that_the_kernel_does_not_call_for(precision, factor):
    found = stored(precision)
    found["B/weights"] = with_scale(found["B/weights"], factor)
    (line,) = wrong(precision, found)
    assert line.startswith("B/weights: its scales differ from the checkpoint's")


@INTEGERS
def test_5_zeros_with_a_scale_that_would_excuse_them(precision):
    found = stored(precision)
    zeros = np.zeros_like(found["B/weights"].values)
    right = found["B/weights"].quantization
    rounding = Quantization(np.full_like(right.scale, 10), right.zero_point)
    found["B/weights"] = StoredWeight(zeros, rounding)
    assert "its scales differ" in str(wrong(precision, found))


@INTEGERS
def test_5_one_integer_by_one(precision):
    def change(values):
        values[0, 0, 1, 2] += 1

    found = stored(precision)
    found["B/weights"] = with_values(found["B/weights"], change)
    (line,) = wrong(precision, found)
    assert line.startswith("B/weights: 1 of 30 values differ")


@pytest.mark.parametrize("moved", [-1, 1])
@INTEGERS
def test_5_a_zero_that_is_none(precision, moved):
    found = stored(precision)
    right = found["B/weights"].quantization
    rounding = Quantization(right.scale, right.zero_point + moved)
    found["B/weights"] = StoredWeight(found["B/weights"].values, rounding)
    assert "B/weights: not in steps of a scale" in str(wrong(precision, found))


def test_5_kernels_without_a_scale_for_each_channel():
    found = stored(INT8)
    values = found["B/weights"].values
    for rounding in (None, Quantization(np.ones(1, np.float32))):
        found["B/weights"] = StoredWeight(values, rounding)
        assert "a scale for each channel" in str(wrong(INT8, found))


@pytest.mark.parametrize("shift", [1.0, -1.0, 0.5])
def test_6_biases_by_more_than_rounding_can_do(monkeypatch, shift):
    """Even if the writer itself takes something off each of them."""

    def rounding_shift(kernel, rounded, input_mean):
        return np.full(kernel.shape[-1], shift, np.float32)

    monkeypatch.setattr(quantization, "rounding_shift", rounding_shift)
    lines = wrong(INT8, stored_int8(quantized()))
    assert [line.partition(":")[0] for line in lines] == ["A/biases", "B/biases"]


def test_6_biases_corrected_by_other_images_pass():
    """What a writer takes off depends on its calibration images."""
    statistics = Statistics(RANGES, {name: mean * 2 for name, mean in MEANS.items()})
    assert wrong(INT8, stored_int8(quantized(statistics))) == ()
    statistics = Statistics(RANGES, {name: mean * 0 for name, mean in MEANS.items()})
    assert wrong(INT8, stored_int8(quantized(statistics))) == ()


@pytest.mark.parametrize(("moved", "passes"), [(0.0, True), (8.0, False)])
def test_6_rounding_errors_of_many_weights_hardly_add_up(moved, passes):
    """Those of 1024 do not excuse a bias that is off by a tenth of the output's range."""
    network = Network("images", (Conv("b", "images", "B", 8, (1, 1)),), {"B": "b"})
    kernel = RANDOM.normal(size=(1, 1, 1024, 8)).astype(np.float32)
    weights = Weights(kernel, np.zeros(8, np.float32))
    ranges = {"images": (0.0, 1.0), "b": (-40.0, 40.0)}
    means = {"images": np.full(1024, 0.5)}
    statistics = Statistics(ranges, means)
    result = quantization.quantize_network(network, {"B": weights}, statistics, INT8)
    found = stored_int8(result)

    def move(values):
        values[3] += moved / result.weights["B"].bias.quantization.scale[3]

    found["B/biases"] = with_values(found["B/biases"], move)
    compared = compare_folded_weights(
        found,
        {"B/weights": weights.kernel, "B/biases": weights.bias},
        network=network,
        precision=INT8,
        rounded=result.activations,
        activations=Activations(ranges, means),
    )
    assert compared.passed == passes


@pytest.mark.parametrize("count", [1, 4])
def test_6_biases_without_steps_for_each(count):
    found = stored(INT8)
    scale = np.ones(count, np.float32)
    values = found["B/biases"].values
    found["B/biases"] = StoredWeight(values, Quantization(scale))
    assert wrong(INT8, found) == ("B/biases: not in steps of input times kernel",)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_6_biases_in_other_steps(factor):
    found = stored(INT8)
    found["B/biases"] = with_scale(found["B/biases"], factor)
    assert wrong(INT8, found) == ("B/biases: not in steps of input times kernel",)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_6_an_activation_whose_scale_was_changed_alone(factor):
    """The steps of the biases that are added to its products say so."""
    rounded = dict(quantized().activations)
    scale = (rounded["p"].scale * factor).astype(np.float32)
    rounded["p"] = Quantization(scale, rounded["p"].zero_point)
    assert "B/biases: not in steps of input times kernel" in wrong(
        INT8, stored(INT8), rounded
    )


def test_6_integers_computed_of_what_is_not_rounded():
    rounded = dict(quantized().activations)
    del rounded["p"]
    (line,) = wrong(INT8, stored(INT8), rounded)
    assert "of an input that is not rounded" in line


# Activations


def problems(
    rounded, precision=INT8, input_range=(0.0, 1.0), network=NETWORK, **ranges
):
    return activation_problems(
        rounded,
        network=network,
        precision=precision,
        activations=Activations(RANGES | ranges, MEANS),
        input_range=input_range,
    )


def test_right_activations_pass():
    assert problems(quantized().activations) == []
    assert problems({}, FLOAT32) == []
    assert problems({}, DYNAMIC) == []


def test_7_activations_that_should_be_rounded_and_are_not():
    rounded = dict(quantized().activations)
    del rounded["a"]
    assert problems(rounded) == ["activation a: not rounded, as the format promises"]


def test_7_activations_that_should_not_be_rounded_and_are():
    rounded = quantized().activations
    assert len(problems(rounded, FLOAT32)) == len(rounded)
    more = {**rounded, "another": rounded["a"]}
    assert problems(more) == [
        "activation another: rounded, which the format does not do"
    ]


@pytest.mark.parametrize(
    ("factor", "passes"), [(0.1, False), (0.5, True), (2, True), (30, False)]
)
def test_8_ranges_that_do_not_suit_the_network(factor, passes):
    rounded = dict(quantized().activations)
    low, high = RANGES["b"]
    rounded["b"] = quantization.of_range(low * factor, high * factor)
    assert (problems(rounded) == []) == passes


@pytest.mark.parametrize("zero_point", [127, 200])
def test_8_a_zero_point_that_leaves_no_room(zero_point):
    rounded = dict(quantized().activations)
    rounded["a"] = Quantization(rounded["a"].scale, zero_point)
    (line,) = problems(rounded)
    assert line.startswith("activation a: it ranges from")


@pytest.mark.parametrize("factor", [0.99, 1.01, 2])
def test_8_images_have_exactly_their_range(factor):
    rounded = dict(quantized().activations)
    rounded["images"] = quantization.of_range(0.0, factor)
    (line,) = problems(rounded)
    assert "expected 0 to 1" in line
    signed = {**rounded, "images": quantization.of_range(-1.0, 1.0)}
    assert problems(signed, input_range=(-1.0, 1.0)) == []


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf, -1.0])
def test_8_scales_that_are_none(scale):
    rounded = dict(quantized().activations)
    rounded["a"] = Quantization(np.array([scale], np.float32), -128)
    assert problems(rounded)


@pytest.mark.parametrize("low, high", [(-1e5, 0.8), (-0.8, 1e5), (0, 3), (0, 0)])
@pytest.mark.parametrize("factor", [0.5, 1, 2])
def test_8_ranges_as_the_reference_has_them_pass(low, high, factor):
    """Even if one side is less than a step."""
    rounding = quantization.of_range(low * factor, high * factor)
    assert problems(quantized().activations | {"b": rounding}, b=(low, high)) == []


def test_8_what_is_never_below_0_on_some_images_may_be_on_others():
    rounding = quantization.of_range(-0.1, 3)
    assert problems(quantized().activations | {"b": rounding}, b=(0.0, 3.0)) == []


def test_8_what_is_rectified_starts_at_0():
    rounded = quantized().activations | {"a": quantization.of_range(-0.5, 3.0)}
    (line,) = problems(rounded)
    assert line.startswith("activation a: it ranges from -0.")
