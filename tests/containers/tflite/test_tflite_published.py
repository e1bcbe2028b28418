"""The TFLite file as it was published: the auxiliary classifier."""

import dataclasses
import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from checkpoints.reader import Checkpoint
from exporters import images, parity
from exporters import record as records
from exporters.build import Build
from exporters.containers.tflite import reader
from exporters.errors import ArtifactError, ExportError
from exporters.formats import FORMATS, open_artifact
from exporters.labels import imagenet_labels
from exporters.network.tasks import CLASSIFICATION
from exporters.reference import Reference

ROW = FORMATS["tflite-published"]
PUBLISHED_BYTES = 120_996_332
NUMBERS = 30_222_793
HEAD = "InceptionResnetV2/AuxLogits"


def write(build, path, format=ROW.name):
    record = records.make(format, CLASSIFICATION.name, build.checkpoint, {})
    ROW.write(build, CLASSIFICATION, record, path)
    return path


def without(checkpoint, *prefixes):
    """A checkpoint without the variables below some names."""
    kept = {k: v for k, v in checkpoint.items() if not k.startswith(prefixes)}
    return Checkpoint(kept, path=checkpoint.path)


def test_it_is_for_classification_and_has_its_handle():
    assert ROW.tasks == (CLASSIFICATION,)
    handle = "https://tfhub.dev/tensorflow/lite-model/inception_resnet_v2/1/metadata/1"
    assert ROW.handle("classification") == handle
    assert ROW.options == ()


def test_a_checkpoint_without_auxiliary_head(tmp_path):
    kernel = np.zeros((3, 3, 3, 32), np.float32)
    checkpoint = Checkpoint(
        {"InceptionResnetV2/Conv2d_1a_3x3/weights": kernel}, path=tmp_path / "my.ckpt"
    )
    with pytest.raises(ExportError, match=r"my\.ckpt has no auxiliary head that fits"):
        write(Build(checkpoint), tmp_path / "file.tflite")
    assert not list(tmp_path.iterdir())


# The file of the stand-in


@pytest.fixture(scope="module")
def published(tmp_path_factory, build):
    build = dataclasses.replace(build, labels=imagenet_labels())
    return write(build, tmp_path_factory.mktemp("published") / "file.tflite")


@pytest.mark.slow
def test_size_and_tensors(published):
    assert abs(published.stat().st_size / PUBLISHED_BYTES - 1) < 0.01
    interpreter = Interpreter(str(published))
    (image,) = interpreter.get_input_details()
    assert image["name"] == "input"
    assert list(image["shape"]) == [1, 299, 299, 3]
    assert image["dtype"] == np.float32
    (logits,) = interpreter.get_output_details()
    assert logits["name"] == f"{HEAD}/Logits/BiasAdd"
    assert list(logits["shape"]) == [1, 1001]
    assert logits["dtype"] == np.float32
    names = {tensor["name"] for tensor in interpreter.get_tensor_details()}
    assert f"{HEAD}/Conv2d_1a_3x3/AvgPool" in names
    assert not [name for name in names if "Mixed_7a" in name]


@pytest.mark.slow
def test_it_is_the_auxiliary_classifier(published, reference, parity_images):
    artifact, row = open_artifact(published)
    with artifact:
        assert row is ROW
        stored = artifact.weights()
        assert sum(weight.values.size for weight in stored.values()) == NUMBERS
        report = parity.compare(
            artifact, reference, parity_images, row.tolerance, row.precision
        )
    assert report.passed, report.failures()
    assert report.main_output == "logits"
    assert report.main.relative_error <= 2e-5
    assert report.main.top_1 == 1
    assert report.weights.count == len(stored) == 378


@pytest.mark.slow
def test_as_its_consumers_ran_it(published, reference):
    """Pixels less 127.5, divided by 127.5, into the interpreter's only input."""
    pixels = np.rint(255 * images.generate(1, 299, 299, seed=5))
    interpreter = Interpreter(str(published))
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    (logits,) = interpreter.get_output_details()
    normalized = (pixels - 127.5) / 127.5
    interpreter.set_tensor(image["index"], normalized.astype(np.float32))
    interpreter.invoke()
    found = interpreter.get_tensor(logits["index"])
    batch = (pixels / 255).astype(np.float32)
    expected = reference.outputs(batch, ["AuxLogits"])["AuxLogits"]
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_names_of_its_metadata(published):
    """Those that the Task Library's own tools give, and its labels."""
    model = schema.Model.GetRootAs(published.read_bytes())
    metadata = reader._metadata(model)
    content = model.Buffers(metadata["TFLITE_METADATA"]).DataAsNumpy().tobytes()
    assert content[4:8] == b"M001"
    assert b"\x05\0\0\0image\0" in content
    assert b"\x0b\0\0\0probability\0" in content
    with zipfile.ZipFile(published) as archive:
        labels = archive.read("labels.txt").decode().splitlines()
    assert labels == list(imagenet_labels())


@pytest.mark.slow
def test_the_main_classifier_under_its_name(build, tmp_path, reference, parity_images):
    """A better classifier is another one all the same."""
    record = records.make(ROW.name, CLASSIFICATION.name, build.checkpoint, {})
    path = tmp_path / "file.tflite"
    FORMATS["tflite-float32"].write(build, CLASSIFICATION, record, path)
    artifact, row = open_artifact(path)
    with artifact:
        report = parity.compare(
            artifact, reference, parity_images, row.tolerance, row.precision
        )
    assert not report.passed
    assert report.weights.wrong


@pytest.mark.slow
def test_it_under_the_name_of_the_main_classifier(
    build, tmp_path, reference, parity_images
):
    path = write(build, tmp_path / "file.tflite", "tflite-float32")
    artifact, row = open_artifact(path)
    with artifact:
        report = parity.compare(
            artifact, reference, parity_images, row.tolerance, row.precision
        )
    assert not report.passed
    assert report.weights.wrong


@pytest.mark.slow
def test_checkpoints_without_what_it_is_compared_with(
    published, build, graphs, parity_images
):
    headless = without(build.checkpoint, HEAD)
    assert not headless.has_auxiliary_head
    artifact, row = open_artifact(published)
    with artifact, Reference(headless, graphs) as reference:
        with pytest.raises(ArtifactError, match="no weights to compare AuxLogits with"):
            parity.compare(
                artifact, reference, parity_images, row.tolerance, row.precision
            )
