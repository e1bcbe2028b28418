"""Tests of TFLite export, with the files in the hands of ai-edge-litert."""

import dataclasses
import shutil
import time
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from checkpoints.reader import Checkpoint
from exporters import images, inference_graph, tflite_model
from exporters.artifact import (
    ArtifactError,
    CalibrationImages,
    ExportError,
    ExportOptions,
)
from exporters.graphs import CLASSIFICATION, FEATURE_VECTOR, TASKS
from exporters.labels import labels

pytestmark = pytest.mark.slow

FORMATS = ("tflite-float32", "tflite-float16", "tflite-dynamic-int8", "tflite-int8")
OUTPUTS = {FEATURE_VECTOR: "feature_vector", CLASSIFICATION: "logits"}


def eight_bit_images(count, height, width, seed):
    """Generated images with the 256 levels that decoded images have."""
    generated = images.generate(count, height, width, seed)
    return (np.rint(generated * 255) / 255).astype(np.float32)


@pytest.fixture(scope="module")
def inputs(export_inputs):
    calibration = CalibrationImages(eight_bit_images(8, 299, 299, seed=2), "generated")
    return dataclasses.replace(export_inputs, calibration=calibration, shared={})


@pytest.fixture(scope="module")
def written(inputs, tmp_path_factory):
    """Returns a function (format, task, **options) -> path; each file is made once."""
    directory = tmp_path_factory.mktemp("tflite")
    files = {}

    def write(format, task, **options):
        key = (format, task, *sorted(options.items()))
        if key not in files:
            path = directory / f"{len(files)}.tflite"
            options = dataclasses.replace(inputs.options, **options)
            changed = dataclasses.replace(inputs, options=options)
            tflite_model.write(changed, format, task, path)
            files[key] = path
        return files[key]

    return write


@pytest.fixture(scope="module")
def unseen():
    """Images that were not used in calibration."""
    return eight_bit_images(4, 299, 299, seed=1)


@pytest.fixture(scope="module")
def expected(reference, unseen):
    """What TF-Slim's network makes of the unseen images."""
    return reference.outputs(unseen)


@pytest.fixture(scope="module")
def folded(stand_in_checkpoint):
    return {
        task: inference_graph.folded_weights(stand_in_checkpoint, task)
        for task in TASKS
    }


