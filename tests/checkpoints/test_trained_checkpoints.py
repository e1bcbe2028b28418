"""Checkpoints as people have them after training of their own, of a small network."""

import re

import numpy as np
import pytest
import small_checkpoints

from checkpoints import layout, stand_in
from checkpoints.layout import CheckpointLayoutError, MovingAveragesError
from checkpoints.reader import Checkpoint, open_checkpoint

SCOPE = "InceptionResnetV2"
KERNEL = f"{SCOPE}/Conv2d_1a_3x3/weights"
BETA = f"{SCOPE}/Conv2d_1a_3x3/BatchNorm/beta"
HEAD_KERNEL = f"{SCOPE}/AuxLogits/Conv2d_2a_5x5/weights"
SHAPES = {
    KERNEL: (3, 3, 3, 4),
    BETA: (4,),
    f"{SCOPE}/Conv2d_1a_3x3/BatchNorm/moving_mean": (4,),
    f"{SCOPE}/Conv2d_1a_3x3/BatchNorm/moving_variance": (4,),
    HEAD_KERNEL: (5, 5, 4, 6),
    f"{SCOPE}/AuxLogits/Logits/weights": (6, 7),
    f"{SCOPE}/AuxLogits/Logits/biases": (7,),
    f"{SCOPE}/Logits/Logits/weights": (4, 7),
    f"{SCOPE}/Logits/Logits/biases": (7,),
}
AVERAGE = "ExponentialMovingAverage"


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setattr(layout, "variable_shapes", lambda: SHAPES)


@pytest.fixture
def network():
    """Weights as somebody might have trained them."""
    noise = np.random.default_rng(0)
    return {
        name: (noise.standard_normal(shape) ** 2 + 0.1).astype(np.float32)
        for name, shape in SHAPES.items()
    }


@pytest.fixture
def opened(tmp_path):
    """Returns a function that writes variables as a V2 checkpoint, and opens that."""

    def save_and_open(variables, **options):
        small_checkpoints.write_v2(variables, tmp_path / "model.ckpt-7")
        return open_checkpoint(tmp_path / "model.ckpt-7", **options)

    return save_and_open


def identity(variables):
    return Checkpoint(variables, path="memory").identity


def without(variables, *parts):
    return {
        name: value
        for name, value in variables.items()
        if not any(part in name for part in parts)
    }


def below(prefix, variables):
    return {f"{prefix}{name}": value for name, value in variables.items()}


def averages(variables):
    return {f"{name}/{AVERAGE}": value + 1 for name, value in variables.items()}


def test_the_network_and_nothing_else(opened, network):
    checkpoint = opened(network)
    assert set(checkpoint) == set(network)
    assert checkpoint.num_classes == 7
    assert checkpoint.has_auxiliary_head
    assert checkpoint.identity == identity(network)
    found = (checkpoint.step, checkpoint.prefix, checkpoint.moving_averages)
    assert found == (None, "", None)
    assert (checkpoint.slots, checkpoint.ignored, checkpoint.notes) == (0, 0, ())


# Training


@pytest.mark.parametrize(
    "slots", [("RMSProp", "RMSProp_1"), ("Momentum",), ("Adam", "Adam_1"), ("of/mine",)]
)
def test_slots_of_any_optimizer_are_not_used(opened, network, slots):
    kept = {
        f"{name}/{slot}": value for name, value in network.items() for slot in slots
    }
    others = {
        "global_step": np.int64(1234),
        "beta1_power": np.float32(0.9),
        "learning_rate": np.float32(0.1),
        "InceptionResnetV2_loss/value": np.float32(3),
    }
    checkpoint = opened(network | kept | others)
    assert checkpoint.identity == identity(network)
    assert checkpoint.step == 1234
    assert checkpoint.slots == 9 * len(slots)
    assert checkpoint.ignored == 3
    assert checkpoint.notes == (
        f"{9 * len(slots)} variables of optimizers are not used ({', '.join(slots)}).",
        "3 variables outside of the network are not used (InceptionResnetV2_loss/value, "
        "beta1_power, learning_rate).",
    )


def test_slots_under_another_scope(opened, network):
    """tf.contrib.layers.optimize_loss has put them there."""
    kept = {f"OptimizeLoss/{name}/Adam": value for name, value in network.items()}
    checkpoint = opened(network | kept)
    assert checkpoint.identity == identity(network)
    assert checkpoint.slots == 9


def test_slots_are_not_read(tmp_path, network):
    """Nor can their damage matter."""
    import tensorflow as tf

    slots = {f"{name}/Momentum": value for name, value in network.items()}
    prefix = tmp_path / "model.ckpt-7"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=[*network, *slots],
        shape_and_slices=[""] * 18,
        tensors=[*network.values(), *slots.values()],
    )
    [data] = tmp_path.glob("*.data-*")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    assert open_checkpoint(prefix).identity == identity(network)


@pytest.mark.parametrize("step", [np.float32(7), np.int64([7, 8])])
def test_a_step_that_is_none(opened, network, step):
    checkpoint = opened(network | {"global_step": step})
    assert (checkpoint.step, checkpoint.ignored) == (None, 1)


