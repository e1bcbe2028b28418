"""TFLite files in the hands of their consumers, by ai-edge-litert."""

import collections
import dataclasses
import shutil
import zipfile

import flatbuffers
import numpy as np
import pytest
import small_build
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from checkpoints.reader import Checkpoint
from exporters import images, parity
from exporters.calibration import CalibrationImages
from exporters.containers.tflite import container
from exporters.errors import ExportError
from exporters.formats import FORMATS, open_artifact
from exporters.network.tasks import TASKS

WRITTEN = [row.name for row in small_build.WRITTEN if row.name.startswith("tflite-")]
CHECKPOINT = small_build.checkpoint()


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def cosines(found, expected):
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return (found * expected).sum(axis=1) / norms


# On a small block: options, metadata


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Writes a file of the block."""
    small_build.install(monkeypatch)

    def write(format, task="classification", **options):
        options = dataclasses.replace(small_build.OPTIONS, **options)
        build = small_build.build(CHECKPOINT, options)
        row, path = FORMATS[format], tmp_path / f"{format}.tflite"
        return small_build.write(build, row, TASKS[task], path)

    return write


def compare(path):
    artifact, row = open_artifact(path)
    reference = small_build.BlockReference(CHECKPOINT)
    return parity.compare(
        artifact, reference, small_build.IMAGES, row.tolerance, row.precision
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format", WRITTEN)
def test_a_file_says_what_it_is(small, format, task):
    artifact = container.open(small(format, task))
    assert artifact.format == artifact.record.format == format
    assert artifact.task == TASKS[task]
    assert artifact.record.checkpoint_identity == CHECKPOINT.identity
    assert artifact.record.stand_in is False
    assert artifact.image_size == (75, 75)
    assert artifact.is_folded


@pytest.mark.parametrize(
    "options",
    [
        {"softmax": True},
        {"signed_input": True},
        {"softmax": True, "signed_input": True},
        {"image_size": (80, 100)},
    ],
    ids=str,
)
@pytest.mark.parametrize("format", WRITTEN)
def test_every_option_agrees_with_the_network(small, format, options, monkeypatch):
    if "image_size" in options:
        generated = images.generate(4, *options["image_size"], seed=3)
        other = CalibrationImages(generated, "generated")
        right = small_build.build
        monkeypatch.setattr(
            small_build,
            "build",
            lambda *given: dataclasses.replace(right(*given), calibration=other),
        )
    report = compare(small(format, **options))
    assert report.passed, report.failures()
    softmax = options.get("softmax", False)
    assert report.main_output == ("probabilities" if softmax else "logits")


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("signed_input", [False, True])
@pytest.mark.parametrize("integer_type", ["uint8", "int8"])
def test_integers_in_and_out(small, integer_type, signed_input, softmax):
    path = small(
        "tflite-int8",
        integer_type=integer_type,
        signed_input=signed_input,
        softmax=softmax,
    )
    report = compare(path)
    assert report.passed, report.failures()
    interpreter = Interpreter(str(path))
    (images_in,) = interpreter.get_input_details()
    (logits_out,) = interpreter.get_output_details()
    assert images_in["dtype"] == logits_out["dtype"] == np.dtype(integer_type)
    lowest = np.iinfo(integer_type).min
    if softmax:
        assert logits_out["quantization"] == (pytest.approx(1 / 256), lowest)
    if not signed_input:  # Pixels go in as they are.
        assert images_in["quantization"] == (pytest.approx(1 / 255), lowest)


def test_signed_input_is_twice_the_images_less_one(small):
    artifact = container.open(small("tflite-float32", signed_input=True))
    assert artifact.input_range == (-1, 1)
    batch = small_build.IMAGES.batches((75, 75))[0][:1]
    runner = Interpreter(str(small("tflite-float32", signed_input=True)))
    direct = runner.get_signature_runner()(images=2 * batch - 1)["logits"]
    np.testing.assert_allclose(direct, artifact.run(batch)["logits"], atol=1e-6)


def test_needs_an_image_size(small):
    with pytest.raises(ExportError, match="needs an image size"):
        small("tflite-float32", image_size=None)


@pytest.mark.parametrize("format", ["tflite-float32", "tflite-int8"])
def test_the_same_inputs_give_the_same_bytes(small, format):
    assert small(format).read_bytes() == small(format).read_bytes()


# Metadata, read by the field numbers of metadata_schema.fbs


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


def image_metadata(path):
    """(input tensor, output tensor) as app tools find them described."""
    (subgraph,) = read_metadata(path).tables(3)
    (input_tensor,), (output_tensor,) = subgraph.tables(2), subgraph.tables(3)
    return input_tensor, output_tensor


def statistics(tensor):
    """(lowest, highest) value."""
    return tensor.table(5).floats(1) + tensor.table(5).floats(0)


def test_the_model_is_described(small):
    model = read_metadata(small("tflite-float32"))
    assert model.text(0) == "inception_resnet_v2"
    assert CHECKPOINT.identity in model.text(1)
    assert "STAND-IN" not in model.text(1)
    assert "irv2" in model.text(4)
    assert "Apache" in model.text(5)


@pytest.mark.parametrize(
    "format, options, normalization, input_range",
    [
        ("tflite-float32", {}, ([0], [255]), [0, 1]),
        ("tflite-float32", {"signed_input": True}, ([127.5], [127.5]), [-1, 1]),
        ("tflite-int8", {}, ([0], [255]), [0, 1]),
        ("tflite-int8", {"integer_type": "uint8"}, ([0], [255]), [0, 255]),
        ("tflite-int8", {"integer_type": "int8"}, ([0], [255]), [-128, 127]),
    ],
)
def test_the_input_is_described(small, format, options, normalization, input_range):
    input_tensor, _ = image_metadata(small(format, **options))
    assert input_tensor.text(0) == "images"
    content = input_tensor.table(3)
    assert content.byte(0) == 2  # ImageProperties
    assert content.table(1).byte(0) == 1  # RGB
    size = content.table(1).table(1)
    assert (size.integer(0), size.integer(1)) == (75, 75)
    (unit,) = input_tensor.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == normalization
    assert statistics(input_tensor) == input_range


@pytest.mark.parametrize("softmax", [False, True])
def test_classes_are_named(small, softmax):
    path = small("tflite-float32", softmax=softmax)
    _, output_tensor = image_metadata(path)
    assert output_tensor.text(0) == ("probabilities" if softmax else "logits")
    if softmax:
        assert statistics(output_tensor) == [0, 1]
    (labels_file,) = output_tensor.tables(6)
    assert labels_file.byte(2) == 2  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [labels_file.text(0)]
        content = archive.read(labels_file.text(0)).decode()
    assert tuple(content.splitlines()) == small_build.LABELS


def test_features_have_no_names(small):
    path = small("tflite-float32", "feature_vector")
    _, output_tensor = image_metadata(path)
    assert output_tensor.text(0) == "feature_vector"
    assert output_tensor.offset(6) == 0  # No labels.
    assert not zipfile.is_zipfile(path)


# The real network


@pytest.fixture(scope="module")
def files(build, tmp_path_factory):
    """A function (format, task, **options) -> path; each file is made once."""
    directory = tmp_path_factory.mktemp("tflite")
    written = {}

    def write(format, task="classification", **options):
        key = (format, task, *sorted(options.items()))
        if key not in written:
            changed = build
            if options:
                options = dataclasses.replace(build.options, **options)
                changed = dataclasses.replace(build, options=options)
            path = directory / f"{len(written)}.tflite"
            written[key] = small_build.write(
                changed, FORMATS[format], TASKS[task], path
            )
        return written[key]

    yield write
    shutil.rmtree(directory)  # They are large.


@pytest.fixture(scope="module")
def unseen(parity_images):
    """Images that were not used in calibration."""
    (batch,) = parity_images.batches((299, 299))
    return batch


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format", WRITTEN)
def test_files_agree_with_tf_slim(files, reference, parity_images, format, task):
    artifact, row = open_artifact(files(format, task))
    report = parity.compare(
        artifact, reference, parity_images, row.tolerance, row.precision
    )
    assert report.passed, report.failures()
    cosine = {"float32": 0.999999, "float16": 0.999, "int8": 0.96}
    if task == "feature_vector":  # A random classifier sees only what differs in them.
        cosine["int8"] = 0.99
    assert report.main.cosine >= cosine[format.rpartition("-")[2]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, numbers", [("feature_vector", 54.3e6), ("classification", 55.8e6)]
)
@pytest.mark.parametrize("format, bytes_per_number", list(zip(WRITTEN, (4, 2, 1, 1))))
def test_file_sizes(files, format, bytes_per_number, task, numbers):
    size = files(format, task).stat().st_size
    if format == "tflite-int8" and task == "classification":
        size -= 1536 * 1001 * 3  # Its last kernel is in float32.
    assert numbers * bytes_per_number <= size <= 1.06 * numbers * bytes_per_number


@pytest.mark.slow
def test_float32_agrees_with_tensorflow_1_15(
    build, raw_variables, reference_values, tmp_path
):
    checkpoint = Checkpoint(raw_variables, path=tmp_path / "raw.ckpt")
    raw = dataclasses.replace(build, checkpoint=checkpoint)
    batch = reference_values["images_299"] / np.float32(255)
    for task, name in (
        ("feature_vector", "PreLogitsFlatten"),
        ("classification", "Logits"),
    ):
        path = tmp_path / f"{task}.tflite"
        small_build.write(raw, FORMATS["tflite-float32"], TASKS[task], path)
        (found,) = container.open(path).run(batch).values()
        expected = reference_values[f"eval_299/{name}"]
        assert relative_error(found, expected) <= 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("format", ["tflite-float32", "tflite-int8"])
def test_a_consumer_can_resize_to_a_batch(files, unseen, format):
    path = files(format, "feature_vector")
    interpreter = Interpreter(str(path), num_threads=2)
    (images_in,) = interpreter.get_input_details()
    (features_out,) = interpreter.get_output_details()
    np.testing.assert_array_equal(images_in["shape"], [1, 299, 299, 3])
    np.testing.assert_array_equal(images_in["shape_signature"], [-1, 299, 299, 3])
    interpreter.resize_tensor_input(images_in["index"], [8, 299, 299, 3], strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(images_in["index"], unseen)
    interpreter.invoke()
    found = interpreter.get_tensor(features_out["index"])
    one_by_one = container.open(path).run(unseen)["feature_vector"]
    np.testing.assert_allclose(found, one_by_one, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", WRITTEN)
def test_the_fast_kernels_take_the_network(files, format):
    """XNNPACK's; what it refuses would split the network into many parts."""
    interpreter = Interpreter(str(files(format)))
    interpreter.allocate_tensors()
    operators = [operator["op_name"] for operator in interpreter._get_ops_details()]
    counts = collections.Counter(operators)
    # Where weights are int8, the classifier is a convolution too.
    assert counts["CONV_2D"] + counts["FULLY_CONNECTED"] == 245
    assert (counts["ADD"], counts["CONCATENATION"]) == (40, 43)
    assert 1 <= counts["DELEGATE"] <= 2


