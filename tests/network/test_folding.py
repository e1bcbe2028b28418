"""Folding: everything linear in one kernel and bias, for any range of the images."""

import numpy as np
import pytest

from exporters.network import folding, layers
from exporters.network.layers import Conv, Dense, Network

NETWORK = layers.inception_resnet_v2()
STEM = "InceptionResnetV2/Conv2d_2a_3x3"
RESIDUAL = "InceptionResnetV2/Repeat_1/block17_3/Conv2d_1x1"
LAST_RESIDUAL = "InceptionResnetV2/Block8/Conv2d_1x1"
CLASSIFIER = "InceptionResnetV2/Logits/Logits"


@pytest.fixture(scope="module")
def folded(raw_variables):
    return folding.fold(NETWORK, raw_variables)


def test_every_layer_with_weights_has_them(folded):
    assert list(folded) == [layer.scope for layer in NETWORK.weighted]
    assert len(folded) == 245
    for weights in folded.values():
        assert weights.kernel.dtype == weights.bias.dtype == np.float32


def test_batch_norm_is_folded_in_float64(folded, raw_variables):
    part = {
        name: raw_variables[f"{STEM}/BatchNorm/{name}"].astype(np.float64)
        for name in ("beta", "moving_mean", "moving_variance")
    }
    gain = 1 / np.sqrt(part["moving_variance"] + 0.001)
    kernel = (raw_variables[f"{STEM}/weights"] * gain).astype(np.float32)
    np.testing.assert_array_equal(folded[STEM].kernel, kernel)
    bias = (part["beta"] - part["moving_mean"] * gain).astype(np.float32)
    np.testing.assert_array_equal(folded[STEM].bias, bias)


@pytest.mark.parametrize(
    "scope, scale", [(RESIDUAL, 0.1), (LAST_RESIDUAL, 1.0), (CLASSIFIER, 1.0)]
)
def test_scales_of_residuals_are_folded(folded, raw_variables, scope, scale):
    for found, name in (
        (folded[scope].kernel, "weights"),
        (folded[scope].bias, "biases"),
    ):
        expected = raw_variables[f"{scope}/{name}"].astype(np.float64) * scale
        np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize(
    "input_range", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-2.0, 3.0)]
)
def test_any_range_of_the_images_gives_the_same_numbers(input_range):
    random = np.random.default_rng(0)
    layer = Conv("out", "in", "scope", 4, (2, 2), padding="VALID", normalized=False)
    network = Network("in", (layer,), {"out": "out"})
    variables = {
        "scope/weights": random.normal(size=(2, 2, 3, 4)).astype(np.float32),
        "scope/biases": random.normal(size=4).astype(np.float32),
    }
    patch = random.uniform(-1, 1, (2, 2, 3))  # As the network was trained.
    expected = np.tensordot(patch, variables["scope/weights"], 3)
    expected += variables["scope/biases"]

    weights = folding.fold(network, variables, input_range)["scope"]
    low, high = input_range
    image = low + (patch + 1) / 2 * (high - low)
    found = np.tensordot(image, weights.kernel, 3) + weights.bias
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_only_the_layer_that_reads_the_images_knows_of_their_range(raw_variables):
    first = "InceptionResnetV2/Conv2d_1a_3x3"
    ours = folding.fold(NETWORK, raw_variables, (0.0, 1.0))
    trained = folding.fold(NETWORK, raw_variables, (-1.0, 1.0))
    np.testing.assert_array_equal(ours[first].kernel, trained[first].kernel * 2)
    for scope in ours.keys() - {first}:
        np.testing.assert_array_equal(ours[scope].kernel, trained[scope].kernel)
        np.testing.assert_array_equal(ours[scope].bias, trained[scope].bias)


def test_padded_images_are_refused():
    layer = Conv("out", "in", "scope", 1, (3, 3), padding="SAME", normalized=False)
    network = Network("in", (layer,), {"out": "out"})
    variables = {"scope/weights": np.ones((3, 3, 3, 1)), "scope/biases": np.ones(1)}
    with pytest.raises(ValueError, match="out pads the images"):
        folding.fold(network, variables)


def test_a_part_needs_only_its_own_variables(raw_variables):
    part = layers.inception_resnet_v2().up_to(["Conv2d_2a_3x3"])
    names = {"InceptionResnetV2/Conv2d_1a_3x3", STEM}
    variables = {
        name: value
        for name, value in raw_variables.items()
        if any(name.startswith(scope) for scope in names)
    }
    assert folding.fold(part, variables).keys() == names


def test_matrices_fold_as_kernels_do():
    layer = Dense("out", "x", "scope", 2)
    network = Network("in", (layer,), {"out": "out"})
    variables = {
        "scope/weights": np.array([[1.0, 2], [3, 4]], np.float32),
        "scope/biases": np.array([5.0, 6], np.float32),
    }
    weights = folding.fold(network, variables)["scope"]
    np.testing.assert_array_equal(weights.kernel, variables["scope/weights"])
    np.testing.assert_array_equal(weights.bias, variables["scope/biases"])
