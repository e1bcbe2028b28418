"""Fetching into the cache, from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from local_server import (
    ARCHIVE,
    CHECKPOINT,
    HTML,
    MD5,
    NAME,
    SIZE,
    Answer,
    Server,
    answer,
    archive_bytes,
    assert_cached,
    assert_partial,
    get,
    left,
    running_server,
    serve,
)

from checkpoints import download
from checkpoints.archive import ArchiveError
from checkpoints.download import cache_directory, fetch, published_provenance
from checkpoints.http_transfer import DownloadError


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the archive in the cache `tmp_path`."""
    return tmp_path / MD5


# The cache


def test_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.delenv("IRV2_CACHE_DIR", raising=False)
    assert cache_directory() == tmp_path / ".cache" / "irv2"
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache_directory() == Path("/shared/irv2")
    monkeypatch.setenv("IRV2_CACHE_DIR", "~/own")
    assert cache_directory() == tmp_path / "own"


def test_fetch_uses_the_default_cache(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRV2_CACHE_DIR", str(folder.parent))
    assert fetch(server.url, md5=MD5.upper()) == folder / NAME


def test_fetch_and_its_provenance(
    server: Server, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert get(server, folder) == folder / NAME
    assert_cached(folder)
    assert json.loads((folder / "provenance.json").read_text()) == {
        "url": server.url,
        "archive_md5": MD5,
        "file": NAME,
        "sha256": hashlib.sha256(CHECKPOINT).hexdigest(),
        "bytes": len(CHECKPOINT),
    }
    assert capfd.readouterr() == ("", "")


def test_second_fetch_needs_no_network(server: Server, folder: Path) -> None:
    get(server, folder)
    assert get(server, folder) == folder / NAME
    assert fetch("http://127.0.0.1:9/", md5=MD5, cache=folder.parent) == folder / NAME
    assert len(server.ranges) == 1


@pytest.mark.parametrize("damage", ["changed", "shorter", "missing", "no provenance"])
def test_damaged_cache_is_fetched_again(
    server: Server, folder: Path, damage: str
) -> None:
    checkpoint = get(server, folder)
    if damage == "changed":
        checkpoint.write_bytes(CHECKPOINT[:-1] + b"?")
    elif damage == "shorter":
        checkpoint.write_bytes(CHECKPOINT[:-1])
    elif damage == "missing":
        checkpoint.unlink()
    else:
        (folder / "provenance.json").write_text("{")
    get(server, folder)
    assert_cached(folder)
    assert len(server.ranges) == 2


def test_force_starts_from_the_beginning(server: Server, folder: Path) -> None:
    get(server, folder)
    (folder / "archive.tar.gz.part").write_bytes(ARCHIVE[:10])
    get(server, folder, force=True)
    assert server.ranges == [None, None]
    assert_cached(folder)


def test_invalid_md5(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        fetch(md5="../x", cache=tmp_path)


def test_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="cache"):
        get(server, tmp_path / "cache" / MD5)
    assert server.ranges == []


def test_concurrent_fetches_download_once(server: Server, folder: Path) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.2)
        serve()(handler)

    server.answers = [slow]
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(get(server, folder)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [folder / NAME] * 4
    assert len(server.ranges) == 1
    assert_cached(folder)


# Retries


def test_exponential_backoff(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("checkpoints.download.time.sleep", waits.append)
    server.answers = [answer(500)]
    with pytest.raises(DownloadError, match="tries: 5"):
        get(server, folder, retries=4, delay=0.5)
    assert waits == [0.5, 1.0, 2.0, 4.0]


# Servers that send something else


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (answer(body=HTML), HTML),
        (answer(), b""),
        (answer(body=ARCHIVE + b"?"), ARCHIVE + b"?"),
        (answer(body=ARCHIVE[:-9]), ARCHIVE[:-9]),
        (answer(body=ARCHIVE, announce=5000), ARCHIVE[:5000]),
    ],
    ids=range(5),
)
def test_wrong_file(
    server: Server, folder: Path, sent: Answer, received: bytes
) -> None:
    server.answers = [sent]
    with pytest.raises(DownloadError) as caught:
        get(server, folder)
    message = str(caught.value)
    assert server.url in message
    assert f"found MD5 {hashlib.md5(received).hexdigest()}" in message
    assert f"{len(received)} bytes that begin with {received[:16]!r}" in message
    assert f"expected MD5 {MD5}" in message
    assert len(server.ranges) == 1
    assert left(folder) == {}


def test_content_length_too_long(server: Server, folder: Path) -> None:
    server.answers = [answer(body=ARCHIVE, announce=SIZE + 7)]
    get(server, folder, retries=0)  # the MD5 says that all has come
    assert_cached(folder)


# Archives with the right MD5 and the wrong content


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        (archive_bytes({NAME: b"1", "b.ckpt": b"2"}), {}, f"b.ckpt, {NAME}; expected"),
        (archive_bytes({"model.data": b"1"}), {}, "holds model.data; expected one"),
        (archive_bytes({}), {}, "holds no checkpoint file"),
        (ARCHIVE, {"max_unpacked_bytes": 1000}, "at most 10000 of 1000"),
        (HTML, {}, "damaged"),
    ],
)
def test_unsuitable_archive(
    server: Server, tmp_path: Path, body: bytes, options: Any, message: str
) -> None:
    server.answers = [answer(body=body)]
    md5 = hashlib.md5(body).hexdigest()
    with pytest.raises(ArchiveError, match=message) as caught:
        get(server, tmp_path / md5, md5=md5, **options)
    assert server.url in str(caught.value) and md5 in str(caught.value)
    assert left(tmp_path / md5) == {}


