"""A second process with the same checkpoint and reference, for what takes long.

It is not forked, which libraries that are at work here would not survive; and it does not
begin with the program that runs here, as those of `multiprocessing` do.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing.connection
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from checkpoints import crashes
from checkpoints.errors import CheckpointError
from checkpoints.files import PathLike
from checkpoints.reader import Checkpoint, open_checkpoint
from checkpoints.scratch import temporary
from exporters.errors import ArtifactError
from exporters.parity import ParityImages
from exporters.reference import Reference

T = TypeVar("T")

_LEAST_MEMORY = 12 << 30
"""Bytes that have to be free: both processes hold TensorFlow's graphs and the weights."""
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from exporters import second_process; second_process.serve(int(sys.argv[2]))"
)


def is_possible() -> bool:
    """Whether there is a processor and memory for it."""
    try:
        processors = len(os.sched_getaffinity(0))
        free = int(_memory_info()["MemAvailable"].split()[0]) << 10
    except (AttributeError, OSError, KeyError, ValueError):  # Of Linux alone.
        return False
    return bool(sys.executable) and processors > 1 and free >= _LEAST_MEMORY


def start(
    checkpoint: PathLike | Checkpoint,
    moving_averages: str | None,
    images: ParityImages,
    reference: Reference | None,
) -> SecondProcess | None:
    """Starts one where it is possible, and can have what this process has.

    Args:
      checkpoint: one that is open already cannot be opened there, and
      reference: one that is given is this process's alone.
      moving_averages: as `open_checkpoint` takes it.
      images: to compare on.
    """
    if isinstance(checkpoint, Checkpoint) or reference or not is_possible():
        return None
    return SecondProcess(Path(checkpoint), moving_averages, images)


def _memory_info() -> dict[str, str]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


@dataclasses.dataclass(frozen=True)
class _Start:
    """What the process begins with."""

    checkpoint: Path
    moving_averages: str | None
    images: ParityImages
    shared: Path


class SecondProcess(contextlib.AbstractContextManager):
    """A process that calls functions with its reference; a context that ends it.

    Attributes:
      shared: directory where the references of both processes keep what they computed.
    """

    def __init__(
        self,
        checkpoint: Path,
        moving_averages: str | None,
        images: ParityImages,
    ) -> None:
        """Starts it.

        Args:
          checkpoint: as `open_checkpoint` takes it, and
          moving_averages: likewise.
          images: to compare on.
        """
        self._scratch = temporary()
        self.shared = self._scratch.path
        self._begin_with = _Start(checkpoint, moving_averages, images, self.shared)
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._is_wanted = True
        self._identity = ""
        self._start()

    def _start(self) -> None:
        ours, theirs = multiprocessing.connection.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _PROGRAM),
                    *(json.dumps(sys.path), str(theirs.fileno())),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._connection = ours
        with contextlib.suppress(OSError):  # It ended; who asks it something hears so.
            ours.send(self._begin_with)

    def __exit__(self, *exception: object) -> None:
        self._is_wanted = False
        self._process.kill()
        self._thread.shutdown(cancel_futures=True)
        self._process.wait()
        self._connection.close()
        self._scratch.close()

    def expect(self, identity: str) -> None:
        """Takes the identity of the checkpoint, which both have to have read alike."""
        self._identity = identity

    def submit(
        self, path: Path, function: Callable[..., T], *arguments: Any
    ) -> Future[T]:
        """Has a function called, after those before it.

        Args:
          path: the file that it is about: it is blamed if the process ends.
          function: of a module; called with the reference and the images first.
          arguments: what follows.

        Returns:
          What becomes its result; or raises ArtifactError if the process ended.
        """
        request = pickle.dumps((self._identity, function, arguments))
        return self._thread.submit(self._ask, path, request)

    def _ask(self, path: Path, request: bytes) -> Any:
        try:
            self._connection.send_bytes(request)
            answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            code = self._process.wait()
            if self._is_wanted:
                self._connection.close()
                self._start()
            ended = f"exit code {code}" if code >= 0 else crashes.describe(-code)
            raise ArtifactError(
                f"{path} ended the process that opened it ({ended}). Its library crashed, "
                "or there was too little memory."
            ) from None
        if isinstance(answer, _Raised):
            raise answer.error
        return answer


@dataclasses.dataclass(frozen=True)
class _Raised:
    error: Exception


def serve(descriptor: int) -> NoReturn:
    """Answers until nobody asks: what the process does."""
    # Who is at the terminal asks the other process to end, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    crashes.end_with_parent()
    connection = multiprocessing.connection.Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        _serve(connection)
    os._exit(0)


def _serve(connection: multiprocessing.connection.Connection) -> None:
    start: _Start = connection.recv()
    reference: Reference | None = None
    unusable: Exception | None = None
    try:
        checkpoint = open_checkpoint(
            start.checkpoint, moving_averages=start.moving_averages
        )
        reference = Reference(checkpoint, shared=start.shared)
    except Exception as error:
        unusable = error
    while True:
        identity, function, arguments = pickle.loads(connection.recv_bytes())
        try:
            if unusable or not reference:
                raise unusable or RuntimeError("there is no reference")
            if reference.checkpoint.identity != identity:
                raise CheckpointError(f"{start.checkpoint} changed while it was read.")
            answer: object = function(reference, start.images, *arguments)
        except Exception as error:
            answer = _Raised(_portable(error))
        connection.send_bytes(pickle.dumps(answer))


def _portable(error: Exception) -> Exception:
    """Returns the error as the other process can have it."""
    told = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))
        copy.add_note(f"In the second process:\n{told}")
        return copy
    except Exception:
        return RuntimeError(told)
