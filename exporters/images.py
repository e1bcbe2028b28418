"""Images for parity checks, calibration and benchmarks: generated, or from a folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporters.errors import is_of_the_machine

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Of the files that are taken for images, in lower case."""

_CENTRAL_FRACTION = 0.875


class ImageError(Exception):
    """A folder or file that images cannot be read from."""


def generate(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Generates images that a network can tell apart.

    Each is a sum of noise at six scales, from a few blobs to single pixels, in
    colours, contrast and brightness of its own.

    Args:
      count: number of images.
      height: in pixels.
      width: in pixels.
      seed: same seed, same images; image i does not depend on `count`.

    Returns:
      float32 [count, height, width, 3] in [0, 1].
    """
    return np.stack([_generate_one(height, width, [seed, i]) for i in range(count)])


def files_in(directory: Path, limit: int | None = None) -> list[Path]:
    """Returns the JPEG and PNG files of a directory, in order of their names.

    Args:
      directory: other files, and directories in it, are not looked at.
      limit: how many at most, evenly spread over all; None for all.

    Raises:
      ImageError: there is no such directory, or no image in it.
    """
    if not directory.is_dir():
        kind = "is not a directory" if directory.exists() else "does not exist"
        raise ImageError(f"{directory} {kind}. Expected a directory of images.")
    files = sorted(
        path
        for path in directory.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.is_dir()
    )
    if not files:
        raise ImageError(
            f"{directory} holds no images. Expected files named {', '.join(SUFFIXES)}."
        )
    count = min(len(files), limit or len(files))
    return [files[i * len(files) // count] for i in range(count)]


def description(count: int, directory: Path) -> str:
    """Says in words which images were taken."""
    return f"{count} image{'s' if count != 1 else ''} of {directory.resolve().name}"


def read(files: Sequence[Path], height: int = 299, width: int = 299) -> np.ndarray:
    """Reads image files as TF-Slim's evaluation does.

    The central 87.5 % of height and width, resized bilinearly without antialiasing
    (`inception_preprocessing.preprocess_for_eval`; pixels are sampled at the positions
    of TensorFlow's resize_bilinear). Orientation tags are ignored, as they are there.

    Args:
      files: JPEG or PNG, at least one.
      height: of the result, in pixels.
      width: of the result, in pixels.

    Returns:
      float32 [count, height, width, 3], RGB, in [0, 1].

    Raises:
      ImageError: one cannot be read.
    """
    result = np.empty((len(files), height, width, 3), np.float32)
    for image, file in zip(result, files):
        image[:] = preprocess(decode(file, str(file)), height, width)
    return result


def decode(source: Path | bytes, name: str) -> np.ndarray:
    """Returns the pixels of an image, as they are stored.

    Args:
      source: a JPEG or PNG file, or the content of one.
      name: what to call it in an error.

    Returns:
      uint8 [height, width, 3], RGB.

    Raises:
      ImageError: it cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:  # Which names an object of Python's.
        raise ImageError(
            f"{name} cannot be read as an image: it is neither a JPEG nor a PNG file."
        ) from error
    except Exception as error:
        if is_of_the_machine(error):
            raise
        reason = str(error) or type(error).__name__
        raise ImageError(
            f"{name} cannot be read as an image: {reason}. Expected a JPEG or PNG file."
        ) from error


def preprocess(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crops and resizes an image as TF-Slim's evaluation does; see `read`.

    Args:
      pixels: uint8 [height, width, 3].
      height: of the result, in pixels.
      width: of the result, in pixels.

    Returns:
      float32 [height, width, 3] in [0, 1].
    """
    for axis in (0, 1):
        full = pixels.shape[axis]
        start = int((full - full * _CENTRAL_FRACTION) / 2)
        pixels = pixels.take(range(start, full - start), axis)
    image = pixels.astype(np.float32) / np.float32(255)
    for axis, size in ((1, width), (0, height)):
        full = image.shape[axis]
        positions = np.arange(size, dtype=np.float32) * np.float32(full / size)
        image = _interpolate(image, np.minimum(positions, full - 1), axis)
    return image.astype(np.float32)


def _generate_one(height: int, width: int, seed: list[int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    image: np.ndarray = np.zeros((height, width, 3))
    strengths = random.dirichlet(np.full(6, 0.7))
    for cells, strength in zip((2, 4, 8, 24, 72, max(height, width)), strengths):
        noise = random.uniform(-1, 1, (cells, cells, 3))
        rows = np.linspace(0, cells - 1, height)
        columns = np.linspace(0, cells - 1, width)
        image += strength * _interpolate(_interpolate(noise, rows, 0), columns, 1)
    tint = random.uniform(0.3, 1, 3)
    image = random.uniform(0.3, 0.7) + random.uniform(0.4, 1.2) * tint * image
    pixels = np.round(np.clip(image, 0, 1) * 255)  # As decoded images are.
    return (pixels / 255).astype(np.float32)


def _interpolate(values: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    """Samples `values` linearly at fractional positions along an axis."""
    low = np.minimum(positions.astype(int), values.shape[axis] - 2)
    shape = [1] * values.ndim
    shape[axis] = len(positions)
    fraction = (positions - low).reshape(shape)
    below, above = np.take(values, low, axis), np.take(values, low + 1, axis)
    return below * (1 - fraction) + above * fraction
