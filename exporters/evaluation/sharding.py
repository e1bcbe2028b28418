"""Work shared out: shards of the images, who runs them, and what comes back.

A launcher writes what is to be done below a directory that all workers reach, and copies
of the artifacts. A worker takes the number of a shard, runs the same pass over its images
as one machine does over all, and leaves one file, whose name is the shard's. So a shard
that is run again, because a worker failed or was slow, is there once; and whatever is
there need not be run again. `pipelines` brings the numbers to the workers.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from checkpoints import files
from checkpoints.reader import Checkpoint, Provenance
from checkpoints.scratch import temporary
from exporters.errors import EvaluationError, StorageError
from exporters.evaluation import datasets, models, vectors
from exporters.evaluation import state as states
from exporters.evaluation.batches import Size
from exporters.evaluation.datasets import Example, Label, Records
from exporters.evaluation.locations import (
    Location,
    RemotePath,
    Workplace,
    check_beam,
    location,
)
from exporters.evaluation.models import Model
from exporters.evaluation.running import Run, VectorRun
from exporters.evaluation.state import State
from exporters.evaluation.tfrecords import Place
from exporters.evaluation.vectors import Kind
from exporters.formats import Format
from exporters.network.tasks import Task
from exporters.progress import Note, Progress, Step, silent
from exporters.reference import Reference

SHARD_SIZE = 128
"""Number of images that an evaluation's worker is given at a time."""

_CHECKPOINT = "checkpoint.npz"
_IS_PUBLISHED = "is_published"


class Job(Protocol):
    """What workers do."""

    @property
    def name(self) -> str:
        """In a word."""

    def open(self) -> Any:
        """Returns what a worker needs for all its shards."""

    def run(self, opened: Any, number: int) -> None:
        """Does what is to be done of a shard; at least once, and maybe twice at once."""


# Models, on their way to workers


@dataclasses.dataclass(frozen=True)
class Shipment:
    """Copies of models where workers find them.

    Attributes:
      copies: each artifact, or the variables of the checkpoint.
      task: what the checkpoint is for.
      table: of formats.
      image_size: (height, width) for what takes any size; None for 299 x 299.
      endpoint: TF-Slim's name of an endpoint to give; None for the task's own output.
      engine: what runs artifacts; None for each its own.
    """

    copies: tuple[Location, ...]
    task: Task
    table: Mapping[str, Format]
    image_size: Size | None
    endpoint: str | None = None
    engine: str | None = None

    def open(self) -> OpenedModels:
        """Opens the copies, with a copy on this machine of those that are not on it."""
        return OpenedModels(self)


class OpenedModels:
    """Models as a worker has them, for one shard at a time.

    Attributes:
      models: the models.
      lock: held by whoever runs them.
    """

    def __init__(self, shipment: Shipment) -> None:
        """Opens them."""
        self.lock = threading.Lock()
        self._scratch = temporary()
        here = [
            _fetched(copy, self._scratch.path / str(number))
            for number, copy in enumerate(shipment.copies)
        ]
        self.models = [
            _open_checkpoint(path, shipment)
            if path.name == _CHECKPOINT
            else models.open_model(
                path,
                shipment.table,
                shipment.image_size,
                shipment.endpoint,
                shipment.engine,
            )
            for path in here
        ]


def _fetched(copy: Location, directory: Path) -> Path:
    if isinstance(copy, Path):
        return copy
    for file in [copy] if copy.is_file() else copy.rglob("*"):
        below = file.url.removeprefix(copy.url).lstrip("/")
        path = directory / copy.name / below
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read_bytes())
    return directory / copy.name


def _open_checkpoint(path: Path, shipment: Shipment) -> Model:
    with np.load(path) as file:
        variables = dict(file)
    is_published = bool(variables.pop(_IS_PUBLISHED))
    checkpoint = Checkpoint(variables, path=path, published=is_published)
    return models.of_checkpoint(
        checkpoint,
        Reference(checkpoint),
        shipment.task,
        shipment.image_size,
        shipment.endpoint,
    )


def _content(checkpoint: Checkpoint) -> bytes:
    is_published = checkpoint.provenance is Provenance.PUBLISHED
    arrays: dict[str, Any] = {_IS_PUBLISHED: is_published, **checkpoint}
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


