"""The TF1 Hub format: v1 and v3, for `hub.Module`.

tensorflow-hub dropped hub.Module and its publisher after 0.15.0, so the format is
written here. Its source is tensorflow-hub 0.2.0: native_module.py, saved_model_lib.py
and the .proto files.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import extra_assets
from exporters.artifact import (
    MOMENTUM,
    MOVED,
    TRAINED,
    OpenedArtifact,
    Output,
    StoredWeight,
    moving_averages,
    reading,
)
from exporters.build import Build
from exporters.containers.hub_module import published_graphs, signatures
from exporters.containers.hub_module.published_graphs import (
    DEFAULT,
    MOMENTUM_INPUT,
    NAMED_SIGNATURES,
    WITH_MOMENTUM,
)
from exporters.containers.hub_module.versions import V1, V3, ModuleVersion
from exporters.errors import ArtifactError
from exporters.network import computations, weight_decay
from exporters.network.computations import CannotTell
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR, Task
from exporters.record import Record

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

MODULE_FILE = "tfhub_module.pb"
"""The file whose presence makes a directory a TF1 Hub module."""

_MODULE_DEF = b"\x08\x03"
"""Content of that file: a ModuleDef with field 1, `format`, set to FORMAT_V3."""
_FEATURES = f"{NAMED_SIGNATURES[FEATURE_VECTOR]}/{DEFAULT}"
"""The features as modules of either task have them, in a signature of that name."""
_VARIABLES = Path("variables") / "variables"
_INFERENCE: tuple[str, ...] = ()
_TRAINING = ("train",)


def write(
    build: Build, version: ModuleVersion, task: Task, record: Record, path: Path
) -> None:
    """Writes a module with an inference graph and a graph tagged "train".

    Args:
      build: checkpoint and graphs.
      version: the published version to follow.
      task: what for.
      record: what the module says about itself.
      path: directory to write.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    for tags in (_INFERENCE, _TRAINING):
        graph = build.graph(is_training=tags == _TRAINING)
        saved_model.meta_graphs.append(
            published_graphs.build(graph, version, task, tags)
        )

    for name in ("assets", "variables"):
        (path / name).mkdir(parents=True, exist_ok=True)
    names = sorted(build.graph().variable_names(task))
    tf.raw_ops.SaveV2(
        prefix=str(path / _VARIABLES),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[build.checkpoint[name] for name in names],
    )
    (path / "saved_model.pb").write_bytes(
        saved_model.SerializeToString(deterministic=True)
    )
    (path / MODULE_FILE).write_bytes(_MODULE_DEF)
    extra_assets.write_record(path, record)


def open(path: Path) -> OpenedArtifact:
    """Opens a module of v1 or v3, exported here or published.

    `run` gives the outputs of the inference graph: those of the signature
    "image_feature_vector" or "image_classification", with "feature_vector" or "logits"
    for the key "default". From the training graph it gives `train/feature_vector`,
    which is normalized by the statistics of the batch, and `train/moving_averages`
    after the module's updates. `check` compares the other signatures with these.

    Raises:
      ArtifactError: `path` is no TF1 Hub module, one of another network, or damaged.
    """
    meta_graphs = _read_meta_graphs(path)
    inference = meta_graphs[_INFERENCE]
    is_classification = NAMED_SIGNATURES[CLASSIFICATION] in inference.signature_def
    task = CLASSIFICATION if is_classification else FEATURE_VECTOR
    signature = NAMED_SIGNATURES[task]
    takes_momentum = signature + WITH_MOMENTUM in inference.signature_def
    format_name = "v3" if takes_momentum else "v1"

    for meta_graph in meta_graphs.values():
        _check_signature(path, meta_graph, signature, task)
    record = extra_assets.read_record(path)
    if record and (record.format, record.task) != (format_name, task.name):
        raise ArtifactError(
            f"{path} is recorded as {record.format} of {record.task}, but its "
            f"signatures are those of {format_name} of {task.name}. Export it again."
        )

    reader = _open_variables(path)
    _check_variables(path, meta_graphs.values(), reader.get_variable_to_shape_map())

    graphs = contextlib.ExitStack()

    @functools.cache
    def load(tags: tuple[str, ...]) -> _LoadedGraph:
        return graphs.enter_context(_LoadedGraph(path, meta_graphs[tags], reader))

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        named = NAMED_SIGNATURES[FEATURE_VECTOR]
        outputs = load(_INFERENCE).run([signature, named], images)
        own = outputs[signature]
        return {
            task.output: own[DEFAULT],
            _FEATURES: outputs[named][DEFAULT],
            **{name: value for name, value in own.items() if name != DEFAULT},
        }

    def train(images: np.ndarray) -> dict[str, np.ndarray]:
        return load(_TRAINING).train(NAMED_SIGNATURES[FEATURE_VECTOR], images)

    def main_only(images: np.ndarray) -> dict[str, np.ndarray]:
        found = load(_INFERENCE).run([signature], images, [DEFAULT])
        return {task.output: found[signature][DEFAULT]}

    def computed() -> dict[str, bytes]:
        with _reading(path), contextlib.suppress(CannotTell):
            return _computations(inference, task, reader)
        return {}

    def check() -> list[str]:
        version = V3 if takes_momentum else V1
        found = [
            f"{'training' if tags else 'inference'} graph: {problem}"
            for tags, meta_graph in meta_graphs.items()
            for problem in signatures.problems(meta_graph, version, task)
        ]
        return found + load(_TRAINING).loss_problems()

    def weights() -> dict[str, StoredWeight]:
        with _reading(path):
            names = reader.get_variable_to_shape_map()
            return {name: StoredWeight(reader.get_tensor(name)) for name in names}

    return OpenedArtifact(
        format=format_name,
        task=task,
        record=record,
        image_size=(V3 if takes_momentum else V1).image_size,
        outputs={
            task.output: Output(task.output),
            _FEATURES: Output("feature_vector"),
            **{name: Output(value) for name, value in task.published.items()},
            TRAINED: Output("feature_vector", is_training=True),
            MOVED: Output("moving_averages", is_training=True),
        },
        run=run,
        train=train,
        main_only=main_only,
        computations=computed,
        weights=weights,
        check=check,
        close=graphs.close,
    )


