"""What commands are given beside artifacts: images, a server, disks."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def images(directory: Path, count: int) -> Path:
    """Writes small pictures of noise, once."""
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    for number in range(count):
        path = directory / f"{number}.png"
        if not path.exists():
            Image.fromarray(noise.integers(256, size=(80, 80, 3), dtype=np.uint8)).save(
                path
            )
    return directory


@contextlib.contextmanager
def served(checkpoint: Path, directory: Path) -> Iterator[tuple[str, str]]:
    """Serves an archive of a checkpoint, by a process; gives its URL and MD5."""
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(checkpoint, checkpoint.name)
    handler = functools.partial(_Quiet, directory=str(directory))
    server = _QuietServer(("127.0.0.1", 0), handler)
    process = os.fork()
    if not process:
        try:
            server.serve_forever()
        finally:
            os._exit(0)
    try:
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        yield url, hashlib.md5(archive.read_bytes()).hexdigest()
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        server.server_close()


class _QuietServer(http.server.HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients are killed while they download."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass
