"""The ONNX formats as their consumers meet them: through ONNX Runtime."""

import collections
import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from checkpoints.reader import Checkpoint
from exporters import images, inference_graph
from exporters.artifact import (
    ArtifactError,
    CalibrationImages,
    ExportError,
    ExportInputs,
    ExportOptions,
)
from exporters.containers.onnx import container as onnx_model
from exporters.containers.onnx.container import FLOAT16, FLOAT32, INT8
from exporters.labels import labels
from exporters.network.graphs import CLASSIFICATION, ENDPOINTS, FEATURE_VECTOR, TASKS

pytestmark = pytest.mark.slow

WIDTHS = {"feature_vector": 1536, "logits": 1001}
SOME_WEIGHTS = (
    "InceptionResnetV2/Conv2d_4a_3x3/weights",
    "InceptionResnetV2/Repeat_1/block17_7/Conv2d_1x1/biases",
    "InceptionResnetV2/Logits/Logits/weights",
)


@pytest.fixture(scope="module")
def inputs(stand_in_checkpoint, graphs) -> ExportInputs:
    calibration = CalibrationImages(images.generate(2, 299, 299, seed=5), "generated")
    return ExportInputs(stand_in_checkpoint, graphs, ExportOptions(), calibration)


def _with_options(inputs: ExportInputs, **options) -> ExportInputs:
    return dataclasses.replace(inputs, options=ExportOptions(**options))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, inputs):
    """The files with default options, by (format, task)."""
    directory = tmp_path_factory.mktemp("onnx")
    paths = {}
    for format_name in onnx_model.FORMATS:
        for task in TASKS:
            path = directory / f"{task}-{format_name}.onnx"
            onnx_model.write(inputs, format_name, task, path)
            paths[format_name, task] = path
    return paths


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return images.generate(4, 299, 299, seed=6)


@pytest.fixture(scope="module")
def folded(stand_in_checkpoint):
    return inference_graph.folded_weights(stand_in_checkpoint, CLASSIFICATION)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / norms


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "format_name, max_error, min_cosine",
    [(FLOAT32, 3e-5, 0.999999), (FLOAT16, 0.02, 0.9999), (INT8, 1.0, 0.995)],
)
def test_outputs_agree_with_tf_slim(
    artifacts, batch, reference, format_name, task, max_error, min_cosine
):
    artifact = onnx_model.open(artifacts[format_name, task])
    ((name, found),) = artifact.run(batch).items()
    assert found.shape == (len(batch), WIDTHS[name])
    assert found.dtype == np.float32
    expected = reference.outputs(batch)[name]
    np.testing.assert_allclose(found, expected, atol=max_error)
    if (format_name, task) == (INT8, CLASSIFICATION):
        min_cosine = 0.97  # A random classifier sees only what differs in features.
    assert _cosines(found, expected).min() >= min_cosine


@pytest.mark.parametrize("image_size", ["299", "224x320"])
def test_float32_agrees_with_tensorflow_1_15(
    inputs, raw_variables, reference_values, tmp_path, image_size
):
    checkpoint = Checkpoint(raw_variables, path=tmp_path / "raw.ckpt")
    raw = _with_options(inputs, image_size=None, endpoints=True)
    raw = dataclasses.replace(raw, checkpoint=checkpoint, shared={})
    path = tmp_path / "raw.onnx"
    onnx_model.write(raw, FLOAT32, CLASSIFICATION, path)
    batch = reference_values[f"images_{image_size}"] / np.float32(255)
    found = onnx_model.open(path).run(batch)
    for name in ("global_pool", "Logits"):
        expected = reference_values[f"eval_{image_size}/{name}"]
        error = np.abs(found[f"InceptionResnetV2/{name}"] - expected).max()
        assert error <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format_name", onnx_model.FORMATS)
def test_artifact_says_what_it_is(artifacts, stand_in_checkpoint, format_name, task):
    artifact = onnx_model.open(artifacts[format_name, task])
    assert (artifact.format, artifact.task) == (format_name, task)
    assert artifact.checkpoint_identity == stand_in_checkpoint.identity
    assert artifact.is_stand_in is True
    assert artifact.image_size == (299, 299)
    assert artifact.is_folded


