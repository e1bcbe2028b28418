"""The list of layers, against TF-Slim's graph: op by op, shape by shape, scope by scope."""

import collections
import math

import numpy as np
import pytest

from exporters.network import layers
from exporters.network.inception_resnet_v2 import RESIDUAL_SCALES
from exporters.network.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    Network,
    Pool,
    Softmax,
)

NETWORK = layers.inception_resnet_v2()
WHOLE = layers.inception_resnet_v2(auxiliary_head=True)
AUXILIARY = WHOLE.up_to(["AuxLogits"])


def test_it_has_the_published_number_of_layers():
    counts = collections.Counter(type(layer).__name__ for layer in NETWORK.layers)
    assert counts == {
        "Conv": 244,
        "Concat": 43,
        "Add": 40,
        "Pool": 5,
        "GlobalMean": 1,
        "Flatten": 1,
        "Dense": 1,
        "Softmax": 1,
    }


def test_each_layer_reads_what_is_before_it():
    known = {NETWORK.input}
    for layer in NETWORK.layers:
        assert known.issuperset(layers.inputs_of(layer)), layer
        assert layer.name not in known
        known.add(layer.name)
    assert known.issuperset(NETWORK.endpoints.values())


def test_without_classes_there_is_no_classifier():
    features = layers.inception_resnet_v2(None)
    assert features == NETWORK.up_to(features.endpoints)
    assert list(features.endpoints)[-1] == "PreLogitsFlatten"
    seven = layers.inception_resnet_v2(7)
    assert seven.shapes((299, 299))[seven.endpoints["Logits"]] == (7,)


def test_the_auxiliary_head_is_added_and_changes_nothing_else():
    assert WHOLE.up_to(NETWORK.endpoints) == NETWORK
    assert WHOLE.layers[: len(NETWORK.layers)] == NETWORK.layers
    assert layers.inception_resnet_v2(None, auxiliary_head=True) == (
        layers.inception_resnet_v2(None)
    )
    seven = layers.inception_resnet_v2(7, auxiliary_head=True)
    assert seven.shapes((299, 299))[seven.endpoints["AuxLogits"]] == (7,)


def test_the_auxiliary_classifier_has_the_published_numbers():
    shapes = AUXILIARY.shapes((299, 299))
    numbers = 0
    for layer in AUXILIARY.weighted:
        window = layer.window if isinstance(layer, Conv) else ()
        channels = shapes[layer.name][-1]
        numbers += math.prod((*window, shapes[layer.input][-1], channels)) + channels
    assert numbers == 30_222_793


def test_a_part_has_what_its_endpoints_need_and_no_more():
    part = NETWORK.up_to(["MaxPool_3a_3x3", "Conv2d_2a_3x3"])
    assert [layer.name.split("/")[2] for layer in part.layers] == [
        "Conv2d_1a_3x3",
        "Conv2d_2a_3x3",
        "Conv2d_2b_3x3",
        "MaxPool_3a_3x3",
    ]
    assert list(part.endpoints) == [
        "Conv2d_1a_3x3",
        "Conv2d_2a_3x3",
        "Conv2d_2b_3x3",
        "MaxPool_3a_3x3",
    ]


@pytest.mark.parametrize("padding, stride", [("SAME", 1), ("VALID", 2)])
def test_shapes_of_windows(padding, stride):
    layer = Conv("a", "in", "scope", 5, (1, 7), stride, padding)
    network = Network("in", (layer,), {})
    shape = network.shapes((21, 20))["a"]
    assert shape == ((21, 20, 5) if padding == "SAME" else (11, 7, 5))


def test_transposing_by_letters():
    kernel = np.zeros((1, 2, 3, 4))
    assert layers.transpose(kernel, "HWIO", "OIHW").shape == (4, 3, 1, 2)
    assert layers.transpose(np.zeros((3, 4)), "IO", "OI").shape == (4, 3)


# TF-Slim's graph, which the list was not made from.


@pytest.fixture(
    scope="module",
    params=[
        (NETWORK, "Predictions", (299, 299)),
        (NETWORK, "Predictions", (224, 320)),
        (AUXILIARY, "AuxLogits", (299, 299)),
    ],
    ids=["299 x 299", "224 x 320", "auxiliary head"],
)
def slim(request, graphs):
    """(TF-Slim's evaluation graph with all shapes, list of layers, image size)."""
    import tensorflow.compat.v1 as tf

    network, endpoint, image_size = request.param
    source = graphs.get()
    if network is AUXILIARY:
        source = graphs.get(image_size=image_size, auxiliary_head=True)
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, [1, *image_size, 3])
        evaluated = source.subgraph([network.endpoints[endpoint]])
        tf.import_graph_def(evaluated, {network.input: images}, name="")
    return graph, network, image_size


