"""Puts artifacts where the TF Hub library looks first, and packs them for web servers.

The library keeps a module that it downloaded in `<cache>/<SHA-1 of the handle>/`, and
does not ask the network for what is there already (tensorflow-hub, resolver.py and
compressed_module_resolver.py, the same from 0.1 to 0.16.1). An artifact placed there is
what `hub.Module(handle)`, `hub.KerasLayer(handle)` and `hub.load(handle)` load.

Beside each directory that is placed lies a receipt, by which it can be told from what
the library or somebody else put into the same cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gzip
import hashlib
import json
import os
import shutil
import socket
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

from exporters import manifest
from exporters.published_artifacts import InstallError, find_published

_RECEIPT_SUFFIX = ".irv2.json"
_DESCRIPTOR_SUFFIX = ".descriptor.txt"
_COMPRESSION_LEVEL = 1
"""Weights shrink by 7 % at this level and at any other."""


@dataclasses.dataclass(frozen=True)
class _Receipt:
    """What was placed in a cache.

    Attributes:
      handle: the URL that it answers for.
      files: path below the directory -> SHA-256.
      descriptor: content of the descriptor file beside the directory.
    """

    handle: str
    files: dict[str, str]
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
) -> dict[str, Path]:
    """Copies artifacts into the library's cache, under their published handles.

    Each appears there only whole. What an earlier call placed is replaced.

    Args:
      artifacts: directories exported as v1, v3, v4 or v5, or directories that hold
        such; other formats in the latter are passed over.
      cache_directory: the library's cache, by default the one it will use.
      allow_stand_in: install generated weights, which classify nothing, under the
        handle of the trained ones.
      force: replace what is there, whoever put it there.

    Returns:
      Handle -> the directory that now holds it.

    Raises:
      ArtifactError: a path is no artifact with a handle, or is damaged.
      InstallError: an artifact is a stand-in, two have the same handle, or something is
        there already. Nothing is installed then.
    """
    cache = _checked_cache(cache_directory)
    chosen = find_published(artifacts)
    for handle, artifact in chosen.items():
        if artifact.record.stand_in and not allow_stand_in:
            raise InstallError(
                f"{artifact.path} is a stand-in: whoever loads {handle} would get "
                "weights that classify nothing. Export a trained checkpoint, or insist "
                "with --allow-stand-in."
            )
        if not force:
            _check_replaceable(cached_directory(handle, cache), handle)
        artifact.check()
    cache.mkdir(parents=True, exist_ok=True)
    return {
        handle: _place(artifact.path, handle, cache)
        for handle, artifact in chosen.items()
    }


def uninstall(cache_directory: Path | None = None) -> list[str]:
    """Removes what `install` placed in a cache, and nothing else.

    Args:
      cache_directory: the library's cache, by default the one it will use.

    Returns:
      Handles of what was removed.

    Raises:
      InstallError: something was changed since it was installed. It is left as it is;
        everything else is removed.
    """
    cache = _checked_cache(cache_directory)
    removed, changed = [], []
    for path in sorted(cache.glob(f"*{_RECEIPT_SUFFIX}")):
        directory = path.with_name(path.name.removesuffix(_RECEIPT_SUFFIX))
        receipt = _read_receipt(directory)
        if receipt is None:
            continue
        differing = _differing_files(directory, receipt)
        if differing:
            changed.append(f"{directory} ({', '.join(differing[:3])})")
            continue
        _remove(directory, receipt)
        removed.append(receipt.handle)
    if changed:
        raise InstallError(
            f"changed since they were installed, and left: {'; '.join(changed)}. "
            f"Remove them by hand. {len(removed)} others were removed."
        )
    return removed


def pack(
    artifacts: Iterable[Path], output_directory: Path, *, force: bool = False
) -> list[Path]:
    """Packs artifacts for any web server, from which the library can download them.

    Below `output_directory`, each has the path of its handle, with .tar.gz added:
    `google/imagenet/inception_resnet_v2/feature_vector/3.tar.gz`. With that directory
    served at https://example.org/, the consumer's handle is
    `https://example.org/google/imagenet/inception_resnet_v2/feature_vector/3.tar.gz`.
    The library adds `?tf-hub-format=compressed`, which servers of files pass over.

    The same artifact gives the same bytes. A stand-in has it in its name.

    Args:
      artifacts: as for `install`.
      output_directory: where to pack to.
      force: replace existing files.

    Returns:
      The files, one per artifact.

    Raises:
      ArtifactError: a path is no artifact with a handle, or is damaged.
      InstallError: a file exists already, or two artifacts have the same handle.
        Nothing is packed then.
    """
    destinations = {}
    for handle, artifact in find_published(artifacts).items():
        mark = "-stand-in" if artifact.record.stand_in else ""
        path = urllib.parse.urlsplit(handle).path.lstrip("/")
        destination = output_directory / f"{path}{mark}.tar.gz"
        if destination.exists() and not force:
            raise InstallError(
                f"{destination} exists already. Use --force to replace it."
            )
        artifact.check()
        destinations[destination] = artifact.path
    for destination, source in destinations.items():
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(destination) as scratch:
            _write_archive(source, scratch / "archive").replace(destination)
    return list(destinations)


def _checked_cache(cache_directory: Path | None) -> Path:
    cache = cache_directory or default_cache_directory()
    if cache.exists() and not cache.is_dir():
        raise InstallError(f"{cache} is a file; expected the library's cache directory")
    return cache


def _check_replaceable(directory: Path, handle: str) -> None:
    """Raises unless a directory is free, or holds just what was installed."""
    # The library takes an empty directory for a failed download, and replaces it.
    if not directory.exists() or (
        directory.is_dir() and next(directory.iterdir(), None) is None
    ):
        return
    receipt = _read_receipt(directory)
    if receipt is None:
        raise InstallError(
            f"{directory} already holds {handle}, and irv2 did not put it there. Use "
            "another --cache, or replace it with --force."
        )
    differing = _differing_files(directory, receipt)
    if differing:
        raise InstallError(
            f"{directory} was changed since irv2 installed it: "
            f"{', '.join(differing[:3])}. Use --force to replace it."
        )


def _place(source: Path, handle: str, cache: Path) -> Path:
    directory = cached_directory(handle, cache)
    with _scratch(directory) as scratch:
        module = shutil.copytree(source, scratch / "module")
        # As the library writes it, for people who wonder what a directory is.
        descriptor = (
            f"Module: {handle}\nDownload Time: {datetime.datetime.today()}\n"
            f"Downloader Hostname: {socket.gethostname()} (PID:{os.getpid()})"
        )
        receipt = _Receipt(handle, _hashes(module), descriptor)
        files = {
            _DESCRIPTOR_SUFFIX: descriptor,
            _RECEIPT_SUFFIX: json.dumps(dataclasses.asdict(receipt), indent=2) + "\n",
        }
        for suffix, text in files.items():
            (scratch / suffix).write_text(text, encoding="utf-8")
        # From here on there are only renames, which need no space.
        if directory.exists():
            directory.rename(scratch / "replaced")
        for suffix in files:
            (scratch / suffix).replace(_beside(directory, suffix))
        module.rename(directory)
    return directory


def _remove(directory: Path, receipt: _Receipt) -> None:
    """Removes an installed directory and its descriptor, and then its receipt."""
    if directory.exists():
        with _scratch(directory) as scratch:
            # So that the library never sees half of it.
            directory.rename(scratch / "removed")
    descriptor = _beside(directory, _DESCRIPTOR_SUFFIX)
    if descriptor.is_file() and descriptor.read_text("utf-8") == receipt.descriptor:
        descriptor.unlink()
    _beside(directory, _RECEIPT_SUFFIX).unlink()


def _write_archive(source: Path, destination: Path) -> Path:
    """Packs the content of a directory; same content, same bytes."""
    with (
        destination.open("wb") as file,
        gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        # Sorted, directories come before what they hold, as old versions of the
        # library need it.
        for path in sorted(source.rglob("*")):
            member = tarfile.TarInfo(str(path.relative_to(source)))
            if path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            else:
                member.size, member.mode = path.stat().st_size, 0o644
                with path.open("rb") as content:
                    tar.addfile(member, content)
    return destination


@contextlib.contextmanager
def _scratch(destination: Path) -> Iterator[Path]:
    """A temporary directory beside a path, on the same file system, so to rename."""
    with tempfile.TemporaryDirectory(
        prefix=f"{destination.name}.", suffix=".tmp", dir=destination.parent
    ) as scratch:
        yield Path(scratch)


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(directory.name + suffix)


def _read_receipt(directory: Path) -> _Receipt | None:
    """Reads what was installed in a directory of a cache, None if it was not."""
    try:
        text = _beside(directory, _RECEIPT_SUFFIX).read_text("utf-8")
        receipt = _Receipt(**json.loads(text))
        is_ours = cached_directory(receipt.handle, directory.parent) == directory
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return receipt if is_ours and isinstance(receipt.files, dict) else None


def _differing_files(directory: Path, receipt: _Receipt) -> list[str]:
    """Names what was changed, added or removed since a directory was installed."""
    if not directory.exists():
        return []
    found = _hashes(directory)
    return sorted(
        name
        for name in found.keys() | receipt.files.keys()
        if found.get(name) != receipt.files.get(name)
    )


def _hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file, by path below the directory."""
    return {
        name.partition("/")[2]: digest
        for name, digest in manifest.file_hashes(directory).items()
    }
