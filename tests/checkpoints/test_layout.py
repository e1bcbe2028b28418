"""The layout of the published checkpoint, and checkpoints that do not have it."""

import numpy as np
import pytest

from checkpoints import layout
from checkpoints.layout import CheckpointLayoutError

KERNEL = "InceptionResnetV2/Conv2d_1a_3x3/weights"
BETA = "InceptionResnetV2/Conv2d_1a_3x3/BatchNorm/beta"
MEAN = "InceptionResnetV2/Conv2d_1a_3x3/BatchNorm/moving_mean"
VARIANCE = "InceptionResnetV2/Conv2d_1a_3x3/BatchNorm/moving_variance"


@pytest.fixture
def variables():
    """All variables with the right shapes; each is one number that looks like many."""
    one = np.float32(1)
    return {
        name: np.broadcast_to(one, shape)
        for name, shape in layout.variable_shapes().items()
    }


def problems(variables):
    """The lines of the error that `check` raises."""
    with pytest.raises(CheckpointLayoutError) as caught:
        layout.check(variables, "some/model.ckpt")
    return str(caught.value).splitlines()


def with_one(value, shape):
    """Ones, and one other value in the middle."""
    array = np.ones(shape, np.float32)
    array.flat[array.size // 2] = value
    return array


def test_the_published_variables():
    shapes = layout.variable_shapes()
    assert len(shapes) == 908
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 59_244_594
    assert shapes[KERNEL] == (3, 3, 3, 32)
    assert shapes["InceptionResnetV2/Logits/Logits/weights"] == (1536, 1001)
    assert shapes["InceptionResnetV2/AuxLogits/Logits/weights"] == (768, 1001)


def test_the_list_cannot_be_changed():
    with pytest.raises(TypeError):
        layout.variable_shapes()["another"] = (1,)


def test_the_published_layout_passes(variables):
    layout.check(variables, "some/model.ckpt")


def test_global_step_is_no_problem(variables):
    variables["global_step"] = np.array(7, np.int64)
    layout.check(variables, "some/model.ckpt")


def test_all_problems_are_reported_at_once(variables):
    del variables[BETA]
    variables["InceptionResnetV2/Extra/weights"] = np.ones((1, 2), np.float32)
    variables[KERNEL] = np.ones((3, 3, 3, 31), np.float32)
    variables[MEAN] = np.ones(32, np.float64)
    assert problems(variables) == [
        "some/model.ckpt is not a checkpoint of inception_resnet_v2. Found 908 "
        "variables, expected the 908 that TF-Slim's definition has:",
        "  1 missing:",
        f"    {BETA}",
        "  1 unexpected:",
        "    InceptionResnetV2/Extra/weights",
        "  1 of the wrong shape:",
        f"    {KERNEL}: [3, 3, 3, 31], expected [3, 3, 3, 32]",
        "  1 of the wrong dtype:",
        f"    {MEAN}: float64, expected float32",
    ]


def test_all_wrong_values_are_reported_at_once(variables):
    shapes = layout.variable_shapes()
    biases = "InceptionResnetV2/Logits/Logits/biases"
    variables[biases] = with_one(np.nan, shapes[biases])
    variables[VARIANCE] = with_one(-0.5, shapes[VARIANCE])

    assert problems(variables) == [
        "some/model.ckpt holds values that no network can work with:",
        "  1 not finite:",
        f"    {biases}: 1 of 1001 values",
        "  1 negative:",
        f"    {VARIANCE}: minimum -0.5",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(variables, value):
    variables[MEAN] = with_one(value, (32,))
    assert problems(variables)[1:] == ["  1 not finite:", f"    {MEAN}: 1 of 32 values"]


def test_one_variable_can_have_two_problems(variables):
    variables[KERNEL] = np.ones((2, 2), np.float64)
    assert problems(variables)[1:] == [
        "  1 of the wrong shape:",
        f"    {KERNEL}: [2, 2], expected [3, 3, 3, 32]",
        "  1 of the wrong dtype:",
        f"    {KERNEL}: float64, expected float32",
    ]


def test_only_variances_must_not_be_negative(variables):
    variables[MEAN] = with_one(-1, (32,))
    variables[VARIANCE] = with_one(0, (32,))
    layout.check(variables, "some/model.ckpt")


def test_another_network_is_told_in_a_few_lines():
    lines = problems({"resnet_v2_50/conv1/weights": np.ones((7, 7, 3, 64))})
    assert lines[1] == "  896 missing:"  # The other 12 are not needed.
    assert lines[6] == "    and 892 more"
    assert lines[7:] == ["  1 unexpected:", "    resnet_v2_50/conv1/weights"]