def relative_error(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def cosines(found, wanted):
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return (found * wanted).sum(axis=1) / norms


def wrong_weights(path, folded):
    found = tflite_model.open(path).weights()
    assert found.keys() == folded.keys()
    return {
        name
        for name, (value, allowed) in found.items()
        if value.shape != folded[name].shape
        or not (np.abs(value - folded[name]) <= allowed).all()
    }


# What is in the files.


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_says_what_it_is(written, stand_in_checkpoint, format, task):
    artifact = tflite_model.open(written(format, task))
    assert artifact.format == format
    assert artifact.task == task
    assert artifact.checkpoint_identity == stand_in_checkpoint.identity
    assert artifact.is_stand_in is True
    assert artifact.image_size == (299, 299)


@pytest.mark.parametrize(
    "task, numbers", [(FEATURE_VECTOR, 54.3e6), (CLASSIFICATION, 55.8e6)]
)
@pytest.mark.parametrize("format, bytes_per_number", list(zip(FORMATS, (4, 2, 1, 1))))
def test_file_sizes(written, format, bytes_per_number, task, numbers):
    size = written(format, task).stat().st_size
    assert numbers * bytes_per_number <= size <= 1.06 * numbers * bytes_per_number


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format", FORMATS)
def test_all_weights_are_the_checkpoints(written, folded, format, task):
    assert wrong_weights(written(format, task), folded[task]) == set()


@pytest.mark.parametrize("format", FORMATS)
def test_a_single_changed_weight_is_found(written, folded, format, tmp_path):
    path = tmp_path / "changed.tflite"
    shutil.copy(written(format, CLASSIFICATION), path)
    random = np.random.default_rng(0)
    scopes = [
        "InceptionResnetV2/Conv2d_1a_3x3",
        "InceptionResnetV2/Repeat_1/block17_7/Branch_1/Conv2d_0b_1x7",
        "InceptionResnetV2/Block8/Conv2d_1x1",
        "InceptionResnetV2/Logits/Logits",
    ]
    changed = {f"{scope}/{kind}" for scope in scopes for kind in ("weights", "biases")}
    data = np.memmap(path, np.uint8, "r+")
    model = schema.Model.GetRootAs(data)
    subgraph = model.Subgraphs(0)
    for tensor in map(subgraph.Tensors, range(subgraph.TensorsLength())):
        if tensor.Name().decode() not in changed:
            continue
        dtype = {0: np.float32, 1: np.float16, 2: np.int32, 9: np.int8}[tensor.Type()]
        values = model.Buffers(tensor.Buffer()).DataAsNumpy().view(dtype)
        place = random.integers(len(values))
        if dtype == np.float32:
            values[place] *= 1.01
        elif dtype == np.float16:
            values[place] = np.nextafter(values[place], np.float16(np.inf))
        else:
            values[place] += -1 if values[place] > 0 else 1
    data.flush()
    assert wrong_weights(path, folded[CLASSIFICATION]) == changed


def test_the_same_inputs_give_the_same_bytes(written, inputs, tmp_path):
    inputs = dataclasses.replace(inputs, shared={})
    for format in ("tflite-dynamic-int8", "tflite-int8"):
        again = tmp_path / "again.tflite"
        tflite_model.write(inputs, format, CLASSIFICATION, again)
        assert again.read_bytes() == written(format, CLASSIFICATION).read_bytes()


def operators_of(path):
    """Returns (operator, version, type of its weights if it has any) of each."""
    model = schema.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(0)
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    names = {v: k for k, v in vars(schema.BuiltinOperator).items()}
    found = set()
    for operator in operators:
        code = model.OperatorCodes(operator.OpcodeIndex())
        inputs = [graph.Tensors(i) for i in operator.InputsAsNumpy()]
        weights = [t.Type() for t in inputs if t.Name().endswith(b"/weights")]
        found.add((names[code.BuiltinCode()], code.Version(), *weights))
    return found


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format", FORMATS)
def test_old_runtimes_know_the_operators(written, format, task):
    """Those of TensorFlow 2.4; later versions of an operator are refused there."""
    known = {"CONV_2D": 5, "DEQUANTIZE": 3, "FULLY_CONNECTED": 4, "SOFTMAX": 2}
    for operator, version, *weights in operators_of(written(format, task)):
        assert version <= known.get(operator, 2), operator
        # It has a scale per channel, which was added later, without a new version.
        assert (operator, weights) != ("FULLY_CONNECTED", [schema.TensorType.INT8])


# What the files compute.


def test_float32_agrees_with_tensorflow_1_15(
    inputs, raw_variables, reference_values, tmp_path
):
    checkpoint = Checkpoint(raw_variables, path=tmp_path / "raw.ckpt")
    raw = dataclasses.replace(inputs, checkpoint=checkpoint, shared={})
    batch = reference_values["images_299"] / np.float32(255)
    for task, name in (
        (FEATURE_VECTOR, "PreLogitsFlatten"),
        (CLASSIFICATION, "Logits"),
    ):
        path = tmp_path / f"{task}.tflite"
        tflite_model.write(raw, "tflite-float32", task, path)
        (found,) = tflite_model.open(path).run(batch).values()
        expected = reference_values[f"eval_299/{name}"]
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "format, error, cosine",
    [
        ("tflite-float32", 2e-5, 0.999999),
        ("tflite-float16", 0.02, 0.9995),
        ("tflite-dynamic-int8", 0.2, 0.97),
        ("tflite-int8", 0.25, 0.95),
    ],
)
def test_outputs_agree_with_the_network(
    written, unseen, expected, format, task, error, cosine
):
    outputs = tflite_model.open(written(format, task)).run(unseen)
    assert list(outputs) == [OUTPUTS[task]]
    found, wanted = outputs[OUTPUTS[task]], expected[OUTPUTS[task]]
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert relative_error(found, wanted) <= error
    assert cosines(found, wanted).min() >= cosine


