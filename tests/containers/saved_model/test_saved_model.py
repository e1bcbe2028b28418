"""v4 and v5 in the hands of today's TensorFlow and TF Hub.

Those of the thin network: the real ones are in test_interface.py, and in `tests/consumers`
in the hands of TensorFlow 1.15 to 2.21.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from exporters import images
from exporters.containers.saved_model import container as saved_model
from exporters.errors import ArtifactError
from exporters.network import weight_decay
from exporters.network.tasks import TASKS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("thin")]

FEATURE_VECTOR, CLASSIFICATION = TASKS

MOVING_MEAN = "InceptionResnetV2/Conv2d_1a_3x3/BatchNorm/moving_mean"
SMALL = images.generate(4, 96, 96, seed=3)
FEATURES, VARIABLES, TRAINABLE, LOSSES = 192, 176, 92, 50
"""Numbers of the thin network."""


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


@pytest.fixture
def hub():
    return pytest.importorskip("tensorflow_hub")


@pytest.fixture(scope="module")
def reference(thin):
    return thin.reference


def directory(exported, task, version):
    return str(exported / f"inception_resnet_v2-{task}-{version}-stand-in")


def variable(layer, name):
    return next(v for v in layer.variables if v.name == f"{name}:0")


@pytest.fixture(scope="module")
def load(thin_exported, tf):
    """Loads v4 or v5 of a task, each once."""
    return functools.cache(
        lambda task, version: tf.saved_model.load(
            directory(thin_exported, task, version)
        )
    )


@pytest.mark.parametrize("task", TASKS)
def test_endpoints(load, task):
    outputs = load(task, "v4")(SMALL, return_endpoints=True)
    assert outputs.keys() == {"default"} | {*TASKS[task].published}
    assert len(outputs) == (14 if task == FEATURE_VECTOR else 17)
    assert outputs["InceptionResnetV2/global_pool"].shape == (4, 1, 1, FEATURES)


def test_names_of_inlined_ops(load, tf, hub):
    """As in the publisher's other SavedModels, whose users look ops up by name."""
    from tensorflow.python.framework import convert_to_constants

    def names(function):
        frozen = convert_to_constants.convert_variables_to_constants_v2(function)
        return {op.name for op in frozen.graph.get_operations()}

    layer = hub.KerasLayer(load(FEATURE_VECTOR, "v4"), name="features")
    calls = "StatefulPartitionedCall/StatefulPartitionedCall/"
    for prefix, function in (
        (calls, load(FEATURE_VECTOR, "v5").signatures["serving_default"]),
        (
            f"features/StatefulPartitionedCall/{calls}",
            tf.function(layer).get_concrete_function(tf.TensorSpec(SMALL.shape)),
        ),
    ):
        assert {
            f"{prefix}predict/hub_input/Mul",
            f"{prefix}predict/InceptionResnetV2/InceptionResnetV2/Mixed_5b/concat",
            f"{prefix}predict/hub_output/feature_vector/SpatialSqueeze",
        } <= names(function)


def test_compiles_with_xla(load, tf, reference):
    compiled = tf.function(load(FEATURE_VECTOR, "v4"), jit_compile=True)
    expected = reference.outputs(SMALL, ["feature_vector"])["feature_vector"]
    found = compiled(SMALL).numpy()
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_training_compiles_with_xla(load, tf):
    model = load(FEATURE_VECTOR, "v4")
    average = variable(model, MOVING_MEAN)
    initial = [v.numpy() for v in model.variables]
    # Smaller images leave batch norm too few values in the last layers.
    batch = images.generate(4, 139, 139)

    def train(batch):
        return model(batch, training=True, batch_norm_momentum=0.5)

    def after_one_step(function):
        features, moved = function(batch).numpy(), average.numpy()
        for v, value in zip(model.variables, initial):
            v.assign(value)
        return features, moved

    expected, expected_average = after_one_step(train)
    found, moved = after_one_step(tf.function(train, jit_compile=True))
    assert np.abs(found - expected).max() <= 2e-4 * np.abs(expected).max()
    np.testing.assert_allclose(moved, expected_average, rtol=0, atol=1e-6)
    assert np.abs(moved - average.numpy()).max() > 1e-4


