"""Rewriting single ops; whole graphs are tested where they are made."""

import numpy as np
import pytest

from exporters.containers.hub_module import tensorflow_1_12
from exporters.containers.hub_module.tensorflow_1_12 import UnknownOpError


@pytest.fixture(scope="module")
def tf():
    import tensorflow.compat.v1 as tf

    return tf


def graph_def_of(tf, build):
    with tf.Graph().as_default() as graph:
        build()
        return graph.as_graph_def()


def nodes(graph_def):
    return {node.name: node for node in graph_def.node}


def run(tf, graph_def, fetch, feed):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return session.run(fetch, feed)


def test_addition(tf):
    def build():
        x = tf.placeholder(tf.float32, [2], name="x")
        tf.raw_ops.AddV2(x=x, y=x, name="sum")

    graph_def = tensorflow_1_12.rewrite(graph_def_of(tf, build))
    assert nodes(graph_def)["sum"].op == "Add"
    assert run(tf, graph_def, "sum:0", {"x:0": [1, 2]}).tolist() == [2, 4]
    assert graph_def.versions.producer == 27


@pytest.mark.parametrize("is_training", [True, False])
def test_batch_norm(tf, is_training):
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)

    def build():
        statistics = tf.zeros([0 if is_training else 4])
        tf.raw_ops.FusedBatchNormV3(
            x=tf.placeholder(tf.float32, x.shape, name="x"),
            scale=tf.ones([4]),
            offset=tf.zeros([4]),
            mean=statistics,
            variance=statistics + 1,
            is_training=is_training,
            epsilon=0.001,
            name="layer/BatchNorm/FusedBatchNormV3",
        )

    source = graph_def_of(tf, build)
    graph_def = tensorflow_1_12.rewrite(source)
    node = nodes(graph_def)["layer/BatchNorm/FusedBatchNorm"]
    assert node.op == "FusedBatchNorm"
    kept = {"T", "epsilon"} if is_training else {"T", "epsilon", "is_training"}
    assert set(node.attr) == kept
    expected = run(tf, source, "layer/BatchNorm/FusedBatchNormV3:0", {"x:0": x})
    found = run(tf, graph_def, "layer/BatchNorm/FusedBatchNorm:0", {"x:0": x})
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_dropout_becomes_a_multiplication(tf):
    scope = "Logits/Dropout/dropout_1/"

    def build():
        x = tf.placeholder(tf.float32, [3], name="x")
        mask = tf.greater_equal(x, 2.0, name=f"{scope}GreaterEqual")
        scaled = tf.multiply(x, 1.25, name=f"{scope}Mul")
        kept = tf.raw_ops.SelectV2(
            condition=mask, t=scaled, e=0.0, name=f"{scope}SelectV2"
        )
        tf.nn.relu(kept, name="after")

    graph_def = tensorflow_1_12.rewrite(graph_def_of(tf, build))
    found = nodes(graph_def)
    assert found[f"{scope}mul"].op == "Mul"
    assert not any("SelectV2" in name for name in found)
    assert run(tf, graph_def, "after:0", {"x:0": [1, 2, 4]}).tolist() == [0, 2.5, 5]
    assert {"Cast", "Mul"} <= {op.name for op in tensorflow_1_12.op_list(graph_def).op}


def test_variable_loses_what_only_newer_versions_know(tf):
    def build():
        handle = tf.raw_ops.VarHandleOp(
            dtype=tf.float32, shape=[2], shared_name="v", debug_name="v/", name="v"
        )
        tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32, name="read")

    graph_def = tensorflow_1_12.rewrite(graph_def_of(tf, build))
    assert set(nodes(graph_def)["v"].attr) == {"dtype", "shape", "shared_name"}
    (definition,) = (
        op for op in tensorflow_1_12.op_list(graph_def).op if op.name == "VarHandleOp"
    )
    assert "debug_name" not in {attr.name for attr in definition.attr}


def test_unknown_op(tf):
    graph_def = graph_def_of(tf, lambda: tf.linalg.inv([[1.0]], name="inverse"))
    with pytest.raises(UnknownOpError, match=r"inverse.* is a MatrixInverse"):
        tensorflow_1_12.rewrite(graph_def)


def test_unknown_attribute(tf):
    def build():
        x = tf.placeholder(tf.float32, [1, 8, 8, 3], name="x")
        tf.raw_ops.Conv2D(
            input=x,
            filter=tf.ones([3, 3, 3, 2]),
            strides=[1, 1, 1, 1],
            padding="EXPLICIT",
            explicit_paddings=[0, 0, 1, 1, 1, 1, 0, 0],
            name="convolution",
        )

    with pytest.raises(UnknownOpError, match="explicit_paddings of Conv2D"):
        tensorflow_1_12.rewrite(graph_def_of(tf, build))
