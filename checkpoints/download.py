"""Fetches, verifies, unpacks and caches the published checkpoint, or another archive's.

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

from checkpoints import files, location, published
from checkpoints.archive import (
    MAX_UNPACKED_BYTES,
    ArchiveError,
    extract_checkpoint,
    unpacked_files,
)
from checkpoints.errors import CheckpointError
from checkpoints.http_transfer import (
    DownloadError,
    Progress,
    Transfer,
    TransferError,
    resume,
)
from checkpoints.published import ARCHIVE_NAME, has_md5

if sys.platform != "win32":
    import fcntl

PUBLISHED_URL = published.URL
PUBLISHED_MD5 = published.MD5
MAX_ARCHIVE_BYTES = 1 << 30  # the published archive has about 200 MB
_WORKSPACE = "unpacking"


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
    """Brings a checkpoint into the cache, unless it is there already.

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
        The path of a V1 checkpoint, or the prefix of a V2 one, with the archive beside
        it.

    Raises:
        DownloadError: the server cannot be reached, refuses, or sends something else.
        ArchiveError: the archive has the given MD5 but does not hold one checkpoint.
        ValueError: `md5` is not an MD5.
        OSError: the cache folder cannot be written.
    """
    md5 = md5.lower()
    if not re.fullmatch("[0-9a-f]{32}", md5):
        raise ValueError(f"md5={md5!r}: expected the 32 hexadecimal digits of an MD5")
    folder = (cache_directory() if cache is None else Path(cache)) / md5
    archive = folder / ARCHIVE_NAME
    report = progress or (lambda received, total: None)
    part = folder / f"{ARCHIVE_NAME}.part"
    transfer = Transfer(url, part, report, timeout, max_bytes)
    if not force and (cached := _cached_checkpoint(archive, md5, max_unpacked_bytes)):
        _remove_leftovers(folder, transfer)
        return cached
    with _locked(folder), files.naming(folder):
        if force:
            transfer.discard()
        elif cached := _cached_checkpoint(archive, md5, max_unpacked_bytes):
            return cached
        if force or not has_md5(archive, md5):
            _complete(transfer, md5, retries, delay)
            os.replace(part, archive)
        transfer.discard()
        try:
            return _unpack(archive, max_unpacked_bytes)
        except CheckpointError as error:
            archive.unlink(missing_ok=True)
            raise ArchiveError(
                f"{url} (MD5 {md5}) cannot be used, and was removed: {error}"
            ) from error


@contextlib.contextmanager
def _locked(folder: Path, *, blocking: bool = True) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        if sys.platform != "win32":
            # Until the file is closed.
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        yield


def _remove_leftovers(folder: Path, transfer: Transfer) -> None:
    """Removes what a run left that was killed at its end, unless one is at work."""
    workspace = folder / _WORKSPACE
    if workspace.exists() or transfer.part.exists() or transfer.note.exists():
        with contextlib.suppress(OSError), _locked(folder, blocking=False):
            transfer.discard()
            shutil.rmtree(workspace, ignore_errors=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cached_checkpoint(archive: Path, md5: str, max_bytes: int) -> Path | None:
    """The checkpoint beside an archive, if all of both is as it should be."""
    if not has_md5(archive, md5):
        return None
    unpacked = unpacked_files(archive, archive.parent, max_bytes=max_bytes)
    return location.find_among(unpacked, archive).path if unpacked else None


def _complete(transfer: Transfer, md5: str, retries: int, delay: float) -> None:
    """Makes `transfer.part` the whole archive, over as many requests as allowed."""
    if has_md5(transfer.part, md5):
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
        if has_md5(transfer.part, md5):  # even if the server promised more
            return
        if trouble is None:
            raise _mismatch(transfer, md5)
    raise DownloadError(
        f"{transfer.url} could not be downloaded (tries: {retries + 1}); the last one"
        f" ended with: {trouble}. {_size(transfer.part)} bytes are kept in {transfer.part}, and the"
        " next call goes on from there. Check the network and the proxy settings, or"
        " give the URL of a mirror (--url)"
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
    """Unpacks a verified archive beside it; each file appears whole or not at all.

    Returns:
      The path of the checkpoint, as `fetch` returns it.
    """
    workspace = archive.parent / _WORKSPACE
    shutil.rmtree(workspace, ignore_errors=True)  # of a run that was killed
    try:
        unpacked = extract_checkpoint(archive, workspace, max_bytes=max_bytes)
        checkpoint = location.find_among(unpacked, archive).path
        for file in unpacked:
            if file.name.startswith(ARCHIVE_NAME) or file.name == "lock":
                raise ArchiveError(f"it holds a file of the name {file.name!r}")
        for file in unpacked:
            os.replace(file, archive.parent / file.name)
        return archive.parent / checkpoint.name
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