def test_regularization_losses(load, thin):
    model = load(FEATURE_VECTOR, "v4")
    found = sum(float(loss()) for loss in model.regularization_losses)
    expected = sum(
        4e-5 / 2 * float((value.astype(np.float64) ** 2).sum())
        for name, value in thin.build.checkpoint.items()
        if name.endswith(("/weights", "/biases"))
        and not name.startswith(
            ("InceptionResnetV2/AuxLogits", "InceptionResnetV2/Logits")
        )
    )
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_no_classifier_weights_in_feature_vector(thin_exported, tf, task):
    listed = tf.train.list_variables(
        directory(thin_exported, task, "v4") + "/variables/variables"
    )
    shapes = [shape for _, shape in listed]
    assert ([FEATURES, 1001] in shapes) == (task == CLASSIFICATION)


@pytest.mark.parametrize("task", TASKS)
def test_serving_signature_by_op_name(thin_exported, tf, task, reference):
    path = directory(thin_exported, task, "v5")
    key = "feature_vector" if task == FEATURE_VECTOR else "logits"
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], path)
        signature = loaded.signature_def["serving_default"]
        assert {k: v.name for k, v in signature.inputs.items()} == {
            "inputs": "serving_default_inputs:0"
        }
        assert {k: v.name for k, v in signature.outputs.items()} == {
            key: "StatefulPartitionedCall:0"
        }
        found = session.run(
            "StatefulPartitionedCall:0", {"serving_default_inputs:0": SMALL}
        )
    expected = reference.outputs(SMALL, [key])[key]
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_tensorflow_1_saves_and_restores(thin_exported, tf, tmp_path):
    """Through `saver_def`, as servers restore and as TensorFlow 1 programs save."""
    v1 = tf.compat.v1
    path = directory(thin_exported, FEATURE_VECTOR, "v5")
    with v1.Session(graph=tf.Graph()) as session:
        meta_graph = v1.saved_model.load(session, ["serve"], path)
        saver = v1.train.Saver(saver_def=meta_graph.saver_def)
        average = session.graph.get_tensor_by_name(f"{MOVING_MEAN}:0")
        read = v1.raw_ops.ReadVariableOp(resource=average, dtype=tf.float32)
        before = session.run(read)
        saved = saver.save(session, str(tmp_path / "saved"))
        session.run(v1.raw_ops.AssignVariableOp(resource=average, value=before + 1))
        saver.restore(session, saved)
        np.testing.assert_array_equal(session.run(read), before)
    original = dict(tf.train.list_variables(f"{path}/variables/variables"))
    assert dict(tf.train.list_variables(saved)) == original
    assert len(original) == VARIABLES + 2


@pytest.mark.parametrize("task", TASKS)
def test_v4_has_no_signature_of_its_own(thin_exported, tf, task):
    path = directory(thin_exported, task, "v4")
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], path)
    assert set(loaded.signature_def) == {"__saved_model_init_op"}
    names = [function.signature.name for function in loaded.graph_def.library.function]
    assert not [name for name in names if "serving" in name]


def test_fine_tuning_through_keras_layer(thin_exported, tf, hub):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layer = hub.KerasLayer(
        directory(thin_exported, FEATURE_VECTOR, "v4"),
        trainable=True,
        arguments=dict(batch_norm_momentum=0.997),
    )
    head = tf_keras.layers.Dense(2, activation="softmax")
    model = tf_keras.Sequential([layer, head])
    model.build([None, 139, 139, 3])
    assert len(layer.trainable_weights) == TRAINABLE
    assert len(layer.losses) == LOSSES
    model.compile(tf_keras.optimizers.SGD(0.001), "sparse_categorical_crossentropy")
    # Smaller images leave batch norm too few values in the last layers.
    batch, labels = images.generate(4, 139, 139), np.array([0, 1, 0, 1])
    average = variable(layer, MOVING_MEAN)
    before = average.numpy()
    losses = [model.train_on_batch(batch, labels) for _ in range(4)]
    assert losses[-1] < losses[0] - 0.1
    assert np.abs(average.numpy() - before).max() > 1e-4


