"""Writes the benchmark's tables into Markdown files, or checks that they have them.

Each is between two comments that name it, and the machine it was measured on:

    <!-- benchmarks: latency, xeon-amx -->
    <!-- /benchmarks -->

Figures are taken from the newest file in benchmarks/history/MACHINE/; what is not in it
from those before, if they are of the same day, machine, versions and threads.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import figures, report
from benchmarks.figures import Figures
from exporters.command.console import Console

HISTORY = Path(__file__).parent / "history"
_BLOCK = re.compile(
    r"(?P<start><!-- benchmarks: (?P<name>.*?), (?P<machine>.*?) -->\n)"
    r"(?P<content>.*?)"
    r"(?P<end><!-- /benchmarks -->)",
    re.DOTALL,
)
_MARK = re.compile(r"<!-- /?benchmarks\b")


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
    found = _newest(block["machine"], history)
    name = block["name"]
    if name in report.TABLES:
        content = markdown(report.TABLES[name](found))
    elif name in report.SENTENCES:
        content = f"{report.SENTENCES[name](found)}.\n"
    else:
        known = ", ".join([*report.TABLES, *report.SENTENCES])
        raise TablesError(f"unknown table {name!r}; there are: {known}")
    return f"{block['start']}{content}{block['end']}"


def _newest(machine: str, history: Path) -> Figures:
    """Returns the newest figures of a machine."""
    files = sorted((history / machine).glob("*.json"), reverse=True)
    if not files:
        raise TablesError(f"there are no figures in {history / machine}")
    try:
        newest, *others = map(figures.read, files)
    except ValueError as error:
        raise TablesError(str(error)) from error
    for older in others:
        newest = figures.completed(newest, older)
    return newest


def markdown(table: report.Table) -> str:
    """Returns a table in Markdown; numbers stand to the right."""
    names, numbers = ["---"] * table.names, ["---:"] * len(table.columns[table.names :])
    rows = [table.columns, [*names, *numbers], *table.rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
