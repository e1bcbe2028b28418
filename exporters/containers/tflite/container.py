"""TFLite files, in float32, with float16 or int8 weights, or quantized.

And the one that was published, which holds another classifier (`versions`).

Each is written from the list of layers straight into a flatbuffer. TensorFlow's
converter makes the same operators of this network, and takes far more time and memory
(`make bench`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from exporters.artifact import OpenedArtifact, Output, Sections, first_line
from exporters.build import Build
from exporters.containers.tflite import reader, sections, support_metadata, writer
from exporters.containers.tflite.sections import quantization_of
from exporters.containers.tflite.versions import FORMAT, AuxiliaryClassifier
from exporters.containers.tflite.writer import INPUT
from exporters.engines import LITERT, OPENVINO, OpenVino, cores
from exporters.errors import ArtifactError, ExportError
from exporters.network import folding, layers
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.network.layers import Conv, Network
from exporters.network.quantization import Precision
from exporters.network.tasks import AUXILIARY_CLASSIFICATION, TASKS, Task
from exporters.record import Record

_OUTPUT_DESCRIPTION = {
    "feature_vector": "1536 features.",
    "logits": "Logits of {} classes{}.",
    "probabilities": "Probabilities of {} classes{}.",
}
_PUBLISHED_INPUT = "input"
"""Name of the input's tensor in the published file."""


def write(
    build: Build,
    variant: Precision | AuxiliaryClassifier,
    task: Task,
    record: Record,
    path: Path,
) -> None:
    """Writes a TFLite file, of the network or of its auxiliary classifier.

    Args:
      build: checkpoint, options, and images to calibrate with.
      variant: in what numbers, or the published file.
      task: what for.
      record: what the file says about itself.
      path: the file to write.

    Raises:
      ExportError: no image size, no calibration images, no auxiliary head, or a weight
        too large for float16.
    """
    if isinstance(variant, AuxiliaryClassifier):
        content = _auxiliary(build, variant, record)
    else:
        content = _network(build, variant, task, record)
    path.write_bytes(content)
    if task.needs_classifier and build.labels:
        support_metadata.append_labels(path, build.labels)
    reader.seal(path)


def _network(
    build: Build, precision: Precision, task: Task, record: Record
) -> memoryview:
    """Returns the file of the network itself, without names of classes.

    Its input is "images", [batch, height, width, 3], float32 in [0, 1]; a batch of one
    unless the consumer resizes it. Its output is "feature_vector" [batch, 1536],
    "logits" [batch, classes], or with `options.softmax` "probabilities". Where all is
    quantized, both are integers if `options.integer_type` says so. With
    `options.signed_input`, images are in [-1, 1], as the published file has them.
    """
    options = build.options
    size, input_range = options.image_size, options.input_range
    if size is None:
        raise ExportError("TFLite needs an image size")
    output, endpoint = task.output, task.endpoint
    if task.needs_classifier and options.softmax:
        output, endpoint = "probabilities", "Predictions"
    is_quantized = precision.activations == "int8"
    outer_type = options.integer_type if is_quantized else "float32"
    description = _description(record)
    support = support_metadata.build(
        description=description,
        image_size=size,
        normalization=(127.5, 127.5) if options.signed_input else (0.0, 255.0),
        input_range=_outer_range(outer_type, input_range),
        output_name=output,
        output_description=_output_description(output, build),
        output_range=(
            _outer_range(outer_type, (0.0, 1.0)) if output == "probabilities" else None
        ),
        has_labels=bool(task.needs_classifier and build.labels),
    )
    return writer.write(
        build.network.up_to([endpoint]),
        build.weights(input_range),
        size,
        precision,
        {output: build.network.endpoints[endpoint]},
        description=description,
        metadata=_metadata(support, record),
        quantized=build.quantized(precision, input_range) if is_quantized else None,
        outer_type=outer_type,
    )


def _auxiliary(
    build: Build, variant: AuxiliaryClassifier, record: Record
) -> memoryview:
    """Returns the published file, without names of classes.

    Its tensors are `input`, [1, 299, 299, 3], float32 in [-1, 1], and
    `InceptionResnetV2/AuxLogits/Logits/BiasAdd`, [1, classes]. In its metadata they are
    called "image" and "probability", although they are logits: these are the names that
    the Task Library's own tools give.
    """
    checkpoint = build.checkpoint
    if not checkpoint.has_auxiliary_head:
        raise ExportError(
            f"{checkpoint.path} has no auxiliary head that fits, which the published "
            "TFLite file is made of. Our own TFLite formats need none."
        )
    size, input_range = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE), (-1.0, 1.0)
    whole = layers.inception_resnet_v2(checkpoint.num_classes, auxiliary_head=True)
    endpoint = AUXILIARY_CLASSIFICATION.endpoint
    network = _with_input(whole.up_to([endpoint]), _PUBLISHED_INPUT)
    description = _description(record)
    support = support_metadata.build(
        description=description,
        image_size=size,
        normalization=(127.5, 127.5),
        input_range=input_range,
        input_name="image",
        output_name="probability",
        output_description=_output_description("logits", build),
        output_range=None,
        has_labels=bool(build.labels),
    )
    return writer.write(
        network,
        folding.fold(network, checkpoint, input_range),
        size,
        variant.precision,
        {"logits": network.endpoints[endpoint]},
        description=description,
        metadata=_metadata(support, record),
    )


