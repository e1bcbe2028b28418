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
import small_checkpoints
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

from checkpoints import download, published
from checkpoints.archive import ArchiveError
from checkpoints.download import cache_directory, fetch
from checkpoints.http_transfer import DownloadError
from checkpoints.reader import open_checkpoint


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


def test_fetch(server: Server, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert get(server, folder) == folder / NAME
    assert_cached(folder)
    assert capfd.readouterr() == ("", "")


def test_second_fetch_needs_no_network(server: Server, folder: Path) -> None:
    get(server, folder)
    assert get(server, folder) == folder / NAME
    assert fetch("http://127.0.0.1:9/", md5=MD5, cache=folder.parent) == folder / NAME
    assert len(server.ranges) == 1


@pytest.mark.parametrize("damage", ["changed", "shorter", "longer", "missing"])
def test_damaged_checkpoint_is_unpacked_again(
    server: Server, folder: Path, damage: str
) -> None:
    checkpoint = get(server, folder)
    if damage == "missing":
        checkpoint.unlink()
    else:
        changed = {"changed": CHECKPOINT[:-1] + b"?", "longer": CHECKPOINT + b"?"}
        checkpoint.write_bytes(changed.get(damage, CHECKPOINT[:-1]))
    get(server, folder)
    assert_cached(folder)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("damage", [ARCHIVE[:-1], ARCHIVE[:-1] + b"?", b"", None])
def test_damaged_archive_is_fetched_again(
    server: Server, folder: Path, damage: bytes | None
) -> None:
    get(server, folder)
    archive = folder / "archive.tar.gz"
    if damage is None:
        archive.unlink()
    else:
        archive.write_bytes(damage)
    get(server, folder)
    assert_cached(folder)
    assert len(server.ranges) == 2


def test_cache_of_the_first_version_is_fetched_again(
    server: Server, folder: Path
) -> None:
    """It kept a record in place of the archive."""
    folder.mkdir()
    (folder / NAME).write_bytes(CHECKPOINT)
    record = {"url": server.url, "archive_md5": MD5, "file": NAME, "bytes": SIZE}
    record["sha256"] = hashlib.sha256(CHECKPOINT).hexdigest()
    (folder / "provenance.json").write_text(json.dumps(record))
    get(server, folder)
    (folder / "provenance.json").unlink()
    assert_cached(folder)
    assert len(server.ranges) == 1


def test_cache_that_can_only_be_read(server: Server, folder: Path) -> None:
    get(server, folder)
    (folder / "lock").unlink()
    (folder / "lock").mkdir()  # Nobody can hold this one.
    assert get(server, folder) == folder / NAME


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
        (
            archive_bytes({NAME: CHECKPOINT, "b.ckpt": CHECKPOINT}),
            {},
            f"holds 2 checkpoints: b.ckpt, {NAME}. ",
        ),
        (archive_bytes({"a.txt": b"1"}), {}, "holds no checkpoint. Found: a.txt."),
        (archive_bytes({NAME: CHECKPOINT, "lock": b""}), {}, "of the name 'lock'"),
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


def test_archive_of_a_v2_checkpoint(server: Server, tmp_path: Path) -> None:
    prefix = tmp_path / "model.ckpt-7"
    small_checkpoints.write_v2(small_checkpoints.variables(), prefix, shards=2)
    files = {file.name: file.read_bytes() for file in tmp_path.glob("model.ckpt-7.*")}
    assert len(files) == 3
    body = archive_bytes({f"run/{name}": content for name, content in files.items()})
    server.answers = [answer(body=body)]
    md5 = hashlib.md5(body).hexdigest()
    folder = tmp_path / md5
    for _ in range(2):
        fetched = get(server, folder, md5=md5)
        assert fetched == folder / "model.ckpt-7"
        found = open_checkpoint(fetched, check_layout=False)
        assert found.keys() == small_checkpoints.variables().keys()
    assert len(server.ranges) == 1
    (folder / "model.ckpt-7.index").write_bytes(b"damaged")
    assert get(server, folder, md5=md5) == fetched
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert len(server.ranges) == 1


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
    """Ctrl-C before archive or checkpoint is put in place, or after both."""
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
    assert "unpacking" not in left(folder)
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


def test_remains_of_a_run_that_was_killed_at_its_end(server, folder):
    get(server, folder)
    remains = ("archive.tar.gz.part", "archive.tar.gz.part.json")

    def leave():
        (folder / "unpacking").mkdir()
        for name in remains:
            (folder / name).write_bytes(b"")

    leave()
    get(server, folder)
    assert_cached(folder)
    (folder / NAME).unlink()  # It was killed before it was unpacked.
    (folder / "archive.tar.gz.part.json").write_bytes(b"")
    get(server, folder)
    assert_cached(folder)
    leave()
    with download._locked(folder):  # Of a run that is at work.
        get(server, folder)
    assert left(folder).keys() >= {"unpacking", *remains}


# What is published


@pytest.fixture
def fetched(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fetched checkpoint, whose archive counts as the published one."""
    monkeypatch.setattr(published, "MD5", MD5)
    return get(server, folder)


def test_published_is_what_is_in_the_archive_beside_it(
    fetched: Path, tmp_path: Path
) -> None:
    assert published.is_checkpoint(fetched)
    link = tmp_path / "link.ckpt"
    link.symlink_to(fetched)
    assert published.is_checkpoint(link)
    for name in ("copy.ckpt", f"../{NAME}"):
        copy = fetched.parent / name
        copy.write_bytes(CHECKPOINT)
        assert not published.is_checkpoint(copy)
    assert not published.is_checkpoint(fetched.with_name("missing.ckpt"))
    for content in (CHECKPOINT[:-1] + b"?", CHECKPOINT[:-1], CHECKPOINT + b"?"):
        fetched.write_bytes(content)
        assert not published.is_checkpoint(fetched)
    fetched.write_bytes(CHECKPOINT)
    assert published.is_checkpoint(fetched)


def test_no_other_archive_makes_it_published(fetched: Path) -> None:
    archive = fetched.with_name("archive.tar.gz")
    forged = CHECKPOINT[:-1] + b"?"
    fetched.write_bytes(forged)
    archive.write_bytes(archive_bytes({NAME: forged}))
    assert not published.is_checkpoint(fetched)
    archive.unlink()
    assert not published.is_checkpoint(fetched)
    archive.mkdir()
    assert not published.is_checkpoint(fetched)
    archive.rmdir()
    os.mkfifo(archive)
    assert not published.is_checkpoint(fetched)


def test_another_fetched_archive_is_not_published(server: Server, folder: Path) -> None:
    assert not published.is_checkpoint(get(server, folder))
