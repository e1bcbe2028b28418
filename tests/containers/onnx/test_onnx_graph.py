"""The ONNX converter on networks of one or two ops, compared with TensorFlow."""

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow.compat.v1 as tf
from exporters.inference_graph import InferenceGraph

from exporters.containers.onnx import nodes, serialization

OUTPUTS = {"out": "default"}


def _kernel(*shape):
    values = np.random.default_rng(1).normal(size=shape)
    return tf.constant(values.astype(np.float32), name="scope/weights")


def _convolve(x, *, shape=(3, 3, 4, 5), **arguments):
    bias = tf.constant(np.linspace(-1, 1, shape[-1], dtype=np.float32), name="b")
    return tf.nn.bias_add(tf.nn.conv2d(x, _kernel(*shape), **arguments), bias)


def _classify(x):
    x = tf.squeeze(tf.reduce_mean(x, [1, 2], keepdims=True), [1, 2])
    bias = tf.constant(np.linspace(-1, 1, 6, dtype=np.float32), name="b")
    return tf.nn.bias_add(tf.matmul(x, _kernel(4, 6)), bias)


NETWORKS = {
    "convolution, VALID": lambda x: _convolve(x, padding="VALID"),
    "convolution, VALID, strides": lambda x: _convolve(
        x, padding="VALID", strides=[2, 3]
    ),
    "convolution, SAME": lambda x: _convolve(x, padding="SAME"),
    "convolution, SAME, 1 x 7": lambda x: _convolve(
        x, shape=(1, 7, 4, 5), padding="SAME"
    ),
    "convolution, SAME, 5 x 3": lambda x: _convolve(
        x, shape=(5, 3, 4, 5), padding="SAME"
    ),
    "rectified": lambda x: tf.nn.relu(_convolve(x, padding="SAME")),
    "max pooling": lambda x: tf.nn.max_pool2d(x, 3, 2, "VALID"),
    "max pooling, SAME": lambda x: tf.nn.max_pool2d(x, 3, 1, "SAME"),
    "average pooling, SAME": lambda x: tf.nn.avg_pool2d(x, 3, 1, "SAME"),
    "average pooling, VALID": lambda x: tf.nn.avg_pool2d(x, [2, 4], [2, 1], "VALID"),
    "mean": lambda x: tf.reduce_mean(x, [1, 2], keepdims=True),
    "mean, axes the other way": lambda x: tf.reduce_mean(x, [2, 1], keepdims=True),
    "concatenation": lambda x: tf.concat([x, tf.nn.relu(x)], 3),
    "concatenation, axis from the end": lambda x: tf.concat([x, tf.nn.relu(x)], -1),
    "sum": lambda x: x + tf.nn.relu(x),
    "classifier": _classify,
    "probabilities": lambda x: tf.nn.softmax(_classify(x)),
}


def _build(network) -> InferenceGraph:
    """Turns a function of images with four channels into an inference graph."""
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, [None, None, None, 4], name="in/images")
        output = network(images)
    outputs = {"default": output.op.name}
    return InferenceGraph(graph.as_graph_def(), images.op.name, outputs)


def _run_tensorflow(graph: InferenceGraph, images: np.ndarray) -> np.ndarray:
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph.graph_def, name="")
        output = graph.outputs["default"]
        return session.run(f"{output}:0", {f"{graph.images}:0": images})


def _images() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(2, 9, 11, 4))
    return values.astype(np.float32)


def _open(graph, path, shape=("batch", "height", "width", 4)):
    serialization.write(graph, path, image_shape=shape)
    onnx.checker.check_model(str(path), full_check=True)
    return onnxruntime.InferenceSession(str(path))


def _select(graph: nodes.OnnxGraph) -> nodes.OnnxGraph:
    return nodes.select(graph, OUTPUTS)


def _op_types(graph: nodes.OnnxGraph) -> list[str]:
    return [node.op_type for node in graph.nodes]


