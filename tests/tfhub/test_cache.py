"""Installing and removing; and the library's own view of the result."""

import errno
import hashlib
import json
import queue
import shutil
from concurrent import futures
from pathlib import Path

import pytest
from published_directories import PUBLISHED, content, make

from checkpoints import files, scratch
from exporters.errors import ArtifactError
from exporters.progress import Step
from exporters.tfhub.artifacts import InstallError
from exporters.tfhub.cache import install, uninstall

HANDLE = f"{PUBLISHED}/feature_vector/3"
DATA = "variables/variables.data-00000-of-00001"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def artifact(tmp_path):
    return make(tmp_path)


def sha1(handle):
    return hashlib.sha1(handle.encode()).hexdigest()


def removed(result):
    """Handles of what was removed; nothing was kept."""
    assert result.kept == ()
    return sorted(item.handle for item in result.removed)


# Two processes


def test_who_comes_second_waits(artifact, cache):
    """To install, and to remove what may still be in the making."""
    cache.mkdir()
    told = queue.Queue()
    with futures.ThreadPoolExecutor() as pool:
        with scratch.locked(cache):
            first = pool.submit(install, [artifact], cache, progress=told.put)
            assert told.get(timeout=30).name == f"wait for the irv2 at work in {cache}"
            assert [path.name[:6] for path in cache.iterdir()] == [".irv2-"]
        assert len(first.result(timeout=30)) == 1
        with scratch.locked(cache):
            second = pool.submit(uninstall, cache)
            with pytest.raises(futures.TimeoutError):
                second.result(timeout=0.2)
        assert removed(second.result(timeout=30)) == [HANDLE]
    assert list(cache.iterdir()) == []


# Receipts of other versions


def rewrite_receipt(cache, **changed):
    (path,) = cache.glob("*.irv2.json")
    facts = json.loads(path.read_text())
    assert facts.pop("schema_version") == 1
    path.write_text(json.dumps(facts | changed))
    return path


def test_a_newer_receipt_is_refused_by_name(artifact, cache):
    install([artifact], cache)
    path = rewrite_receipt(cache, schema_version=2, more="facts")
    before = content(cache)
    for verb in (lambda: uninstall(cache), lambda: install([artifact], cache)):
        with pytest.raises(
            ArtifactError, match=f"{path.name} is a receipt of version 2"
        ):
            verb()
    assert content(cache) == before


def test_the_receipt_of_the_first_version_is_read(artifact, cache):
    install([artifact], cache)
    rewrite_receipt(cache)
    assert removed(uninstall(cache)) == [HANDLE]


# Installing


def test_install_copies_to_where_the_library_looks(artifact, cache):
    (placed,) = install([artifact], cache)
    directory = cache / sha1(HANDLE)
    assert (placed.handle, placed.directory) == (HANDLE, directory)
    assert not placed.replaced
    assert placed.warning is None
    assert content(directory) == content(artifact)
    descriptor = (cache / f"{sha1(HANDLE)}.descriptor.txt").read_text()
    assert descriptor.startswith(f"Module: {HANDLE}\nDownload Time: ")
    assert "\nDownloader Hostname: " in descriptor
    others = [path for path in cache.iterdir() if not path.is_symlink()]
    assert len(others) == 3


def test_install_takes_a_directory_of_artifacts_and_passes_over_the_rest(
    tmp_path, cache
):
    for task in ("feature_vector", "classification"):
        for version in ("v1", "v3", "v4", "v5"):
            make(tmp_path / "all", version, task)
    (tmp_path / "all/network.onnx").write_bytes(b"\x08\x08")
    placed = install([tmp_path / "all"], cache)
    assert {item.handle for item in placed} == {
        f"{PUBLISHED}/{task}/{version}"
        for task in ("feature_vector", "classification")
        for version in (1, 3, 4, 5)
    }
    assert all(item.directory == cache / sha1(item.handle) for item in placed)


@pytest.mark.parametrize("configured", [True, False])
def test_default_cache_is_the_library_s(artifact, tmp_path, monkeypatch, configured):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "set") if configured else "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (placed,) = install([artifact])
    expected = tmp_path / ("set" if configured else "tfhub_modules")
    assert placed.directory.parent == expected


