"""Runs the command in processes of its own, which are forked: libraries are loaded once.

What runs is `exporters.command.main`, arguments, screen and exit code included.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import faulthandler
import os
import random
import signal
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from exporters.command import interruption, main
from exporters.command.arguments import parse

TIMEOUT = 300.0
"""In seconds. The longest command of a thin network takes ten, on an idle processor."""
_OF_FILES = (
    *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink"),
    *("os.link", "os.truncate", "os.scandir", "shutil.rmtree", "ctypes.dlsym"),
)
"""Audit events around which a kill is interesting; the last stands for renameat2."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
      code: of its exit; None if a signal ended it.
      signal: that ended it, if one did that nobody had sent.
      is_hanging: whether it had to be killed because it took too long.
      out: what it wrote to standard output.
      err: to standard error.
      seconds: how long it took.
    """

    code: int | None
    signal: int | None
    is_hanging: bool
    out: str
    err: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Kill:
    """When to kill a process.

    Attributes:
      seconds: after its start; None to count.
      operations: after so many operations on files below `within`.
      within: directories.
    """

    seconds: float | None = None
    operations: int = 0
    within: tuple[str, ...] = ()


class Process:
    """A command on its way."""

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        environment: Mapping[str, str] | None = None,
        kill: Kill | None = None,
        before: Callable[[], object] | None = None,
        body: Callable[[], int] | None = None,
    ) -> None:
        """Starts a command.

        Args:
          arguments: what follows `irv2`.
          environment: variables beside those of this process.
          kill: when to kill it with signal 9, if at all.
          before: called in the new process, first of all.
          body: called in place of the command; returns the exit code.
        """
        self._screen = [tempfile.TemporaryFile() for _ in range(2)]
        self._start = time.monotonic()
        self._kill = kill
        texts = [str(argument) for argument in arguments]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(texts, self._screen, environment or {}, kill, before, body)

    def wait(self, timeout: float = TIMEOUT) -> Outcome:
        """Waits for its end, or ends it when its time is over."""
        kill_at = self._kill.seconds if self._kill else None
        is_killed = is_hanging = False
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            passed = time.monotonic() - self._start
            if kill_at is not None and passed > kill_at and not is_killed:
                os.kill(self.pid, signal.SIGKILL)
                is_killed = True
            elif passed > timeout and not is_hanging:
                os.kill(self.pid, signal.SIGUSR1)  # It says where it is.
                time.sleep(0.5)
                os.kill(self.pid, signal.SIGKILL)
                is_hanging = True
            time.sleep(0.002)
        texts = []
        for file in self._screen:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        if self._kill and ended_by == signal.SIGKILL:
            ended_by = None
        return Outcome(
            code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=ended_by,
            is_hanging=is_hanging,
            out=texts[0],
            err=texts[1],
            seconds=time.monotonic() - self._start,
        )


def run(*arguments: object, timeout: float = TIMEOUT, **options: object) -> Outcome:
    """Runs a command to its end; options are those of `Process`."""
    return Process(arguments, **options).wait(timeout)  # type: ignore[arg-type]


def measure(
    *arguments: object, within: Sequence[Path], environment: Mapping[str, str]
) -> tuple[float, int]:
    """Runs a command; returns its seconds, and its operations on files in directories."""
    kill = Kill(operations=1 << 60, within=tuple(map(str, within)))
    with tempfile.NamedTemporaryFile() as counted:

        def before() -> None:
            atexit.register(_write_count, counted.name)

        done = run(*arguments, environment=environment, kill=kill, before=before)
        if done.code:
            raise RuntimeError(f"{arguments}: {done.err}")
        return done.seconds, int(Path(counted.name).read_text())


def random_kill(
    chance: random.Random, seconds: float, operations: int, within: Sequence[Path]
) -> Kill:
    """At any moment of a command, or between any two of its operations on files."""
    if chance.random() < 0.4:
        return Kill(seconds=chance.uniform(0, seconds))
    where = tuple(map(str, within))
    return Kill(operations=chance.randrange(operations) + 1, within=where)


def _write_count(path: str) -> None:
    Path(path).write_text(str(_seen))


_seen = 0
"""Operations on files so far, in a process that counts them."""


def _become(
    arguments: list[str],
    screen: Sequence[tempfile._TemporaryFileWrapper],
    environment: Mapping[str, str],
    kill: Kill | None,
    before: Callable[[], object] | None,
    body: Callable[[], int] | None,
) -> NoReturn:
    """What the new process does; it never comes back."""
    code = 70
    try:
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate((nowhere, *(each.fileno() for each in screen))):
            os.dup2(file, number)
        sys.stdout = open(1, "w", closefd=False)
        sys.stderr = open(2, "w", closefd=False)
        os.environ.update(environment)
        tempfile.tempdir = None  # TMPDIR may be another one.
        for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
            finalizer.detach()  # Of what belongs to the process before.
        sys.argv = ["irv2", *arguments]
        faulthandler.register(signal.SIGUSR1, sys.stderr)
        if before:
            before()
        if kill and kill.seconds is None:
            _kill_after(kill)
        if body:
            code = body()
        else:
            with interruption.heeded():
                code = main._run(parse(arguments))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _kill_after(kill: Kill) -> None:
    def count(event: str, arguments: tuple) -> None:
        global _seen
        if event not in _OF_FILES:
            return
        if event != "ctypes.dlsym" and not any(
            str(argument).startswith(kill.within)
            for argument in arguments
            if isinstance(argument, str | os.PathLike)
        ):
            return
        _seen += 1
        if _seen == kill.operations:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
