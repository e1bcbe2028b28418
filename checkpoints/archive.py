"""Unpacks the .tar.gz archive of a checkpoint, whoever packed it.

An archive is not trusted: nothing is written outside the given folder, over another
file or beyond a given size, and whatever is wrong with it is an `ArchiveError`. It is
read once, forwards and in small pieces, so that no archive takes much memory.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from checkpoints.errors import CheckpointError
from checkpoints.regular_file import open_regular

MAX_UNPACKED_BYTES = 2 << 30  # the published checkpoint has about 240 MB

_CHUNK_BYTES = 256 * 1024
_MAX_MEMBERS = 10_000
_MAX_NAME_BYTES = 255
_MAX_HEADER_BYTES = 256 * 1024  # of one member; a long path takes a few thousand
_MAX_OVERHEAD_BYTES = 16 << 20  # of all headers, and of the zeros that tar pads with

_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_HEADER_TYPES = (  # They tell something about the next member.
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class ArchiveError(CheckpointError):
    """An archive is damaged, unsafe, too large, or does not hold what it should."""


def extract_checkpoint(
    archive: Path, directory: Path, *, max_bytes: int = MAX_UNPACKED_BYTES
) -> list[Path]:
    """Unpacks the files of a .tar.gz archive that may belong to a checkpoint.

    That is every regular file except *.meta, `checkpoint` and hidden ones (.*). Folders
    inside the archive are dropped: all files come to lie directly in `directory`.
    Whether they make up a checkpoint is for the reader of the checkpoint to say.

    Args:
        archive: a gzip-compressed tar archive.
        directory: where the files go; created if missing. Files are never overwritten.
        max_bytes: largest accepted sum of the sizes of all members, in bytes.

    Returns:
        The paths of the unpacked files in `directory`, sorted, at least one.

    Raises:
        ArchiveError: the archive is damaged or truncated; a member has an absolute path
            or '..' in it, is a link, a device or sparse, or two have the same file
            name; it is too large; or nothing is left to unpack. No unpacked file is
            left then.
        OSError: `archive` cannot be read or `directory` cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for name, content in _files(archive, max_bytes):
            target = directory / name
            if os.path.lexists(target):
                raise ArchiveError(
                    f"{archive}: {name!r} would overwrite {target}; expected different"
                    " file names, and a folder without them"
                )
            with target.open("xb") as file:
                written.append(target)
                file.writelines(content)
        if not written:
            raise ArchiveError(
                f"{archive} holds no checkpoint file; expected a V1 checkpoint file, or"
                " the .index and .data files of a V2 one"
            )
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return sorted(written)


def unpacked_files(
    archive: Path, directory: Path, *, max_bytes: int = MAX_UNPACKED_BYTES
) -> list[Path]:
    """Compares a directory with what `extract_checkpoint` would put there.

    Returns:
        The paths of the unpacked files in `directory`, sorted, if all of them are there
        with the archive's bytes; else none.

    Raises:
        ArchiveError, OSError: as `extract_checkpoint` does.
    """
    found = []
    for name, content in _files(archive, max_bytes):
        path = directory / name
        if not path.is_file():
            return []
        with open_regular(path) as file:
            if any(file.read(len(chunk)) != chunk for chunk in content):
                return []
            if file.read(1):
                return []
        found.append(path)
    return sorted(found)


