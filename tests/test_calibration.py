"""The images that quantization takes its ranges from."""

import numpy as np
import pytest
from PIL import Image

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
    with pytest.raises(ImageError, match=r"cat\.jpg cannot be read as an image"):
        calibration_images(tmp_path, (75, 75))


def test_a_directory_without_images(tmp_path):
    with pytest.raises(ImageError, match="no images"):
        calibration_images(tmp_path, (75, 75))
