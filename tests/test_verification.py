"""Verifying artifacts: every one is a result, and nothing is passed over in silence."""

import json

import fake_format
import numpy as np
import pytest

from checkpoints import stand_in
from checkpoints.reader import Checkpoint
from exporters import manifest, verification
from exporters.build import Build, ExportOptions
from exporters.errors import ArtifactError
from exporters.formats import FORMATS
from exporters.network.tasks import CLASSIFICATION, TASKS
from exporters.progress import Note, Step
from exporters.reference import Reference

CHECKPOINT = fake_format.checkpoint()


def write(path, task="classification", checkpoint=CHECKPOINT):
    build = Build(checkpoint, fake_format.OPTIONS)
    record = fake_format.record(task)
    fake_format.write(build, "a variant", TASKS[task], record, path)
    return path


def write_manifest(path):
    described = manifest.describe(path, CHECKPOINT, fake_format.record())
    manifest.path_of(path).write_text(json.dumps(described))


def verify(*paths, checkpoint=CHECKPOINT, **options):
    given = {
        "images": fake_format.IMAGES,
        "formats": fake_format.TABLE,
        "reference": fake_format.FakeReference(CHECKPOINT),
    }
    return verification.verify(paths, checkpoint, **given | options)


def test_an_artifact_that_agrees(tmp_path):
    done = verify(write(tmp_path / "model.fake"))
    assert done.passed
    assert done.checkpoint_identity == CHECKPOINT.identity
    assert done.is_stand_in is False
    assert done.compared_on == "generated images"
    (item,) = done.artifacts
    assert item.path == tmp_path / "model.fake"
    assert item.error is None


def test_a_single_path_and_a_checkpoints_path(tmp_path, fake_layout):
    stand_in.write_v1(dict(CHECKPOINT), tmp_path / "fake.ckpt")
    write(tmp_path / "model.fake")
    done = verification.verify(
        str(tmp_path / "model.fake"),
        str(tmp_path / "fake.ckpt"),
        images=fake_format.IMAGES,
        formats=fake_format.TABLE,
        reference=fake_format.FakeReference(CHECKPOINT),
    )
    assert done.passed
    assert done.checkpoint == tmp_path / "fake.ckpt"


def test_what_is_done_is_told(tmp_path):
    events = []
    path = write(tmp_path / "model.fake")
    verify(path, progress=events.append)
    assert events == [
        Note("Artifacts are compared on generated images."),
        Step(f"[1/1] {path}"),
        Step(f"[1/1] {path}", "agrees", passed=True),
    ]


def test_one_bad_file_among_many_is_a_result(tmp_path):
    write(tmp_path / "a.fake")
    other = fake_format.checkpoint(**{"layer/biases": np.zeros(8, np.float32)})
    write(tmp_path / "b.fake", checkpoint=other)
    (tmp_path / "c.fake").write_bytes(b"PK damaged")
    write(tmp_path / "d.fake")
    done = verify(tmp_path)
    assert not done.passed
    assert [item.passed for item in done.artifacts] == [True, False, False, True]
    assert "layer/biases" in str(done.artifacts[1].report.failures())
    assert "c.fake is damaged" in done.artifacts[2].error


def test_files_that_are_not_as_the_manifest_says(tmp_path):
    path = write(tmp_path / "model.fake")
    write_manifest(path)
    assert verify(path).passed
    path.write_bytes(path.read_bytes() + b"more")
    (item,) = verify(path).artifacts
    assert item.report.problems == ("not as its manifest says: model.fake",)
    assert not item.passed


@pytest.mark.parametrize("content", ["{}", "[" * 100_000])
def test_a_damaged_manifest(tmp_path, content):
    path = write(tmp_path / "model.fake")
    manifest.path_of(path).write_text(content)
    (item,) = verify(path).artifacts
    assert "is not a manifest" in item.error


