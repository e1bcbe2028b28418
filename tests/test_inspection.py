"""What `inspect` finds out about checkpoints and artifacts."""

import json

import fake_format
import numpy as np
import pytest

from checkpoints import stand_in
from checkpoints.reader import CheckpointError, open_checkpoint
from exporters import inspection, manifest
from exporters.build import Build
from exporters.errors import ArtifactError
from exporters.network.tasks import TASKS

pytestmark = pytest.mark.usefixtures("fake_layout")


def inspect(path):
    """(kind, facts) of a path, which may hold the fake format."""
    found = inspection.inspect(path, formats=fake_format.TABLE)
    assert found.path == path
    return found.kind, found.facts


def test_a_checkpoint(tmp_path):
    path = tmp_path / "model.ckpt"
    stand_in.write_v1(fake_format.variables(), path)
    kind, facts = inspect(path)
    assert kind == "checkpoint"
    assert facts == {
        "container": "V1",
        "variables": 2,
        "numbers": 3 * 8 + 8,
        "identity": open_checkpoint(path).identity,
        "provenance": "unverified",
        "stand-in": False,
        "layout": "inception_resnet_v2",
        "classes": 1001,
        "auxiliary head": False,
        "training step": None,
        "optimizer variables, not used": 0,
        "other variables, not used": 0,
        "moving averages": False,
        "prefix": None,
        "notes": None,
    }


def test_a_stand_in(tmp_path):
    stand_in.write_v1(stand_in.generate(0), tmp_path / "model.ckpt")
    _, facts = inspect(tmp_path / "model.ckpt")
    assert facts["provenance"] == "stand-in"
    assert facts["stand-in"] is True


def test_a_checkpoint_of_another_network_says_what_is_wrong(tmp_path):
    variables = {"other/weights": np.ones((2, 2), np.float32)}
    stand_in.write_v1(variables, tmp_path / "model.ckpt")
    _, facts = inspect(tmp_path / "model.ckpt")
    assert facts["variables"] == 1
    assert "2 missing" in facts["layout"]
    assert "1 unexpected" in facts["layout"]


def write(path, task):
    build = Build(fake_format.checkpoint(), fake_format.OPTIONS)
    record = fake_format.record(task)
    fake_format.write(build, "a variant", TASKS[task], record, path)


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "model.fake"
    write(path, "feature_vector")
    record = fake_format.record("feature_vector")
    described = manifest.describe(path, fake_format.checkpoint(), record)
    manifest.path_of(path).write_text(json.dumps(described))
    return path


def test_an_artifact(artifact):
    handle = "https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/9"
    kind, facts = inspect(artifact)
    assert kind == "artifact"
    assert facts == {
        "format": "fake",
        "what it is": "for tests",
        "task": "feature_vector",
        "published as": handle,
        "image size": [75, 75],
        "layout": "NHWC",
        "images": "float32, RGB in [0, 1]",
        "outputs": ["feature_vector"],
        "options": {"image_size": [75, 75]},
        "weights": 2,
        "numbers": 3 * 8 + 8,
        "bytes": artifact.stat().st_size,
        "made of checkpoint": fake_format.checkpoint().identity,
        "provenance": "unverified",
        "stand-in": False,
        "files changed since export": None,
    }


def test_an_artifact_that_changed_since(artifact):
    write(artifact, "classification")
    _, facts = inspect(artifact)
    assert facts["files changed since export"] == ["model.fake"]


def test_a_directory_of_artifacts(artifact, tmp_path):
    write(tmp_path / "other.fake", "classification")
    (tmp_path / "gone.fake.manifest.json").write_text("{}")
    kind, facts = inspect(tmp_path)
    assert kind == "directory"
    assert facts["artifacts"] == [
        {"name": "gone.fake", "manifest": "missing or damaged", "missing": True},
        {
            "name": "model.fake",
            "format": "fake",
            "task": "feature_vector",
            "stand_in": False,
            "bytes": artifact.stat().st_size,
        },
        {
            "name": "other.fake",
            "manifest": "missing or damaged",
            "bytes": (tmp_path / "other.fake").stat().st_size,
        },
    ]


def test_what_is_found_is_json(artifact, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    checkpoint = tmp_path / "checkpoint" / "model.ckpt"
    stand_in.write_v1(fake_format.variables(), checkpoint)
    for path in (artifact, tmp_path, checkpoint):
        _, facts = inspect(path)
        assert json.loads(json.dumps(facts)) == facts


def test_a_damaged_artifact_says_that_its_files_changed(artifact):
    artifact.write_bytes(artifact.read_bytes()[:100])
    with pytest.raises(ArtifactError) as caught:
        inspect(artifact)
    assert "model.fake is damaged" in str(caught.value)
    assert "By its manifest, these files changed: model.fake" in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "text"])
def test_neither_checkpoint_nor_artifact(tmp_path, name):
    (tmp_path / "text").write_text("some text")
    with pytest.raises(CheckpointError) as caught:
        inspect(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "Nor is it an artifact" in str(caught.value)
