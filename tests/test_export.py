"""Exporting one artifact: all of it appears, or nothing does."""

import dataclasses
import hashlib
import json
from pathlib import Path

import fake_format
import numpy as np
import pytest

from exporters import export, manifest
from exporters.artifact import ExportError
from exporters.export import ParityError
from exporters.formats import FORMATS
from exporters.parity import OutputParity, ParityReport, WeightParity

NAME = "inception_resnet_v2-classification-fake.fake"


@pytest.fixture(autouse=True)
def fake_network(monkeypatch):
    fake_format.install(monkeypatch)


@pytest.fixture
def inputs():
    return fake_format.export_inputs(fake_format.checkpoint())


def run(inputs, path, *, expected=None, **options):
    """Exports, and compares with the checkpoint `expected`, by default the right one."""
    reference = fake_format.FakeReference(
        fake_format.FakeGraphs(), expected or inputs.checkpoint
    )
    return export.export(
        inputs,
        fake_format.FORMAT,
        "classification",
        path,
        **{"reference": reference, "parity_images": fake_format.IMAGES} | options,
    )


def tree(directory):
    """Everything in a directory, with the content of files."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def other_checkpoint():
    return fake_format.checkpoint(**{"layer/biases": np.zeros(8, np.float32)})


def test_an_artifact_and_its_manifest_appear(inputs, tmp_path):
    made = run(inputs, tmp_path / "new" / "folder" / NAME)
    assert made.path == tmp_path / "new" / "folder" / NAME
    assert sorted(path.name for path in made.path.parent.iterdir()) == [
        NAME,
        f"{NAME}.manifest.json",
    ]
    assert fake_format.open(made.path).checkpoint_identity == inputs.checkpoint.identity
    assert made.bytes == made.path.stat().st_size
    assert made.report.passed
    assert made.seconds.keys() == {"write", "verify"}


def test_what_the_manifest_says(inputs, tmp_path):
    made = run(inputs, tmp_path / NAME)
    found = json.loads(manifest.path_of(made.path).read_text())
    handle = "https://tfhub.dev/google/imagenet/inception_resnet_v2/classification/9"
    assert found.pop("parity")["passed"]
    assert found == {
        "format": "fake",
        "task": "classification",
        "handle": handle,
        "options": {"image_size": [75, 75]},
        "calibration": "16 generated images",
        "compared_on": "generated images",
        "checkpoint": {
            "file": "fake.ckpt",
            "container": "memory",
            "identity": inputs.checkpoint.identity,
            "provenance": "unverified",
        },
        "stand_in": False,
        "versions": manifest.versions(),
        "files": {NAME: hashlib.sha256(made.path.read_bytes()).hexdigest()},
    }


def test_an_artifact_of_another_task_is_not_kept(inputs, tmp_path, monkeypatch):
    def write(inputs, format_name, task, path):
        right(inputs, format_name, "feature_vector", path)

    right = fake_format.write
    monkeypatch.setattr(fake_format, "write", write)
    with pytest.raises(export.ParityError, match="it is fake of feature_vector"):
        run(inputs, tmp_path / NAME)
    assert tree(tmp_path) == {}


def test_what_was_made_meanwhile_is_not_replaced(inputs, tmp_path):
    (tmp_path / NAME).write_bytes(b"another's")
    with pytest.raises(ExportError, match="was made meanwhile"):
        run(inputs, tmp_path / NAME, overwrite=False)
    assert tree(tmp_path) == {NAME: b"another's"}


def test_the_size_of_a_directory_is_that_of_its_files(inputs, tmp_path, monkeypatch):
    def write(inputs, format_name, task, path):
        (path / "variables").mkdir(parents=True)
        (path / "graph.pb").write_bytes(b"12345")
        (path / "variables" / "index").write_bytes(b"123")

    monkeypatch.setattr(fake_format, "write", write)
    assert run(inputs, tmp_path / "model", reference=None).bytes == 8


def test_without_a_reference_nothing_is_compared(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(fake_format, "open", None)
    made = run(inputs, tmp_path / NAME, reference=None)
    assert made.report is None
    assert made.seconds.keys() == {"write"}
    assert json.loads(manifest.path_of(made.path).read_text())["parity"] is None


def test_steps_are_told(inputs, tmp_path):
    steps = []
    run(inputs, tmp_path / NAME, step=steps.append)
    assert steps == ["write", "verify"]


def test_others_cannot_tell_an_export_from_a_file_made_at_once(inputs, tmp_path):
    """Nothing has its own name in the directory before it is whole and right."""
    seen = []
    run(inputs, tmp_path / NAME, step=lambda _: seen.append(list(tmp_path.iterdir())))
    assert all(path.name.startswith(".") for step in seen for path in step)
    assert len(seen) == 2


# When it fails


def unfinished(inputs, format_name, task, path):
    """A writer whose disk is full."""
    path.write_bytes(b"half of it")
    raise OSError("No space left on device")


def interrupted(inputs, format_name, task, path):
    path.mkdir()
    (path / "half").write_bytes(b"half of it")
    raise KeyboardInterrupt


@pytest.mark.parametrize("writer", [unfinished, interrupted])
@pytest.mark.parametrize("there_before", [False, True])
def test_a_writer_that_fails_leaves_the_directory_as_it_was(
    inputs, tmp_path, monkeypatch, writer, there_before
):
    if there_before:
        run(inputs, tmp_path / "out" / NAME)
    before = tree(tmp_path)
    monkeypatch.setattr(fake_format, "write", writer)
    with pytest.raises((OSError, KeyboardInterrupt)):
        run(inputs, tmp_path / "out" / NAME)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("there_before", [False, True])
def test_a_wrong_artifact_is_not_kept(inputs, tmp_path, there_before):
    if there_before:
        run(inputs, tmp_path / "out" / NAME)
    before = tree(tmp_path)
    with pytest.raises(ParityError) as caught:
        run(inputs, tmp_path / "out" / NAME, expected=other_checkpoint())
    assert tree(tmp_path) == before
    message = str(caught.value)
    assert message.startswith(f"{NAME} does not agree with the checkpoint, and was not")
    assert "made of the checkpoint" in message
    assert "output logits: error" in message
    assert "weight layer/biases: 8 of 8 values differ" in message


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("failing", [NAME, f"{NAME}.manifest.json"])
def test_a_move_that_fails_is_undone(
    inputs, tmp_path, monkeypatch, there_before, failing
):
    path = tmp_path / "out" / NAME
    if there_before:
        run(fake_format.export_inputs(other_checkpoint()), path)
    before = tree(tmp_path)
    rename = Path.rename

    failures = [path.with_name(failing)]

    def rename_or_fail(source, target):
        if target in failures:
            failures.remove(target)
            raise OSError("Input/output error")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", rename_or_fail)
    with pytest.raises(OSError, match="Input/output error"):
        run(inputs, path)
    assert tree(tmp_path) == before


def test_an_old_artifact_is_replaced_as_a_whole(inputs, tmp_path):
    path = tmp_path / NAME
    path.mkdir()
    (path / "of another version").write_bytes(b"old")
    manifest.path_of(path).write_text("old")
    run(inputs, path)
    assert fake_format.open(path).checkpoint_identity == inputs.checkpoint.identity
    assert manifest.changed_files(path) == []
    assert len(tree(tmp_path)) == 2


# Where artifacts go


SELECTION = [
    (FORMATS["v4"], "feature_vector"),
    (FORMATS["onnx-int8"], "classification"),
]


def destinations(output, *, is_stand_in=False, overwrite=False):
    return export.destinations(
        output, SELECTION, is_stand_in=is_stand_in, overwrite=overwrite
    )


def test_destinations_are_in_the_order_of_the_selection(tmp_path):
    assert destinations(tmp_path / "new") == [
        tmp_path / "new" / "inception_resnet_v2-feature_vector-v4",
        tmp_path / "new" / "inception_resnet_v2-classification-onnx-int8.onnx",
    ]
    assert not (tmp_path / "new").exists()


def test_stand_ins_go_elsewhere(tmp_path):
    for path in destinations(tmp_path, is_stand_in=True):
        assert path.stem.endswith("-stand-in")


def test_existing_artifacts_are_kept_unless_asked(tmp_path):
    first, second = destinations(tmp_path)
    second.write_bytes(b"old")
    with pytest.raises(ExportError) as caught:
        destinations(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} already holds {second.name}. Use --force to replace."
    )
    assert destinations(tmp_path, overwrite=True) == [first, second]
    assert second.read_bytes() == b"old"


def test_the_output_must_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ExportError, match=r"file is a file; expected a directory"):
        destinations(tmp_path / "file")


# Saying what failed


def test_failures_are_told_in_a_few_lines():
    good = OutputParity(0.0, 0.0, 1.0, 1.0, 1.0, passed=True)
    report = ParityReport(
        format="v4",
        task="feature_vector",
        images={"299 x 299": 8},
        main_output="feature_vector",
        outputs={
            "feature_vector": good,
            "train/feature_vector": OutputParity(
                0.5, 0.125, 0.75, None, None, passed=False
            ),
        },
        weights=WeightParity(9, tuple(f"{name}: missing" for name in "abcde")),
        problems=("made of another checkpoint",),
    )
    assert export.failures(report) == [
        "made of another checkpoint",
        "output train/feature_vector: error 0.12 of the largest magnitude, "
        "cosine 0.750000",
        "weight a: missing",
        "weight b: missing",
        "weight c: missing",
        "and 2 more weights of 9",
    ]
    right = dataclasses.replace(report, outputs={}, weights=WeightParity(9, ()))
    assert export.failures(dataclasses.replace(right, problems=())) == []


@pytest.mark.slow
def test_others_may_read_what_was_exported(exported, tmp_path):
    """As far as the umask lets them."""
    file, directory = tmp_path / "file", tmp_path / "directory"
    file.touch()
    directory.mkdir()
    for path in exported.rglob("*"):
        usual = directory if path.is_dir() else file
        assert path.stat().st_mode == usual.stat().st_mode, path
