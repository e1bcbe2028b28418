"""The images that quantization takes its activation ranges from."""

from __future__ import annotations

from pathlib import Path

from exporters import images
from exporters.artifact import CalibrationImages
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE

_COUNT = 16
_LARGEST_COUNT = 256
"""Keeps time and memory in bounds, whatever the folder."""


def calibration_images(
    directory: Path | None, image_size: tuple[int, int] | None
) -> CalibrationImages:
    """Reads calibration images, or generates some.

    Args:
      directory: of JPEG and PNG files; if there are more than 256, so many of them,
        evenly spread over all. None for generated images.
      image_size: (height, width) in pixels; None for 299 x 299.

    Raises:
      exporters.images.ImageError: the directory holds no readable images.
    """
    height, width = image_size or (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    if directory is None:
        generated = images.generate(_COUNT, height, width, seed=2)
        return CalibrationImages(generated, f"{_COUNT} generated images")
    files = images.files_in(directory, _LARGEST_COUNT)
    read = images.read(files, height, width)
    return CalibrationImages(read, f"{len(read)} images of {directory.resolve().name}")
