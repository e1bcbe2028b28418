"""ONNX files: float32, float16 and int8, for ONNX Runtime and its like.

Input `images` is float32 [batch, height, width, 3] in [0, 1], or [batch, 3, height,
width] on request; outputs are `feature_vector` [batch, 1536] or `logits` [batch,
classes], and on request the endpoints, as `InceptionResnetV2/<endpoint>` in NHWC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import external_data_helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from exporters import float16, windows
from exporters import record as records
from exporters.artifact import OpenedArtifact, Output, StoredWeight, first_line
from exporters.build import SYMMETRIC, Build
from exporters.containers.onnx import nodes, quantization, sections, serialization
from exporters.containers.onnx.nodes import INPUT, OnnxGraph
from exporters.engines import ONNX_RUNTIME, OPENVINO, OpenVino, onnx_session
from exporters.errors import ArtifactError, ForeignFileError
from exporters.network.layers import transpose
from exporters.network.quantization import UINT8_ZERO, Precision, Quantization
from exporters.network.tasks import TASKS, Task
from exporters.record import Record
from exporters.windows import Window

RECORD = "irv2"
"""Key of the metadata that holds the record."""

_WEIGHTS = ("/weights", "/biases")
_DAMAGE = (
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidProtobuf,
    runtime_errors.NoModel,
    runtime_errors.NoSuchFile,
    runtime_errors.NotImplemented,
    UnicodeDecodeError,  # Of its own messages, which repeat what is in the file.
)
"""What ONNX Runtime raises for files that it cannot use, and for nothing else."""
_WINDOWED = ("Conv", "MaxPool", "AveragePool")
_DEFAULTS = {
    "auto_pad": b"NOTSET",
    "ceil_mode": 0,
    "count_include_pad": 0,
    "dilations": [1, 1],
    "group": 1,
    "storage_order": 0,
}
"""Of what else these can say."""


def write(
    build: Build, precision: Precision, task: Task, record: Record, path: Path
) -> None:
    """Writes an ONNX file.

    Args:
      build: checkpoint; options `image_size`, `nchw` and `endpoints`; images to
        calibrate int8 with.
      precision: in what numbers.
      task: what for.
      record: what the file says about itself.
      path: the file to write.

    Raises:
      ExportError: there are no images to calibrate with, or float16 is too small.
    """
    options = build.options
    outputs = {task.output: task.endpoint}
    if options.endpoints:
        outputs |= task.published
    graph = nodes.select(build.once(_graph), outputs)
    if precision.activations == "float16":
        float16.check_activations(build.statistics.ranges)
        graph = nodes.to_float16(graph, precision.float_layers(build.network))
    elif precision.activations == "int8":
        quantized = build.quantized(precision)
        graph = quantization.quantize(
            graph,
            quantized.activations,
            quantized.weights,
            precision.float_layers(build.network),
            is_symmetric=precision.is_symmetric,
        )
    height, width = options.image_size or ("height", "width")
    image = (3, height, width) if options.nchw else (height, width, 3)
    serialization.write(
        graph,
        path,
        image_shape=("batch", *image),
        metadata=_metadata(build, precision, task, record),
    )


def _graph(build: Build) -> OnnxGraph:
    """Converts the whole network, for all formats and tasks."""
    return nodes.convert(build.network, build.weights(), nchw=build.options.nchw)


def _metadata(
    build: Build, precision: Precision, task: Task, record: Record
) -> dict[str, str]:
    layout = "NCHW" if build.options.nchw else "NHWC"
    metadata = {
        RECORD: record.to_text(),
        "network": "Inception-ResNet-v2 of TF-Slim, https://arxiv.org/abs/1602.07261",
        "stand_in": str(record.stand_in).lower(),
        "input": f"{INPUT}: float32 {layout}, RGB in [0, 1]",
    }
    if precision.activations == "int8" and build.calibration:
        metadata["calibration"] = build.calibration.description
    if task.needs_classifier and build.labels:
        metadata["labels"] = "\n".join(build.labels)
    return metadata


def open(path: Path, engine: str = ONNX_RUNTIME.name) -> OpenedArtifact:
    """Opens an ONNX file that `write` made, with ONNX Runtime on the CPU.

    Args:
      path: the file.
      engine: what runs it, ONNX Runtime or "openvino".

    Raises:
      ArtifactError: the file is no ONNX file, damaged, or not of this toolkit; or the
        engine cannot read it.
    """
    try:
        session = onnx_session(path)
    except _DAMAGE as error:
        raise ArtifactError(
            f"ONNX Runtime {onnxruntime.__version__} cannot open {path}. Expected an "
            f"ONNX file exported by irv2. It says: {first_line(error)}"
        ) from error
    except runtime_errors.RuntimeException:
        _arrays(path)  # Raises if they lie in other files, which may be missing.
        raise
    record = _read_record(path, session)
    task = TASKS[record.task]
    nchw = bool(record.options.get("nchw"))
    inputs = {each.name: each.shape for each in session.get_inputs()}
    if list(inputs) != [INPUT] or len(inputs[INPUT]) != 4:
        found = ", ".join(f"{name} {shape}" for name, shape in inputs.items())
        raise ArtifactError(
            f"{path} has the input {found or 'of no name'}, expected {INPUT} with four "
            "dimensions. It was changed: export it again."
        )
    _, *image = inputs[INPUT]
    height, width = image[1:] if nchw else image[:2]
    is_fixed = isinstance(height, int)
    outputs = {task.output: Output(task.output)}
    if record.options.get("endpoints"):
        outputs |= {name: Output(value) for name, value in task.published.items()}
    names = [output.name for output in session.get_outputs()]
    openvino = OpenVino(path) if engine == OPENVINO.name else None

    def as_input(images: np.ndarray) -> np.ndarray:
        if nchw:
            images = images.transpose(nodes.TO_NCHW)
        return np.ascontiguousarray(images, np.float32)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        images = as_input(images)
        if openvino:
            return dict(zip(names, openvino(images)))
        try:
            return dict(zip(names, session.run(names, {INPUT: images})))
        except _DAMAGE as error:
            raise ArtifactError(
                f"{path} cannot be run on images of the shape {list(images.shape)}; it "
                f"was changed. ONNX Runtime says: {first_line(error)}"
            ) from error

    return OpenedArtifact(
        format=record.format,
        task=task,
        record=record,
        image_size=(height, width) if is_fixed else None,
        outputs=outputs,
        run=run,
        weights=lambda: dict(_weights(path)),
        activations=lambda: dict(_activations(path)),
        windows=lambda: dict(_windows(path)),
        labels=lambda: _labels(session),
        check=lambda: _type_problems(path, record),
        is_folded=True,
        sections=lambda layers: sections.cut(path, layers, as_input),
    )


def _labels(session: onnxruntime.InferenceSession) -> list[str]:
    text: str = session.get_modelmeta().custom_metadata_map.get("labels", "")
    return text.split("\n") if text else []


def _read_record(path: Path, session: onnxruntime.InferenceSession) -> Record:
    """Reads the record, or that of version 1, which lay in keys of its own."""
    model = session.get_modelmeta()
    metadata = model.custom_metadata_map
    if RECORD in metadata:
        return records.parse(metadata[RECORD], str(path))
    if metadata.get("tool") != "irv2":
        raise ForeignFileError(
            f"{path} is an ONNX file by {model.producer_name!r} with metadata "
            f"{', '.join(sorted(metadata)) or 'of no kind'}. Expected one exported by "
            "irv2."
        )
    facts: dict[str, Any] = {
        name: metadata.get(name)
        for name in ("format", "task", "checkpoint_identity", "provenance")
    }
    facts["stand_in"] = {"true": True, "false": False}.get(metadata.get("stand_in", ""))
    options = {
        "nchw": metadata.get("input_layout") == "NCHW",
        "endpoints": len(session.get_outputs()) > 1,
    }
    return records.of_facts(facts | {"options": options}, str(path))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads all initializers."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    if any(map(external_data_helper.uses_external_data, tensors)):
        raise ArtifactError(
            f"{path} has weights in other files. It was changed by another tool: "
            "export it again."
        )
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}


def _weights(path: Path) -> Iterator[tuple[str, StoredWeight]]:
    """Reads all weights, in TensorFlow's layout."""
    arrays = _arrays(path)
    for name, values in arrays.items():
        if name.endswith(_WEIGHTS):
            if values.ndim == 4:
                values = transpose(values, "OIHW", "HWIO")
            yield name, StoredWeight(values, _quantization(path, name, arrays))


