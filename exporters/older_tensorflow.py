"""Makes a SavedModel written by today's TensorFlow readable for TensorFlow 1.15 to 2.4.

What stands in the way was found by loading: one unknown op and one unknown attribute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

_UNKNOWN_OP = "DisableCopyOnRead"
"""Part of the save function since TensorFlow 2.13; a hint about memory."""
_UNKNOWN_ATTRIBUTE = "debug_name"
"""Of VarHandleOp since TensorFlow 2.13; for messages."""


def make_readable(directory: Path) -> None:
    """Rewrites saved_model.pb in place; the numbers it computes stay the same."""
    with rewritten(directory) as saved_model:
        for meta_graph in saved_model.meta_graphs:
            _make_readable(meta_graph)


@contextlib.contextmanager
def rewritten(directory: Path) -> Iterator[SavedModel]:
    """Gives the SavedModel message of a directory to change, then writes it back."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = directory / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    yield saved_model
    file.write_bytes(saved_model.SerializeToString(deterministic=True))


def _make_readable(meta_graph: MetaGraphDef) -> None:
    graph = meta_graph.graph_def
    for nodes in (graph.node, *(f.node_def for f in graph.library.function)):
        for node in nodes:
            if node.op == _UNKNOWN_OP:
                # The name stays, because control dependencies refer to it.
                node.op = "NoOp"
                control_inputs = [name for name in node.input if name[0] == "^"]
                node.ClearField("input")
                node.input.extend(control_inputs)
                node.ClearField("attr")
            elif node.op == "VarHandleOp":
                node.attr.pop(_UNKNOWN_ATTRIBUTE, None)
    ops = meta_graph.meta_info_def.stripped_op_list
    known = [op for op in ops.op if op.name != _UNKNOWN_OP]
    del ops.op[:]
    ops.op.extend(known)
    for op in ops.op:
        if op.name == "VarHandleOp":
            kept = [a for a in op.attr if a.name != _UNKNOWN_ATTRIBUTE]
            del op.attr[:]
            op.attr.extend(kept)
