"""Files of vectors, one for each image, and the artifact that they are of.

A directory of parts, `part-00000.npz` or `part-00000.parquet`, and so on. Each part
appears as a whole or not at all, and says in its metadata what its vectors are of.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from checkpoints import files
from checkpoints.scratch import locked, scratch_beside
from exporters.artifact import first_line
from exporters.errors import EvaluationError, MissingLibraryError

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


def parts_of(path: Path) -> list[Path]:
    """Returns the parts in a directory, in their order; a file is one itself."""
    if not path.is_dir():
        return [path]
    found = [*path.glob("part-*.npz"), *path.glob("part-*.parquet")]
    return sorted(found, key=lambda part: part.name)


def read(path: Path) -> Vectors:
    """Reads all vectors of a directory, or of one file.

    Raises:
      EvaluationError: there are none, a part is damaged, parts are of different
        artifacts, or an image is there twice.
      MissingLibraryError: Parquet needs pyarrow.
      OSError: a file cannot be read.
    """
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
    names = [name for vectors in read_parts for name in vectors.names]
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise EvaluationError(f"{path} has the image {twice} twice.")
    values = np.concatenate([vectors.values for vectors in read_parts])
    return Vectors(names, values, read_parts[0].source)


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Says in words in which facts two sources differ."""
    return "; ".join(
        f"{name} is {one.get(name)!r}, not {other.get(name)!r}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    )


def write_part(directory: Path, kind: Kind, vectors: Vectors) -> Path:
    """Adds a part to a directory, which is made if it is not there.

    Raises:
      MissingLibraryError: Parquet needs pyarrow.
      OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory), scratch_beside(directory / "part") as scratch:
        numbers = [int(part.stem.partition("-")[2]) for part in parts_of(directory)]
        path = directory / f"part-{max(numbers, default=-1) + 1:05}.{kind}"
        written = scratch / path.name
        facts = json.dumps({_KEY: _VERSION, **vectors.source})
        if kind == "npz":
            with written.open("wb") as file:
                np.savez(
                    file, facts=facts, name=list(vectors.names), vector=vectors.values
                )
        else:
            _write_parquet(written, vectors, facts)
        files.sync(written)
        files.replace({written: path}, scratch)
    return path


def read_part(path: Path) -> Vectors:
    """Reads one part.

    Raises:
      EvaluationError: it is damaged, or no such file.
      MissingLibraryError: Parquet needs pyarrow.
      OSError: it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            text, names, values = _read_parquet(path)
        else:
            with np.load(path) as file:
                text = str(file["facts"])
                names, values = file["name"].tolist(), file["vector"]
        facts = files.parse_json(text)
        if facts.pop(_KEY) != _VERSION:
            raise ValueError("it is of another version of irv2")
        if values.dtype != np.float32 or values.shape[:1] != (len(names),):
            raise ValueError(f"it has {len(names)} names, and vectors {values.shape}")
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        raise EvaluationError(
            f"{path} is no file of `irv2 features`, or damaged: {first_line(error)}"
        ) from error
    return Vectors(names, values, facts)


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


def _write_parquet(path: Path, vectors: Vectors, facts: str) -> None:
    pyarrow = _parquet()
    values = pyarrow.array(vectors.values.reshape(-1), pyarrow.float32())
    width = vectors.values.shape[1]
    columns = {
        "name": pyarrow.array(list(vectors.names), pyarrow.string()),
        "vector": pyarrow.FixedSizeListArray.from_arrays(values, width),
    }
    table = pyarrow.table(columns).replace_schema_metadata({"irv2": facts})
    pyarrow.parquet.write_table(table, path)


def _read_parquet(path: Path) -> tuple[str, list[str], np.ndarray]:
    pyarrow = _parquet()
    table = pyarrow.parquet.read_table(path)  # Its errors are ValueErrors, or OSErrors.
    text = (table.schema.metadata or {})[b"irv2"].decode()
    column = table.column("vector")
    width = column.type.list_size
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return text, table.column("name").to_pylist(), values.reshape(-1, width)
