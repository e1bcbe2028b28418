"""How often artifacts are right about held-out digits, after `examples.digits`.

    python -m examples.digits_scores --digits build/digits build/digits/artifacts

runs each artifact, by its consumer's library, on images/validation/, and compares it with
what the training graph gave. It fails if one is right less often than that by more than a
percentage point. A Markdown table of the scores goes to build/digits/scores.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from checkpoints import files
from examples import digits
from exporters.command.console import Console
from exporters.command.tables import Cell, Column, Verdict
from exporters.command.units import size
from exporters.errors import MissingLibraryError
from exporters.formats import open_artifact
from exporters.verification import find_artifacts

_PLACE = re.compile("(?<=<!-- scores -->\n).*?(?=<!-- /scores -->\n)", re.DOTALL)
_ALLOWED = 0.01
"""By how much an artifact may be right less often than the network."""


@dataclasses.dataclass(frozen=True)
class Score:
    """How an artifact does.

    Attributes:
      format: name of its format.
      bytes: size of all its files.
      accuracy: share of the digits that it gets right; None if it was not run.
      agreement: share of the digits that it takes for the same as the network.
      cosine: of its logits and the network's, in the worst image.
      why: it was not run.
    """

    format: str
    bytes: int
    accuracy: float | None = None
    agreement: float = 0.0
    cosine: float = 0.0
    why: str = ""


def score(path: Path, held_out: digits.Digits, expected: np.ndarray) -> Score:
    """Runs a classifier on digits.

    Args:
      path: the artifact.
      held_out: the digits.
      expected: float32 [count, 10], the logits of the network itself.
    """
    artifact, row = open_artifact(path)
    with artifact:
        if artifact.image_size not in (None, (digits.IMAGE_SIZE,) * 2):
            return Score(row.name, files.size(path), why="takes larger images only")
        main = next(iter(artifact.outputs))
        parts = digits.in_batches(held_out.images)
        try:
            logits = np.concatenate([artifact.run(part)[main] for part in parts])
        except MissingLibraryError as error:
            return Score(row.name, files.size(path), why=str(error))
    found = logits.argmax(axis=1)
    lengths = np.linalg.norm(logits, axis=1) * np.linalg.norm(expected, axis=1)
    return Score(
        row.name,
        files.size(path),
        float(np.mean(found == held_out.classes)),
        float(np.mean(found == expected.argmax(axis=1))),
        float(np.min((logits * expected).sum(axis=1) / lengths)),
    )


def _cells(scored: Score, accuracy: float) -> list[Cell]:
    if scored.accuracy is None:
        return [scored.format, size(scored.bytes), scored.why, "", ""]
    passed = scored.accuracy >= accuracy - _ALLOWED
    return [
        scored.format,
        size(scored.bytes),
        Verdict(f"{scored.accuracy:.1%}", passed),
        f"{scored.agreement:.1%}",
        f"{scored.cosine:.5f}",
    ]


def _markdown(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [
        [column.header for column in columns],
        ["---:" if column.justify == "right" else "---" for column in columns],
        *(
            [cell.text if isinstance(cell, Verdict) else cell for cell in r]
            for r in rows
        ),
    ]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> int:
    """Scores, and returns the exit code: 1 if an artifact is not good enough."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.digits_scores",
        description="Scores artifacts of the network that was trained on digits.",
    )
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument(
        "--digits", type=Path, required=True, help="what examples.digits wrote"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="Markdown to write the table into"
    )
    arguments = parser.parse_args()
    console = Console()
    if arguments.write and not _PLACE.search(arguments.write.read_text("utf-8")):
        parser.error(f"{arguments.write} has no lines to write the table between")
    held_out = digits.read_images(arguments.digits / "images" / "validation")
    expected = np.load(arguments.digits / digits.LOGITS_FILE)
    accuracy = float(np.mean(expected.argmax(axis=1) == held_out.classes))
    paths, _ = find_artifacts(arguments.artifacts)
    scores = []
    with console.alone():
        for number, path in enumerate(paths, start=1):
            with console.step(f"[{number}/{len(paths)}] score {path.name}"):
                scores.append(score(path, held_out, expected))
    columns = [
        Column("format"),
        Column("size", "right"),
        Column("top-1", "right"),
        Column("as the network", "right"),
        Column("worst cosine", "right"),
    ]
    network: list[Cell] = ["the network", "", f"{accuracy:.1%}", "", ""]
    rows = [network, *(_cells(scored, accuracy) for scored in scores)]
    console.table(columns, rows)
    are_run = [
        row for row, scored in zip(rows[1:], scores) if scored.accuracy is not None
    ]
    table = _markdown(columns, [network, *are_run])
    (arguments.digits / "scores.md").write_text(table)
    if arguments.write:
        text = arguments.write.read_text("utf-8")
        arguments.write.write_text(_PLACE.sub(lambda _: table, text), "utf-8")
    found = [scored.accuracy for scored in scores if scored.accuracy is not None]
    return int(not found or min(found) < accuracy - _ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
