"""Images for parity checks, calibration and benchmarks: generated, or from a folder."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Of the files that are taken for images, in lower case."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_KINDS = "a JPEG, PNG, BMP or WebP file"
_NAMED = f"files named {', '.join(SUFFIXES)}"
_MOST_NAMED = 20
_MOST_TRIED = 256
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


@dataclasses.dataclass(frozen=True)
class DirectoryImages:
    """Images of a directory, and what else there was.

    Attributes:
      images: float32 [count, height, width, 3], RGB, in [0, 1].
      files: where they were read from, in order of their names.
      skipped: what else there was -> why; those that cannot be read come first.
    """

    images: np.ndarray
    files: tuple[Path, ...]
    skipped: Mapping[Path, str]

    def note(self, directory: Path) -> str | None:
        """Says in words what was passed over; None if there was nothing."""
        if not self.skipped:
            return None
        return f"Not read in {directory}: {_listed(directory, self.skipped)}."


def read_directory(
    directory: Path, height: int = 299, width: int = 299, limit: int | None = None
) -> DirectoryImages:
    """Reads the images in a directory and all directories in it; see `read`.

    What cannot be read does not end it; all of it is named if there are no more than 256
    files, and else as much as was come across. Hidden files, such as those that macOS
    leaves, are no images.

    Args:
      directory: where to look.
      height: of the result, in pixels.
      width: of the result, in pixels.
      limit: how many at most, evenly spread over all; None for all. Others take the
        places of those that cannot be read.

    Raises:
      ImageError: there is no such directory, or no image in it that can be read.
    """
    if not directory.is_dir():
        kind = "is not a directory" if directory.exists() else "does not exist"
        raise ImageError(f"{directory} {kind}. Expected a directory of images.")
    files, others = _look_into(directory)
    count = min(len(files), limit or len(files))
    spread = [i * len(files) // count for i in range(count)]
    found: dict[int, np.ndarray] = {}
    damaged: dict[Path, str] = {}
    for number in dict.fromkeys([*spread, *range(len(files))]):
        if len(found) == count and len(files) > _MOST_TRIED:
            break
        try:
            pixels = _decoded(files[number])
        except _UnreadableError as error:
            damaged[files[number]] = str(error)
            continue
        if len(found) < count:
            found[number] = preprocess(pixels, height, width)
    skipped = {path: damaged[path] for path in sorted(damaged)} | others
    if not found:
        told = f"; not read: {_listed(directory, skipped)}" if skipped else ""
        raise ImageError(
            f"{directory} holds no images{told}. Expected {_NAMED} in it, or in "
            "directories in it."
        )
    numbers = sorted(found)
    return DirectoryImages(
        np.stack([found[number] for number in numbers]),
        tuple(files[number] for number in numbers),
        skipped,
    )


def _look_into(directory: Path) -> tuple[list[Path], dict[Path, str]]:
    """Returns files called like images, in order, and whatever else is not hidden."""
    files, skipped = [], {}
    for folder, below, names in os.walk(directory):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in below:
            if (path := Path(folder, name)).is_symlink():
                skipped[path] = "a link to a directory"
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                files.append(path)
            elif not name.startswith("."):
                skipped[path] = "not called like an image"
    return sorted(files), {path: skipped[path] for path in sorted(skipped)}


def _listed(directory: Path, skipped: Mapping[Path, str]) -> str:
    shown = [
        f"{path.relative_to(directory)} ({why})"
        for path, why in list(skipped.items())[:_MOST_NAMED]
    ]
    more = len(skipped) - len(shown)
    return ", ".join(shown) + (f", and {more:,} more" if more else "")


def description(count: int, directory: Path) -> str:
    """Says in words which images were taken."""
    return f"{count} image{'s' if count != 1 else ''} of {directory.resolve().name}"


def read(files: Sequence[Path], height: int = 299, width: int = 299) -> np.ndarray:
    """Reads image files as TF-Slim's evaluation does.

    The central 87.5 % of height and width, resized bilinearly without antialiasing
    (`inception_preprocessing.preprocess_for_eval`; pixels are sampled at the positions
    of TensorFlow's resize_bilinear). As there, orientation tags and transparency are
    ignored, and of 16 bits a channel, the upper 8 are taken.

    Args:
      files: JPEG, PNG, BMP or WebP, whatever their names; at least one.
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
      source: a JPEG, PNG, BMP or WebP file, or the content of one.
      name: what to call it in an error.

    Returns:
      uint8 [height, width, 3], RGB.

    Raises:
      ImageError: it cannot be read.
    """
    try:
        return _decoded(io.BytesIO(source) if isinstance(source, bytes) else source)
    except _UnreadableError as error:
        raise ImageError(
            f"{name} cannot be read as an image: {error}. Expected {_KINDS}."
        ) from error


class _UnreadableError(Exception):
    """Why an image cannot be read."""


def _decoded(file: Path | io.BytesIO) -> np.ndarray:
    from PIL import Image

    if isinstance(file, Path) and file.exists() and not file.is_file():
        raise _UnreadableError("not a regular file")
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if image.mode.startswith("I"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., np.newaxis], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files.
        if isinstance(file, Path) and file.is_file() and not file.stat().st_size:
            raise _UnreadableError("empty") from error
        if isinstance(error, Image.UnidentifiedImageError):
            raise _UnreadableError("no image in it") from error
        raise _UnreadableError(str(error) or type(error).__name__) from error


def preprocess(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crops and resizes an image as TF-Slim's evaluation does; see `read`.

    Args:
      pixels: uint8 [height, width, 3].
      height: of the result, in pixels.
      width: of the result, in pixels.

    Returns:
      float32 [height, width, 3] in [0, 1].
    """
    above, below, down = _neighbours(pixels.shape[0], height)
    left, right, across = _neighbours(pixels.shape[1], width)
    # Of a large image, most rows and columns have no part in the result.
    rows, places = np.unique(np.concatenate([above, below]), return_inverse=True)
    pixels = pixels.take(rows, axis=0)
    image = _between(
        _LEVELS.take(pixels.take(left, axis=1)),
        _LEVELS.take(pixels.take(right, axis=1)),
        across[:, np.newaxis],
    )
    return _between(
        image.take(places[:height], axis=0),
        image.take(places[height:], axis=0),
        down[:, np.newaxis, np.newaxis],
    )


_LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
"""What each level of 8 bits is in [0, 1]."""


def _neighbours(full: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where TensorFlow's resize_bilinear looks, in the central 87.5 % of an axis.

    It resizes without half-pixel centers.

    Returns:
      For each of `size` positions: the pixel before it, the one behind it, and how far
      it is from the former to the latter.
    """
    start = int((full - full * _CENTRAL_FRACTION) / 2)
    full -= 2 * start
    positions = np.arange(size, dtype=np.float32) * np.float32(full / size)
    low = np.minimum(positions.astype(int), full - 1)
    high = np.minimum(low + 1, full - 1)
    return start + low, start + high, positions - low.astype(np.float32)


def _between(one: np.ndarray, other: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Returns one + (other - one) * fraction, in the memory of the two."""
    other -= one
    other *= fraction
    one += other
    return one


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
