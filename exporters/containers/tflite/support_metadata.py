"""The description that TFLite models carry for app tools and the Task Library.

A flatbuffer of its own inside the model, and the class names in a zip archive behind
it. Field numbers are those of TensorFlow Lite Support's metadata_schema.fbs, version
1.5.0, for which no package exists on current Python.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import flatbuffers

from checkpoints.zip_archives import ZIP_DAMAGE, within
from exporters.artifact import first_line
from exporters.errors import ArtifactError

METADATA = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
_MOST_BYTES = 16 << 20

_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"
_AUTHOR = "Made from TF-Slim's checkpoint by irv2"
_LICENSE = "Apache License, Version 2.0 https://www.apache.org/licenses/LICENSE-2.0"
_RGB = 1
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION_OPTIONS = 1
_TENSOR_AXIS_LABELS = 2
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


class _Builder(flatbuffers.Builder):
    """Builds tables from field number -> value."""

    def table(
        self,
        references: dict[int, int] | None = None,
        bytes_: dict[int, int] | None = None,
        integers: dict[int, int] | None = None,
    ) -> int:
        """Adds a table of references to what was added before, and of numbers."""
        references, bytes_, integers = references or {}, bytes_ or {}, integers or {}
        self.StartObject(1 + max({**references, **bytes_, **integers}, default=-1))
        for field, value in references.items():
            self.PrependUOffsetTRelativeSlot(field, value, 0)
        for field, value in integers.items():
            self.PrependUint32Slot(field, value, 0)
        for field, value in bytes_.items():
            self.PrependInt8Slot(field, value, 0)
        return self.EndObject()

    def references(self, *offsets: int) -> int:
        """Adds a vector of references."""
        self.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.PrependUOffsetTRelative(offset)
        return self.EndVector()

    def floats(self, *values: float) -> int:
        """Adds a vector of float32."""
        self.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.PrependFloat32(value)
        return self.EndVector()


def build(
    *,
    description: str,
    image_size: tuple[int, int],
    normalization: tuple[float, float],
    input_range: tuple[float, float],
    input_name: str = "images",
    output_name: str,
    output_description: str,
    output_range: tuple[float, float] | None,
    has_labels: bool,
) -> bytes:
    """Builds a ModelMetadata flatbuffer.

    Args:
      description: of the model, for people.
      image_size: (height, width) in pixels.
      normalization: (mean, standard deviation) that bring pixels in [0, 255] to what
        the network wants: (pixel - mean) / deviation.
      input_range: smallest and largest value of the input.
      input_name: of the one input.
      output_name: of the one output.
      output_description: of it, for people.
      output_range: smallest and largest value of the output, if it is bounded.
      has_labels: whether class names are appended to the file (`append_labels`).
    """
    builder = _Builder(1024)
    string = builder.CreateString

    def statistics(low: float, high: float) -> int:
        return builder.table({0: builder.floats(high), 1: builder.floats(low)})

    height, width = image_size
    size = builder.table(integers={0: width, 1: height})
    image = builder.table({1: size}, bytes_={0: _RGB})
    mean, deviation = normalization
    options = builder.table({0: builder.floats(mean), 1: builder.floats(deviation)})
    unit = builder.table({1: options}, bytes_={0: _NORMALIZATION_OPTIONS})
    input_tensor = builder.table(
        {
            0: string(input_name),
            1: string(
                f"RGB images, {height} x {width} pixels. Values in "
                f"[{input_range[0]:g}, {input_range[1]:g}]."
            ),
            3: builder.table({1: image}, bytes_={0: _IMAGE_PROPERTIES}),
            4: builder.references(unit),
            5: statistics(*input_range),
        }
    )

    feature = builder.table()
    output_fields = {
        0: string(output_name),
        1: string(output_description),
        3: builder.table({1: feature}, bytes_={0: _FEATURE_PROPERTIES}),
    }
    if output_range:
        output_fields[5] = statistics(*output_range)
    if has_labels:
        labels_file = builder.table(
            {0: string(LABELS_FILE), 1: string("Names of the classes, one a line.")},
            bytes_={2: _TENSOR_AXIS_LABELS},
        )
        output_fields[6] = builder.references(labels_file)
    output_tensor = builder.table(output_fields)

    subgraph = builder.table(
        {2: builder.references(input_tensor), 3: builder.references(output_tensor)}
    )
    model = builder.table(
        {
            0: string("inception_resnet_v2"),
            1: string(description),
            2: string("1"),
            3: builder.references(subgraph),
            4: string(_AUTHOR),
            5: string(_LICENSE),
            7: string(_PARSER_VERSION),
        }
    )
    builder.Finish(model, _IDENTIFIER)
    return bytes(builder.Output())


def read_labels(path: Path) -> list[str]:
    """Returns the names of classes that are appended to a file, none if there are none.

    Raises:
      ArtifactError: what is appended is damaged.
    """
    if not zipfile.is_zipfile(path):
        return []
    try:
        with within(), zipfile.ZipFile(path) as archive:
            if archive.getinfo(LABELS_FILE).file_size > _MOST_BYTES:
                raise ValueError("they are too large to be true")
            return archive.read(LABELS_FILE).decode("utf-8").splitlines()
    except (LookupError, *ZIP_DAMAGE) as error:
        raise ArtifactError(
            f"{path} is damaged: the names of its classes cannot be read "
            f"({first_line(error)}). Export it again."
        ) from error


def append_labels(path: Path, labels: Sequence[str]) -> None:
    """Appends class names to a model file, as the zip archive that its readers expect."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        content = "".join(f"{label}\n" for label in labels)
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, _ZIP_EPOCH), content)
