"""Runs the ONNX and TFLite files with OpenVINO, in float32 where they are.

On processors with bfloat16 instructions, OpenVINO uses them unless it is told not to.
"""

import checks
import openvino

CORE = openvino.Core()


def run(path, images):
    model = CORE.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return model(images)[0]


def check_onnx_float32(reference):
    checks.assert_agrees(run, "onnx-float32", reference)


def check_onnx_float16(reference):
    checks.assert_agrees(run, "onnx-float16", reference)


def check_onnx_int8(reference):
    checks.assert_agrees(run, "onnx-int8", reference)


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
