"""A program: other tools on an ONNX or TFLite file of ours.

Quantizers take the images that ours are calibrated on, or those of a file, and are
otherwise left as they come. OpenVINO's own form (IR) is `.xml` with the graph, and `.bin` beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Images = Callable[[], list[np.ndarray]]
Way = Callable[[Path, Path, Images], None]
"""Takes a file, where to write, and the images to calibrate on."""


def main() -> None:
    """Converts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stock_files")
    parser.add_argument("--source", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--way", required=True, choices=WAYS)
    parser.add_argument("--calibration", type=Path, help=".npy file of images")
    given = parser.parse_args()
    WAYS[given.way](given.source, given.output, lambda: _images(given.calibration))


def _images(file: Path | None) -> list[np.ndarray]:
    """Returns images, float32 [1, height, width, 3] in [0, 1]."""
    from exporters.calibration import calibration_images

    images = np.load(file) if file else calibration_images(None, (299, 299)).images
    return [image[None] for image in images]


def _float16(source: Path, output: Path, images: Images) -> None:
    """ONNX Runtime's tool; what goes in and comes out stays float32, as in ours."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(source))
    onnx.save(convert_float_to_float16(model, keep_io_types=True), str(output))


def _onnx_runtime(
    source: Path, output: Path, images: Images, method: str = "MinMax"
) -> None:
    """ONNX Runtime's quantizer: per channel, uint8 activations, int8 kernels."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(images())

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
        calibrate_method=quantization.CalibrationMethod[method],
    )


def _prepared(method: str) -> Way:
    """The same after its own preparation; see "Choosing parameters" there."""

    def way(source: Path, output: Path, images: Images) -> None:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        prepared = output.with_suffix(".prepared.onnx")
        quant_pre_process(source, prepared)
        _onnx_runtime(prepared, output, images, method)

    return way


def _nncf(source: Path, output: Path, images: Images) -> None:
    """NNCF on ONNX."""
    import onnx

    onnx.save(_nncf_quantize(onnx.load(str(source)), images), str(output))


def _nncf_ir(source: Path, output: Path, images: Images) -> None:
    """NNCF on OpenVINO's form, which is what OpenVINO's documentation shows."""
    import openvino

    model = openvino.Core().read_model(source)
    openvino.save_model(_nncf_quantize(model, images), output)


def _nncf_quantize(model: Any, images: Images) -> Any:
    import nncf

    batches = [{"images": batch} for batch in images()]
    return nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))


def _ai_edge_dynamic(source: Path, output: Path, images: Images) -> None:
    """ai-edge-quantizer: int8 kernels."""
    from ai_edge_quantizer import quantizer, recipe

    model = quantizer.Quantizer(str(source))
    model.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    model.quantize().export_model(str(output), overwrite=True)


def _ai_edge_static(source: Path, output: Path, images: Images) -> None:
    """ai-edge-quantizer: int8 throughout, what goes in and comes out as well."""
    from ai_edge_quantizer import quantizer, recipe

    model = quantizer.Quantizer(str(source))
    model.load_quantization_recipe(recipe.static_wi8_ai8())
    _ai_edge_calibrated(model, source, output, images)


def _ai_edge_float_ends(source: Path, output: Path, images: Images) -> None:
    """The same; what goes in and comes out stays float32, as in ours."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

    model = quantizer.Quantizer(str(source))
    model.load_quantization_recipe(recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        model.update_quantization_recipe(
            ".*", end, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
        )
    _ai_edge_calibrated(model, source, output, images)


def _ai_edge_calibrated(model: Any, source: Path, output: Path, images: Images) -> None:
    from ai_edge_litert.interpreter import Interpreter

    (signature,) = Interpreter(str(source)).get_signature_list()
    ranges = model.calibrate({signature: [{"images": batch} for batch in images()]})
    model.quantize(ranges).export_model(str(output), overwrite=True)


def _ir(source: Path, output: Path, images: Images, *, compress: bool = False) -> None:
    import openvino

    model = openvino.convert_model(source)
    openvino.save_model(model, output, compress_to_fp16=compress)


def _ir_float16(source: Path, output: Path, images: Images) -> None:
    _ir(source, output, images, compress=True)


WAYS: Mapping[str, Way] = {
    "float16": _float16,
    "quantize_static": _onnx_runtime,
    "onnxruntime-minmax": _prepared("MinMax"),
    "onnxruntime-percentile": _prepared("Percentile"),
    "nncf": _nncf,
    "nncf-ir": _nncf_ir,
    "ai-edge-dynamic": _ai_edge_dynamic,
    "ai-edge-static": _ai_edge_float_ends,
    "ai-edge-quantizer": _ai_edge_static,
    "ir": _ir,
    "ir-float16": _ir_float16,
}

if __name__ == "__main__":
    main()
