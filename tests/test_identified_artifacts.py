"""Whose weights are in artifacts of the whole network?"""

import pytest

from exporters.identification import identify
from exporters.identifying import networks

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("place", "name", "precision", "is_folded", "input_range"),
    [
        ("exported", "classification-v3-stand-in", "float32", False, None),
        ("exported", "feature_vector-v5-stand-in", "float32", False, None),
        (
            "twins",
            "classification-timm-stand-in.safetensors",
            "float32",
            False,
            (-1, 1),
        ),
        (
            "deployable",
            "classification-onnx-int8-139-stand-in.onnx",
            "int8",
            True,
            (0, 1),
        ),
        (
            "deployable",
            "classification-tflite-float16-139-stand-in.tflite",
            "float16",
            True,
            (0, 1),
        ),
        (
            "deployable",
            "feature_vector-tflite-int8-139-stand-in.tflite",
            "int8",
            True,
            (0, 1),
        ),
    ],
)
def test_the_same_weights(
    request, stand_in_checkpoint, place, name, precision, is_folded, input_range
):
    path = request.getfixturevalue(place) / f"inception_resnet_v2-{name}"
    (found,) = identify(path, stand_in_checkpoint).files
    assert found.error is None
    assert (found.network, found.confidence) == (networks.THIS, "certain")
    assert found.relation == "same", found.differences[:5]
    assert found.matched == found.compared == 245 - ("feature" in name)
    assert found.is_stand_in
    assert found.precision[0] == precision
    assert found.is_folded is is_folded
    if input_range:
        assert found.input_range == input_range
