"""What `inspect` finds out about checkpoints and artifacts."""

import json

import fake_format
import numpy as np
import pytest

from checkpoints import stand_in
from checkpoints.reader import CheckpointError, open_checkpoint
from exporters import manifest
from exporters.artifact import ArtifactError
from exporters.inspection import inspect


@pytest.fixture(autouse=True)
def fake_network(monkeypatch):
    fake_format.install(monkeypatch)


def test_a_checkpoint(tmp_path):
    path = tmp_path / "model.ckpt"
    stand_in.write_v1(fake_format.variables(), path)
    assert inspect(path) == {
        "kind": "checkpoint",
        "container": "V1",
        "variables": 2,
        "numbers": 3 * 8 + 8,
        "identity": open_checkpoint(path).identity,
        "provenance": "unverified",
        "stand-in": False,
        "layout": "inception_resnet_v2",
    }


def test_a_stand_in(tmp_path):
    stand_in.write_v1(stand_in.generate(0), tmp_path / "model.ckpt")
    facts = inspect(tmp_path / "model.ckpt")
    assert facts["provenance"] == "stand-in"
    assert facts["stand-in"] is True


def test_a_checkpoint_of_another_network_says_what_is_wrong(tmp_path):
    variables = {"other/weights": np.ones((2, 2), np.float32)}
    stand_in.write_v1(variables, tmp_path / "model.ckpt")
    facts = inspect(tmp_path / "model.ckpt")
    assert facts["variables"] == 1
    assert "2 missing" in facts["layout"]
    assert "1 unexpected" in facts["layout"]


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "model.fake"
    inputs = fake_format.export_inputs(fake_format.checkpoint())
    fake_format.write(inputs, "fake", "feature_vector", path)
    described = manifest.describe(path, inputs.checkpoint)
    manifest.path_of(path).write_text(json.dumps(described))
    return path


def test_an_artifact(artifact):
    handle = "https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/9"
    assert inspect(artifact) == {
        "kind": "artifact",
        "format": "fake",
        "what it is": "for tests",
        "task": "feature_vector",
        "published as": handle,
        "image size": [75, 75],
        "weights": 2,
        "numbers": 3 * 8 + 8,
        "made of checkpoint": fake_format.checkpoint().identity,
        "stand-in": False,
        "files changed since export": None,
    }


def test_an_artifact_that_changed_since(artifact):
    inputs = fake_format.export_inputs(fake_format.checkpoint())
    fake_format.write(inputs, "fake", "classification", artifact)
    assert inspect(artifact)["files changed since export"] == ["model.fake"]


def test_what_is_found_is_json(artifact, tmp_path):
    stand_in.write_v1(fake_format.variables(), tmp_path / "model.ckpt")
    for path in (artifact, tmp_path / "model.ckpt"):
        assert json.loads(json.dumps(inspect(path))) == inspect(path)


def test_a_damaged_artifact(artifact):
    artifact.write_bytes(artifact.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"model\.fake is damaged"):
        inspect(artifact)


@pytest.mark.parametrize("name", ["nowhere", "text"])
def test_neither_checkpoint_nor_artifact(tmp_path, name):
    (tmp_path / "text").write_text("some text")
    with pytest.raises(CheckpointError, match=str(tmp_path / name)):
        inspect(tmp_path / name)
