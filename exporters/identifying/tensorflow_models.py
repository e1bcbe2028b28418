"""SavedModels and frozen graphs of any tool's, run by TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.location import SAVED_MODEL
from exporters.artifact import reading
from exporters.errors import ArtifactError
from exporters.identifying.running import (
    CannotRunError,
    ForeignModel,
    Images,
    joined,
)

if TYPE_CHECKING:
    import tensorflow as tf

_SIGNATURES = ("serving_default", "default", "predict", "serve")
"""Names of the signature that people use, the usual ones first."""


def run(path: Path, classes: int | None) -> ForeignModel:
    """Opens a SavedModel, or a frozen graph.

    Raises:
      CannotRunError: it has no signature, nor can be called.
      ArtifactError: TensorFlow cannot read it, or it takes something else than images.
    """
    return _saved_model(path) if path.is_dir() else _frozen(path)


def _saved_model(path: Path) -> ForeignModel:
    import tensorflow as tf

    with _reading(path, "a SavedModel"):
        model = tf.saved_model.load(str(path), tags=_tags(path / SAVED_MODEL))
    names = [name for name in _SIGNATURES if name in model.signatures]
    chosen = next(iter([*names, *model.signatures]), None)
    if chosen is None:
        raise CannotRunError("it has no signature, which would tell how to run it")
    _, inputs = model.signatures[chosen].structured_input_signature
    if len(inputs) != 1:
        found = ", ".join(inputs) or "none"
        raise ArtifactError(f"{path} has the inputs {found}; expected one, of images.")
    ((name, spec),) = inputs.items()

    def call(batch: np.ndarray) -> dict[str, np.ndarray]:
        found = model.signatures[chosen](**{name: tf.constant(batch)})
        return {key: value.numpy() for key, value in found.items()}

    return _model(path, "a SavedModel", spec, call)


def _tags(file: Path) -> list[str] | None:
    """Of the MetaGraph that people use: the one to serve, or the first."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    tags = [list(each.meta_info_def.tags) for each in saved_model.meta_graphs]
    return ["serve"] if ["serve"] in tags else tags[0]


def _frozen(path: Path) -> ForeignModel:
    import tensorflow.compat.v1 as tf

    graph = tf.Graph()
    with _reading(path, "a frozen graph"), graph.as_default():
        tf.import_graph_def(tf.GraphDef.FromString(path.read_bytes()), name="")
    inputs = [op.outputs[0] for op in graph.get_operations() if op.type in _INPUTS]
    images = [tensor for tensor in inputs if tensor.shape.rank in (4, None)]
    if len(inputs) != 1 or len(images) != 1 or images[0].shape.rank is None:
        found = ", ".join(f"{each.op.name} {each.shape}" for each in inputs) or "none"
        raise ArtifactError(f"{path} has the inputs {found}; expected one, of images.")
    outputs = {
        op.name: op.outputs[0]
        for op in graph.get_operations()
        if op.outputs
        and op.outputs[0].dtype.is_floating
        and not op.outputs[0].consumers()
    }
    session = tf.Session(graph=graph)

    def call(batch: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = session.run(outputs, {images[0]: batch})
        return found

    return _model(path, "a frozen graph", images[0], call, close=session.close)


_INPUTS = ("Placeholder",)


def _model(
    path: Path,
    kind: str,
    spec: tf.TensorSpec,
    call: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    **others: Any,
) -> ForeignModel:
    import tensorflow as tf

    shape = [None] * 4 if spec.shape.rank is None else spec.shape.as_list()
    images_of = Images.of_shape(path, shape)
    dtype = np.dtype(spec.dtype.as_numpy_dtype)

    def run_on(images: np.ndarray) -> dict[str, np.ndarray]:
        with _reading(path, kind):
            return joined(map(call, images_of.batches(images, dtype)), len(images))

    return ForeignModel(
        f"TensorFlow {tf.__version__}",
        images_of.image_size,
        images_of.layout,
        run_on,
        **others,
    )


def _reading(path: Path, kind: str) -> Any:
    return reading(path, kind, "TensorFlow")
