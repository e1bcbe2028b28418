"""Digests, sizes, scratch space and replacing, for files and directories alike."""

import errno
import hashlib
import shutil
from pathlib import Path

import pytest

from checkpoints import files


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "artifact"
    (made / "variables").mkdir(parents=True)
    (made / "saved_model.pb").write_bytes(b"graph")
    (made / "variables/index").write_bytes(b"names")
    return made


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_digest_takes_any_algorithm(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    assert files.digest(file) == sha256(b"content")
    assert files.digest(file, "md5") == hashlib.md5(b"content").hexdigest()


def test_digests_and_size_are_of_every_file_below(directory):
    assert files.digests(directory) == {
        "artifact/saved_model.pb": sha256(b"graph"),
        "artifact/variables/index": sha256(b"names"),
    }
    assert files.size(directory) == len(b"graph") + len(b"names")
    assert files.digests(directory / "saved_model.pb") == {
        "saved_model.pb": sha256(b"graph")
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[" * 100_000],
    ids=["empty", "cut", "bytes", "deep"],
)
def test_what_is_no_json_is_a_value_error(tmp_path, content):
    file = tmp_path / "file.json"
    file.write_bytes(content)
    with pytest.raises(ValueError):
        files.read_json(file)


def test_huge_json_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LARGEST_JSON", 8)
    file = tmp_path / "file.json"
    file.write_text('"longer than that"')
    with pytest.raises(ValueError, match="18 bytes"):
        files.read_json(file)


def test_json_round_trip(tmp_path):
    value = {"a": [1, None, "ö"]}
    files.write_json(tmp_path / "file.json", value)
    assert files.read_json(tmp_path / "file.json") == value


def test_scratch_leaves_nothing_behind(tmp_path):
    destination = tmp_path / "new/deep/file"
    with files.scratch_beside(destination) as scratch:
        assert scratch.parent == destination.parent
        (scratch / "part").write_text("unfinished")
    assert list(tmp_path.iterdir()) == []


def test_scratch_keeps_the_directory_that_got_something(tmp_path):
    destination = tmp_path / "new/file"
    with files.scratch_beside(destination) as scratch:
        (scratch / "part").write_text("whole")
        files.replace({scratch / "part": destination}, scratch)
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "file"]


def test_scratch_that_cannot_be_made_is_named_by_its_directory(tmp_path, monkeypatch):
    def refuse(prefix, dir):
        raise PermissionError(13, "Permission denied", f"{dir}/{prefix}x3h2")

    monkeypatch.setattr(files.tempfile, "mkdtemp", refuse)
    place = tmp_path / "new" / "folder"
    with pytest.raises(PermissionError) as caught, files.scratch_beside(place / "x"):
        pass
    assert caught.value.filename == str(place)
    assert list(tmp_path.iterdir()) == []


FULL = "No space left on device"


def test_another_process_may_remove_the_directory_meanwhile(tmp_path, monkeypatch):
    make = files.tempfile.mkdtemp

    def make_late(prefix, dir):
        monkeypatch.undo()
        dir.rmdir()
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(files.tempfile, "mkdtemp", make_late)
    with files.scratch_beside(tmp_path / "new" / "x") as scratch:
        assert scratch.is_dir()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, FULL),
        OSError(errno.ENOSPC, FULL, ".irv2-x3h2/part"),
        shutil.Error([("source", "copy", f"[Errno 28] {FULL}: 'source' -> 'copy'")]),
        RuntimeError(f"{{{{node SaveV2}}}} .irv2-x3h2/variables; {FULL} [Op:SaveV2]"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_named_whoever_tells_of_it(tmp_path, error):
    with pytest.raises(OSError) as caught, files.scratch_beside(tmp_path / "x/y"):
        raise error
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_as_they_are(tmp_path):
    for error in (OSError(errno.EIO, "Input/output error"), ValueError("no")):
        with pytest.raises(type(error)) as caught, files.scratch_beside(tmp_path / "x"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("failing", ["artifact", "manifest"])
def test_replacing_happens_wholly_or_not_at_all(tmp_path, monkeypatch, failing):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name in ("artifact", "manifest"):
        (tmp_path / name).write_text("old")
        (scratch / name).write_text("new")
    moves = {scratch / name: tmp_path / name for name in ("artifact", "manifest")}
    rename = Path.rename

    def fail_once(self, target):
        if self == scratch / failing:
            raise OSError("no")
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail_once)
        with pytest.raises(OSError, match="no"):
            files.replace(moves, scratch)
    assert [(tmp_path / name).read_text() for name in ("artifact", "manifest")] == [
        "old",
        "old",
    ]
    files.replace(moves, scratch)
    assert (tmp_path / "artifact").read_text() == "new"
    assert (tmp_path / "manifest").read_text() == "new"


def test_directories_are_replaced_as_files_are(tmp_path, directory):
    scratch = tmp_path / "scratch"
    (scratch / "new").mkdir(parents=True)
    (scratch / "new/file").write_text("new")
    files.replace({scratch / "new": directory}, scratch)
    assert [path.name for path in directory.iterdir()] == ["file"]
