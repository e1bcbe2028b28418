"""TF.js graph models, as published: a directory with model.json and files of weights.

Each is written from the list of layers. It holds what the converter of TF.js made of a
`hub.Module`: the signature "default" from `images`, float32 [batch, height, width, 3] in
[0, 1], to the feature vector [batch, 1536], or logits [batch, classes]. A page that shows
what the model does, index.html, lies beside.
"""

from __future__ import annotations

import importlib.resources
import json
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import files
from exporters import record as records
from exporters.artifact import OpenedArtifact, Output, StoredWeight, first_line
from exporters.build import Build
from exporters.containers.tfjs import graph, weights
from exporters.containers.tfjs.graph import Graph
from exporters.containers.tfjs.session import GraphSession
from exporters.containers.tfjs.versions import V1, ModelVersion
from exporters.containers.tfjs.weights import Entry, problem
from exporters.errors import ArtifactError, ForeignFileError
from exporters.labels import as_labels
from exporters.network import layers
from exporters.network.layers import Network
from exporters.network.tasks import TASKS, Task
from exporters.record import Record

MODEL_FILE = "model.json"
"""The file whose presence makes a directory a TF.js model."""
PAGE = "index.html"

_FORMAT = "graph-model"
_BOUND = "tfjs-v1"
"""The format of models that are bound to a size of images."""
_MOST_CLASSES = 1 << 24
_METADATA = "userDefinedMetadata"
_RECORD = "irv2"
_LABELS = "labels"
_WHO = "irv2"


def write(
    build: Build, version: ModelVersion, task: Task, record: Record, path: Path
) -> None:
    """Writes a model.

    Args:
      build: checkpoint, and names of the classes.
      version: the published version to follow, and how weights are stored.
      task: what for.
      record: what the model says about itself.
      path: directory to write.

    Raises:
      ExportError: a weight is too large for float16.
    """
    network = build.network.up_to([task.endpoint])
    made = graph.build(network, version.image_size)
    metadata: dict[str, Any] = {_RECORD: record.as_dict()}
    if task.needs_classifier and build.labels:
        metadata[_LABELS] = build.labels
    entries = list(_entries(build, version, network))
    # What is small comes last: kernels and biases lie where they were published.
    entries += [
        weights.encode(name, values, "float32")
        for name, values in made.constants.items()
    ]
    path.mkdir(parents=True, exist_ok=True)
    model = {
        "format": _FORMAT,
        "generatedBy": _WHO,
        "convertedBy": _WHO,
        "signature": made.signature,
        _METADATA: metadata,
        "modelTopology": made.topology,
        "weightsManifest": weights.write(entries, path),
    }
    (path / MODEL_FILE).write_text(json.dumps(model), encoding="utf-8")
    page = importlib.resources.files(__package__) / "data" / PAGE
    (path / PAGE).write_bytes(page.read_bytes())


def _entries(build: Build, version: ModelVersion, network: Network) -> Iterator[Entry]:
    """The weights as they are stored, in the order of layers."""
    precision = version.precision
    in_float = precision.float_layers(network)
    folded = build.weights()
    for layer in network.weighted:
        kernel = "float32" if layer.name in in_float else precision.weights
        bias = "float32" if kernel == "uint8" else kernel
        name = f"{graph.WEIGHTS}{layer.scope}"
        yield weights.encode(f"{name}/weights", folded[layer.scope].kernel, kernel)
        yield weights.encode(f"{name}/biases", folded[layer.scope].bias, bias)


