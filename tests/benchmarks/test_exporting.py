"""Which tools make what."""

from pathlib import Path

from benchmarks import exporting
from exporters.formats import FORMATS


def test_formats_that_stock_tools_make_too(tmp_path):
    recipes = [exporting.stock(row, Path, tmp_path) for row in FORMATS.values()]
    assert {recipe.row.name: recipe.tool for recipe in recipes if recipe} == {
        "onnx-float32": "tf2onnx",
        "tflite-float32": "TensorFlow's converter",
        "tflite-float16": "TensorFlow's converter",
        "tflite-dynamic-int8": "TensorFlow's converter",
        "tflite-int8": "TensorFlow's converter",
    }
