"""What irv2 relies on beyond TensorFlow's public interface, and what it says of changes."""

import sys

import pytest

from exporters.network import tensorflow_internals
from exporters.network.tensorflow_internals import TensorFlowInternalsError


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


@pytest.fixture(scope="module")
def meta_graph(tf, tmp_path_factory):
    """Of a model with a variable and a signature, saved without saver."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = tf.train.Checkpoint(scale=tf.Variable(2.0))
    spec = tf.TensorSpec([], tf.float32, name="x")
    double = tf.function(lambda x: x * model.scale, input_signature=[spec])
    path = tmp_path_factory.mktemp("saved") / "model"
    options = tf.saved_model.SaveOptions(experimental_skip_saver=True)
    tf.saved_model.save(model, str(path), double, options)
    content = (path / "saved_model.pb").read_bytes()
    (meta_graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return meta_graph


def moved(match):
    return pytest.raises(
        TensorFlowInternalsError, match=rf"TensorFlow 2\..*{match}.*Use TensorFlow 2.21"
    )


def test_legacy_layers(tf, monkeypatch):
    layers = tensorflow_internals.legacy_layers()
    assert layers["tf_keras.legacy_tf_layers.convolutional"].Conv2D
    assert layers["tf_keras.legacy_tf_layers.normalization"].BatchNormalization
    monkeypatch.setitem(sys.modules, "tf_keras.src.legacy_tf_layers", None)
    with moved("no layers of TensorFlow 1"):
        tensorflow_internals.legacy_layers()


def test_framework_ops(tf, monkeypatch):
    assert tensorflow_internals.framework_ops().Graph is tf.Graph
    monkeypatch.setitem(sys.modules, "tensorflow.python.framework.ops", None)
    with moved("no module of ops"):
        tensorflow_internals.framework_ops()


def test_tensor_equality(tf, monkeypatch):
    assert tensorflow_internals.has_tensor_equality()
    monkeypatch.delattr(tf.Tensor, "_USE_EQUALITY")
    with moved("do not say how they compare"):
        tensorflow_internals.has_tensor_equality()


def test_capture(tf):
    variable = tf.Variable(3.0)

    @tf.function
    def read():
        handle = tensorflow_internals.capture(variable.handle)
        return tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)

    assert read().numpy() == 3
    (captured,) = read.get_concrete_function().captured_inputs
    assert captured is variable.handle
    with tf.Graph().as_default(), moved("capture no tensors"):
        tensorflow_internals.capture(variable.handle)


def test_function_number(meta_graph):
    names = [f.signature.name for f in meta_graph.graph_def.library.function]
    numbers = [tensorflow_internals.function_number(name) for name in names]
    assert len(set(numbers)) == len(names) >= 2
    with moved("saves a function as predict"):
        tensorflow_internals.function_number("predict")


def test_names_of_attributes(meta_graph):
    functions = meta_graph.graph_def.library.function
    labels = [
        argument.attr[tensorflow_internals.CAPTURE_LABEL].s
        for function in functions
        for argument in function.arg_attr.values()
    ]
    assert b"x" in labels
    assert [label for label in labels if label.isdigit()]
    calls = [n for n in meta_graph.graph_def.node if "PartitionedCall" in n.op]
    assert calls
    assert all(tensorflow_internals.CALL_SETTINGS in call.attr for call in calls)


def test_signature_node(meta_graph):
    objects = meta_graph.object_graph_def
    function = objects.nodes[tensorflow_internals.signature_node(objects)]
    name = function.bare_concrete_function.concrete_function_name
    assert "signature_wrapper" in name
    with moved("signature in another place"):
        tensorflow_internals.signature_node(type(objects)())


def test_checkpoint_description(meta_graph):
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    node = tensorflow_internals.checkpoint_description(meta_graph)
    objects = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        node.attr["value"].tensor.string_val[0]
    )
    keys = [value.checkpoint_key for n in objects.nodes for value in n.attributes]
    assert "scale/.ATTRIBUTES/VARIABLE_VALUE" in keys
    with moved("0 constants"):
        tensorflow_internals.checkpoint_description(type(meta_graph)())
