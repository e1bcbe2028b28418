"""`make bench`: every format, beside the stock tools, on every engine, in one run.

Makes each artifact with a command of its own, whose whole process counts, with and
without verifying it; runs the artifacts of a container in turn on all engines; loads each
in processes of its own; prints tables, and keeps the figures as JSON. Stock tools: the
tf2onnx command and TensorFlow's TFLite converter, both on our v5; ONNX Runtime's tools,
NNCF and ai-edge-quantizer on our float32 files; and OpenVINO's own form of our ONNX files.
For Linux.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import engines, exporting, figures, report
from benchmarks.arguments import add_output, count, names
from benchmarks.engines import UnknownEngineError
from benchmarks.exporting import Made, Recipe
from benchmarks.figures import Figures
from benchmarks.measuring import measure
from exporters.command import interruption
from exporters.command.console import Console
from exporters.command.show import Steps
from exporters.command.tables import Cell, Column, Verdict
from exporters.errors import UnknownFormatError
from exporters.formats import Format, select
from exporters.network.tasks import CLASSIFICATION, TASKS, Task


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and keeps; returns the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        task = TASKS[given.task]
        rows = [row for row in select(given.formats) if task in row.tasks]
        chosen = engines.installed(given.engines)
        for directory in filter(None, (given.output, given.artifacts)):
            directory.mkdir(parents=True, exist_ok=True)
    except (UnknownFormatError, UnknownEngineError, OSError) as error:
        parser.error(str(error))

    def everything() -> Made:
        with tempfile.TemporaryDirectory(prefix="irv2-bench-") as directory:
            return exporting.export(given.checkpoint, Path(directory))

    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="irv2-bench-") as name,
        Steps(console) as progress,
    ):
        directory = given.artifacts or Path(name)
        recipes = list(_recipes(given.checkpoint, rows, task, directory, given.stock))
        if given.artifacts:
            recipes = [
                exporting.kept(recipe, directory)
                for recipe in recipes
                if not recipe.is_verified
            ]
        found = measure(
            recipes,
            task,
            chosen,
            everything=everything if given.everything and not given.artifacts else None,
            repeats=given.repeats,
            threads=given.threads,
            seconds=given.seconds,
            progress=progress,
        )
    return finish(console, found, given.output)


def finish(console: Console, found: Figures, directory: Path) -> int:
    """Prints figures and keeps them, in a file that is called by their date.

    Returns:
      The exit code: 1 if something could not be measured, unless that is what an engine
      cannot do with another tool's file.
    """
    for sentence in report.SENTENCES.values():
        console.result(f"{sentence(found)}.")
    for title, make in report.TABLES.items():
        table = make(found)
        if table.rows:
            console.result(f"\n{title}: {make.__doc__}")
            console.table(_columns(table), [_cells(row) for row in table.rows])
    for line in found.failures:
        console.error(line)
    path = directory / f"{found.date.replace(':', '')}.json"
    figures.write(found, path)
    console.say(f"\nKept in {path}")
    return 0 if found.is_complete else 1


def _columns(table: report.Table) -> list[Column]:
    names = [Column(name) for name in table.columns[: table.names]]
    return names + [Column(name, "right") for name in table.columns[table.names :]]


def _cells(row: Sequence[str]) -> list[Cell]:
    return [
        Verdict(cell, passed=False) if cell == report.FAILED else cell for cell in row
    ]


def _recipes(
    checkpoint: Path,
    rows: Sequence[Format],
    task: Task,
    directory: Path,
    has_stock: bool,
) -> Iterator[Recipe]:
    @functools.cache
    def source(format: str) -> Path:
        options = ["--formats", format, "--tasks", task.name, "--no-verify"]
        return exporting.export(checkpoint, directory / "source", *options).path

    for row in rows:
        for is_verified in (False, True):
            yield exporting.ours(
                checkpoint, row, task, directory, is_verified=is_verified
            )
        if has_stock:
            yield from exporting.stock(row, source, directory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    add_output(parser)
    parser.add_argument(
        "--artifacts",
        type=Path,
        help="directory to keep artifacts in, where those that are there are not made "
        "again; what making takes is not measured then",
    )
    parser.add_argument(
        "--formats", type=names, help="comma-separated; default: all of `irv2 list`"
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        default=CLASSIFICATION.name,
        help=f"what artifacts are made for; default: {CLASSIFICATION.name}",
    )
    parser.add_argument(
        "--engines",
        type=names,
        help="comma-separated; default: all that are installed of "
        + ", ".join(engine.name for engine in engines.ENGINES),
    )
    parser.add_argument(
        "--threads", type=count, default=2, help="of each engine; default: 2"
    )
    parser.add_argument(
        "--repeats",
        type=count,
        default=3,
        help="how often each artifact is made, and loaded; default: 3",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=6,
        help="for each artifact, engine and size of batch; default: 6",
    )
    parser.add_argument(
        "--no-stock", dest="stock", action="store_false", help="leave out other tools"
    )
    parser.add_argument(
        "--no-everything",
        dest="everything",
        action="store_false",
        help="leave out the export of all formats of both tasks with one command",
    )
    return parser


if __name__ == "__main__":
    with interruption.heeded():
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            sys.exit(130)
