"""A small archive, a server on this machine that can misbehave, and `fetch` from it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import saved_slices
from checkpoints.download import fetch

Answer = Callable[[BaseHTTPRequestHandler], None]


def tar_bytes(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    return buffer.getvalue()


def archive_bytes(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    return gzip.compress(tar_bytes(files, *extra), mtime=0)


def checkpoint_bytes() -> bytes:
    """A V1 checkpoint of 300 KB that hardly gets smaller by compression."""
    noise = np.random.default_rng(0).standard_normal(75_000, np.float32)
    file = io.BytesIO()
    saved_slices.write({"noise": noise}, file)
    return file.getvalue()


NAME = "inception_resnet_v2_2016_08_30.ckpt"
CHECKPOINT = checkpoint_bytes()
ARCHIVE = archive_bytes({NAME: CHECKPOINT})
SIZE = len(ARCHIVE)
MD5 = hashlib.md5(ARCHIVE).hexdigest()
ETAG = '"version-1"'
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def answer(
    code: int = 200, body: bytes = b"", announce: int | None = -1, **headers: str
) -> Answer:
    """Sends `body`; announces its length, or another one, or (None) no length."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for key, value in headers.items():
            handler.send_header(key.replace("_", "-"), value)
        if announce is not None:
            length = len(body) if announce < 0 else announce
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def serve(body: bytes = ARCHIVE, etag: str = ETAG) -> Answer:
    """What a good server does, Range and If-Range included."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        if asked is None or handler.headers.get("If-Range", etag) != etag:
            return answer(body=body, ETag=etag)(handler)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            return answer(416, Content_Range=f"bytes */{len(body)}")(handler)
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return answer(206, body[start:], ETag=etag, Content_Range=span)(handler)

    return send


def cut(length: int, **headers: str) -> Answer:
    """Promises the whole archive and hangs up after `length` bytes."""
    return answer(200, ARCHIVE[:length], SIZE, **headers)


@dataclass
class Server:
    """Gives `answers` one by one, the last one for ever; notes what was asked."""

    url: str
    answers: list[Answer] = field(default_factory=lambda: [serve()])
    ranges: list[str | None] = field(default_factory=list)
    conditions: list[str | None] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def stall(self, handler: BaseHTTPRequestHandler) -> None:
        cut(1000, ETag=ETAG)(handler)
        handler.wfile.flush()
        self.closing.wait(5)


class QuietHTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is nothing to report."""


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.ranges.append(self.headers.get("Range"))
            state.conditions.append(self.headers.get("If-Range"))
            current = state.answers[0]
            if len(state.answers) > 1:
                state.answers.pop(0)
            current(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with QuietHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        state = Server(f"http://127.0.0.1:{http_server.server_port}/archive.tar.gz")
        thread = threading.Thread(target=http_server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield state
        finally:
            state.closing.set()
            http_server.shutdown()
            thread.join()


def get(server: Server, folder: Path, **options: Any) -> Path:
    """Fetches ARCHIVE (or the file with another `md5`) into its folder of a cache."""
    settings: dict[str, Any] = {"md5": MD5, "delay": 0.0, "retries": 2, "timeout": 5.0}
    return fetch(server.url, cache=folder.parent, **(settings | options))


def left(folder: Path) -> dict[str, int]:
    """The files in `folder` with their sizes, without the lock."""
    return {
        path.name: path.stat().st_size
        for path in folder.iterdir()
        if path.name != "lock"
    }


def assert_cached(folder: Path) -> None:
    assert (folder / NAME).read_bytes() == CHECKPOINT
    assert (folder / "archive.tar.gz").read_bytes() == ARCHIVE
    assert set(left(folder)) == {NAME, "archive.tar.gz"}


def assert_partial(folder: Path, size: int) -> None:
    assert (folder / "archive.tar.gz.part").read_bytes() == ARCHIVE[:size]
    assert set(left(folder)) == {"archive.tar.gz.part", "archive.tar.gz.part.json"}
