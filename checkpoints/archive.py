"""Unpacks the .tar.gz archive of a checkpoint, whoever packed it.

An archive is not trusted: nothing is written outside the given folder, over another
file or beyond a given size, and whatever is wrong with it is an `ArchiveError`.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

MAX_UNPACKED_BYTES = 2 << 30  # the published checkpoint has about 240 MB

_CHUNK_BYTES = 256 * 1024
_MAX_MEMBERS = 10_000
_MAX_PADDING_BYTES = 16 << 20  # tar fills its last record with zeros
_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
)


class ArchiveError(Exception):
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
            or '..' in it, is a link or a device, or two have the same file name; it is
            too large; or nothing is left to unpack. No unpacked file is left then.
        OSError: `archive` cannot be read or `directory` cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        with (
            _CautiousGzipFile(archive) as stream,
            tarfile.open(fileobj=stream, mode="r:") as tar,
        ):
            for name, member in _safe_members(tar, archive, max_bytes):
                target = directory / name
                if os.path.lexists(target):
                    raise ArchiveError(
                        f"{archive}: {member.name!r} would overwrite {target}; expected"
                        " different file names, and a folder without them"
                    )
                source = tar.extractfile(member)
                assert source is not None  # it is one for every regular file
                with source, target.open("xb") as file:
                    written.append(target)
                    shutil.copyfileobj(source, file, _CHUNK_BYTES)
            _check_end(stream, archive)
        if not written:
            raise ArchiveError(
                f"{archive} holds no checkpoint file; expected a V1 checkpoint file, or"
                " the .index and .data files of a V2 one"
            )
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, _DAMAGE):
            raise ArchiveError(
                f"{archive} is damaged or truncated ({error}); expected a"
                " gzip-compressed tar archive: download or pack it again"
            ) from error
        raise
    return sorted(written)


class _CautiousGzipFile(gzip.GzipFile):
    """Refuses the huge reads that forged tar headers cause; data is read in chunks."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _CHUNK_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _safe_members(
    tar: tarfile.TarFile, archive: Path, max_bytes: int
) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The regular files to unpack, by file name; raises at the first bad member."""
    total = 0
    for count, member in enumerate(tar, start=1):
        path = PurePosixPath(member.name)
        foreign = PureWindowsPath(path.name).name != path.name  # a drive, a backslash
        if path.is_absolute() or ".." in path.parts or foreign:
            raise ArchiveError(
                f"{archive} has a member {member.name!r}; expected relative paths"
                " without '..': do not use an archive like this one"
            )
        if not (member.isreg() or member.isdir()):
            raise ArchiveError(
                f"{archive} has a link or device {member.name!r}; expected only files"
                " and folders: pack the files themselves"
            )
        if member.size < 0:
            raise tarfile.ReadError(f"{member.name!r} has {member.size} bytes")
        total += member.size
        if total > max_bytes or count > _MAX_MEMBERS:
            raise ArchiveError(
                f"{archive} holds at least {count} members of {total} bytes; expected"
                f" at most {_MAX_MEMBERS} of {max_bytes}: do not use it"
            )
        ignored = path.name == "checkpoint" or path.name.startswith(".")
        if member.isreg() and path.name and not (ignored or path.suffix == ".meta"):
            yield path.name, member


def _check_end(stream: gzip.GzipFile, archive: Path) -> None:
    """Reads the padding after the last member, and so makes gzip check its CRC."""
    length = 0
    while chunk := stream.read(_CHUNK_BYTES):
        length += len(chunk)
        if chunk.strip(b"\0") or length > _MAX_PADDING_BYTES:
            raise ArchiveError(
                f"{archive} is damaged: its last members cannot be read; download or"
                " pack it again"
            )
