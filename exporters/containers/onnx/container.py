"""The ONNX formats: float32, float16 and int8, for ONNX Runtime and its like.

Input `images` is float32 [batch, height, width, 3] in [0, 1], or [batch, 3, height,
width] on request; outputs are `feature_vector` [batch, 1536] or `logits` [batch, 1001],
and on request the endpoints, as `InceptionResnetV2/<endpoint>` in NHWC.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from exporters.artifact import (
    ArtifactError,
    ExportError,
    ExportInputs,
    OpenedArtifact,
    first_line,
)
from exporters.containers.onnx import nodes, quantization, serialization
from exporters.containers.onnx.nodes import INPUT, OnnxGraph
from exporters.labels import labels
from exporters.network import folding, layers
from exporters.network.graphs import CLASSIFICATION, ENDPOINTS, FEATURE_VECTOR

FLOAT32, FLOAT16, INT8 = FORMATS = ("onnx-float32", "onnx-float16", "onnx-int8")

_OUTPUTS = {
    FEATURE_VECTOR: ("feature_vector", "PreLogitsFlatten"),
    CLASSIFICATION: ("logits", "Logits"),
}
"""Task -> name of its output, and the endpoint that this is."""

_HALF_STEP = 0.5001
"""Error allowed to rounded weights, in steps: half of one, and what float32 adds."""


def write(inputs: ExportInputs, format_name: str, task: str, path: Path) -> None:
    """Writes an ONNX file.

    Args:
      inputs: checkpoint; options `image_size`, `nchw` and `endpoints`; images to
        calibrate onnx-int8 with.
      format_name: one of `FORMATS`.
      task: "feature_vector" or "classification".
      path: the file to write.

    Raises:
      ExportError: there are no images to calibrate with.
    """
    options = inputs.options
    height, width = options.image_size or ("height", "width")
    output, endpoint = _OUTPUTS[task]
    outputs = {output: endpoint}
    if options.endpoints:
        outputs |= {f"InceptionResnetV2/{name}": name for name in ENDPOINTS[task]}
    graph = nodes.select(_network(inputs), outputs)
    if format_name == FLOAT16:
        graph = nodes.to_float16(graph)
    elif format_name == INT8:
        graph = quantization.quantize(graph, _ranges(inputs, graph))
    image = (3, height, width) if options.nchw else (height, width, 3)
    serialization.write(
        graph,
        path,
        image_shape=("batch", *image),
        metadata=_metadata(inputs, format_name, task),
    )


def _network(inputs: ExportInputs) -> OnnxGraph:
    """Converts the network with all endpoints, once for all formats and tasks."""
    key = f"onnx/{inputs.options.nchw}"
    if key not in inputs.shared:
        network = layers.inception_resnet_v2()
        weights = folding.fold(network, inputs.checkpoint)
        inputs.shared[key] = nodes.convert(network, weights, nchw=inputs.options.nchw)
    return inputs.shared[key]


def _ranges(inputs: ExportInputs, graph: OnnxGraph) -> dict[str, tuple[float, float]]:
    """Measures the ranges of activations, which are the same for both tasks."""
    images = inputs.calibration.images
    if not len(images):
        raise ExportError(
            "no calibration images: int8 takes the ranges of activations from them, "
            "and needs at least one"
        )
    if "onnx/ranges" not in inputs.shared:
        inputs.shared["onnx/ranges"] = quantization.measure_ranges(
            graph, _in_layout(images, inputs.options.nchw)
        )
    return inputs.shared["onnx/ranges"]


def _in_layout(images: np.ndarray, nchw: bool) -> np.ndarray:
    images = images.transpose(nodes.TO_NCHW) if nchw else images
    return np.ascontiguousarray(images, np.float32)


def _metadata(inputs: ExportInputs, format_name: str, task: str) -> dict[str, str]:
    checkpoint = inputs.checkpoint
    layout = "NCHW" if inputs.options.nchw else "NHWC"
    metadata = {
        "tool": "irv2",
        "format": format_name,
        "task": task,
        "network": "Inception-ResNet-v2 of TF-Slim, https://arxiv.org/abs/1602.07261",
        "checkpoint_identity": checkpoint.identity,
        "provenance": checkpoint.provenance.value,
        "stand_in": str(checkpoint.is_stand_in).lower(),
        "input_layout": layout,
        "input": f"{INPUT}: float32 {layout}, RGB in [0, 1]",
    }
    if format_name == INT8:
        metadata["calibration"] = inputs.calibration.description
    if task == CLASSIFICATION:
        metadata["labels"] = "\n".join(labels())
    return metadata


def open(path: Path) -> OpenedArtifact:
    """Opens an ONNX file that `write` made, with ONNX Runtime on the CPU.

    Raises:
      ArtifactError: the file is no ONNX file, damaged, or not of this toolkit.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base.
        raise ArtifactError(
            f"{path} is not an ONNX file, or a damaged one. Expected a file exported "
            f"by irv2. ONNX Runtime says: {first_line(error)}"
        ) from error
    metadata = session.get_modelmeta().custom_metadata_map
    if metadata.get("format") not in FORMATS or metadata.get("task") not in _OUTPUTS:
        raise ArtifactError(
            f"{path} is an ONNX file by {session.get_modelmeta().producer_name!r} with "
            f"metadata {', '.join(sorted(metadata)) or 'of no kind'}. Expected one "
            f"exported by irv2: its metadata name a task and the format, one of "
            f"{', '.join(FORMATS)}."
        )
    nchw = metadata.get("input_layout") == "NCHW"
    _, *image = session.get_inputs()[0].shape
    height, width = image[1:] if nchw else image[:2]
    names = [output.name for output in session.get_outputs()]
    is_fixed = isinstance(height, int)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        feed = {INPUT: _in_layout(images, nchw)}
        try:
            return dict(zip(names, session.run(names, feed)))
        except Exception as error:  # As above.
            raise ArtifactError(
                f"{path} cannot be run on images of the shape {list(images.shape)}; it "
                f"was changed. ONNX Runtime says: {first_line(error)}"
            ) from error

    return OpenedArtifact(
        format=metadata["format"],
        task=metadata["task"],
        checkpoint_identity=metadata.get("checkpoint_identity"),
        is_stand_in={"true": True, "false": False}.get(metadata.get("stand_in", "")),
        image_size=(height, width) if is_fixed else None,
        run=run,
        weights=lambda: _weights(path),
        is_folded=True,
    )


def _weights(path: Path) -> dict[str, tuple[np.ndarray, Any]]:
    """Reads all weights, in TensorFlow's layout, and how far rounding may move each."""
    import onnx
    from onnx import numpy_helper

    arrays = {}
    for tensor in onnx.load(path).graph.initializer:
        array = numpy_helper.to_array(tensor)
        is_kernel = array.ndim == 4
        arrays[tensor.name] = (
            layers.transpose(array, "OIHW", "HWIO") if is_kernel else array
        )
    try:
        return {
            name: _dequantized(name, arrays)
            for name in arrays
            if name.endswith(("/weights", "/biases"))
        }
    except KeyError as error:
        raise ArtifactError(
            f"{path} has a quantized weight without its {error}; the file was changed. "
            "Export it again."
        ) from error


def _dequantized(
    name: str, arrays: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray | float]:
    array = arrays[name]
    if array.dtype == np.float16:
        return array.astype(np.float32), np.spacing(np.abs(array)).astype(
            np.float32
        ) / 2
    if array.dtype == np.float32:
        return array, 0.0
    scale, zero_point = arrays[f"{name}/scale"], arrays[f"{name}/zero_point"]
    return (array - zero_point) * scale, scale * _HALF_STEP