@pytest.mark.slow
def test_every_layer_is_an_op_of_tf_slim(slim):
    graph, network, image_size = slim
    shapes = network.shapes(image_size)
    covered: set[str] = set()

    def op(name, kind):
        found = graph.get_operation_by_name(name)
        assert found.type == kind, name
        covered.add(found.name)
        return found

    def source(found, kind, index=0):
        return op(found.inputs[index].op.name, kind)

    def check_input(found, name, index=0):
        before = found.inputs[index].op
        while before.type == "Identity":  # Dropout, which does nothing here.
            before = before.inputs[0].op
        if name == network.input:  # 2x - 1 comes between.
            assert before.name == "hub_input/Sub"
        else:
            assert before.name == name

    def variable_of(found, index=1):
        read = found.inputs[index].op
        assert read.type == "ReadVariableOp"
        return read.inputs[0].op.name

    def check_window(found, layer, size):
        assert list(found.get_attr("strides")) == [1, layer.stride, layer.stride, 1]
        assert found.get_attr("padding").decode() == layer.padding
        assert tuple(size) == layer.window

    for layer in network.layers:
        found = graph.get_operation_by_name(layer.name)
        assert found.outputs[0].shape.as_list() == [1, *shapes[layer.name]], layer
        match layer:
            case Conv(name=name, input=x, scope=scope):
                found = op(name, "Relu" if layer.relu else "BiasAdd")
                if layer.normalized:
                    norm = source(found, "FusedBatchNormV3")
                    assert variable_of(norm, 2) == f"{scope}/BatchNorm/beta"
                    assert variable_of(norm, 3) == f"{scope}/BatchNorm/moving_mean"
                    variance = variable_of(norm, 4)
                    assert variance == f"{scope}/BatchNorm/moving_variance"
                    convolution = source(norm, "Conv2D")
                else:
                    assert variable_of(found) == f"{scope}/biases"
                    convolution = source(found, "Conv2D")
                assert variable_of(convolution) == f"{scope}/weights"
                *window, _, channels = convolution.inputs[1].shape.as_list()
                assert channels == layer.channels
                check_window(convolution, layer, window)
                assert set(convolution.get_attr("dilations")) == {1}
                check_input(convolution, x)
            case Pool(name=name, input=x, kind=kind):
                found = op(name, "MaxPool" if kind == "max" else "AvgPool")
                check_window(found, layer, found.get_attr("ksize")[1:3])
                check_input(found, x)
            case Concat(name=name, inputs=inputs):
                found = op(name, "ConcatV2")
                assert [tensor.op.name for tensor in found.inputs][:-1] == list(inputs)
            case Add(name=name, inputs=(x, residual)):
                sum_ = source(op(name, "Relu"), "AddV2") if layer.relu else None
                sum_ = sum_ or op(name, "AddV2")
                check_input(sum_, x)
                check_input(source(sum_, "Mul", 1), residual)
            case GlobalMean(name=name, input=x):
                check_input(op(name, "Mean"), x)
            case Flatten(name=name, input=x):
                check_input(op(name, "Reshape"), x)
            case Dense(name=name, input=x, scope=scope):
                found = op(name, "BiasAdd")
                assert variable_of(found) == f"{scope}/biases"
                product = source(found, "MatMul")
                assert variable_of(product) == f"{scope}/weights"
                check_input(product, x)
            case Softmax(name=name, input=x):
                # TF-Slim's layer wraps it in reshapes that change nothing here.
                found = op(name, "Softmax")
                check_input(found, x)

    computing = {
        found.name
        for found in graph.get_operations()
        if found.type
        in (
            "AddV2 AvgPool BiasAdd ConcatV2 Conv2D FusedBatchNormV3 MatMul MaxPool Mean "
            "Mul Relu Reshape Softmax"
        ).split()
        and not found.name.startswith("hub_input/")
    }
    assert computing == covered


@pytest.mark.slow
def test_scales_of_residuals_are_tf_slims(slim):
    import tensorflow as tf

    graph, network, _ = slim
    added = {
        layer.inputs[1]: layer.name
        for layer in network.layers
        if isinstance(layer, Add)
    }
    for layer in network.layers:
        if not isinstance(layer, Conv) or layer.name not in added:
            assert isinstance(layer, Conv) is False or layer.scale == 1
            continue
        scale = next(
            found.inputs[1].op
            for found in graph.get_operation_by_name(layer.name).outputs[0].consumers()
            if found.type == "Mul"
        )
        value = tf.make_ndarray(scale.get_attr("value"))
        assert value == np.float32(layer.scale), layer.name
        kind = layer.scope.split("/")[-2].partition("_")[0]
        assert layer.scale == RESIDUAL_SCALES.get(kind, 1.0)


@pytest.mark.slow
def test_endpoints_are_tf_slims(graphs):
    found = graphs.get().endpoints
    named = {name: tensor.op.name for name, tensor in found.items()}
    # TF-Slim's dropout, which does nothing here, follows what is flattened.
    named["PreLogitsFlatten"] = NETWORK.endpoints["PreLogitsFlatten"]
    assert NETWORK.endpoints == named


def test_blocks_are_called_as_users_know_them():
    found = layers.inception_resnet_v2().blocks
    weighted = {layer.name for layer in layers.inception_resnet_v2().weighted}
    with_weights = [name for name, of in found.items() if weighted & set(of)]
    assert with_weights == [
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
        *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "Mixed_5b"),
        *(f"block35_{number}" for number in range(1, 11)),
        "Mixed_6a",
        *(f"block17_{number}" for number in range(1, 21)),
        "Mixed_7a",
        *(f"block8_{number}" for number in range(1, 10)),
        *("Block8", "Conv2d_7b_1x1", "Logits"),
    ]
    assert len(found["block17_1"]) == 7
    names = [name for of in found.values() for name in of]
    assert names == [layer.name for layer in layers.inception_resnet_v2().layers]