# Shards, on their way to workers


def _file_to_json(file: Location) -> tuple[str, int | None]:
    if isinstance(file, RemotePath):
        return file.url, file.size()
    return os.path.abspath(file), None


def _file_of_json(url: str, size: int | None) -> Location:
    found = location(url)
    return RemotePath(found.url, size) if isinstance(found, RemotePath) else found


def _example_to_json(example: Example) -> list[Any]:
    if isinstance(example.source, Place):
        place = example.source
        span = [place.start, place.size]
        return [example.name, *_file_to_json(place.file), span]
    return [example.name, *_file_to_json(example.source), None]


def _example_of_json(name: str, url: str, size: int | None, span: Any) -> Example:
    file = _file_of_json(url, size)
    return Example(name, None, Place(file, *span) if span else file)


def _write_shard(
    workplace: Workplace, number: int, examples: Sequence[Example], classes: Any = ()
) -> None:
    content = {
        "examples": [_example_to_json(example) for example in examples],
        "classes": list(map(int, classes)),
    }
    path = workplace.work / f"shard-{number:05}.json"
    workplace.write(path, json.dumps(content).encode())


def _read_shard(workplace: Workplace, number: int) -> tuple[list[Example], np.ndarray]:
    path = workplace.work / f"shard-{number:05}.json"
    content = files.parse_json(path.read_bytes())
    examples = [_example_of_json(*row) for row in content["examples"]]
    return examples, np.array(content["classes"], np.int64)


# What workers do


@dataclasses.dataclass(frozen=True)
class ScanJob:
    """Looks into TFRecord files, of which each is a shard."""

    workplace: Workplace
    files: tuple[Location, ...]
    name: str = "look into records"

    def open(self) -> object:
        """Needs nothing; returns something that can be shared."""
        return threading.Lock()

    def run(self, opened: object, number: int) -> None:
        """Leaves names, labels and places of a file's records."""
        (found,) = datasets.scan([self.files[number]])
        rows = [
            [name, label, place.start, place.size] for name, label, place in found.rows
        ]
        path = self.workplace.work / f"records-{number:05}.json"
        content = json.dumps({"rows": rows, "problem": found.problem})
        self.workplace.write(path, content.encode())

    def result(self, number: int) -> Records:
        """Returns what was found in a file."""
        path = self.workplace.work / f"records-{number:05}.json"
        content = files.parse_json(path.read_bytes())
        rows: list[tuple[str | None, Label | None, Place]] = [
            (name, label, Place(self.files[number], start, size))
            for name, label, start, size in content["rows"]
        ]
        return Records(rows, content["problem"])


def _state_name(number: int) -> str:
    return f"part-{number:05}.npz"


@dataclasses.dataclass(frozen=True)
class EvaluationJob:
    """Runs the pass of an evaluation over shards."""

    workplace: Workplace
    shipment: Shipment
    batch_size: int
    fingerprint: str
    name: str = "evaluate"

    def open(self) -> OpenedModels:
        """Opens the models."""
        return self.shipment.open()

    def run(self, opened: OpenedModels, number: int) -> None:
        """Leaves the state of a shard whose images are all done."""
        path = self.workplace.directory / _state_name(number)
        if self.workplace.names(path.name):
            return
        examples, classes = _read_shard(self.workplace, number)
        state = State.new(
            f"{self.fingerprint}/{number}", len(opened.models), len(examples)
        )
        with opened.lock:
            Run(examples, classes, opened.models, self.batch_size, silent).run(state)
        self.workplace.write(path, state.content())


