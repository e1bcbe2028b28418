"""A file of another tool's in the hands of a library that runs it.

A module that can has `run(path, classes) -> ForeignModel`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from checkpoints import crashes
from exporters.artifact import nothing
from exporters.errors import ArtifactError

_MODULES = {
    "ONNX": "exporters.containers.onnx.foreign",
    "TFLite": "exporters.containers.tflite.foreign",
    "SavedModel": "exporters.identifying.tensorflow_models",
    "frozen graph": "exporters.identifying.tensorflow_models",
    "OpenVINO": "exporters.identifying.openvino_ir",
    "Keras": "exporters.containers.keras.foreign",
    "HDF5": "exporters.containers.keras.foreign",
    "safetensors": "exporters.containers.timm.foreign",
    "PyTorch": "exporters.containers.timm.foreign",
}
"""Form -> the module whose library runs it."""

_PLACES = {"NHWC": (0, 1, 2, 3), "NCHW": (0, 3, 1, 2)}


class CannotRunError(Exception):
    """A file that no library can run as it is, such as one of weights alone."""


@dataclasses.dataclass(frozen=True)
class ForeignModel(contextlib.AbstractContextManager):
    """A file that can be run.

    Attributes:
      library: what runs it, and its version.
      image_size: the (height, width) it is bound to, None if any will do.
      layout: "NHWC" or "NCHW", of the images that it takes.
      run: images, float32 [batch, height, width, 3] in the range that it takes, whatever
        its layout and dtype -> name of an output -> array.
      steps: name of an output -> what its values are multiples of, for integers.
      close: frees what the library holds.
    """

    library: str
    image_size: tuple[int, int] | None
    layout: str
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    steps: Mapping[str, float] = dataclasses.field(default_factory=dict)
    close: Callable[[], None] = nothing

    def __exit__(self, *exception: object) -> None:
        self.close()


def run(path: Path, form: str, classes: int | None) -> ForeignModel:
    """Opens a file with the library that runs its form.

    Args:
      path: the file, or directory of a SavedModel.
      form: as `exporters.identifying.contents.Contents` says.
      classes: of its classifier, None if it has none.

    Raises:
      CannotRunError: it says no more than weights, or nothing that can be run safely.
      MissingLibraryError: the library is not there.
      ArtifactError: the library cannot use it.
    """
    if form not in _MODULES:
        raise CannotRunError(f"there is no library here that runs {form}")
    module = importlib.import_module(_MODULES[form])
    with crashes.blamed(path, ArtifactError):
        model: ForeignModel = module.run(path, classes)
    return dataclasses.replace(
        model, run=crashes.blaming(path, ArtifactError, model.run)
    )


@dataclasses.dataclass(frozen=True)
class Images:
    """How a file wants its images.

    Attributes:
      batch: images at once, None for any number.
      image_size: (height, width), None for any.
      layout: "NHWC" or "NCHW".
    """

    batch: int | None
    image_size: tuple[int, int] | None
    layout: str

    @classmethod
    def of_shape(cls, path: Path, shape: Iterable[object]) -> Images:
        """Reads a shape of four dimensions, of which those that vary are no integers.

        Raises:
          ArtifactError: it is none of RGB images.
        """
        sizes = [n if isinstance(n, int) and n > 0 else None for n in shape]
        for layout, places in _PLACES.items():
            if len(sizes) == len(places) and sizes[places.index(3)] == 3:
                batch, height, width = (sizes[places.index(axis)] for axis in range(3))
                is_bound = height is not None and width is not None
                size = (int(height or 0), int(width or 0)) if is_bound else None
                return cls(batch, size, layout)
        raise ArtifactError(
            f"{path} takes the shape {list(shape)}, expected images of three channels: "
            "[batch, height, width, 3] or [batch, 3, height, width]."
        )

    def batches(self, images: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
        """Gives images as the file wants them.

        Args:
          images: float32 [count, height, width, 3].
          dtype: of the file's input; integers are rounded.
        """
        if np.issubdtype(dtype, np.integer):
            images = np.round(images)
        images = images.transpose(_PLACES[self.layout]).astype(dtype)
        at_once = self.batch or len(images)
        for start in range(0, len(images), at_once):
            part = images[start : start + at_once]
            lacking = at_once - len(part)
            if lacking:
                part = np.concatenate([part, np.repeat(part[-1:], lacking, axis=0)])
            yield np.ascontiguousarray(part)


def joined(
    parts: Iterable[Mapping[str, np.ndarray]], count: int
) -> dict[str, np.ndarray]:
    """Joins the outputs of batches, less what was added to fill the last one."""
    rows: dict[str, list[np.ndarray]] = {}
    for part in parts:
        for name, values in part.items():
            rows.setdefault(name, []).append(np.asarray(values))
    return {
        name: np.concatenate(found)[:count] if found[0].ndim else found[0]
        for name, found in rows.items()
    }
