"""The network against values that TensorFlow 1.15.5 and the original TF-Slim computed."""

import numpy as np
import pytest

from checkpoints import layout
from exporters.network import inception_resnet_v2 as network
from exporters.network.tf_slim_compat import import_tf_slim

pytestmark = pytest.mark.slow

TOLERANCE = 2e-5  # Of the array's largest magnitude.


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


class FullNetwork:
    """The network with its auxiliary head, holding the reference checkpoint."""

    def __init__(self, variables):
        import_tf_slim()
        import tensorflow.compat.v1 as tf

        with tf.Graph().as_default():
            tf.get_variable_scope().set_use_resource(True)
            self.images = tf.placeholder(tf.float32, [None, 299, 299, 3])
            self.endpoints = network.inception_resnet_v2(self.images * 2 - 1)
            created = tf.global_variables()
            self.shapes = {v.op.name: tuple(v.shape) for v in created}
            self.session = tf.Session()
            self.session.run(
                [v.initializer for v in created],
                {v.initial_value: variables[v.op.name] for v in created},
            )
            self.regularization_losses = len(tf.losses.get_regularization_losses())

    def run(self, images):
        return self.session.run(self.endpoints, {self.images: images})


@pytest.fixture(scope="module")
def full_network(raw_variables):
    built = FullNetwork(raw_variables)
    yield built
    built.session.close()


def test_has_the_published_variables(full_network):
    assert full_network.shapes == dict(layout.variable_shapes())
    assert full_network.regularization_losses == 290


def test_evaluation_matches_the_reference_in_every_endpoint(
    full_network, reference_values
):
    found = full_network.run(reference_values["images_299"] / np.float32(255))
    for name, value in found.items():
        positions = np.random.RandomState(0).randint(0, value.size, 64)
        expected = reference_values[f"eval_299/{name}/sample"]
        error = np.abs(value.ravel()[positions] - expected).max()
        assert error <= TOLERANCE * np.abs(value).max(), name
    for name in (
        "global_pool",
        "PreLogitsFlatten",
        "Logits",
        "AuxLogits",
        "Predictions",
    ):
        expected = reference_values[f"eval_299/{name}"]
        assert relative_error(found[name], expected) <= TOLERANCE, name


def test_evaluation_at_another_size_matches_the_reference(
    graphs, raw_variables, reference_values
):
    graph = graphs.get()
    images = reference_values["images_224x320"] / np.float32(255)
    with graph.start_session(raw_variables) as session:
        found = session.run(
            {name: graph.endpoints[name] for name in ("global_pool", "Logits")},
            {graph.images: images},
        )
    for name, value in found.items():
        expected = reference_values[f"eval_224x320/{name}"]
        assert relative_error(value, expected) <= TOLERANCE, name


def test_tensor_equality_is_as_before_building(graphs):
    import tensorflow as tf

    graphs.get()
    assert tf.constant(1) == tf.constant(1)


def test_the_smallest_image(graphs, raw_variables):
    graph = graphs.get()
    with graph.start_session(raw_variables) as session:
        features = session.run(
            graph.feature_vector, {graph.images: np.zeros((1, 75, 75, 3))}
        )
    assert features.shape == (1, 1536)


def test_training_moves_the_averages_as_the_reference(
    graphs, raw_variables, reference_values
):
    graph = graphs.get(is_training=True)
    prefix = "train_299/updated/"
    expected = {
        name.removeprefix(prefix): value
        for name, value in reference_values.items()
        if name.startswith(prefix)
    }
    assert len(expected) == len(graph.updates) == 408
    with graph.start_session(raw_variables) as session:
        session.run(
            graph.updates,
            {
                graph.images: reference_values["images_299"] / np.float32(255),
                graph.batch_norm_momentum: reference_values["train_299/momentum"],
            },
        )
        found = session.run({name: graph.variables[name] for name in expected})
    for name, value in found.items():
        assert relative_error(value, expected[name]) <= TOLERANCE, name


def test_a_fixed_momentum_and_no_classifier():
    """Momentum may be a float, and without classes there is no classifier."""
    import_tf_slim()
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 299, 299, 3])
        endpoints = network.inception_resnet_v2(
            images, num_classes=None, is_training=True, batch_norm_momentum=0.5
        )
        assert list(endpoints)[-1] == "global_pool"
        assert len(tf.trainable_variables()) == 488
        assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 408
        assert len(tf.losses.get_regularization_losses()) == 284
