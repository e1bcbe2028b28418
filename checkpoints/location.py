"""Finds the files of the checkpoint that somebody names, however they name it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from checkpoints import table, wire
from checkpoints.archive import extract_checkpoint
from checkpoints.errors import CheckpointError
from checkpoints.regular_file import open_regular

_GZIP_MAGIC = b"\x1f\x8b"
_V2_DATA_FILE = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")


@dataclasses.dataclass(frozen=True)
class Location:
    """Where a checkpoint is.

    Attributes:
      form: "V1" or "V2".
      path: the V1 file, or the prefix of the V2 files' names.
      name: what to call `path` in errors.
      archive: what it was unpacked from, if it was.
    """

    form: str
    path: Path
    name: str
    archive: Path | None = None


def find(path: Path, scratch: Path) -> Location:
    """Finds out which checkpoint a path means.

    Args:
      path: a V1 file; the prefix of a V2 checkpoint or any of its files; a directory
        that holds one checkpoint; or a .tar.gz of it. Content decides, not the name.
      scratch: an empty directory, to unpack an archive in.

    Raises:
      CheckpointError: it means none, or several.
      checkpoints.archive.ArchiveError: an archive is damaged or unsafe.
      OSError: a file cannot be read.
    """
    if path.is_dir():
        return _find_in_directory(path)
    if not path.exists():
        if _index_of(path).exists():
            return Location("V2", path, str(path))
        raise CheckpointError(
            f"{path} does not exist. Expected a V1 checkpoint file, the prefix of a V2 "
            "checkpoint, a directory that holds one, or a .tar.gz."
        )
    match _kind(path):
        case "archive":
            extract_checkpoint(path, scratch)
            return _find_in_directory(scratch, archive=path)
        case "V1":
            return Location("V1", path, str(path))
        case "index" if path.suffix == ".index":
            prefix = path.with_suffix("")
            return Location("V2", prefix, str(prefix))
        case "index":
            raise CheckpointError(
                f"{path} is the index of a V2 checkpoint under another name. Its name "
                "must be that of the data files, with .index."
            )
    if data_file := _V2_DATA_FILE.fullmatch(str(path)):
        prefix = Path(data_file[1])
        if _index_of(prefix).exists():
            return Location("V2", prefix, str(prefix))
        raise CheckpointError(
            f"{path} is the data of a V2 checkpoint, but its index, "
            f"{_index_of(prefix)}, is missing."
        )
    raise CheckpointError(
        f"{path} is not a checkpoint, or a truncated one: found "
        f"{path.stat().st_size:,} bytes that do not end like a checkpoint's. Expected "
        "a V1 checkpoint file, a file of a V2 checkpoint, or a .tar.gz of either."
    )


def _find_in_directory(directory: Path, archive: Path | None = None) -> Location:
    source = archive or directory
    files = sorted(file for file in directory.iterdir() if file.is_file())
    found = []
    for file in files:
        kind = _kind(file)
        if kind == "V1":
            found.append((kind, file))
        elif kind == "index" and file.suffix == ".index":
            found.append(("V2", file.with_suffix("")))
    if len(found) == 1:
        [(form, path)] = found
        name = f"{archive}: {path.name}" if archive else str(path)
        return Location(form, path, name, archive)
    if not found:
        names = ", ".join(file.name for file in files[:5]) or "no files"
        raise CheckpointError(
            f"{source} holds no checkpoint. Found: {names}. Expected a V1 checkpoint "
            "file, or the .index and .data files of a V2 checkpoint."
        )
    raise CheckpointError(
        f"{source} holds {len(found)} checkpoints: "
        f"{', '.join(path.name for _, path in found)}. Name the one you mean."
    )


def _index_of(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _kind(path: Path) -> str | None:
    """What a file is by its content: "archive", "V1" or "index", None if it is neither.

    A V1 file and an index of V2 are both tables whose first key is empty. Its value is,
    in V2, a BundleHeaderProto, which starts with the number field `num_shards` (0x08);
    in V1, a SavedTensorSlices, which starts with the message field `meta` (0x0a).
    """
    with open_regular(path) as file:
        beginning = file.read(64)
        if beginning.startswith(_GZIP_MAGIC):
            return "archive"
        size = file.seek(0, 2)
        file.seek(max(0, size - len(table.MAGIC)))
        if file.read() != table.MAGIC:
            return None
    try:
        _, start = wire.read_varint(beginning, 2)  # Behind the lengths of an empty key.
    except wire.WireError:
        return "V1"  # A damaged one, as its reader will say.
    return "index" if beginning[start : start + 1] == b"\x08" else "V1"
