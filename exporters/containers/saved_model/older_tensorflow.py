"""Makes a SavedModel written by today's TensorFlow readable for TensorFlow 1.15 to 2.4.

What stands in the way was found by loading: one unknown attribute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

_UNKNOWN_ATTRIBUTE = "debug_name"
"""Of VarHandleOp since TensorFlow 2.13; for messages."""


def make_readable(meta_graph: MetaGraphDef) -> None:
    """Rewrites a MetaGraph in place; the numbers it computes stay the same."""
    for node in meta_graph.graph_def.node:
        if node.op == "VarHandleOp":
            node.attr.pop(_UNKNOWN_ATTRIBUTE, None)
    for op in meta_graph.meta_info_def.stripped_op_list.op:
        if op.name == "VarHandleOp":
            kept = [a for a in op.attr if a.name != _UNKNOWN_ATTRIBUTE]
            del op.attr[:]
            op.attr.extend(kept)
