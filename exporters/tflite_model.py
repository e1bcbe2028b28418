"""TFLite files, in float32, with float16 or int8 weights, or quantized throughout.

Each is written from the inference graph straight into a flatbuffer. TensorFlow's
converter makes the same operators of this network, and takes far more time and memory
(`make bench`).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from checkpoints.layout import variable_shapes
from exporters import inference_graph, tflite_file, tflite_metadata, tflite_writer
from exporters import tflite_network as networks
from exporters import tflite_quantization as quantization
from exporters.artifact import (
    ArtifactError,
    ExportError,
    ExportInputs,
    OpenedArtifact,
    first_line,
)
from exporters.graphs import CLASSIFICATION
from exporters.labels import labels
from exporters.tflite_writer import FLOAT32, INPUT, INT8

_PREDICTIONS = "InceptionResnetV2/Predictions"
_LAST_OPERATOR = {
    "feature_vector": "MEAN",
    "logits": "FULLY_CONNECTED",
    "probabilities": "SOFTMAX",
}
_OUTPUT_DESCRIPTION = {
    "feature_vector": "1536 features.",
    "logits": "Logits of 1001 classes; the first is background.",
    "probabilities": "Probabilities of 1001 classes; the first is background.",
}
_ROUNDING = 1.0001
"""Half a step, and what float32 arithmetic on it may add."""


def write(inputs: ExportInputs, format: str, task: str, path: Path) -> None:
    """Writes a TFLite file.

    Its input is "images", [batch, height, width, 3], float32 in [0, 1]; a batch of one
    unless the consumer resizes it. Its output is "feature_vector" [batch, 1536],
    "logits" [batch, 1001], or with `options.softmax` "probabilities" [batch, 1001].
    tflite-int8 has them as integers if `options.integer_type` says so. With
    `options.signed_input`, images are in [-1, 1], as the published
    tensorflow/inception_resnet_v2/1 had them.

    Args:
      inputs: checkpoint, options, and images for tflite-int8.
      format: one of the four formats' names.
      task: "feature_vector" or "classification".
      path: the file to write.

    Raises:
      ExportError: no image size, calibration images of another, or a weight too large
        for float16.
    """
    signed = inputs.options.signed_input
    output = "feature_vector"
    if task == CLASSIFICATION:
        output = "probabilities" if inputs.options.softmax else "logits"
    network = _network(inputs).up_to(_LAST_OPERATOR[output])
    statistics = _statistics(inputs) if format == INT8 else None
    if signed:
        network = network.with_signed_input()
        statistics = statistics and statistics.with_signed_input(network.images)
    outer_type = inputs.options.integer_type if format == INT8 else "float32"
    record = tflite_file.make_record(
        inputs.checkpoint, format, task, signed_input=signed
    )
    description = _description(inputs, format, task)
    input_range, output_range = (-1.0 if signed else 0.0, 1.0), (0.0, 1.0)
    if outer_type != "float32":
        limits = np.iinfo(outer_type)
        input_range = output_range = (limits.min, limits.max)
    metadata = {
        tflite_metadata.METADATA: tflite_metadata.build(
            description=description,
            image_size=network.image_size,
            normalization=(127.5, 127.5) if signed else (0.0, 255.0),
            input_range=input_range,
            output_name=output,
            output_description=_OUTPUT_DESCRIPTION[output],
            output_range=output_range if output == "probabilities" else None,
            has_labels=task == CLASSIFICATION,
        ),
        tflite_file.RECORD: record.to_json(),
    }
    path.write_bytes(
        tflite_writer.write(
            network,
            format,
            {output: network.layers[-1].name},
            description=description,
            metadata=metadata,
            statistics=statistics,
            outer_type=outer_type,
        )
    )
    if task == CLASSIFICATION:
        tflite_metadata.append_labels(path, labels())
    tflite_file.seal(path)


def open(path: Path) -> OpenedArtifact:
    """Opens a TFLite file that `write` made.

    Raises:
      ArtifactError: the file is no TFLite file, none of this toolkit's, or damaged.
    """
    from ai_edge_litert.interpreter import Interpreter

    record = tflite_file.read_record(path)
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
        runner = interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"TFLite's interpreter cannot read {path}: {first_line(error)}"
        ) from error
    _, height, width, _ = runner.get_input_details()[INPUT]["shape"]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        if record.signed_input:
            images = images * 2 - 1
        return _run(runner, images)

    return OpenedArtifact(
        format=record.format,
        task=record.task,
        checkpoint_identity=record.checkpoint_identity,
        is_stand_in=record.stand_in,
        image_size=(int(height), int(width)),
        run=run,
        weights=lambda: _weights(path, record),
        is_folded=True,
    )


def _network(inputs: ExportInputs) -> networks.Network:
    """Returns the whole network, made once for all formats and tasks."""
    size = inputs.options.image_size
    if size is None:
        raise ExportError("TFLite needs an image size")
    key = f"tflite network {size}"
    if key not in inputs.shared:
        graph = inference_graph.build(
            inputs.graphs.get(), inputs.checkpoint, CLASSIFICATION, (_PREDICTIONS,)
        )
        inputs.shared[key] = networks.from_inference_graph(graph, size)
    return inputs.shared[key]


def _statistics(inputs: ExportInputs) -> quantization.Statistics:
    """Returns the activations' statistics, measured once for both tasks."""
    network = _network(inputs)
    images = inputs.calibration.images
    if images.shape[1:] != (*network.image_size, 3) or not len(images):
        raise ExportError(
            f"calibration images have the shape {list(images.shape)}; expected "
            f"[at least 1, {', '.join(map(str, network.image_size))}, 3]."
        )
    key = f"tflite statistics {network.image_size}"
    if key not in inputs.shared:
        everything = {layer.name: layer.name for layer in network.layers}
        model = bytes(tflite_writer.write(network, FLOAT32, everything))
        inputs.shared[key] = quantization.measure(model, network, images)
    return inputs.shared[key]