# Moving averages


def test_moving_averages_are_not_passed_over_in_silence(opened, network):
    some = averages({KERNEL: network[KERNEL], BETA: network[BETA]})
    with pytest.raises(MovingAveragesError) as caught:
        opened(network | some)
    message = str(caught.value)
    assert "model.ckpt-7 holds moving averages of 2 variables" in message
    assert "use" in message and "ignore" in message


def test_moving_averages_ignored(opened, network):
    checkpoint = opened(network | averages(network), moving_averages="ignore")
    assert checkpoint.identity == identity(network)
    assert checkpoint.moving_averages == "ignore"
    assert checkpoint.slots == 0
    assert checkpoint.notes == (
        "Moving averages do not take the places of 9 of 9 variables.",
    )


def test_moving_averages_used(opened, network):
    some = averages({KERNEL: network[KERNEL], BETA: network[BETA]})
    checkpoint = opened(network | some, moving_averages="use")
    expected = network | {KERNEL: network[KERNEL] + 1, BETA: network[BETA] + 1}
    assert checkpoint.identity == identity(expected)
    assert checkpoint.moving_averages == "use"
    assert checkpoint.notes == ("Moving averages take the places of 2 of 9 variables.",)


def test_moving_averages_alone(opened, network):
    checkpoint = opened(averages(network), moving_averages="use")
    plus_one = {name: value + 1 for name, value in network.items()}
    assert checkpoint.identity == identity(plus_one)
    with pytest.raises(CheckpointLayoutError, match="4 missing"):
        opened(averages(network), moving_averages="ignore")


def test_moving_averages_under_a_scope_of_their_own(opened, network):
    found = below("train/", averages(network))
    with pytest.raises(MovingAveragesError):
        opened(network | found)
    checkpoint = opened(network | found, moving_averages="use")
    assert checkpoint.identity != identity(network)
    assert checkpoint.prefix == ""
    with pytest.raises(CheckpointLayoutError, match="two moving averages of 9 var"):
        opened(network | found | averages(network), moving_averages="use")


def test_a_moving_average_of_another_shape(opened, network):
    wrong = {f"{KERNEL}/{AVERAGE}": network[KERNEL][..., :3]}
    with pytest.raises(
        CheckpointLayoutError, match=re.escape(f"{KERNEL}: [3, 3, 3, 3]")
    ):
        opened(network | wrong, moving_averages="use")
    opened(network | wrong, moving_averages="ignore")


def test_no_moving_averages_to_use(opened, network):
    with pytest.raises(MovingAveragesError, match="no moving averages to use"):
        opened(network, moving_averages="use")
    assert opened(network, moving_averages="ignore").moving_averages is None


def test_a_third_way_of_moving_averages(opened, network):
    with pytest.raises(ValueError, match="expected use or ignore"):
        opened(network, moving_averages="maybe")


# Nothing that changes the numbers


@pytest.mark.parametrize(
    "name",
    [
        f"{SCOPE}/Conv2d_1a_3x3/BatchNorm/gamma",
        f"{SCOPE}/Conv2d_1a_3x3/weights_quant/{AVERAGE}",
        f"{SCOPE}/AuxLogits/Conv2d_2a_5x5/BatchNorm/gamma",
        f"{SCOPE}/global_step",
        f"{KERNEL}/{AVERAGE}_1",
    ],
)
def test_what_is_unknown_in_the_scope_is_an_error(opened, network, name):
    with pytest.raises(CheckpointLayoutError) as caught:
        opened(network | {name: np.ones(4, np.float32)})
    assert str(caught.value).splitlines()[1:] == ["  1 unexpected:", f"    {name}"]


# What may differ, or be missing


@pytest.mark.parametrize("count", [1, 3, 1001, 20_000])
def test_any_number_of_classes(opened, network, count):
    changed = {
        name: np.ones((*SHAPES[name][:-1], count), np.float32)
        for name in SHAPES
        if "Logits/Logits/" in name
    }
    checkpoint = opened(network | changed)
    assert checkpoint.num_classes == count
    assert checkpoint.has_auxiliary_head
    assert checkpoint.identity == identity(network | changed)


def test_classes_that_do_not_fit_together(opened, network):
    biases = f"{SCOPE}/Logits/Logits/biases"
    with pytest.raises(CheckpointLayoutError) as caught:
        opened(network | {biases: np.ones(3, np.float32)})
    assert f"    {SCOPE}/Logits/Logits/weights: [4, 7], expected [4, 3]" in str(
        caught.value
    )
    with pytest.raises(CheckpointLayoutError, match=r"biases: \[0\], expected \[7\]"):
        opened(network | {biases: np.ones(0, np.float32)})


def test_half_a_classifier(opened, network):
    with pytest.raises(CheckpointLayoutError) as caught:
        opened(without(network, "/Logits/Logits/biases"))
    expected = ["  1 missing:", f"    {SCOPE}/Logits/Logits/biases"]
    assert str(caught.value).splitlines()[1:] == expected


