"""Folding: nothing is lost but batch norm."""

import collections

import numpy as np
import pytest

from exporters import inference_graph
from exporters.network.graphs import CLASSIFICATION, FEATURE_VECTOR

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("image_size", [(299, 299), None])
def test_folded_network_matches_the_reference(
    graphs, raw_variables, reference_values, image_size
):
    import tensorflow as tf

    outputs = ("default", "InceptionResnetV2/PreLogitsFlatten")
    folded = inference_graph.build(
        graphs.get(image_size=image_size), raw_variables, CLASSIFICATION, outputs
    )
    with tf.Graph().as_default():
        tf.graph_util.import_graph_def(folded.graph_def, name="")
        with tf.compat.v1.Session() as session:
            logits, features = session.run(
                [f"{folded.outputs[name]}:0" for name in outputs],
                {
                    f"{folded.images}:0": reference_values["images_299"]
                    / np.float32(255)
                },
            )
    for found, name in ((logits, "Logits"), (features, "PreLogitsFlatten")):
        expected = reference_values[f"eval_299/{name}"]
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_feature_vector_graph_has_only_convolutions_and_what_joins_them(
    graphs, raw_variables
):
    folded = inference_graph.build(
        graphs.get(image_size=(299, 299)), raw_variables, FEATURE_VECTOR
    )
    ops = collections.Counter(node.op for node in folded.graph_def.node)
    assert ops["Conv2D"] == ops["BiasAdd"] == 244
    assert ops["AddV2"] == 40
    assert set(ops) == {
        "AddV2",
        "AvgPool",
        "BiasAdd",
        "ConcatV2",
        "Const",
        "Conv2D",
        "MaxPool",
        "Placeholder",
        "Relu",
        "Squeeze",
    }


def test_folded_weights_cover_the_task(raw_variables):
    features = inference_graph.folded_weights(raw_variables, FEATURE_VECTOR)
    classes = inference_graph.folded_weights(raw_variables, CLASSIFICATION)
    assert len(features) == 2 * 244
    assert classes.keys() - features.keys() == {
        "InceptionResnetV2/Logits/Logits/weights",
        "InceptionResnetV2/Logits/Logits/biases",
    }


def test_batch_norm_is_folded_exactly(raw_variables):
    scope = "InceptionResnetV2/Conv2d_2a_3x3"
    folded = inference_graph.folded_weights(raw_variables, FEATURE_VECTOR)
    part = {
        name: raw_variables[f"{scope}/BatchNorm/{name}"].astype(np.float64)
        for name in ("beta", "moving_mean", "moving_variance")
    }
    factor = 1 / np.sqrt(part["moving_variance"] + 0.001)
    np.testing.assert_array_equal(
        folded[f"{scope}/weights"],
        (raw_variables[f"{scope}/weights"] * factor).astype(np.float32),
    )
    np.testing.assert_array_equal(
        folded[f"{scope}/biases"],
        (part["beta"] - part["moving_mean"] * factor).astype(np.float32),
    )
