"""TFLite files, in float32, with float16 or int8 weights, or quantized throughout.

Each is written from the list of layers straight into a flatbuffer. TensorFlow's
converter makes the same operators of this network, and takes far more time and memory
(`make bench`).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from exporters.artifact import OpenedArtifact, Output, first_line
from exporters.build import Build
from exporters.containers.tflite import reader, support_metadata, writer
from exporters.containers.tflite.writer import INPUT
from exporters.errors import ArtifactError, ExportError
from exporters.network.quantization import Precision, Quantization
from exporters.network.tasks import TASKS, Task
from exporters.record import Record

_OUTPUT_DESCRIPTION = {
    "feature_vector": "1536 features.",
    "logits": "Logits of {} classes{}.",
    "probabilities": "Probabilities of {} classes{}.",
}


def write(
    build: Build, precision: Precision, task: Task, record: Record, path: Path
) -> None:
    """Writes a TFLite file.

    Its input is "images", [batch, height, width, 3], float32 in [0, 1]; a batch of one
    unless the consumer resizes it. Its output is "feature_vector" [batch, 1536],
    "logits" [batch, classes], or with `options.softmax` "probabilities". Where all is
    quantized, both are integers if `options.integer_type` says so. With
    `options.signed_input`, images are in [-1, 1], as the published
    tensorflow/inception_resnet_v2/1 had them.

    Args:
      build: checkpoint, options, and images to calibrate with.
      precision: in what numbers.
      task: what for.
      record: what the file says about itself.
      path: the file to write.

    Raises:
      ExportError: no image size, no calibration images, or a weight too large for
        float16.
    """
    options = build.options
    size, input_range = options.image_size, options.input_range
    if size is None:
        raise ExportError("TFLite needs an image size")
    output, endpoint = task.output, task.endpoint
    if task.needs_classifier and options.softmax:
        output, endpoint = "probabilities", "Predictions"
    num_classes = build.checkpoint.num_classes
    labels = build.labels if task.needs_classifier else None
    is_quantized = precision.activations == "int8"
    outer_type = options.integer_type if is_quantized else "float32"
    description = _description(record)
    metadata = {
        support_metadata.METADATA: support_metadata.build(
            description=description,
            image_size=size,
            normalization=(127.5, 127.5) if options.signed_input else (0.0, 255.0),
            input_range=_outer_range(outer_type, input_range),
            output_name=output,
            output_description=_OUTPUT_DESCRIPTION[output].format(
                num_classes, "; the first is background" if num_classes == 1001 else ""
            ),
            output_range=(
                _outer_range(outer_type, (0.0, 1.0))
                if output == "probabilities"
                else None
            ),
            has_labels=bool(labels),
        ),
        reader.RECORD: record.to_text().encode(),
        reader.SEAL: reader.UNSEALED,
    }
    path.write_bytes(
        writer.write(
            build.network.up_to([endpoint]),
            build.weights(input_range),
            size,
            precision,
            {output: build.network.endpoints[endpoint]},
            description=description,
            metadata=metadata,
            quantized=build.quantized(precision, input_range) if is_quantized else None,
            outer_type=outer_type,
        )
    )
    if labels:
        support_metadata.append_labels(path, labels)
    reader.seal(path)


def _outer_range(
    outer_type: str, float_range: tuple[float, float]
) -> tuple[float, float]:
    if outer_type == "float32":
        return float_range
    limits = np.iinfo(outer_type)
    return limits.min, limits.max


def open(path: Path) -> OpenedArtifact:
    """Opens a TFLite file that `write` made.

    Raises:
      ArtifactError: the file is no TFLite file, none of this toolkit's, or damaged.
    """
    file = reader.read(path)
    record = file.record
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
        runner = interpreter.get_signature_runner()
        _, height, width, _ = runner.get_input_details()[INPUT]["shape"]
    except (LookupError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"TFLite's interpreter cannot read {path}: {first_line(error)}"
        ) from error
    task = TASKS[record.task]
    is_signed = bool(record.options.get("signed_input"))
    # A file of irv2 0.1 does not say whether it gives probabilities.
    has_softmax = record.options.get(
        "softmax", "probabilities" in runner.get_output_details()
    )
    output = "probabilities" if has_softmax and task.needs_classifier else task.output
    details = runner.get_output_details().get(output)
    rounded = _quantization(details) if details else None
    step = float(rounded.scale[0]) if rounded else 0.0

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        try:
            return _run(runner, images * 2 - 1 if is_signed else images)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(
                f"{path} cannot be run on images of the shape {list(images.shape)}; it "
                f"was changed. TFLite's interpreter says: {first_line(error)}"
            ) from error

    return OpenedArtifact(
        format=record.format,
        task=task,
        record=record,
        image_size=(int(height), int(width)),
        outputs={output: Output(output, step=step)},
        run=run,
        weights=file.weights,
        activations=file.activations,
        input_range=(-1.0, 1.0) if is_signed else (0.0, 1.0),
        is_folded=True,
    )


def _description(record: Record) -> str:
    stand_in = "STAND-IN: its weights are generated and classify nothing. "
    return (
        f"Inception-ResNet-v2, {record.task}, {record.format}. "
        f"{stand_in if record.stand_in else ''}"
        f"Checkpoint {record.checkpoint_identity} ({record.provenance})."
    )


def _run(runner, images: np.ndarray) -> dict[str, np.ndarray]:
    """Runs images one by one, with quantization where the file has integers."""
    input_type = runner.get_input_details()[INPUT]
    output_types = runner.get_output_details()
    rows: dict[str, list[np.ndarray]] = {name: [] for name in output_types}
    for image in images:
        image = image[np.newaxis].astype(np.float32)
        if quantized := _quantization(input_type):
            image = quantized.quantize(image, input_type["dtype"])
        for name, row in runner(**{INPUT: image}).items():
            if quantized := _quantization(output_types[name]):
                row = quantized.dequantize(row)
            rows[name].append(row.astype(np.float32))
    return {name: np.concatenate(found) for name, found in rows.items()}


def _quantization(details) -> Quantization | None:
    """Returns the quantization of a tensor, None for float32."""
    if details["dtype"] == np.float32:
        return None
    scale, zero_point = details["quantization"]
    return Quantization(np.array([scale], np.float32), zero_point)