@dataclasses.dataclass(frozen=True)
class FeaturesJob:
    """Writes a part of vectors for each shard."""

    workplace: Workplace
    shipment: Shipment
    batch_size: int
    kind: Kind
    source: Mapping[str, Any]
    first_part: int
    name: str = "features"

    def open(self) -> OpenedModels:
        """Opens the model."""
        return self.shipment.open()

    def run(self, opened: OpenedModels, number: int) -> None:
        """Leaves the vectors of a shard, and what it could not read."""
        path = self.workplace.work / f"result-{number:05}.json"
        if self.workplace.names(path.name, self.workplace.work):
            return
        examples, _ = _read_shard(self.workplace, number)
        unreadable: dict[str, str] = {}
        written = 0
        with opened.lock:
            (model,) = opened.models
            pass_ = VectorRun(examples, model, self.source, self.batch_size, silent)
            positions = range(len(examples))
            for found in pass_.parts(positions, len(examples), unreadable):
                name = vectors.part_name(self.first_part + number, self.kind)
                part = self.workplace.directory / name
                self.workplace.write(part, vectors.encode(self.kind, found))
                written = len(found.names)
        content = json.dumps({"written": written, "unreadable": unreadable})
        self.workplace.write(path, content.encode())

    def result(self, number: int) -> dict[str, Any]:
        """Returns how many vectors were written, and what could not be read."""
        path = self.workplace.work / f"result-{number:05}.json"
        found: dict[str, Any] = files.parse_json(path.read_bytes())
        return found


# Who shares it out


