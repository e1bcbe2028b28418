"""Manifests: what they say, and finding out that files changed since."""

import hashlib
import importlib.metadata
import json
import platform

import fake_format
import numpy as np
import pytest

from exporters import manifest
from exporters.errors import ArtifactError


@pytest.fixture
def directory(tmp_path):
    """An artifact that is a directory, with its manifest."""
    path = tmp_path / "model-v4"
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"graph")
    (path / "variables" / "variables.index").write_bytes(b"index")
    described = manifest.describe(path, fake_format.checkpoint(), fake_format.record())
    manifest.path_of(path).write_text(json.dumps(described))
    return path


def test_a_manifest_lies_beside_its_artifact(tmp_path):
    assert manifest.path_of(tmp_path / "model-v4") == (
        tmp_path / "model-v4.manifest.json"
    )
    assert manifest.path_of(tmp_path / "model.onnx") == (
        tmp_path / "model.onnx.manifest.json"
    )


def test_what_a_manifest_says(directory):
    checkpoint, record = fake_format.checkpoint(), fake_format.record()
    described = manifest.describe(directory, checkpoint, record, handle="a handle")
    assert described == {
        "schema_version": 2,
        "format": "fake",
        "task": "classification",
        "checkpoint_identity": checkpoint.identity,
        "provenance": "unverified",
        "stand_in": False,
        "num_classes": 1001,
        "options": {"image_size": [75, 75]},
        "handle": "a handle",
        "checkpoint": {"file": "fake.ckpt", "container": "memory"},
        "versions": manifest.versions(),
        "files": {
            "model-v4/saved_model.pb": hashlib.sha256(b"graph").hexdigest(),
            "model-v4/variables/variables.index": hashlib.sha256(b"index").hexdigest(),
        },
    }


def test_versions():
    versions = manifest.versions()
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == np.__version__
    assert versions["irv2"] == importlib.metadata.version("irv2")
    assert {"tensorflow", "tf-slim", "onnx", "onnxruntime"} < versions.keys()


# Changes since


def test_nothing_changed(directory):
    assert manifest.changed_files(directory) == []


def test_no_manifest_no_changes(directory):
    manifest.path_of(directory).unlink()
    assert manifest.changed_files(directory) == []


def test_changed_removed_and_added_files(directory):
    (directory / "saved_model.pb").write_bytes(b"Graph")
    (directory / "variables" / "variables.index").unlink()
    (directory / "added").write_bytes(b"")
    assert manifest.changed_files(directory) == [
        "model-v4/added",
        "model-v4/saved_model.pb",
        "model-v4/variables/variables.index",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "text",
        "[]",
        "{}",
        '{"files": null}',
        '{"files": ["saved_model.pb"]}',
        "\xff",
        "[" * 100_000,
    ],
)
def test_another_file_at_the_place_of_the_manifest(directory, content):
    path = manifest.path_of(directory)
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ArtifactError) as caught:
        manifest.changed_files(directory)
    assert str(caught.value).startswith(f"{path} is not a manifest of irv2")
