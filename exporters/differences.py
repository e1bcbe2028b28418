"""Where two artifacts that should be the same, byte for byte, first differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import files
from checkpoints.errors import CheckpointError
from checkpoints.reader import open_checkpoint

_VARIABLES = "variables"
_MOST_OF_A_VALUE = 60


def first_difference(expected: Path, found: Path) -> str | None:
    """Says in words where an artifact first differs from another, None if nowhere.

    Args:
      expected: a file or directory.
      found: likewise; names of files are as in here.

    Returns:
      The first file in the order of names and, within JSON, ONNX, TFLite, SavedModel and
      variables, the first field; else the first byte.
    """
    wanted, given = _files(expected), _files(found)
    for name in sorted(wanted.keys() | given.keys()):
        if name not in given:
            return f"{name}: missing"
        if name not in wanted:
            return f"{name}: unexpected"
        if files.digest(wanted[name]) != files.digest(given[name]):
            return f"{name or found.name}: {_within(wanted[name], given[name])}"
    return None


def _files(path: Path) -> dict[str, Path]:
    """Returns name below the artifact -> file; "" for an artifact that is one file."""
    if not path.is_dir():
        return {"": path} if path.exists() else {}
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*")}
    return {name: file for name, file in found.items() if not file.is_dir()}


def _within(expected: Path, found: Path) -> str:
    """Says where two files that differ do so first."""
    compare = _comparison_of(expected)
    place = None
    if compare:
        try:
            place = next(compare(expected, found), None)
        except (ValueError, CheckpointError) as error:
            return f"it cannot be read: {error}"
    return place or _first_byte(expected.read_bytes(), found.read_bytes())


def _comparison_of(path: Path) -> Callable[[Path, Path], Iterator[str]] | None:
    if path.parent.name == _VARIABLES:
        return _variables
    if path.name == "saved_model.pb":
        return _saved_models
    return {".json": _json, ".onnx": _onnx, ".tflite": _tflite}.get(path.suffix)


def _first_byte(expected: bytes, found: bytes) -> str:
    shared = min(len(expected), len(found))
    a = np.frombuffer(expected, np.uint8, shared)
    b = np.frombuffer(found, np.uint8, shared)
    differing = np.flatnonzero(a != b)
    place = int(differing[0]) if differing.size else shared
    sizes = f", expected {len(expected)} bytes" if len(expected) != len(found) else ""
    return f"byte {place} of {len(found)}{sizes}"


def _json(expected: Path, found: Path) -> Iterator[str]:
    return _values(files.read_json(expected), files.read_json(found), "")


def _values(expected: Any, found: Any, at: str) -> Iterator[str]:
    """Compares JSON values, or what is made of fields; says where they differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            place = f"{at}.{key}" if at else str(key)
            if key not in found or key not in expected:
                yield f"{place}: {'missing' if key in expected else 'unexpected'}"
            else:
                yield from _values(expected[key], found[key], place)
    elif isinstance(expected, list) and isinstance(found, list):
        for number, (one, other) in enumerate(zip(expected, found)):
            yield from _values(one, other, f"{at}[{number}]")
        if len(expected) != len(found):
            yield f"{at}: {len(found)} elements, expected {len(expected)}"
    elif isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        if expected.shape != found.shape:
            yield f"{at}: {found.size} numbers, expected {expected.size}"
        elif (places := np.flatnonzero(expected != found)).size:
            yield f"{at}[{places[0]}]: {found.flat[places[0]]}, expected " + str(
                expected.flat[places[0]]
            )
    elif type(expected) is not type(found) or expected != found:
        yield f"{at}: {_shown(found)}, expected {_shown(expected)}"


def _shown(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, str | dict | list) else repr(value)
    return text if len(text) <= _MOST_OF_A_VALUE else f"{text[:_MOST_OF_A_VALUE]}..."


def _onnx(expected: Path, found: Path) -> Iterator[str]:
    import onnx

    return _messages(
        _parsed(onnx.ModelProto, expected), _parsed(onnx.ModelProto, found)
    )


def _saved_models(expected: Path, found: Path) -> Iterator[str]:
    from tensorflow.core.protobuf import saved_model_pb2

    kind = saved_model_pb2.SavedModel
    return _messages(_parsed(kind, expected), _parsed(kind, found))


def _parsed(kind: Any, path: Path) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _messages(expected: Any, found: Any, at: str = "") -> Iterator[str]:
    """Compares protobuf messages of one type, field by field."""
    if expected == found:
        return
    for field in expected.DESCRIPTOR.fields:
        place = f"{at}.{field.name}" if at else field.name
        wanted, given = getattr(expected, field.name), getattr(found, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            for key in sorted(wanted.keys() | given.keys()):
                if key not in wanted or key not in given:
                    kind = "missing" if key in wanted else "unexpected"
                    yield f"{place}[{key!r}]: {kind}"
                else:
                    yield from _fields(wanted[key], given[key], f"{place}[{key!r}]")
        elif isinstance(wanted, str | bytes) or not hasattr(wanted, "__len__"):
            yield from _fields(wanted, given, place)
        else:
            for number, (one, other) in enumerate(zip(wanted, given)):
                name = getattr(one, "name", "") or number
                yield from _fields(one, other, f"{place}[{name}]")
            if len(wanted) != len(given):
                yield f"{place}: {len(given)} elements, expected {len(wanted)}"


def _fields(expected: Any, found: Any, at: str) -> Iterator[str]:
    if hasattr(expected, "DESCRIPTOR"):
        yield from _messages(expected, found, at)
    elif isinstance(expected, bytes) and expected != found:
        yield f"{at}: {_first_byte(expected, found)}"
    else:
        yield from _values(expected, found, at)


def _tflite(expected: Path, found: Path) -> Iterator[str]:
    return _values(_flatbuffer(expected), _flatbuffer(found), "")


def _flatbuffer(path: Path) -> Any:
    """Returns the fields of a TFLite file, as JSON values and arrays."""
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    except Exception as error:  # Of offsets that lead anywhere.
        raise ValueError(f"no TFLite file ({type(error).__name__})") from error
    return _plain(model)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if hasattr(value, "__dict__"):
        return {name: _plain(one) for name, one in vars(value).items()}
    return value


def _variables(expected: Path, found: Path) -> Iterator[str]:
    """Compares the variables of a TensorFlow checkpoint, for either of its files."""
    wanted, given = (
        open_checkpoint(path.parent / _VARIABLES, check_layout=False)
        for path in (expected, found)
    )
    return _values(dict(wanted), dict(given), "")
