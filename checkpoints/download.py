"""Fetches, verifies, unpacks and caches the published Inception-ResNet-v2 checkpoint.

`fetch` keeps one folder per archive in the cache, named after the archive's MD5:

    <cache>/<md5>/inception_resnet_v2_2016_08_30.ckpt   the unpacked checkpoint
    <cache>/<md5>/provenance.json                       where it came from
    <cache>/<md5>/archive.tar.gz.part, .part.json       an unfinished download
    <cache>/<md5>/lock                                  held while one of these changes

The provenance is written last, so a folder without it (or with one that does not fit
the checkpoint) counts as empty, whenever an earlier run was interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from checkpoints.archive import MAX_UNPACKED_BYTES, ArchiveError, extract_checkpoint
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

_PROVENANCE = "provenance.json"


class Provenance(TypedDict):
    """The record beside a fetched checkpoint; `sha256` and `bytes` are of `file`."""

    url: str
    archive_md5: str
    file: str
    sha256: str
    bytes: int


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

    A cached checkpoint is used, without network, when its size and SHA-256 are those of
    its provenance. An interrupted download is resumed, in this call or the next one.
    Concurrent calls for the same archive wait for each other, and only the first one
    downloads (on Windows they do not wait; run one at a time there).

    Args:
        url: http or https address of the archive, or of a mirror's copy of it.
        md5: MD5 of the archive, 32 hexadecimal digits.
        cache: cache folder; None for `cache_directory()`.
        force: download from the beginning whatever the cache holds.
        progress: called with the bytes so far (those of earlier runs included) and
            the bytes in all, None where the server does not say.
        retries: how often a failed request is repeated.
        delay: seconds before the first repetition; doubled for each further one.
        timeout: seconds without an answer or without data that make a request fail.
        max_bytes: largest accepted archive, in bytes.
        max_unpacked_bytes: largest accepted content of the archive, in bytes.

    Returns:
        The path of the checkpoint, with `provenance.json` beside it.

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
    part = folder / "archive.tar.gz.part"
    if not force and not part.exists() and (cached := _cached_checkpoint(folder, md5)):
        return cached
    report = progress or (lambda received, total: None)
    transfer = Transfer(url, part, report, timeout, max_bytes)
    with _locked(folder):
        if force:
            transfer.discard()
        checkpoint = None if force else _cached_checkpoint(folder, md5)
        if checkpoint is None:
            _complete(transfer, md5, retries, delay)
            checkpoint = _install(transfer, md5, max_unpacked_bytes)
        transfer.discard()
        return checkpoint


def published_provenance(path: Path) -> Provenance | None:
    """The record that `fetch` left beside a published checkpoint.

    Args:
        path: a checkpoint file, anywhere.

    Returns:
        The record, or None unless `path` is the unchanged content (size and SHA-256) of
        the archive whose MD5 is `PUBLISHED_MD5`, with its `provenance.json` beside it.
    """
    record = _read_provenance(path.parent)
    if record is None or record["file"] != path.name:
        return None
    if record["archive_md5"] != PUBLISHED_MD5 or not _fits(path, record):
        return None
    return record


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        if sys.platform != "win32":
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        yield


def _file_digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 18):
            digest.update(chunk)
    return digest.hexdigest()


def _read_provenance(folder: Path) -> Provenance | None:
    try:
        record = json.loads((folder / _PROVENANCE).read_text(encoding="utf-8"))
        return Provenance(
            url=str(record["url"]),
            archive_md5=str(record["archive_md5"]),
            file=Path(record["file"]).name,
            sha256=str(record["sha256"]),
            bytes=int(record["bytes"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fits(path: Path, record: Provenance) -> bool:
    try:
        if not path.is_file() or path.stat().st_size != record["bytes"]:
            return False
        return _file_digest(path, "sha256") == record["sha256"]
    except OSError:
        return False


def _cached_checkpoint(folder: Path, md5: str) -> Path | None:
    record = _read_provenance(folder)
    if record is None or record["archive_md5"] != md5:
        return None
    path = folder / record["file"]
    return path if _fits(path, record) else None


def _complete(transfer: Transfer, md5: str, retries: int, delay: float) -> None:
    """Makes `transfer.part` the whole archive, over as many requests as allowed."""
    if _is_archive(transfer.part, md5):
        return
    for attempt in range(retries + 1):
        if attempt:
            time.sleep(delay * 2 ** (attempt - 1))
        trouble: Exception | None = None
        try:
            resume(transfer)
        except TransferError as error:
            trouble = error
        if _is_archive(transfer.part, md5):  # even if the server promised more
            return
        if trouble is None:
            raise _mismatch(transfer, md5)
    size = transfer.part.stat().st_size if transfer.part.exists() else 0
    raise DownloadError(
        f"{transfer.url} could not be downloaded (tries: {retries + 1}); the last one"
        f" ended with: {trouble}. {size} bytes are kept in {transfer.part}, and the"
        " next call goes on from there. Check the network and the proxy settings, or"
        " give the URL of a mirror"
    ) from trouble


def _is_archive(part: Path, md5: str) -> bool:
    return part.exists() and _file_digest(part, "md5") == md5


def _mismatch(transfer: Transfer, md5: str) -> DownloadError:
    """Removes a whole but wrong archive, and returns the error that describes it."""
    with transfer.part.open("rb") as file:
        beginning = file.read(16)
    error = DownloadError(
        f"{transfer.url} is not the expected archive: found MD5"
        f" {_file_digest(transfer.part, 'md5')}, {transfer.part.stat().st_size} bytes"
        f" that begin with {beginning!r}; expected MD5 {md5}. The file was removed:"
        " try again, or check the URL and the MD5"
    )
    transfer.discard()
    return error


def _install(transfer: Transfer, md5: str, max_bytes: int) -> Path:
    """Unpacks a verified archive beside it; each file appears whole or not at all."""
    folder = transfer.part.parent
    workspace = folder / "unpacking"
    shutil.rmtree(workspace, ignore_errors=True)  # of a run that was killed
    try:
        files = extract_checkpoint(transfer.part, workspace, max_bytes=max_bytes)
        if len(files) != 1 or files[0].suffix != ".ckpt":
            raise ArchiveError(
                f"it holds {', '.join(file.name for file in files)}; expected one .ckpt"
                " file: check the URL and the MD5"
            )
        [unpacked] = files
        record = Provenance(
            url=transfer.url,
            archive_md5=md5,
            file=unpacked.name,
            sha256=_file_digest(unpacked, "sha256"),
            bytes=unpacked.stat().st_size,
        )
        provenance = workspace / _PROVENANCE
        provenance.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        checkpoint = folder / unpacked.name
        os.replace(unpacked, checkpoint)
        os.replace(provenance, folder / _PROVENANCE)
        return checkpoint
    except ArchiveError as error:
        transfer.discard()
        raise ArchiveError(
            f"{transfer.url} (MD5 {md5}) cannot be used, and was removed: {error}"
        ) from error
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
