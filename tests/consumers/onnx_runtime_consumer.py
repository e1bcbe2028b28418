"""Runs the ONNX files as the README does, with ONNX Runtime 1.12 and newer."""

import checks
import onnxruntime


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    (values,) = session.run([output.name], {"images": images})
    return values


def check_onnx_float32(reference):
    checks.assert_agrees(run, "onnx-float32", reference)


def check_onnx_float16(reference):
    checks.assert_agrees(run, "onnx-float16", reference)


def check_onnx_int8(reference):
    checks.assert_agrees(run, "onnx-int8", reference)


if __name__ == "__main__":
    checks.main(globals())
