"""What each verb's result looks like on the screen."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from exporters.command import console as consoles
from exporters.command.steps import Step as ShownStep
from exporters.command.tables import Cell, Column, Verdict
from exporters.command.units import counted, size

if TYPE_CHECKING:
    from exporters.exporting import Export, ExportedArtifact
    from exporters.formats import Format
    from exporters.inspection import Inspection
    from exporters.parity import ParityReport
    from exporters.progress import Note, Step
    from exporters.tfhub.cache import Installed, Uninstalled
    from exporters.tfhub.packing import Packed
    from exporters.verification import Verification

_PARITY_COLUMNS = (
    Column("error / limit", justify="right"),
    Column("cosine / limit", justify="right"),
    Column("top-1", justify="right", optional=1),
    Column("weights", justify="right", optional=2),
    Column("result"),
)


class Steps(contextlib.AbstractContextManager):
    """Shows the progress of a verb: what a verb is given as `progress`."""

    def __init__(self, console: consoles.Console) -> None:
        self._console = console
        self._name: str | None = None
        self._shown: ShownStep | None = None
        self._open = contextlib.ExitStack()

    def __call__(self, event: Step | Note) -> None:
        from exporters.progress import Note

        if isinstance(event, Note):
            self._console.say(event.text)
            return
        if event.name != self._name:
            self._open.close()
            self._name = event.name
            self._shown = self._open.enter_context(self._console.step(event.name))
        assert self._shown is not None
        if event.done is None:
            self._shown(event.state)
        elif event.unit == "bytes":
            self._shown.bytes(event.done, event.total)
        else:
            self._shown.count(event.done, event.total)

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)


def formats(console: consoles.Console, rows: Iterable[Format], as_json: bool) -> None:
    """Prints the table of formats."""
    from exporters.network.tasks import TASKS

    facts = [
        {
            "format": row.name,
            "what it is": row.summary,
            "published as": row.handle("{task}"),
        }
        for row in rows
    ]
    if as_json:
        console.result(json.dumps({"tasks": list(TASKS), "formats": facts}, indent=2))
        return
    columns = [
        Column("format"),
        Column("what it is"),
        Column("published as", folds=True),
    ]
    console.table(columns, [[value or "" for value in row.values()] for row in facts])
    console.result(f"\nTasks: {', '.join(TASKS)}.")


def inspection(console: consoles.Console, found: Inspection, as_json: bool) -> None:
    """Prints what a path holds."""
    if as_json:
        facts = {"path": str(found.path), "kind": found.kind, **found.facts}
        console.result(json.dumps(facts, indent=2))
        return
    if found.kind == "directory":
        _entries(console, found.facts["artifacts"])
        return
    console.fields(
        (name, _in_words(value))
        for name, value in {"kind": found.kind, **found.facts}.items()
        if value is not None
    )


def _entries(console: consoles.Console, entries: Sequence[dict[str, Any]]) -> None:
    columns = [
        Column("artifact", folds=True),
        Column("format"),
        Column("task", optional=1),
        Column("size", justify="right"),
        Column("manifest", optional=2),
    ]
    rows = [
        [
            entry["name"],
            entry.get("format", "-"),
            entry.get("task", "-"),
            "missing" if entry.get("missing") else size(entry["bytes"]),
            entry.get("manifest", "there"),
        ]
        for entry in entries
    ]
    console.table(columns, rows)
    console.result(
        f"\n{counted(len(rows), 'artifact')}; irv2 inspect shows more of each"
    )


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        named = (f"{name}: {_in_words(inner)}" for name, inner in value.items())
        return ", ".join(named) or "none"
    return str(value)


def export(console: consoles.Console, done: Export, as_json: bool) -> None:
    """Prints what came of each artifact of an export."""
    if as_json:
        artifacts = [
            {
                "path": str(item.path),
                "kept": item.is_kept,
                "bytes": item.bytes,
                "seconds": dict(item.seconds),
                "error": item.error,
                "parity": item.report.as_dict() if item.report else None,
            }
            for item in done.artifacts
        ]
        facts = {
            "passed": done.passed,
            "checkpoint": str(done.checkpoint),
            "checkpoint_identity": done.checkpoint_identity,
            "stand_in": done.is_stand_in,
            "seconds": dict(done.seconds),
            "artifacts": artifacts,
        }
        console.result(json.dumps(facts, indent=2))
        return
    columns = [
        Column("artifact", folds=True),
        Column("size", justify="right", optional=3),
        Column("write s", justify="right", optional=5),
        Column("verify s", justify="right", optional=4),
        *_PARITY_COLUMNS,
    ]
    console.table(columns, [_exported(item) for item in done.artifacts])
    kept = sum(item.is_kept for item in done.artifacts)
    rejected = len(done.artifacts) - kept
    console.result(
        f"\n{counted(kept, 'artifact')} in {done.output}"
        + (f", {rejected} not made or not kept" if rejected else "")
    )
    for item in done.artifacts:
        if not item.is_kept:
            console.error(
                "\n".join([f"{item.path.name} was not kept:", *item.failures])
            )


def _exported(item: ExportedArtifact) -> list[Cell]:
    return [
        item.path.name,
        size(item.bytes) if item.is_kept else "-",
        _seconds(item.seconds.get("write")),
        _seconds(item.seconds.get("verify")),
        *_parity(item.report, item.error),
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _parity(report: ParityReport | None, error: str | None) -> list[Cell]:
    if error is not None:
        return ["-", "-", "-", "-", Verdict("FAILED", passed=False)]
    if report is None:
        return ["-", "-", "-", "-", "not compared"]
    main, weights = report.main, report.weights
    verdict = Verdict("agrees" if report.passed else "DIFFERS", passed=report.passed)
    right = weights.count - len(weights.wrong)
    counts = f"{right}/{weights.count}"
    if main is None:
        return ["-", "-", "-", counts, verdict]
    asked = main.tolerance
    return [
        f"{main.relative_error:.1e} / {asked.max_error:g}",
        f"{main.cosine:.6f} / {asked.min_cosine:g}",
        "" if main.top_1 is None else f"{main.top_1:.0%}",
        counts,
        verdict,
    ]


def verification(console: consoles.Console, done: Verification, as_json: bool) -> None:
    """Prints whether each artifact agrees."""
    if as_json:
        console.result(json.dumps(done.as_dict(), indent=2))
        return
    rows: list[list[Cell]] = [
        [str(item.path), *_parity(item.report, item.error)] for item in done.artifacts
    ]
    console.table([Column("artifact", folds=True), *_PARITY_COLUMNS], rows)
    for path, why in done.skipped.items():
        console.say(f"skipped: {path}, because it is {why}")
    for item in done.artifacts:
        if item.error is not None:
            console.error(item.error)
        elif item.report and not item.passed:
            lines = item.report.failures()
            console.error("\n".join([f"{item.path.name} does not agree:", *lines]))


def installed(console: consoles.Console, placed: Iterable[Installed]) -> None:
    """Prints where artifacts were placed."""
    for item in placed:
        if item.warning:
            console.say(item.warning)
        for place, reason in item.kept.items():
            console.say(f"{place} is left as it is: {reason}")
        console.result(f"{item.handle}\n  {item.directory}")


def uninstalled(console: consoles.Console, done: Uninstalled) -> None:
    """Prints what was removed, and what was not."""
    for item in done.removed:
        for place in item.left:
            console.say(f"{place} holds something else by now, and is left as it is")
        console.result(item.handle)
    console.say(f"{counted(len(done.removed), 'artifact')} removed")
    for item in done.kept:
        console.error(
            f"{item.directory} was changed since it was installed, and left: "
            f"{', '.join(item.changed[:3])}. Use --force to remove it all the same."
        )


def packed(console: consoles.Console, made: Iterable[Packed]) -> None:
    """Prints the archives that were made."""
    for item in made:
        if item.warning:
            console.say(item.warning)
        console.result(str(item.path))
