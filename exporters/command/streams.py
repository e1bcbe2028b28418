"""Standard output and error, as they were when the program began.

What is written here arrives even while the process's own descriptors lead nowhere.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from exporters.command import tables
from exporters.command.tables import Cell, Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_LOG_WIDTH = 1 << 16


class Stream:
    """One of the two streams.

    Attributes:
      file: as a text file.
      is_terminal: whether people watch it.
      is_live: whether lines on it can be drawn anew.
    """

    def __init__(self, standard: TextIO | None, descriptor: int, name: str) -> None:
        """Takes a copy of a descriptor.

        Args:
          standard: the same as a text file, from which the encoding is taken.
          descriptor: 1 or 2.
          name: for errors.
        """
        self.file = io.TextIOWrapper(
            os.fdopen(os.dup(descriptor), "wb"),
            encoding=standard.encoding if standard else "utf-8",
            errors="backslashreplace",
            write_through=True,
        )
        self.is_terminal = self.file.isatty()
        is_dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
        self.is_live = self.is_terminal and not is_dumb
        self._name = name

    @property
    def width(self) -> float:
        """The width of the terminal, in characters; infinite where there is none."""
        return self.size[0] if self.is_terminal else math.inf

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines; enough of both where there is no terminal."""
        if not self.is_terminal:
            return _LOG_WIDTH, 25
        columns, lines = os.get_terminal_size(self.file.fileno())
        return columns or 80, lines or 25

    @property
    def is_unicode(self) -> bool:
        """Whether it can show all characters."""
        return self.file.encoding.lower().startswith("utf")

    def write(self, text: str) -> None:
        """Writes lines. Bytes of file names are written as they are.

        Raises:
          OSError: it cannot be written to; BrokenPipeError if nobody reads on.
        """
        try:
            data = f"{text}\n".encode(self.file.encoding, "surrogateescape")
        except UnicodeEncodeError:
            data = f"{text}\n".encode(self.file.encoding, "backslashreplace")
        try:
            self.file.buffer.write(data)
            self.file.flush()
        except OSError as error:
            # What is still to be flushed at the end goes nowhere.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.file.fileno())
            raise OSError(error.errno, error.strerror, self._name) from None

    def printable(self, text: str) -> str:
        """Returns text with escapes for what cannot be shown or would steer a terminal."""
        text = _CONTROL_CHARACTERS.sub(
            lambda match: f"\\x{ord(match[0]):02x}", text.expandtabs()
        )
        encoding = self.file.encoding
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def folded(self, text: str, indent: int = 0) -> list[str]:
        """Returns printable lines; on a terminal, of its width less an indent."""
        text = self.printable(text)
        if not self.is_terminal:
            return text.split("\n")
        return tables.fold(text, self.width - indent)

    def printable_cell(self, cell: Cell) -> Cell:
        """The same for a cell."""
        text = self.printable(str(cell))
        return Verdict(text, cell.passed) if isinstance(cell, Verdict) else text

    def styled(self, cell: Cell) -> str:
        """Returns a cell for a line of its own, with its colour on terminals."""
        cell = self.printable_cell(cell)
        if self.is_terminal and isinstance(cell, Verdict):
            return self.rendered([tables.styled(cell, cell.text)])
        return str(cell)

    def rendered(self, items: Iterable[RenderableType]) -> str:
        """Returns what `rich` makes of items for this stream; in a log, plain text."""
        console = self.rich_console()
        with console.capture() as captured:
            for item in items:
                console.print(item, soft_wrap=True)
        lines = captured.get().removesuffix("\n").split("\n")
        return "\n".join(line.rstrip() for line in lines)

    def rich_console(self) -> Console:
        """Returns a console of `rich` that writes here, of the size of the moment."""
        from rich.console import Console

        class CursorStays(Console):
            def show_cursor(self, show: bool = True) -> bool:
                return False  # A crash, or a kill, would leave it hidden.

        width, height = self.size
        return CursorStays(
            file=self.file,
            force_terminal=self.is_terminal,
            force_interactive=self.is_live,
            width=width,
            height=height,
            markup=False,
            emoji=False,
            highlight=False,
        )