def test_remote_cache_is_refused(artifact, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", "gs://bucket/modules")
    with pytest.raises(InstallError, match="gs://bucket/modules"):
        install([artifact])


def test_stand_in_is_refused_unless_insisted(tmp_path, cache):
    trained = make(tmp_path, "v1")
    stand_in = make(tmp_path, "v3", is_stand_in=True)
    with pytest.raises(InstallError, match="stand-in"):
        install([trained, stand_in], cache)
    assert not cache.exists()
    install([trained, stand_in], cache, allow_stand_in=True)


def test_installing_again_replaces(tmp_path, cache):
    install([make(tmp_path / "a", content=b"old")], cache)
    (placed,) = install([make(tmp_path / "b", content=b"new")], cache)
    assert placed.replaced
    assert (placed.directory / DATA).read_bytes() == b"new"
    assert removed(uninstall(cache)) == [HANDLE]
    assert list(cache.iterdir()) == []


def test_what_the_library_downloaded_is_not_overwritten(artifact, cache):
    downloaded = cache / sha1(HANDLE)
    downloaded.mkdir(parents=True)
    (downloaded / "saved_model.pb").write_bytes(b"downloaded")
    with pytest.raises(InstallError, match="did not put it there"):
        install([artifact], cache)
    assert content(downloaded) == {"saved_model.pb": b"downloaded"}
    assert removed(uninstall(cache)) == []
    (placed,) = install([artifact], cache, force=True)
    assert placed.replaced
    assert content(downloaded) == content(artifact)


def test_empty_directory_is_no_obstacle(artifact, cache):
    (cache / sha1(HANDLE)).mkdir(parents=True)
    (placed,) = install([artifact], cache)
    assert not placed.replaced
    assert content(cache / sha1(HANDLE)) == content(artifact)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_an_obstacle(artifact, tmp_path, cache, kind):
    cache.mkdir()
    place = cache / sha1(HANDLE)
    if kind == "file":
        place.write_bytes(b"mine")
    else:
        place.symlink_to(make(tmp_path / "elsewhere"))
    with pytest.raises(InstallError, match="did not put it there"):
        install([artifact], cache)
    assert list(cache.iterdir()) == [place]
    install([artifact], cache, force=True)
    assert content(place) == content(artifact)
    assert not place.is_symlink()


@pytest.mark.parametrize("change", ["changed", "added"])
def test_changed_installation_is_not_overwritten(artifact, cache, change):
    (placed,) = install([artifact], cache)
    name = DATA if change == "changed" else "variables/notes.txt"
    (placed.directory / name).write_bytes(b"mine")
    with pytest.raises(InstallError, match=f"changed since .*{name}.*--force"):
        install([artifact], cache)
    assert (placed.directory / name).read_bytes() == b"mine"
    install([artifact], cache, force=True)
    assert content(placed.directory) == content(artifact)


@pytest.mark.parametrize("with_receipt", [True, False])
def test_half_deleted_installation_is_repaired(tmp_path, cache, with_receipt):
    """Programs that clean temporary directories delete what was not used lately."""
    artifact = make(tmp_path)
    (placed,) = install([artifact], cache)
    shutil.rmtree(placed.directory / "variables")
    if not with_receipt:
        (cache / f"{sha1(HANDLE)}.irv2.json").unlink()
    (placed,) = install([artifact], cache)
    assert content(placed.directory) == content(artifact)
    assert removed(uninstall(cache)) == [HANDLE]


def test_half_deleted_installation_is_replaced_by_another(tmp_path, cache):
    (placed,) = install([make(tmp_path / "a", content=b"old")], cache)
    (placed.directory / "saved_model.pb").unlink()
    install([make(tmp_path / "b", content=b"new")], cache)
    assert (placed.directory / DATA).read_bytes() == b"new"


def test_failed_move_leaves_the_old_module(tmp_path, cache, monkeypatch):
    """Whatever happens while the new one takes its place."""
    (placed,) = install([make(tmp_path / "a", content=b"old")], cache)
    before = content(cache)
    rename = Path.rename

    def fail(self, target):
        if target == placed.directory and (self / DATA).read_bytes() == b"new":
            raise OSError(errno.EIO, "input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    with pytest.raises(OSError, match="input/output"):
        install([make(tmp_path / "b", content=b"new")], cache)
    assert content(cache) == before


def test_all_are_installed_or_none(tmp_path, cache, monkeypatch):
    make(tmp_path / "all", "v1")
    make(tmp_path / "all", "v4")
    last = cache / sha1(f"{PUBLISHED}/feature_vector/4")
    rename = Path.rename

    def fail(self, target):
        if target == last:
            raise OSError(errno.EIO, "input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    with pytest.raises(OSError, match="input/output"):
        install([tmp_path / "all"], cache)
    assert not cache.exists()


def test_damaged_artifact_is_named_and_nothing_is_installed(tmp_path, cache):
    make(tmp_path / "all", "v1")
    damaged = make(tmp_path / "all", "v3")
    (damaged / DATA).write_bytes(b"changed")
    with pytest.raises(ArtifactError, match=damaged.name):
        install([tmp_path / "all"], cache)
    assert not cache.exists()


def test_cache_is_a_file(artifact, cache):
    cache.write_text("")
    with pytest.raises(InstallError, match="is a file"):
        install([artifact], cache)


def test_cache_that_cannot_be_written_is_named_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    told = []
    with pytest.raises(OSError, match="file"):
        install([make(tmp_path)], tmp_path / "file" / "cache", progress=told.append)
    assert told == []


def test_what_is_being_done_is_told(artifact, cache):
    told = []
    install([artifact], cache, progress=told.append)
    assert told == [Step(f"check {artifact.name}"), Step(f"copy {artifact.name}")]


# Under a handle of one's own

OWN = "https://example.org/models/flowers/1"


def test_handle_of_one_s_own(artifact, cache, tmp_path):
    (placed,) = install([artifact], cache, tmp_path / "kaggle", handle=OWN)
    assert placed.names == {OWN: cache / sha1(OWN)}
    assert content(cache / sha1(OWN)) == content(artifact)
    assert len(list(cache.iterdir())) == 3
    assert not (tmp_path / "kaggle").exists()
    assert removed(uninstall(cache)) == [OWN]


def test_handle_is_for_one_artifact(tmp_path, cache):
    make(tmp_path / "all", "v1")
    make(tmp_path / "all", "v4")
    with pytest.raises(InstallError, match=f"are both {OWN}"):
        install([tmp_path / "all"], cache, handle=OWN)


def test_generated_weights_are_refused_under_any_handle(tmp_path, cache):
    stand_in = make(tmp_path, is_stand_in=True)
    with pytest.raises(InstallError, match="stand-in"):
        install([stand_in], cache, handle=OWN)


# Removing


def test_uninstall_removes_what_was_installed_and_nothing_else(tmp_path, cache):
    make(tmp_path / "all", "v1")
    make(tmp_path / "all", "v4")
    foreign = cache / sha1("https://tfhub.dev/google/nnlm-en-dim128/1")
    foreign.mkdir(parents=True)
    (foreign / "saved_model.pb").write_bytes(b"downloaded")
    (cache / f"{foreign.name}.descriptor.txt").write_text("Module: nnlm")
    before = content(cache)
    install([tmp_path / "all"], cache)
    assert removed(uninstall(cache)) == [
        f"{PUBLISHED}/feature_vector/1",
        f"{PUBLISHED}/feature_vector/4",
    ]
    assert content(cache) == before
    assert removed(uninstall(cache)) == []


@pytest.mark.parametrize("change", ["changed", "added"])
def test_uninstall_keeps_what_was_changed_unless_forced(tmp_path, cache, change):
    make(tmp_path / "all", "v1")
    make(tmp_path / "all", "v3")
    install([tmp_path / "all"], cache)
    directory = cache / sha1(HANDLE)
    name = "saved_model.pb" if change == "changed" else "notes.txt"
    (directory / name).write_bytes(b"mine")
    before = content(directory)
    done = uninstall(cache)
    assert [item.handle for item in done.removed] == [f"{PUBLISHED}/feature_vector/1"]
    (kept,) = done.kept
    assert (kept.handle, kept.directory, kept.changed) == (HANDLE, directory, (name,))
    assert content(directory) == before

    done = uninstall(cache, force=True)
    assert done.kept == ()
    assert [item.changed for item in done.removed] == [(name,)]
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("gone", ["variables", "saved_model.pb"])
def test_uninstall_removes_what_is_half_deleted(artifact, cache, gone):
    (placed,) = install([artifact], cache)
    path = placed.directory / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert removed(uninstall(cache)) == [HANDLE]
    assert list(cache.iterdir()) == []


def test_half_deleted_and_changed_is_changed(artifact, cache):
    (placed,) = install([artifact], cache)
    shutil.rmtree(placed.directory / "variables")
    (placed.directory / "saved_model.pb").write_bytes(b"mine")
    (kept,) = uninstall(cache).kept
    assert kept.changed == ("saved_model.pb",)


def test_uninstall_keeps_a_link_that_was_added(artifact, tmp_path, cache):
    (placed,) = install([artifact], cache)
    (placed.directory / "mine").symlink_to(tmp_path)
    (kept,) = uninstall(cache).kept
    assert kept.changed == ("mine",)


def test_uninstall_after_the_directory_was_removed(artifact, cache):
    (placed,) = install([artifact], cache)
    placed.directory.rename(cache / "elsewhere")
    assert removed(uninstall(cache)) == [HANDLE]
    assert [path.name for path in cache.iterdir()] == ["elsewhere"]


@pytest.mark.parametrize(
    "receipt",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"handle": "x"}',
        '{"handle": 3, "files": {}, "descriptor": ""}',
        json.dumps({"handle": "https://else.where/1", "files": {}, "descriptor": ""}),
        json.dumps({"handle": HANDLE, "files": {}, "descriptor": "", "links": [1]}),
    ],
    ids=["cut", "list", "deep", "short", "number", "other", "links"],
)
def test_uninstall_passes_over_receipts_that_are_none(cache, receipt):
    (cache / sha1(HANDLE)).mkdir(parents=True)
    (cache / f"{sha1(HANDLE)}.irv2.json").write_text(receipt)
    before = content(cache)
    assert removed(uninstall(cache)) == []
    assert content(cache) == before


def test_uninstall_from_a_cache_that_is_not_there(cache):
    assert removed(uninstall(cache)) == []


# With the library


@pytest.mark.slow
def test_library_finds_what_was_installed(artifact, cache, monkeypatch):
    hub = pytest.importorskip("tensorflow_hub")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(cache))
    (placed,) = install([artifact])
    assert hub.resolve(HANDLE) == str(placed.directory)
