"""The table of formats, and finding out what a path holds."""

import importlib

import fake_format
import pytest

from exporters import formats
from exporters.build import Build
from exporters.errors import ArtifactError, UnknownFormatError
from exporters.formats import FORMATS
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR, TASKS

ROWS = list(FORMATS.values())


def test_names():
    assert list(FORMATS) == [
        "v1",
        "v3",
        "v4",
        "v5",
        "tfjs-v1",
        "tfjs-v3",
        "tfjs-v3-float16",
        "tfjs-v3-uint8",
        "onnx-float32",
        "onnx-float16",
        "onnx-int8",
        "tflite-published",
        "tflite-float32",
        "tflite-float16",
        "tflite-dynamic-int8",
        "tflite-int8",
        "keras",
        "keras-weights",
        "timm",
    ]


@pytest.mark.parametrize("row", ROWS, ids=FORMATS)
def test_every_row_is_complete(row):
    module = importlib.import_module(row.container.module)
    assert callable(module.write)
    assert callable(module.open)
    suffixes = {
        "onnx": ".onnx",
        "tflite": ".tflite",
        "keras": ".keras",
        "timm": ".safetensors",
    }
    suffix = suffixes.get(row.name.partition("-")[0], "")
    if row.name == "keras-weights":
        suffix = ".weights.h5"
    assert row.container.suffix == suffix
    assert 0 < row.tolerance.max_error < 0.5
    assert 0.9 < row.tolerance.min_cosine < 1
    calibrated = ("onnx-float16", "onnx-int8", "tflite-int8")
    assert row.is_calibrated == (row.name in calibrated)


def test_artifact_names_are_all_different():
    names = [
        row.artifact_name(task, is_stand_in)
        for row in ROWS
        for task in TASKS.values()
        for is_stand_in in (False, True)
    ]
    assert len(set(names)) == len(names) == len(ROWS) * 4


def test_artifact_names_say_what_it_is():
    name = FORMATS["tflite-int8"].artifact_name(CLASSIFICATION, is_stand_in=False)
    assert name == "inception_resnet_v2-classification-tflite-int8.tflite"
    name = FORMATS["v4"].artifact_name(FEATURE_VECTOR, is_stand_in=True)
    assert name == "inception_resnet_v2-feature_vector-v4-stand-in"


def test_published_handles():
    handles = {row.name: row.handle("classification") for row in ROWS}
    published = {name: handle for name, handle in handles.items() if handle}
    model = "imagenet/inception_resnet_v2/classification"
    modules = {f"v{n}": f"https://tfhub.dev/google/{model}/{n}" for n in (1, 3, 4, 5)}
    tfjs = {
        f"tfjs-v{n}": f"https://tfhub.dev/google/tfjs-model/{model}/{n}/default/1"
        for n in (1, 3)
    }
    lite = "https://tfhub.dev/tensorflow/lite-model/inception_resnet_v2/1/metadata/1"
    assert published == modules | tfjs | {"tflite-published": lite}


# Choosing rows and tasks


def test_all_rows_and_tasks_unless_named():
    assert formats.select(None) == ROWS
    assert formats.select_tasks(None) == [FEATURE_VECTOR, CLASSIFICATION]


def test_rows_and_tasks_by_name_once_and_in_the_order_given():
    chosen = formats.select(["v4", "onnx-int8", "v4"])
    assert chosen == [FORMATS["v4"], FORMATS["onnx-int8"]]
    tasks = ["classification", "feature_vector", "classification"]
    assert formats.select_tasks(tasks) == [CLASSIFICATION, FEATURE_VECTOR]


def test_unknown_formats_are_named_with_what_there_is():
    with pytest.raises(UnknownFormatError) as caught:
        formats.select(["v2", "v4", "onnx"])
    assert str(caught.value) == (
        f"unknown format 'v2', 'onnx'; there are: {', '.join(FORMATS)}"
    )


def test_unknown_tasks_are_named_with_what_there_is():
    with pytest.raises(UnknownFormatError) as caught:
        formats.select_tasks(["detection"])
    assert str(caught.value) == (
        "unknown task 'detection'; there are: feature_vector, classification"
    )


# What a path holds


@pytest.fixture
def artifacts(tmp_path):
    """A folder with something that looks like an artifact of each container."""
    for name in ("a-hub-module", "b-saved-model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(b"\x08\x01")
    (tmp_path / "a-hub-module" / "tfhub_module.pb").write_bytes(b"\x08\x03")
    (tmp_path / "e-graph-model").mkdir()
    (tmp_path / "e-graph-model" / "model.json").write_text('{"format": "graph-model"}')
    (tmp_path / "c.tflite").write_bytes(b"\x1c\0\0\0TFL3 and so on")
    (tmp_path / "d.onnx").write_bytes(b"\x08\x08\x12\x04irv2\x3a\x02\x0a\x00")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("a-hub-module", "v1"),
        ("b-saved-model", "v4"),
        ("c.tflite", "tflite-int8"),
        ("d.onnx", "onnx-int8"),
        ("e-graph-model", "tfjs-v1"),
    ],
)
@pytest.mark.parametrize("renamed", [None, "x.onnx", "x.tflite", "x"])
def test_content_decides_what_a_path_holds(artifacts, name, format_name, renamed):
    path = artifacts / name
    if renamed:
        path = path.rename(artifacts / renamed)
    assert formats.container_of(path) is FORMATS[format_name].container


def test_a_saved_models_graph_is_no_onnx_file(artifacts):
    graph = artifacts / "b-saved-model" / "saved_model.pb"
    graph.write_bytes(b"\x08\x01\x12\x02\x0a\x00")  # A schema version, a MetaGraph.
    assert formats.container_of(graph) is None


def test_what_is_no_artifact(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("some text")
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x08\x12\x7f")
    (tmp_path / "folder").mkdir()
    for path in sorted(tmp_path.iterdir()):
        assert formats.container_of(path) is None
        with pytest.raises(ArtifactError) as caught:
            formats.open_artifact(path)
        assert str(caught.value).startswith(f"{path} is no artifact of a known format")
        assert "Expected a directory with saved_model.pb" in str(caught.value)


def test_a_missing_artifact(tmp_path):
    with pytest.raises(ArtifactError, match=r"nowhere does not exist\. Expected an"):
        formats.open_artifact(tmp_path / "nowhere")


@pytest.mark.parametrize("named", ["fakes", "v4"])
def test_an_artifact_that_says_it_is_something_else(tmp_path, named):
    path = tmp_path / "model.fake"
    build = Build(fake_format.checkpoint(), fake_format.OPTIONS)
    record = fake_format.record(format=named)
    fake_format.write(build, "a variant", CLASSIFICATION, record, path)
    table = {**FORMATS, **fake_format.TABLE}
    with pytest.raises(ArtifactError, match=f"says that it is '{named}'"):
        formats.open_artifact(path, table)


def test_a_file_that_is_called_like_an_artifact_may_be_damaged(tmp_path):
    for name, said in (("a.onnx", "It is called .onnx: it may be damaged."), ("a", "")):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(ArtifactError, match="is no artifact of a known") as caught:
            formats.open_artifact(tmp_path / name)
        assert ("may be damaged" in str(caught.value)) == bool(said)
        assert said in str(caught.value)
