"""Commands in processes of their own: what they print, how long, how much memory."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import IO

_LAST_LINES = 5


class ProcessError(Exception):
    """A command failed; with the end of what it said."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A command that has ended well.

    Attributes:
      seconds: from its start to its end.
      memory: largest resident memory of its process, or of one it waited for, in bytes.
        The kernel counts that of whoever starts it, so less than that does not show.
      output: what it printed to standard output.
    """

    seconds: float
    memory: int
    output: str


def run(command: Sequence[str]) -> Finished:
    """Runs a command to its end.

    Raises:
      ProcessError: it failed.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, env=environment
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # Whoever ends us ends it too.
            process.kill()
            process.wait()
            raise
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said = _content(errors).strip() or _content(output).strip()
            last = "\n".join(said.splitlines()[-_LAST_LINES:])
            raise ProcessError(f"exit code {process.returncode}\n{last}".strip())
        return Finished(seconds, usage.ru_maxrss * 1024, _content(output))


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
