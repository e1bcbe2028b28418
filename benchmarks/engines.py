"""The engines that run artifacts, and which of them they read.

Their libraries are imported when an artifact is loaded.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from exporters.engines import (
    FLOAT32,
    LITERT,
    ONNX_RUNTIME,
    OPENVINO,
    OpenVino,
    onnx_session,
    openvino_core,
)


class UnknownEngineError(Exception):
    """A name that is no engine's, or that of one that is not installed."""


IMAGE_SIZE = (299, 299)
"""Height and width, in pixels, of all images that artifacts are run on."""

Runner = Callable[[np.ndarray], np.ndarray]
"""Images, float32 [batch, height, width, 3] in [0, 1] -> the artifact's output."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """What artifacts are run with.

    Attributes:
      name: as users type it.
      library: the module it comes from, imported before loading is timed.
      distribution: what is to be installed for it.
      reads: whether it reads the artifact at a path.
      load: loads the artifact at a path, for a number of threads.
      is_own: whether the container of what it reads was made for it.
      load_cached: loads it as users do who let the engine keep what it has compiled, in
        a directory; None if it keeps nothing.
    """

    name: str
    library: str
    distribution: str
    reads: Callable[[Path], bool]
    load: Callable[[Path, int], Runner]
    is_own: bool = True
    load_cached: Callable[[Path, int, Path], Runner] | None = None

    @property
    def version(self) -> str | None:
        """The version that is installed, None if none is."""
        return version(self.distribution)


def version(distribution: str) -> str | None:
    """Returns the version of a distribution that is installed, None if none is."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(names: Iterable[str] | None = None) -> list[Engine]:
    """Returns the engines with these names, those that are installed for None.

    Raises:
      UnknownEngineError: there is no engine of a name, or it is not installed.
    """
    if names is None:
        return [engine for engine in ENGINES if engine.version]
    known = {engine.name: engine for engine in ENGINES}
    chosen = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise UnknownEngineError(
                f"unknown engine {name!r}; there are: {', '.join(known)}"
            )
        if not known[name].version:
            raise UnknownEngineError(
                f"{name} needs {known[name].distribution}, which is not installed"
            )
        chosen.append(known[name])
    return chosen


def _has_suffix(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix in suffixes


def _is_hub_module(path: Path) -> bool:
    return (path / "tfhub_module.pb").is_file()


def _is_saved_model(path: Path) -> bool:
    return (path / "saved_model.pb").is_file() and not _is_hub_module(path)


def _load_onnx(path: Path, threads: int) -> Runner:
    session = onnx_session(path, threads)
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _load_tflite(path: Path, threads: int) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()[0]
    output = interpreter.get_output_details()[0]["index"]
    shape = tuple(details["shape"])

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal shape
        if images.shape != shape:
            interpreter.resize_tensor_input(details["index"], images.shape)
            interpreter.allocate_tensors()
            shape = images.shape
        interpreter.set_tensor(details["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def _openvino(**properties: str) -> Callable[[Path, int], Runner]:
    """Returns what loads with OpenVINO, compiled for the shape of the images."""

    def load(path: Path, threads: int) -> Runner:
        model = OpenVino(
            path,
            {
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                **properties,
            },
            shape=(1, *IMAGE_SIZE, 3),
            pads=False,
        )
        return lambda images: model(images)[0]

    return load


def _openvino_cached(**properties: str) -> Callable[[Path, int, Path], Runner]:
    """Returns what has OpenVINO compile a file as it is, and keep that."""

    def load(path: Path, threads: int, cache: Path) -> Runner:
        given = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        given |= {"CACHE_DIR": str(cache), **properties}
        model = openvino_core().compile_model(path, "CPU", given)
        return lambda images: model(images)[0]

    return load


def _load_saved_model(path: Path, threads: int) -> Runner:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = tf.saved_model.load(str(path))
    return lambda images: model(tf.constant(images)).numpy()


def _load_hub_module(path: Path, threads: int) -> Runner:
    """As hub.Module does: the graph without tags, its variables restored."""
    import tensorflow.compat.v1 as tf
    from tensorflow.core.protobuf import saved_model_pb2

    content = (path / "saved_model.pb").read_bytes()
    saved_model = saved_model_pb2.SavedModel.FromString(content)
    meta_graph = next(
        graph for graph in saved_model.meta_graphs if not graph.meta_info_def.tags
    )
    graph = tf.Graph()
    config = tf.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1
    )
    session = tf.Session(graph=graph, config=config)
    with graph.as_default():
        tf.train.import_meta_graph(meta_graph)
        variables = {v.op.name: v for v in tf.global_variables()}
        saver = tf.train.Saver(variables)
        saver.restore(session, f"{path}/variables/variables")
    signature = meta_graph.signature_def["default"]
    output, images_name = signature.outputs["default"], signature.inputs["images"].name
    return lambda images: session.run(output.name, {images_name: images})


ENGINES = (
    Engine(
        ONNX_RUNTIME.name,
        ONNX_RUNTIME.module,
        ONNX_RUNTIME.distribution,
        _has_suffix(".onnx"),
        _load_onnx,
    ),
    Engine(
        LITERT.name,
        LITERT.module,
        LITERT.distribution,
        _has_suffix(".tflite"),
        _load_tflite,
    ),
    Engine(
        "tensorflow", "tensorflow", "tensorflow", _is_saved_model, _load_saved_model
    ),
    Engine("tensorflow1", "tensorflow", "tensorflow", _is_hub_module, _load_hub_module),
    Engine(
        OPENVINO.name,
        OPENVINO.module,
        OPENVINO.distribution,
        _has_suffix(".onnx", ".tflite", ".xml"),
        _openvino(),
        is_own=False,
        load_cached=_openvino_cached(),
    ),
    Engine(
        "openvino-float32",
        OPENVINO.module,
        OPENVINO.distribution,
        _has_suffix(".onnx", ".tflite", ".xml"),
        _openvino(**FLOAT32),
        is_own=False,
        load_cached=_openvino_cached(**FLOAT32),
    ),
)
