"""What irv2 0.1 exported still verifies, installs and is shown.

`data/first_version.tar.xz` was written by that version, with a thin network of seed 1 and
an image size of 299 x 299: v3, v5, onnx-int8 and tflite-int8 of features, with manifests.
"""

import json
import tarfile
from pathlib import Path

import pytest
import thin_network

from checkpoints import files
from exporters import manifest
from exporters.errors import ArtifactError
from exporters.inspection import inspect
from exporters.tfhub.cache import install, uninstall
from exporters.tfhub.packing import pack
from exporters.verification import find_artifacts, verify

MADE = Path(__file__).parent / "data" / "first_version.tar.xz"
NAMES = {
    f"inception_resnet_v2-feature_vector-{name}"
    for name in ("v3", "v5", "onnx-int8.onnx", "tflite-int8.tflite")
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The directory that it exported to."""
    thin_network.install(monkeypatch, 32)
    with tarfile.open(MADE) as archive:
        archive.extractall(tmp_path / "made", filter="data")
    return tmp_path / "made"


def test_its_manifests_are_read(made):
    found, skipped = find_artifacts([made])
    assert {path.name for path in found} == NAMES
    assert skipped == {}
    for path in found:
        assert manifest.changed_files(path) == []
        described = files.read_json(manifest.path_of(path))
        assert described["versions"]["irv2"] == "0.1.0"
        assert "schema_version" not in described


@pytest.mark.parametrize("name", sorted(NAMES))
def test_its_records_are_read(made, name):
    facts = inspect(made / name).facts
    assert facts["format"] in name
    assert facts["provenance"] == "unverified"
    assert len(facts["made of checkpoint"]) == 64


def test_its_modules_install(made, tmp_path):
    cache = tmp_path / "cache"
    placed = install([made], cache)
    assert [item.handle[-1] for item in placed] == ["3", "5"]
    assert all(item.warning is None for item in placed)
    assert len(uninstall(cache).removed) == 2
    assert list(cache.iterdir()) == []
    assert len(pack([made], tmp_path / "www")) == 2


@pytest.mark.slow
def test_its_artifacts_agree_with_their_checkpoint(made, tmp_path):
    checkpoint = thin_network.write(tmp_path / "model.ckpt", seed=1)
    done = verify(made, checkpoint)
    assert {item.path.name for item in done.artifacts} == NAMES
    assert done.passed, [item.report or item.error for item in done.artifacts]
    other = thin_network.write(tmp_path / "other.ckpt", seed=0)
    (found,) = verify(
        made / "inception_resnet_v2-feature_vector-onnx-int8.onnx", other
    ).artifacts
    assert not found.passed


# Newer versions than this one


def test_a_newer_manifest_is_refused_by_name(made):
    path = made / "inception_resnet_v2-feature_vector-v3"
    place = manifest.path_of(path)
    newer = files.read_json(place) | {"schema_version": 1000}
    place.write_text(json.dumps(newer))
    with pytest.raises(ArtifactError, match=r"v3\.manifest\.json is .*version 1000"):
        manifest.changed_files(path)
    with pytest.raises(ArtifactError, match="Use a newer irv2"):
        install([path], made / "cache")
