"""Checkpoints as training leaves them: dead channels, tiny variances, large activations.

Stand-ins have none of these.
"""

from pathlib import Path

import numpy as np
import pytest
import small_build
from small_networks import BLOCK

from checkpoints.reader import Checkpoint
from exporters import images, parity
from exporters.build import Build, ExportOptions
from exporters.calibration import CalibrationImages
from exporters.errors import ExportError
from exporters.formats import FORMATS, open_artifact
from exporters.network.layers import Add, Conv, inputs_of
from exporters.network.quantization import Precision
from exporters.network.tasks import TASKS
from exporters.parity import ParityImages
from exporters.reference import Reference

WRITTEN = small_build.WRITTEN
INT8 = Precision("int8", "int8")
LARGE = 1e5


def as_trained(network, variables, *, large=LARGE):
    """Changes what changes no output, or little; returns other variables.

    In each layer with batch norm, one channel is dead and has no variance left, and one
    has almost none. One channel of the first sum is `large` times as large as the others;
    what reads it makes up for that.
    """
    changed = {name: value.copy() for name, value in variables.items()}
    for layer in network.weighted:
        if not isinstance(layer, Conv) or not layer.normalized:
            continue
        scope, norm = layer.scope, f"{layer.scope}/BatchNorm"
        changed[f"{scope}/weights"][..., 0] = 0
        changed[f"{norm}/moving_mean"][0] = 0
        changed[f"{norm}/moving_variance"][0] = 0
        changed[f"{scope}/weights"][..., 1] *= 1e-3
        changed[f"{norm}/moving_mean"][1] *= 1e-3
        changed[f"{norm}/moving_variance"][1] = 1e-6
    if large:
        sum_ = next(layer for layer in network.layers if isinstance(layer, Add))
        by_name = {layer.name: layer for layer in network.layers}
        projection = by_name[sum_.inputs[1]]
        changed[f"{projection.scope}/weights"][..., 2] *= large
        changed[f"{projection.scope}/biases"][2] = large
        for layer in network.weighted:
            if sum_.name in inputs_of(layer):
                changed[f"{layer.scope}/weights"][..., 2, :] /= large
    return changed


# On a small block, in every format


@pytest.fixture
def trained(monkeypatch) -> Checkpoint:
    small_build.install(monkeypatch)
    return small_build.checkpoint(**as_trained(BLOCK, small_build.checkpoint()))


def compare(build, reference, row, path, parity_images=small_build.IMAGES):
    small_build.write(build, row, TASKS["classification"], path)
    artifact, _ = open_artifact(path)
    with artifact:
        return parity.compare(
            artifact, reference, parity_images, row.tolerance, row.precision
        )


def check(report, row):
    """Float formats agree; integers are right, whatever images look like in them."""
    assert report.weights.wrong == ()
    assert report.problems == ()
    assert np.isfinite(report.main.max_error)
    if row.precision.activations != "int8":
        assert report.passed, report.failures()


@pytest.mark.parametrize("row", WRITTEN, ids=lambda row: row.name)
def test_every_format_holds_what_training_leaves(trained, row, tmp_path):
    reference = small_build.BlockReference(trained)
    path = tmp_path / "file"
    if row.precision.activations == "float16":
        with pytest.raises(ExportError, match="too much for float16"):
            compare(small_build.build(trained), reference, row, path)
        mild = as_trained(BLOCK, small_build.checkpoint(), large=0)
        trained = small_build.checkpoint(**mild)
        reference = small_build.BlockReference(trained)
    check(compare(small_build.build(trained), reference, row, path), row)


def test_nothing_overflows(trained):
    build = small_build.build(trained)
    with np.errstate(all="raise", under="ignore"):
        quantized = build.quantized(INT8)
    assert build.statistics.ranges["sum/Relu"][1] > 1e4
    for of in build.weights().values():
        assert np.isfinite(of.kernel).all()
        assert np.isfinite(of.bias).all()
    limits = np.iinfo(np.int32)
    for of in quantized.weights.values():
        assert not np.isin(of.bias.values, [limits.min, limits.max]).any()
        for integers in (of.kernel, of.bias):
            scale = integers.quantization.scale
            assert (np.isfinite(scale) & (scale > 0)).all()


@pytest.mark.parametrize("row", WRITTEN, ids=lambda row: row.name)
def test_layers_that_are_dead_altogether(trained, row, tmp_path):
    """And what reads nothing but zeros."""
    variables = {name: value.copy() for name, value in small_build.checkpoint().items()}
    for name in ("left", "right"):
        for part in ("weights", "BatchNorm/beta", "BatchNorm/moving_mean"):
            variables[f"scope/{name}/Relu/{part}"][:] = 0
        variables[f"scope/{name}/Relu/BatchNorm/moving_variance"][:] = 0
    variables["scope/up/weights"][:] = 0
    variables["scope/up/biases"][:] = 0
    checkpoint = small_build.checkpoint(**variables)
    reference = small_build.BlockReference(checkpoint)
    build = small_build.build(checkpoint)
    report = compare(build, reference, row, tmp_path / "file")
    assert report.passed, report.failures()


# The real network


@pytest.mark.slow
def test_the_real_network(raw_variables, graphs, build, tmp_path):
    size = (96, 96)
    images_ = CalibrationImages(images.generate(4, *size, seed=2), "generated")
    options = ExportOptions(image_size=size)

    def build_of(large):
        variables = as_trained(build.network, raw_variables, large=large)
        checkpoint = Checkpoint(variables, path=Path("trained.ckpt"))
        return Build(checkpoint, options, images_, graphs=graphs)

    trained = build_of(LARGE)
    parity_images = ParityImages()
    with Reference(trained.checkpoint, graphs) as reference:
        for name in ("onnx-float32", "onnx-int8", "tflite-int8"):
            row = FORMATS[name]
            path = tmp_path / f"file{row.container.suffix}"
            check(compare(trained, reference, row, path, parity_images), row)
    # Residuals are scaled by 0.17 before they are added.
    with pytest.raises(ExportError, match="too much for float16"):
        row, task = FORMATS["onnx-float16"], TASKS["classification"]
        small_build.write(build_of(10 * LARGE), row, task, tmp_path / "half")
