"""Files on this machine, or on any file system that Apache Beam reads.

What is on this machine is a `pathlib.Path`; what has a URL, such as gs://bucket/photos, is
a `RemotePath`, which does the same as far as evaluations need it.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from checkpoints.files import PathLike
from exporters.errors import EvaluationError, MissingLibraryError, StorageError

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://.")


def location(given: PathLike) -> Location:
    """Returns a path of this machine, or of another file system for a URL."""
    text = os.fspath(given)
    return RemotePath(text.rstrip("/")) if _URL.match(text) else Path(given)


def local(given: PathLike, option: str) -> Path:
    """Returns a path of this machine.

    Raises:
      EvaluationError: it is a URL.
    """
    if _URL.match(os.fspath(given)):
        raise EvaluationError(
            f"{option} {os.fspath(given)}: expected a path of this machine. Other file "
            "systems are for runs on Apache Beam (--beam)."
        )
    return Path(given)


def check_beam() -> None:
    """Refuses what needs Apache Beam where it is not there, before any work is done.

    Raises:
      MissingLibraryError: it is not there.
    """
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise MissingLibraryError(
            "--beam needs Apache Beam: pip install 'irv2[beam]', and beside it "
            "'apache-beam[gcp]', [aws] or [azure] for their file systems."
        ) from error


def _file_systems() -> Any:
    check_beam()
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Names the file, whatever a file system's library raises.

    Raises:
      FileNotFoundError: there is no such file.
      StorageError: any other trouble, which may be over when it is tried again.
    """
    try:
        yield
    except (FileNotFoundError, MissingLibraryError):
        raise
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise StorageError(f"{url} cannot be reached: {said}") from error


class _Listing:
    """All files below a URL, and their sizes in bytes."""

    def __init__(self, url: str) -> None:
        with _reaching(url):
            (found,) = _file_systems().match([f"{url}/**"])
            files = [*found.metadata_list]
            (itself,) = _file_systems().match([url])
            files += [file for file in itself.metadata_list if file.path == url]
        self.sizes = {file.path: file.size_in_bytes for file in files}
        self._urls = sorted(self.sizes)

    def below(self, url: str) -> list[str]:
        first = bisect.bisect_left(self._urls, f"{url}/")
        end = bisect.bisect_left(self._urls, f"{url}0")  # "0" comes behind "/".
        return self._urls[first:end]


