"""Makes a SavedModel written by today's TensorFlow readable for TensorFlow 1.15 to 2.4.

What stands in the way was found by loading: one unknown op and one unknown attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

_UNKNOWN_OP = "DisableCopyOnRead"
"""Part of the save function since TensorFlow 2.13; a hint about memory."""
_UNKNOWN_ATTRIBUTE = "debug_name"
"""Of VarHandleOp since TensorFlow 2.13; for messages."""


def make_readable(meta_graph: MetaGraphDef) -> None:
    """Rewrites a MetaGraph in place; the numbers it computes stay the same."""
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
