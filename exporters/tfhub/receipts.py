"""What lies beside an installed directory, and tells whether it is still as installed.

Programs that clean temporary directories delete single files. So files that are missing
are no change: where nothing was changed or added, nobody's work is lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from checkpoints import files
from exporters.errors import ArtifactError
from exporters.tfhub import handles

SUFFIX = ".irv2.json"
"""Of a receipt, after the name of the directory that it is for."""
SCHEMA_VERSION = 1

_DESCRIPTOR_SUFFIX = ".descriptor.txt"


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What was placed in a cache.

    Attributes:
      handle: the URL that the directory answers for.
      files: path below the directory -> SHA-256.
      descriptor: content of the descriptor file beside the directory.
      links: places of further names, relative to the cache, or absolute elsewhere.
      schema_version: of the receipt; those of irv2 0.1 do not say it.
    """

    handle: str
    files: Mapping[str, str]
    descriptor: str
    links: Sequence[str] = ()
    schema_version: int = SCHEMA_VERSION


def beside(directory: Path, suffix: str = SUFFIX) -> Path:
    """Returns the path of a file that belongs to a directory and lies beside it."""
    return directory.with_name(directory.name + suffix)


def written(directory: Path) -> tuple[Path, Path]:
    """Returns where the receipt and the descriptor of a directory lie."""
    return beside(directory), beside(directory, _DESCRIPTOR_SUFFIX)


def write(
    directory: Path, handle: str, content: Mapping[str, str], links: Sequence[str]
) -> None:
    """Writes the receipt of a directory, and a descriptor as the library writes it."""
    descriptor = (
        f"Module: {handle}\nDownload Time: {datetime.datetime.today()}\n"
        f"Downloader Hostname: {socket.gethostname()} (PID:{os.getpid()})"
    )
    receipt = Receipt(handle, content, descriptor, links)
    receipt_file, descriptor_file = written(directory)
    files.write_json(receipt_file, dataclasses.asdict(receipt))
    descriptor_file.write_text(descriptor, encoding="utf-8")


def read(directory: Path) -> Receipt | None:
    """Reads what was installed in a directory of a cache, None if it was not.

    Raises:
      ArtifactError: a newer version of irv2 installed it.
    """
    try:
        facts = files.read_json(beside(directory))
        version = facts.get("schema_version", SCHEMA_VERSION)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ArtifactError(
                f"{beside(directory)} is a receipt of version {version}; this irv2 knows "
                f"those up to {SCHEMA_VERSION}. Use a newer irv2."
            )
        receipt = Receipt(**facts)
        is_its_own = handles.cached_name(receipt.handle) == directory.name
        is_whole = isinstance(receipt.files, dict) and all(
            isinstance(link, str) for link in receipt.links
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return receipt if is_its_own and is_whole else None


def remove(directory: Path, receipt: Receipt) -> None:
    """Removes a receipt, and the descriptor if it is the one that came with it."""
    receipt_file, descriptor_file = written(directory)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if descriptor_file.read_text("utf-8") == receipt.descriptor:
            descriptor_file.unlink()
    receipt_file.unlink()


def digests(directory: Path) -> dict[str, str]:
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


def changed_files(directory: Path, known: Mapping[str, str]) -> tuple[str, ...]:
    """Names what is in a directory and not among known files, by their digests."""
    return tuple(
        name for name, found in digests(directory).items() if known.get(name) != found
    )
