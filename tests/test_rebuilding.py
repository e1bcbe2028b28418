"""Made again: the same bytes, or the place where they differ."""

import dataclasses
import json

import pytest
import small_build

from exporters import manifest
from exporters.errors import ArtifactError
from exporters.exporting import export
from exporters.formats import FORMATS
from exporters.network.tasks import TASKS
from exporters.rebuilding import rebuild


def checkpoint_of(**changed):
    made = small_build.checkpoint(**changed)
    made.num_classes = len(small_build.LABELS)
    return made


CHECKPOINT = checkpoint_of()
NAMES = ("onnx-float32", "tflite-dynamic-int8")


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    small_build.install(monkeypatch)


def table():
    """The rows, for the tasks of the block."""
    tasks = tuple(TASKS.values())
    return {name: dataclasses.replace(FORMATS[name], tasks=tasks) for name in NAMES}


def reference():
    return small_build.BlockReference(CHECKPOINT)


@pytest.fixture
def artifacts(tmp_path):
    """A directory with two artifacts, of the formats in `NAMES`."""
    done = export(
        CHECKPOINT,
        tmp_path / "artifacts",
        formats=table().values(),
        tasks=["classification"],
        options=small_build.OPTIONS,
        verify=False,
        reference=reference(),
    )
    assert done.passed
    return tmp_path / "artifacts"


def again(path, checkpoint=CHECKPOINT):
    return rebuild(path, checkpoint, formats=table(), reference=reference())


def test_the_same_bytes(artifacts):
    done = again(artifacts)
    assert done.passed and len(done.artifacts) == len(NAMES)
    assert [item.result for item in done.artifacts] == ["same"] * 2
    assert all(item["same"] for item in done.as_dict()["artifacts"].values())


def test_by_a_manifest(artifacts):
    (one, _) = sorted(artifacts.glob(f"*{manifest.SUFFIX}"))
    (item,) = again(one).artifacts
    assert item.passed and item.path == manifest.artifact_of(one)


def test_a_changed_byte(artifacts):
    """It is found even if the manifest was changed to fit."""
    (path,) = artifacts.glob("*.onnx")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    place = manifest.path_of(path)
    described = json.loads(place.read_text())
    described["versions"]["onnx"] = "0.1"
    place.write_text(json.dumps(described))
    same, differing = sorted(
        again(artifacts).artifacts, key=lambda item: not item.passed
    )
    assert same.passed and not differing.passed
    assert differing.path == path
    assert "graph.initializer[" in differing.difference
    assert differing.other_versions["onnx"][0] == "0.1"


def test_another_checkpoint(artifacts):
    name = "scope/left/Relu/weights"
    other = checkpoint_of(**{name: CHECKPOINT[name] * 2})
    for item in again(artifacts, other).artifacts:
        assert "was made of the checkpoint" in item.error


def test_what_says_nothing_of_how_it_was_made(artifacts):
    (path,) = artifacts.glob("*.onnx")
    place = manifest.path_of(path)
    described = json.loads(place.read_text())
    for content, said in (
        ("{", "is not a manifest"),
        ("[]", "is not a manifest"),
        (json.dumps(described | {"options": {"colour": 1}}), "options"),
        (json.dumps(described | {"options": {"image_size": [5, 5]}}), "options"),
        (json.dumps(described | {"format": "onnx-float8"}), "is no format"),
        (json.dumps(described | {"schema_version": 99}), "newer irv2"),
    ):
        place.write_text(content)
        (item,) = again(path).artifacts
        assert said in item.error, content
    place.unlink()
    (item,) = again(path).artifacts
    assert "no manifest beside it" in item.error
    with pytest.raises(ArtifactError):
        again(artifacts / "nothing")
