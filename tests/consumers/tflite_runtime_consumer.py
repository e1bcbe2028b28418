"""Runs the TFLite files as the README does, with tflite-runtime 2.7 and newer.

LiteRT, which replaced it, is what the other tests run them with.
"""

import checks
import numpy as np
from tflite_runtime.interpreter import Interpreter


def run(path, images):
    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    (images_in,) = interpreter.get_input_details()
    (output,) = interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(images_in["index"], image[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(output["index"]))
    return np.concatenate(rows)


def check_tflite_float32(reference):
    checks.assert_agrees(run, "tflite-float32", reference)


def check_tflite_float16(reference):
    checks.assert_agrees(run, "tflite-float16", reference)


def check_tflite_dynamic_int8(reference):
    checks.assert_agrees(run, "tflite-dynamic-int8", reference)


def check_tflite_int8(reference):
    checks.assert_agrees(run, "tflite-int8", reference)


def check_tflite_int8_full_integer(reference):
    checks.assert_agrees(run, "tflite-int8", reference, "-full-integer")


if __name__ == "__main__":
    checks.main(globals())
