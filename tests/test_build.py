"""What one build shares, and that nothing it keeps can be stale."""

import dataclasses

import numpy as np
import pytest
import small_build

from checkpoints import files
from exporters import build as builds
from exporters.build import ExportOptions
from exporters.calibration import CalibrationImages
from exporters.errors import ExportError
from exporters.formats import FORMATS
from exporters.network.quantization import Precision
from exporters.network.tasks import TASKS

INT8 = Precision("int8", "int8")
FIRST = "scope/first/Relu"
WRITTEN = small_build.WRITTEN
QUANTIZED = [row for row in WRITTEN if row.precision.activations == "int8"]


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    small_build.install(monkeypatch)


@pytest.fixture
def build():
    return small_build.build(small_build.checkpoint())


@pytest.fixture
def other():
    """Another checkpoint."""
    return small_build.checkpoint(seed=1)


def other_images(build):
    images = build.calibration.images * np.float32(0.5)
    return CalibrationImages(images, "dark")


# Options


@pytest.mark.parametrize("image_size", [None, (75, 75), (224, 320), (2048, 75)])
def test_image_sizes(image_size):
    assert ExportOptions(image_size=image_size).image_size == image_size


@pytest.mark.parametrize("image_size", [(74, 299), (299, 10), (0, 0), (299, 2049)])
def test_image_sizes_that_cannot_be(image_size):
    height, width = image_size
    with pytest.raises(ExportError, match=f"{height} x {width}.*75 x 75.*2048 x 2048"):
        ExportOptions(image_size=image_size)


def test_the_range_of_images():
    assert ExportOptions().input_range == (0, 1)
    assert ExportOptions(signed_input=True).input_range == (-1, 1)


# What is kept


def test_everything_is_computed_once(build, monkeypatch):
    calls = []

    def count(module, name):
        function = getattr(module, name)

        def counted(*arguments):
            calls.append(name)
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(builds.folding, "fold")
    count(builds.calibration, "measure")
    count(builds, "quantize_network")
    for _ in range(2):
        assert build.quantized(INT8) is build.quantized(Precision("int8", "int8"))
        assert build.weights() is build.weights((0.0, 1.0))
        assert build.statistics is build.statistics
    assert sorted(calls) == ["fold", "measure", "quantize_network"]


def test_other_arguments_give_something_else(build):
    signed = build.weights((-1.0, 1.0))
    assert not np.array_equal(signed[FIRST].kernel, build.weights()[FIRST].kernel)
    assert build.quantized(INT8, (-1.0, 1.0)).activations["in"].zero_point == 0
    assert build.quantized(INT8).activations["in"].zero_point == -128
    in_float = Precision("int8", "int8", in_float=("Logits",))
    assert "scope/logits" in build.quantized(INT8).weights
    assert "scope/logits" not in build.quantized(in_float).weights


def everything_kept(build):
    """Numbers of all kinds, after which all is kept."""
    quantized = build.quantized(INT8)
    return {
        "weights": build.weights()["scope/up"].kernel,
        "ranges": np.array(list(build.statistics.ranges.values())),
        "means": build.statistics.means["sum/Relu"],
        "scales": np.array([of.scale for of in quantized.activations.values()]),
        "integers": quantized.weights["scope/up"].bias.values,
    }


def test_another_checkpoint_is_another_build(build, other):
    before = everything_kept(build)
    found = everything_kept(dataclasses.replace(build, checkpoint=other))
    fresh = everything_kept(small_build.build(other))
    for name in before:
        assert not np.array_equal(found[name], before[name]), name
        np.testing.assert_array_equal(found[name], fresh[name])
        np.testing.assert_array_equal(everything_kept(build)[name], before[name])


def test_other_calibration_images_are_another_build(build):
    before = everything_kept(build)
    found = everything_kept(dataclasses.replace(build, calibration=other_images(build)))
    np.testing.assert_array_equal(found["weights"], before["weights"])
    for name in ("ranges", "means", "scales", "integers"):
        assert not np.array_equal(found[name], before[name]), name


def written(build, row, tmp_path):
    path = tmp_path / "file"
    return files.digests(small_build.write(build, row, TASKS["classification"], path))


@pytest.mark.parametrize("row", WRITTEN, ids=lambda row: row.name)
def test_files_of_another_checkpoint(build, other, row, tmp_path):
    before = written(build, row, tmp_path)
    replaced = dataclasses.replace(build, checkpoint=other)
    assert written(replaced, row, tmp_path) != before
    fresh = written(small_build.build(other), row, tmp_path)
    assert written(replaced, row, tmp_path) == fresh
    assert written(build, row, tmp_path) == before


@pytest.mark.parametrize("row", QUANTIZED, ids=lambda row: row.name)
def test_files_of_other_calibration_images(build, row, tmp_path):
    before = written(build, row, tmp_path)
    images = CalibrationImages(
        other_images(build).images, build.calibration.description
    )
    assert written(dataclasses.replace(build, calibration=images), row, tmp_path) != (
        before
    )


@pytest.mark.parametrize(
    "row, changed",
    [
        ("onnx-float32", {"nchw": True}),
        ("onnx-int8", {"endpoints": True}),
        ("onnx-int8", {"image_size": None}),
        ("tflite-int8", {"signed_input": True}),
        ("tflite-int8", {"integer_type": "uint8"}),
        ("tflite-float32", {"softmax": True}),
    ],
)
def test_files_with_other_options(build, row, changed, tmp_path):
    row = FORMATS[row]
    before = written(build, row, tmp_path)
    options = dataclasses.replace(build.options, **changed)
    replaced = dataclasses.replace(build, options=options)
    assert written(replaced, row, tmp_path) != before
    assert written(replaced, row, tmp_path) == written(
        small_build.build(build.checkpoint, options), row, tmp_path
    )


# Calibration


@pytest.mark.parametrize("row", QUANTIZED, ids=lambda row: row.name)
@pytest.mark.parametrize(
    "images",
    [None, CalibrationImages(np.zeros((0, 75, 75, 3), np.float32), "none")],
    ids=["none given", "no images"],
)
def test_integers_need_calibration_images(build, row, images, tmp_path):
    build = dataclasses.replace(build, calibration=images)
    with pytest.raises(ExportError, match="no calibration images"):
        written(build, row, tmp_path)


@pytest.mark.parametrize("row", QUANTIZED, ids=lambda row: row.name)
def test_calibration_images_of_another_size(build, row, tmp_path):
    images = CalibrationImages(np.zeros((2, 80, 75, 3), np.float32), "none")
    build = dataclasses.replace(build, calibration=images)
    with pytest.raises(ExportError, match=r"\[2, 80, 75, 3\].*\[count, 75, 75, 3\]"):
        written(build, row, tmp_path)


def test_any_size_of_images_will_do_where_a_file_takes_any(build):
    options = dataclasses.replace(build.options, image_size=None)
    images = CalibrationImages(np.zeros((2, 80, 90, 3), np.float32), "none")
    build = dataclasses.replace(build, options=options, calibration=images)
    assert build.statistics.ranges.keys() >= {"in", "sum/Relu"}
