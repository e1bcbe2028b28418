"""The images that quantization takes its activation ranges from."""

from __future__ import annotations

from pathlib import Path

from exporters import images
from exporters.artifact import CalibrationImages
from exporters.network import DEFAULT_IMAGE_SIZE

_COUNT = 16


def calibration_images(
    directory: Path | None, image_size: tuple[int, int] | None
) -> CalibrationImages:
    """Reads calibration images, or generates some.

    Args:
      directory: JPEG and PNG files, all of which are used; None for generated images.
      image_size: (height, width) in pixels; None for 299 x 299.

    Raises:
      exporters.images.ImageError: the directory holds no readable images.
    """
    height, width = image_size or (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    if directory is None:
        generated = images.generate(_COUNT, height, width, seed=2)
        return CalibrationImages(generated, f"{_COUNT} generated images")
    read = images.read_directory(directory, height, width)
    return CalibrationImages(read, f"{len(read)} images of {directory}")
