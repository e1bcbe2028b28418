"""State dicts of PyTorch, as `torch.save` writes them: arrays by name.

Such a file is a .zip archive of a pickle and of raw values:

    archive/data.pkl
    archive/data/0

A pickle is a program, and unpickling one runs whatever somebody put in. It is read as
data here: what it would call is noted down, and nothing is called. What that gives are
tensors and containers; everything else is passed over.

Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py.
"""

from __future__ import annotations

import dataclasses
import pickletools
import reprlib
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from checkpoints.errors import CheckpointError, damage
from checkpoints.tensors import MAX_ENTRIES, Spec
from checkpoints.zip_archives import ZIP_DAMAGE, within

_PROGRAM = "data.pkl"
_MOST_BYTES = 64 << 20
"""Of a pickle; that of a network in training has about 1 MB."""
_DTYPES = {
    **{"FloatStorage": "float32", "HalfStorage": "float16", "DoubleStorage": "float64"},
    **{"BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32"},
    **{"ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8"},
    **{"BoolStorage": "bool"},
}
_ATTRIBUTES = ("_modules", "_parameters", "_buffers")
_MAX_DEPTH = 32
_TENSORS = ("_rebuild_tensor_v2", "_rebuild_tensor")
_PARAMETERS = ("_rebuild_parameter",)