class RemotePath:
    """A file, or a directory, of a file system that Apache Beam reads.

    What is below a directory is listed once, and what is found in it knows the same
    list. A directory exists if there is a file in it.
    """

    def __init__(
        self, url: str, size: int | None = None, listing: _Listing | None = None
    ) -> None:
        """Names a place; nothing is asked of the file system.

        Args:
          url: with scheme, without a slash at its end.
          size: of the file in bytes, where it is known.
          listing: what is there, where it is known.
        """
        self.url = url
        self._size = size
        self._listing = listing

    def __str__(self) -> str:
        return self.url

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """What is behind the last slash."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The end of the name, with its dot; empty if there is none."""
        return PurePosixPath(self.name).suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """What is between the slashes."""
        return tuple(self.url.split("/"))

    @property
    def _known(self) -> _Listing:
        if self._listing is None:
            self._listing = _Listing(self.url)
        return self._listing

    def exists(self) -> bool:
        """Whether a file is here, or below."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.url in self._known.sizes

    def is_dir(self) -> bool:
        """Whether there are files below it."""
        return bool(self._known.below(self.url))

    def iterdir(self) -> Iterator[RemotePath]:
        """Yields the files and directories in it."""
        start = len(self.url) + 1
        names = {url[start:].partition("/")[0] for url in self._known.below(self.url)}
        for name in sorted(names):
            yield self._found(f"{self.url}/{name}")

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """Yields all files below it, for the pattern "*"."""
        assert pattern == "*"
        yield from map(self._found, self._known.below(self.url))

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yields the files in it whose names fit a pattern."""
        for path in self.iterdir():
            if PurePosixPath(path.name).match(pattern):
                yield path

    def _found(self, url: str) -> RemotePath:
        return RemotePath(url, self._known.sizes.get(url), self._known)

    def size(self) -> int:
        """Returns the size of the file in bytes.

        Raises:
          FileNotFoundError, StorageError: it cannot be told.
        """
        if self._size is None:
            with _reaching(self.url):
                (found,) = _file_systems().match([self.url])
            if not found.metadata_list:
                raise FileNotFoundError(2, "No such file", self.url)
            self._size = found.metadata_list[0].size_in_bytes
        return self._size

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Opens the file for reading, as its bytes are.

        Raises:
          FileNotFoundError, StorageError: it cannot be opened.
        """
        assert mode == "rb"
        from apache_beam.io.filesystem import CompressionTypes

        with _reaching(self.url):
            opened: IO[bytes] = _file_systems().open(
                self.url, compression_type=CompressionTypes.UNCOMPRESSED
            )
        return opened

    def read_bytes(self) -> bytes:
        """Returns the content of the file.

        Raises:
          FileNotFoundError, StorageError: it cannot be read.
        """
        with _reaching(self.url), self.open() as file:
            return file.read()

    def read_text(self, encoding: str) -> str:
        """Returns the content of the file as text; see `read_bytes`."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Writes the file, which may be seen before it is complete.

        Raises:
          StorageError: it cannot be written.
        """
        from apache_beam.io.filesystem import CompressionTypes

        systems = _file_systems()
        with _reaching(self.url):
            with contextlib.suppress(OSError):  # It is there.
                systems.mkdirs(self.url.rpartition("/")[0])
            with systems.create(
                self.url, compression_type=CompressionTypes.UNCOMPRESSED
            ) as file:
                file.write(content)

    def replace(self, target: RemotePath) -> None:
        """Moves the file, into the place of another if one is there.

        Some file systems do not replace: what is there is taken away first, by whoever
        of several that move files there comes to it.

        Raises:
          StorageError: it cannot be moved.
        """
        systems = _file_systems()
        with _reaching(self.url):
            for left in reversed(range(_TRIES)):
                try:
                    systems.rename([self.url], [target.url])
                    return
                except Exception:
                    if not left or not systems.exists(self.url):
                        raise
                    with contextlib.suppress(Exception):  # It is gone already.
                        systems.delete([target.url])

    def remove_all(self) -> None:
        """Removes the file or the directory with all below it, if it is there."""
        systems = _file_systems()
        with _reaching(self.url):
            if below := _Listing(self.url).sizes:
                systems.delete(list(below))
            with contextlib.suppress(Exception):  # Of what has no directories.
                systems.delete([self.url])


Location = Path | RemotePath


def size_of(path: Location) -> int:
    """Returns the size of a file in bytes.

    Raises:
      OSError, StorageError: it cannot be told.
    """
    return path.stat().st_size if isinstance(path, Path) else path.size()


_WORK = "_irv2_work"
_TRIES = 8
"""To move a file to where others, moved by others, come and go."""


@dataclasses.dataclass(frozen=True)
class Workplace:
    """A directory where those who share out work, and those who do it, leave files.

    Attributes:
      directory: which holds the results; all else is below `_irv2_work` in it.
    """

    directory: Location

    @property
    def work(self) -> Location:
        """The directory of what is of no use afterwards."""
        return self.directory / _WORK

    def write(self, path: Location, content: bytes) -> None:
        """Writes a file: whoever looks sees all of it, or what was there before.

        Where nothing can be replaced, there may be none for a moment.

        Raises:
          OSError, StorageError: it cannot be written.
        """
        unfinished = self.work / f"{path.name}.{uuid.uuid4().hex}"
        if isinstance(path, Path) and isinstance(unfinished, Path):
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        elif isinstance(path, RemotePath) and isinstance(unfinished, RemotePath):
            unfinished.write_bytes(content)
            unfinished.replace(path)

    def names(self, pattern: str, directory: Location | None = None) -> set[str]:
        """Names of the files there, by a pattern, as they are now."""
        of = directory or self.directory
        if isinstance(of, RemotePath):
            with _reaching(of.url):
                (found,) = _file_systems().match([f"{of.url}/{pattern}"])
            return {file.path.rpartition("/")[2] for file in found.metadata_list}
        return {path.name for path in of.glob(pattern)}

    def clear(self) -> None:
        """Removes what is of no use any more."""
        if isinstance(self.work, RemotePath):
            self.work.remove_all()
        else:
            shutil.rmtree(self.work, ignore_errors=True)