def test_no_auxiliary_head(opened, network):
    less = without(network, "/AuxLogits/")
    checkpoint = opened(less)
    assert not checkpoint.has_auxiliary_head
    assert checkpoint.num_classes == 7
    assert checkpoint.notes == ()
    assert checkpoint.identity == identity(less)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {HEAD_KERNEL: np.ones((3, 3, 4, 6), np.float32)},
            f"of the wrong shape: {HEAD_KERNEL}: [3, 3, 4, 6], expected [5, 5, 4, 6].",
        ),
        (
            {f"{SCOPE}/AuxLogits/Logits/biases": np.ones(1001, np.float32)},
            f"of the wrong shape: {SCOPE}/AuxLogits/Logits/biases: [1001], expected [7].",
        ),
        (
            {f"{SCOPE}/AuxLogits/Logits/biases": None},
            f"missing: {SCOPE}/AuxLogits/Logits/biases.",
        ),
    ],
    ids=["trained at 224", "other classes", "half of it"],
)
def test_an_auxiliary_head_that_does_not_fit(opened, network, changed, why):
    found = {n: v for n, v in (network | changed).items() if v is not None}
    checkpoint = opened(found)
    assert not checkpoint.has_auxiliary_head
    assert checkpoint.identity == identity(without(network, "/AuxLogits/"))
    assert not any("/AuxLogits/" in name for name in checkpoint)
    assert checkpoint.notes == (
        f"The auxiliary head does not fit and is not used; {why}",
    )


def test_no_classifier(opened, network):
    less = without(network, "/AuxLogits/", "/Logits/")
    checkpoint = opened(less)
    assert checkpoint.num_classes is None
    assert checkpoint.identity == identity(less)
    assert checkpoint.notes == ("There is no classifier, so all it gives is features.",)


# Prefixes


def test_under_a_prefix(opened, network):
    step = {"model/global_step": np.int64(5)}
    slots = {f"{name}/Adam": value for name, value in network.items()}
    checkpoint = opened(below("model/", network | slots) | step)
    assert set(checkpoint) == set(network)
    assert checkpoint.identity == identity(network)
    assert (checkpoint.prefix, checkpoint.step) == ("model/", 5)
    assert checkpoint.notes[0] == "The network is under the prefix model/"


def test_under_a_prefix_with_the_name_of_the_scope(opened, network):
    checkpoint = opened(below(f"{SCOPE}/", network))
    assert checkpoint.prefix == f"{SCOPE}/"
    assert checkpoint.identity == identity(network)


def test_what_is_unknown_in_the_scope_under_a_prefix(opened, network):
    name = f"model/{SCOPE}/Conv2d_1a_3x3/BatchNorm/gamma"
    with pytest.raises(CheckpointLayoutError, match=name):
        opened(below("model/", network) | {name: network[BETA]})


def test_two_networks(opened, network):
    with pytest.raises(CheckpointLayoutError) as caught:
        opened(network | below("teacher/", network))
    message = str(caught.value)
    assert "in 2 places: 9 under no prefix, 9 under teacher/. Expected all 9" in message


def test_a_network_in_two_parts(opened, network):
    first = below("FirstStage/", without(network, "Logits"))
    second = below("SecondStage/", without(network, "Conv2d_1a"))
    with pytest.raises(CheckpointLayoutError) as caught:
        opened(first | second)
    assert "4 under FirstStage/, 5 under SecondStage/" in str(caught.value)


# Other checkpoints


def test_another_network(opened):
    with pytest.raises(CheckpointLayoutError) as caught:
        opened({"vgg_16/conv1/weights": np.ones((3, 3), np.float32)})
    lines = str(caught.value).splitlines()
    assert lines[1] == "  4 missing:"
    assert lines[-2:] == ["  1 unexpected:", "    vgg_16/conv1/weights"]


def test_another_network_can_be_looked_at(opened):
    import tensorflow as tf

    variables = {"a": np.float32([1]), "text": tf.constant(["b"])}
    checkpoint = opened(variables, check_layout=False)
    assert list(checkpoint) == ["a"]
    assert checkpoint.ignored == 1


def test_this_network_is_looked_at_as_it_is_opened(opened, network):
    slots = {f"{name}/Adam": value for name, value in network.items()}
    variables = below("model/", network | slots | averages(network))
    checkpoint = opened(variables, check_layout=False)
    assert checkpoint.identity == identity(network)
    assert checkpoint.slots == 9
    assert checkpoint.moving_averages == "ignore"


def test_the_container_does_not_change_the_identity(tmp_path, opened, network):
    stand_in.write_v1(network, tmp_path / "v1.ckpt")
    small_checkpoints.pack(tmp_path / "v1.tar.gz", tmp_path / "v1.ckpt")
    found = {
        open_checkpoint(tmp_path / name).identity for name in ("v1.ckpt", "v1.tar.gz")
    }
    assert found == {opened(network).identity} == {identity(network)}