@pytest.mark.parametrize("name", NETWORKS)
def test_converted_network_computes_the_same(name, tmp_path):
    graph = _build(NETWORKS[name])
    session = _open(_select(nodes.convert(graph)), tmp_path / "network.onnx")
    (output,) = session.run(["out"], {"images": _images()})
    expected = _run_tensorflow(graph, _images())
    assert output.shape == expected.shape
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["convolution, SAME", "classifier"])
def test_input_can_be_nchw(name, tmp_path):
    graph = _build(NETWORKS[name])
    converted = _select(nodes.convert(graph, nchw=True))
    path = tmp_path / "network.onnx"
    session = _open(converted, path, ("batch", 4, "height", "width"))
    (output,) = session.run(["out"], {"images": _images().transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(output, _run_tensorflow(graph, _images()), atol=1e-5)
    assert converted.nodes[0].op_type != "Transpose"


def test_bias_belongs_to_the_convolution_and_the_classifier():
    convolution = nodes.convert(_build(NETWORKS["rectified"]))
    assert _op_types(convolution) == ["Transpose", "Conv", "Relu"]
    classifier = nodes.convert(_build(NETWORKS["classifier"]))
    assert _op_types(classifier) == [
        "Transpose",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]


def test_weights_keep_their_names_and_values():
    graph = nodes.convert(_build(NETWORKS["convolution, SAME, 5 x 3"]))
    assert set(graph.weights) == {"scope/weights", "b"}
    kernel = np.random.default_rng(1).normal(size=(5, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(
        graph.weights["scope/weights"].transpose(nodes.TO_HWIO), kernel
    )


def _dilated(x):
    return tf.nn.conv2d(x, _kernel(3, 3, 4, 5), padding="VALID", dilations=2)


@pytest.mark.parametrize(
    "network, found",
    [
        (lambda x: _convolve(x, padding="SAME", strides=2), "padding SAME"),
        (lambda x: tf.nn.max_pool2d(x, 2, 1, "SAME"), "window 2 x 2"),
        (_dilated, "dilations"),
        (lambda x: tf.concat([x, x], 1), "axis 1"),
        (lambda x: tf.reduce_mean(x, [1, 3], keepdims=True), "axes"),
        (lambda x: tf.reduce_mean(x, [1, 2]), "keeps"),
        (lambda x: tf.squeeze(x, [0]), "squeezes"),
        (lambda x: tf.matmul(x, x, transpose_b=True), "BatchMatMul"),
        (tf.tanh, "Tanh"),
    ],
)
def test_what_does_not_convert_is_refused_by_name(network, found):
    with pytest.raises(ValueError, match=found):
        nodes.convert(_build(network))


def test_select_keeps_only_what_the_outputs_need():
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [None, None, None, 4], name="in/images")
        first = tf.nn.relu(_convolve(x, padding="SAME"))
        second = tf.nn.max_pool2d(first, 3, 1, "VALID")
    outputs = {"first": first.op.name, "second": second.op.name}
    graph = InferenceGraph(graph.as_graph_def(), x.op.name, outputs)
    converted = nodes.convert(graph)

    one = nodes.select(converted, {"a": "first"})
    assert _op_types(one) == ["Transpose", "Conv", "Relu", "Transpose"]
    assert set(one.outputs) == {"a"}
    image_only = nodes.convert(_build(tf.nn.relu))
    assert not _select(image_only).weights
    both = nodes.select(converted, {"a": "first", "b": "second", "c": "second"})
    assert _op_types(both).count("Conv") == 1
    assert list(both.outputs) == ["a", "b", "c"]


def _first_layer(x):
    with tf.name_scope(nodes.FIRST_LAYER):
        return tf.nn.relu(_convolve(x, padding="VALID"))


def test_float16_leaves_the_first_layer_and_the_output_alone(tmp_path):
    graph = _build(lambda x: tf.nn.max_pool2d(_first_layer(x), 3, 1, "VALID"))
    half = nodes.to_float16(_select(nodes.convert(graph)))
    assert _op_types(half) == [
        "Transpose",
        "Conv",
        "Relu",
        "Cast",
        "MaxPool",
        "Cast",
        "Transpose",
    ]
    assert {array.dtype for array in half.weights.values()} == {np.dtype(np.float32)}
    session = _open(half, tmp_path / "network.onnx")
    (output,) = session.run(["out"], {"images": _images()})
    np.testing.assert_allclose(output, _run_tensorflow(graph, _images()), atol=5e-3)


def test_float16_computes_in_half_precision_between_float32(tmp_path):
    graph = _build(NETWORKS["classifier"])
    half = nodes.to_float16(_select(nodes.convert(graph)))
    session = _open(half, tmp_path / "network.onnx")
    assert [session.get_inputs()[0].type, session.get_outputs()[0].type] == [
        "tensor(float)"
    ] * 2
    assert {array.dtype for array in half.weights.values()} == {np.dtype(np.float16)}
    assert _op_types(half).count("Cast") == 2
    (output,) = session.run(["out"], {"images": _images()})
    np.testing.assert_allclose(output, _run_tensorflow(graph, _images()), atol=5e-3)
