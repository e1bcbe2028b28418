"""Steps that take time: how far they are, in words and as drawn on terminals."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from exporters.command.streams import Stream
from exporters.command.tables import Cell
from exporters.command.units import size, size_of, whole_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

_ROOM_FOR_BAR = 60


@dataclasses.dataclass(frozen=True)
class _Progress:
    """How much is done of how much; `first` was done when that was heard first."""

    done: int
    total: int | None
    unit: str
    first: int
    since: float

    def __str__(self) -> str:
        if self.unit == "bytes":
            amount = size_of(self.done, self.total) if self.total else size(self.done)
        else:
            amount = f"{self.done} of {self.total}" if self.total else str(self.done)
        parts = [amount]
        seconds = time.monotonic() - self.since
        if seconds > 1 and self.done > self.first:
            rate = (self.done - self.first) / seconds
            if self.unit == "bytes":
                parts.append(f"{rate / 1e6:.1f} MB/s")
            elif self.unit:
                parts.append(f"{rate:.1f} {self.unit}/s")
            if self.total:
                left = max(self.total - self.done, 0) / rate
                parts.append(f"{whole_duration(left)} left")
        return ", ".join(parts)


class Step:
    """A step that is under way, made by `Console.step`. Calling it says what it is at.

        with console.step("[3/22] feature_vector v3") as step:
            step("write")
            step.bytes(34_000_000, 237_000_000)
            step("verify")
            step.outcome = Verdict("agrees", passed=True)

    Attributes:
      name: what is done, in one line.
      outcome: what is to be shown at the end, beside the time; "" at first, and None if
        the end is not to be shown.
      took: seconds to be shown at the end, None for those since it began.
    """

    def __init__(self, name: str, screen: Stream, changed: Callable[[], None]) -> None:
        """Begins now.

        Args:
          name: what is done.
          screen: where it is shown.
          changed: called when there is something new to be seen.
        """
        self.name = _in_one_line(screen.printable(name))
        self.outcome: Cell | None = ""
        self.took: float | None = None
        self._screen = screen
        self._state = ""
        self._progress: _Progress | None = None
        self._changed = changed
        self._start = time.monotonic()

    def __call__(self, state: str) -> None:
        """Shows what the step is at, such as "write"; what was counted before is over."""
        self._state = _in_one_line(self._screen.printable(state))
        self._progress = None
        self._changed()

    def count(self, done: int, total: int | None = None, unit: str = "") -> None:
        """Shows how many things are done; with a bar, if it is known of how many.

        Args:
          done: how many.
          total: of how many.
          unit: what they are, to say how many of them are done in a second.
        """
        self._advance(done, total, unit)

    def bytes(self, done: int, total: int | None = None) -> None:
        """Shows how many bytes are done; with a bar, if it is known of how many."""
        self._advance(done, total, "bytes")

    def _advance(self, done: int, total: int | None, unit: str) -> None:
        # Shown with the next frame: there may be thousands of these in a second.
        before = self._progress
        now = time.monotonic()
        first, since = (before.first, before.since) if before else (done, now)
        self._progress = _Progress(done, total, unit, first, since)

    @property
    def seconds(self) -> float:
        """How long it has been under way, or took."""
        return time.monotonic() - self._start if self.took is None else self.took

    @property
    def at(self) -> str:
        """What it is at, and how far."""
        progress = str(self._progress) if self._progress else ""
        return ", ".join(filter(None, [self._state, progress]))

    def line(self, *parts: str) -> str:
        """The step in one line: its name, and what is not empty of the parts."""
        return f"  {self.name} ... {', '.join(filter(None, parts))}"

    def drawn(self, mark: RenderableType) -> Iterator[RenderableType]:
        """Yields what `rich` is to show while it is under way, a mark before its name."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = self._progress
        total = progress.total if progress else None
        at = self._state if total else self.at
        state = ", ".join(filter(None, [at, whole_duration(self.seconds)]))
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_column(width=1)
        line.add_column()
        line.add_column(no_wrap=True)
        # Only the name may be cut.
        name = Text(self.name, no_wrap=True)
        name.overflow = "ellipsis" if self._screen.is_unicode else "crop"
        line.add_row(mark, name, Text(f"... {state}"))
        yield line
        if progress and total:
            has_bar = self._screen.width >= _ROOM_FOR_BAR
            figures = Table.grid(padding=(0, 1, 0, 0), expand=has_bar)
            figures.add_column(width=1)
            cells: list[RenderableType] = [""]
            if has_bar:
                figures.add_column(ratio=1)
                cells.append(ProgressBar(total, progress.done, complete_style="cyan"))
            figures.add_column(no_wrap=True)
            figures.add_row(*cells, str(progress))
            yield figures


def _in_one_line(text: str) -> str:
    return text.replace("\n", "\\n")
