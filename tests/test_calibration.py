"""The images that quantization takes its ranges from, and the ranges."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_networks
from PIL import Image
from small_networks import BLOCK

from checkpoints.files import digest
from exporters import calibration
from exporters.calibration import calibration_images
from exporters.images import ImageError
from exporters.parity import ParityImages


def test_generated_images():
    made = calibration_images(None, (80, 75))
    assert made.images.shape == (16, 80, 75, 3)
    assert made.images.dtype == np.float32
    assert made.description == "16 generated images"


def test_any_image_size_is_calibrated_at_the_default_one():
    assert calibration_images(None, None).images.shape == (16, 299, 299, 3)


def test_artifacts_are_not_compared_on_the_images_they_were_calibrated_on():
    calibrated_on = calibration_images(None, (75, 75)).images
    (compared_on,) = ParityImages().batches((75, 75))
    for image in compared_on:
        assert not (calibrated_on == image).all(axis=(1, 2, 3)).any()


def test_all_images_of_a_directory(tmp_path):
    for level in range(20):
        pixels = np.full((90, 90, 3), 10 * level, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{level:02}.png")
    read = calibration_images(tmp_path, (75, 80))
    assert read.images.shape == (20, 75, 80, 3)
    levels = read.images.mean(axis=(1, 2, 3)) * 255
    np.testing.assert_allclose(levels, np.arange(20) * 10, atol=1e-3)
    assert read.description == f"20 images of {tmp_path.name}"


def test_more_images_than_help(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "_LARGEST_COUNT", 4)
    for level in range(10):
        pixels = np.full((90, 90, 3), 10 * level, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{level}.png")
    read = calibration_images(tmp_path, (75, 80))
    levels = read.images.mean(axis=(1, 2, 3)) * 255
    np.testing.assert_allclose(levels, [0, 20, 50, 70], atol=1e-3)
    assert read.description == f"4 images of {tmp_path.name}"


def test_an_image_that_cannot_be_read(tmp_path):
    (tmp_path / "cat.jpg").write_text("a cat")
    with pytest.raises(ImageError, match=r"cat\.jpg \(no image in it\)"):
        calibration_images(tmp_path, (75, 75))
    Image.new("RGB", (90, 90)).save(tmp_path / "dog.jpg")
    read = calibration_images(tmp_path, (75, 75))
    assert len(read.images) == 1
    assert read.note == f"Not read in {tmp_path}: cat.jpg (no image in it)."


def test_a_directory_without_images(tmp_path):
    with pytest.raises(ImageError, match="no images"):
        calibration_images(tmp_path, (75, 75))


# What activations are like

WEIGHTS = small_networks.weights(BLOCK)


def measure(images):
    return calibration.measure(BLOCK, WEIGHTS, images)


def test_ranges_and_means_are_those_of_every_layer():
    images = small_networks.images(5)
    found = measure(images)
    expected = small_networks.run(BLOCK, WEIGHTS, images)
    del expected["head/probabilities"]
    assert found.ranges.keys() == found.means.keys() == expected.keys()
    for name, values in expected.items():
        mean = values.mean(axis=tuple(range(values.ndim - 1)))
        assert found.means[name].shape == mean.shape
        np.testing.assert_allclose(found.means[name], mean, rtol=1e-4, atol=1e-5)
        if name != "in":
            low, high = min(0, values.min()), max(0, values.max())
            np.testing.assert_allclose(found.ranges[name], (low, high), rtol=1e-5)


def test_images_may_have_all_that_images_can_have():
    assert measure(small_networks.images(1) * 0.5).ranges["in"] == (0, 1)


def test_ranges_are_extremes_over_all_images():
    images = small_networks.images(3)
    together = measure(images)
    single = [measure(image[None]) for image in images]
    for name, (low, high) in together.ranges.items():
        assert low == min(of.ranges[name][0] for of in single) <= 0
        assert high == max(of.ranges[name][1] for of in single) >= 0
        mean = np.mean([of.means[name] for of in single], axis=0)
        np.testing.assert_allclose(together.means[name], mean, rtol=1e-5, atol=1e-6)


def test_images_of_any_size_are_measured():
    images = np.random.default_rng(0).uniform(size=(1, 20, 31, 3)).astype(np.float32)
    expected = small_networks.run(BLOCK, WEIGHTS, images)["sum/Relu"]
    assert measure(images).ranges["sum/Relu"][1] == pytest.approx(expected.max())


def test_what_runs_at_once_changes_no_number(monkeypatch):
    images = small_networks.images(6)
    expected = measure(images)
    for at_once in (1, 6):
        monkeypatch.setattr(calibration, "_AT_ONCE", at_once)
        found = measure(images)
        assert found.ranges == expected.ranges
        for name, mean in found.means.items():
            np.testing.assert_array_equal(mean, expected.means[name])


_WRITE = """
import os, sys
from pathlib import Path

cores, directory = int(sys.argv[1]), Path(sys.argv[2])
os.cpu_count = lambda: cores
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

from checkpoints import stand_in
from checkpoints.reader import Checkpoint
from exporters import record as records
from exporters.build import Build, ExportOptions
from exporters.calibration import CalibrationImages
from exporters.formats import FORMATS
from exporters.images import generate
from exporters.network.tasks import CLASSIFICATION

checkpoint = Checkpoint(stand_in.generate(), path=Path("stand_in.ckpt"))
images = CalibrationImages(generate(2, 96, 96), "generated")
build = Build(checkpoint, ExportOptions(image_size=(96, 96)), images)
for name in ("onnx-int8", "tflite-int8"):
    record = records.make(name, CLASSIFICATION.name, checkpoint, {})
    FORMATS[name].write(build, CLASSIFICATION, record, directory / name)
"""


@pytest.mark.slow
def test_integers_do_not_depend_on_the_number_of_cores(tmp_path):
    """Nor on the process, the order of hashes, or the threads of any library."""
    digests = []
    for cores in ("1", "64"):
        directory = tmp_path / cores
        directory.mkdir()
        threads = {
            name: cores
            for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        }
        environment = (
            os.environ
            | threads
            | {
                "PYTHONHASHSEED": cores,
                "PYTHONPATH": str(Path(__file__).parents[1]),
            }
        )
        subprocess.run(
            [sys.executable, "-c", _WRITE, cores, str(directory)],
            env=environment,
            check=True,
        )
        digests.append({file.name: digest(file) for file in directory.iterdir()})
        shutil.rmtree(directory)
    assert digests[0].keys() == {"onnx-int8", "tflite-int8"}
    assert digests[0] == digests[1]
