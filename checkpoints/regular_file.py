"""Opens files and nothing else: a pipe never answers, and a device never ends."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from checkpoints.errors import CheckpointError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def open_regular(path: Path) -> BufferedReader:
    """Opens a file to read its bytes.

    Raises:
      CheckpointError: it is not a regular file, or a link to one.
      OSError: it cannot be opened.
    """
    _check(path, path.stat().st_mode)  # Opening alone may block, or rewind a tape.
    without_blocking = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, os.O_RDONLY | without_blocking)
    try:
        _check(path, os.fstat(descriptor).st_mode)  # It may have been replaced since.
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise CheckpointError(f"{path} is {kind}; expected a file.")
