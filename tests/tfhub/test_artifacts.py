"""Which directories have handles, and what is found out about each before it is used."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from published_directories import PUBLISHED, checkpoint, make, write_manifest

from checkpoints.reader import Checkpoint
from exporters import formats, manifest
from exporters import record as records
from exporters.artifact import OpenedArtifact
from exporters.containers.saved_model import container as saved_model
from exporters.errors import ArtifactError
from exporters.network.tasks import TASKS
from exporters.progress import Step
from exporters.tfhub import artifacts
from exporters.tfhub.artifacts import InstallError, find

DATA = "variables/variables.data-00000-of-00001"
RECORD = "assets.extra/irv2.json"


@pytest.fixture
def artifact(tmp_path):
    return make(tmp_path)


def paths(found):
    return {handle: artifact.path for handle, artifact in found.items()}


def test_every_published_format_and_task(tmp_path):
    expected = {
        f"{PUBLISHED}/{task}/{version}": make(tmp_path, f"v{version}", task)
        for task in ("feature_vector", "classification")
        for version in (1, 3, 4, 5)
    }
    assert paths(find(expected.values())) == expected
    assert paths(find([tmp_path])) == expected


def test_other_artifacts_in_a_directory_are_passed_over(tmp_path):
    path = make(tmp_path, "v4")
    (tmp_path / "network.onnx").write_bytes(b"\x08\x08")
    assert list(paths(find([tmp_path])).values()) == [path]


def test_artifact_of_which_only_the_manifest_is_left_is_passed_over(tmp_path):
    path = make(tmp_path, "v4")
    shutil.rmtree(make(tmp_path, "v5"))
    assert list(paths(find([tmp_path])).values()) == [path]


def test_path_without_handle(tmp_path):
    onnx = tmp_path / "network.onnx"
    onnx.write_bytes(b"\x08\x08\x3a\x00")
    for path in (onnx, tmp_path):
        with pytest.raises(ArtifactError, match="had a handle for"):
            find([path])
    with pytest.raises(ArtifactError, match="does not exist"):
        find([tmp_path / "missing"])


def test_two_artifacts_of_one_handle(tmp_path):
    make(tmp_path)
    make(tmp_path, is_stand_in=True)
    with pytest.raises(InstallError, match="are both"):
        find([tmp_path])


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index", DATA])
def test_incomplete_artifact(tmp_path, name):
    artifact = make(tmp_path, "v1")
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=f"incomplete: without {name}"):
        find([artifact])


def test_artifact_that_is_not_as_its_manifest_says(artifact):
    assert find([artifact])[f"{PUBLISHED}/feature_vector/3"].warning is None
    (artifact / DATA).write_bytes(b"changed")
    with pytest.raises(ArtifactError, match=f"manifest says: .*{DATA}"):
        find([artifact])


def test_what_is_being_checked_is_told(tmp_path):
    names = [make(tmp_path, name).name for name in ("v1", "v4")]
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08:\x00")  # Has no handle.
    assert formats.container_of(tmp_path / "model.onnx")
    told = []
    find([tmp_path], progress=told.append)
    assert told == [Step(f"check {name}") for name in names]


# Networks with classes of their own have no published handle

OWN = "https://example.org/models/flowers/1"


@pytest.fixture
def own_classes(tmp_path):
    """An artifact of which the manifest says that no published handle stands for it."""
    path = make(tmp_path)
    file = manifest.path_of(path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"handle": None}))
    return path


def test_own_classes_need_a_handle_of_their_own(own_classes):
    with pytest.raises(InstallError, match=f"{own_classes.name} .*--handle"):
        find([own_classes])
    assert paths(find([own_classes], OWN)) == {OWN: own_classes}


def test_own_classes_are_found_in_the_classifier(tmp_path, monkeypatch):
    artifact = make(tmp_path, "v5", "classification", with_manifest=False)
    for classes in (10, 1001):
        biases = {"InceptionResnetV2/Logits/Logits/biases": np.zeros(classes)}
        open_as(monkeypatch, dict(checkpoint()) | biases, task="classification")
        if classes == 10:
            with pytest.raises(InstallError, match="--handle"):
                find([artifact])
        else:
            assert list(find([artifact])) == [f"{PUBLISHED}/classification/5"]


@pytest.mark.parametrize(
    "handle",
    [
        "flowers",
        "ftp://example.org/flowers/1",
        "https://",
        "https://example.org",
        "https://example.org/../1",
        "https://example.org/a//b",
        "https://[",
        f"{PUBLISHED}/feature_vector/3",
        f"{PUBLISHED}/feature_vector/3?tf-hub-format=compressed",
        "https://www.kaggle.com/models/google/inception-resnet-v2/TensorFlow2/x/1",
    ],
)
def test_handle_that_cannot_be_one_s_own(artifact, handle):
    with pytest.raises(InstallError, match=r"handle .*xpected a URL"):
        find([artifact], handle)


# Without a manifest, artifacts are opened


def open_as(monkeypatch, weights, task="feature_vector", is_stand_in=None):
    """Lets every directory be opened as v5 with these weights."""
    record = None
    if is_stand_in is not None:
        record = dataclasses.replace(
            records.make("v5", task, checkpoint(), {}), stand_in=is_stand_in
        )
    opened = OpenedArtifact(
        format="v5",
        task=TASKS[task],
        record=record,
        image_size=None,
        outputs={},
        run=lambda images: {},
        weights=dict,
    )
    monkeypatch.setattr(saved_model, "open", lambda path: opened)
    found = Checkpoint(weights, path=Path("variables"))
    monkeypatch.setattr(artifacts, "open_checkpoint", lambda path, **_: found)


@pytest.mark.parametrize("is_recorded", [True, False, None])
@pytest.mark.parametrize("is_generated", [True, False])
def test_generated_weights_are_recognized_whatever_the_record_says(
    tmp_path, monkeypatch, is_generated, is_recorded
):
    artifact = make(tmp_path, "v5", with_manifest=False)
    open_as(monkeypatch, dict(checkpoint(is_generated)), is_stand_in=is_recorded)
    (found,) = find([artifact]).values()
    assert found.is_stand_in == (is_generated or is_recorded is True)


def test_missing_manifest_is_said(tmp_path, monkeypatch):
    artifact = make(tmp_path, "v5", with_manifest=False)
    open_as(monkeypatch, dict(checkpoint()))
    (found,) = find([artifact]).values()
    assert "no manifest" in found.warning and "irv2 verify" in found.warning


def test_directory_without_record_is_what_it_opens_as(tmp_path, monkeypatch):
    for with_manifest in (False, True):
        artifact = make(tmp_path / str(with_manifest), "v5", with_manifest=False)
        (artifact / RECORD).unlink()
        if with_manifest:
            write_manifest(artifact)
        open_as(monkeypatch, dict(checkpoint()), task="classification")
        ((handle, found),) = find([artifact]).items()
        assert handle == f"{PUBLISHED}/classification/5"
        assert (found.warning is None) == with_manifest


@pytest.fixture(scope="module")
def bare(thin, thin_exported, tmp_path_factory):
    """Makes a copy of an exported artifact of the thin network, without its manifest."""

    def copy(format_name, task="feature_vector"):
        name = formats.FORMATS[format_name].artifact_name(TASKS[task], is_stand_in=True)
        return shutil.copytree(
            thin_exported / name, tmp_path_factory.mktemp("bare") / name
        )

    return copy


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["v1", "v3", "v4", "v5"])
@pytest.mark.parametrize("with_record", [True, False])
def test_exported_artifact_without_manifest(bare, format_name, with_record):
    artifact = bare(format_name)
    if not with_record:
        (artifact / RECORD).unlink()
    found = find([artifact])
    version = format_name.removeprefix("v")
    assert list(found) == [f"{PUBLISHED}/feature_vector/{version}"]
    (only,) = found.values()
    assert only.is_stand_in
    assert "no manifest" in only.warning


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["v3", "v5"])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", [DATA, "variables/variables.index"])
def test_one_flipped_byte_of_the_variables(bare, format_name, place, name):
    artifact = bare(format_name)
    flip(artifact / name, place)
    said = "damaged.*[Cc]hecksum" if name == DATA else "index is truncated or damaged"
    with pytest.raises(ArtifactError, match=f"{artifact.name}.*{said}"):
        find([artifact])


def flip(file: Path, place: float) -> None:
    """Changes one bit of a file, at a fraction of its size."""
    content = np.fromfile(file, np.uint8)
    content[int(place * (content.size - 1))] ^= 1
    content.tofile(file)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["v3", "v5"])
def test_graph_that_is_none(bare, format_name):
    artifact = bare(format_name)
    content = (artifact / "saved_model.pb").read_bytes()
    (artifact / "saved_model.pb").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=artifact.name):
        find([artifact])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_name", "change"),
    [
        ("v3", {"format": "v1"}),
        ("v5", {"format": "v4"}),
        ("v5", {"task": "classification"}),
    ],
)
def test_format_or_task_that_is_not_the_recorded_one(bare, format_name, change):
    artifact = bare(format_name)
    record = json.loads((artifact / RECORD).read_text())
    (artifact / RECORD).write_text(json.dumps(record | change))
    with pytest.raises(ArtifactError, match="is recorded as"):
        find([artifact])


@pytest.mark.slow
def test_module_that_lost_the_file_that_makes_it_one(bare):
    artifact = bare("v3")
    (artifact / "tfhub_module.pb").unlink()
    with pytest.raises(ArtifactError, match=artifact.name):
        find([artifact])
