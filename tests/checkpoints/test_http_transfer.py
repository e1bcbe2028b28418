"""Resuming downloads, and servers that fail, as `fetch` meets them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from local_server import (
    ARCHIVE,
    ETAG,
    HTML,
    MD5,
    SIZE,
    Answer,
    Server,
    answer,
    assert_cached,
    assert_partial,
    cut,
    get,
    left,
    running_server,
    serve,
)

from checkpoints.download import fetch
from checkpoints.http_transfer import DownloadError

DATE = "Tue, 30 Aug 2016 00:00:00 GMT"


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


# Progress


@pytest.mark.parametrize(("announce", "total"), [(-1, SIZE), (None, None)])
def test_progress(
    server: Server, folder: Path, announce: int | None, total: int | None
) -> None:
    server.answers = [answer(body=ARCHIVE, announce=announce)]
    calls: list[tuple[int, int | None]] = []
    get(server, folder, progress=lambda *call: calls.append(call))
    assert calls.pop(0) == (0, None)  # Before the server has answered.
    assert calls[0] == (0, total) and calls[-1] == (SIZE, total)
    assert calls == sorted(calls)
    assert_cached(folder)


# Resuming


def test_next_run_resumes(server: Server, folder: Path) -> None:
    server.answers = [cut(1000, ETag=ETAG), serve()]
    with pytest.raises(DownloadError) as caught:
        get(server, folder, retries=0)
    message = str(caught.value)
    assert server.url in message and "tries: 1" in message
    assert f"1000 bytes of the {SIZE} promised" in message
    assert f"1000 bytes are kept in {folder}" in message
    assert_partial(folder, 1000)
    calls: list[tuple[int, int | None]] = []
    get(server, folder, progress=lambda *call: calls.append(call))
    assert server.ranges[1] == "bytes=1000-"
    assert calls[:2] == [(1000, None), (1000, SIZE)] and calls[-1] == (SIZE, SIZE)
    assert_cached(folder)


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({"ETag": ETAG}, ETAG),
        ({"ETag": ETAG, "Last_Modified": DATE}, ETAG),
        ({"ETag": 'W/"weak"', "Last_Modified": DATE}, DATE),
        ({"ETag": 'W/"weak"'}, None),
        ({"ETag": '"\xff"'}, None),
        ({}, None),
    ],
)
def test_retry_resumes(
    server: Server, folder: Path, headers: dict[str, str], condition: str | None
) -> None:
    server.answers = [cut(1000, **headers), serve(etag=condition or "any")]
    get(server, folder)
    assert server.ranges == [None, "bytes=1000-"]
    assert server.conditions == [None, condition]
    assert_cached(folder)


def test_changed_file_starts_over(server: Server, folder: Path) -> None:
    server.answers = [answer(body=b"old" * 9, announce=99, ETag='"old"'), serve()]
    get(server, folder)
    assert server.ranges == [None, "bytes=27-"]
    assert_cached(folder)


def test_server_that_ignores_range(server: Server, folder: Path) -> None:
    server.answers = [cut(1000), answer(body=ARCHIVE)]
    calls: list[tuple[int, int | None]] = []
    get(server, folder, progress=lambda *call: calls.append(call))
    assert server.ranges == [None, "bytes=1000-"]
    assert (0, SIZE) in calls[2:]
    assert_cached(folder)


@pytest.mark.parametrize("span", ["bytes 5-9/10", "bytes 999-", ""])
def test_wrong_range_starts_over(server: Server, folder: Path, span: str) -> None:
    server.answers = [cut(1000), answer(206, b"12345", Content_Range=span), serve()]
    get(server, folder)
    assert server.ranges == [None, "bytes=1000-", None]
    assert_cached(folder)


@pytest.mark.parametrize(("announce", "total"), [(-1, SIZE), (None, None)])
def test_range_of_unknown_total(
    server: Server, folder: Path, announce: int | None, total: int | None
) -> None:
    span = f"bytes 1000-{SIZE - 1}/*"
    rest = answer(206, ARCHIVE[1000:], announce, Content_Range=span)
    server.answers = [cut(1000), rest]
    calls: list[tuple[int, int | None]] = []
    get(server, folder, progress=lambda *call: calls.append(call))
    assert calls[-1] == (SIZE, total)
    assert_cached(folder)


def test_range_shorter_than_asked_for(server: Server, folder: Path) -> None:
    span = f"bytes 1000-1999/{SIZE}"
    some = answer(206, ARCHIVE[1000:2000], Content_Range=span)
    server.answers = [cut(1000), some, serve(etag="any")]
    get(server, folder)
    assert server.ranges == [None, "bytes=1000-", "bytes=2000-"]
    assert_cached(folder)


def test_unsatisfiable_range_starts_over(server: Server, folder: Path) -> None:
    longer = answer(body=b"x" * (SIZE + 10), announce=SIZE + 20, ETag=ETAG)
    server.answers = [longer, serve()]
    with pytest.raises(DownloadError):
        get(server, folder, retries=0)
    get(server, folder, retries=0)  # the answer 416 does not count as a try
    assert server.ranges == [None, f"bytes={SIZE + 10}-", None]
    assert_cached(folder)


def test_partial_file_of_another_url_is_not_resumed(
    server: Server, folder: Path
) -> None:
    server.answers = [cut(1000, ETag=ETAG), serve()]
    with pytest.raises(DownloadError):
        get(server, folder, retries=0)
    fetch(server.url + "?mirror", md5=MD5, cache=folder.parent, retries=0)
    assert server.ranges == [None, None]
    assert_cached(folder)


@pytest.mark.parametrize(
    "note", ["{", "[]", "{}", "7", None, "[" * 100_000, '{"url": URL, "validator": 7}']
)
def test_damaged_note_starts_over(
    server: Server, folder: Path, note: str | None
) -> None:
    folder.mkdir()
    (folder / "archive.tar.gz.part").write_bytes(b"whatever")
    if note is not None:
        note = note.replace("URL", json.dumps(server.url))
        (folder / "archive.tar.gz.part.json").write_text(note)
    get(server, folder)
    assert server.ranges == [None]
    assert_cached(folder)


# Servers that fail


@pytest.mark.parametrize("code", [403, 404, 416])
def test_refusal_is_not_retried(server: Server, folder: Path, code: int) -> None:
    server.answers = [answer(code)]
    with pytest.raises(DownloadError) as caught:
        get(server, folder)
    message = str(caught.value)
    assert server.url in message and f"answers {code}" in message
    assert "mirror" in message
    assert len(server.ranges) == 1
    assert left(folder) == {}


@pytest.mark.parametrize("code", [429, 500, 503])
def test_server_error_is_retried(server: Server, folder: Path, code: int) -> None:
    server.answers = [answer(code), answer(code), serve()]
    get(server, folder)
    assert len(server.ranges) == 3
    assert_cached(folder)


@pytest.mark.parametrize(
    ("answers", "trouble"),
    [
        ([cut(1000, ETag=ETAG), answer(500)], "HTTP status 500"),
        ([cut(1000)], f"1000 bytes of the {SIZE} promised"),
    ],
)
def test_lasting_failure_keeps_the_partial_file(
    server: Server, folder: Path, answers: list[Answer], trouble: str
) -> None:
    server.answers = answers
    with pytest.raises(DownloadError) as caught:
        get(server, folder)
    message = str(caught.value)
    assert "tries: 3" in message and trouble in message
    assert server.ranges == [None, "bytes=1000-", "bytes=1000-"]
    assert_partial(folder, 1000)


def test_stalled_server(server: Server, folder: Path) -> None:
    server.answers = [server.stall]
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"no data for 0\.2 seconds"):
        get(server, folder, timeout=0.2, retries=0)
    assert time.monotonic() - start < 3
    assert_partial(folder, 1000)


def test_server_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(DownloadError, match=r"no data for 0\.2 seconds"):
            fetch(url, md5=MD5, cache=tmp_path, timeout=0.2, retries=0)
    assert left(tmp_path / MD5) == {}


def test_unreachable_host(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    with pytest.raises(DownloadError) as caught:
        fetch(url, md5=MD5, cache=tmp_path, retries=1, delay=0)
    message = str(caught.value)
    assert url in message and "tries: 2" in message and "proxy" in message
    assert left(tmp_path / MD5) == {}


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/a",
        "file:///etc/passwd",
        "a.tar.gz",
        "http://[",
        "http://h:port/",
        "http://127.0.0.1/a b",
        "http://",
        "http://127.0.0.1/é",
    ],
)
def test_invalid_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="URL"):
        fetch(url, md5=MD5, cache=tmp_path)
    assert left(tmp_path / MD5) == {}


def test_answer_that_is_not_http(server: Server, folder: Path) -> None:
    server.answers = [lambda handler: None, serve()]
    get(server, folder)
    assert_cached(folder)


def test_truncated_chunked_body(server: Server, folder: Path) -> None:
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        body = b"3e8\r\n" + ARCHIVE[:1000] + b"\r\n"
        answer(200, body, None, Transfer_Encoding="chunked", ETag=ETAG)(handler)
        handler.close_connection = True

    server.answers = [chunked]
    with pytest.raises(DownloadError, match="IncompleteRead"):
        get(server, folder, retries=0)
    assert_partial(folder, 1000)
    server.answers = [serve()]
    get(server, folder)
    assert server.ranges[-1] == "bytes=1000-"
    assert_cached(folder)


# Servers that send something else


def test_web_page_leaves_the_partial_file_alone(server: Server, folder: Path) -> None:
    page = answer(body=HTML, Content_Type="text/html; charset=utf-8")
    server.answers = [cut(1000, ETag=ETAG), page]
    with pytest.raises(DownloadError, match="web page") as caught:
        get(server, folder)
    assert server.url in str(caught.value)
    assert_partial(folder, 1000)


@pytest.mark.parametrize("announce", [-1, None])
def test_archive_too_large(server: Server, folder: Path, announce: int | None) -> None:
    server.answers = [answer(body=ARCHIVE, announce=announce)]
    with pytest.raises(DownloadError, match="at most 2000") as caught:
        get(server, folder, max_bytes=2000)
    assert server.url in str(caught.value)
    assert len(server.ranges) == 1
    assert left(folder) == {}
