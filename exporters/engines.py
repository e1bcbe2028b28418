"""Engines that artifacts can be run with in place of their own.

A container's own engine opens its files for all that is not running: their record, their
weights. Another one computes what they give.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.artifact import first_line
from exporters.errors import ArtifactError, MissingLibraryError, is_of_the_machine

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@dataclasses.dataclass(frozen=True)
class Library:
    """Where an engine comes from.

    Attributes:
      name: of the engine, as users type it.
      module: what is imported.
      distribution: what is installed for it.
      install: the words behind `pip install`.
    """

    name: str
    module: str
    distribution: str
    install: str


ONNX_RUNTIME = Library("onnxruntime", "onnxruntime", "onnxruntime", "irv2")
LITERT = Library("litert", "ai_edge_litert.interpreter", "ai-edge-litert", "irv2")
OPENVINO = Library("openvino", "openvino", "openvino", "'irv2[openvino]'")
LIBRARIES = {library.name: library for library in (ONNX_RUNTIME, LITERT, OPENVINO)}

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
"""Has OpenVINO compute in float32, also where the processor has bfloat16."""


def check(name: str | None) -> None:
    """Refuses an engine that is unknown, or not there, before any work is done.

    Args:
      name: of the engine; None for each artifact's own.

    Raises:
      ArtifactError: there is no such engine.
      MissingLibraryError: its library is not there.
    """
    if name is None:
        return
    if name not in LIBRARIES:
        raise ArtifactError(
            f"unknown engine {name!r}; there are: {', '.join(LIBRARIES)}."
        )
    library = LIBRARIES[name]
    try:
        importlib.import_module(library.module)
    except ImportError as error:
        raise MissingLibraryError(
            f"--engine {name} needs {library.distribution}: "
            f"pip install {library.install}"
        ) from error


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def onnx_session(model: Path | bytes, threads: int | None = None) -> InferenceSession:
    """Opens an ONNX model with ONNX Runtime, on the processor.

    Args:
      model: the file, or its content.
      threads: how many it may use; None for as many as there are processors for us.

    Raises:
      Exception: one of ONNX Runtime's own.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    # Else threads that wait for the next run slow down what others do in between: those
    # that read images, or another engine that is measured in turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=["CPUExecutionProvider"],
    )


@functools.cache
def openvino_core() -> Any:
    """OpenVINO, the same for all models of the process.

    Each `Core` takes the place of the stack that signals are handled on, and puts the one
    before back when it goes. Several, gone in the order they came in, leave one that is
    no more: the next signal, such as Ctrl-C, would crash the process.
    """
    import openvino

    return openvino.Core()


class OpenVino:
    """A model that OpenVINO runs on the processor, compiled for the shape of its input."""

    def __init__(
        self,
        path: Path,
        properties: dict[str, Any] = FLOAT32,
        *,
        shape: tuple[int, ...] | None = None,
        pads: bool = True,
    ) -> None:
        """Reads a model.

        Args:
          path: an ONNX or a TFLite file.
          properties: of `Core.compile_model`.
          shape: of the input to compile for at once; None to wait for the first.
          pads: whether a batch that is smaller than the one before is filled up, which
            costs less than compiling once more.

        Raises:
          ArtifactError: OpenVINO cannot read it.
        """
        self._path, self._properties, self._pads = path, properties, pads
        self._core = openvino_core()
        self._shape: tuple[int, ...] | None = None
        try:
            self._model = self._core.read_model(path)
            if shape:
                self._compile(shape)
        except Exception as error:  # It raises RuntimeError for all there is.
            raise self._trouble("read", error) from error

    def _trouble(self, verb: str, error: Exception) -> Exception:
        if is_of_the_machine(error):
            return error
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        last = said[-1] if said else first_line(error)
        return ArtifactError(f"OpenVINO cannot {verb} {self._path}: {last}")

    def _compile(self, shape: tuple[int, ...]) -> None:
        self._model.reshape(list(shape))
        self._compiled = self._core.compile_model(self._model, "CPU", self._properties)
        self._shape = shape

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Runs a batch.

        Args:
          images: [batch, ...], in the layout and the type of the file's input.

        Returns:
          What each output of the file gives, in their order.

        Raises:
          ArtifactError: OpenVINO cannot run it.
        """
        count = len(images)
        try:
            if self._pads and self._shape and count < self._shape[0]:
                rest = (self._shape[0] - count, *images.shape[1:])
                images = np.concatenate([images, np.zeros(rest, images.dtype)])
            if images.shape != self._shape:
                self._compile(images.shape)
            found = self._compiled(images)
            return [np.array(found[x][:count]) for x in self._compiled.outputs]
        except Exception as error:
            raise self._trouble("run", error) from error