def _files(archive: Path, max_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The name and content of each file that may belong to a checkpoint."""
    with open_regular(archive) as file, gzip.GzipFile(fileobj=file) as stream:
        tape = _Tape(archive, stream, max_bytes)
        try:
            for member, content in _members(tape):
                name = PurePosixPath(member.name).name
                ignored = name == "checkpoint" or name.startswith(".")
                if name and not (ignored or name.endswith(".meta")):
                    yield name, content
                for _ in content:
                    """Nobody wanted it, or not all of it."""
        except (tarfile.HeaderError, ValueError) as error:
            raise tape.damage(error) from error


class _Tape:
    """An uncompressed archive, read forwards, in which everything is counted."""

    def __init__(self, archive: Path, stream: gzip.GzipFile, max_bytes: int):
        self.archive = archive
        self._stream = stream
        self._max_bytes = max_bytes
        self._overhead = 0
        self._members = 0
        self._content = 0

    def overhead(self, size: int) -> bytes:
        """Reads bytes that are no file's content: fewer than `size` only at the end."""
        self._overhead += size
        if self._overhead > _MAX_OVERHEAD_BYTES:
            raise ArchiveError(
                f"{self.archive} has over {_MAX_OVERHEAD_BYTES} bytes that are no"
                " file's content: do not use it"
            )
        return self._read(size)

    def content(self, size: int) -> Iterator[bytes]:
        """Reads a file's content, and the zeros that fill its last block."""
        self._members += 1
        self._content += size
        if self._content > self._max_bytes or self._members > _MAX_MEMBERS:
            raise ArchiveError(
                f"{self.archive} holds at least {self._members} members of"
                f" {self._content} bytes; expected at most {_MAX_MEMBERS} of"
                f" {self._max_bytes}: do not use it"
            )
        left = size
        while left:
            chunk = self._read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise self.damage("it ends within a file")
            left -= len(chunk)
            yield chunk
        self.overhead(-size % tarfile.BLOCKSIZE)

    def damage(self, reason: object) -> ArchiveError:
        return ArchiveError(
            f"{self.archive} is damaged or truncated ({reason}); expected a"
            " gzip-compressed tar archive: download or pack it again"
        )

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise self.damage(error) from error


def _members(tape: _Tape) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """The files, from the first to the last; raises at the first bad member."""
    described: dict[str, str] = {}  # By headers in front of the member.
    is_empty = True
    while header := tape.overhead(tarfile.BLOCKSIZE):
        is_empty = False
        if not header.strip(b"\0"):
            break
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        if member.type in _HEADER_TYPES:
            described |= _description(tape, member)
            continue
        member.name = described.get("path", member.name)
        member.size = int(described.get("size", member.size))
        _check(member, described, tape.archive)
        described = {}
        if member.type in _FILE_TYPES:
            yield member, tape.content(member.size)
    if is_empty or described:
        raise ValueError("it ends before a file")
    while padding := tape.overhead(_CHUNK_BYTES):  # Up to gzip's own checksum.
        if padding.strip(b"\0"):
            raise ValueError("something follows its end")


def _description(tape: _Tape, header: tarfile.TarInfo) -> dict[str, str]:
    """What a header says about the member that follows it."""
    if not 0 <= header.size <= _MAX_HEADER_BYTES:
        raise ValueError(f"it has a header of {header.size} bytes")
    content = tape.overhead(header.size)
    if len(content) < header.size:
        raise ValueError("it ends within a header")
    tape.overhead(-header.size % tarfile.BLOCKSIZE)
    content = content.rstrip(b"\0")
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.decode("utf-8", "surrogateescape")}
    if header.type not in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        return {}  # The target of a link, or what holds for the archive as a whole.
    found = {}
    start = 0
    while start < len(content):  # "LENGTH KEY=VALUE\n", where LENGTH is of all that.
        space = content.index(b" ", start)
        end = start + int(content[start:space])
        if not space < end <= len(content) + 1:
            raise ValueError("it has a header of the wrong length")
        key, _, value = content[space + 1 : end - 1].partition(b"=")
        if key.startswith(b"GNU.sparse."):
            found["sparse"] = "in some form"
        elif key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        start = end
    return found


def _check(member: tarfile.TarInfo, described: dict[str, str], archive: Path) -> None:
    path = PurePosixPath(member.name)
    foreign = PureWindowsPath(path.name).name != path.name  # a drive, a backslash
    if path.is_absolute() or ".." in path.parts or foreign or "\0" in member.name:
        raise ArchiveError(
            f"{archive} has a member {member.name!r}; expected relative paths without"
            " '..': do not use an archive like this one"
        )
    if (length := len(path.name.encode("utf-8", "surrogateescape"))) > _MAX_NAME_BYTES:
        raise ArchiveError(
            f"{archive} has a member with a name of {length} bytes; expected at most"
            f" {_MAX_NAME_BYTES}, which is all that file systems take"
        )
    if "sparse" in described or member.type == tarfile.GNUTYPE_SPARSE:
        raise ArchiveError(
            f"{archive} has a sparse member {member.name!r}; expected whole files: pack"
            " them without --sparse"
        )
    if member.type not in (*_FILE_TYPES, tarfile.DIRTYPE):
        raise ArchiveError(
            f"{archive} has a link or device {member.name!r}; expected only files and"
            " folders: pack the files themselves"
        )
    if member.size < 0:
        raise ValueError(f"{member.name!r} has {member.size} bytes")