def test_moving_averages_follow_the_momentum(hub, load):
    """With momentum 0 an average becomes the statistic; 0.997 goes 0.3 % there."""
    model = load(FEATURE_VECTOR, "v4")
    initial = variable(model, MOVING_MEAN).numpy()

    def after_one_step(**arguments):
        layer = hub.KerasLayer(model, trainable=True, arguments=arguments)
        variable(layer, MOVING_MEAN).assign(initial)
        before = variable(layer, MOVING_MEAN).numpy()
        layer(SMALL, training=True)
        return before, variable(layer, MOVING_MEAN).numpy()

    _, statistic = after_one_step(batch_norm_momentum=0.0)
    for momentum, arguments in (
        (0.997, dict(batch_norm_momentum=0.997)),
        (0.5, dict(batch_norm_momentum=0.5)),
        (0.99, {}),
    ):
        before, after = after_one_step(**arguments)
        expected = momentum * before + (1 - momentum) * statistic
        np.testing.assert_allclose(after, expected, rtol=0, atol=1e-6)
        assert np.abs(after - before).max() > 1e-4


def test_frozen_means_frozen(hub, load):
    layer = hub.KerasLayer(load(FEATURE_VECTOR, "v4"), trainable=False)
    before = [v.numpy() for v in layer.variables]
    assert len(before) == VARIABLES
    layer(SMALL, training=True)
    layer(SMALL)
    assert layer.trainable_weights == []
    for old, new in zip(before, layer.variables):
        np.testing.assert_array_equal(old, new.numpy())


def test_persistent_gradient_tape(load, tf):
    model = load(FEATURE_VECTOR, "v5")
    with tf.GradientTape(persistent=True) as tape:
        features = model(SMALL, training=True, batch_norm_momentum=0.9)
        first = tf.reduce_sum(features)
        second = tf.reduce_sum(features**2)
    for loss in (first, second, first):
        gradients = tape.gradient(loss, model.trainable_variables)
        assert all(gradient is not None for gradient in gradients)
        assert any(np.abs(gradient.numpy()).max() > 0 for gradient in gradients)


def test_endpoints_through_keras_layer(hub, load):
    layer = hub.KerasLayer(
        load(FEATURE_VECTOR, "v4"),
        arguments=dict(return_endpoints=True, batch_norm_momentum=0.9),
    )
    outputs = layer(SMALL)
    assert len(outputs) == 14
    assert outputs["default"].shape == (4, FEATURES)


def test_what_training_and_losses_show(thin_exported, reference):
    """Moving averages by the momentum given; and what no output shows."""
    with saved_model.open(
        Path(directory(thin_exported, FEATURE_VECTOR, "v4"))
    ) as opened:
        before = {name: w.values for name, w in opened.weights().items()}
        found = opened.train(SMALL)["train/moving_averages"]
        assert opened.check() == []
        for name, weight in opened.weights().items():
            np.testing.assert_array_equal(weight.values, before[name])
    (expected,) = reference.outputs(
        SMALL, ["moving_averages"], is_training=True
    ).values()
    assert np.abs(found - expected).max() <= 2e-4 * np.abs(expected).max()


def test_losses_of_other_weights_are_found(thin):
    variables = dict(thin.build.checkpoint)
    losses = [
        4e-5 / 2 * np.vdot(value, value)
        for name, value in variables.items()
        if name.endswith(("/weights", "/biases"))
    ]
    assert weight_decay.problems(losses, variables) == []
    assert weight_decay.problems(losses[1:], variables) == [
        "55 regularization losses, expected 56"
    ]
    losses[3] *= 1.001
    assert weight_decay.problems(losses, variables) == [
        "regularization losses: not those of the weights"
    ]


def test_says_that_it_is_a_stand_in(thin_exported, thin):
    path = thin_exported / "inception_resnet_v2-feature_vector-v5-stand-in"
    record = json.loads((path / "assets.extra" / "irv2.json").read_text())
    assert record["stand_in"] is True
    assert record["checkpoint_identity"] == thin.build.checkpoint.identity


def test_foreign_saved_model_is_refused(tmp_path, tf):
    tf.saved_model.save(tf.train.Checkpoint(v=tf.Variable(1.0)), str(tmp_path / "m"))
    with pytest.raises(ArtifactError, match="not as v4 and v5 are"):
        saved_model.open(tmp_path / "m")


def test_damaged_saved_model_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01garbage")
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        saved_model.open(tmp_path)
