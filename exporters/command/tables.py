"""Tables that fit: columns fold or are left out, and no word is broken.

A log gets whole lines; only terminals have a width. `rich` draws, and is imported when
there is something to draw.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_GAP = 2
_MOST_LINES = 2
_BETWEEN_WORDS = r"(?<=\s)(?=\S)"
_IN_NAMES = (
    rf"{_BETWEEN_WORDS}"
    r"|(?<=\w-)(?=[^\W\d])"  # Not in 2e-05.
    r"|(?<=[^\s/:]/)(?=[^\s/])"  # Not in https://.
)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
      header: what stands above it.
      justify: "right" for numbers.
      folds: whether its cells may take several lines where the terminal is narrow. They
        are parted between words and, for names of files, after "-" and "/".
      optional: 0 for a column that is always shown. Where the terminal is narrow, the
        others are left out, the highest number first.
    """

    header: str
    justify: Literal["left", "right"] = "left"
    folds: bool = False
    optional: int = 0

    @property
    def where(self) -> str:
        """Pattern of the places where cells may be parted."""
        return _IN_NAMES if self.folds else _BETWEEN_WORDS


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether something is as it should be: green or red on terminals.

    Attributes:
      text: says it without the colour, as "agrees" and "DIFFERS" do.
      passed: whether it is.
    """

    text: str
    passed: bool

    def __str__(self) -> str:
        return self.text


Cell = str | Verdict


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: float
) -> Iterator[RenderableType]:
    """Lays out a table; a column that is empty in every row is left out.

    Args:
      columns: from left to right.
      rows: as many cells each as there are columns.
      width: of the terminal, in characters; infinite for a log.

    Yields:
      For `rich` to print: the table, and a line on what was left out of it. If no row
      fits even so, the fields of each row, one below the other.
    """
    filled = [
        number
        for number in range(len(columns))
        if not rows or any(str(row[number]) for row in rows)
    ]
    columns = [columns[number] for number in filled]
    rows = [[row[number] for number in filled] for row in rows]
    widths = _fit(columns, rows, width)
    if widths is None:
        for number, row in enumerate(rows):
            if number:
                yield ""
            yield from _listed(columns, row, width)
        return
    yield _drawn(columns, rows, widths)
    left_out = [c.header for number, c in enumerate(columns) if number not in widths]
    if left_out:
        yield f"(no room for: {', '.join(left_out)})"


def fields(pairs: Iterable[tuple[str, Cell]], width: float) -> Iterator[RenderableType]:
    """Lays out names and their values, one pair below the other.

    Args:
      pairs: name and value; those without a value are left out. A value of several
        lines stays so; on terminals, long lines are parted between words.
      width: of the terminal, in characters; infinite for a log.

    Yields:
      Lines for `rich` to print.
    """
    pairs = list(pairs)
    columns = [Column(name) for name, _ in pairs]
    yield from _listed(columns, [value for _, value in pairs], width)


def fold(text: str, width: float, where: str = _BETWEEN_WORDS) -> list[str]:
    """Parts text into lines of a width; a word that is longer stays whole.

    Args:
      text: one or more lines. Those that are indented stay as they are.
      width: in characters.
      where: pattern of the places to part at.
    """
    folded = []
    for whole in text.split("\n"):
        pieces = [whole] if whole[:1].isspace() else re.split(where, whole)
        line = ""
        for piece in pieces:
            if line and _length(piece) <= width < _length(line + piece):
                folded.append(line.rstrip())
                line = ""
            line += piece
        folded.append(line.rstrip())
    return folded


def styled(cell: Cell, text: str) -> Text:
    """Returns the text of a cell, or what became of it, in the style of the cell."""
    from rich.text import Text

    if isinstance(cell, Verdict):
        return Text(text, "green" if cell.passed else "bold red")
    return Text(text)


def _listed(
    columns: Sequence[Column], row: Sequence[Cell], width: float
) -> Iterator[RenderableType]:
    """Lays out a row from top to bottom, without what is empty in it."""
    from rich.text import Text

    indent = _longest(column.header for column in columns) + _GAP
    for column, cell in zip(columns, row):
        if not str(cell):
            continue
        name = column.header
        for line in fold(str(cell), width - indent, column.where):
            padding = " " * (indent - _length(name))
            yield Text.assemble(name, padding, styled(cell, line))
            name = ""


def _fit(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: float
) -> dict[int, int] | None:
    """Returns the columns to show -> their widths; None if not even they fit.

    Optional columns make room until no cell takes more than two lines; if that does not
    help, as many are shown as fit.
    """
    fitting = []
    for shown in _selections(columns):
        widths = _widths(columns, rows, shown, width)
        if widths is None:
            continue
        if all(
            len(fold(str(row[n]), widths[n], columns[n].where)) <= _MOST_LINES
            for row in rows
            for n in shown
        ):
            return widths
        fitting.append(widths)
    return fitting[0] if fitting else None


def _selections(columns: Sequence[Column]) -> Iterator[list[int]]:
    """All columns; then, one by one, without those that are optional."""
    shown = list(range(len(columns)))
    yield shown
    for number in sorted(shown, key=lambda n: (columns[n].optional, n), reverse=True):
        if columns[number].optional:
            shown = [other for other in shown if other != number]
            yield shown


def _widths(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    shown: Sequence[int],
    width: float,
) -> dict[int, int] | None:
    """Folds headers, then the widest cells that can be, until all fit; None if not."""
    widths, unfolded, least = {}, {}, {}
    for number in shown:
        column = columns[number]
        cells = [str(row[number]) for row in rows]
        words = re.split(_BETWEEN_WORDS, column.header)
        widths[number] = _longest([column.header, *cells])
        unfolded[number] = _longest([*words, *cells])
        if column.folds:
            cells = [piece for cell in cells for piece in re.split(_IN_NAMES, cell)]
        least[number] = _longest([*words, *cells])
    while sum(widths.values()) + _GAP * (len(shown) - 1) > width:
        wide = [number for number in shown if widths[number] > unfolded[number]]
        wide = wide or [number for number in shown if widths[number] > least[number]]
        if not wide:
            return None
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _drawn(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], widths: dict[int, int]
) -> RenderableType:
    from rich.box import Box
    from rich.table import Table
    from rich.text import Text

    # Nothing but a rule below the headers.
    rule = Box("    \n" * 2 + " -- \n" + "    \n" * 5, ascii=True)
    drawn = Table(box=rule, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for number, width in widths.items():
        column = columns[number]
        header = Text("\n".join(fold(column.header, width)), "bold")
        drawn.add_column(header, justify=column.justify, width=width, no_wrap=True)
    for row in rows:
        drawn.add_row(
            *(
                styled(row[n], "\n".join(fold(str(row[n]), width, columns[n].where)))
                for n, width in widths.items()
            )
        )
    return drawn


def _longest(texts: Iterable[str]) -> int:
    lines = (line for text in texts for line in text.split("\n"))
    return max(map(_length, lines), default=0)


def _length(text: str) -> int:
    """The number of columns that a text takes; CJK characters take two each."""
    from rich.cells import cell_len

    return cell_len(text.rstrip())
