"""TFLite models of networks of a few layers, compared with TensorFlow's own ops."""

import collections

import numpy as np
import pytest
import small_networks
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from small_networks import SIZE, conv, network

from exporters import calibration
from exporters.containers.tflite import writer
from exporters.errors import ExportError
from exporters.network.layers import Pool
from exporters.network.quantization import Precision, quantize_network

# Padding that depends on the image size is no trouble where that is fixed.
NETWORKS = small_networks.ONE_OR_TWO_LAYERS | {
    "convolution, SAME, stride": network(conv("a", "in", stride=2)),
    "convolution, SAME, even": network(conv("a", "in", window=(2, 4))),
    "max pooling, SAME, stride": network(Pool("a", "in", "max", (3, 3), 2, "SAME")),
}
BLOCK = small_networks.BLOCK
FLOAT32 = Precision()
INT8 = Precision("int8", "int8")


def _write(network, precision=FLOAT32, outputs=("out",), **options) -> bytes:
    network = network.up_to(outputs)
    layers = {name: network.endpoints[name] for name in outputs}
    weights = small_networks.weights(network)
    if precision.activations == "int8":
        statistics = calibration.measure(network, weights, small_networks.images(8))
        options["quantized"] = quantize_network(network, weights, statistics, precision)
    return bytes(writer.write(network, weights, SIZE, precision, layers, **options))


