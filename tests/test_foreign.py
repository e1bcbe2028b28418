"""Files of other tools', compared with the checkpoint: of the narrow network.

What other tools themselves make is in test_foreign_files.py.
"""

from __future__ import annotations

import json
import sys
import zipfile

import narrow_network
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from checkpoints import safetensors
from checkpoints import twins as tables
from exporters import verification
from exporters.formats import FORMATS
from exporters.parity import ParityImages

CHECKPOINT = narrow_network.CHECKPOINT
SIZE = (75, 75)
GRAPH = b"\x0a\x0b\x0a\x01x\x12\x06NoOp.."
"""What is recognized as a frozen graph."""


class FewImages(ParityImages):
    """Small ones, since nothing here depends on how many they are."""

    def batches(self, image_size):
        sizes = [image_size] if image_size else [SIZE, (80, 96)]
        return [batch for size in sizes for batch in self._of_size(2, *size)]


IMAGES = FewImages()


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    narrow_network.install(monkeypatch)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    with narrow_network.installed():
        directory = tmp_path_factory.mktemp("reference")
        return narrow_network.NarrowReference(CHECKPOINT, directory)


@pytest.fixture
def verify(tmp_path, reference):
    """Verifies one file, and returns what came of it."""

    def call(path, checkpoint=CHECKPOINT, **options):
        own = reference
        if checkpoint is not CHECKPOINT:
            own = narrow_network.NarrowReference(checkpoint, tmp_path)
        (item,) = verification.verify(
            path, checkpoint, images=IMAGES, reference=own, **options
        ).artifacts
        return item

    return call


def write_onnx(directory, change=lambda model: None, **options):
    """A file of ours that does not say so, changed."""
    model = onnx.load(narrow_network.write(directory, "onnx-float32", **options))
    del model.metadata_props[:]
    change(model)
    path = directory / "foreign.onnx"
    onnx.save(model, path)
    return path


def assert_agrees(item, outputs):
    assert item.error is None
    assert item.passed, item.report.failures()
    assert item.report.outputs.keys() == outputs
    assert item.report.main is not None


def notes(item):
    return " ".join(item.report.notes)


def test_a_file_agrees(tmp_path, verify):
    item = verify(write_onnx(tmp_path))
    assert_agrees(item, {"logits"})
    assert item.result == "agrees"
    assert item.report.format == "ONNX float32"
    assert item.report.task == "classification"
    assert item.report.images == {"75 x 75": 2}
    assert item.report.main.tolerance == FORMATS["onnx-float32"].tolerance
    assert item.report.weights.count == 245
    assert item.identified.relation == "same"
    assert "batch norm folded, 11 classes" in notes(item)
    assert "NHWC images in [0, 1]" in notes(item)


@pytest.mark.parametrize("name", ["foreign.onnx", "graph.pb"])
def test_no_engine_can_be_chosen_for_it(tmp_path, verify, name):
    path = tmp_path / name
    path.write_bytes(write_onnx(tmp_path).read_bytes() if name[0] == "f" else GRAPH)
    item = verify(path, engine="onnxruntime")
    assert item.error.startswith(f"{path} cannot be run by onnxruntime: another tool")


@pytest.mark.slow
def test_channels_first_and_any_size(tmp_path, verify):
    item = verify(write_onnx(tmp_path, nchw=True, image_size=None))
    assert_agrees(item, {"logits"})
    assert item.report.images == {"75 x 75": 2, "80 x 96": 2}
    assert "NCHW images" in notes(item)


@pytest.mark.slow
def test_all_outputs_that_are_known_are_compared(tmp_path, verify):
    item = verify(write_onnx(tmp_path, endpoints=True))
    name = "InceptionResnetV2/{}"
    expected = {"logits", *map(name.format, ("Logits", "Predictions"))}
    expected |= set(map(name.format, ("PreLogitsFlatten", "Conv2d_7b_1x1")))
    assert expected < item.report.outputs.keys()
    assert item.passed, item.report.failures()
    assert "output InceptionResnetV2/Mixed_6a [1, 3, 3, 272] was not compared" in notes(
        item
    )