def open(path: Path) -> OpenedArtifact:
    """Opens a model that `write` made, and runs its graph with TensorFlow.

    Raises:
      ArtifactError: the directory holds no such model, or it is damaged.
    """
    source = str(path / MODEL_FILE)
    model = _read_model(path / MODEL_FILE)
    record = _read_record(model, source)
    task = TASKS[record.task]
    image_size = V1.image_size if record.format == _BOUND else None
    made = _checked_graph(model, record, task, image_size, source)
    stored = weights.read(path, model.get("weightsManifest"), source)
    _check_weights(stored, made, source)
    values = {name: weights.as_float32(stored[name]) for name in made.weights}
    session = GraphSession(made.topology, {**values, **made.constants}, made.output)
    return OpenedArtifact(
        format=record.format,
        task=task,
        record=record,
        image_size=image_size,
        outputs={task.output: Output(task.output)},
        run=lambda images: {task.output: session.run(images)},
        weights=lambda: {
            name.removeprefix(graph.WEIGHTS): stored[name] for name in made.weights
        },
        is_folded=True,
        labels=lambda: as_labels(model[_METADATA].get(_LABELS)),
        close=session.close,
    )


def _read_model(file: Path) -> dict[str, Any]:
    try:
        model = files.read_json(file)
    except OSError as error:
        raise ArtifactError(
            f"{file} cannot be read ({error.strerror}). Expected a TF.js graph model."
        ) from error
    except ValueError as error:
        raise problem(str(file), f"no JSON ({first_line(error)})", "some") from error
    if not isinstance(model, dict) or model.get("format") != _FORMAT:
        kind = model.get("format") if isinstance(model, dict) else model
        raise problem(str(file), f"the format {reprlib.repr(kind)}", f"{_FORMAT!r}")
    return model


def _read_record(model: dict[str, Any], source: str) -> Record:
    match model.get(_METADATA):
        case {"irv2": dict(facts)}:
            return records.of_facts(facts, source)
    raise ForeignFileError(
        f"{source} is a TF.js graph model by {reprlib.repr(model.get('generatedBy'))}, "
        "but none that irv2 made: it has no record. Expected one exported by irv2."
    )


def _checked_graph(
    model: dict[str, Any],
    record: Record,
    task: Task,
    image_size: tuple[int, int] | None,
    source: str,
) -> Graph:
    """Returns a model's graph, which is none but the one that `write` makes.

    Others could do anything, and nothing is known that tells which are sound.
    """
    classes = record.num_classes
    if classes is not None and not 0 < classes <= _MOST_CLASSES:
        raise problem(source, f"{classes} classes", "some")
    network = layers.inception_resnet_v2(classes)
    if task.endpoint not in network.endpoints:
        raise problem(source, "no classes", f"some, for {task.name}")
    made = graph.build(network.up_to([task.endpoint]), image_size)
    if model.get("modelTopology") != made.topology:
        found = _difference(model.get("modelTopology"), made.topology)
        raise problem(source, found, f"that of {record.format}, {task.name}")
    if model.get("signature") != made.signature:
        found = f"the signature {reprlib.repr(model.get('signature'))}"
        raise problem(source, found, reprlib.repr(made.signature))
    return made


def _difference(found: Any, made: Mapping[str, Any]) -> str:
    """Says where a graph differs from another, or from none."""
    match found:
        case {"node": [*nodes]}:
            for one, other in zip(nodes, made["node"]):
                if one != other:
                    return f"another graph from the node {other['name']} on"
            if len(nodes) != len(made["node"]):
                return f"a graph of {len(nodes)} nodes"
    return "another graph, or none"


def _check_weights(
    stored: Mapping[str, StoredWeight], made: Graph, source: str
) -> None:
    """Checks that weights are those of a graph."""
    shapes = {name: values.shape for name, values in made.constants.items()}
    shapes |= made.weights
    for name in sorted(shapes.keys() | stored.keys()):
        shape = stored[name].values.shape if name in stored else None
        if shape != shapes.get(name):
            raise problem(
                source,
                f"for {name} the shape {shape and list(shape)}",
                f"{list(shapes[name]) if name in shapes else None}",
            )
    for name, values in made.constants.items():
        found = stored[name].values
        if found.dtype != values.dtype or not np.array_equal(found, values):
            raise problem(source, f"another value of {name}", str(values))
