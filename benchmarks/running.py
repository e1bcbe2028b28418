"""Load time, latency and throughput of artifacts, several in turn in one process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

THREADS = 2
_SECONDS_PER_ARTIFACT = 6.0
_MINIMUM_RUNS = 5


def load_onnx(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """With ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # Else threads that wait for the next run slow down what is measured in turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def load_tflite(path: str) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=THREADS)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()[0]
    output = interpreter.get_output_details()[0]["index"]
    batch = [details["shape"][0]]

    def run(images: np.ndarray) -> np.ndarray:
        if len(images) != batch[0]:
            interpreter.resize_tensor_input(details["index"], images.shape)
            interpreter.allocate_tensors()
            batch[0] = len(images)
        interpreter.set_tensor(details["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def load_saved_model(path: str) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    model = tf.saved_model.load(path)
    return lambda images: model(tf.constant(images)).numpy()


def load_hub_module(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """As hub.Module does: the graph without tags, its variables restored."""
    import tensorflow.compat.v1 as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString(
        (Path(path) / "saved_model.pb").read_bytes()
    )
    meta_graph = next(
        graph for graph in saved_model.meta_graphs if not graph.meta_info_def.tags
    )
    graph = tf.Graph()
    session = tf.Session(graph=graph)
    with graph.as_default():
        tf.train.import_meta_graph(meta_graph)
        variables = {v.op.name: v for v in tf.global_variables()}
        saver = tf.train.Saver(variables)
        saver.restore(session, f"{path}/variables/variables")
    signature = meta_graph.signature_def["default"]
    output, images_name = signature.outputs["default"], signature.inputs["images"].name
    return lambda images: session.run(output.name, {images_name: images})


def loader(path: str) -> Callable[[str], Callable[[np.ndarray], np.ndarray]]:
    """The consumer library of an artifact."""
    if path.endswith(".onnx"):
        return load_onnx
    if path.endswith(".tflite"):
        return load_tflite
    is_module = (Path(path) / "tfhub_module.pb").is_file()
    return load_hub_module if is_module else load_saved_model


def _import_libraries(paths: list[str]) -> None:
    """Imports what loading needs, which is not part of loading."""
    if any(path.endswith(".onnx") for path in paths):
        import onnxruntime  # noqa: F401
    if any(path.endswith(".tflite") for path in paths):
        import ai_edge_litert.interpreter  # noqa: F401
    if any(Path(path).is_dir() for path in paths):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def measure(paths: list[str]) -> list[dict[str, float]]:
    """Measures artifacts that are to be compared, one run of each in turn.

    Returns:
      For each: `load` seconds, `latency` (median seconds of a batch of 1), and
      `throughput` (images per second in batches of 8, from the median batch).
    """
    from exporters import images

    _import_libraries(paths)
    figures, runners = [], []
    for path in paths:
        start = time.monotonic()
        runners.append(loader(path)(path))
        figures.append({"load": time.monotonic() - start})
    for batch_size in (1, 8):
        batch = images.generate(batch_size, 299, 299, seed=4)
        for run in runners:
            run(batch)
        times: list[list[float]] = [[] for _ in runners]
        end = time.monotonic() + _SECONDS_PER_ARTIFACT * len(runners)
        while len(times[0]) < _MINIMUM_RUNS or time.monotonic() < end:
            for run, record in zip(runners, times):
                start = time.monotonic()
                run(batch)
                record.append(time.monotonic() - start)
        for figure, record in zip(figures, times):
            median = float(np.median(record))
            if batch_size == 1:
                figure["latency"] = median
            else:
                figure["throughput"] = batch_size / median
    return figures


if __name__ == "__main__":
    result, *measured = sys.argv[1:]
    Path(result).write_text(json.dumps(measure(measured)))
