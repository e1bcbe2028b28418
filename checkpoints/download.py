"""Fetches, verifies, unpacks and caches the published Inception-ResNet-v2 checkpoint.

`fetch` keeps one folder per archive in the cache, named after the archive's MD5:

    <cache>/<md5>/archive.tar.gz                        the archive, with that MD5
    <cache>/<md5>/inception_resnet_v2_2016_08_30.ckpt   what it holds, unpacked
    <cache>/<md5>/archive.tar.gz.part, .part.json       an unfinished download
    <cache>/<md5>/lock                                  held while one of these changes

The archive stays, because it is the proof: a checkpoint is the published one if it is
in an archive with the published MD5, and nothing that anybody writes beside it can make
it so. Whatever an interrupted run left, what does not fit the archive is unpacked anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from checkpoints import files
from checkpoints.archive import (
    MAX_UNPACKED_BYTES,
    ArchiveError,
    extract_checkpoint,
    unpacked_files,
)
from checkpoints.http_transfer import (
    DownloadError,
    Progress,
    Transfer,
    TransferError,
    resume,
)

if sys.platform != "win32":
    import fcntl

PUBLISHED_URL = (
    "http://download.tensorflow.org/models/inception_resnet_v2_2016_08_30.tar.gz"
)
PUBLISHED_MD5 = "9e0f18e1259acf943e30690460d96123"
MAX_ARCHIVE_BYTES = 1 << 30  # the published archive has about 200 MB

_ARCHIVE = "archive.tar.gz"


def cache_directory() -> Path:
    """The default cache folder.

    Returns:
        $IRV2_CACHE_DIR, else $XDG_CACHE_HOME/irv2, else ~/.cache/irv2; it need not
        exist. Empty variables count as unset.
    """
    if own := os.environ.get("IRV2_CACHE_DIR"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "irv2"
    return Path.home() / ".cache" / "irv2"


def fetch(
    url: str = PUBLISHED_URL,
    *,
    md5: str = PUBLISHED_MD5,
    cache: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    retries: int = 4,
    delay: float = 1.0,
    timeout: float = 30.0,
    max_bytes: int = MAX_ARCHIVE_BYTES,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> Path:
    """Brings the published checkpoint into the cache, unless it is there already.

    A cached checkpoint is used, without network, when it is what the cached archive
    holds. An interrupted download is resumed, in this call or the next one. Concurrent
    calls for the same archive wait for each other, and only the first one downloads (on
    Windows they do not wait; run one at a time there).

    Args:
        url: http or https address of the archive, or of a mirror's copy of it.
        md5: MD5 of the archive, 32 hexadecimal digits.
        cache: cache folder; None for `cache_directory()`.
        force: download from the beginning whatever the cache holds.
        progress: called when a download begins and as it goes on, with the bytes so far
            (those of earlier runs included) and the bytes in all, None where the server
            does not say.
        retries: how often a failed request is repeated.
        delay: seconds before the first repetition; doubled for each further one.
        timeout: seconds without an answer or without data that make a request fail.
        max_bytes: largest accepted archive, in bytes.
        max_unpacked_bytes: largest accepted content of the archive, in bytes.

    Returns:
        The path of the checkpoint, with its archive beside it.

    Raises:
        DownloadError: the server cannot be reached, refuses, or sends something else.
        ArchiveError: the archive has the given MD5 but does not hold one .ckpt file.
        ValueError: `md5` is not an MD5.
        OSError: the cache folder cannot be written.
    """
    md5 = md5.lower()
    if not re.fullmatch("[0-9a-f]{32}", md5):
        raise ValueError(f"md5={md5!r}: expected the 32 hexadecimal digits of an MD5")
    folder = (cache_directory() if cache is None else Path(cache)) / md5
    archive = folder / _ARCHIVE
    if not force and (cached := _cached_checkpoint(archive, md5, max_unpacked_bytes)):
        return cached
    report = progress or (lambda received, total: None)
    part = folder / f"{_ARCHIVE}.part"
    transfer = Transfer(url, part, report, timeout, max_bytes)
    with _locked(folder):
        if force:
            transfer.discard()
        elif cached := _cached_checkpoint(archive, md5, max_unpacked_bytes):
            return cached
        if force or not _has_md5(archive, md5):
            _complete(transfer, md5, retries, delay)
            os.replace(part, archive)
            transfer.discard()
        try:
            return _unpack(archive, max_unpacked_bytes)
        except ArchiveError as error:
            archive.unlink(missing_ok=True)
            raise ArchiveError(
                f"{url} (MD5 {md5}) cannot be used, and was removed: {error}"
            ) from error


def is_published_archive(path: Path) -> bool:
    """Whether a file is the archive that was published, by its MD5."""
    return _has_md5(path, PUBLISHED_MD5)


def is_published(path: Path) -> bool:
    """Whether a file is the published checkpoint, unpacked by `fetch`.

    That is: the archive beside it has the published MD5, and holds a file of that name
    with the same bytes.
    """
    path = path.resolve()
    archive = path.parent / _ARCHIVE
    if not is_published_archive(archive):
        return False
    return path in unpacked_files(archive, path.parent)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        if sys.platform != "win32":
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        yield


def _has_md5(path: Path, md5: str) -> bool:
    try:
        return path.is_file() and files.digest(path, "md5") == md5
    except OSError:
        return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cached_checkpoint(archive: Path, md5: str, max_bytes: int) -> Path | None:
    """The checkpoint beside an archive, if both are as they should be."""
    if not _has_md5(archive, md5):
        return None
    unpacked = unpacked_files(archive, archive.parent, max_bytes=max_bytes)
    return unpacked[0] if len(unpacked) == 1 else None


def _complete(transfer: Transfer, md5: str, retries: int, delay: float) -> None:
    """Makes `transfer.part` the whole archive, over as many requests as allowed."""
    if _has_md5(transfer.part, md5):
        return
    transfer.progress(_size(transfer.part), None)
    for attempt in range(retries + 1):
        if attempt:
            time.sleep(delay * 2 ** (attempt - 1))
        trouble: Exception | None = None
        try:
            resume(transfer)
        except TransferError as error:
            trouble = error
        if _has_md5(transfer.part, md5):  # even if the server promised more
            return
        if trouble is None:
            raise _mismatch(transfer, md5)
    raise DownloadError(
        f"{transfer.url} could not be downloaded (tries: {retries + 1}); the last one"
        f" ended with: {trouble}. {_size(transfer.part)} bytes are kept in {transfer.part}, and the"
        " next call goes on from there. Check the network and the proxy settings, or"
        " give the URL of a mirror"
    ) from trouble


def _mismatch(transfer: Transfer, md5: str) -> DownloadError:
    """Removes a whole but wrong archive, and returns the error that describes it."""
    with transfer.part.open("rb") as file:
        beginning = file.read(16)
    error = DownloadError(
        f"{transfer.url} is not the expected archive: found MD5"
        f" {files.digest(transfer.part, 'md5')}, {transfer.part.stat().st_size} bytes"
        f" that begin with {beginning!r}; expected MD5 {md5}. The file was removed:"
        " try again, or check the URL and the MD5"
    )
    transfer.discard()
    return error


def _unpack(archive: Path, max_bytes: int) -> Path:
    """Unpacks a verified archive beside it; each file appears whole or not at all."""
    workspace = archive.parent / "unpacking"
    shutil.rmtree(workspace, ignore_errors=True)  # of a run that was killed
    try:
        unpacked = extract_checkpoint(archive, workspace, max_bytes=max_bytes)
        if len(unpacked) != 1 or unpacked[0].suffix != ".ckpt":
            raise ArchiveError(
                f"it holds {', '.join(file.name for file in unpacked)}; expected one"
                " .ckpt file: check the URL and the MD5"
            )
        checkpoint = archive.parent / unpacked[0].name
        os.replace(unpacked[0], checkpoint)
        return checkpoint
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
