"""V2 checkpoints of objects, as TensorFlow 2 saves them: variables by their own names.

There a variable is stored by where it is found, as `variables/17/.ATTRIBUTES/
VARIABLE_VALUE`. The names that variables had are in the object graph beside them; where
that has none, as some writers leave it, in the graph of the SavedModel around it.

Messages: tensorflow/core/protobuf/{trackable_object_graph,saved_object_graph,meta_graph,
saved_model}.proto.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from checkpoints import wire
from checkpoints.bundle import Bundle
from checkpoints.errors import damage
from checkpoints.regular_file import open_regular
from checkpoints.tensors import Spec

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_COUNTER = "save_counter/.ATTRIBUTES/VARIABLE_VALUE"
"""Counts how often a process saved."""


class ObjectVariables:
    """The variables of a V2 checkpoint of objects.

    Attributes:
      specs: what there is, by the names that variables had.
    """

    def __init__(self, bundle: Bundle, name: str, saved_model: Path | None = None):
        """Finds the variables' names.

        Args:
          bundle: the checkpoint.
          name: what to call it in errors, usually its path.
          saved_model: the saved_model.pb around it, if there is one.

        Raises:
          CheckpointError: its object graph is damaged.
          OSError: a file cannot be read.
        """
        self._bundle = bundle
        try:
            keys = list(_keys(bundle.read_string(_GRAPH)))
        except ValueError as error:
            raise damage(name, f"its object graph: {error}") from error
        others: dict[int, str] = {}
        if saved_model and not all(full_name for _, _, full_name in keys):
            with open_regular(saved_model) as file:
                try:
                    others = dict(_saved_names(file.read()))
                except ValueError as error:
                    raise damage(str(saved_model), str(error)) from error
        names = {key: full_name or others.get(i, key) for i, key, full_name in keys}
        # A name that several have says of none of them which one it is.
        uses = collections.Counter(names.values())
        self._keys = {
            names[key] if uses[names.get(key, "")] == 1 else key: key
            for key in bundle.specs
            if key not in _NOT_USED
        }
        self.specs: dict[str, Spec] = {
            name: bundle.specs[key] for name, key in self._keys.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Reads the values of a variable.

        Raises:
          KeyError: there is no such variable.
          CheckpointError: its values cannot be read.
          OSError: a file of values cannot be read.
        """
        return self._bundle.read(self._keys[name])


_NOT_USED = (_GRAPH, _COUNTER)


def is_of_objects(bundle: Bundle) -> bool:
    """Returns whether a V2 checkpoint is one of objects."""
    return _GRAPH in bundle.specs


def _keys(graph: bytes) -> Iterator[tuple[int, str, str]]:
    """Number of each object with a value, the value's key, and the variable's name."""
    for number, node in enumerate(_messages(graph, 1)):
        for attribute in _messages(node, 2):
            texts = {}
            for field in wire.fields(attribute):
                match field:
                    case int(kind), memoryview() as text:
                        texts[kind] = str(text, "utf-8")
            yield number, texts.get(3, ""), texts.get(2, "")


def _saved_names(saved_model: bytes) -> Iterator[tuple[int, str]]:
    """Number of each variable among the objects of a SavedModel, and its name."""
    for meta_graph in _messages(saved_model, 2):
        for graph in _messages(meta_graph, 7):
            for number, node in enumerate(_messages(graph, 1)):
                for variable in _messages(node, 7):
                    for name in _messages(variable, 6):
                        yield number, str(name, "utf-8")


def _messages(message: wire.Buffer, number: int) -> Iterator[memoryview]:
    """The fields of a number that hold bytes."""
    for field in wire.fields(message):
        match field:
            case found, memoryview() as content if found == number:
                yield content
