"""Runs cases one after the other in a process that may crash or hang."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from exporters.command import exit_codes, main
from stress.tally import Tally

_HEAD = 8
"""Bytes of a message that say how many follow."""


def run(
    tally: Tally,
    cases: Sequence[tuple[str, Random]],
    function: Callable[[Tally, str, Random], object],
    *,
    deadline: float,
    timeout: float = 60.0,
) -> None:
    """Runs cases, and notes those that end or occupy the process.

    Args:
      tally: to note in.
      cases: as `Plan.cases` gives them.
      function: runs a case; what it raises that `irv2` would show as a fault of its own
        is one here too.
      deadline: of `time.monotonic`.
      timeout: of a case, in seconds.
    """
    left = list(cases)
    while left and time.monotonic() < deadline:
        reading, writing = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _work(writing, left, function, deadline)
        os.close(writing)
        is_hanging = False
        while left:
            if not select.select([reading], [], [], timeout)[0]:
                is_hanging = True
                break
            if (message := _receive(reading)) is None:
                break
            tally.add(message)
            del left[0]
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(reading)
        if left and time.monotonic() < deadline:
            case, _ = left.pop(0)
            if is_hanging:
                tally.fault("hang", case, f"still there after {timeout:.0f} s")
            else:
                tally.fault("crash", case, f"the process ended with {status}")


def _work(
    writing: int,
    cases: Sequence[tuple[str, Random]],
    function: Callable[[Tally, str, Random], object],
    deadline: float,
) -> None:
    try:
        for case, chance in cases:
            if time.monotonic() > deadline:
                break
            tally = Tally()
            try:
                function(tally, case, chance)
            except BaseException as error:
                code, told = main._told(error)
                if code == exit_codes.FAULT:
                    tally.fault("traceback", case, told[-3000:])
                else:
                    tally.fault("exit code", case, f"{type(error).__name__}: {told}")
            message = pickle.dumps(tally)
            os.write(writing, len(message).to_bytes(_HEAD, "little") + message)
    finally:
        os._exit(0)


def _receive(reading: int) -> Tally | None:
    content = b""
    size = _HEAD
    while len(content) < size:
        if not (piece := os.read(reading, size - len(content))):
            return None
        content += piece
        if len(content) == _HEAD == size:
            size += int.from_bytes(content, "little")
    tally: Tally = pickle.loads(content[_HEAD:])
    return tally


def quiet() -> None:
    """Sends what libraries write to where nobody sees it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)


def tree(directory: Path) -> set[str]:
    """Everything in a directory, by name."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}
