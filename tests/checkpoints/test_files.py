"""Digests, sizes, scratch space and replacing, for files and directories alike."""

import hashlib
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


@pytest.fixture(params=["exchanged", "moved"])
def exchanging(request, monkeypatch):
    """Whether the file system can exchange two names at once."""
    if request.param == "moved":
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    return request.param == "exchanged"


@pytest.fixture
def pair(tmp_path):
    """Moves of a new artifact and its manifest to the places of old ones."""
    scratch = tmp_path / "scratch"
    (scratch / "artifact").mkdir(parents=True)
    (scratch / "artifact/part").write_text("new")
    (scratch / "manifest").write_text("new")
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact/part").write_text("old")
    (tmp_path / "manifest").write_text("old")
    return {scratch / name: tmp_path / name for name in ("artifact", "manifest")}


def contents(tmp_path):
    return [(tmp_path / name).read_text() for name in ("artifact/part", "manifest")]


def test_replacing(tmp_path, pair, exchanging):
    files.replace(pair, tmp_path / "scratch")
    assert contents(tmp_path) == ["new", "new"]


@pytest.mark.parametrize("failing", ["artifact", "manifest"])
def test_replacing_happens_wholly_or_not_at_all(
    tmp_path, monkeypatch, pair, exchanging, failing
):
    rename, exchange = Path.rename, files.exchange

    def fail(source):
        if source == tmp_path / "scratch" / failing:
            raise OSError("no")

    def rename_or_fail(self, target):
        fail(self)
        return rename(self, target)

    def exchange_or_fail(one, other):
        if exchanging and (tmp_path / "artifact/part").read_text() == "old":
            fail(one)
        elif exchanging and failing == "manifest" and one.name == "manifest":
            fail(one)
        return exchange(one, other)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename_or_fail)
        patched.setattr(files, "exchange", exchange_or_fail)
        with pytest.raises(OSError, match="no"):
            files.replace(pair, tmp_path / "scratch")
    assert contents(tmp_path) == ["old", "old"]
    files.replace(pair, tmp_path / "scratch")
    assert contents(tmp_path) == ["new", "new"]


def test_files_and_directories_replace_each_other(tmp_path, exchanging):
    scratch = tmp_path / "scratch"
    (scratch / "a").mkdir(parents=True)
    (scratch / "b").write_text("file")
    (tmp_path / "a").write_text("file")
    (tmp_path / "b").mkdir()
    moves = {scratch / name: tmp_path / name for name in ("a", "b")}
    files.replace(moves, scratch)
    assert (tmp_path / "a").is_dir() and (tmp_path / "b").is_file()


def test_links_that_lead_nowhere_are_replaced(tmp_path, exchanging):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/new").write_text("new")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    files.replace({tmp_path / "scratch/new": tmp_path / "link"}, tmp_path / "scratch")
    assert not (tmp_path / "link").is_symlink()


def test_what_was_moved_away_is_put_back(tmp_path, monkeypatch, pair):
    """If the process was killed where the file system cannot exchange."""
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    rename = Path.rename

    def killed(self, target):
        if self == tmp_path / "scratch/artifact":
            raise SystemExit
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        patched.setattr(files.contextlib, "ExitStack", NoUndo)
        with pytest.raises(SystemExit):
            files.replace(pair, tmp_path / "scratch")
    assert not (tmp_path / "artifact").exists()
    files.undo_replacing(tmp_path / "scratch")
    assert contents(tmp_path) == ["old", "old"]


class NoUndo:
    """A stack that a killed process does not come to unwind."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def callback(self, *arguments):
        pass

    def pop_all(self):
        pass


def test_exchanging_names_what_is_wrong(tmp_path):
    (tmp_path / "a").write_text("a")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        files.exchange(tmp_path / "a", tmp_path / "nowhere")


def test_syncing_takes_files_and_directories(tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/file").write_text("content")
    files.sync(tmp_path / "directory")
    files.sync(tmp_path / "directory/file")


def test_what_is_no_directory_is_asked_in_one_go(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    asked = []
    ask = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self: asked.append(self) or ask(self))
    assert files.is_no_directory(tmp_path / "file")
    for name in ("", "link", "nothing", "file/below"):
        assert not files.is_no_directory(tmp_path / name)
    assert len(asked) == 5