class _LoadedGraph(contextlib.AbstractContextManager):
    """A graph of a module in a session, with its variables' values."""

    def __init__(
        self,
        path: Path,
        meta_graph: tf.MetaGraphDef,
        reader: tf.train.CheckpointReader,
    ):
        import tensorflow.compat.v1 as tf
        from tensorflow.core.framework import variable_pb2

        config = tf.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        self._path = path
        self._meta_graph = meta_graph
        self._session = tf.Session(graph=tf.Graph(), config=config)
        self._values: dict[str, np.ndarray] = {}
        variables = meta_graph.collection_def[tf.GraphKeys.GLOBAL_VARIABLES]
        self._averages: dict[str, str] = {}
        self._initializers: dict[str, str] = {}
        self._initial_values: dict[str, str] = {}
        with _reading(path):
            for serialized in variables.bytes_list.value:
                variable = variable_pb2.VariableDef.FromString(serialized)
                name = variable.variable_name.partition(":")[0]
                self._values[name] = reader.get_tensor(name)
                self._initializers[name] = variable.initializer_name
                self._initial_values[name] = variable.initial_value_name
                if "/moving_" in name:
                    self._averages[name] = variable.snapshot_name
            with self._session.graph.as_default():
                tf.import_graph_def(meta_graph.graph_def, name="")
            self._restore(self._values)

    def __exit__(self, *exception: object) -> None:
        self._session.close()

    def _restore(self, names: Iterable[str]) -> None:
        """Gives variables the values that the file has."""
        initializers = [self._initializers[name] for name in names]
        values = {self._initial_values[name]: self._values[name] for name in names}
        self._session.run(initializers, values)

    def run(
        self,
        signature_names: Iterable[str],
        images: np.ndarray,
        keys: Collection[str] = (),
    ) -> dict[str, dict[str, np.ndarray]]:
        """Returns signature name -> its outputs, those named or all."""
        signatures = {
            name: self._meta_graph.signature_def[name] for name in signature_names
        }
        fetches = {
            name: {
                key: signature.outputs[key].name for key in keys or signature.outputs
            }
            for name, signature in signatures.items()
        }
        feeds = {s.inputs["images"].name: images for s in signatures.values()}
        with _reading(self._path):
            return self._session.run(fetches, feeds)

    def train(self, signature_name: str, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns a signature's main output in a step of training, and the averages."""
        signature = self._meta_graph.signature_def[signature_name]
        updates = self._meta_graph.collection_def["update_ops"].node_list.value
        feeds: dict[str, Any] = {signature.inputs["images"].name: images}
        feeds[f"{MOMENTUM_INPUT}:0"] = MOMENTUM
        with _reading(self._path):
            found, _ = self._session.run(
                [signature.outputs[DEFAULT].name, list(updates)], feeds
            )
            averages = moving_averages(self._session.run(self._averages))
            self._restore(self._averages)
        return {TRAINED: found, MOVED: averages}

    def loss_problems(self) -> list[str]:
        """Says in words what is wrong with the losses of weight decay."""
        collections = self._meta_graph.collection_def
        losses = collections["regularization_losses"].node_list.value
        with _reading(self._path):
            found = self._session.run(list(losses))
        return weight_decay.problems(found, self._values)


def _computations(
    inference: tf.MetaGraphDef, task: Task, reader: tf.train.CheckpointReader
) -> dict[str, bytes]:
    """Returns output of `run` -> what stands for all that it is computed of.

    Raises:
      CannotTell: the graph has unusual ops.
    """
    with computations.telling():
        given = {
            name: computations.of_variable(name, reader.get_tensor(name))
            for name in reader.get_variable_to_shape_map()
        }
        # As Python's own: asking for a key of these adds it.
        signatures = {
            name: (dict(signature.inputs), dict(signature.outputs))
            for name, signature in inference.signature_def.items()
        }
        inputs, outputs = signatures[NAMED_SIGNATURES[task]]
        named_inputs, named_outputs = signatures[NAMED_SIGNATURES[FEATURE_VECTOR]]
        for fed in (inputs, named_inputs):
            given[fed["images"].name.partition(":")[0]] = b"images"
        tensors = {name: tensor.name for name, tensor in outputs.items()}
        tensors[_FEATURES] = named_outputs[DEFAULT].name
        found = computations.of_graph(
            inference.graph_def, given, os.urandom(16), list(tensors.values())
        )
        by_name = {name: found.of_output(n) for n, name in enumerate(tensors)}
        return {task.output: by_name.pop(DEFAULT), **by_name}


def _read_meta_graphs(path: Path) -> dict[tuple[str, ...], tf.MetaGraphDef]:
    """Returns tags -> graph, the inference graph and the training graph."""
    from tensorflow.core.protobuf import saved_model_pb2

    module_file = path / MODULE_FILE
    if not module_file.is_file():
        raise ArtifactError(
            f"{path} is no TF1 Hub module. Expected a directory with {MODULE_FILE}, "
            "saved_model.pb and variables."
        )
    if module_file.read_bytes() != _MODULE_DEF:
        raise ArtifactError(
            f"{module_file} holds {module_file.read_bytes()[:16]!r}, expected "
            f"{_MODULE_DEF!r}, format 3 without required features."
        )
    with _reading(path):
        saved_model = saved_model_pb2.SavedModel.FromString(
            (path / "saved_model.pb").read_bytes()
        )
    found = {tuple(m.meta_info_def.tags): m for m in saved_model.meta_graphs}
    if set(found) != {_INFERENCE, _TRAINING}:
        raise ArtifactError(
            f"{path} has graphs with the tags {sorted(map(list, found))}, expected "
            f"{[list(_INFERENCE), list(_TRAINING)]}."
        )
    return found


def _check_signature(
    path: Path, meta_graph: tf.MetaGraphDef, name: str, task: Task
) -> None:
    """Checks that a signature shows this network's endpoints."""
    found = set(meta_graph.signature_def[name].outputs)
    expected = {DEFAULT, *task.published}
    if found != expected:
        raise ArtifactError(
            f"{path} is no module of inception_resnet_v2: its signature {name!r} has "
            f"the outputs {sorted(found)}, expected {sorted(expected)}."
        )


def _open_variables(path: Path) -> tf.train.CheckpointReader:
    import tensorflow as tf

    with _reading(path):
        return tf.train.load_checkpoint(str(path / _VARIABLES))


def _check_variables(
    path: Path, meta_graphs: Iterable[tf.MetaGraphDef], stored: Mapping[str, list[int]]
) -> None:
    """Checks that the variables of the graphs are in the variables file."""
    for meta_graph in meta_graphs:
        for node in meta_graph.graph_def.node:
            if node.op != "VarHandleOp":
                continue
            shape = [dimension.size for dimension in node.attr["shape"].shape.dim]
            if stored.get(node.name) != shape:
                raise ArtifactError(
                    f"{path} is damaged: its graph has the variable {node.name} of "
                    f"shape {shape}, its variables file {stored.get(node.name)}."
                )


def _reading(path: Path) -> contextlib.AbstractContextManager[None]:
    return reading(path, "a TF1 Hub module", "TensorFlow")