@pytest.mark.slow
def test_the_published_flavour(files, unseen, reference, parity_images):
    """Probabilities of images in [-1, 1]."""
    path = files("tflite-int8", softmax=True, signed_input=True)
    artifact, row = open_artifact(path)
    report = parity.compare(
        artifact, reference, parity_images, row.tolerance, row.precision
    )
    assert report.passed, report.failures()
    found = artifact.run(unseen[:2])["probabilities"]
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    runner = Interpreter(str(path)).get_signature_runner()
    direct = runner(images=2 * unseen[:1] - 1)["probabilities"]
    np.testing.assert_allclose(direct, found[:1], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("format", WRITTEN)
def test_single_changed_weights_are_found(
    files, reference, parity_images, format, tmp_path
):
    """An integer by one, a float by its last bit; a bias by what shows beside rounding."""
    path = tmp_path / "changed.tflite"
    shutil.copy(files(format), path)
    changed = {
        "InceptionResnetV2/Conv2d_1a_3x3/biases",
        "InceptionResnetV2/Conv2d_4a_3x3/weights",
        "InceptionResnetV2/Repeat_1/block17_7/Branch_1/Conv2d_0b_1x7/weights",
        "InceptionResnetV2/Repeat_1/block17_8/Branch_1/Conv2d_0b_1x7/biases",
        "InceptionResnetV2/Block8/Conv2d_1x1/weights",
        "InceptionResnetV2/Repeat_2/block8_9/Conv2d_1x1/biases",
        "InceptionResnetV2/Logits/Logits/weights",
    }
    random = np.random.default_rng(0)
    data = np.memmap(path, np.uint8, "r+")
    model = schema.Model.GetRootAs(data)
    subgraph = model.Subgraphs(0)
    for tensor in map(subgraph.Tensors, range(subgraph.TensorsLength())):
        name = tensor.Name().decode()
        if name not in changed:
            continue
        dtype = {0: np.float32, 1: np.float16, 2: np.int32, 9: np.int8}[tensor.Type()]
        values = model.Buffers(tensor.Buffer()).DataAsNumpy().view(dtype)
        place = random.integers(len(values))
        if dtype == np.int32:
            values[place] += 0.5 / tensor.Quantization().ScaleAsNumpy()[place]
        elif dtype == np.int8:
            values[place] += -1 if values[place] > 0 else 1
        else:
            values[place] = np.nextafter(values[place], dtype(np.inf))
    data.flush()
    artifact, row = open_artifact(path)
    report = parity.compare(
        artifact, reference, parity_images, row.tolerance, row.precision
    )
    path.unlink()
    found = {line.partition(":")[0] for line in report.weights.wrong}
    assert found == changed
    assert all("1 of " in line for line in report.weights.wrong)
