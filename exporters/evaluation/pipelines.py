"""Pipelines of Apache Beam, which bring shards to workers on any of its runners."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult, PipelineState
from apache_beam.utils import shared

from exporters.errors import EvaluationError, PipelineError
from exporters.evaluation.sharding import Job

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_TO_END = 2.0
_WORKER = b"apache_beam.runners.worker"
"""In the commands of local workers, and of the shells that started them."""


class _Worker(beam.DoFn):
    """Does a job, shard by shard; what it opens is opened once in a process."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._handle = shared.Shared()
        self._opened: Any = None

    def setup(self) -> None:
        self._opened = self._handle.acquire(self._job.open)

    def process(self, number: int) -> None:  # type: ignore[override]
        self._job.run(self._opened, number)


def run(
    job: Job, numbers: Sequence[int], flags: Sequence[str], poll: Callable[[], None]
) -> None:
    """Has shards run by workers, and waits for all of them.

    Args:
      job: what is done with each.
      numbers: of the shards.
      flags: options of the pipeline, the runner's among them.
      poll: called every few seconds.

    Raises:
      EvaluationError: these are no options.
      PipelineError: the runner could not begin, or finish.
    """
    pipeline = _Pipeline(job, numbers, _options(flags))
    # In a thread, since some runners end only when all is done, and heed no Ctrl-C.
    others = set(threading.enumerate())
    thread = threading.Thread(target=pipeline.run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_SECONDS_BETWEEN_LOOKS)
            poll()
    except BaseException:
        pipeline.cancel()
        # Else those of Beam's say how they ended when others have the screen.
        end = time.monotonic() + _SECONDS_TO_END
        for each in set(threading.enumerate()) - others:
            each.join(max(0.0, end - time.monotonic()))
        raise
    if pipeline.error is not None:
        raise PipelineError(
            f"The pipeline of Apache Beam ended early: {_last_line(pipeline.error)}. "
            "The same command goes on from what is done."
        ) from pipeline.error


class _Pipeline:
    """A pipeline that runs, and what came of it."""

    def __init__(
        self, job: Job, numbers: Sequence[int], options: PipelineOptions
    ) -> None:
        self.error: BaseException | None = None
        self._job, self._numbers, self._options = job, numbers, options
        self._result: PipelineResult | None = None

    def run(self) -> None:
        try:
            pipeline = beam.Pipeline(options=self._options)
            _ = (
                pipeline
                | "shards" >> beam.Create(list(self._numbers), reshuffle=False)
                | "share out" >> beam.Reshuffle()
                | self._job.name >> beam.ParDo(_Worker(self._job))
            )
            self._result = pipeline.run()
            state = self._result.wait_until_finish()
            if state not in (None, PipelineState.DONE):
                raise PipelineError(f"its state is {state}")
        except BaseException as error:  # Told where the thread is waited for.
            self.error = error

    def cancel(self) -> None:
        if self._result is not None:
            with contextlib.suppress(Exception):
                self._result.cancel()
        _end_workers(os.getpid())


def _end_workers(pid: int) -> None:
    """Ends workers that a process has here: they would wait for it forever.

    Only Linux says which they are.
    """
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text(encoding="ascii").split()):
                command = Path(f"/proc/{child}/cmdline").read_bytes()
                _end_workers(child)
                if _WORKER in command:
                    os.kill(child, signal.SIGTERM)


def _options(flags: Sequence[str]) -> PipelineOptions:
    try:
        options = PipelineOptions(list(flags))
        options.get_all_options()
    except SystemExit:
        raise EvaluationError(
            f"--beam {' '.join(flags)}: Apache Beam does not take these options."
        ) from None
    return options


def _last_line(error: BaseException) -> str:
    """What went wrong, which runners put behind all that led to it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
