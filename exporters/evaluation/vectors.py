"""Files of vectors, one for each image, and the artifact that they are of.

A directory of parts, `part-00000.npz` or `part-00000.parquet`, and so on. Each part
appears as a whole or not at all, and says in its metadata what its vectors are of.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from checkpoints import files
from checkpoints.scratch import scratch_beside
from checkpoints.zip_archives import NPZ_DAMAGE, within
from exporters.artifact import first_line
from exporters.errors import EvaluationError, MissingLibraryError
from exporters.evaluation.locations import Location

Kind = Literal["npz", "parquet"]

_KEY = "irv2_features"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Vectors of images.

    Attributes:
      names: of the images, each of them once.
      values: float32 [count, numbers].
      source: what they are of: facts about the artifact, its output and the images'
        preparation, as JSON values. Vectors with the same source can stand together.
    """

    names: Sequence[str]
    values: np.ndarray
    source: Mapping[str, Any]


def parts_of(path: Location) -> list[Location]:
    """Returns the parts in a directory, in their order; a file is one itself."""
    if not path.is_dir():
        return [path]
    found: list[Location] = [*path.glob("part-*.npz"), *path.glob("part-*.parquet")]
    return sorted(found, key=lambda part: part.name)


def part_name(number: int, kind: Kind) -> str:
    """What a part is called."""
    return f"part-{number:05}.{kind}"


def next_part(directory: Location) -> int:
    """Returns the number behind those of the parts in a directory."""
    parts = parts_of(directory) if directory.is_dir() else []
    return max((int(part.stem.partition("-")[2]) for part in parts), default=-1) + 1


def read(path: Location) -> Vectors:
    """Reads all vectors of a directory, or of one file.

    Raises:
      EvaluationError: there are none, a part is damaged, parts are of different
        artifacts, or an image is there twice.
      MissingLibraryError: Parquet needs pyarrow.
      OSError, StorageError: a file cannot be read.
    """
    parts = _checked(path, read_part)
    names = [name for vectors in parts for name in vectors.names]
    return Vectors(
        names, np.concatenate([vectors.values for vectors in parts]), parts[0].source
    )


def read_names(path: Location) -> Vectors:
    """Reads the names of images, and no vectors, of a directory; see `read`."""
    parts = _checked(path, lambda part: read_part(part, with_values=False))
    names = [name for vectors in parts for name in vectors.names]
    return Vectors(names, np.empty((len(names), 0), np.float32), parts[0].source)


def _checked(path: Location, read_part: Callable[[Location], Vectors]) -> list[Vectors]:
    """Reads all parts, which have to go together."""
    parts = parts_of(path)
    if not path.exists() or not parts:
        what = "holds no vectors" if path.exists() else "does not exist"
        raise EvaluationError(
            f"{path} {what}. Expected what `irv2 features` wrote: a directory with "
            "part-00000.npz or part-00000.parquet."
        )
    read_parts = [read_part(part) for part in parts]
    for part, vectors in zip(parts, read_parts):
        if vectors.source != read_parts[0].source:
            raise EvaluationError(
                f"{part} is not of the same artifact as {parts[0].name}: "
                f"{difference(vectors.source, read_parts[0].source)}."
            )
    seen: set[str] = set()
    for vectors in read_parts:
        for name in vectors.names:
            if name in seen:
                raise EvaluationError(f"{path} has the image {name} twice.")
            seen.add(name)
    return read_parts


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Says in words in which facts two sources differ."""
    return "; ".join(
        f"{name} is {one.get(name)!r}, not {other.get(name)!r}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    )


def write_part(directory: Path, kind: Kind, vectors: Vectors) -> Path:
    """Adds a part to a directory, which is made if it is not there.

    No other process may do so at the same time.

    Raises:
      MissingLibraryError: Parquet needs pyarrow.
      OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with scratch_beside(directory / "part") as scratch:
        path = directory / part_name(next_part(directory), kind)
        written = scratch / path.name
        written.write_bytes(encode(kind, vectors))
        files.sync(written)
        files.replace({written: path}, scratch)
    return path


def encode(kind: Kind, vectors: Vectors) -> bytes:
    """Returns a part as it is written.

    Raises:
      MissingLibraryError: Parquet needs pyarrow.
    """
    facts = json.dumps({_KEY: _VERSION, **vectors.source})
    file = io.BytesIO()
    if kind == "npz":
        np.savez(file, facts=facts, name=list(vectors.names), vector=vectors.values)
    else:
        _write_parquet(file, vectors, facts)
    return file.getvalue()


def read_part(path: Location, *, with_values: bool = True) -> Vectors:
    """Reads one part.

    Args:
      path: the file.
      with_values: whether the vectors are wanted; else they are [count, 0].

    Raises:
      EvaluationError: it is damaged, or no such file.
      MissingLibraryError: Parquet needs pyarrow.
      OSError, StorageError: it cannot be read.
    """
    file = path if isinstance(path, Path) else io.BytesIO(path.read_bytes())
    try:
        if path.suffix == ".parquet":
            text, names, values = _read_parquet(file, with_values)
        else:
            with within(), np.load(file) as arrays:
                text, names = str(arrays["facts"]), arrays["name"].tolist()
                values = arrays["vector"] if with_values else _none(names)
        facts = files.parse_json(text)
        if facts.pop(_KEY) != _VERSION:
            raise ValueError("it is of another version of irv2")
        if values.dtype != np.float32 or values.shape[:1] != (len(names),):
            raise ValueError(f"it has {len(names)} names, and vectors {values.shape}")
    except (*NPZ_DAMAGE, LookupError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{path} is no file of `irv2 features`, or damaged: {first_line(error)}"
        ) from error
    return Vectors(names, values, facts)


def _none(names: Sequence[str]) -> np.ndarray:
    return np.empty((len(names), 0), np.float32)


def check_library(kind: Kind) -> None:
    """Refuses Parquet where its library is not there, before any work is done.

    Raises:
      MissingLibraryError: it is not there.
    """
    if kind == "parquet":
        _parquet()


def _parquet() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingLibraryError(
            "Parquet needs pyarrow: pip install 'irv2[features]'. Or ask for npz."
        ) from error
    return pyarrow


def _write_parquet(file: IO[bytes], vectors: Vectors, facts: str) -> None:
    pyarrow = _parquet()
    values = pyarrow.array(vectors.values.reshape(-1), pyarrow.float32())
    width = vectors.values.shape[1]
    columns = {
        "name": pyarrow.array(list(vectors.names), pyarrow.string()),
        "vector": pyarrow.FixedSizeListArray.from_arrays(values, width),
    }
    table = pyarrow.table(columns).replace_schema_metadata({"irv2": facts})
    pyarrow.parquet.write_table(table, file)


def _read_parquet(
    file: Path | IO[bytes], with_values: bool
) -> tuple[str, list[str], np.ndarray]:
    pyarrow = _parquet()
    columns = ["name", "vector"] if with_values else ["name"]
    # Its errors are ValueErrors, or OSErrors.
    table = pyarrow.parquet.read_table(file, columns=columns)
    text = (table.schema.metadata or {})[b"irv2"].decode()
    names = table.column("name").to_pylist()
    if not with_values:
        return text, names, _none(names)
    column = table.column("vector")
    width = column.type.list_size
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return text, names, values.reshape(-1, width)