def test_features(tmp_path, verify):
    item = verify(write_onnx(tmp_path, task="feature_vector"))
    assert_agrees(item, {"feature_vector"})
    assert item.report.task == "feature_vector"
    assert "no classifier" in notes(item)


@pytest.mark.parametrize(
    ("factor", "high"),
    [(1 / 255, 255), pytest.param(2.0, 0.5, marks=pytest.mark.slow)],
)
def test_the_range_that_the_file_takes(tmp_path, verify, factor, high):
    def scale(model):
        for tensor in model.graph.initializer:
            if tensor.name == "InceptionResnetV2/Conv2d_1a_3x3/weights":
                values = numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    item = verify(write_onnx(tmp_path, scale))
    assert_agrees(item, {"logits"})
    assert f"images in [0, {high:g}]" in notes(item)


def test_another_kind_of_pooling(tmp_path, verify):
    """All numbers are the checkpoint's, and the network is another."""

    def change(model):
        pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
        pools[0].op_type = "AveragePool"

    item = verify(write_onnx(tmp_path, change))
    assert item.result == "DIFFERS"
    assert item.report.weights.passed
    assert not item.report.main.passed


@pytest.mark.parametrize(
    "kind", ["weights", pytest.param("BatchNorm/beta", marks=pytest.mark.slow)]
)
def test_one_number_of_another_value(tmp_path, verify, kind):
    name = f"InceptionResnetV2/Mixed_7a/Branch_0/Conv2d_1a_3x3/{kind}"
    values = CHECKPOINT[name].copy()
    values.flat[7] += np.abs(values).mean() / 10
    changed = narrow_network.of(dict(CHECKPOINT) | {name: values})
    item = verify(write_onnx(tmp_path), changed)
    assert item.result == "DIFFERS"
    (wrong,) = item.report.weights.wrong
    assert wrong.startswith("InceptionResnetV2/Mixed_7a/Branch_0/Conv2d_1a_3x3: its ")


@pytest.mark.slow
def test_another_checkpoint(tmp_path, verify):
    item = verify(write_onnx(tmp_path), narrow_network.checkpoint(seed=1))
    assert item.result == "DIFFERS"
    assert "its weights are unrelated to the checkpoint's" in item.report.problems
    assert len(item.report.failures()) == 1 + 1 + 4


@pytest.mark.slow
def test_own_classes(tmp_path, verify):
    other = {
        name: values[..., :5] if "/Logits/Logits/" in name else values
        for name, values in CHECKPOINT.items()
    }
    path = write_onnx(tmp_path, of=narrow_network.of(other, 5))
    item = verify(path)
    assert item.result == "DIFFERS"
    assert not item.report.outputs
    assert (
        "none of its outputs is one of the checkpoint's network" in item.report.problems
    )
    assert "output logits [1, 5] was not compared" in notes(item)
    features = {n: v for n, v in CHECKPOINT.items() if "/Logits/" not in n}
    item = verify(path, narrow_network.of(features, None))
    assert "InceptionResnetV2/Logits/Logits was not compared" in notes(item)


@pytest.mark.slow
def test_coarse_steps_are_no_excuse(tmp_path, verify):
    """The file's own scale would explain anything."""

    def coarsen(model):
        name = "InceptionResnetV2/Repeat/block35_5/Branch_0/Conv2d_1x1/weights"
        (node,) = (node for node in model.graph.node if name in node.input)
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor)
        scale = np.float32(np.abs(values).max() / 2)
        rounded = np.round(values / scale).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(rounded, name))
        model.graph.initializer.append(numpy_helper.from_array(scale, "scale"))
        node.input[list(node.input).index(name)] = "real"
        dequantize = onnx.helper.make_node(
            "DequantizeLinear", [name, "scale"], ["real"]
        )
        model.graph.node.insert(0, dequantize)

    item = verify(write_onnx(tmp_path, coarsen))
    assert item.result == "DIFFERS"
    (wrong,) = item.report.weights.wrong
    assert "block35_5/Branch_0/Conv2d_1x1: its kernel differs by" in wrong


