"""How fast engines load and run artifacts; those to be compared share a process.

They take turns, so that whatever else the machine does meets all of them. Within a turn
an engine runs one batch after the other, as it does where it is deployed.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import processes
from benchmarks.engines import ENGINES, IMAGE_SIZE, Engine, Runner
from benchmarks.figures import IRV2, Run, Spread, parse
from checkpoints import files
from exporters import images

_TURNS = 5
_BATCH = 8

Key = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Job:
    """An artifact to be run by an engine, and what it is compared with.

    Attributes:
      path: of the artifact.
      format: name of its format.
      tool: that made it.
      engine: name of the engine.
      float32: name of the float32 format of its container, None if there is none.
      own_engine: name of the engine of its container, None if that is not there.
    """

    path: str
    format: str
    tool: str
    engine: str
    float32: str | None
    own_engine: str | None

    def key(self, **other: str | None) -> Key:
        """What sets it, or another one that differs from it so, apart from the rest."""
        key = {"format": self.format, "tool": self.tool, "engine": self.engine} | other
        return key["format"], key["tool"], key["engine"]

    def failed(self, why: str) -> Run:
        """Returns the run that it is if it failed."""
        return Run(self.format, self.tool, self.engine, failed=why)


def measure_apart(
    jobs: Sequence[Job], threads: int, seconds: float, loads: int
) -> list[Run]:
    """Does what `measure` does in a process of its own, and `load` in several.

    Args:
      jobs: what is to be compared.
      threads: how many each engine may use.
      seconds: to spend on each job and size of batch, over all turns.
      loads: how often each is loaded.
    """
    given = json.dumps([dataclasses.asdict(job) for job in jobs])
    try:
        found, _ = _apart("measure", given, str(threads), str(seconds))
    except processes.ProcessError as error:
        return [job.failed(str(error)) for job in jobs]
    runs: list[Run] = list(parse(tuple[Run, ...], found))
    with tempfile.TemporaryDirectory(prefix="irv2-bench-") as directory:
        loader = _Loader(threads, Path(directory))
        for _ in range(loads):
            for index, (job, run) in enumerate(zip(jobs, runs)):
                if not run.failed:
                    runs[index] = loader.loaded(job, run)
    return runs


class _Loader:
    """Loads artifacts in processes of their own."""

    def __init__(self, threads: int, caches: Path) -> None:
        """Begins.

        Args:
          threads: how many each engine may use.
          caches: directory for what engines keep.
        """
        self._threads, self._caches = threads, caches
        self._found: dict[tuple[Key, bool], list[tuple[float, int]]] = {}

    def loaded(self, job: Job, run: Run) -> Run:
        """Loads once more; returns the run with all that was found so far."""
        try:
            load, memory = self._once(job, is_cached=False)
            run = dataclasses.replace(run, load=load, memory=memory)
            if _engine(job, ENGINES).load_cached:
                load, memory = self._once(job, is_cached=True)
                run = dataclasses.replace(run, cached_load=load, cached_memory=memory)
        except processes.ProcessError as error:
            return job.failed(str(error))
        return run

    def _once(self, job: Job, *, is_cached: bool) -> tuple[Spread, Spread]:
        key = job.key(), is_cached
        given = json.dumps(dataclasses.asdict(job)), str(self._threads)
        cache = [str(self._caches / " ".join(map(str, job.key())))] if is_cached else []
        if is_cached and key not in self._found:
            _apart("load", *given, *cache)  # Fills it.
        self._found.setdefault(key, []).append(_apart("load", *given, *cache))
        times, sizes = zip(*self._found[key])
        return Spread.of(times), Spread.of(sizes)


def _apart(*arguments: str) -> tuple[Any, int]:
    """Runs this module as a program.

    Returns:
      What it found, and its largest resident memory in bytes.
    """
    with tempfile.TemporaryDirectory(prefix="irv2-bench-") as directory:
        result = Path(directory) / "found.json"
        program = [sys.executable, "-m", "benchmarks.running"]
        ended = processes.run([*program, *arguments, str(result)])
        return files.read_json(result), ended.memory


def load(
    job: Job, threads: int, cache: Path | None, table: Sequence[Engine] = ENGINES
) -> float:
    """Returns the seconds to load an artifact and run it for the first time.

    The engine's library is there already. It may compile when it is loaded, or only now.

    Args:
      job: the artifact, and its engine.
      threads: how many that may use.
      cache: directory where it keeps what it compiles; None if it is not to do so.
      table: the engines.
    """
    engine = _engine(job, table)
    importlib.import_module(engine.library)
    batch = images.generate(1, *IMAGE_SIZE, seed=4)
    start = time.monotonic()
    if cache:
        assert engine.load_cached
        engine.load_cached(Path(job.path), threads, cache)(batch)
    else:
        engine.load(Path(job.path), threads)(batch)
    return time.monotonic() - start


def _engine(job: Job, table: Sequence[Engine]) -> Engine:
    return next(engine for engine in table if engine.name == job.engine)


def measure(
    jobs: Sequence[Job],
    threads: int,
    seconds: float,
    table: Sequence[Engine] = ENGINES,
) -> list[Run]:
    """Measures artifacts on engines.

    Args:
      jobs: what is to be compared.
      threads: how many each engine may use.
      seconds: to spend on each job and size of batch, over all turns.
      table: the engines.

    Returns:
      A run for each job. One that fails is a result too.
    """
    attempts = [_Attempt(job, threads, table) for job in jobs]
    for batch_size in (1, _BATCH):
        batch = images.generate(batch_size, *IMAGE_SIZE, seed=4)
        for _ in range(_TURNS):
            for attempt in attempts:
                attempt.take_turn(batch, seconds / _TURNS)
    runs = {attempt.job.key(): attempt.run() for attempt in attempts}
    outputs = {attempt.job.key(): attempt.outputs for attempt in attempts}
    return [_compared(job, runs, outputs) for job in jobs]


class _Attempt:
    """A job under way; it ends with the first error.

    Attributes:
      job: what is to be done.
      outputs: of the last batch, None if there was none.
    """

    def __init__(self, job: Job, threads: int, table: Sequence[Engine]) -> None:
        """Loads the artifact."""
        self.job = job
        self.outputs: np.ndarray | None = None
        self._failed: str | None = None
        self._seconds: dict[int, list[float]] = {}
        engine = _engine(job, table)
        try:
            importlib.import_module(engine.library)
            self._runner: Runner = engine.load(Path(job.path), threads)
        except Exception as error:  # Each library has its own.
            self._failed = _in_one_line(error, Path(job.path))

    def take_turn(self, batch: np.ndarray, seconds: float) -> None:
        """Runs batches until the time is over; at least one."""
        if self._failed:
            return
        times = self._seconds.setdefault(len(batch), [])
        try:
            # The first does what is done once, and pays for what others did meanwhile.
            self.outputs = self._runner(batch)
            end = time.monotonic() + seconds
            while True:
                start = time.monotonic()
                self._runner(batch)
                now = time.monotonic()
                times.append(now - start)
                if now >= end:
                    return
        except Exception as error:
            self._failed = _in_one_line(error, Path(self.job.path))

    def run(self) -> Run:
        """Returns the figures, not compared with any others."""
        if self._failed:
            return self.job.failed(self._failed)
        return Run(
            self.job.format,
            self.job.tool,
            self.job.engine,
            latency=Spread.of(self._seconds[1]),
            throughput=Spread.of([_BATCH / taken for taken in self._seconds[_BATCH]]),
        )


def _in_one_line(error: Exception, path: Path) -> str:
    """What an error says, without the directory, which says nothing elsewhere."""
    text = str(error).replace(str(path), path.name)
    return " ".join(text.split()) or type(error).__name__


def _compared(
    job: Job, runs: Mapping[Key, Run], outputs: Mapping[Key, np.ndarray | None]
) -> Run:
    """Returns the run of a job with what it is compared with others."""
    run = runs[job.key()]

    def ratio(**other: str | None) -> float | None:
        baseline = runs.get(job.key(**other))
        if baseline in (None, run) or not (run.latency and baseline.latency):
            return None
        # What else the machine does only ever adds to the shortest.
        return run.latency.minimum / baseline.latency.minimum

    expected = job.key(format=job.float32, tool=IRV2, engine=job.own_engine)
    return dataclasses.replace(
        run,
        to_float32=ratio(format=job.float32, tool=IRV2),
        to_own_engine=ratio(engine=job.own_engine),
        to_ours=ratio(tool=IRV2),
        cosine=_least_cosine(outputs.get(expected), outputs[job.key()]),
    )


def _least_cosine(
    expected: np.ndarray | None, found: np.ndarray | None
) -> float | None:
    """Returns the smallest cosine between an image's outputs, None if there are none."""
    if expected is None or found is None or expected.shape != found.shape:
        return None
    a, b = (
        rows.reshape(len(rows), -1).astype(np.float64) for rows in (expected, found)
    )
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore"):
        cosine = float(((a * b).sum(axis=1) / norms).min())
    return cosine if np.isfinite(cosine) else None


def main() -> None:
    """The program that `measure_apart` starts."""
    verb, given, *numbers, result = sys.argv[1:]
    found: Any
    if verb == "measure":
        threads, seconds = numbers
        jobs = [Job(**job) for job in json.loads(given)]
        runs = measure(jobs, int(threads), float(seconds))
        found = [dataclasses.asdict(run) for run in runs]
    else:
        threads, *cache = numbers
        job = Job(**json.loads(given))
        found = load(job, int(threads), Path(cache[0]) if cache else None)
    files.write_json(Path(result), found)


if __name__ == "__main__":
    main()
