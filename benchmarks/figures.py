"""What is measured, as data, and as the JSON file that is kept of it."""

from __future__ import annotations

import dataclasses
import statistics
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints import files

IRV2 = "irv2"
"""The tool that makes our artifacts."""
_BUSY = 0.1


@dataclasses.dataclass(frozen=True)
class Spread:
    """A figure that was measured several times.

    Attributes:
      minimum: the smallest value.
      median: the one in the middle.
      maximum: the largest value.
      count: how many there were.
    """

    minimum: float
    median: float
    maximum: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns the spread of at least one value."""
        return cls(min(values), statistics.median(values), max(values), len(values))


@dataclasses.dataclass(frozen=True)
class Process:
    """What a command takes, from the start of its process to its end.

    Attributes:
      seconds: of the whole process.
      memory: largest resident memory of a process, in bytes.
      read: seconds of it in which the checkpoint was read; None for other tools.
      graphs: seconds in which TensorFlow's graphs were built.
      write: seconds in which artifacts were written.
      verify: seconds in which they were compared.
    """

    seconds: Spread
    memory: Spread
    read: Spread | None = None
    graphs: Spread | None = None
    write: Spread | None = None
    verify: Spread | None = None


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An artifact, and what it takes to make it.

    Attributes:
      format: name of its format; another tool's is the same network in the same numbers.
      tool: that made it.
      bytes: size of all its files, None if it could not be made.
      export: making it, without comparing it.
      verified_export: making and comparing it; None for other tools, which do not.
      failed: why it could not be made, None if it could.
    """

    format: str
    tool: str
    bytes: int | None = None
    export: Process | None = None
    verified_export: Process | None = None
    failed: str | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """How an engine runs an artifact.

    Attributes:
      format: name of the artifact's format.
      tool: that made it.
      engine: that ran it, a name of `benchmarks.engines`.
      load: seconds to load it, the engine's library not included, each time in a process
        of its own.
      memory: largest resident memory, in bytes, of a process that loads it and runs a
        batch of 1.
      cached_load: the same where the engine has kept what it compiled; None where it
        does not do so.
      cached_memory: likewise.
      latency: seconds for a batch of 1.
      throughput: images per second, in batches of 8.
      to_float32: shortest latency relative to that of our float32 file of the same
        container, by the same engine.
      to_own_engine: the same relative to this file by the engine of its container.
      to_ours: the same relative to our file of the same format, by the same engine;
        None for ours.
      cosine: smallest cosine of an image's output with that of our float32 file by the
        engine of its container.
      failed: why there are no figures, None if there are.
    """

    format: str
    tool: str
    engine: str
    load: Spread | None = None
    memory: Spread | None = None
    cached_load: Spread | None = None
    cached_memory: Spread | None = None
    latency: Spread | None = None
    throughput: Spread | None = None
    to_float32: float | None = None
    to_own_engine: float | None = None
    to_ours: float | None = None
    cosine: float | None = None
    failed: str | None = None


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How an artifact agrees with TF-Slim's network.

    Attributes:
      format: name of its format.
      task: name of its task.
      relative_error: largest error, relative to the output's largest magnitude.
      cosine: smallest cosine of an image's output with the network's.
    """

    format: str
    task: str
    relative_error: float | None
    cosine: float | None


@dataclasses.dataclass(frozen=True)
class Everything:
    """The export of all formats of both tasks with one command, compared.

    Attributes:
      export: what it takes.
      agreements: of each artifact.
      failed: why there is none of this, None if there is.
    """

    export: Process | None = None
    agreements: tuple[Agreement, ...] = ()
    failed: str | None = None


@dataclasses.dataclass(frozen=True)
class Machine:
    """What was measured on.

    Attributes:
      processor: its name.
      flags: those of its instructions that matter for networks, of "avx2", "avx512",
        "vnni", "bfloat16" and "amx".
      cores: how many the process may use.
      busy: share of the processors' time that others took just before.
    """

    processor: str
    flags: tuple[str, ...]
    cores: int
    busy: float

    @property
    def is_busy(self) -> bool:
        """Whether that is so much that figures say little."""
        return self.busy > _BUSY


@dataclasses.dataclass(frozen=True)
class Figures:
    """All that one run of the benchmark found.

    Attributes:
      date: when it began, in UTC, as 2026-11-23T14:05:00Z.
      machine: what it ran on.
      versions: of what has a part in it.
      threads: how many each engine had.
      task: name of the task that artifacts were made for.
      artifacts: each, and what it takes to make it.
      runs: each engine with each artifact.
      everything: all in one export, None if that was not asked for.
    """

    date: str
    machine: Machine
    versions: Mapping[str, str]
    threads: int
    task: str
    artifacts: tuple[Artifact, ...]
    runs: tuple[Run, ...]
    everything: Everything | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all was measured, but for what engines cannot do with others' files."""
        ours = [run.failed for run in self.runs if run.tool == IRV2]
        made = [artifact.failed for artifact in self.artifacts]
        whole = self.everything.failed if self.everything else None
        return not any((*ours, *made, whole))

    @property
    def failures(self) -> list[str]:
        """Says in words what could not be measured."""
        lines = [
            f"{a.format} by {a.tool}: {a.failed}" for a in self.artifacts if a.failed
        ]
        lines += [
            f"{run.format} by {run.tool}, run by {run.engine}: {run.failed}"
            for run in self.runs
            if run.failed
        ]
        if self.everything and self.everything.failed:
            lines.append(f"all formats with one command: {self.everything.failed}")
        return lines


def completed(newer: Figures, older: Figures) -> Figures:
    """Returns figures with those of an earlier run for what they lack.

    They stay as they are where both do not go together: each is of another day, of
    another machine, or of other versions or threads.
    """
    if _circumstances(newer) != _circumstances(older) or any(
        older.versions.get(name, version) != version
        for name, version in newer.versions.items()
    ):
        return newer
    artifacts = {(a.format, a.tool): a for a in (*older.artifacts, *newer.artifacts)}
    runs = {
        (run.format, run.tool, run.engine): run for run in (*older.runs, *newer.runs)
    }
    return dataclasses.replace(
        newer,
        versions={**older.versions, **newer.versions},
        artifacts=tuple(artifacts.values()),
        runs=tuple(runs.values()),
        everything=newer.everything or older.everything,
    )


def _circumstances(figures: Figures) -> tuple[object, ...]:
    machine = dataclasses.replace(figures.machine, busy=0)
    return figures.date[:10], machine, figures.threads, figures.task


def write(figures: Figures, path: Path) -> None:
    """Writes figures as JSON; directories are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, dataclasses.asdict(figures))


def read(path: Path, kind: type = Figures) -> Any:
    """Reads figures that were written as JSON.

    Raises:
      ValueError: the file holds no figures.
      OSError: it cannot be read.
    """
    try:
        return parse(kind, files.read_json(path))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} holds no figures of the benchmark: {error}"
        ) from error


def parse(kind: Any, value: Any) -> Any:
    """Returns the value of a type that JSON holds as `value`."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else parse(inner[0], value)
    if origin is tuple:
        return tuple(parse(inner[0], item) for item in value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        kinds = typing.get_type_hints(kind)
        return kind(**{name: parse(kinds[name], item) for name, item in value.items()})
    return value
