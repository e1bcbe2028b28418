"""A program: TensorFlow's TFLite converter on a SavedModel of ours."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Converts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock_tflite")
    parser.add_argument("--saved-model", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--format", required=True, help="as our own is called")
    parser.add_argument(
        "--calibration", type=Path, help="of images, .npy; default: generated"
    )
    given = parser.parse_args()
    converted = _convert(given.saved_model, given.format, given.calibration)
    given.output.write_bytes(converted)


def _convert(saved_model: str, format: str, calibration: Path | None) -> bytes:
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    from exporters.calibration import calibration_images

    images = np.load(calibration) if calibration else None
    shape = (299, 299, 3) if images is None else images.shape[1:]
    model = tf.saved_model.load(saved_model)
    predict = model.signatures["serving_default"]
    fixed = tf.function(lambda images: predict(images)).get_concrete_function(
        tf.TensorSpec([1, *shape], tf.float32)
    )
    # The converter's own freezing fails on the graph that TensorFlow 2.21 loads.
    frozen = convert_to_constants.convert_variables_to_constants_v2(fixed)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if format != "tflite-float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if format == "tflite-float16":
        converter.target_spec.supported_types = [tf.float16]
    if format == "tflite-int8":
        if images is None:
            images = calibration_images(None, (299, 299)).images
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


if __name__ == "__main__":
    main()