def _with_input(network: Network, name: str) -> Network:
    """Returns a network whose images have another name."""
    renamed = tuple(
        dataclasses.replace(layer, input=name)
        if isinstance(layer, Conv) and layer.input == network.input
        else layer
        for layer in network.layers
    )
    return Network(name, renamed, network.endpoints)


def _metadata(support: bytes, record: Record) -> dict[str, bytes]:
    return {
        support_metadata.METADATA: support,
        reader.RECORD: record.to_text().encode(),
        reader.SEAL: reader.UNSEALED,
    }


def _output_description(output: str, build: Build) -> str:
    num_classes = build.checkpoint.num_classes
    first = "; the first is background" if num_classes == layers.NUM_CLASSES else ""
    return _OUTPUT_DESCRIPTION[output].format(num_classes, first)


def _outer_range(
    outer_type: str, float_range: tuple[float, float]
) -> tuple[float, float]:
    if outer_type == "float32":
        return float_range
    limits = np.iinfo(outer_type)
    return limits.min, limits.max


def open(path: Path, engine: str = LITERT.name) -> OpenedArtifact:
    """Opens a TFLite file that `write` made.

    Args:
      path: the file.
      engine: what runs it, LiteRT or "openvino".

    Raises:
      ArtifactError: the file is no TFLite file, none of this toolkit's, or damaged; or
        the engine cannot read it.
    """
    file = reader.read(path)
    record = file.record
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=cores())
        runner = interpreter.get_signature_runner()
        _, height, width, _ = runner.get_input_details()[INPUT]["shape"]
    except (LookupError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"TFLite's interpreter cannot read {path}: {first_line(error)}"
        ) from error
    task = TASKS[record.task]
    is_auxiliary = record.format == FORMAT
    if is_auxiliary:
        task = AUXILIARY_CLASSIFICATION
    is_signed = is_auxiliary or bool(record.options.get("signed_input"))
    # A file of irv2 0.1 does not say whether it gives probabilities.
    has_softmax = record.options.get(
        "softmax", "probabilities" in runner.get_output_details()
    )
    output = "probabilities" if has_softmax and task.needs_classifier else task.output
    details = runner.get_output_details().get(output)
    rounded = quantization_of(details) if details else None
    step = float(rounded.scale[0]) if rounded else 0.0

    openvino = OpenVino(path) if engine == OPENVINO.name else None

    def in_range(images: np.ndarray) -> np.ndarray:
        return images * 2 - 1 if is_signed else images

    def cut(layers: Sequence[str]) -> Sections:
        return sections.cut(
            path, layers, lambda images: _to_input(runner, in_range(images)), cores()
        )

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        images = in_range(images)
        if openvino:
            return _run_at_once(openvino, runner, images)
        try:
            return _run(runner, images)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(
                f"{path} cannot be run on images of the shape {list(images.shape)}. It "
                f"was changed, or its numbers are beyond the runtime. TFLite's "
                f"interpreter says: {first_line(error)}"
            ) from error

    return OpenedArtifact(
        format=record.format,
        task=task,
        record=record,
        image_size=(int(height), int(width)),
        outputs={output: Output(task.endpoint if is_auxiliary else output, step=step)},
        run=run,
        weights=file.weights,
        activations=file.activations,
        windows=file.windows,
        labels=lambda: support_metadata.read_labels(path),
        input_range=(-1.0, 1.0) if is_signed else (0.0, 1.0),
        is_folded=True,
        sections=cut,
    )


def _description(record: Record) -> str:
    stand_in = "STAND-IN: its weights are generated and classify nothing. "
    return (
        f"Inception-ResNet-v2, {record.task}, {record.format}. "
        f"{stand_in if record.stand_in else ''}"
        f"Checkpoint {record.checkpoint_identity} ({record.provenance})."
    )


def _run(runner: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Runs images one by one."""
    rows: dict[str, list[np.ndarray]] = {}
    for image in images:
        given = _to_input(runner, image[np.newaxis])
        for name, row in runner(**{INPUT: given}).items():
            rows.setdefault(name, []).append(_of_output(runner, name, row))
    return {name: np.concatenate(found) for name, found in rows.items()}


def _run_at_once(
    openvino: OpenVino, runner: Any, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Runs a batch with OpenVINO; the file has one output."""
    (name,) = runner.get_output_details()
    (found,) = openvino(_to_input(runner, images))
    return {name: _of_output(runner, name, found)}


def _to_input(runner: Any, images: np.ndarray) -> np.ndarray:
    """Returns images as the file takes them: quantized, where it has integers."""
    details = runner.get_input_details()[INPUT]
    images = images.astype(np.float32)
    quantized = quantization_of(details)
    return quantized.quantize(images, details["dtype"]) if quantized else images


def _of_output(runner: Any, name: str, values: np.ndarray) -> np.ndarray:
    """Returns what an output says, as float32."""
    quantized = quantization_of(runner.get_output_details()[name])
    return (quantized.dequantize(values) if quantized else values).astype(np.float32)