def _description(inputs: ExportInputs, format: str, task: str) -> str:
    checkpoint = inputs.checkpoint
    stand_in = "STAND-IN: its weights are generated and classify nothing. "
    return (
        f"Inception-ResNet-v2, {task}, {format}. "
        f"{stand_in if checkpoint.is_stand_in else ''}"
        f"Checkpoint {checkpoint.identity} ({checkpoint.provenance.value})."
    )


def _run(runner, images: np.ndarray) -> dict[str, np.ndarray]:
    """Runs images one by one, with quantization where the file has integers."""
    input_type = runner.get_input_details()[INPUT]
    (output,) = runner.get_output_details()
    output_type = runner.get_output_details()[output]
    rows = []
    for image in images:
        image = image[np.newaxis].astype(np.float32)
        if quantized := _quantization(input_type):
            image = quantized.quantize(image, input_type["dtype"])
        rows.append(runner(**{INPUT: image})[output])
    result = np.concatenate(rows)
    if quantized := _quantization(output_type):
        result = quantized.dequantize(result)
    return {output: result.astype(np.float32)}


def _quantization(details) -> quantization.Quantization | None:
    """Returns the quantization of a tensor, None for float32."""
    if details["dtype"] == np.float32:
        return None
    scale, zero_point = details["quantization"]
    return quantization.Quantization(np.array([scale]), zero_point)


def _weights(
    path: Path, record: tflite_file.Record
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns name -> (folded weight of the checkpoint, allowed error)."""
    stored, shifts = tflite_file.read_weights(path)
    weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, weight in stored.items():
        values, half_step = weight.to_float()
        allowed = half_step * _ROUNDING
        if name.endswith("/weights"):
            rank = len(variable_shapes()[name])
            values = networks.kernel_from_tflite(values, rank)
            allowed = networks.kernel_from_tflite(allowed, rank)
            if record.signed_input and not weights:  # The first kernel was halved.
                values, allowed = values * 2, allowed * 2
        elif shifts:
            rounding = 2 * np.spacing(np.float32(np.abs(values) + np.abs(shifts[name])))
            values, allowed = values + shifts[name], allowed + rounding
        weights[name] = values, allowed
    return weights