def _run(content: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    """Runs images one by one."""
    runner = Interpreter(model_content=content).get_signature_runner()
    rows = [runner(images=image[None]) for image in images]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _expected(network, images) -> dict[str, np.ndarray]:
    values = small_networks.run(network, small_networks.weights(network), images)
    return {name: values[layer] for name, layer in network.endpoints.items()}


def _tensors(content: bytes) -> dict[str, schema.TensorT]:
    (subgraph,) = schema.ModelT.InitFromPackedBuf(content).subgraphs
    return {tensor.name.decode(): tensor for tensor in subgraph.tensors}


def _operators(content: bytes) -> collections.Counter:
    model = schema.ModelT.InitFromPackedBuf(content)
    names = {
        value: name
        for name, value in vars(schema.BuiltinOperator).items()
        if not name.startswith("_")
    }
    return collections.Counter(
        names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        for operator in model.subgraphs[0].operators
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_computes_the_same(name):
    images = small_networks.images()
    found = _run(_write(NETWORKS[name]), images)["out"]
    expected = _expected(NETWORKS[name], images)["out"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_block_computes_the_same_in_float32():
    images = small_networks.images()
    outputs = ("PreLogitsFlatten", "Logits", "out")
    found = _run(_write(BLOCK, outputs=outputs), images)
    expected = _expected(BLOCK, images)
    assert found.keys() == set(outputs)
    for name in outputs:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_bias_and_rectifying_belong_to_what_comes_before():
    assert _operators(_write(BLOCK)) == {
        "CONV_2D": 4,
        "MAX_POOL_2D": 1,
        "AVERAGE_POOL_2D": 1,
        "CONCATENATION": 1,
        "ADD": 1,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }


@pytest.mark.parametrize(
    "precision, error",
    [
        (Precision("float16"), 2e-3),
        (Precision("int8"), 0.03),
        (Precision("int8", in_float=("Conv2d_1a_3x3",)), 0.03),
        (INT8, 0.05),
    ],
)
def test_less_precision_stays_close(precision, error):
    images = small_networks.images(4, seed=1)
    found = _run(_write(BLOCK, precision, ["Logits"]), images)["Logits"]
    expected = _expected(BLOCK, images)["Logits"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=error * np.abs(expected).max())
    assert not np.array_equal(found, expected)


def _subsets_of_blocks():
    """One block in float, all but one, and all."""
    names = list(BLOCK.blocks)
    yield from ((name,) for name in names)
    yield from (tuple(n for n in names if n != name) for name in names)
    yield tuple(names)


@pytest.mark.parametrize("blocks", list(_subsets_of_blocks()))
@pytest.mark.parametrize("output", ["Logits", "out"])
def test_blocks_in_float_among_integers(blocks, output):
    precision = Precision("int8", "int8", float_blocks=blocks)
    images = small_networks.images(4, seed=1)
    content = _write(BLOCK, precision, [output])
    found = _run(content, images)[output]
    expected = _expected(BLOCK, images)[output]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    network = BLOCK.up_to([output])
    tensors, in_float = _tensors(content), precision.float_layers(network)
    for layer in network.weighted:
        kernel = tensors[f"{layer.scope}/weights"]
        is_float = kernel.type == schema.TensorType.FLOAT32
        assert is_float == (layer.name in in_float), layer.name
    if set(blocks) == set(BLOCK.blocks):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert not _operators(content).keys() & {"QUANTIZE", "DEQUANTIZE"}


def test_nothing_is_converted_twice():
    """The branch that stays in float reads integers once, whoever reads them too."""
    precision = Precision("int8", "int8", float_blocks=("left", "average"))
    operators = _operators(_write(BLOCK, precision, ["Logits"]))
    assert operators["QUANTIZE"] <= 3 and operators["DEQUANTIZE"] <= 3


def test_integers_cannot_come_out_of_what_stays_in_float():
    precision = Precision("int8", "int8", float_blocks=tuple(BLOCK.blocks))
    with pytest.raises(ExportError, match="stays in float32"):
        _write(BLOCK, precision, outer_type="int8")


@pytest.mark.parametrize(
    "precision, kernel, bias",
    [
        (FLOAT32, "FLOAT32", "FLOAT32"),
        (Precision("float16"), "FLOAT16", "FLOAT16"),
        (Precision("int8"), "INT8", "FLOAT32"),
        (INT8, "INT8", "INT32"),
    ],
)
def test_weights_have_the_type_of_the_precision(precision, kernel, bias):
    tensors = _tensors(_write(BLOCK, precision))
    for layer in BLOCK.weighted:
        for part, dtype in (("weights", kernel), ("biases", bias)):
            tensor = tensors[f"{layer.scope}/{part}"]
            assert tensor.type == getattr(schema.TensorType, dtype), tensor.name


def test_layers_in_float_keep_their_weights():
    tensors = _tensors(_write(BLOCK, Precision("int8", in_float=("Conv2d_1a_3x3",))))
    for layer in BLOCK.weighted:
        kernel = tensors[f"{layer.scope}/weights"]
        in_float = kernel.type == schema.TensorType.FLOAT32
        assert in_float == (layer.name == "first/Relu")


def test_kernels_have_a_scale_for_each_output_channel():
    for precision in (Precision("int8"), INT8):
        tensors = _tensors(_write(BLOCK, precision))
        for layer in BLOCK.weighted:
            kernel = tensors[f"{layer.scope}/weights"]
            assert kernel.quantization.quantizedDimension == 0
            assert len(kernel.quantization.scale) == kernel.shape[0]


@pytest.mark.parametrize("part", ["kernel", "bias"])
def test_weights_too_large_for_float16_are_refused_by_name(part):
    small = NETWORKS["convolution, SAME"]
    weights = small_networks.weights(small)
    getattr(weights["scope/a"], part).flat[3] = -1e5
    with pytest.raises(ExportError, match=r"scope/a/.* 100000: too much for float16"):
        writer.write(small, weights, SIZE, Precision("float16"), {"out": "a"})


# In integers throughout


def test_everything_between_the_ends_is_in_integers():
    content = _write(BLOCK, INT8)
    tensors = _tensors(content)
    # The mean is flattened after the classifier; probabilities are for people to read.
    inner = {layer.name for layer in BLOCK.layers} - {
        "head/features",
        "head/probabilities",
    } | {"in"}
    types = {tensors[name].type for name in inner}
    assert types == {schema.TensorType.INT8}
    operators = _operators(content)
    assert (operators["QUANTIZE"], operators["DEQUANTIZE"]) == (1, 1)
    assert tensors["head/probabilities"].type == schema.TensorType.FLOAT32


@pytest.mark.parametrize("outer_type", ["float32", "uint8", "int8"])
def test_input_and_output_can_be_integers(outer_type):
    content = _write(BLOCK, INT8, ["PreLogitsFlatten"], outer_type=outer_type)
    interpreter = Interpreter(model_content=content)
    (images_in,) = interpreter.get_input_details()
    (features_out,) = interpreter.get_output_details()
    assert images_in["dtype"] == features_out["dtype"] == np.dtype(outer_type)

    images = small_networks.images(1, seed=1)
    expected = _expected(BLOCK, images)["PreLogitsFlatten"]
    fed = images
    if outer_type != "float32":
        scale, zero_point = images_in["quantization"]
        assert (scale, zero_point) == (
            pytest.approx(1 / 255),
            0 if outer_type == "uint8" else -128,
        )
        fed = (np.rint(images / scale) + zero_point).astype(outer_type)
    found = _run(content, fed)["PreLogitsFlatten"]
    if outer_type != "float32":
        scale, zero_point = features_out["quantization"]
        found = (found.astype(np.float32) - zero_point) * scale
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("outer_type, sum_error", [("float32", 1e-5), ("int8", 0.02)])
def test_probabilities_add_up_to_one(outer_type, sum_error):
    content = _write(BLOCK, INT8, ["out"], outer_type=outer_type)
    images = small_networks.images(1, seed=1)
    if outer_type == "int8":
        images = (np.rint(images * 255) - 128).astype(np.int8)
    found = _run(content, images)["out"]
    if outer_type == "int8":
        found = (found.astype(np.float32) + 128) / 256
    np.testing.assert_allclose(found.sum(), 1, atol=sum_error)


def test_a_batch_can_be_of_any_length():
    interpreter = Interpreter(model_content=_write(BLOCK, INT8, ["PreLogitsFlatten"]))
    images = small_networks.images(3)
    (images_in,) = interpreter.get_input_details()
    np.testing.assert_array_equal(images_in["shape_signature"], [-1, *SIZE, 3])
    interpreter.resize_tensor_input(images_in["index"], images.shape, strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(images_in["index"], images)
    interpreter.invoke()
    (features_out,) = interpreter.get_output_details()
    found = interpreter.get_tensor(features_out["index"])
    one_by_one = _run(_write(BLOCK, INT8, ["PreLogitsFlatten"]), images)[
        "PreLogitsFlatten"
    ]
    np.testing.assert_allclose(found, one_by_one, atol=1e-5)


def test_the_same_network_gives_the_same_bytes():
    assert _write(BLOCK, INT8) == _write(BLOCK, INT8)
