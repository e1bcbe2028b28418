"""What functions of a SavedModel compute, whatever their ops are called.

Of two that compute the same of the same variables, a comparison has to run only one.
"""

from __future__ import annotations

import dataclasses
import graphlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from exporters.network import tensorflow_internals

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.types.experimental import ConcreteFunction

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclasses.dataclass(frozen=True)
class Computation:
    """What a function does with its arguments and variables.

    A digest stands for an op with its attributes and all that it is computed from, down
    to arguments and variables, which count by their names.

    Attributes:
      outputs: a digest for each.
      stateful: how often there is an op, by digest, of those that read or change
        something beyond their inputs.
      kept: digests of the ops that run even if no output needs them.
    """

    outputs: tuple[bytes, ...]
    stateful: Counter[bytes]
    kept: frozenset[bytes]

    def has_effects_of(self, other: Computation) -> bool:
        """Whether it reads and changes what another does; outputs are not compared."""
        return self.stateful == other.stateful and self.kept == other.kept


def of(function: ConcreteFunction, variables: Mapping[str, tf.Variable]) -> Computation:
    """Says what a function computes; functions that it calls are part of it.

    Args:
      function: of a model that was loaded.
      variables: all that it may use, by name.
    """
    definition = function.function_def
    names = {id(variable.handle): name for name, variable in variables.items()}
    captured = [
        names.get(id(handle), f"unknown {id(handle)}")
        for handle in function.captured_inputs
    ]
    arguments = [argument.name for argument in definition.signature.input_arg]
    given = arguments[: len(arguments) - len(captured)]
    library = function.graph.as_graph_def().library.function
    called = {inner.signature.name: inner for inner in library}
    digests = [_digest("argument", name) for name in given]
    digests += [_digest("variable", name) for name in captured]
    return _of(definition, digests, called)


def _of(
    definition: FunctionDef,
    arguments: Sequence[bytes],
    called: Mapping[str, FunctionDef],
) -> Computation:
    names = [argument.name for argument in definition.signature.input_arg]
    values = dict(zip(names, arguments, strict=True))
    kept: dict[str, frozenset[bytes]] = {}
    stateful: Counter[bytes] = Counter()
    nodes = {node.name: node for node in definition.node_def}
    needed = {
        name: {_node_of(value) for value in node.input} & nodes.keys()
        for name, node in nodes.items()
    }

    def value(name: str) -> bytes:
        """Returns the digest of an argument, an output, or of waiting for a node."""
        if name not in values:
            node, _, output = name.partition(":")
            values[name] = _digest(*sorted(kept[_node_of(node)]), output)
        return values[name]

    for name in graphlib.TopologicalSorter(needed).static_order():
        node = nodes[name]
        inputs = [value(given) for given in node.input]
        if node.op not in _CALLS:
            digest = _digest(node.op, *_attributes(node), *inputs)
            kept[name] = frozenset([digest])
            if tensorflow_internals.is_stateful(node.op):
                stateful[digest] += 1
            if node.op == "Identity":
                values[f"{name}:output:0"] = inputs[0]
            continue
        inner = called[node.attr["f"].func.name]
        count = len(inner.signature.input_arg)
        found = _of(inner, inputs[:count], called)
        # What the call waits for, all in it does.
        kept[name] = found.kept.union(inputs[count:])
        stateful += found.stateful
        for number, output in enumerate(found.outputs):
            values[f"{name}:output:{number}"] = output
    outputs = [definition.ret[o.name] for o in definition.signature.output_arg]
    return Computation(
        outputs=tuple(value(output) for output in outputs),
        stateful=stateful,
        kept=frozenset().union(*(kept[n] for n in definition.control_ret.values())),
    )


def _node_of(value: str) -> str:
    return value.removeprefix("^").partition(":")[0]


def _attributes(node: NodeDef) -> Iterable[bytes]:
    """Returns attributes that matter to what an op computes."""
    for name in sorted(node.attr):
        if not name.startswith("_"):
            yield name.encode()
            yield node.attr[name].SerializeToString(deterministic=True)


def _digest(*parts: str | bytes) -> bytes:
    content = hashlib.sha256()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        content.update(len(encoded).to_bytes(8, "little"))
        content.update(encoded)
    return content.digest()