def test_an_artifact_whose_manifest_alone_is_left(tmp_path):
    path = write(tmp_path / "model.fake")
    write_manifest(path)
    path.unlink()
    (item,) = verify(tmp_path).artifacts
    assert item.error == f"{path} does not exist. Expected an artifact."


def test_what_is_passed_over_is_told_with_the_reason(tmp_path):
    write(tmp_path / "model.fake")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "model.h5").write_bytes(b"\x89HDF")
    (tmp_path / ".hidden").write_bytes(b"PK")
    (tmp_path / "folder").mkdir()
    done = verify(tmp_path)
    assert {path.name: why for path, why in done.skipped.items()} == {
        ".hidden": "hidden",
        "empty.onnx": "empty",
        "folder": "a directory that is no artifact",
        "model.h5": "no artifact of a known format",
    }
    assert done.passed


def test_artifacts_are_looked_at_once_in_order_of_names(tmp_path):
    for name in ("b.fake", "a.fake"):
        write(tmp_path / name)
    done = verify(tmp_path, tmp_path / "a.fake")
    assert [item.path.name for item in done.artifacts] == ["a.fake", "b.fake"]


@pytest.mark.parametrize("name", ["folder", "notes.txt", "nowhere"])
def test_a_path_without_artifacts_is_named(tmp_path, name):
    write(tmp_path / "model.fake")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "of_no_use.txt").write_text("notes")
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(ArtifactError, match=name) as caught:
        verify(tmp_path, tmp_path / name)
    if name == "folder":
        assert "Found: of_no_use.txt" in str(caught.value)


def test_a_verification_is_json(tmp_path):
    write(tmp_path / "a.fake")
    (tmp_path / "b.fake").write_bytes(b"PK damaged")
    (tmp_path / "notes.txt").write_text("notes")
    done = verify(tmp_path)
    read = json.loads(json.dumps(done.as_dict(), allow_nan=False))
    assert read["passed"] is False
    assert read["checkpoint_identity"] == CHECKPOINT.identity
    assert read["stand_in"] is False
    assert read["compared_on"] == "generated images"
    assert read["artifacts"][str(tmp_path / "a.fake")]["passed"] is True
    assert "damaged" in read["artifacts"][str(tmp_path / "b.fake")]["error"]
    assert list(read["skipped"]) == [str(tmp_path / "notes.txt")]


# What lies beside an artifact


def test_cards_and_test_vectors_are_no_artifacts_of_their_own(tmp_path):
    path = write(tmp_path / "model.fake")
    manifest.card_of(path).write_text("# A card")
    manifest.vectors_of(path).mkdir()
    manifest.card_of(tmp_path / "gone.fake").write_text("# A card")
    found, skipped = verification.find_artifacts([tmp_path], fake_format.TABLE)
    assert found == [path]
    assert skipped == {tmp_path / "gone.fake.card.md": "no artifact of a known format"}
    everything = sorted(tmp_path.glob("model*"))
    assert len(everything) == 3
    assert verification.find_artifacts(everything, fake_format.TABLE) == ([path], {})


# The real network


@pytest.mark.slow
def test_outputs_alone_tell_another_network(deployable, stand_in_checkpoint, graphs):
    """One whose residuals in the middle are twice as large."""
    options = ExportOptions(image_size=(139, 139))
    paths = [
        deployable
        / row.artifact_name(CLASSIFICATION, is_stand_in=True, options=options)
        for row in FORMATS.values()
        if "image_size" in row.options
    ]
    scales = {
        name: 2 * value if "/block17_" in name and "/Conv2d_1x1/" in name else value
        for name, value in stand_in_checkpoint.items()
    }
    wrong = Checkpoint(scales, path=stand_in_checkpoint.path)
    with Reference(wrong, graphs) as reference:
        done = verification.verify(paths, wrong, reference=reference)
    assert len(done.artifacts) == len(paths) == 7
    for item in done.artifacts:
        assert not (item.report.main or item.report).passed, item.path.name
