"""Files and directories: digests, sizes, JSON, and replacing safely."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PathLike = str | os.PathLike[str]

_BLOCK_BYTES = 1 << 20
_AT_FDCWD = -100
_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS."""
_REPLACED = "replaced-"
_JOURNAL = "journal.json"
_LARGEST_JSON = 64 << 20
"""In bytes; the largest that we write ourselves, a manifest, has some hundred KB."""


def as_paths(given: PathLike | Iterable[PathLike]) -> list[Path]:
    """Returns one path, or several, as a list."""
    if isinstance(given, str | os.PathLike):
        given = [given]
    return [Path(path) for path in given]


def digest(file: Path, algorithm: str = "sha256") -> str:
    """Returns the digest of a file's content, in hexadecimal.

    Args:
      file: a regular file.
      algorithm: a name that `hashlib.new` knows, such as "sha256" or "md5".
    """
    result = hashlib.new(algorithm, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            result.update(block)
    return result.hexdigest()


def digests(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a directory, or of one file.

    Returns:
      Path below the parent of `path`, with "/" between its parts -> digest.
    """
    return {
        file.relative_to(path.parent).as_posix(): digest(file) for file in _files(path)
    }


def size(path: Path) -> int:
    """Returns the size of a file, or of all files below a directory, in bytes."""
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def read_json(file: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
      ValueError: it is not JSON, is nested too deeply, or is too large to be ours.
      OSError: it cannot be read.
    """
    if file.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"it has {file.stat().st_size} bytes")
    return parse_json(file.read_bytes())


def parse_json(content: bytes | str) -> Any:
    """Returns the value of a JSON document.

    Raises:
      ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(file: Path, value: Any) -> None:
    """Writes a value as JSON, readable for people."""
    text = json.dumps(value, indent=2, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")


def is_no_directory(path: Path) -> bool:
    """Whether there is something at a path, and it is no directory.

    That is one question to the system: between two, another process may remove it.
    """
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def naming(directory: Path) -> Iterator[None]:
    """Names the directory that is written to, when its disk is full.

    Most libraries do not, or name a file of theirs; each has an exception of its own.

    Raises:
      OSError: whatever was raised had the system's words for a full disk.
    """
    try:
        yield
    except Exception as error:
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code), str(directory)) from error
        raise


def replace(moves: Mapping[Path, Path], scratch: Path) -> None:
    """Moves each source to its destination; if one move fails, none has happened.

    Whoever looks at a destination sees what was there or what is there now, at any
    instant, and after a kill as well: the two are exchanged. Where a file system cannot
    exchange, the next run puts back what was there.

    Args:
      moves: source -> destination, on one file system. What is at a destination is
        replaced, file or directory.
      scratch: an empty place, which takes what is replaced and is deleted afterwards.

    Raises:
      OSError: a move failed. Everything is where it was before.
    """
    with contextlib.ExitStack() as undo:
        for number, (source, destination) in enumerate(moves.items()):
            if not os.path.lexists(destination):
                source.rename(destination)
                undo.callback(destination.rename, source)
            elif exchange(source, destination):
                undo.callback(exchange, source, destination)
            else:
                replaced = scratch / f"{_REPLACED}{number}"
                write_json(scratch / _JOURNAL, {replaced.name: str(destination)})
                destination.rename(replaced)
                undo.callback(replaced.rename, destination)
                source.rename(destination)
                undo.callback(destination.rename, source)
        undo.pop_all()


def undo_replacing(scratch: Path) -> None:
    """Puts back what a killed `replace` had moved away, if nothing is in its place."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        for name, destination in read_json(scratch / _JOURNAL).items():
            replaced = scratch / Path(name).name
            if os.path.lexists(replaced) and not os.path.lexists(destination):
                replaced.rename(destination)


def exchange(one: Path, other: Path) -> bool:
    """Exchanges two files or directories at once, for whoever looks at them.

    Returns:
      Whether it could be done; some file systems and systems cannot.

    Raises:
      OSError: there is another trouble, such as a missing permission.
    """
    if sys.platform == "win32":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2"):  # Linux
        failed = libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _EXCHANGE)
    elif hasattr(libc, "renamex_np"):  # macOS
        failed = libc.renamex_np(*paths, _EXCHANGE)
    else:
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def sync(path: Path) -> None:
    """Makes sure that a file, or all files below a directory, are on the disk."""
    for file in _files(path):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
