"""A program: other tools on an ONNX or TFLite file of ours.

Quantizers take the images that ours are calibrated on, and are otherwise left as they
come. OpenVINO's own form (IR) is `.xml` with the graph, and `.bin` beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Converts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock_files")
    parser.add_argument("--source", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--way", required=True, choices=WAYS)
    given = parser.parse_args()
    WAYS[given.way](given.source, given.output)


def _images() -> list[np.ndarray]:
    """Returns images, float32 [1, height, width, 3] in [0, 1]."""
    from exporters.calibration import calibration_images

    return [image[None] for image in calibration_images(None, (299, 299)).images]


def _float16(source: Path, output: Path) -> None:
    """ONNX Runtime's tool; what goes in and comes out stays float32, as in ours."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(source))
    onnx.save(convert_float_to_float16(model, keep_io_types=True), str(output))


def _quantize_static(source: Path, output: Path) -> None:
    """ONNX Runtime's quantizer: per channel, uint8 activations, int8 kernels."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(_images())

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(({"images": batch} for batch in self._batches), None)

    quantization.quantize_static(
        source,
        output,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )


def _nncf(source: Path, output: Path) -> None:
    """NNCF on ONNX."""
    import nncf
    import onnx

    quantized = nncf.quantize(onnx.load(str(source)), _nncf_dataset())
    onnx.save(quantized, str(output))


def _nncf_ir(source: Path, output: Path) -> None:
    """NNCF on OpenVINO's form, which is what OpenVINO's documentation shows."""
    import nncf
    import openvino

    quantized = nncf.quantize(openvino.Core().read_model(source), _nncf_dataset())
    openvino.save_model(quantized, output)


def _nncf_dataset() -> Any:
    import nncf

    return nncf.Dataset([{"images": batch} for batch in _images()])


def _ai_edge_dynamic(source: Path, output: Path) -> None:
    """ai-edge-quantizer: int8 kernels."""
    from ai_edge_quantizer import quantizer, recipe

    model = quantizer.Quantizer(str(source))
    model.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    model.quantize().export_model(str(output), overwrite=True)


def _ai_edge_static(source: Path, output: Path) -> None:
    """ai-edge-quantizer: int8 throughout; what goes in and comes out stays float32."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

    model = quantizer.Quantizer(str(source))
    model.load_quantization_recipe(recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        model.update_quantization_recipe(
            ".*", end, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
        )
    batches = [{"images": batch} for batch in _images()]
    ranges = model.calibrate({"serving_default": batches})
    model.quantize(ranges).export_model(str(output), overwrite=True)


def _ir(source: Path, output: Path, *, compress: bool = False) -> None:
    import openvino

    model = openvino.convert_model(source)
    openvino.save_model(model, output, compress_to_fp16=compress)


def _ir_float16(source: Path, output: Path) -> None:
    _ir(source, output, compress=True)


WAYS: Mapping[str, Callable[[Path, Path], None]] = {
    "float16": _float16,
    "quantize_static": _quantize_static,
    "nncf": _nncf,
    "nncf-ir": _nncf_ir,
    "ai-edge-dynamic": _ai_edge_dynamic,
    "ai-edge-static": _ai_edge_static,
    "ir": _ir,
    "ir-float16": _ir_float16,
}

if __name__ == "__main__":
    main()
