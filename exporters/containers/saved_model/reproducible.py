"""Makes the bytes of a TF2 SavedModel depend on what it computes alone.

TensorFlow ends the names of functions, and of the values they capture, in a count of all
that the process made before, and stores functions in no order. Here they are counted
anew. With each call it stores the devices of the machine and the options of the process,
which the consumer's process has its own of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from exporters.network.tensorflow_internals import (
    CALL_SETTINGS,
    CAPTURE_LABEL,
    function_number,
)

if TYPE_CHECKING:
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef


def make_reproducible(meta_graph: MetaGraphDef) -> None:
    """Renames functions in the order in which they were made, and clears settings."""
    functions = meta_graph.graph_def.library.function
    made = sorted((f.signature.name for f in functions), key=function_number)
    names = {name: f"{name.rpartition('_')[0]}_{i}" for i, name in enumerate(made)}

    for function in functions:
        function.signature.name = _renamed(function.signature.name, names)
        _rewrite_calls(function.node_def, names)
        _renumber_captures(function)
    functions.sort(key=lambda function: function.signature.name)

    _rewrite_calls(meta_graph.graph_def.node, names)
    aliases = meta_graph.meta_info_def.function_aliases
    renamed = {_renamed(name, names): alias for name, alias in aliases.items()}
    aliases.clear()
    aliases.update(renamed)
    objects = meta_graph.object_graph_def
    concrete_functions = {
        _renamed(name, names): function.SerializeToString(deterministic=True)
        for name, function in objects.concrete_functions.items()
    }
    objects.concrete_functions.clear()
    for name, serialized in concrete_functions.items():
        objects.concrete_functions[name].MergeFromString(serialized)
    for node in objects.nodes:
        concrete = node.function.concrete_functions
        if concrete:
            concrete[:] = [_renamed(name, names) for name in concrete]
        if node.HasField("bare_concrete_function"):
            bare = node.bare_concrete_function
            bare.concrete_function_name = _renamed(bare.concrete_function_name, names)


def _renamed(name: str, names: dict[str, str]) -> str:
    return names.get(name, name)


def _rewrite_calls(nodes: Iterable[NodeDef], names: dict[str, str]) -> None:
    for node in nodes:
        node.attr.pop(CALL_SETTINGS, None)
        for value in node.attr.values():
            if value.HasField("func"):
                value.func.name = _renamed(value.func.name, names)
            for function in value.list.func:
                function.name = _renamed(function.name, names)


def _renumber_captures(function: FunctionDef) -> None:
    for index, argument in function.arg_attr.items():
        if CAPTURE_LABEL in argument.attr:
            name = argument.attr[CAPTURE_LABEL]
            if name.s.isdigit():
                name.s = str(index).encode()
