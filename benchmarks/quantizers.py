"""A program: other tools' quantization, of a float32 file of ours, to int8.

Each is called as its documentation says, for int8 kernels by channel and int8 activations
by measured ranges, on the images that ours is calibrated on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np


def main() -> None:
    """Quantizes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantizers")
    parser.add_argument("--tool", required=True, choices=sorted(TOOLS))
    parser.add_argument("--source", required=True, type=Path)
    parser.add_argument("--calibration", required=True, type=Path, help="of images")
    parser.add_argument("--output", required=True, type=Path)
    given = parser.parse_args()
    TOOLS[given.tool](given.source, np.load(given.calibration), given.output)


def _minmax(source: Path, images: np.ndarray, output: Path) -> None:
    _onnx_runtime(source, images, output, "MinMax")


def _percentile(source: Path, images: np.ndarray, output: Path) -> None:
    _onnx_runtime(source, images, output, "Percentile")


def _onnx_runtime(source: Path, images: np.ndarray, output: Path, method: str) -> None:
    """Activations in uint8, as for processors; see "Choosing parameters" there."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"images": image[np.newaxis]}

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantization.quantize_static(
        prepared,
        output,
        Reader(),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[method],
    )


def _nncf(source: Path, images: np.ndarray, output: Path) -> None:
    import nncf
    import onnx

    dataset = nncf.Dataset([{"images": image[np.newaxis]} for image in images])
    quantized = nncf.quantize(onnx.load(source), dataset, subset_size=len(images))
    onnx.save(quantized, output)


def _ai_edge_quantizer(source: Path, images: np.ndarray, output: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    (signature,) = Interpreter(str(source)).get_signature_list()
    given = [{"images": image[np.newaxis]} for image in images]
    tool = quantizer.Quantizer(str(source))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    found = tool.calibrate({signature: given})
    tool.quantize(found).export_model(str(output))


TOOLS: dict[str, Callable[[Path, np.ndarray, Path], None]] = {
    "onnxruntime-minmax": _minmax,
    "onnxruntime-percentile": _percentile,
    "nncf": _nncf,
    "ai-edge-quantizer": _ai_edge_quantizer,
}

if __name__ == "__main__":
    main()
