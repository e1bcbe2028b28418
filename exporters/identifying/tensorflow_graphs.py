"""Graphs of TensorFlow's: frozen ones, and those of SavedModels.

They are read without TensorFlow. Messages: tensorflow/core/framework/{graph,node_def,
attr_value,tensor,function}.proto, tensorflow/core/protobuf/{meta_graph,saved_model}.proto.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from checkpoints import wire
from exporters.identifying.contents import Node, StoredArray

_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8"} | {
    11: "i1",
    12: "u1",
    13: "<i4",
    19: "<f2",
}
"""Numbers of types.proto -> NumPy's dtypes; the quantized ones by their integers."""
_LISTS = {5: "<f4", 6: "<f8"}
"""Fields of a tensor with packed floats, where its content is not given as bytes."""


def of_graph(graph: wire.Buffer) -> tuple[list[StoredArray], list[Node]]:
    """Reads a GraphDef: its constants and nodes, and those of its functions.

    Raises:
      ValueError: it is none.
    """
    arrays, nodes = [], []
    for message in _node_messages(graph):
        name = kind = ""
        inputs, constant = [], None
        for field in wire.fields(message):
            match field:
                case 1, memoryview() as text:
                    name = str(text, "utf-8")
                case 2, memoryview() as text:
                    kind = str(text, "utf-8")
                case 3, memoryview() as text:
                    inputs.append(_tensor_name(str(text, "utf-8")))
                case 5, memoryview() as attribute:
                    constant = constant or _tensor_in(attribute)
        if kind == "Const" and constant is not None:
            if array := _array(name, constant):
                arrays.append(array)
        elif kind != "Const":
            nodes.append(Node(kind.lower(), inputs, [name]))
    return arrays, nodes


def of_saved_model(content: wire.Buffer) -> tuple[list[StoredArray], list[Node]]:
    """Reads the graph of a SavedModel that people use: the first.

    Raises:
      ValueError: it is none.
    """
    for meta_graph in _messages(content, 2):
        for graph in _messages(meta_graph, 2):
            return of_graph(graph)
    raise ValueError("it has no graph")


def is_graph(beginning: bytes) -> bool:
    """Whether a file begins as a GraphDef does, with a node that has name and op."""
    if beginning[:1] != b"\x0a":
        return False
    try:
        size, start = wire.read_varint(beginning, 1)
        fields = wire.fields(beginning[start : start + size])
        first, second = next(fields), next(fields)
    except (wire.WireError, StopIteration):
        return False
    return first[0] == 1 and second[0] == 2 and isinstance(second[1], memoryview)


def _node_messages(graph: wire.Buffer) -> Iterator[memoryview]:
    yield from _messages(graph, 1)
    for library in _messages(graph, 2):
        for function in _messages(library, 1):
            yield from _messages(function, 3)


def _messages(message: wire.Buffer, number: int) -> Iterator[memoryview]:
    for found, content in wire.fields(message):
        if found == number and isinstance(content, memoryview):
            yield content


def _tensor_name(text: str) -> str:
    """The node that an input comes from."""
    return text.removeprefix("^").partition(":")[0]


def _tensor_in(attribute: memoryview) -> memoryview | None:
    fields = dict(wire.fields(attribute))
    value = fields.get(2)
    if fields.get(1) != b"value" or not isinstance(value, memoryview):
        return None
    return next(_messages(value, 8), None)


def _array(name: str, tensor: memoryview) -> StoredArray | None:
    dtype, content = 0, memoryview(b"")
    shape: tuple[int, ...] = ()
    numbers: list[float] = []
    for field in wire.fields(tensor):
        match field:
            case 1, int(number):
                dtype = number
            case 2, memoryview() as message:
                shape = tuple(_dimensions(message))
            case 4, memoryview() as message:
                content = message
            case (5 | 6) as number, memoryview() as packed:
                numbers += np.frombuffer(packed, _LISTS[number]).tolist()
            case 5, int(bits) if bits < 1 << 32:
                numbers.append(float(np.uint32(bits).view(np.float32)))
    if dtype not in _DTYPES:
        return None
    kind = np.dtype(_DTYPES[dtype])
    size = math.prod(shape)
    with np.errstate(over="ignore"):  # Of float64, some are beyond float32.
        if content:
            values = np.frombuffer(content, kind).astype(np.float32)
        elif numbers and size <= 1 << 20:  # The last one stands for all that follow.
            filled = itertools.chain(numbers, itertools.repeat(numbers[-1]))
            values = np.fromiter(filled, np.float32, size)
        else:
            return None
    if values.size != size:
        raise ValueError(f"{name} has {values.size} values for {list(shape)}")
    return StoredArray(name, values.reshape(shape), kind.name)


def _dimensions(shape: memoryview) -> Sequence[int]:
    sizes = []
    for dimension in _messages(shape, 2):
        size = dict(wire.fields(dimension)).get(1, 0)
        sizes.append(wire.signed(size) if isinstance(size, int) else 0)
    if min(sizes, default=0) < 0:
        raise ValueError(f"a constant of shape {sizes}")
    return sizes
