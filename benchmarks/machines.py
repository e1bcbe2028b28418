"""The machine that is measured on. For Linux."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.figures import Machine
from exporters.processor import this_processor


def this_machine(proc: Path = Path("/proc"), seconds: float = 2) -> Machine:
    """Describes the machine, and what it does while this waits.

    Args:
      proc: where the kernel says what it knows.
      seconds: to wait.
    """
    found = this_processor(proc)
    return Machine(
        processor=found.name,
        flags=found.instructions,
        cores=found.cores,
        busy=_busy(proc / "stat", seconds),
    )


def _busy(stat: Path, seconds: float) -> float:
    """Returns the share of time in which processors are not idle."""
    before = _ticks(stat)
    time.sleep(seconds)
    passed = [now - then for then, now in zip(before, _ticks(stat))]
    idle = passed[3] + passed[4]  # The latter waits for disks.
    return 1 - idle / max(sum(passed), 1)


def _ticks(stat: Path) -> list[int]:
    """Returns how long all processors did what; see proc_stat(5)."""
    with stat.open(encoding="utf-8") as file:
        return [int(ticks) for ticks in file.readline().split()[1:9]]