@dataclasses.dataclass(frozen=True)
class _Global:
    """What a pickle would import."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Values in a member of the archive."""

    member: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchState:
    """The tensors in a file that is open for reading.

    Attributes:
      specs: name -> what the tensor is. Values are read when they are asked for. Names of
        containers within each other are joined by dots.
    """

    def __init__(self, file: BinaryIO, name: str):
        """Reads the names of all tensors.

        Args:
          file: open for reading; left open.
          name: what to call it in errors, usually its path.

        Raises:
          CheckpointError: it is none, or damaged.
        """
        self._name = name
        try:
            self._archive = zipfile.ZipFile(file)
            [program] = [n for n in self._archive.namelist() if is_program(n)]
            self._root = program.removesuffix(_PROGRAM)
            if self._archive.getinfo(program).file_size > _MOST_BYTES:
                raise ValueError(f"{program} is too large to be true")
            with within():
                content = self._archive.read(program)
            found = _interpret(content)
        except (*ZIP_DAMAGE, IndexError, KeyError, TypeError) as error:
            what = str(error).splitlines() or [type(error).__name__]
            raise damage(name, what[0]) from error
        self._tensors = {}
        # A few lists that have each other several times hold more than anybody can count.
        for count, (key, value) in enumerate(_parts(found, "", 0)):
            if count > MAX_ENTRIES:
                raise damage(name, f"over {MAX_ENTRIES} parts, too many to be true")
            if isinstance(value, _Tensor):
                self._tensors[key] = value
        self.specs = {
            key: Spec(tensor.storage.dtype, tensor.shape)
            for key, tensor in self._tensors.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Reads the values of a tensor; those of bfloat16 as float32.

        Raises:
          KeyError: there is no such tensor.
          CheckpointError: its values are not there, or NumPy does not have its dtype.
        """
        tensor = self._tensors[name]
        dtype = tensor.storage.dtype
        if dtype != "bfloat16" and not self.specs[name].is_readable:
            raise CheckpointError(f"{self._name}: {name} is of dtype {dtype}.")
        stored = np.dtype("<u2" if dtype == "bfloat16" else dtype)
        try:
            member = self._archive.getinfo(f"{self._root}data/{tensor.storage.member}")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its values are compressed")
            with within():
                content = self._archive.read(member)
            flat = np.frombuffer(content, stored.newbyteorder("<"))[tensor.offset :]
            values = _strided(flat, tensor)
        except (*ZIP_DAMAGE, KeyError) as error:
            raise damage(self._name, f"{name}: {error}") from error
        if dtype == "bfloat16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return np.ascontiguousarray(values, stored)


def is_program(member: str) -> bool:
    """Whether a member of an archive is a state dict's pickle."""
    return member == _PROGRAM or member.endswith(f"/{_PROGRAM}")


def _strided(flat: np.ndarray, tensor: _Tensor) -> np.ndarray:
    shape, strides = tensor.shape, tensor.strides
    if len(shape) != len(strides) or min((0, *shape, *strides)) < 0:
        raise ValueError(f"a shape of {shape} with strides {strides}")
    needed = sum((n - 1) * step for n, step in zip(shape, strides)) + 1
    size = int(np.prod(shape))
    if size and (needed > len(flat) or size > len(flat)):
        raise ValueError(f"{len(flat)} values for a shape of {shape}")
    bytes_ = [step * flat.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(flat, shape, bytes_, writeable=False)


def _parts(found: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yields all that containers hold, with names, and these containers themselves."""
    yield prefix.removesuffix("."), found
    if isinstance(found, dict | list | tuple) and depth < _MAX_DEPTH:
        items = found.items() if isinstance(found, dict) else enumerate(found)
        for key, value in items:
            # A whole module keeps its parts in attributes of these names.
            part = "" if key in _ATTRIBUTES else f"{key}."
            yield from _parts(value, f"{prefix}{part}", depth + 1)


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _interpret(program: bytes) -> Any:
    """Returns what a pickle describes, and calls nothing.

    Raises:
      ValueError, IndexError, KeyError, TypeError: it is none.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        items: list[Any] = []
        while stack:
            item = stack.pop()
            if item is _MARK:
                return items[::-1]
            items.append(item)
        raise ValueError("it ends a list that it did not begin")

    argument: Any
    for opcode, argument, _ in pickletools.genops(program):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "POP":
                stack.pop()
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "LIST":
                stack.append(since_mark())
            case "DICT":
                items = since_mark()
                stack.append({})
                _set(stack[-1], items)
            case name if name in _TUPLES:
                count = _TUPLES[name]
                items = stack[-count:]
                del stack[-count:]
                stack.append(tuple(items))
            case "GLOBAL":
                stack.append(_Global(argument.rpartition(" ")[2]))
            case "STACK_GLOBAL":
                name = stack.pop()
                if not isinstance(name, str):
                    raise ValueError("a name that is no text")
                stack[-1] = _Global(name)
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[int(argument)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[int(argument)])
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_called(stack.pop(), arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(state, dict) and isinstance(stack[-1], dict):
                    stack[-1].update(state)
            case "APPEND":
                item = stack.pop()
                _append(stack[-1], [item])
            case "APPENDS":
                items = since_mark()
                _append(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set(stack[-1], [key, value])
            case "SETITEMS":
                items = since_mark()
                _set(stack[-1], items)
            case _ if isinstance(argument, int | float | str | bytes):
                stack.append(argument)
            case name:
                raise ValueError(f"an opcode {name}, which state dicts do not have")
    raise ValueError("a pickle without an end")


def _storage(described: Any) -> Any:
    match described:
        case ("storage", _Global(name), str(member), *_) if name in _DTYPES:
            return _Storage(member, _DTYPES[name])
        case ("storage", _Global(name), str(member), *_):
            return _Storage(member, name)
    return None


def _called(function: Any, arguments: Any) -> Any:
    """What a call gives, of the few that state dicts consist of."""
    match function, arguments:
        case _Global(name), (
            _Storage() as storage,
            int(offset),
            shape,
            strides,
            *_,
        ) if name in _TENSORS:
            return _Tensor(storage, offset, _sizes(shape), _sizes(strides))
        case _Global(name), (_Tensor() as tensor, *_) if name in _PARAMETERS:
            return tensor
        case _Global("OrderedDict"), ([*pairs],):
            made: dict[Any, Any] = {}
            for key, value in pairs:
                _set(made, [key, value])
            return made
    return {}  # An object, which may get attributes.


def _sizes(found: Any) -> tuple[int, ...]:
    if isinstance(found, tuple) and all(isinstance(size, int) for size in found):
        return found
    raise ValueError(f"a shape of {reprlib.repr(found)}")


def _append(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)


def _set(target: Any, items: list[Any]) -> None:
    """Sets keys and values; keys of other kinds, such as tuples in tuples, name nothing."""
    if isinstance(target, dict):
        pairs = zip(items[::2], items[1::2])
        target.update({k: v for k, v in pairs if isinstance(k, str | int)})
