"""Which directories have handles, and which of them are fit to be published."""

import pytest
from published_directories import PUBLISHED, make, write_manifest

from exporters.artifact import ArtifactError
from exporters.published_artifacts import InstallError, find_published

DATA = "variables/variables.data-00000-of-00001"


@pytest.fixture
def artifact(tmp_path):
    return make(tmp_path)


def checked(*paths):
    found = find_published(paths)
    for artifact in found.values():
        artifact.check()
    return {handle: artifact.path for handle, artifact in found.items()}


def test_every_published_format_and_task(tmp_path):
    expected = {
        f"{PUBLISHED}/{task}/{version}": make(tmp_path, f"v{version}", task)
        for task in ("feature_vector", "classification")
        for version in (1, 3, 4, 5)
    }
    assert checked(*expected.values()) == expected
    assert checked(tmp_path) == expected


def test_other_artifacts_in_a_directory_are_passed_over(tmp_path):
    path = make(tmp_path, "v4")
    (tmp_path / "network.onnx").write_bytes(b"\x08\x08")
    assert list(checked(tmp_path).values()) == [path]


def test_path_without_handle(tmp_path):
    onnx = tmp_path / "network.onnx"
    onnx.write_bytes(b"\x08\x08")
    for path in (onnx, tmp_path):
        with pytest.raises(ArtifactError, match="had a handle for"):
            find_published([path])
    with pytest.raises(ArtifactError, match="does not exist"):
        find_published([tmp_path / "missing"])


def test_directory_of_another_tool(artifact):
    (artifact / "assets.extra/irv2.json").unlink()
    with pytest.raises(ArtifactError, match="had a handle for"):
        find_published([artifact])


def test_two_artifacts_of_one_handle(tmp_path):
    make(tmp_path)
    make(tmp_path, is_stand_in=True)
    with pytest.raises(InstallError, match="are both"):
        find_published([tmp_path])


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index", DATA])
def test_incomplete_artifact(tmp_path, name):
    artifact = make(tmp_path, "v1")
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=f"incomplete: without {name}"):
        checked(artifact)


def test_format_that_is_not_the_recorded_one(artifact):
    (artifact / "tfhub_module.pb").unlink()
    with pytest.raises(ArtifactError, match="recorded as v3, but is none"):
        checked(artifact)


def test_artifact_that_is_not_as_its_manifest_says(artifact):
    write_manifest(artifact)
    checked(artifact)
    (artifact / DATA).write_bytes(b"changed")
    with pytest.raises(ArtifactError, match=f"manifest says: .*{DATA}"):
        checked(artifact)
