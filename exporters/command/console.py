"""The user's screen: our messages and nothing of the libraries'.

Messages, steps and errors go to standard error, results and tables to standard output.
Each adapts to where it goes: a terminal gets colours, tables of its width and lines that
live; anything else gets plain, whole lines. `rich` draws what lives or is laid out, and
is imported when there is something to draw.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from exporters.command import tables
from exporters.command.steps import Step
from exporters.command.streams import Stream
from exporters.command.tables import Cell, Column, Verdict
from exporters.command.units import duration, whole_duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_FRAMES_PER_SECOND = 8
_LONGEST_SILENCE = 300
"""In seconds. Many services end a job that says nothing for ten minutes."""


class Console:
    """Writes messages to standard error and results to standard output."""

    def __init__(self, *, silence: float = 30) -> None:
        """Takes the two streams as they are now.

        Args:
          silence: seconds without news after which a log is told what still runs.
        """
        self._screen = Stream(sys.__stderr__, 2, "standard error")
        self._results = Stream(sys.__stdout__, 1, "standard output")
        self._silence = self._patience = silence
        self._last_news = time.monotonic()
        self._steps: list[Step] = []
        self._all_ended = threading.Event()
        self._live: Live | None = None
        self._lock = threading.RLock()
        self._has_said = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Drops what libraries write, from Python or C++: only this console shows.

        If a library ends the process, Python's stack is shown all the same, unless
        somebody else has it.
        """
        if not faulthandler.is_enabled():
            faulthandler.enable(self._screen.file)
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
        """Shows a message of one or more lines, on standard error.

        On a terminal, long lines are parted between words, so that a path or a digest
        stays whole; lines that are indented are not parted. Nothing is interpreted: what
        a terminal would obey, or cannot show, becomes an escape.
        """
        with self._aside():
            self._screen.write("\n".join(self._screen.folded(message)))
            self._has_said = True

    def error(self, message: str) -> None:
        """Shows what went wrong, as `say` does; all lines but the first are indented."""
        first, *further = self._screen.folded(f"irv2: {message.rstrip()}", indent=2)
        name = self._screen.styled(Verdict("irv2:", passed=False))
        lines = [name + first.removeprefix("irv2:")]
        lines += [f"  {line}".rstrip() for line in further]
        with self._aside():
            self._screen.write("\n".join(lines))

    def result(self, text: str) -> None:
        """Prints a result on standard output, as it is.

        Raises:
          BrokenPipeError: nobody reads on.
        """
        with self._aside():
            self._results.write(text)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        """Prints a table on standard output.

        Where it follows messages on a terminal, an empty line parts them. A column that
        is empty in every row is left out. On a terminal that is too narrow, columns fold
        and are left out as `Column` says; if the rest does not fit either, the fields of
        each row are printed one below the other. In a log every row is a line.

        Args:
          columns: from left to right.
          rows: as many cells each as there are columns. A limit can stand beside what it
            judges, as in "2.4e-07 / 2e-05".

        Raises:
          BrokenPipeError: nobody reads on.
        """
        printable = self._results.printable_cell
        rows = [[printable(cell) for cell in row] for row in rows]
        self._print(tables.table(columns, rows, self._results.width))

    def fields(self, pairs: Iterable[tuple[str, Cell]]) -> None:
        """Prints names and their values on standard output, one pair below the other.

        Args:
          pairs: name and value. Values may have several lines. On terminals, long ones
            are parted at spaces; a longer word, such as a digest, stays whole.

        Raises:
          BrokenPipeError: nobody reads on.
        """
        printable = self._results.printable_cell
        pairs = [(name, printable(value)) for name, value in pairs]
        self._print(tables.fields(pairs, self._results.width))

    def _print(self, items: Iterable[RenderableType]) -> None:
        text = self._results.rendered(items)
        if self._has_said and self._screen.is_terminal and self._results.is_terminal:
            text = f"\n{text}"
        self._has_said = False
        self.result(text)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Shows something that takes time, on standard error.

        On a terminal it lives until it is done; then, and in a log, it is one line with
        the time that it took. A log that has had no news for long is told what still
        runs. Steps can be nested: what is inside is shown above.

        Args:
          name: such as "[3/22] feature_vector v3".

        Yields:
          What is told how far it is.
        """
        step = Step(name, self._screen, self._refresh)
        try:
            self._begin(step)
            yield step
        except BaseException:
            self._end(step, step.at, "stopped after ")
            raise
        outcome = step.outcome
        self._end(step, None if outcome is None else self._screen.styled(outcome))

    def _begin(self, step: Step) -> None:
        with self._aside():
            self._steps.append(step)
            if len(self._steps) == 1 and not self._screen.is_live:
                self._all_ended = threading.Event()
                threading.Thread(
                    target=self._watch, args=[self._all_ended], daemon=True
                ).start()

    def _end(self, step: Step, outcome: str | None, took: str = "") -> None:
        with self._aside():
            self._steps = [other for other in self._steps if other is not step]
            if not self._steps:
                self._all_ended.set()
            if outcome is not None:
                self._screen.write(step.line(outcome, took + duration(step.seconds)))
                self._has_said = True

    def _watch(self, all_ended: threading.Event) -> None:
        """Tells a log without news what still runs, less and less often."""
        while not all_ended.wait(self._silence / 10):
            with self._lock:
                is_news_due = time.monotonic() > self._last_news + self._patience
                if all_ended.is_set() or not is_news_due:
                    continue
                step = self._steps[-1]
                so_far = f"{whole_duration(step.seconds)} so far"
                with contextlib.suppress(OSError):
                    self._screen.write(step.line(step.at, so_far))
                self._last_news = time.monotonic()
                self._patience = min(2 * self._patience, _LONGEST_SILENCE)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Takes the live lines away while something else is written."""
        with self._lock:
            if self._live:
                self._live.stop()
                self._live = None
            self._last_news = time.monotonic()
            self._patience = self._silence
            try:
                yield
            finally:
                if self._steps and self._screen.is_live:
                    self._start_live()

    def _refresh(self) -> None:
        with self._lock:
            if self._live:
                self._live.refresh()

    def _start_live(self) -> None:
        """Shows what all steps are at until `_live` is stopped."""
        from rich.console import Group
        from rich.live import Live
        from rich.spinner import Spinner

        console = self._screen.rich_console()
        spinner = Spinner("line")  # Which every font and encoding has.

        def lines() -> Group:
            console.size = self._screen.size  # It may have changed.
            drawn: list[RenderableType] = []
            mark: RenderableType = spinner
            for step in reversed(self._steps):
                drawn += step.drawn(mark)
                mark = ""
            # The cursor waits below; what else is shown, such as ^C, stands there.
            return Group(*drawn, "")

        self._live = Live(
            console=console,
            get_renderable=lines,
            refresh_per_second=_FRAMES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )
        self._live.start(refresh=True)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
