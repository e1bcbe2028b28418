"""Files and directories: digests, sizes, scratch space, and replacing safely."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PathLike = str | os.PathLike[str]

_BLOCK_BYTES = 1 << 20
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


@contextlib.contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """A temporary directory on the file system of `path`, so that moving is renaming.

    Directories that had to be made for it are removed again if nothing stays in them.

    Raises:
      OSError: it cannot be made, or the disk got full while it was in use; the error
        names the directory of `path`.
    """
    made = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
    try:
        scratch = _make_scratch(path.parent)
        try:
            with naming(path.parent):
                yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        with contextlib.suppress(OSError):
            for directory in made:
                directory.rmdir()


def _make_scratch(directory: Path) -> Path:
    trouble = OSError()
    for _ in range(2):  # Another process, which is done, may remove the directory.
        directory.mkdir(parents=True, exist_ok=True)
        try:
            return Path(tempfile.mkdtemp(prefix=".irv2-", dir=directory))
        except OSError as error:
            trouble = error
    # Its own name is random, and means nothing to anybody.
    raise type(trouble)(trouble.errno, trouble.strerror, str(directory)) from None


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

    Args:
      moves: source -> destination, on one file system. What is at a destination is
        replaced, file or directory.
      scratch: an empty place, which takes what is replaced and is deleted afterwards.

    Raises:
      OSError: a move failed. Everything is where it was before.
    """
    with contextlib.ExitStack() as undo:
        for number, (source, destination) in enumerate(moves.items()):
            if destination.exists() or destination.is_symlink():
                replaced = scratch / f"replaced-{number}"
                destination.rename(replaced)
                undo.callback(replaced.rename, destination)
            source.rename(destination)
            undo.callback(destination.rename, source)
        undo.pop_all()
