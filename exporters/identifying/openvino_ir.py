"""OpenVINO's own form of a network: .xml with the graph, .bin with the numbers.

It is read without OpenVINO, and run with it. Source of the form: OpenVINO's documentation,
"Intermediate Representation and Operation Sets".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from checkpoints.regular_file import open_regular
from exporters.artifact import first_line, reading
from exporters.engines import FLOAT32, OPENVINO, openvino_core
from exporters.errors import ArtifactError, MissingLibraryError
from exporters.identifying.contents import Contents, Node, StoredArray
from exporters.identifying.running import ForeignModel, Images, joined

_DTYPES = {
    **{"f32": "<f4", "f16": "<f2", "f64": "<f8", "i64": "<i8", "i32": "<i4"},
    **{"i16": "<i2", "u16": "<u2", "i8": "i1", "u8": "u1"},
}
_KINDS = {"multiply": "mul", "subtract": "sub", "divide": "div", "convert": "cast"}
"""What steps are called here that have another name there."""
_MOST_BYTES = 64 << 20
"""Of .xml; that of this network has 1 MB."""


def is_one(beginning: bytes) -> bool:
    """Whether a file begins as the .xml of a network does."""
    return beginning.lstrip().startswith(b"<?xml") and b"<net " in beginning


def read(path: Path) -> Contents:
    """Reads the constants of a network, and its graph.

    Args:
      path: of the .xml; the .bin of the same name lies beside it.

    Raises:
      ArtifactError: it is damaged, or the .bin is missing.
    """
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ArtifactError(f"{weights} is missing, with the numbers of {path}.")
    with open_regular(path) as file:
        text = file.read(_MOST_BYTES + 1)
    try:
        if len(text) > _MOST_BYTES or b"<!" in text:
            raise ValueError("it is too large, or defines entities")
        network = ElementTree.fromstring(text)
        with open_regular(weights) as file:
            content = file.read()
        layers = {layer.attrib["id"]: layer for layer in network.iter("layer")}
        inputs = _inputs(network)
        names = {key: f"{key}:{layer.get('name', '')}" for key, layer in layers.items()}
        nodes = [
            Node(
                _kind(layer),
                [names[source] for source in inputs.get(key, ())],
                [names[key]],
            )
            for key, layer in layers.items()
            if layer.get("type") != "Const"
        ]
        constants = {
            names[key]: values
            for key, layer in layers.items()
            if layer.get("type") == "Const"
            and (values := _values(layer, content)) is not None
        }
        arrays = list(_arrays(constants, nodes))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {first_line(error)}") from error
    return Contents("OpenVINO", arrays, nodes)


def _inputs(network: ElementTree.Element) -> dict[str, list[str]]:
    """Layer -> the layers that it reads, in their order."""
    edges: dict[str, list[tuple[int, str]]] = {}
    for edge in network.iter("edge"):
        place = int(edge.attrib["to-port"]), edge.attrib["from-layer"]
        edges.setdefault(edge.attrib["to-layer"], []).append(place)
    return {key: [name for _, name in sorted(of)] for key, of in edges.items()}


def _kind(layer: ElementTree.Element) -> str:
    kind = layer.get("type", "").lower()
    return _KINDS.get(kind, kind)


def _values(layer: ElementTree.Element, content: bytes) -> np.ndarray | None:
    data = layer.find("data")
    if data is None or data.get("element_type") not in _DTYPES:
        return None
    dtype = np.dtype(_DTYPES[data.attrib["element_type"]])
    shape = [int(size) for size in data.get("shape", "").split(",") if size.strip()]
    start, size = int(data.attrib["offset"]), int(data.attrib["size"])
    if not 0 <= start <= start + size <= len(content):
        raise ValueError(f"{layer.get('name')} is beyond the end of its .bin")
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{layer.get('name')} has {size} bytes for {shape}")
    return np.frombuffer(content[start : start + size], dtype).reshape(shape)


def _arrays(
    constants: Mapping[str, np.ndarray], nodes: list[Node]
) -> Iterator[StoredArray]:
    """The constants; integers that are converted, shifted and scaled, as what that gives."""
    readers = {name: node for node in nodes for name in node.inputs}
    for name, stored in constants.items():
        values, steps = stored.astype(np.float32), None
        node = readers.get(name)
        if np.issubdtype(stored.dtype, np.integer) and node and node.kind == "cast":
            for _ in range(2):
                node = readers.get(node.outputs[0])
                other = None
                if node and len(node.inputs) == 2:
                    other = constants.get(node.inputs[1])
                if node is None or other is None or node.kind not in ("sub", "mul"):
                    break
                by = other.astype(np.float32)
                values = values - by if node.kind == "sub" else values * by
                if node.kind == "mul":
                    steps = by
                    break
        yield StoredArray(name, values, stored.dtype.name, steps)


def run(path: Path, classes: int | None) -> ForeignModel:
    """Opens a network with OpenVINO on the CPU, in float32.

    Raises:
      MissingLibraryError: OpenVINO is not there.
      ArtifactError: OpenVINO cannot, or it takes something else than images.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingLibraryError(
            f"OpenVINO cannot be imported ({first_line(error)}); "
            f"pip install {OPENVINO.install} brings it"
        ) from error
    library = f"OpenVINO {openvino.__version__.partition('-')[0]}"
    with reading(path, "OpenVINO's form", library):
        model = openvino_core().compile_model(str(path), "CPU", FLOAT32)
    if len(model.inputs) != 1:
        raise ArtifactError(f"{path} has {len(model.inputs)} inputs; expected one.")
    (image,) = model.inputs
    images_of = Images.of_shape(
        path, [n.get_length() if n.is_static else None for n in image.partial_shape]
    )
    dtype = np.dtype(image.element_type.to_dtype())

    def call(batch: np.ndarray) -> dict[str, Any]:
        found = model([batch])
        return {f"{i}": found[i].copy() for i in range(len(model.outputs))}

    def run_on(images: np.ndarray) -> dict[str, np.ndarray]:
        with reading(path, "OpenVINO's form", library):
            return joined(map(call, images_of.batches(images, dtype)), len(images))

    return ForeignModel(library, images_of.image_size, images_of.layout, run_on)
