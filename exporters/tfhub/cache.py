"""Puts artifacts where the TF Hub library looks first, and takes them out again.

The library keeps a module that it downloaded in `<cache>/<SHA-1 of the handle>/`, and
does not ask the network for what is there already (tensorflow-hub, resolver.py and
compressed_module_resolver.py, the same from 0.1 to 0.16.1). An artifact placed there is
what `hub.Module(handle)`, `hub.KerasLayer(handle)` and `hub.load(handle)` load.

Beside each directory that is placed lies a receipt, by which it can be told from what
the library or somebody else put into the same cache. Programs that clean temporary
directories delete single files: where files are only missing, nobody's work is lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from checkpoints import files
from exporters.tfhub.artifacts import InstallError, find

_RECEIPT_SUFFIX = ".irv2.json"
_DESCRIPTOR_SUFFIX = ".descriptor.txt"


@dataclasses.dataclass(frozen=True)
class Installed:
    """An artifact that was placed in a cache.

    Attributes:
      handle: the URL that it answers for.
      directory: where it lies.
      replaced: whether it replaced files that lay there.
      warning: what could not be checked, None if nothing.
    """

    handle: str
    directory: Path
    replaced: bool
    warning: str | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """An installed artifact as `uninstall` found it.

    Attributes:
      handle: the URL that it answered for.
      directory: where it lay.
      changed: files that were changed or added since, by path below the directory.
    """

    handle: str
    directory: Path
    changed: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Uninstalled:
    """What `uninstall` did.

    Attributes:
      removed: artifacts that are gone; with their changes, if it was forced.
      kept: artifacts that are left as they are, since they were changed.
    """

    removed: tuple[Found, ...]
    kept: tuple[Found, ...]


@dataclasses.dataclass(frozen=True)
class _Receipt:
    """What was placed in a cache.

    Attributes:
      handle: the URL that it answers for.
      files: path below the directory -> SHA-256.
      descriptor: content of the descriptor file beside the directory.
    """

    handle: str
    files: Mapping[str, str]
    descriptor: str


def default_cache_directory() -> Path:
    """Returns the directory that the library uses: TFHUB_CACHE_DIR or its default.

    Raises:
      InstallError: it is not on this machine's file system.
    """
    configured = os.environ.get("TFHUB_CACHE_DIR")
    if configured and "://" in configured:
        raise InstallError(
            f"TFHUB_CACHE_DIR is {configured}; expected a directory of this machine's"
        )
    return Path(configured or Path(tempfile.gettempdir()) / "tfhub_modules")


def cached_directory(handle: str, cache_directory: Path | None = None) -> Path:
    """Returns where the library looks for a handle, exactly as users type it."""
    name = hashlib.sha1(handle.encode("utf-8")).hexdigest()
    return (cache_directory or default_cache_directory()) / name


def install(
    artifacts: Iterable[Path],
    cache_directory: Path | None = None,
    *,
    allow_stand_in: bool = False,
    force: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[Installed, ...]:
    """Copies artifacts into the library's cache, under their published handles.

    Each is checked first, as well as can be without its checkpoint: see
    `exporters.tfhub.artifacts`. All are placed, or none: if one is bad, nothing is
    installed, and the error names it.

    What an earlier call placed is replaced, also if files of it are missing. So is what
    holds nothing but files of the same artifact.

    Args:
      artifacts: directories exported as v1, v3, v4 or v5, or directories that hold
        such; other formats in the latter are passed over.
      cache_directory: the library's cache, by default the one it will use.
      allow_stand_in: install generated weights, which classify nothing, under the
        handle of the trained ones.
      force: replace what is there, whoever put it there: changes of an installed
        artifact, and what the library downloaded or others put there, are deleted.
      progress: called with what is done, as it begins.

    Returns:
      What was installed, in the order found.

    Raises:
      ArtifactError: a path is no artifact with a handle, or is damaged.
      InstallError: an artifact is a stand-in, two have the same handle, or something is
        there already.
      OSError: the cache cannot be written. It is as it was before.
    """
    cache = _checked_cache(cache_directory)
    # First of all, so that a cache that cannot be written is found at once.
    with files.scratch_beside(cache / "artifacts") as scratch:
        chosen = find(artifacts, progress)
        for handle, artifact in chosen.items():
            if artifact.is_stand_in and not allow_stand_in:
                raise InstallError(
                    f"{artifact.path} is a stand-in: whoever loads {handle} would get "
                    "weights that classify nothing. Export a trained checkpoint, or "
                    "insist with --allow-stand-in."
                )
        placed, moves = [], {}
        for handle, artifact in chosen.items():
            progress(f"copy {artifact.path.name}")
            directory = cached_directory(handle, cache)
            copy = scratch / directory.name
            shutil.copytree(artifact.path, copy)
            receipt = _Receipt(handle, _digests(copy), _descriptor(handle))
            if not force:
                _check_replaceable(directory, receipt)
            files.write_json(
                _beside(copy, _RECEIPT_SUFFIX), dataclasses.asdict(receipt)
            )
            _beside(copy, _DESCRIPTOR_SUFFIX).write_text(receipt.descriptor, "utf-8")
            for suffix in (_RECEIPT_SUFFIX, _DESCRIPTOR_SUFFIX, ""):
                moves[_beside(copy, suffix)] = _beside(directory, suffix)
            is_replaced = bool(_digests(directory))
            placed.append(Installed(handle, directory, is_replaced, artifact.warning))
        files.replace(moves, scratch)
    return tuple(placed)


def uninstall(
    cache_directory: Path | None = None, *, force: bool = False
) -> Uninstalled:
    """Removes what `install` placed in a cache, and nothing else.

    An artifact in which files were changed or added since is kept. One in which files
    are missing is removed.

    Args:
      cache_directory: the library's cache, by default the one it will use.
      force: remove changed artifacts as well, with all that was added to them.

    Returns:
      What was removed and what was kept.

    Raises:
      InstallError: the cache is no directory of this machine's.
    """
    cache = _checked_cache(cache_directory)
    removed, kept = [], []
    for path in sorted(cache.glob(f"*{_RECEIPT_SUFFIX}")):
        directory = path.with_name(path.name.removesuffix(_RECEIPT_SUFFIX))
        receipt = _read_receipt(directory)
        if receipt is None:
            continue
        changed = _changed_files(directory, receipt.files)
        found = Found(receipt.handle, directory, tuple(changed))
        if changed and not force:
            kept.append(found)
        else:
            _remove(directory, receipt)
            removed.append(found)
    return Uninstalled(tuple(removed), tuple(kept))


def _checked_cache(cache_directory: Path | None) -> Path:
    cache = cache_directory or default_cache_directory()
    if cache.exists() and not cache.is_dir():
        raise InstallError(f"{cache} is a file; expected the library's cache directory")
    return cache


def _check_replaceable(directory: Path, receipt: _Receipt) -> None:
    """Raises if anything would be lost by replacing a directory.

    Args:
      directory: a place in the cache.
      receipt: of what is to be placed there.
    """
    if not _changed_files(directory, receipt.files):
        return
    previous = _read_receipt(directory)
    if previous is None:
        raise InstallError(
            f"{directory} already holds {receipt.handle}, and irv2 did not put it "
            "there. Use another --cache, or replace it with --force, which deletes it."
        )
    changed = _changed_files(directory, previous.files)
    if changed:
        raise InstallError(
            f"{directory} was changed since irv2 installed it: "
            f"{', '.join(changed[:3])}. Use --force to replace it, which deletes the "
            "changes."
        )


def _descriptor(handle: str) -> str:
    """A text as the library writes it, for people who wonder what a directory is."""
    return (
        f"Module: {handle}\nDownload Time: {datetime.datetime.today()}\n"
        f"Downloader Hostname: {socket.gethostname()} (PID:{os.getpid()})"
    )


def _remove(directory: Path, receipt: _Receipt) -> None:
    """Removes an installed directory and its descriptor, and then its receipt."""
    if os.path.lexists(directory):
        with files.scratch_beside(directory) as scratch:
            # So that the library never sees half of it.
            directory.rename(scratch / "removed")
    descriptor = _beside(directory, _DESCRIPTOR_SUFFIX)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if descriptor.read_text("utf-8") == receipt.descriptor:
            descriptor.unlink()
    _beside(directory, _RECEIPT_SUFFIX).unlink()


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(directory.name + suffix)


def _read_receipt(directory: Path) -> _Receipt | None:
    """Reads what was installed in a directory of a cache, None if it was not."""
    try:
        receipt = _Receipt(**files.read_json(_beside(directory, _RECEIPT_SUFFIX)))
        is_ours = cached_directory(receipt.handle, directory.parent) == directory
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return receipt if is_ours and isinstance(receipt.files, dict) else None


def _changed_files(directory: Path, known: Mapping[str, str]) -> list[str]:
    """Names what is in a directory and not among known files, by their digests."""
    return [
        name
        for name, digest in _digests(directory).items()
        if known.get(name) != digest
    ]


def _digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file by path below a directory; "" for what is no file."""
    if directory.is_symlink() or not directory.is_dir():
        return {".": ""} if os.path.lexists(directory) else {}
    return {
        path.relative_to(directory).as_posix(): files.digest(path)
        if path.is_file() and not path.is_symlink()
        else ""
        for path in sorted(directory.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
