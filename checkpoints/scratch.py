"""Scratch directories that the next run removes if this one is killed.

Each holds a lock as long as its process lives, which the system gives up however the
process ends. A directory with a lock that nobody holds is a leftover, and nobody else's:
without the file that is locked it is never touched. A kill while a directory is made or
removed leaves an empty one, which goes as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from checkpoints import files

if sys.platform != "win32":
    import fcntl

_HIDDEN_PREFIX = ".irv2-"
_PREFIX = "irv2-"
_OWNER = ".owner"
_UNNAMED_OWNER = f"{_OWNER}-"
_NAME = "scratch-"
_RANDOM_NAME = re.compile(f"{_NAME}[a-z0-9_]{{8}}")
"""What is added to a prefix, the last of it by `tempfile.mkdtemp`."""


class Scratch:
    """A directory for what is not finished; a context that removes it.

    Attributes:
      path: the directory.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        """Makes one, and removes what killed runs left in the same place.

        Raises:
          OSError: it cannot be made; the error names `parent`.
        """
        with contextlib.suppress(OSError):
            remove_leftovers(parent, prefix)
        while True:
            try:
                self.path = Path(tempfile.mkdtemp(prefix=prefix + _NAME, dir=parent))
            except OSError as error:
                # Its own name is random, and means nothing to anybody.
                raise type(error)(error.errno, error.strerror, str(parent)) from None
            try:
                owner = _own(self.path)
                self._remove = weakref.finalize(self, _remove, self.path, owner)
            except FileNotFoundError:  # Another took it for a leftover, still empty.
                continue
            except BaseException:  # An interruption too.
                shutil.rmtree(self.path, ignore_errors=True)
                raise
            break

    def close(self) -> None:
        """Removes the directory with all that is in it, as the end of the process does."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *exception: object) -> None:
        self.close()


def _own(path: Path) -> IO[bytes] | None:
    """Marks a directory as this process's; returns the file that holds the lock.

    Raises:
      FileNotFoundError: another process has removed the directory.
    """
    if sys.platform == "win32":
        return None
    # Locked before it has the name by which others know it.
    unnamed = path / _UNNAMED_OWNER
    owner = unnamed.open("wb")
    try:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileNotFoundError from None
        except OSError:  # The file system has no locks; so nobody ever removes it.
            return owner
        unnamed.rename(path / _OWNER)
    except BaseException:
        owner.close()
        raise
    return owner


def _remove(path: Path, owner: IO[bytes] | None) -> None:
    """Removes a directory; the mark comes last, so that a kill leaves it to the next."""
    with contextlib.suppress(OSError):
        for child in path.iterdir():
            if child.name == _OWNER:
                continue
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child, ignore_errors=True)
            else:
                child.unlink()
    shutil.rmtree(path, ignore_errors=True)
    if owner:
        owner.close()


def temporary() -> Scratch:
    """Makes a scratch directory where the system has temporary files."""
    return Scratch(Path(tempfile.gettempdir()), _PREFIX)


@contextlib.contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """A scratch directory on the file system of `path`, so that moving is renaming.

    Directories that had to be made for it are removed again if nothing stays in them.

    Raises:
      OSError: it cannot be made, or the disk got full while it was in use; the error
        names the directory of `path`.
    """
    made = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
    try:
        with _made_with_parents(path.parent) as scratch, files.naming(path.parent):
            yield scratch
    finally:
        with contextlib.suppress(OSError):
            for directory in made:
                directory.rmdir()


def _made_with_parents(directory: Path, attempts: int = 10) -> Scratch:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return Scratch(directory, _HIDDEN_PREFIX)
    except (FileNotFoundError, FileExistsError):
        # Another process, which is done, may remove it before or after `mkdir` finds it.
        if attempts == 1:
            raise
    return _made_with_parents(directory, attempts - 1)


def remove_leftovers(parent: Path, prefix: str = _HIDDEN_PREFIX) -> list[Path]:
    """Removes the scratch directories of processes that are gone.

    What such a process had moved away, and not yet put another in its place, is put
    back.

    Returns:
      What was removed.
    """
    removed: list[Path] = []
    if sys.platform == "win32":
        return removed
    for path in parent.glob(f"{prefix}*"):
        if path.is_symlink():
            continue
        owner = path / _OWNER
        if not owner.is_file():
            if _RANDOM_NAME.fullmatch(path.name.removeprefix(prefix)):
                removed += [path] if _remove_unmarked(path) else []
            continue
        with contextlib.suppress(OSError), owner.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            files.undo_replacing(path)
            _remove(path, None)
            removed += [] if path.exists() else [path]
    return removed


def _remove_unmarked(path: Path) -> bool:
    """Removes a directory that is empty, or has nothing but a mark without its name."""
    with contextlib.suppress(OSError):
        if [child.name for child in path.iterdir()] == [_UNNAMED_OWNER]:
            with (path / _UNNAMED_OWNER).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (path / _UNNAMED_OWNER).unlink()
        path.rmdir()
        return True
    return False


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Keeps other processes of this tool from changing something at the same time.

    It waits for them. Where the file system has no locks, it does nothing.

    Args:
      path: of the directory or the file, which exists.
      waiting: called if it has to wait.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
