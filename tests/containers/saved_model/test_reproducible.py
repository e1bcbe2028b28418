"""Tests of `exporters.containers.saved_model.reproducible`."""

import numpy as np
import pytest

from exporters.containers.saved_model import reproducible


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


@pytest.fixture(scope="module")
def saved_model_pb2(tf):
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2


@pytest.fixture
def save(tf, saved_model_pb2, tmp_path):
    """Saves a model with calls, captured variables and a signature."""

    def save(name):
        model = tf.train.Checkpoint(kernel=tf.Variable(3.0), bias=tf.Variable(1.0))
        inner = tf.function(lambda x: x * model.kernel)
        model.apply = tf.function(lambda x: {"y": inner(x) + model.bias})
        spec = tf.TensorSpec([None], tf.float32, name="x")
        signature = model.apply.get_concrete_function(spec)
        path = tmp_path / name
        tf.saved_model.save(model, str(path), signatures=signature)
        return path, read(path)

    def read(path):
        content = (path / "saved_model.pb").read_bytes()
        return saved_model_pb2.SavedModel.FromString(content)

    return save


def reproduced(saved_model):
    for meta_graph in saved_model.meta_graphs:
        reproducible.make_reproducible(meta_graph)
    return saved_model.SerializeToString(deterministic=True)


def test_same_model_same_bytes(save):
    (_, first), (_, second) = save("first"), save("second")
    assert first.SerializeToString(deterministic=True) != second.SerializeToString(
        deterministic=True
    )
    assert reproduced(first) == reproduced(second)


def test_options_of_the_process_do_not_matter(tf, save):
    _, first = save("first")
    tf.config.optimizer.set_experimental_options({"constant_folding": True})
    try:
        _, second = save("second")
    finally:
        tf.config.optimizer.set_experimental_options({})
    assert reproduced(first) == reproduced(second)


def test_doing_it_twice_changes_nothing_more(save):
    _, saved_model = save("model")
    assert reproduced(saved_model) == reproduced(saved_model)


def test_computes_the_same(tf, save):
    path, saved_model = save("model")
    (path / "saved_model.pb").write_bytes(reproduced(saved_model))
    model = tf.saved_model.load(str(path))
    values = tf.constant([1.0, -2.0])
    expected = np.array([4.0, -5.0], np.float32)
    np.testing.assert_array_equal(model.apply(values)["y"], expected)
    signature = model.signatures["serving_default"]
    np.testing.assert_array_equal(signature(x=values)["y"], expected)
