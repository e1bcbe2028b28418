"""Runs a command in a process of its own, and says so if a library crashes that.

The process is forked before any library is loaded, so nothing is loaded twice. A file
that crashed a library is named; verbs that only read begin again, and take it for damaged.
"""

from __future__ import annotations

import atexit
import faulthandler
import mmap
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import BinaryIO, NoReturn, cast

from checkpoints import crashes
from exporters.command import exit_codes
from exporters.command.console import Console

_CRASHES = {"SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"}
_HEEDED = {"SIGINT", "SIGTERM", "SIGCHLD"}


def run(
    work: Callable[[], int], *, again: bool, crash_code: int, as_json: bool = False
) -> int:
    """Does work in a new process.

    Args:
      work: returns an exit code.
      again: whether it may be done once more after a crash.
      crash_code: the exit code if it may not.
      as_json: whether what ended it is printed for programs too.

    Returns:
      The exit code of the process; 128 more than the signal if one ended it that was no
      crash.
    """
    if not _is_possible():
        return work()
    crashed: dict[str, int] = {}
    while True:
        shared = mmap.mmap(-1, crashes.SIZE)
        with _stacks() as stacks:
            status = _once(work, shared, crashed, stacks)
            stacks.seek(0)
            stack = stacks.read().decode(errors="replace").rstrip()
        if not os.WIFSIGNALED(status):
            return os.WEXITSTATUS(status)
        number, path = os.WTERMSIG(status), crashes.read(shared)
        described = crashes.describe(number)
        message = f"{path or 'a file'} crashed the library that opened it ({described})"
        code = crash_code
        is_crash = signal.Signals(number).name in _CRASHES
        if not is_crash:
            message, code = f"ended by {described}", 128 + number
        elif path is None and stack:  # No file of the user's is to blame.
            Console().say(stack)
        Console().error(message)
        if is_crash and again and path is not None and path not in crashed:
            crashed[path] = number
            continue
        if as_json:
            Console().result(exit_codes.error_as_json(message, code))
        return code


def _is_possible() -> bool:
    """Whether there can be another process: no library has begun to work in this one."""
    return (
        hasattr(signal, "sigwaitinfo")
        and threading.active_count() == 1
        and "numpy" not in sys.modules
    )


def _stacks() -> BinaryIO:
    """A file for Python's stack; where none can be written, it goes nowhere."""
    try:
        return cast(BinaryIO, tempfile.TemporaryFile())
    except OSError:  # A full disk, say; nothing else is in need of one yet.
        return open(os.devnull, "w+b")


def _once(
    work: Callable[[], int],
    shared: mmap.mmap,
    crashed: dict[str, int],
    stacks: BinaryIO,
) -> int:
    """Does work in a new process; returns its status.

    Python's stack is written to `stacks` if the process crashes.
    """
    heeded = {getattr(signal, name) for name in _HEEDED}
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # Ignored, it would not be told.
    try:
        parent = os.getpid()
        child = os.fork()
        if not child:
            crashes.end_with_parent()
            if os.getppid() != parent:
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            crashes.watch(shared, crashed)
            faulthandler.enable(stacks)
            _end(work)
        while True:
            told = signal.sigwaitinfo(heeded)
            # From a terminal, Ctrl-C comes to both.
            is_for_child = told.si_code <= 0 or told.si_signo == signal.SIGTERM
            if told.si_signo != signal.SIGCHLD and is_for_child:
                os.kill(child, told.si_signo)
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return status
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(work: Callable[[], int]) -> NoReturn:
    """Does work, and ends the process as Python would end it."""
    code = 1
    try:
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        code = 70
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
