"""Installing, removing and packing; and the library's own view of the result."""

import contextlib
import functools
import hashlib
import http.server
import json
import tarfile
import threading
from pathlib import Path

import pytest
from published_directories import PUBLISHED, content, make

from exporters import hub_cache
from exporters.artifact import ArtifactError
from exporters.published_artifacts import InstallError

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


# Installing


def test_install_copies_to_where_the_library_looks(artifact, cache):
    placed = hub_cache.install([artifact], cache)
    directory = cache / sha1(HANDLE)
    assert placed == {HANDLE: directory}
    assert content(directory) == content(artifact)
    descriptor = (cache / f"{sha1(HANDLE)}.descriptor.txt").read_text()
    assert descriptor.startswith(f"Module: {HANDLE}\nDownload Time: ")
    assert "\nDownloader Hostname: " in descriptor
    assert len(list(cache.iterdir())) == 3


def test_install_takes_a_directory_of_artifacts_and_passes_over_the_rest(
    tmp_path, cache
):
    for task in ("feature_vector", "classification"):
        for version in ("v1", "v3", "v4", "v5"):
            make(tmp_path / "all", version, task)
    (tmp_path / "all/network.onnx").write_bytes(b"\x08\x08")
    placed = hub_cache.install([tmp_path / "all"], cache)
    assert set(placed) == {
        f"{PUBLISHED}/{task}/{version}"
        for task in ("feature_vector", "classification")
        for version in (1, 3, 4, 5)
    }


@pytest.mark.parametrize("configured", [True, False])
def test_default_cache_is_the_library_s(artifact, tmp_path, monkeypatch, configured):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "set") if configured else "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    directory = hub_cache.install([artifact])[HANDLE]
    assert directory.parent == tmp_path / ("set" if configured else "tfhub_modules")


