"""The user's screen: our messages and nothing of TensorFlow's."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

_BAR_WIDTH = 30


class Console:
    """Writes messages to standard error and results to standard output."""

    def __init__(self) -> None:
        self._screen = os.fdopen(os.dup(2), "w", buffering=1)
        self._results = os.fdopen(os.dup(1), "w", buffering=1)
        self._is_terminal = self._screen.isatty()
        self._line_is_open = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Drops what libraries write, from Python or C++: only this console shows.

        If a library ends the process, Python's stack is shown all the same.
        """
        faulthandler.enable(self._screen)
        saved = os.dup(1), os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            _flush()
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            yield
        finally:
            _flush()
            for descriptor, copy in enumerate(saved, start=1):
                os.dup2(copy, descriptor)
                os.close(copy)
            os.close(nowhere)

    def say(self, message: str = "") -> None:
        """Shows a line to the user, on standard error."""
        self._end_line()
        self._screen.write(message + "\n")

    def result(self, text: str) -> None:
        """Prints a result on standard output.

        Raises:
          BrokenPipeError: nobody reads on.
        """
        self._end_line()
        try:
            self._results.write(text + "\n")
        except BrokenPipeError:
            # What is still to be flushed at the end goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._results.fileno())
            raise

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Shows a long step: its name at once, and its time when it is done.

        Yields:
          A function that shows what the step is at, on terminals.
        """
        start = time.monotonic()
        self._show(f"  {name} ...")
        try:
            yield lambda state: self._show(f"  {name} ... {state}")
        except BaseException:
            self._end_line()
            raise
        done = f"  {name} ... {time.monotonic() - start:.1f} s"
        if self._is_terminal:
            self._show(done)
            self._end_line()
        else:
            self._screen.write(done + "\n")

    def _show(self, line: str) -> None:
        """Replaces the open line; without a terminal, shows nothing until done."""
        if self._is_terminal:
            width = os.get_terminal_size(self._screen.fileno()).columns or 80
            self._screen.write("\r\x1b[K" + line[: width - 1])
            self._screen.flush()
            self._line_is_open = True

    def _end_line(self) -> None:
        if self._line_is_open:
            self._screen.write("\n")
            self._line_is_open = False


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out rows in columns; cells that look like numbers are set right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    numeric = [
        all(row[i][:1] in "0123456789-" for row in rows) if rows else False
        for i in range(len(header))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def bar(done: int, total: int) -> str:
    """A progress bar for so many bytes of a total."""
    filled = round(_BAR_WIDTH * done / total)
    drawn = "#" * filled + "." * (_BAR_WIDTH - filled)
    return f"[{drawn}] {done / total:4.0%} of {size(total)}"


def size(count: int) -> str:
    """A number of bytes for people, in MB of a million bytes."""
    return f"{count / 1e6:.1f} MB"
