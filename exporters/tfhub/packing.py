"""Lays artifacts out for web servers: archives for TF Hub's library, files for TF.js."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import os
import shutil
import struct
import tarfile
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from checkpoints import files
from checkpoints.files import PathLike
from checkpoints.scratch import locked, scratch_beside
from exporters.progress import Progress, Step, silent, waiting_for
from exporters.tfhub.artifacts import HubArtifact, InstallError, find

_PART_BYTES = 1 << 20
"""What is compressed at once. The archive's bytes depend on it."""
_GZIP_HEADER = bytes.fromhex("1f8b 08 00 00000000 04 ff")
"""Deflate, no name, no time, fastest compression, unknown system (RFC 1952)."""
_LAST_BLOCK = bytes.fromhex("0300")
"""An empty block that is marked as the last (RFC 1951)."""


@dataclasses.dataclass(frozen=True)
class Packed:
    """An artifact on its way to a web server.

    Attributes:
      path: the .tar.gz file; for TF.js the directory with the files.
      handle: the URL whose path it has.
      bytes: size of the file, or of all files.
      warning: what could not be checked of the artifact, None if nothing.
    """

    path: Path
    handle: str
    bytes: int
    warning: str | None = None


def pack(
    artifacts: PathLike | Iterable[PathLike],
    output: PathLike,
    *,
    handle: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> tuple[Packed, ...]:
    """Packs artifacts for any web server, from which their clients can load them.

    Below `output`, each has the path of its handle, with .tar.gz added:
    `google/imagenet/inception_resnet_v2/feature_vector/3.tar.gz`. With that directory
    served at https://example.org/, the consumer's handle is
    `https://example.org/google/imagenet/inception_resnet_v2/feature_vector/3.tar.gz`.
    The library adds `?tf-hub-format=compressed`, which servers of files pass over. A
    stand-in has it in its name.

    TF.js loads a model file by file, so such an artifact is a directory there, of the
    path of its handle: `google/tfjs-model/imagenet/inception_resnet_v2/feature_vector/3/
    default/1`. What a consumer gives to `tf.loadGraphModel`, with `fromTFHub`, is
    `https://example.org/` and this path.

    Each artifact is checked first, as well as can be without its checkpoint: see
    `exporters.tfhub.artifacts`. If one is bad, nothing is packed, and the error names
    it. Each appears only whole. The same artifact gives the same bytes, however
    many processors there are.

    Args:
      artifacts: directories exported as v1, v3, v4, v5 or in a format of TF.js, or
        directories that hold such; other formats in the latter are passed over.
      output: where to pack to.
      handle: a URL whose path one artifact takes, instead of its published one's. It
        must be given for one that has none, since its network has classes of its own.
      force: replace what exists.
      progress: told what is done, in bytes of all artifacts.

    Returns:
      What was packed, one per artifact, in the order found.

    Raises:
      ArtifactError: a path is no artifact with a handle, or is damaged.
      InstallError: a destination exists already, two artifacts have the same handle, or one
        has none.
      OSError: a file cannot be written.
    """
    output_directory = Path(output)
    if files.is_no_directory(output_directory):
        raise InstallError(f"{output_directory} is a file; expected a directory")
    # First of all, so that a directory that cannot be written is found at once.
    with (
        scratch_beside(output_directory / "archives") as scratch,
        locked(output_directory, waiting_for(output_directory, progress)),
    ):
        chosen = find(artifacts, handle, progress, served_as_files=True)
        destinations = {
            handle: _destination(output_directory, handle, artifact)
            for handle, artifact in chosen.items()
        }
        for destination in destinations.values():
            if destination.exists() and not force:
                raise InstallError(
                    f"{destination} exists already. Use --force to replace it."
                )
        total = sum(files.size(artifact.path) for artifact in chosen.values())
        done = 0

        def count(number: int) -> None:
            nonlocal done
            done += number
            progress(Step("pack", done=done, total=total, unit="bytes"))

        packed = []
        for number, (handle, artifact) in enumerate(chosen.items()):
            # What it replaces has this name afterwards.
            unfinished = scratch / f"unfinished-{number}"
            if artifact.is_served_as_files:
                _copy(artifact.path, unfinished, count)
            else:
                with unfinished.open("wb") as file:
                    _write_gzip(file, _parts(artifact.path), count)
            size = files.size(unfinished)
            destination = destinations[handle]
            with scratch_beside(destination) as replaced:
                files.replace({unfinished: destination}, replaced)
            packed.append(Packed(destination, handle, size, artifact.warning))
    return tuple(packed)


def _destination(output: Path, handle: str, artifact: HubArtifact) -> Path:
    mark = "-stand-in" if artifact.is_stand_in else ""
    path = urllib.parse.urlsplit(handle).path.strip("/")
    if artifact.is_served_as_files:
        return output / f"{path}{mark}"
    return output / f"{path.removesuffix('.tar.gz')}{mark}.tar.gz"


def _copy(source: Path, destination: Path, count: Callable[[int], None]) -> None:
    """Copies the files of an artifact, which has no further directories."""
    destination.mkdir()
    for path in sorted(source.iterdir()):
        if path.is_file():
            shutil.copyfile(path, destination / path.name)
            count(path.stat().st_size)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A piece of an archive, to be compressed on its own.

    Attributes:
      content: the bytes.
      file_bytes: how many of them are of an artifact's file.
      strategy: of zlib.
    """

    content: bytes
    file_bytes: int = 0
    strategy: int = zlib.Z_DEFAULT_STRATEGY


def _parts(source: Path) -> Iterator[_Part]:
    """Gives a tar archive of a directory's content; same content, same parts."""
    # Sorted, directories come before what they hold, as old versions of the library
    # need it.
    for path in sorted(source.rglob("*")):
        member = tarfile.TarInfo(path.relative_to(source).as_posix())
        if path.is_dir():
            member.type, member.mode = tarfile.DIRTYPE, 0o755
        else:
            member.size, member.mode = path.stat().st_size, 0o644
        yield _Part(member.tobuf(tarfile.USTAR_FORMAT))
        if not path.is_dir():
            # Weights hardly repeat themselves, and looking for it takes three times as
            # long.
            is_weights = path.parent.name == "variables"
            strategy = zlib.Z_RLE if is_weights else zlib.Z_DEFAULT_STRATEGY
            with path.open("rb") as file:
                while content := file.read(_PART_BYTES):
                    yield _Part(content, len(content), strategy)
            yield _Part(bytes(-member.size % tarfile.BLOCKSIZE))
    yield _Part(bytes(2 * tarfile.BLOCKSIZE))


def _write_gzip(
    file: BinaryIO, parts: Iterable[_Part], count: Callable[[int], None]
) -> None:
    """Compresses parts side by side to one gzip member, which every reader takes.

    Args:
      file: to write to.
      parts: what to compress.
      count: called with the bytes of files that were written, for each part.
    """
    checksum = size = 0
    at_once = os.cpu_count() or 1
    waiting: collections.deque[tuple[_Part, concurrent.futures.Future[bytes]]]
    waiting = collections.deque()

    def write_first() -> None:
        part, compressed = waiting.popleft()
        file.write(compressed.result())
        count(part.file_bytes)

    file.write(_GZIP_HEADER)
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for part in parts:
            checksum = zlib.crc32(part.content, checksum)
            size += len(part.content)
            waiting.append((part, pool.submit(_deflate, part)))
            if len(waiting) > 2 * at_once:
                write_first()
        while waiting:
            write_first()
    file.write(_LAST_BLOCK + struct.pack("<LL", checksum, size % (1 << 32)))


def _deflate(part: _Part) -> bytes:
    """Compresses to blocks that end at a byte's end, so that others can follow."""
    compressor = zlib.compressobj(
        level=1, wbits=-zlib.MAX_WBITS, memLevel=9, strategy=part.strategy
    )
    return compressor.compress(part.content) + compressor.flush(zlib.Z_SYNC_FLUSH)
