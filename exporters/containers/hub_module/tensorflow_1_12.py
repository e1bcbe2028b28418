"""Rewrites a graph of today's TensorFlow into the ops of TensorFlow 1.12.

That is the oldest TensorFlow whose consumers are tested. Its own definitions of the ops
that the network needs are in `data/tensorflow_1_12_ops.pbtxt`, without documentation.
"""

from __future__ import annotations

import functools
import importlib.resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf
    from tensorflow.core.framework import op_def_pb2

GRAPH_DEF_VERSION = 27
"""The GraphDef version that TensorFlow 1.12 produces (core/public/version.h)."""

_OLD_OPS = {"AddV2": "Add", "FusedBatchNormV3": "FusedBatchNorm", "SelectV2": "Mul"}
_OLD_NAMES = (
    ("/BatchNorm/FusedBatchNormV3", "/BatchNorm/FusedBatchNorm"),
    ("/Dropout/dropout_1/Mul", "/Dropout/dropout_1/div"),
    ("/Dropout/dropout_1/SelectV2", "/Dropout/dropout_1/mul"),
)
"""Where TensorFlow 1.12's layers give an op another name."""

_DROPPED_ATTRIBUTES = {
    "FusedBatchNormV3": {"U"},  # Type of the statistics: as T, where T is float32.
    "VarHandleOp": {"debug_name"},  # For messages.
}


class UnknownOpError(Exception):
    """An op or attribute that TensorFlow 1.12 has no counterpart for."""


def old_name(name: str) -> str:
    """Returns the name in the rewritten graph of an op, an input or a tensor."""
    for new, old in _OLD_NAMES:
        name = name.replace(new, old)
    return name


def rewrite(graph_def: tf.GraphDef) -> tf.GraphDef:
    """Returns a graph that computes the same with TensorFlow 1.12's ops.

    Attributes that hold their default are left out.

    Raises:
      UnknownOpError: the graph needs something that TensorFlow 1.12 does not have.
    """
    import tensorflow.compat.v1 as tf

    current = _current_definitions(graph_def)
    result = tf.GraphDef()
    result.versions.producer = GRAPH_DEF_VERSION
    for source in graph_def.node:
        node = result.node.add()
        node.CopyFrom(source)
        node.name = old_name(source.name)
        node.input[:] = [old_name(name) for name in source.input]
        if source.op == "SelectV2":
            _multiply_by_mask(node, result)
        elif source.op in _OLD_OPS:
            node.op = _OLD_OPS[source.op]
        _remove_attributes(node, source, current[source.op])
    return result


def _current_definitions(graph_def: tf.GraphDef) -> dict[str, op_def_pb2.OpDef]:
    """Returns this TensorFlow's definitions of the ops that a graph uses."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        meta_graph = tf.train.export_meta_graph(graph_def=graph_def)
    return {op.name: op for op in meta_graph.meta_info_def.stripped_op_list.op}


def _multiply_by_mask(node: tf.NodeDef, result: tf.GraphDef) -> None:
    """Turns dropout's `where(mask, x, 0)` into `x * cast(mask)`."""
    import tensorflow.compat.v1 as tf

    mask, kept, _ = node.input
    cast = result.node.add(name=f"{mask}/Cast", op="Cast", input=[mask])
    cast.attr["SrcT"].type = tf.bool.as_datatype_enum
    cast.attr["DstT"].type = tf.float32.as_datatype_enum
    node.op = "Mul"
    node.input[:] = [kept, cast.name]


def _remove_attributes(
    node: tf.NodeDef, source: tf.NodeDef, source_op: op_def_pb2.OpDef
) -> None:
    """Removes attributes with default values and those TensorFlow 1.12 lacks."""
    try:
        known = {attr.name: attr for attr in _op_definitions()[node.op].attr}
    except KeyError:
        raise UnknownOpError(
            f"{source.name} is a {source.op}, which TensorFlow 1.12 does not have."
        ) from None
    current = {attr.name: attr for attr in source_op.attr}
    for name in list(node.attr):
        if name == "_class":
            continue
        definition = current.get(name)
        is_default = (
            definition is not None
            and definition.HasField("default_value")
            and definition.default_value == node.attr[name]
        )
        if name in known:
            is_known = not is_default or not known[name].HasField("default_value")
        elif (
            is_default
            or name.startswith("_")
            or name in _DROPPED_ATTRIBUTES.get(source.op, ())
        ):
            is_known = False
        else:
            raise UnknownOpError(
                f"{source.name} needs the attribute {name} of {source.op}, which "
                "TensorFlow 1.12 does not have."
            )
        if not is_known:
            del node.attr[name]


def op_list(graph_def: tf.GraphDef) -> op_def_pb2.OpList:
    """Returns TensorFlow 1.12's definitions of the ops that a graph uses."""
    from tensorflow.core.framework import op_def_pb2

    used = {node.op for node in graph_def.node}
    return op_def_pb2.OpList(
        op=[op for name, op in _op_definitions().items() if name in used]
    )


@functools.cache
def _op_definitions() -> dict[str, op_def_pb2.OpDef]:
    from google.protobuf import text_format
    from tensorflow.core.framework import op_def_pb2

    file = (
        importlib.resources.files("exporters.containers.hub_module")
        / "data/tensorflow_1_12_ops.pbtxt"
    )
    ops = text_format.Parse(file.read_text(encoding="utf-8"), op_def_pb2.OpList())
    return {op.name: op for op in ops.op}
