"""Exporting: all of an artifact appears, or nothing does; and one does not end the rest."""

import dataclasses
import errno
import hashlib
import json
import tempfile
from pathlib import Path

import fake_format
import numpy as np
import pytest

from checkpoints import files
from exporters import exporting, manifest
from exporters.build import ExportOptions
from exporters.errors import ExportError, UnknownFormatError
from exporters.labels import imagenet_labels
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR
from exporters.progress import Note, Step

NAME = "inception_resnet_v2-classification-fake-75.fake"
OTHER = "inception_resnet_v2-feature_vector-fake-75.fake"


def other_checkpoint():
    return fake_format.checkpoint(**{"layer/biases": np.zeros(8, np.float32)})


def run(output, *, expected=None, **options):
    """Exports, and compares with the checkpoint `expected`, by default the right one."""
    checkpoint = options.pop("checkpoint", fake_format.checkpoint())
    given = {
        "formats": [fake_format.FORMAT],
        "tasks": ["classification"],
        "options": fake_format.OPTIONS,
        "images": fake_format.IMAGES,
        "reference": fake_format.FakeReference(expected or checkpoint),
    }
    return exporting.export(checkpoint, output, **given | options)


def only(done):
    (item,) = done.artifacts
    return item


def tree(directory):
    """Everything in a directory, with the content of files."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def test_an_artifact_and_its_manifest_appear(tmp_path):
    done = run(tmp_path / "new" / "folder")
    made = only(done)
    assert done.passed and made.is_kept
    assert made.path == tmp_path / "new" / "folder" / NAME
    assert sorted(path.name for path in made.path.parent.iterdir()) == [
        NAME,
        f"{NAME}.card.md",
        f"{NAME}.cdx.json",
        f"{NAME}.manifest.json",
    ]
    found = fake_format.open(made.path)
    assert found.record.checkpoint_identity == fake_format.checkpoint().identity
    assert made.bytes == made.path.stat().st_size
    assert made.report.passed
    assert made.seconds.keys() == {"write", "verify"}
    assert done.checkpoint_identity == fake_format.checkpoint().identity
    assert done.compared_on == "generated images"
    assert done.calibrated_on is None


def test_what_the_manifest_says(tmp_path):
    made = only(run(tmp_path))
    found = json.loads(manifest.path_of(made.path).read_text())
    assert found.pop("parity")["passed"]
    card, bom = manifest.card_of(made.path), manifest.bom_of(made.path)
    assert found.pop("companions") == files.digests(card) | files.digests(bom)
    assert found == {
        "schema_version": 2,
        "format": "fake",
        "task": "classification",
        "checkpoint_identity": fake_format.checkpoint().identity,
        "provenance": "unverified",
        "stand_in": False,
        "num_classes": 1001,
        "labels": list(imagenet_labels()),
        "options": {"image_size": [75, 75]},
        "handle": "https://tfhub.dev/google/imagenet/inception_resnet_v2/"
        "classification/9",
        "calibration": None,
        "compared_on": "generated images",
        "checkpoint": {"file": "fake.ckpt", "container": "memory"},
        "versions": manifest.versions(),
        "files": {NAME: hashlib.sha256(made.path.read_bytes()).hexdigest()},
    }


def test_all_tasks_unless_named(tmp_path):
    done = run(tmp_path, tasks=None)
    assert [item.path.name for item in done.artifacts] == [OTHER, NAME]
    assert [item.task for item in done.artifacts] == [
        "feature_vector",
        "classification",
    ]


def test_tasks_that_a_format_is_for(tmp_path):
    row = dataclasses.replace(fake_format.FORMAT, tasks=(CLASSIFICATION,))
    done = run(tmp_path, tasks=None, formats=[row])
    assert [item.path.name for item in done.artifacts] == [NAME]
    message = "fake is for classification, not for feature_vector"
    with pytest.raises(ExportError, match=message):
        run(tmp_path, tasks=["feature_vector"], formats=[row])


def test_what_needs_an_auxiliary_head_is_left_out_unless_named(tmp_path, monkeypatch):
    row = dataclasses.replace(
        fake_format.FORMAT, name="headed", needs_auxiliary_head=True
    )
    monkeypatch.setattr(exporting, "select", lambda _: [fake_format.FORMAT, row])
    told = []
    done = run(tmp_path / "all", formats=None, progress=told.append)
    assert [item.format for item in done.artifacts] == ["fake"]
    assert Note("There is no auxiliary head to make headed of.") in told
    done = run(tmp_path / "named", formats=[row])
    assert [item.format for item in done.artifacts] == ["headed"]


def test_an_artifact_of_another_task_is_not_kept(tmp_path, monkeypatch):
    right = fake_format.write

    def write(build, variant, task, record, path):
        record = dataclasses.replace(record, task="feature_vector")
        right(build, variant, FEATURE_VECTOR, record, path)

    monkeypatch.setattr(fake_format, "write", write)
    made = only(run(tmp_path))
    assert made.failures == ["it is for feature_vector"]
    assert tree(tmp_path) == {}


def test_without_comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(fake_format, "open", None)
    done = run(tmp_path, verify=False)
    made = only(done)
    assert made.is_kept
    assert made.report is None
    assert made.seconds.keys() == {"write"}
    assert done.compared_on is None
    assert json.loads(manifest.path_of(made.path).read_text())["parity"] is None


def test_what_is_done_is_told(tmp_path):
    events = []
    run(tmp_path, progress=events.append)
    assert events == [
        Note("Artifacts are compared on generated images."),
        Step("[1/1] classification fake", "write"),
        Step("[1/1] classification fake", "verify"),
        Step("[1/1] classification fake", "agrees", passed=True),
    ]


def test_a_stand_in_is_told_before_work_begins(tmp_path):
    kernel = np.array([[1] * 8, [0] * 8, [-1] * 8], np.float32)
    checkpoint = fake_format.checkpoint(**{"layer/weights": kernel})
    events = []
    made = only(run(tmp_path, checkpoint=checkpoint, progress=events.append))
    assert made.path.name == NAME.replace(".fake", "-stand-in.fake")
    told = [event.text for event in events if isinstance(event, Note)]
    assert "STAND-IN" in told[0]
    assert json.loads(manifest.path_of(made.path).read_text())["stand_in"] is True


def test_others_cannot_tell_an_export_from_a_file_made_at_once(tmp_path):
    """Nothing has its own name in the directory before it is whole and right."""
    seen = []

    def look(event):
        if isinstance(event, Step) and event.state in ("write", "verify"):
            seen.append(list(tmp_path.iterdir()))

    run(tmp_path, progress=look)
    assert all(path.name.startswith(".") for step in seen for path in step)
    assert len(seen) == 2


# When it fails


def disk_is_full(build, variant, task, record, path):
    path.write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def interrupted(build, variant, task, record, path):
    path.mkdir()
    (path / "half").write_bytes(b"half of it")
    raise KeyboardInterrupt


def our_fault(build, variant, task, record, path):
    path.write_bytes(b"half of it")
    raise ZeroDivisionError("division by zero")


def cannot_be(build, variant, task, record, path):
    raise ExportError("layer/weights is too large for float16.")


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("writer", [interrupted, our_fault])
def test_what_is_no_users_error_ends_the_export(
    tmp_path, monkeypatch, writer, there_before
):
    if there_before:
        run(tmp_path / "out")
    before = tree(tmp_path)
    monkeypatch.setattr(fake_format, "write", writer)
    with pytest.raises((ZeroDivisionError, KeyboardInterrupt)):
        run(tmp_path / "out", force=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize(
    ("writer", "words"),
    [(disk_is_full, "No space left on device"), (cannot_be, "too large for float16")],
)
def test_an_artifact_that_cannot_be_made_leaves_the_directory_as_it_was(
    tmp_path, monkeypatch, writer, words, there_before
):
    if there_before:
        run(tmp_path / "out")
    before = tree(tmp_path)
    monkeypatch.setattr(fake_format, "write", writer)
    done = run(tmp_path / "out", force=True)
    assert tree(tmp_path) == before
    assert not done.passed
    (message,) = only(done).failures
    assert words in message
    assert ".irv2-" not in message


@pytest.mark.parametrize("there_before", [False, True])
def test_a_wrong_artifact_is_not_kept(tmp_path, there_before):
    if there_before:
        run(tmp_path / "out")
    before = tree(tmp_path)
    done = run(tmp_path / "out", expected=other_checkpoint(), force=True)
    assert tree(tmp_path) == before
    assert not done.passed and not only(done).is_kept
    told = "; ".join(only(done).failures)
    assert "made of the checkpoint" in told
    assert "output logits: error" in told
    assert "weight layer/biases: 8 of 8 values differ" in told


def test_one_that_fails_does_not_end_the_others(tmp_path, monkeypatch):
    right = fake_format.write

    def write(build, variant, task, record, path):
        if task is FEATURE_VECTOR:
            raise ExportError("no feature vectors today.")
        right(build, variant, task, record, path)

    monkeypatch.setattr(fake_format, "write", write)
    done = run(tmp_path, tasks=None)
    assert [item.is_kept for item in done.artifacts] == [False, True]
    assert [item.bytes > 0 for item in done.artifacts] == [False, True]
    assert not done.passed
    beside = {f"{NAME}.{kind}" for kind in ("card.md", "cdx.json", "manifest.json")}
    assert tree(tmp_path).keys() == {NAME, *beside}


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize(
    "failing",
    [NAME, f"{NAME}.card.md", f"{NAME}.cdx.json", f"{NAME}.manifest.json"],
)
def test_a_move_that_fails_is_undone(tmp_path, monkeypatch, there_before, failing):
    path = tmp_path / "out" / NAME
    if there_before:
        run(path.parent, checkpoint=other_checkpoint())
    before = tree(tmp_path)
    rename = Path.rename
    failures = [path.with_name(failing)]

    def rename_or_fail(source, target):
        if target in failures:
            failures.remove(target)
            raise OSError(errno.EIO, "Input/output error", str(target))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", rename_or_fail)
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    done = run(path.parent, force=True)
    assert "Input/output error" in only(done).failures[0]
    assert tree(tmp_path) == before


def test_an_old_artifact_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / NAME
    path.mkdir()
    (path / "of another version").write_bytes(b"old")
    manifest.path_of(path).write_text("old")
    run(tmp_path, force=True)
    found = fake_format.open(path)
    assert found.record.checkpoint_identity == fake_format.checkpoint().identity
    assert manifest.changed_files(path) == []
    assert len(tree(tmp_path)) == 4


# Before the work begins


@pytest.fixture
def unread(monkeypatch):
    """A checkpoint that must not be read."""

    def refuse(path, **_):
        raise AssertionError("the checkpoint was read")

    monkeypatch.setattr(exporting, "open_checkpoint", refuse)
    return "some.ckpt"


def test_existing_artifacts_are_kept_unless_asked(tmp_path):
    (tmp_path / NAME).write_bytes(b"old")
    with pytest.raises(ExportError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} already holds {NAME}. Use --force to replace."
    )
    assert tree(tmp_path) == {NAME: b"old"}


def test_what_was_made_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    right = fake_format.write

    def write(build, variant, task, record, path):
        (tmp_path / NAME).write_bytes(b"another's")
        right(build, variant, task, record, path)

    monkeypatch.setattr(fake_format, "write", write)
    assert "already holds" in only(run(tmp_path)).failures[0]
    assert tree(tmp_path) == {NAME: b"another's"}


def test_the_output_must_be_a_directory(tmp_path, unread):
    (tmp_path / "file").write_text("a file")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ExportError, match=r"file is a file; expected a directory"):
            run(output, checkpoint=unread, expected=fake_format.checkpoint())


def test_the_output_must_be_writable(tmp_path, unread, monkeypatch):
    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied", "a random name")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(PermissionError) as caught:
        run(
            tmp_path,
            checkpoint=unread,
            expected=fake_format.checkpoint(),
        )
    assert caught.value.filename == str(tmp_path)


def test_unknown_formats_and_tasks(tmp_path, unread):
    with pytest.raises(UnknownFormatError, match="'v2'"):
        exporting.export(unread, tmp_path, formats=["v4", "v2"])
    with pytest.raises(UnknownFormatError, match="'detection'"):
        exporting.export(unread, tmp_path, formats=["v4"], tasks=["detection"])
    with pytest.raises(ExportError, match="no format"):
        exporting.export(unread, tmp_path, formats=[])


@pytest.mark.parametrize(
    ("formats", "options", "words"),
    [
        (
            ["v4"],
            ExportOptions(image_size=(224, 224)),
            "--image-size has no effect on v4",
        ),
        (
            ["onnx-int8"],
            ExportOptions(softmax=True),
            "softmax has no effect on onnx-int8",
        ),
        (
            ["onnx-float32", "tflite-int8"],
            ExportOptions(image_size=None),
            "tflite-int8",
        ),
    ],
)
def test_options_that_fit_no_format(tmp_path, unread, formats, options, words):
    with pytest.raises(ExportError, match=words):
        exporting.export(unread, tmp_path, formats=formats, options=options)


def test_calibration_images_that_nothing_uses(tmp_path, unread):
    with pytest.raises(ExportError, match="no effect on v4"):
        exporting.export(
            unread, tmp_path, formats=["v4"], calibration_images=tmp_path / "photos"
        )


@pytest.mark.parametrize("size", [(74, 299), (299, 2049), (0, 0)])
def test_image_sizes_that_the_network_cannot_take(size):
    with pytest.raises(ExportError, match=f"image size {size[0]} x {size[1]}"):
        ExportOptions(image_size=size)


def test_names_of_rows_and_rows_may_be_mixed(tmp_path):
    rows = exporting._rows([fake_format.FORMAT, "v4", "v4", fake_format.FORMAT])
    assert [row.name for row in rows] == ["fake", "v4"]


@pytest.mark.slow
def test_others_may_read_what_was_exported(exported, tmp_path):
    """As far as the umask lets them."""
    file, directory = tmp_path / "file", tmp_path / "directory"
    file.touch()
    directory.mkdir()
    for path in exported.rglob("*"):
        usual = directory if path.is_dir() else file
        assert path.stat().st_mode == usual.stat().st_mode, path


# Classes


def own_classes(num_classes):
    checkpoint = fake_format.checkpoint()
    checkpoint.num_classes = num_classes
    return checkpoint


def test_own_classes_have_another_name_and_no_published_handle(tmp_path):
    made = only(run(tmp_path, checkpoint=own_classes(8)))
    assert made.path.name == NAME.replace("v2-", "v2-8-classes-")
    described = json.loads(manifest.path_of(made.path).read_text())
    assert described["num_classes"] == 8
    assert described["handle"] is None
    assert described["labels"] is None


def test_labels_of_own_classes(tmp_path):
    names = [f"flower {number}" for number in range(8)]
    (tmp_path / "labels.txt").write_text("\n".join(names) + "\n")
    made = only(
        run(
            tmp_path / "out",
            checkpoint=own_classes(8),
            labels=tmp_path / "labels.txt",
        )
    )
    described = json.loads(manifest.path_of(made.path).read_text())
    assert described["labels"] == names


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"rose\ntulip\n", "2 names, expected one for each of the network's 8"),
        (b"rose\n\ntulip\n", "empty line 2"),
        (b"", "is empty"),
        (b"\xff\xfe", "no text in UTF-8"),
    ],
)
def test_labels_that_are_none(tmp_path, content, words):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ExportError, match=words) as caught:
        run(
            tmp_path / "out",
            checkpoint=own_classes(8),
            labels=tmp_path / "labels.txt",
        )
    assert str(tmp_path / "labels.txt") in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_a_classifier_there_are_features_alone(tmp_path):
    done = run(tmp_path, tasks=None, checkpoint=own_classes(None))
    assert [item.task for item in done.artifacts] == ["feature_vector"]
    with pytest.raises(ExportError, match="no classifier, so classification cannot"):
        run(tmp_path, tasks=["classification"], checkpoint=own_classes(None))


def test_artifacts_of_stand_ins_have_other_names():
    name = fake_format.FORMAT.artifact_name(CLASSIFICATION, is_stand_in=True)
    assert name != fake_format.FORMAT.artifact_name(CLASSIFICATION, is_stand_in=False)