# Interruption by the user


def test_interrupted_download(server: Server, folder: Path) -> None:
    def interrupt(received: int, total: int | None) -> None:
        if received:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, folder, progress=interrupt)
    received = left(folder)["archive.tar.gz.part"]
    assert_partial(folder, received)
    get(server, folder)
    assert_cached(folder)


@pytest.mark.parametrize("call", [1, 2, 3])
def test_interrupted_unpacking(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Ctrl-C before the first or second file is put in place, or after both."""
    calls = 0

    def interrupt(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        replace(*arguments)
        if call == 3 and calls == 2:
            raise KeyboardInterrupt

    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr("checkpoints.download.os.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(server, folder)
    assert "archive.tar.gz.part" in left(folder) and "unpacking" not in left(folder)
    get(server, folder)
    assert_cached(folder)
    assert len(server.ranges) == 1


def test_remains_of_a_killed_run(server: Server, folder: Path) -> None:
    (folder / "unpacking").mkdir(parents=True)
    (folder / "unpacking" / NAME).write_bytes(CHECKPOINT[:100])
    (folder / "archive.tar.gz.part").write_bytes(ARCHIVE)
    get(server, folder)
    assert server.ranges == []
    assert_cached(folder)


# The provenance of a checkpoint


def test_published_provenance(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = get(server, folder)
    assert published_provenance(checkpoint) is None  # not the published archive
    monkeypatch.setattr(download, "PUBLISHED_MD5", MD5)
    record = published_provenance(checkpoint)
    assert record is not None and record["url"] == server.url
    copy = folder / "copy.ckpt"
    copy.write_bytes(CHECKPOINT)
    assert published_provenance(copy) is None
    assert published_provenance(folder / "missing.ckpt") is None
    checkpoint.write_bytes(CHECKPOINT[:-1] + b"?")
    assert published_provenance(checkpoint) is None
    checkpoint.write_bytes(CHECKPOINT)
    assert published_provenance(checkpoint) == record
    (folder / "provenance.json").write_text('["archive_md5"]')
    assert published_provenance(checkpoint) is None
