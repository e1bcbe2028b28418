"""Makes artifacts, ours and the stock tools', each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

STOCK_ONNX = "stock-onnx-float32"
STOCK_TFLITE = {
    "tflite-float32": "stock-tflite-float32",
    "tflite-float16": "stock-tflite-float16",
    "tflite-dynamic-int8": "stock-tflite-dynamic-int8",
    "tflite-int8": "stock-tflite-int8",
}


def run_apart(*arguments: str) -> tuple[float, int]:
    """Runs a module of Python in a process of its own.

    Returns:
      Wall time in seconds, and the largest resident memory in bytes.

    Raises:
      RuntimeError: it failed; with the end of what it printed.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{output[-2000:]}")
    return time.monotonic() - start, usage.ru_maxrss * 1024


def export_ours(checkpoint: str, task: str, name: str, path: str, figures: str) -> None:
    """Makes one artifact; entry point of a process.

    Writes to the JSON file `figures` the seconds that writing took once the graphs were
    built, and the peak of memory beyond what was held then.
    """
    from checkpoints.reader import open_checkpoint
    from exporters import formats
    from exporters.artifact import ExportInputs, ExportOptions
    from exporters.calibration import calibration_images
    from exporters.network.graphs import NetworkGraphs

    row = formats.FORMATS[name]
    options = ExportOptions()
    inputs = ExportInputs(
        open_checkpoint(Path(checkpoint)),
        NetworkGraphs(),
        options,
        calibration_images(None, options.image_size),
    )
    inputs.graphs.get()
    if row.published_version:
        inputs.graphs.get(is_training=True)
    held = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Resets the peak, VmHWM.
    start = time.monotonic()
    row.write(inputs, task, Path(path))
    found = {
        "write_seconds": time.monotonic() - start,
        "write_memory": _memory("VmHWM") - held,
    }
    Path(figures).write_text(json.dumps(found))


def _memory(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def convert_to_tflite(saved_model: str, format_name: str, path: str) -> None:
    """TensorFlow's converter on a SavedModel; entry point of a process."""
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    from exporters.calibration import calibration_images

    model = tf.saved_model.load(saved_model)
    predict = model.signatures["serving_default"]
    fixed = tf.function(lambda images: predict(images)).get_concrete_function(
        tf.TensorSpec([1, 299, 299, 3], tf.float32)
    )
    # The converter's own freezing fails on the graph that TensorFlow 2.21 loads.
    frozen = convert_to_constants.convert_variables_to_constants_v2(fixed)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if format_name != "tflite-float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if format_name == "tflite-float16":
        converter.target_spec.supported_types = [tf.float16]
    if format_name == "tflite-int8":
        images = calibration_images(None, (299, 299)).images
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    Path(path).write_bytes(converter.convert())


if __name__ == "__main__":
    {"ours": export_ours, "tflite": convert_to_tflite}[sys.argv[1]](*sys.argv[2:])
