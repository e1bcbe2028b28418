"""A TFLite file cut behind layers: the same operators and weights, more in- and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from exporters.artifact import Sections
from exporters.containers.tflite.flatbuffer import pack
from exporters.network.quantization import Quantization

_GIVEN = "/given"
"""Ends the name of what stands in for a layer's output."""


def cut(
    path: Path,
    layers: Sequence[str],
    as_input: Callable[[np.ndarray], np.ndarray],
    num_threads: int | None,
) -> Sections:
    """Cuts a file that `write` made.

    Args:
      path: the file.
      layers: behind which to cut, in the network's order; those that the file does not
        have are passed over.
      as_input: images as `OpenedArtifact.run` takes them -> as the file does.
      num_threads: to run it with.
    """
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    model.signatureDefs = []
    (graph,) = model.subgraphs
    indices = {tensor.name.decode(): i for i, tensor in enumerate(graph.tensors)}
    cuts = {layer: indices[layer] for layer in layers if layer in indices}
    (images_index,) = graph.inputs
    graph.outputs = list(cuts.values())
    whole = _interpreter(model, num_threads)
    fed = _feed(graph, {layer: cuts[layer] for layer in list(cuts)[:-1]})
    parted = _interpreter(model, num_threads)

    def run(
        interpreter: Interpreter, feed: Mapping[int, np.ndarray], count: int
    ) -> dict[str, np.ndarray]:
        """Runs images one by one."""
        rows: dict[str, list[np.ndarray]] = {layer: [] for layer in cuts}
        for number in range(count):
            for index, values in feed.items():
                interpreter.set_tensor(index, values[number : number + 1])
            interpreter.invoke()
            for layer, index in cuts.items():
                rows[layer].append(_to_array(interpreter, index))
        return {layer: np.concatenate(found) for layer, found in rows.items()}

    def through(images: np.ndarray) -> dict[str, np.ndarray]:
        return run(whole, {images_index: as_input(images)}, len(images))

    def apart(
        images: np.ndarray, given: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        feed = {
            index: _to_value(parted, index, given[layer])
            for layer, index in fed.items()
        }
        return run(parted, {images_index: as_input(images), **feed}, len(images))

    return Sections(tuple(cuts), through, apart)


def _feed(graph: schema.SubGraphT, cuts: Mapping[str, int]) -> dict[str, int]:
    """Lets what follows each layer read a new input in the place of its output.

    Returns:
      Layer -> the input's tensor.
    """
    fed = {}
    for layer, index in cuts.items():
        given = copy(graph.tensors[index])
        given.name = f"{layer}{_GIVEN}"
        fed[layer] = len(graph.tensors)
        graph.tensors.append(given)
    instead = {cuts[layer]: index for layer, index in fed.items()}
    for operator in graph.operators:
        operator.inputs = [instead.get(index, index) for index in operator.inputs]
    graph.inputs = [*graph.inputs, *fed.values()]
    return fed


def _interpreter(model: schema.ModelT, num_threads: int | None) -> Interpreter:
    interpreter = Interpreter(model_content=bytes(pack(model)), num_threads=num_threads)
    interpreter.allocate_tensors()
    return interpreter


def _to_value(interpreter: Interpreter, index: int, array: np.ndarray) -> np.ndarray:
    """Returns an output as the file holds it."""
    details = _details(interpreter)[index]
    if quantized := quantization_of(details):
        return quantized.quantize(array, details["dtype"])
    return array.astype(np.float32)


def _to_array(interpreter: Interpreter, index: int) -> np.ndarray:
    """Returns what the file computed, as float32."""
    values = interpreter.get_tensor(index)
    if quantized := quantization_of(_details(interpreter)[index]):
        values = quantized.dequantize(values)
    return values.astype(np.float32)


def _details(interpreter: Interpreter) -> dict[int, dict[str, Any]]:
    found = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    return {details["index"]: details for details in found}


def quantization_of(details: Mapping[str, Any]) -> Quantization | None:
    """Returns the quantization of a tensor, None for float32."""
    if details["dtype"] == np.float32:
        return None
    scale, zero_point = details["quantization"]
    return Quantization(np.array([scale], np.float32), zero_point)