@pytest.mark.parametrize("format", ["tflite-dynamic-int8", "tflite-int8"])
def test_quantized_features_keep_their_direction(written, unseen, expected, format):
    outputs = tflite_model.open(written(format, FEATURE_VECTOR)).run(unseen)
    found = cosines(outputs["feature_vector"], expected["feature_vector"])
    assert found.mean() >= 0.995
    assert found.min() >= 0.99


@pytest.mark.parametrize(
    "format, task",
    [
        ("tflite-float32", FEATURE_VECTOR),
        ("tflite-int8", FEATURE_VECTOR),
        ("tflite-int8", CLASSIFICATION),
    ],
)
def test_a_consumer_can_resize_to_a_batch(written, unseen, format, task):
    path = written(format, task)
    interpreter = Interpreter(str(path), num_threads=2)
    (images_in,) = interpreter.get_input_details()
    (output,) = interpreter.get_output_details()
    np.testing.assert_array_equal(images_in["shape"], [1, 299, 299, 3])
    np.testing.assert_array_equal(images_in["shape_signature"], [-1, 299, 299, 3])
    interpreter.resize_tensor_input(images_in["index"], [8, 299, 299, 3], strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(images_in["index"], np.concatenate([unseen, unseen]))
    interpreter.invoke()
    found = interpreter.get_tensor(output["index"])
    one_by_one = tflite_model.open(path).run(unseen)
    wanted = np.concatenate([one_by_one[OUTPUTS[task]]] * 2)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.slow
def test_int8_is_fast(written, unseen):
    interpreters = {}
    for format in ("tflite-float32", "tflite-int8"):
        path = written(format, FEATURE_VECTOR)
        interpreters[format] = Interpreter(str(path), num_threads=2)
        interpreters[format].allocate_tensors()
    seconds = {format: [] for format in interpreters}
    for _ in range(10):  # In turns: other work on the machine slows both.
        for format, interpreter in interpreters.items():
            start = time.perf_counter()
            interpreter.invoke()
            seconds[format].append(time.perf_counter() - start)
    assert min(seconds["tflite-int8"]) <= 0.35 * min(seconds["tflite-float32"])


# Options.


def test_softmax_gives_probabilities(written, unseen, expected):
    for format, error in (("tflite-float32", 2e-5), ("tflite-int8", 0.5)):
        path = written(format, CLASSIFICATION, softmax=True)
        outputs = tflite_model.open(path).run(unseen)
        assert list(outputs) == ["probabilities"]
        found = outputs["probabilities"]
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
        assert relative_error(found, expected["probabilities"]) <= error


@pytest.mark.parametrize(
    "integer_type, signed_input", [("uint8", False), ("uint8", True), ("int8", True)]
)
def test_integer_input_and_output(
    written, unseen, expected, folded, integer_type, signed_input
):
    path = written(
        "tflite-int8",
        FEATURE_VECTOR,
        integer_type=integer_type,
        signed_input=signed_input,
    )
    interpreter = Interpreter(str(path))
    (images_in,) = interpreter.get_input_details()
    (features_out,) = interpreter.get_output_details()
    assert images_in["dtype"] == features_out["dtype"] == np.dtype(integer_type)
    if integer_type == "uint8" and not signed_input:  # Pixels go in as they are.
        assert images_in["quantization"] == (pytest.approx(1 / 255), 0)
    found = tflite_model.open(path).run(unseen)["feature_vector"]
    assert cosines(found, expected["feature_vector"]).min() >= 0.985
    assert wrong_weights(path, folded[FEATURE_VECTOR]) == set()


@pytest.mark.parametrize("format", ["tflite-float32", "tflite-int8"])
def test_signed_input_is_the_published_flavour(
    written, unseen, expected, folded, format
):
    path = written(format, CLASSIFICATION, softmax=True, signed_input=True)
    artifact = tflite_model.open(path)
    assert wrong_weights(path, folded[CLASSIFICATION]) == set()
    found = artifact.run(unseen[:2])["probabilities"]
    runner = Interpreter(str(path)).get_signature_runner()
    direct = runner(images=2 * unseen[:1] - 1)["probabilities"]
    np.testing.assert_allclose(direct, found[:1], atol=1e-6)
    tolerance = 2e-5 if format == "tflite-float32" else 0.5
    assert relative_error(found, expected["probabilities"][:2]) <= tolerance


def test_another_image_size(inputs, reference, tmp_path):
    options = ExportOptions(image_size=(160, 200))
    calibration = CalibrationImages(eight_bit_images(4, 160, 200, seed=2), "generated")
    inputs = dataclasses.replace(inputs, options=options, calibration=calibration)
    batch = eight_bit_images(2, 160, 200, seed=1)
    wanted = reference.outputs(batch)["feature_vector"]
    for format, cosine in (("tflite-float32", 0.999999), ("tflite-int8", 0.98)):
        path = tmp_path / f"{format}.tflite"
        tflite_model.write(inputs, format, FEATURE_VECTOR, path)
        artifact = tflite_model.open(path)
        assert artifact.image_size == (160, 200)
        found = artifact.run(batch)["feature_vector"]
        assert cosines(found, wanted).min() >= cosine


def test_needs_an_image_size(inputs, tmp_path):
    inputs = dataclasses.replace(inputs, options=ExportOptions(image_size=None))
    with pytest.raises(ExportError, match="needs an image size"):
        tflite_model.write(inputs, "tflite-float32", FEATURE_VECTOR, tmp_path / "file")


@pytest.mark.parametrize("shape", [(2, 100, 100, 3), (0, 299, 299, 3)])
def test_calibration_images_that_do_not_fit(inputs, tmp_path, shape):
    calibration = CalibrationImages(np.zeros(shape, np.float32), "none")
    inputs = dataclasses.replace(inputs, calibration=calibration)
    with pytest.raises(ExportError, match="calibration images"):
        tflite_model.write(inputs, "tflite-int8", FEATURE_VECTOR, tmp_path / "file")


# Metadata, read by the field numbers of metadata_schema.fbs.


class Table(flatbuffers.table.Table):
    """A flatbuffer's table, with access by field number."""

    def offset(self, field):
        return self.Offset(4 + 2 * field)

    def text(self, field):
        return self.String(self.offset(field) + self.Pos).decode()

    def byte(self, field):
        return self.Get(
            flatbuffers.number_types.Int8Flags, self.offset(field) + self.Pos
        )

    def integer(self, field):
        flags = flatbuffers.number_types.Uint32Flags
        return self.Get(flags, self.offset(field) + self.Pos)

    def table(self, field):
        return Table(self.Bytes, self.Indirect(self.offset(field) + self.Pos))

    def tables(self, field):
        start = self.Vector(self.offset(field))
        count = self.VectorLen(self.offset(field))
        return [Table(self.Bytes, self.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, field):
        flags = flatbuffers.number_types.Float32Flags
        return list(self.GetVectorAsNumpy(flags, self.offset(field)))


def read_metadata(path):
    model = schema.Model.GetRootAs(path.read_bytes())
    for entry in map(model.Metadata, range(model.MetadataLength())):
        if entry.Name() == b"TFLITE_METADATA":
            content = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
            assert content[4:8] == b"M001"
            return Table(content, int.from_bytes(content[:4], "little"))
    raise AssertionError("no TFLITE_METADATA")


@pytest.mark.parametrize(
    "options, normalization, input_range",
    [
        ({}, ([0], [255]), ([0], [1])),
        ({"softmax": True, "signed_input": True}, ([127.5], [127.5]), ([-1], [1])),
    ],
)
def test_classification_metadata(
    written, stand_in_checkpoint, options, normalization, input_range
):
    path = written("tflite-float32", CLASSIFICATION, **options)
    model = read_metadata(path)
    assert model.text(0) == "inception_resnet_v2"
    assert stand_in_checkpoint.identity in model.text(1)
    assert "STAND-IN" in model.text(1)
    assert "irv2" in model.text(4)
    assert "Apache" in model.text(5)
    (subgraph,) = model.tables(3)

    (input_tensor,) = subgraph.tables(2)
    assert input_tensor.text(0) == "images"
    content = input_tensor.table(3)
    assert content.byte(0) == 2  # ImageProperties
    assert content.table(1).byte(0) == 1  # RGB
    size = content.table(1).table(1)
    assert (size.integer(0), size.integer(1)) == (299, 299)
    (unit,) = input_tensor.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == normalization
    statistics = input_tensor.table(5)
    assert (statistics.floats(1), statistics.floats(0)) == input_range

    (output_tensor,) = subgraph.tables(3)
    assert output_tensor.text(0) == ("probabilities" if options else "logits")
    (labels_file,) = output_tensor.tables(6)
    assert labels_file.byte(2) == 2  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [labels_file.text(0)]
        content = archive.read(labels_file.text(0)).decode()
    assert tuple(content.splitlines()) == labels()


def test_feature_vector_metadata(written):
    path = written("tflite-float32", FEATURE_VECTOR)
    (subgraph,) = read_metadata(path).tables(3)
    (output_tensor,) = subgraph.tables(3)
    assert output_tensor.text(0) == "feature_vector"
    assert output_tensor.offset(6) == 0  # No labels.
    assert not zipfile.is_zipfile(path)


def test_labels():
    assert len(labels()) == 1001
    assert labels()[0] == "background"
    assert labels()[1] == "tench, Tinca tinca"


# Files that are damaged, or not ours.


@pytest.fixture
def copy(written, tmp_path):
    path = tmp_path / "copy.tflite"
    shutil.copy(written("tflite-int8", CLASSIFICATION), path)
    return path


def test_damage_anywhere_but_in_weights_is_found(copy):
    data = np.memmap(copy, np.uint8, "r+")
    model = schema.Model.GetRootAs(data)
    subgraph = model.Subgraphs(0)
    outside = np.ones(len(data), bool)
    for tensor in map(subgraph.Tensors, range(subgraph.TensorsLength())):
        if tensor.Name().endswith((b"/weights", b"/biases")):
            content = model.Buffers(tensor.Buffer()).DataAsNumpy()
            start = content.ctypes.data - data.ctypes.data
            outside[start : start + content.nbytes] = False
    places = np.flatnonzero(outside)
    record = copy.read_bytes().index(b'{"format": ')
    random = np.random.default_rng(0)
    chosen = [*places[:60], *range(record, record + 280, 4), *random.choice(places, 60)]
    for place in chosen:
        value = data[place]
        data[place] ^= random.integers(1, 256, dtype=np.uint8)
        with pytest.raises(ArtifactError, match=r"copy\.tflite"):
            tflite_model.open(copy)
        data[place] = value


@pytest.mark.parametrize("kept", [0, 3, 8, 100, 10_000, 0.5, 0.999])
def test_truncated_files_are_refused(copy, kept):
    size = copy.stat().st_size
    with copy.open("r+b") as file:
        file.truncate(int(kept * size) if 0 < kept < 1 else kept)
    with pytest.raises(ArtifactError, match=r"copy\.tflite"):
        tflite_model.open(copy)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(ArtifactError, match="cannot be read"):
        tflite_model.open(path)
    path.write_bytes(b"\x08\x0a" * 100)
    with pytest.raises(ArtifactError, match="no TFLite file"):
        tflite_model.open(path)


def test_files_of_other_makers_are_refused(tmp_path):
    import tensorflow as tf

    path = tmp_path / "other.tflite"
    function = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([2])])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()]
    )
    path.write_bytes(converter.convert())
    with pytest.raises(ArtifactError, match="none that irv2 made"):
        tflite_model.open(path)
