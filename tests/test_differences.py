"""Where two files first differ, in words that lead to the place."""

import json

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import helper

from exporters.differences import first_difference


def write_json(path, value):
    path.write_text(json.dumps(value))


@pytest.fixture
def pair(tmp_path):
    """Two directories with the same name in them."""
    for name in ("a", "b"):
        (tmp_path / name / "thing").mkdir(parents=True)
    return tmp_path / "a" / "thing", tmp_path / "b" / "thing"


def test_nothing_differs(pair):
    for directory in pair:
        (directory / "below").mkdir()
        (directory / "below" / "file").write_bytes(b"same")
    assert first_difference(*pair) is None


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        ({"x": b"1"}, {}, "x: missing"),
        ({}, {"x": b"1"}, "x: unexpected"),
        ({"x": b"123"}, {"x": b"1293"}, "x: byte 2 of 4, expected 3 bytes"),
        ({"x": b"12"}, {"x": b"123"}, "x: byte 2 of 3, expected 2 bytes"),
        ({"b": b"1", "c": b"1"}, {"b": b"2", "a": b"1"}, "a: unexpected"),
    ],
)
def test_files(pair, expected, found, said):
    for directory, content in zip(pair, (expected, found)):
        for name, value in content.items():
            (directory / name).write_bytes(value)
    assert first_difference(*pair) == said


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "b: 3, expected 2"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 5]}}, "a.b[1]: 5, expected 2"),
        ({"a": [1]}, {"a": [1, 2]}, "a: 2 elements, expected 1"),
        ({"a": 1}, {}, "a: missing"),
        ({}, {"a": 1}, "a: unexpected"),
        ({"a": 1}, {"a": True}, "a: True, expected 1"),
        ({"a": "x" * 99}, {"a": ""}, f'a: "", expected "{"x" * 59}...'),
    ],
)
def test_json(tmp_path, expected, found, said):
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, value in zip(paths, (expected, found)):
        write_json(path, value)
    assert first_difference(*paths) == f"b.json: {said}"


def test_json_that_says_the_same_in_other_bytes(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "b.json").write_text('{"a":1}')
    found = first_difference(tmp_path / "a.json", tmp_path / "b.json")
    assert found == "b.json: byte 5 of 7, expected 8 bytes"


def model():
    node = helper.make_node("Add", ["x", "w"], ["y"], name="sum")
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    weight = onnx.numpy_helper.from_array(np.ones(2, np.float32), "w")
    graph = helper.make_graph([node], "g", [value], [result], [weight])
    made = helper.make_model(graph)
    helper.set_model_props(made, {"irv2": "record"})
    return made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda m: setattr(m.graph.node[0], "op_type", "Mul"),
            'graph.node[sum].op_type: "Mul", expected "Add"',
        ),
        (
            lambda m: setattr(
                m.graph.initializer[0], "raw_data", bytes([0, 0, 128, 63, 0, 0, 0, 64])
            ),
            "graph.initializer[w].raw_data: byte 6 of 8",
        ),
        (
            lambda m: m.graph.output.pop(),
            "graph.output: 0 elements, expected 1",
        ),
    ],
)
def test_onnx(tmp_path, change, said):
    changed = model()
    change(changed)
    onnx.save(model(), tmp_path / "a.onnx")
    onnx.save(changed, tmp_path / "b.onnx")
    found = first_difference(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert found == f"b.onnx: {said}"


def test_saved_model(tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    for name in ("a", "b"):
        made = saved_model_pb2.SavedModel(saved_model_schema_version=1)
        graph = made.meta_graphs.add()
        node = graph.graph_def.node.add(name="x", op="Const")
        node.attr["value"].i = 5 if name == "a" else 6
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(made.SerializeToString())
    assert first_difference(tmp_path / "a", tmp_path / "b") == (
        "saved_model.pb: meta_graphs[0].graph_def.node[x].attr['value'].i: "
        "6, expected 5"
    )


def tflite(value):
    import flatbuffers

    model = schema.ModelT()
    model.version = 3
    buffer = schema.BufferT()
    buffer.data = np.array([1, 2, value], np.uint8)
    model.buffers = [buffer]
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_tflite(tmp_path):
    (tmp_path / "a.tflite").write_bytes(tflite(3))
    (tmp_path / "b.tflite").write_bytes(tflite(4))
    found = first_difference(tmp_path / "a.tflite", tmp_path / "b.tflite")
    assert found == "b.tflite: buffers[0].data[2]: 4, expected 3"


def test_variables(tmp_path):
    import tensorflow as tf

    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name / "variables").mkdir(parents=True)
        tf.raw_ops.SaveV2(
            prefix=str(tmp_path / name / "variables" / "variables"),
            tensor_names=["first", "second"],
            shape_and_slices=["", ""],
            tensors=[np.ones(3, np.float32), np.full(2, value, np.float32)],
        )
    found = first_difference(tmp_path / "a", tmp_path / "b")
    assert found == (
        "variables/variables.data-00000-of-00001: second[0]: 2.0, expected 1.0"
    )


@pytest.mark.parametrize("suffix", [".json", ".onnx", ".tflite"])
def test_a_file_that_cannot_be_read(tmp_path, suffix):
    content = {".json": b"{}", ".onnx": model().SerializeToString()}.get(suffix)
    good, bad = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    good.write_bytes(content or tflite(1))
    bad.write_bytes(b"\xff\xff\xff\x7f nonsense")
    assert first_difference(good, bad).startswith(f"b{suffix}: it cannot be read")