@dataclasses.dataclass(frozen=True)
class Launcher:
    """Shares out work by a pipeline of Apache Beam.

    Attributes:
      workplace: where all of it lies; reached by every worker.
      flags: options of the pipeline, such as "--runner=FlinkRunner".
      progress: told what is done.
    """

    workplace: Workplace
    flags: tuple[str, ...]
    progress: Progress

    def scan(self, records: Sequence[Location]) -> Iterator[Records]:
        """Looks into TFRecord files, as `datasets.scan` does."""
        job = ScanJob(
            self.workplace, tuple(_file_of_json(*_file_to_json(x)) for x in records)
        )
        self._run(job, range(len(records)), self.workplace.work, "records-*.json")
        return map(job.result, range(len(records)))

    def ship(
        self,
        opened: Sequence[Model],
        checkpoint: Checkpoint | None,
        table: Mapping[str, Format],
        task: Task,
        image_size: Size | None = None,
        endpoint: str | None = None,
        engine: str | None = None,
    ) -> Shipment:
        """Copies models to where workers find them.

        Args:
          opened: the models.
          checkpoint: that of the model of that name.
          table: of formats.
          task: what the checkpoint is for.
          image_size: see `models.open_model`.
          endpoint: see `models.open_model`.
          engine: see `models.open_model`.

        Raises:
          OSError, StorageError: something cannot be read or written.
        """
        copies = []
        for model in opened:
            self.progress(Step(f"copy {model.name}"))
            directory = self.workplace.work / f"model-{model.digest}"
            if model.name == models.CHECKPOINT:
                assert checkpoint is not None
                copy = directory / _CHECKPOINT
                self.workplace.write(copy, _content(checkpoint))
            else:
                copy = directory / os.path.basename(os.path.abspath(model.name))
                self._copy(Path(model.name), copy)
            copies.append(copy)
        return Shipment(tuple(copies), task, table, image_size, endpoint, engine)

    def _copy(self, path: Path, copy: Location) -> None:
        if path.is_dir():
            for child in path.iterdir():
                self._copy(child, copy / child.name)
        else:
            self.workplace.write(copy, path.read_bytes())

    def evaluate(self, run: Run, ship: Callable[[], Shipment]) -> State:
        """Runs the pass of an evaluation; goes on with what is there.

        Args:
          run: over all images, with models that need not be open any more.
          ship: copies the models to where workers find them.

        Raises:
          EvaluationError: what is there is of another evaluation.
          PipelineError: the runner could not finish it.
          OSError, StorageError: something cannot be read or written.
        """
        count = len(run.examples)
        state = run.new_state()
        size = self._claim(state.fingerprint)
        starts = range(0, count, size)
        done = self.workplace.names("part-*.npz")
        left = [n for n in range(len(starts)) if _state_name(n) not in done]
        before = count - sum(min(size, count - starts[n]) for n in left)
        if before:
            self.progress(Note(f"{before} of {count} images were done before."))
        if left:
            job = EvaluationJob(
                self.workplace, ship(), run.batch_size, state.fingerprint
            )
            for number in left:
                shard = slice(starts[number], starts[number] + size)
                _write_shard(
                    self.workplace, number, run.examples[shard], run.classes[shard]
                )
            self._run(
                job, left, self.workplace.directory, "part-*.npz", count, size, before
            )
        for number, start in enumerate(starts):
            end = min(start + size, count)
            found = states.load(
                self.workplace.directory / _state_name(number),
                f"{state.fingerprint}/{number}",
                len(run.models),
                end - start,
            )
            state.top[:, start:end] = found.top
            state.problems |= {start + at: why for at, why in found.problems.items()}
            state.errors = found.errors | state.errors
        state.finished = count
        self.workplace.clear()
        return state

    def _claim(self, fingerprint: str) -> int:
        """Says whose directory it is; returns the number of images in a shard."""
        path = self.workplace.directory / "evaluation.json"
        if self.workplace.names(path.name):
            try:
                there = files.parse_json(path.read_bytes())
                size = int(there["shard_size"])
                is_it = there["fingerprint"] == fingerprint
            except (ValueError, LookupError, TypeError):
                is_it = False
            if not is_it:
                raise EvaluationError(
                    f"{self.workplace.directory} is the state of an evaluation of other "
                    "images, labels or artifacts. Name another directory, or remove it "
                    "to begin anew."
                )
            return size
        content = {
            "irv2_evaluation": 1,
            "fingerprint": fingerprint,
            "shard_size": SHARD_SIZE,
        }
        self.workplace.write(path, json.dumps(content).encode())
        return SHARD_SIZE

    def features(
        self,
        shipment: Shipment,
        examples: Sequence[Example],
        source: Mapping[str, Any],
        kind: Kind,
        batch_size: int,
        part_size: int,
        unreadable: dict[str, str],
    ) -> int:
        """Writes the vectors of images, in parts behind those that are there.

        Args:
          shipment: of the model.
          examples: the images.
          source: what the vectors are of.
          kind: of file.
          batch_size: number of images that are run together.
          part_size: number of images in a part.
          unreadable: takes the names of images that cannot be read -> why.

        Returns:
          How many vectors were written.

        Raises:
          PipelineError: the runner could not finish it.
          OSError, StorageError: something cannot be read or written.
        """
        first = vectors.next_part(self.workplace.directory)
        job = FeaturesJob(self.workplace, shipment, batch_size, kind, source, first)
        numbers = range(-(-len(examples) // part_size))
        for number in numbers:
            start = number * part_size
            _write_shard(self.workplace, number, examples[start : start + part_size])
        self._run(
            job,
            numbers,
            self.workplace.work,
            "result-*.json",
            len(examples),
            part_size,
        )
        written = 0
        for number in numbers:
            found = job.result(number)
            written += found["written"]
            unreadable.update(found["unreadable"])
        return written

    def _run(
        self,
        job: Job,
        numbers: Sequence[int],
        directory: Location,
        pattern: str,
        count: int = 0,
        shard_size: int = 1,
        before: int = 0,
    ) -> None:
        """Has shards run, and says how many images the files there are of."""
        from exporters.evaluation import pipelines

        unit: Any = "images" if count else ""
        total = count or len(numbers)
        there = len(self.workplace.names(pattern, directory)) if before else 0

        def poll() -> None:
            try:
                new = len(self.workplace.names(pattern, directory)) - there
            except (OSError, StorageError):
                return  # It is asked again soon; what fails the work says so itself.
            done = min(before + new * shard_size, total)
            self.progress(Step(job.name, done=done, total=total, unit=unit))

        if numbers:
            pipelines.run(job, numbers, self.flags, poll)
            self.progress(Step(job.name, done=total, total=total, unit=unit))


def _absolute(path: Location) -> Location:
    return path.absolute() if isinstance(path, Path) else path


def launcher(directory: Location, flags: Sequence[str], progress: Progress) -> Launcher:
    """Returns a launcher that works below a directory.

    Raises:
      MissingLibraryError: Apache Beam is not there.
      EvaluationError: `directory` is a file, or options name no runner.
    """
    check_beam()
    if not any(flag.partition("=")[0] == "--runner" for flag in flags):
        raise EvaluationError(
            "--beam: expected the runner among the pipeline's options, such as "
            f"--runner=DirectRunner; found {' '.join(flags) or 'none'}."
        )
    if isinstance(directory, Path) and directory.is_file():
        raise EvaluationError(f"{directory} is a file; expected a directory.")
    return Launcher(Workplace(_absolute(directory)), tuple(flags), progress)