def test_another_network(tmp_path, verify):
    path = tmp_path / "other.safetensors"
    with path.open("wb") as file:
        kernels = {f"{i}": np.ones((3, 3, 16, 16), np.float32) for i in range(20)}
        safetensors.write(file, kernels, {})
    item = verify(path)
    assert item.result == "FAILED"
    assert item.error == (
        f"{path} is safetensors of another tool's, and holds another network: 20 kernels "
        "of 46,080 numbers. Expected inception_resnet_v2."
    )


def test_a_file_that_lacks_its_values(tmp_path, verify):
    path = tmp_path / "external.onnx"
    model = onnx.load(write_onnx(tmp_path))
    onnx.save(model, path, save_as_external_data=True, location="values.bin")
    (tmp_path / "values.bin").unlink()
    item = verify(path)
    assert item.result == "FAILED"
    assert str(path) in item.error and "values.bin" in item.error


def test_a_graph_with_two_inputs(tmp_path, verify):
    def change(model):
        (image,) = model.graph.input
        model.graph.input.append(
            onnx.helper.make_tensor_value_info("more", 1, [1, 75, 75, 3])
        )
        node = onnx.helper.make_node("Add", [image.name, "more"], ["sum"])
        for each in model.graph.node:
            for i, name in enumerate(each.input):
                if name == image.name:
                    each.input[i] = "sum"
        model.graph.node.insert(0, node)

    item = verify(write_onnx(tmp_path, change))
    assert item.result == "FAILED"
    assert "expected one, of images" in item.error


# Weights alone


def write_state_dict(path):
    arrays = {
        theirs: np.ascontiguousarray(tables.to_torch(CHECKPOINT[ours]))
        for ours, theirs in tables.timm_names().items()
    }
    with path.open("wb") as file:
        safetensors.write(file, arrays, {"format": "pt"})
    return path


def test_without_timm_weights_are_compared(tmp_path, verify, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    item = verify(write_state_dict(tmp_path / "state.safetensors"))
    assert item.result == "weights agree" and item.passed
    assert "timm cannot be imported" in item.report.not_run
    assert "pip install 'irv2[timm]'" in item.report.not_run
    assert item.report.weights.count == 245


def test_no_program_that_a_keras_model_brings_is_run(tmp_path, verify):
    path = tmp_path / "lambda.keras"
    with (
        zipfile.ZipFile(narrow_network.write(tmp_path, "keras")) as source,
        zipfile.ZipFile(path, "w") as archive,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                content = content.replace(b'"Dropout"', b'"Lambda"', 1)
            archive.writestr(name, b"{}" if name == "metadata.json" else content)
    item = verify(path)
    assert item.result == "weights agree"
    assert "a Lambda layer, which holds a program" in item.report.not_run


def test_what_came_of_it_as_json(tmp_path, verify):
    item = verify(write_onnx(tmp_path))
    facts = json.loads(json.dumps(item.as_dict(), allow_nan=False))
    assert facts["passed"] is True
    assert facts["identified"]["relation"] == "same"
    assert facts["identified"]["input_range"] == [0, 1]
    assert facts["notes"] == list(item.report.notes)


def test_files_of_no_format_of_ours_are_found_in_directories(tmp_path):
    (tmp_path / "graph.pb").write_bytes(GRAPH)
    (tmp_path / "network.xml").write_text('<?xml version="1.0"?><net name="x"></net>')
    (tmp_path / "notes.xml").write_text('<?xml version="1.0"?><notes></notes>')
    found, skipped = verification.find_artifacts([tmp_path], of_others=True)
    assert [path.name for path in found] == ["graph.pb", "network.xml"]
    assert [path.name for path in skipped] == ["notes.xml"]