def _activations(path: Path) -> Iterator[tuple[str, Quantization]]:
    """Reads how activations are rounded."""
    arrays = _arrays(path)
    for value in _rounded(arrays):
        found = _quantization(path, value, arrays)
        assert found is not None
        yield value, found


def _windows(path: Path) -> Iterator[tuple[str, Window]]:
    """Reads how convolutions and pools move."""
    for node in onnx.load(path, load_external_data=False).graph.node:
        if node.op_type in _WINDOWED:
            found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            size = tuple(found.pop("kernel_shape", (0, 0)))
            strides = tuple(found.pop("strides", (1, 1)))
            pads = tuple(found.pop("pads", (0, 0, 0, 0)))
            others = [
                f"{name} {value}"
                for name, value in found.items()
                if value != _DEFAULTS.get(name)
            ]
            yield (
                windows.key(node.output[0]),
                Window(size, strides, pads, tuple(others)),
            )


def _rounded(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """The names of the activations that are rounded."""
    for name in arrays:
        value, _, kind = name.rpartition("/")
        if kind == "zero_point" and not value.endswith(_WEIGHTS):
            yield value


def _type_problems(path: Path, record: Record) -> list[str]:
    """Activations in integers of another type than the file says that it has."""
    is_symmetric = record.options.get("int8_activations") == SYMMETRIC
    expected = np.dtype(np.int8 if is_symmetric else np.uint8)
    arrays = _arrays(path)
    return [
        f"activation {value}: in {arrays[f'{value}/zero_point'].dtype}, expected "
        f"{expected}"
        for value in _rounded(arrays)
        if arrays[f"{value}/zero_point"].dtype != expected
    ]


def _quantization(
    path: Path, name: str, arrays: Mapping[str, np.ndarray]
) -> Quantization | None:
    """Returns what the integers of a value or weight stand for."""
    scale, zero_point = arrays.get(f"{name}/scale"), arrays.get(f"{name}/zero_point")
    if scale is None and zero_point is None:
        return None
    if scale is None or zero_point is None or len(np.unique(zero_point)) != 1:
        raise ArtifactError(
            f"{path} has no scale or no zero point, or several, for {name}. It was "
            "changed: export it again."
        )
    zero = int(zero_point.flat[0])
    if zero_point.dtype == np.uint8:
        zero -= UINT8_ZERO
    return Quantization(scale.reshape(-1), zero)
