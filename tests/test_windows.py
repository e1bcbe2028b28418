"""How convolutions and pools move: what files say of it is compared, not only run."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import small_build
from ai_edge_litert import schema_py_generated as schema
from onnx import helper
from small_networks import BLOCK, ONE_OR_TWO_LAYERS

from exporters import parity, windows
from exporters.containers.onnx import container as onnx_files
from exporters.containers.tflite import reader
from exporters.formats import FORMATS, open_artifact
from exporters.network.layers import Conv, Pool
from exporters.network.tasks import TASKS

FORMATS_WITH_WINDOWS = [
    row.name for row in small_build.WRITTEN if row.name.startswith(("onnx", "tflite"))
]
CONVOLUTION, POOL = "left", "max"


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    small_build.install(monkeypatch)


@pytest.fixture(params=FORMATS_WITH_WINDOWS)
def file(request, tmp_path):
    row = FORMATS[request.param]
    path = tmp_path / f"file{row.container.suffix}"
    build = small_build.build(small_build.checkpoint(), small_build.OPTIONS)
    return small_build.write(build, row, TASKS["classification"], path)


def found(path):
    artifact, _ = open_artifact(path)
    with artifact:
        return artifact.windows()


def test_what_was_written_says_what_the_network_does(file):
    said = found(file)
    assert windows.problems(said, BLOCK) == []
    weighted = [each for each in BLOCK.layers if isinstance(each, Conv | Pool)]
    assert said.keys() >= {windows.key(layer.name) for layer in weighted}


@pytest.mark.parametrize("name", [CONVOLUTION, POOL])
@pytest.mark.parametrize(
    "change",
    [
        {"strides": (3, 1)},
        {"size": (9, 9)},
        {"pads": (0, 0, 0, 1)},
        {"pads": None},
        {"others": ("dilations [2, 2]",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_part_counts(file, name, change):
    said = found(file)
    said[name] = dataclasses.replace(said[name], **change)
    (problem,) = windows.problems(said, BLOCK)
    assert problem.startswith(f"{name}: windows of ")
    del said[name]
    (problem,) = windows.problems(said, BLOCK)
    assert problem.startswith(f"{name}: missing; expected windows of ")


def test_what_changes_no_output_is_found_too(tmp_path):
    row = FORMATS["onnx-int8"]
    checkpoint = small_build.checkpoint()
    build = small_build.build(checkpoint, small_build.OPTIONS)
    path = tmp_path / "file.onnx"
    small_build.write(build, row, TASKS["classification"], path)
    model = onnx.load(path)
    (pool,) = (node for node in model.graph.node if node.op_type == "MaxPool")
    pool.attribute.append(helper.make_attribute("storage_order", 1))
    onnx.save(model, path)
    artifact, found_row = open_artifact(path)
    with artifact:
        report = parity.compare(
            artifact,
            small_build.BlockReference(checkpoint),
            small_build.IMAGES,
            found_row.tolerance,
            found_row.precision,
        )
    assert not report.passed
    assert all(output.passed for output in report.outputs.values())
    assert [p.partition(":")[0] for p in report.problems] == [POOL]
    assert "storage_order 1; expected" in report.problems[0]


@pytest.mark.parametrize("attribute", ["pads", "strides", "dilations", "auto_pad"])
def test_attributes_of_onnx(tmp_path, attribute):
    path = tmp_path / "file.onnx"
    build = small_build.build(small_build.checkpoint(), small_build.OPTIONS)
    small_build.write(build, FORMATS["onnx-float32"], TASKS["classification"], path)
    model = onnx.load(path)
    node = next(n for n in model.graph.node if windows.key(n.name) == CONVOLUTION)
    kept = [each for each in node.attribute if each.name != attribute]
    value = "SAME_UPPER" if attribute == "auto_pad" else [2, 2]
    value = [1, 0, 1, 1] if attribute == "pads" else value
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(attribute, value)])
    onnx.save(model, path)
    said = dict(onnx_files._windows(path))
    assert [p.partition(":")[0] for p in windows.problems(said, BLOCK)] == [CONVOLUTION]


@pytest.mark.parametrize(
    ("name", "field"), [(CONVOLUTION, 6), (CONVOLUTION, 8), (POOL, 6), (POOL, 8)]
)
def test_options_of_tflite(tmp_path, name, field):
    path = tmp_path / "file.tflite"
    build = small_build.build(small_build.checkpoint(), small_build.OPTIONS)
    small_build.write(build, FORMATS["tflite-int8"], TASKS["classification"], path)
    data = np.fromfile(path, np.uint8)
    model = schema.Model.GetRootAs(data)
    graph = model.Subgraphs(0)
    (operator,) = (
        each
        for each in map(graph.Operators, range(graph.OperatorsLength()))
        if windows.key(graph.Tensors(each.Outputs(0)).Name().decode()) == name
        and reader._window(model, each)
    )
    options = operator.BuiltinOptions()
    offset = options.Offset(field)
    assert offset
    data[options.Pos + offset] ^= 1
    data.tofile(path)
    reader.seal(path)
    said = reader.read(path).windows()
    assert [p.partition(":")[0] for p in windows.problems(said, BLOCK)] == [name]


@pytest.mark.parametrize("name", [n for n in ONE_OR_TWO_LAYERS if "SAME" in n])
def test_same_padding_is_what_tensorflow_adds(name):
    layer = ONE_OR_TWO_LAYERS[name].layers[0]
    top, left, bottom, right = windows.pads("SAME", layer.window, (1, 1))
    assert (top + bottom, left + right) == (layer.window[0] - 1, layer.window[1] - 1)
    assert bottom - top in (0, 1) and right - left in (0, 1)
    assert windows.pads("SAME", layer.window, (2, 2)) is None
