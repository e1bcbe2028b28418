"""Which file is to blame if the process ends here, told to whoever watches it.

Libraries in C++ trust what they read, and a hostile file can crash them, and the process
with them. Nothing in this process can say a word then; another one can, that started it
and sees which file was open.
"""

from __future__ import annotations

import contextlib
import mmap
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_END_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""
SIZE = 8192
"""Bytes of memory that both processes share."""

_shared: mmap.mmap | None = None
_crashed: Mapping[str, int] = {}


def watch(shared: mmap.mmap, crashed: Mapping[str, int]) -> None:
    """Begins to tell.

    Args:
      shared: `SIZE` bytes, where the path of the file is written.
      crashed: path -> the signal that ended a process before this one.
    """
    global _shared, _crashed
    _shared, _crashed = shared, crashed


def read(shared: mmap.mmap) -> str | None:
    """Returns the path that was written last, None if its file is done."""
    size = int.from_bytes(shared[:2], "little")
    return shared[2 : 2 + size].decode("utf-8", "surrogateescape") if size else None


@contextlib.contextmanager
def blamed(path: Path, error: type[Exception]) -> Iterator[None]:
    """Names a file as long as a library has it.

    Args:
      path: the file.
      error: what to raise if it has ended a process before.

    Raises:
      Exception: `error`; the file is not opened again.
    """
    if number := _crashed.get(str(path)):
        raise error(
            f"{path} crashed the library that opened it ({describe(number)}). It is "
            "damaged, or made to do harm."
        )
    before = _written(_encoded(path))
    try:
        yield
    finally:
        _written(before)


def blaming(
    path: Path, error: type[Exception], function: Callable[..., T]
) -> Callable[..., T]:
    """Returns a function that names a file while it is at work; see `blamed`."""

    def call(*arguments: object) -> T:
        with blamed(path, error):
            return function(*arguments)

    return call


def end_with_parent() -> None:
    """Has the system end this process when its parent ends, where it can."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)


def describe(number: int) -> str:
    """Returns a signal in words."""
    return f"signal {number}, {signal.strsignal(number)}"


def _encoded(path: Path) -> bytes:
    return str(path).encode("utf-8", "surrogateescape")[: SIZE - 2]


def _written(path: bytes) -> bytes:
    """Writes a path; returns the one before."""
    if _shared is None:
        return b""
    size = int.from_bytes(_shared[:2], "little")
    before = _shared[2 : 2 + size]
    _shared[: 2 + len(path)] = len(path).to_bytes(2, "little") + path
    return before
