"""Writes the benchmark's tables into Markdown files, or checks that they have them.

Each is between two comments that name it, and the machine it was measured on:

    <!-- benchmarks: latency, xeon-amx -->
    <!-- /benchmarks -->

Figures are taken from the newest file of their kind in benchmarks/history/MACHINE/; what is
not in it from those before, if they are of the same day, machine, versions and threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures, quantizing, report
from exporters.command.console import Console

HISTORY = Path(__file__).parent / "history"
_BLOCK = re.compile(
    r"(?P<start><!-- benchmarks: (?P<name>.*?), (?P<machine>.*?) -->\n)"
    r"(?P<content>.*?)"
    r"(?P<end><!-- /benchmarks -->)",
    re.DOTALL,
)
_MARK = re.compile(r"<!-- /?benchmarks\b")


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A kind of figures: its files, and what is made of them."""

    files: str
    read: Callable[[Path], Any]
    tables: Mapping[str, Callable[[Any], report.Table]]
    sentences: Mapping[str, Callable[[Any], str]]
    completed: Callable[[Any, Any], Any] = lambda newer, older: newer


_KINDS = (
    _Kind(
        "[0-9]*.json",
        figures.read,
        report.TABLES,
        report.SENTENCES,
        figures.completed,
    ),
    _Kind(
        f"{quantizing.PREFIX}*.json",
        quantizing.read,
        quantizing.TABLES,
        quantizing.SENTENCES,
    ),
)


class TablesError(Exception):
    """Tables that are not as the figures say, or cannot be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or checks; returns the exit code: 1 if a file is not as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", type=Path, nargs="+", help="Markdown files")
    parser.add_argument("--history", type=Path, default=HISTORY)
    verb = parser.add_mutually_exclusive_group(required=True)
    verb.add_argument("--write", action="store_true", help="write the tables")
    verb.add_argument("--check", action="store_true", help="say where they differ")
    given = parser.parse_args(arguments)
    console = Console()
    code = 0
    for file in given.files:
        try:
            text = file.read_text(encoding="utf-8")
            right = with_tables(text, given.history)
            if given.write:
                file.write_text(right, encoding="utf-8")
            elif text != right:
                raise TablesError(
                    f"its tables are not what is in {given.history}. Write them anew: "
                    f"python -m benchmarks.tables --write {file}"
                )
        except TablesError as error:
            console.error(f"{file}: {error}")
            code = 1
    return code


def with_tables(text: str, history: Path = HISTORY) -> str:
    """Returns a Markdown text with the tables that its comments ask for.

    Args:
      text: with comments as this module's documentation says, or none.
      history: a directory per machine, with a file of figures per date.

    Raises:
      TablesError: there is no such table or machine, or a comment has no other end.
    """
    written, count = _BLOCK.subn(lambda block: _block(block, history), text)
    if 2 * count != len(_MARK.findall(written)):
        raise TablesError(
            "a table begins or ends, and does not do both. Expected <!-- benchmarks: "
            "TABLE, MACHINE --> and <!-- /benchmarks -->, each on a line."
        )
    return written


def _block(block: re.Match[str], history: Path) -> str:
    name = block["name"]
    for kind in _KINDS:
        if name in kind.tables:
            found = _newest(block["machine"], history, kind)
            content = markdown(kind.tables[name](found))
            break
        if name in kind.sentences:
            found = _newest(block["machine"], history, kind)
            content = f"{kind.sentences[name](found)}.\n"
            break
    else:
        known = ", ".join(n for kind in _KINDS for n in (*kind.tables, *kind.sentences))
        raise TablesError(f"unknown table {name!r}; there are: {known}")
    return f"{block['start']}{content}{block['end']}"


def _newest(machine: str, history: Path, kind: _Kind) -> Any:
    """Returns the newest figures of a machine."""
    files = sorted((history / machine).glob(kind.files), reverse=True)
    if not files:
        raise TablesError(f"there are no figures in {history / machine}")
    try:
        newest, *others = map(kind.read, files)
    except ValueError as error:
        raise TablesError(str(error)) from error
    for older in others:
        newest = kind.completed(newest, older)
    return newest


def markdown(table: report.Table) -> str:
    """Returns a table in Markdown; numbers stand to the right."""
    names, numbers = ["---"] * table.names, ["---:"] * len(table.columns[table.names :])
    rows = [table.columns, [*names, *numbers], *table.rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
