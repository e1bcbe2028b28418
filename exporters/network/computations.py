"""What TensorFlow's functions and graphs compute, whatever their ops are called.

Of two that compute the same of the same numbers, a comparison has to run only one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import graphlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from exporters.network import tensorflow_internals

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.types.experimental import ConcreteFunction

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_READING = ("ReadVariableOp",)
_WRITING = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
_RANDOM = ("RandomUniform",)
"""Ops that give other numbers each time; dropout is made of them."""


class CannotTell(Exception):
    """A function, or a graph, is not of the kind that digests stand for."""


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Turns what unusual functions, graphs and variables end in into `CannotTell`."""
    try:
        yield
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise CannotTell(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Computation:
    """What a function does with its arguments and variables.

    A digest stands for an op with its attributes and all that it is computed from, down
    to arguments and variables. Equal digests mean equal numbers, from equal arguments.

    Attributes:
      outputs: a digest for each.
      effects: how often there is an op, by digest, of those that change a variable.
      kept: digests of the ops that run even if no output needs them.
    """

    outputs: tuple[bytes, ...]
    effects: Counter[bytes]
    kept: frozenset[bytes]

    @property
    def effect(self) -> bytes:
        """What stands for all that it changes."""
        kept = self.kept & self.effects.keys()
        return digest(*sorted(self.effects.elements()), "kept", *sorted(kept))

    def of_output(self, number: int) -> bytes:
        """What stands for an output, and for all that is changed with it."""
        return digest(self.outputs[number], self.effect)


def of_variable(name: str, values: np.ndarray) -> bytes:
    """Returns what stands for a variable that holds some values.

    Raises:
      ValueError: these are no numbers.
    """
    if values.dtype.hasobject:
        raise ValueError(f"{name} holds no numbers")
    return digest("variable", name, str(values.dtype), str(values.shape), values.data)


def of(
    function: ConcreteFunction, variables: Mapping[int, bytes], chance: bytes
) -> Computation:
    """Says what a function computes; functions that it calls are part of it.

    Args:
      function: of a model that was loaded.
      variables: identity of the handle -> what stands for it, of all that it may use.
      chance: what stands for its random numbers.

    Raises:
      CannotTell: something else is captured, or called.
    """
    with telling():
        definition = function.function_def
        captured = [variables[id(handle)] for handle in function.captured_inputs]
        arguments = [argument.name for argument in definition.signature.input_arg]
        given = arguments[: len(arguments) - len(captured)]
        library = function.graph.as_graph_def().library.function
        called = {inner.signature.name: inner for inner in library}
        digests = [*(digest("argument", name) for name in given), *captured]
        return _of_definition(definition, digests, called, chance)


def of_graph(
    graph: tf.compat.v1.GraphDef,
    given: Mapping[str, bytes],
    chance: bytes,
    tensors: Sequence[str],
) -> Computation:
    """Says what a session computes that runs a graph.

    Args:
      graph: which calls no functions.
      given: node -> what stands for it, beside its attributes, of variables and what is
        fed.
      chance: what stands for its random numbers.
      tensors: names of those that are outputs, such as "scope/op:0".

    Raises:
      CannotTell: a function is called.
    """
    with telling():
        nodes = _needed(graph, tensors, given)
        by_name = {node.name: node for node in nodes}
        known = {
            name: digest(given[name], by_name[name].op, *_attributes(by_name[name]))
            for name in given.keys() & by_name.keys()
        }
        ops = _Ops(nodes, {}, known, chance)
        return Computation(
            outputs=tuple(ops.value(name.removesuffix(":0")) for name in tensors),
            effects=ops.effects,
            kept=frozenset(),
        )


def _needed(
    graph: tf.compat.v1.GraphDef, names: Iterable[str], given: Mapping[str, bytes]
) -> list[NodeDef]:
    """Returns the ops that some are computed from, down to what is given."""
    by_name = {node.name: node for node in graph.node}
    waiting = [_node_of(name) for name in names]
    found: dict[str, NodeDef] = {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = by_name[name]
            if name not in given:
                waiting += map(_node_of, by_name[name].input)
    return list(found.values())


def _of_definition(
    definition: FunctionDef,
    arguments: Sequence[bytes],
    called: Mapping[str, FunctionDef],
    chance: bytes,
) -> Computation:
    names = [argument.name for argument in definition.signature.input_arg]
    given = dict(zip(names, arguments, strict=True))
    ops = _Ops(definition.node_def, called, given, chance)
    outputs = [definition.ret[o.name] for o in definition.signature.output_arg]
    kept = frozenset().union(*(ops.kept[n] for n in definition.control_ret.values()))
    return Computation(
        outputs=tuple(ops.value(output) for output in outputs),
        effects=ops.effects,
        kept=kept,
    )


class _Ops:
    """Digests of ops, of a function or of a graph.

    Attributes:
      effects: see `Computation`.
      kept: op -> digests of it, and of what it calls.
    """

    def __init__(
        self,
        nodes: Iterable[NodeDef],
        called: Mapping[str, FunctionDef],
        given: Mapping[str, bytes],
        chance: bytes,
    ) -> None:
        """Goes through all ops.

        Args:
          nodes: the ops.
          called: functions that they may call, by name.
          given: argument or node -> what stands for it.
          chance: what stands for random numbers.
        """
        self.effects: Counter[bytes] = Counter()
        self.kept: dict[str, frozenset[bytes]] = {}
        self._called = called
        self._chance = chance
        self._values = dict(given)
        by_name = {node.name: node for node in nodes}
        needed = {
            name: {_node_of(value) for value in node.input} & by_name.keys()
            for name, node in by_name.items()
        }
        for name in graphlib.TopologicalSorter(needed).static_order():
            if name in given:
                self.kept[name] = frozenset([given[name]])
            else:
                self._add(by_name[name])

    def value(self, name: str) -> bytes:
        """Returns the digest of an argument, an output, or of waiting for an op."""
        if name not in self._values:
            op, _, output = name.partition(":")
            self._values[name] = digest(*sorted(self.kept[_node_of(op)]), output)
        return self._values[name]

    def _add(self, node: NodeDef) -> None:
        inputs = [self.value(given) for given in node.input]
        if node.op in _CALLS:
            self._add_call(node, inputs)
            return
        found = digest(node.op, node.device, *_attributes(node), *inputs)
        if node.op in _WRITING:
            self.effects[found] += 1
        elif node.op in _RANDOM:
            found = digest(found, self._chance)
        elif node.op not in _READING and tensorflow_internals.is_stateful(node.op):
            raise ValueError(f"{node.op} depends on more than its inputs")
        self.kept[node.name] = frozenset([found])
        if node.op == "Identity":
            # It gives what it is given; but what is read of that may have been changed.
            waits = {op for name in node.input[1:] for op in self.kept[_node_of(name)]}
            changes = sorted(waits & self.effects.keys())
            same = digest("after", inputs[0], *changes) if changes else inputs[0]
            # In a function, and in a graph.
            self._values[f"{node.name}:output:0"] = same
            self._values[node.name] = same

    def _add_call(self, node: NodeDef, inputs: Sequence[bytes]) -> None:
        inner = self._called[node.attr["f"].func.name]
        # What waits, and what fills in attributes, does so for all that is in it.
        if len(inputs) > len(inner.signature.input_arg) or node.attr["f"].func.attr:
            raise ValueError(f"{node.name} calls a function in a way of its own")
        found = _of_definition(inner, inputs, self._called, self._chance)
        self.effects += found.effects
        self.kept[node.name] = found.kept
        for number, output in enumerate(found.outputs):
            self._values[f"{node.name}:output:{number}"] = output


def _node_of(value: str) -> str:
    return value.removeprefix("^").partition(":")[0]


def _attributes(node: NodeDef) -> Iterable[bytes]:
    """Returns attributes that say what an op computes.

    Those that begin with "_" say where and how.
    """
    for name in sorted(node.attr):
        if name.startswith("_"):
            continue
        value = node.attr[name]
        if value.HasField("func") or value.list.func:
            raise ValueError(f"{node.op} calls a function in a way of its own")
        yield name.encode()
        yield value.SerializeToString(deterministic=True)


def digest(*parts: str | bytes | memoryview) -> bytes:
    """Returns what stands for some parts in their order."""
    content = hashlib.sha256()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        size = encoded.nbytes if isinstance(encoded, memoryview) else len(encoded)
        content.update(size.to_bytes(8, "little"))
        content.update(encoded)
    return content.digest()
