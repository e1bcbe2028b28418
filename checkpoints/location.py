"""Finds the files of the checkpoint that somebody names, however they name it.

TensorFlow leaves directories like this one, and people name any part of them:

    checkpoint                            text: which checkpoint is the latest
    model.ckpt-1000                       V1: all in one file
    model.ckpt-2000.data-00000-of-00001   V2: values, in one or more files
    model.ckpt-2000.index                 V2: where they are
    model.ckpt-2000.meta                  the graph that they were saved from

A SavedModel, TF Hub's modules among them, is a directory with a V2 checkpoint inside:

    saved_model.pb
    variables/variables.index
    variables/variables.data-00000-of-00001

Libraries other than TensorFlow keep all in one file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from checkpoints import hdf5, keras_weights, safetensors, table, wire
from checkpoints.archive import extract_checkpoint
from checkpoints.errors import CheckpointError
from checkpoints.regular_file import open_regular

_EXPECTED = (
    "Expected a V1 checkpoint file, the prefix of a V2 checkpoint or any of its files, a "
    "directory with a checkpoint, a SavedModel, a .tar.gz of one of these, or weights of "
    "Keras's or timm's network as .keras, .h5 or .safetensors."
)
_BEGINNING_BYTES = 4096
_V2_DATA_FILE = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
SAVED_MODEL = "saved_model.pb"
_STATE_FILE = "checkpoint"
_STATE = re.compile(rb'\s*model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)+)"')
_OTHER_KINDS = (
    (
        rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml)",
        "a web page: download the file anew",
    ),
    (rb".{257}ustar", "a .tar archive that is not compressed: unpack it, or gzip it"),
    (rb"PK\x03\x04", "a .zip archive that no Keras saved: unpack it"),
    (rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "compressed by another program than gzip"),
    (rb"version https://git-lfs", "a pointer to a file: get that with git lfs pull"),
)
"""How files begin that people take for checkpoints, and what they are."""


@dataclasses.dataclass(frozen=True)
class Location:
    """Where a checkpoint is.

    Attributes:
      form: "V1", "V2", "SavedModel", "Keras", "HDF5" or "safetensors".
      path: the file, or the prefix of the V2 files' names.
      name: what to call `path` in errors.
      archive: what it was unpacked from, if it was.
      note: what a user should know of how it was found: a sentence, or nothing.
    """

    form: str
    path: Path
    name: str
    archive: Path | None = None
    note: str = ""


def find(path: Path, scratch: Path) -> Location:
    """Finds out which checkpoint a path means.

    Args:
      path: as `checkpoints.reader.open_checkpoint` takes it.
      scratch: an empty directory, to unpack an archive in.

    Raises:
      CheckpointError: it means none, or several.
      checkpoints.archive.ArchiveError: an archive is damaged or unsafe.
      OSError: a file cannot be read.
    """
    if path.is_dir():
        return _find_in_directory(path)
    kind, beginning = _look_at(path) if path.exists() else (None, b"")
    if kind == "archive":
        return find_among(extract_checkpoint(path, scratch), path, is_archive=True)
    if kind in ("V1", *_OF_OTHERS):
        return _location(kind, path)
    if kind == "index":
        if path.suffix == ".index":
            return _location("V2", path.with_suffix(""))
        raise CheckpointError(
            f"{path} is the index of a V2 checkpoint under another name. Its name must be "
            "that of the data files, with .index."
        )
    if latest := _latest(beginning):
        if found := _latest_in(path.parent, latest):
            return found
        raise CheckpointError(
            f"{path} names {latest!r} as the latest checkpoint, which is not there. Name "
            "the one you mean."
        )
    return _find_by_part(path, beginning)


def find_among(
    files: Sequence[Path], source: Path, *, is_archive: bool = False, hint: str = ""
) -> Location:
    """Finds the checkpoint that some files make up.

    Args:
      files: all in one directory.
      source: where they come from, that directory or an archive.
      is_archive: whether it is an archive.
      hint: ends the error, if there are several.

    Raises:
      CheckpointError: they make up none, or several.
      OSError: one of them cannot be read.
    """
    found = []
    for file in files:
        kind, _ = _look_at(file)
        if kind == "V1":
            found.append(("V1", file))
        elif kind == "index" and file.suffix == ".index":
            found.append(("V2", file.with_suffix("")))
    if len(found) > 1:
        names = ", ".join(path.name for _, path in found[:5])
        raise CheckpointError(
            f"{source} holds {len(found)} checkpoints: {names}"
            f"{', ...' if len(found) > 5 else ''}. Name the one you mean.{hint}"
        )
    if not found:
        names = ", ".join(file.name for file in files[:5]) or "no files"
        raise CheckpointError(
            f"{source} holds no checkpoint. Found: {names}. Expected a V1 checkpoint "
            "file, or the .index and .data files of a V2 checkpoint."
        )
    [(form, path)] = found
    if is_archive:
        return Location(form, path, f"{source}: {path.name}", source)
    return _location(form, path)


_OF_OTHERS = ("Keras", "HDF5", "safetensors")
"""Files of other libraries."""


def _location(form: str, path: Path, note: str = "") -> Location:
    return Location(form, path, str(path), note=note)


def _find_in_directory(directory: Path) -> Location:
    if (directory / SAVED_MODEL).is_file():
        prefix = directory / "variables" / "variables"
        if _index_of(prefix).exists():
            return _location("SavedModel", prefix)
        raise CheckpointError(
            f"{directory} is a SavedModel without variables: {_index_of(prefix)} is "
            "missing. It is incomplete, or what it computes with is part of its graph."
        )
    files = sorted(file for file in directory.iterdir() if file.is_file())
    state, latest, hint = directory / _STATE_FILE, "", ""
    if state in files:
        latest = _latest(_look_at(state)[1])
    if latest:
        if found := _latest_in(directory, latest):
            return found
        hint = f" {state} names {latest!r}, which is not there."
    return find_among(files, directory, hint=hint)


def _latest(beginning: bytes) -> str:
    """The path that a file `checkpoint` names, "" for any other file.

    It is a CheckpointState in Protocol Buffers' text format.
    """
    match = _STATE.match(beginning)
    if match is None:
        return ""
    path = re.sub(rb"\\(?:([0-7]{1,3})|(.))", _unescape, match[1])
    return path.decode("utf-8", "replace").replace("\0", "")


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8) & 0xFF]) if match[1] else match[2]


def _latest_in(directory: Path, latest: str) -> Location | None:
    """The latest checkpoint, which may have been moved since, with its directory."""
    name = re.split(r"[/\\]", latest)[-1]
    found = _at(directory / name) or _at(directory / latest)
    if found is None:
        return None
    where = name if found.path.parent == directory else found.path
    note = f"The latest checkpoint of {directory} is {where}."
    return dataclasses.replace(found, note=note)


def _find_by_part(path: Path, beginning: bytes) -> Location:
    """Finds a checkpoint by the prefix of its names, or by what is no use without it."""
    prefix = path
    if data_file := _V2_DATA_FILE.fullmatch(path.name):
        prefix = path.with_name(data_file[1])
    elif path.suffix == ".meta":
        prefix = path.with_suffix("")
    if found := _at(prefix):
        return found
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. {_EXPECTED}")
    if data_file:
        raise CheckpointError(
            f"{path} is the data of a V2 checkpoint, but its index, "
            f"{_index_of(prefix)}, is missing."
        )
    if path.suffix == ".meta":
        raise CheckpointError(
            f"{path} is the graph of a checkpoint, whose values, {prefix} or "
            f"{_index_of(prefix)}, are missing."
        )
    for pattern, what in _OTHER_KINDS:
        if re.match(pattern, beginning, re.IGNORECASE | re.DOTALL):
            raise CheckpointError(
                f"{path} is not a checkpoint, but {what}. {_EXPECTED}"
            )
    size = path.stat().st_size
    if _looks_like_values(beginning):
        raise CheckpointError(
            f"{path} is not a checkpoint, but looks like the data of a V2 one under "
            "another name. Give it back its name, NAME.data-00000-of-00001, and put "
            "NAME.index beside it."
        )
    raise CheckpointError(
        f"{path} is not a checkpoint, or a truncated one: found {size:,} bytes that do "
        f"not end like a checkpoint's. {_EXPECTED}"
    )


def _at(prefix: Path) -> Location | None:
    """The checkpoint of that name, if there is one."""
    if _index_of(prefix).exists():
        return _location("V2", prefix)
    if prefix.exists() and not prefix.is_dir() and _look_at(prefix)[0] == "V1":
        return _location("V1", prefix)
    return None


def _index_of(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _look_at(path: Path) -> tuple[str | None, bytes]:
    """What a file is by its content, and its beginning.

    It is "archive", "V1", "index", one of `_OF_OTHERS` or None. A V1 file and an index of V2 are both tables
    whose first key is empty. Its value is, in V2, a BundleHeaderProto, which starts with
    the number field `num_shards` (0x08); in V1, a SavedTensorSlices, which starts with
    the message field `meta` (0x0a).
    """
    with open_regular(path) as file:
        beginning = file.read(_BEGINNING_BYTES)
        size = file.seek(0, 2)
        file.seek(max(0, size - len(table.MAGIC)))
        is_table = file.read() == table.MAGIC
    if beginning.startswith(b"\x1f\x8b"):
        return "archive", beginning
    if beginning.startswith(hdf5.MAGIC):
        return "HDF5", beginning
    if keras_weights.is_model(path, beginning):
        return "Keras", beginning
    if safetensors.is_one(beginning, size):
        return "safetensors", beginning
    if not is_table:
        return None, beginning
    try:
        _, start = wire.read_varint(beginning, 2)  # Behind the lengths of an empty key.
    except wire.WireError:
        return "V1", beginning  # A damaged one, as its reader will say.
    is_index = beginning[start : start + 1] == b"\x08"
    return "index" if is_index else "V1", beginning


def _looks_like_values(beginning: bytes) -> bool:
    """Whether bytes are float32 numbers of a network, as hardly any others are."""
    values = np.frombuffer(beginning[: len(beginning) // 4 * 4], "<f4")
    with np.errstate(invalid="ignore"):
        plausible = np.count_nonzero((abs(values) > 1e-12) & (abs(values) < 1e4))
    zeros = np.count_nonzero(values == 0)
    return bool(plausible >= 8 and plausible + zeros > 0.9 * values.size)