def test_remote_cache_is_refused(artifact, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", "gs://bucket/modules")
    with pytest.raises(InstallError, match="gs://bucket/modules"):
        hub_cache.install([artifact])


def test_stand_in_is_refused_unless_insisted(tmp_path, cache):
    trained = make(tmp_path, "v1")
    stand_in = make(tmp_path, "v3", is_stand_in=True)
    with pytest.raises(InstallError, match="stand-in"):
        hub_cache.install([trained, stand_in], cache)
    assert not cache.exists()
    hub_cache.install([trained, stand_in], cache, allow_stand_in=True)


def test_installing_again_replaces(tmp_path, cache):
    hub_cache.install([make(tmp_path / "a", content=b"old")], cache)
    directory = hub_cache.install([make(tmp_path / "b", content=b"new")], cache)[HANDLE]
    assert (directory / DATA).read_bytes() == b"new"
    assert hub_cache.uninstall(cache) == [HANDLE]


def test_what_the_library_downloaded_is_not_overwritten(artifact, cache):
    downloaded = cache / sha1(HANDLE)
    downloaded.mkdir(parents=True)
    (downloaded / "saved_model.pb").write_bytes(b"downloaded")
    with pytest.raises(InstallError, match="did not put it there"):
        hub_cache.install([artifact], cache)
    assert content(downloaded) == {"saved_model.pb": b"downloaded"}
    assert hub_cache.uninstall(cache) == []
    hub_cache.install([artifact], cache, force=True)
    assert content(downloaded) == content(artifact)


def test_empty_directory_is_no_obstacle(artifact, cache):
    (cache / sha1(HANDLE)).mkdir(parents=True)
    hub_cache.install([artifact], cache)
    assert content(cache / sha1(HANDLE)) == content(artifact)


def test_changed_installation_is_not_overwritten(artifact, cache):
    directory = hub_cache.install([artifact], cache)[HANDLE]
    (directory / DATA).write_bytes(b"fine-tuned")
    with pytest.raises(InstallError, match=DATA):
        hub_cache.install([artifact], cache)
    hub_cache.install([artifact], cache, force=True)
    assert content(directory) == content(artifact)


def test_failure_leaves_nothing_behind(artifact, cache, monkeypatch):
    directory = hub_cache.install([artifact], cache)[HANDLE]
    before = content(cache)

    def fail(directory):
        raise OSError("no space left on device")

    monkeypatch.setattr(hub_cache, "_hashes", fail)
    with pytest.raises(OSError, match="no space"):
        hub_cache.install([artifact], cache, force=True)
    assert content(cache) == before
    assert directory.is_dir()


def test_damaged_artifact_is_not_installed(artifact, cache):
    (artifact / DATA).unlink()
    with pytest.raises(ArtifactError, match="incomplete"):
        hub_cache.install([artifact], cache)
    assert not cache.exists()


def test_cache_is_a_file(artifact, cache):
    cache.write_text("")
    with pytest.raises(InstallError, match="is a file"):
        hub_cache.install([artifact], cache)


# Removing


def test_uninstall_removes_what_was_installed_and_nothing_else(tmp_path, cache):
    make(tmp_path / "all", "v1")
    make(tmp_path / "all", "v4")
    foreign = cache / sha1("https://tfhub.dev/google/nnlm-en-dim128/1")
    foreign.mkdir(parents=True)
    (foreign / "saved_model.pb").write_bytes(b"downloaded")
    (cache / f"{foreign.name}.descriptor.txt").write_text("Module: nnlm")
    before = content(cache)
    hub_cache.install([tmp_path / "all"], cache)
    assert sorted(hub_cache.uninstall(cache)) == [
        f"{PUBLISHED}/feature_vector/1",
        f"{PUBLISHED}/feature_vector/4",
    ]
    assert content(cache) == before
    assert hub_cache.uninstall(cache) == []


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_uninstall_leaves_what_was_changed(tmp_path, cache, change):
    make(tmp_path / "all", "v1")
    make(tmp_path / "all", "v3")
    directory = hub_cache.install([tmp_path / "all"], cache)[HANDLE]
    if change == "changed":
        (directory / "saved_model.pb").write_bytes(b"mine")
    elif change == "added":
        (directory / "notes.txt").write_bytes(b"mine")
    else:
        (directory / DATA).unlink()
    before = content(directory)
    with pytest.raises(InstallError, match="left"):
        hub_cache.uninstall(cache)
    assert content(directory) == before
    assert not (cache / sha1(f"{PUBLISHED}/feature_vector/1")).exists()


def test_uninstall_after_the_directory_was_removed(artifact, cache):
    directory = hub_cache.install([artifact], cache)[HANDLE]
    directory.rename(cache / "elsewhere")
    assert hub_cache.uninstall(cache) == [HANDLE]
    assert [path.name for path in cache.iterdir()] == ["elsewhere"]


@pytest.mark.parametrize(
    "receipt",
    [
        "{",
        "[]",
        '{"handle": "x"}',
        '{"handle": 3, "files": {}, "descriptor": ""}',
        json.dumps({"handle": "https://else.where/1", "files": {}, "descriptor": ""}),
    ],
)
def test_uninstall_passes_over_receipts_that_are_none(cache, receipt):
    (cache / sha1(HANDLE)).mkdir(parents=True)
    (cache / f"{sha1(HANDLE)}.irv2.json").write_text(receipt)
    before = content(cache)
    assert hub_cache.uninstall(cache) == []
    assert content(cache) == before


def test_uninstall_from_a_cache_that_is_not_there(cache):
    assert hub_cache.uninstall(cache) == []


# Packing


def test_pack_by_path_of_the_handle(tmp_path):
    make(tmp_path / "all", "v1")
    make(tmp_path / "all", "v5", "classification", is_stand_in=True)
    output = tmp_path / "served"
    assert sorted(hub_cache.pack([tmp_path / "all"], output)) == [
        output / "google/imagenet/inception_resnet_v2" / name
        for name in ("classification/5-stand-in.tar.gz", "feature_vector/1.tar.gz")
    ]
    assert sum(path.is_file() for path in output.rglob("*")) == 2


def test_packed_content_and_its_order(artifact, tmp_path):
    (path,) = hub_cache.pack([artifact], tmp_path / "served")
    with tarfile.open(path) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert content(tmp_path / "unpacked") == content(artifact)
    # Old versions of the library make no directories of their own.
    for name in names:
        parent = str(Path(name).parent)
        assert parent == "." or names.index(parent) < names.index(name)


def test_same_artifact_same_bytes(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    (second / "saved_model.pb").touch()
    (second / "saved_model.pb").chmod(0o600)
    packed = [
        hub_cache.pack([path], tmp_path / "served" / path.parent.name)[0].read_bytes()
        for path in (first, second)
    ]
    assert packed[0] == packed[1]


def test_pack_does_not_overwrite(artifact, tmp_path):
    (path,) = hub_cache.pack([artifact], tmp_path)
    path.write_bytes(b"mine")
    with pytest.raises(InstallError, match="exists already"):
        hub_cache.pack([artifact], tmp_path)
    assert path.read_bytes() == b"mine"
    hub_cache.pack([artifact], tmp_path, force=True)
    assert path.read_bytes() != b"mine"


# With the library


@contextlib.contextmanager
def served(directory):
    """Serves the files of a directory, as any web server does; gives its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_library_finds_what_was_installed(artifact, cache, monkeypatch):
    hub = pytest.importorskip("tensorflow_hub")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(cache))
    placed = hub_cache.install([artifact])
    assert hub.resolve(HANDLE) == str(placed[HANDLE])


@pytest.mark.slow
def test_library_downloads_what_was_packed(artifact, tmp_path, cache, monkeypatch):
    hub = pytest.importorskip("tensorflow_hub")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(cache))
    (path,) = hub_cache.pack([artifact], tmp_path / "served")
    with served(tmp_path / "served") as address:
        downloaded = hub.resolve(f"{address}/{path.relative_to(tmp_path / 'served')}")
    assert content(Path(downloaded)) == content(artifact)
    assert hub_cache.uninstall(cache) == []
