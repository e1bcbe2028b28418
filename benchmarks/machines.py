"""The machine that is measured on. For Linux."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from benchmarks.figures import Machine

_FLAGS = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx_vnni", "avx512_vnni"},
    "amx": {"amx_int8", "amx_bf16"},
}
"""What we call instructions -> what the kernel does."""


def this_machine(proc: Path = Path("/proc"), seconds: float = 2) -> Machine:
    """Describes the machine, and what it does while this waits.

    Args:
      proc: where the kernel says what it knows.
      seconds: to wait.
    """
    facts: dict[str, str] = {}
    for line in (proc / "cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    known = set(facts.get("flags", "").split())
    return Machine(
        processor=facts.get("model name") or platform.machine(),
        flags=tuple(name for name, flags in _FLAGS.items() if flags & known),
        cores=len(os.sched_getaffinity(0)),
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