def test_metadata_tells_consumers_how_to_use_it(artifacts):
    path = artifacts[INT8, CLASSIFICATION]
    model = onnx.load(path, load_external_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["labels"].split("\n") == list(labels())
    assert metadata["input"] == "images: float32 NHWC, RGB in [0, 1]"
    assert metadata["provenance"] == "stand-in"
    assert metadata["calibration"] == "generated"


@pytest.mark.parametrize("format_name", onnx_model.FORMATS)
def test_file_is_valid_and_old_runtimes_read_it(artifacts, format_name):
    path = artifacts[format_name, CLASSIFICATION]
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert model.ir_version <= 10
    assert [(entry.domain, entry.version <= 21) for entry in model.opset_import] == [
        ("", True)
    ]


def _op_types(path) -> collections.Counter:
    return collections.Counter(node.op_type for node in onnx.load(path).graph.node)


def test_float32_graph_has_nothing_superfluous(artifacts):
    assert _op_types(artifacts[FLOAT32, CLASSIFICATION]) == {
        "Transpose": 1,
        "Conv": 244,
        "Relu": 243,
        "MaxPool": 4,
        "AveragePool": 1,
        "Concat": 43,
        "Add": 40,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
        "Identity": 1,
    }


def test_onnx_runtime_finds_integer_kernels(artifacts, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(artifacts[INT8, FEATURE_VECTOR]), options)
    op_types = _op_types(tmp_path / "optimized.onnx")
    assert op_types["QLinearConv"] == 240
    assert op_types["QLinearAdd"] == 40
    assert op_types["QLinearConcat"] == 43
    assert op_types["Conv"] == 4
    assert op_types["QuantizeLinear"] == op_types["DequantizeLinear"] == 1


@pytest.mark.parametrize("format_name", onnx_model.FORMATS)
def test_every_weight_can_be_verified(artifacts, folded, format_name):
    found = onnx_model.open(artifacts[format_name, CLASSIFICATION]).weights()
    assert found.keys() == folded.keys()
    for name, (value, allowed) in found.items():
        assert value.shape == folded[name].shape
        assert (np.abs(value - folded[name]) <= allowed).all(), name


def test_feature_vector_has_no_classifier(artifacts, stand_in_checkpoint):
    expected = inference_graph.folded_weights(stand_in_checkpoint, FEATURE_VECTOR)
    artifact = onnx_model.open(artifacts[FLOAT32, FEATURE_VECTOR])
    assert artifact.weights().keys() == expected.keys()


@pytest.mark.parametrize("format_name", onnx_model.FORMATS)
def test_single_changed_weights_are_found(artifacts, folded, tmp_path, format_name):
    """By one step of an integer, and by 1 % of a float."""
    model = onnx.load(artifacts[format_name, CLASSIFICATION])
    for tensor in model.graph.initializer:
        if tensor.name in SOME_WEIGHTS:
            array = numpy_helper.to_array(tensor).copy()
            changed = array.reshape(-1)[array.size // 2 :][:1]
            changed[:] = changed - 1 if array.dtype.kind == "i" else changed * 1.01
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / "changed.onnx")

    found = onnx_model.open(tmp_path / "changed.onnx").weights()
    for name in SOME_WEIGHTS:
        value, allowed = found[name]
        wrong = ~(np.abs(value - folded[name]) <= allowed)
        assert np.count_nonzero(wrong) == 1, name


@pytest.mark.parametrize("format_name", [FLOAT32, INT8])
def test_same_inputs_give_the_same_bytes(artifacts, inputs, tmp_path, format_name):
    again = dataclasses.replace(inputs, shared={})
    onnx_model.write(again, format_name, FEATURE_VECTOR, tmp_path / "again.onnx")
    expected = artifacts[format_name, FEATURE_VECTOR].read_bytes()
    assert (tmp_path / "again.onnx").read_bytes() == expected


@pytest.mark.parametrize("format_name", onnx_model.FORMATS)
def test_endpoints_nchw_and_dynamic_size(inputs, reference, tmp_path, format_name):
    chosen = _with_options(inputs, image_size=None, nchw=True, endpoints=True)
    path = tmp_path / "all.onnx"
    onnx_model.write(chosen, format_name, CLASSIFICATION, path)
    onnx.checker.check_model(str(path), full_check=True)
    image, *_ = onnx.load(path).graph.input
    dims = image.type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, "height", "width"]

    artifact = onnx_model.open(path)
    assert artifact.image_size is None
    batch = images.generate(2, 75, 110)
    found, expected = artifact.run(batch), reference.outputs(batch)
    endpoints = [f"InceptionResnetV2/{name}" for name in ENDPOINTS[CLASSIFICATION]]
    assert list(found) == ["logits", *endpoints]
    tolerance = {FLOAT32: 2e-5, FLOAT16: 0.05, INT8: 0.5}[format_name]
    for name, value in found.items():
        assert value.shape == expected[name].shape
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            value / largest, expected[name] / largest, atol=tolerance, err_msg=name
        )


def test_a_fixed_size_is_stated_and_enforced(inputs, tmp_path):
    chosen = _with_options(inputs, image_size=(75, 110), endpoints=True)
    onnx_model.write(chosen, FLOAT32, FEATURE_VECTOR, tmp_path / "small.onnx")
    artifact = onnx_model.open(tmp_path / "small.onnx")
    assert artifact.image_size == (75, 110)
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"))
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes["feature_vector"] == ["batch", 1536]
    assert shapes["InceptionResnetV2/Conv2d_1a_3x3"] == ["batch", 37, 54, 32]
    assert shapes["InceptionResnetV2/global_pool"] == ["batch", 1, 1, 1536]


def test_int8_needs_calibration_images(inputs, tmp_path):
    none = CalibrationImages(np.zeros((0, 299, 299, 3), np.float32), "none")
    chosen = dataclasses.replace(inputs, calibration=none)
    with pytest.raises(ExportError, match="calibration"):
        onnx_model.write(chosen, INT8, FEATURE_VECTOR, tmp_path / "a.onnx")


def _foreign() -> bytes:
    images = onnx.helper.make_tensor_value_info("images", 1, ["batch"])
    output = onnx.helper.make_tensor_value_info("out", 1, ["batch"])
    node = onnx.helper.make_node("Relu", ["images"], ["out"])
    graph = onnx.helper.make_graph([node], "g", [images], [output])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(
        graph, opset_imports=opset, ir_version=8, producer_name="somebody"
    )
    return model.SerializeToString()


@pytest.mark.parametrize(
    "content, found",
    [
        (b"", "damaged"),
        (b"\x08no model", "damaged"),
        (_foreign(), "'somebody'"),
        (None, "damaged"),
    ],
)
def test_other_files_are_refused_by_name(artifacts, tmp_path, content, found):
    if content is None:  # All but the last bytes of a real one.
        content = artifacts[INT8, FEATURE_VECTOR].read_bytes()[:-100]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=found) as error:
        onnx_model.open(path)
    assert str(path) in str(error.value)
    assert "irv2" in str(error.value)


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ArtifactError, match=r"missing\.onnx"):
        onnx_model.open(tmp_path / "missing.onnx")
