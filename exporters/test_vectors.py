"""Test vectors: images and what an artifact should make of them, as .npy files.

For runtimes that are not here: a program in C++, Java or JavaScript reads them, and
compares what it computes on its own device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporters import cards
from exporters.artifact import Output
from exporters.formats import Format

COUNT = 2
IMAGES = "images"
MAX_ERROR, MIN_COSINE = "max_error", "min_cosine"
_LEAST = 1e-12
"""Of probabilities, below which their logarithms say nothing."""


@dataclasses.dataclass(frozen=True)
class TestVectors:
    """Images and what an artifact should make of them.

    Attributes:
      images: float32 [count, height, width, 3] in [0, 1].
      expected: float32 [count, numbers], what TF-Slim's network makes of these.
      step: what the artifact's output is in multiples of, 0 for floats.
    """

    images: np.ndarray
    expected: np.ndarray
    step: float = 0.0

    def write(self, directory: Path, row: Format, described: Mapping[str, Any]) -> None:
        """Writes the first two to a new directory.

        - `images.npy`: the input, in the artifact's own layout, range and type; one image
          after the other for artifacts that take one at a time;
        - `<output>.npy`: float32, the expected output. Integers of an artifact are to be
          made numbers before they are compared;
        - `max_error.npy`: float32 [], the largest absolute difference allowed;
        - `min_cosine.npy`: float32 [], the smallest cosine allowed for an image.

        Args:
          directory: where to.
          row: the artifact's format.
          described: its manifest.
        """
        images, expected = self.images[:COUNT], self.expected[:COUNT]
        output = Output(cards.output_name(described))
        max_error, min_cosine = _limits(row, output, images, self.expected)
        arrays = {
            IMAGES: as_input(row, described, images),
            output.value: expected.astype(np.float32),
            MAX_ERROR: np.float32(max_error + self.step / 2),
            MIN_COSINE: np.float32(min_cosine),
        }
        directory.mkdir()
        for name, values in arrays.items():
            np.save(directory / f"{name}.npy", np.asarray(values, order="C"))


def _limits(
    row: Format, output: Output, images: np.ndarray, expected: np.ndarray
) -> tuple[float, float]:
    """Returns the largest error and the smallest cosine that are allowed."""
    tolerance = row.tolerance.of(output, (images.shape[1], images.shape[2]))
    if output.value != "probabilities":
        return tolerance.max_error * float(np.abs(expected).max()), tolerance.min_cosine
    # Limits are for logits. If these are off by d, the share of a class changes by a
    # factor of exp(2 d) at most.
    largest = float(np.abs(np.log(np.maximum(expected, _LEAST))).max())
    factor = float(np.expm1(min(2 * tolerance.max_error * largest, 1)))
    return min(1.0, factor * float(expected.max())), 0.0


def as_input(
    row: Format, described: Mapping[str, Any], images: np.ndarray
) -> np.ndarray:
    """Returns images, float32 in [0, 1] in NHWC, as an artifact takes them."""
    kind = cards.number_type(described)
    if kind != "float32":
        pixels = np.rint(images * 255).astype(np.int16)
        return (pixels - (128 if kind == "int8" else 0)).astype(kind)
    if cards.is_signed(row, described):
        images = images * 2 - 1
    if described["options"].get("nchw"):
        images = images.transpose(0, 3, 1, 2)
    return images.astype(np.float32)
