"""What each verb's result looks like on the screen."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.command import console as consoles
from exporters.command import interruption
from exporters.command.steps import Step as ShownStep
from exporters.command.tables import Cell, Column, Verdict
from exporters.command.units import counted, size

if TYPE_CHECKING:
    from exporters.budget import Score
    from exporters.exporting import Export, ExportedArtifact
    from exporters.formats import Format
    from exporters.identification import (
        Identification,
        IdentifiedFile,
        LayerDifference,
    )
    from exporters.inspection import Inspection
    from exporters.parity import OutputParity
    from exporters.progress import Note, Step
    from exporters.rebuilding import Rebuilding
    from exporters.reporting.reporting import Report
    from exporters.tfhub.cache import Installed, Uninstalled
    from exporters.tfhub.packing import Packed
    from exporters.verification import Verification, VerifiedArtifact

_PARITY_COLUMNS = (
    Column("error / limit", justify="right"),
    Column("cosine / limit", justify="right", optional=1),
    Column("top-1", justify="right", optional=3),
    Column("weights", justify="right", optional=4),
    Column("result"),
)
_MOST_SKIPPED = 10


class Steps(contextlib.AbstractContextManager):
    """Shows the progress of a verb: what a verb is given as `progress`."""

    def __init__(self, console: consoles.Console) -> None:
        self._console = console
        self._open: dict[str, tuple[ShownStep, contextlib.ExitStack]] = {}
        self._name: str | None = None  # Of the one that ends when another begins.

    def __call__(self, event: Step | Note) -> None:
        from exporters.progress import Note

        interruption.check()
        if isinstance(event, Note):
            self._console.say(event.text)
            return
        if event.waits:
            self._put_aside(event.name)
            return
        if event.name not in self._open:
            self._close(self._name)
            opened = contextlib.ExitStack()
            step = opened.enter_context(self._console.step(event.name))
            self._open[event.name] = step, opened
            self._name = event.name
        shown, _ = self._open[event.name]
        if event.passed is not None:
            shown.outcome = Verdict(event.state, event.passed)
            shown.took = event.seconds
            self._close(event.name)
        elif event.done is None:
            shown(event.state)
        elif event.unit == "bytes":
            shown.bytes(event.done, event.total)
        else:
            shown.count(event.done, event.total, event.unit)
        if event.goes_on and event.name == self._name:
            self._name = None

    def _put_aside(self, name: str) -> None:
        if name in self._open:
            shown, _ = self._open[name]
            shown.outcome = None
            self._close(name)

    def _close(self, name: str | None) -> None:
        if name in self._open:
            _, opened = self._open.pop(name)
            opened.close()
        if name == self._name:
            self._name = None

    def __exit__(self, *exception: Any) -> None:
        for _, opened in reversed(self._open.values()):
            opened.__exit__(*exception)


def formats(console: consoles.Console, rows: Iterable[Format], as_json: bool) -> None:
    """Prints the table of formats."""
    from exporters.formats import TF_HUB
    from exporters.network.tasks import TASKS

    rows = list(rows)
    if as_json:
        facts = [
            {
                "format": row.name,
                "what it is": row.summary,
                "published as": row.handle("{task}"),
            }
            for row in rows
        ]
        console.result(json.dumps({"tasks": list(TASKS), "formats": facts}, indent=2))
        return
    columns = [Column("format"), Column("what it is")]
    console.table(columns, [[row.name, row.summary] for row in rows])
    console.result(f"\nTasks: {', '.join(TASKS)}.")
    published: dict[str, list[str]] = {}
    for row in rows:
        if row.published_version is not None:
            url = row.container.handle.format(task="TASK", version="VERSION")
            published.setdefault(url, []).append(row.name)
    console.result(f"Handles, below {TF_HUB}")
    for url, names in published.items():
        console.result(f"  {', '.join(names)}:\n    {url.removeprefix(TF_HUB)}")


def inspection(console: consoles.Console, found: Inspection, as_json: bool) -> None:
    """Prints what a path holds."""
    if as_json:
        facts = {"path": str(found.path), "kind": found.kind, **found.facts}
        console.result(json.dumps(facts, indent=2))
        return
    if found.kind == "directory":
        _entries(console, found)
        return
    console.fields(
        (_SHORT_NAMES.get(name, name), _in_words(value))
        for name, value in {"kind": found.kind, **found.facts}.items()
        if value is not None and (value != 0 or isinstance(value, bool))
    )


_SHORT_NAMES = {
    "made of checkpoint": "checkpoint",
    "files changed since export": "changed",
    "moving averages": "averages",
    "optimizer variables, not used": "unused slots",
    "other variables, not used": "unused others",
}
"""Of facts, so that a SHA-256 fits beside them."""


def _entries(console: consoles.Console, found: Inspection) -> None:
    entries = found.facts["artifacts"]
    columns = [
        Column("artifact", folds=True),
        Column("size", justify="right"),
        Column("manifest", optional=1),
    ]
    rows = [
        [
            entry["name"],
            "missing" if entry.get("missing") else size(entry["bytes"]),
            entry.get("manifest", ""),
        ]
        for entry in entries
    ]
    console.table(columns, rows)
    console.result(
        f"\n{counted(len(rows), 'artifact')} in {found.path}; "
        "irv2 inspect shows more of each"
    )


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        if all(isinstance(part, int) for part in value):
            return " x ".join(map(str, value))
        return "\n".join(value)
    if isinstance(value, dict):
        named = (f"{name} {_in_words(inner)}" for name, inner in value.items())
        return ", ".join(named) or "none"
    return "any" if value is None else str(value)


def export(console: consoles.Console, done: Export, as_json: bool) -> None:
    """Prints what came of each artifact of an export."""
    kept = [item for item in done.artifacts if item.is_kept]
    if as_json:
        console.result(json.dumps(done.as_dict(), indent=2))
    else:
        columns = [
            Column("task"),
            Column("format"),
            Column("size", justify="right", optional=2),
            Column("write s", justify="right", optional=5),
            Column("verify s", justify="right", optional=6),
            *_PARITY_COLUMNS,
        ]
        console.table(columns, [_exported(item) for item in done.artifacts])
        for item in done.artifacts:
            if item.trials:
                _trials(console, item)
        rejected = len(done.artifacts) - len(kept)
        console.result(
            f"\n{counted(len(kept), 'artifact')} in {done.output}"
            + (f", {rejected} not made or not kept" if rejected else "")
        )
    for item in done.artifacts:
        if item.error is not None:
            is_named = str(item.path) in item.error
            console.error(item.error if is_named else f"{item.path}: {item.error}")
        elif not item.is_kept:
            _differs(console, item.path, "and was not kept", item.failures)
        elif item.report and item.report.not_run:
            console.say(f"{item.path.name} was not run: {item.report.not_run}")


def _trials(console: consoles.Console, item: ExportedArtifact) -> None:
    """Prints what each choice of blocks bought, and cost."""
    from exporters.budget import choice

    is_scored = any(trial.score for trial in item.trials)
    columns = [
        Column(f"{item.task} {item.format}"),
        Column("error / limit", justify="right"),
        Column("cosine / limit", justify="right"),
        *([Column("top-1 / points lost", justify="right")] if is_scored else []),
        Column("ms per image", justify="right", optional=1),
        Column("within budget"),
    ]
    rows: list[list[Cell]] = [
        [
            f"{counted(len(trial.keep_float), 'block')} in float",
            *_figures(trial.output),
            *([_score(trial.score)] if is_scored else []),
            f"{trial.milliseconds:.0f}",
            "yes" if trial.is_enough else "no",
        ]
        for trial in item.trials
    ]
    console.table(columns, rows)
    chosen = choice(item.trials)
    if chosen.is_enough and chosen.keep_float:
        console.result(f"In float: {', '.join(chosen.keep_float)}")


def _score(score: Score | None) -> str:
    """Top-1, and what is lost of the network's beside what may be."""
    if score is None:
        return ""
    from exporters import parity

    drop = parity.figure(score.drop, score.max_drop, 3)
    return f"{score.right / score.count:.1%} / {drop} of {score.max_drop:g}"


def _exported(item: ExportedArtifact) -> list[Cell]:
    seconds = (item.seconds.get(name) for name in ("write", "verify"))
    return [
        item.task,
        item.format,
        size(item.bytes) if item.is_kept else "",
        *("" if value is None else f"{value:.1f}" for value in seconds),
        *_parity(item),
    ]


def verification(console: consoles.Console, done: Verification, as_json: bool) -> None:
    """Prints whether each artifact agrees."""
    if as_json:
        console.result(json.dumps(done.as_dict(), indent=2))
    else:
        _verified(console, done)
    _troubles(console, done)


def _troubles(console: consoles.Console, done: Verification) -> None:
    """Says what was passed over, and what does not agree."""
    skipped = list(done.skipped.items())
    for path, why in skipped[:_MOST_SKIPPED]:
        console.say(f"skipped: {path}, because it is {why}")
    if more := skipped[_MOST_SKIPPED:]:
        console.say(f"and {len(more)} more")
    for item in done.artifacts:
        if item.error is not None:
            console.error(item.error)
        elif item.report and not item.passed:
            _differs(console, item.path, "", item.report.failures())
        elif item.report and item.report.not_run:
            console.say(f"{item.path.name} was not run: {item.report.not_run}")
        for note in item.report.notes if item.report else ():
            console.say(f"{item.path.name}: {note}")


def report(console: consoles.Console, done: Report, as_json: bool) -> None:
    """Prints what came of comparing, as `verification` does, and where the page is."""
    if as_json:
        console.result(json.dumps(done.as_dict(), indent=2))
    else:
        _verified(console, done.verification)
        console.result(str(done.output))
    _troubles(console, done.verification)


def rebuilding(console: consoles.Console, done: Rebuilding, as_json: bool) -> None:
    """Prints whether each artifact is what the checkpoint gives, byte for byte."""
    if as_json:
        console.result(json.dumps(done.as_dict(), indent=2))
    else:
        columns = [Column("artifact", folds=True), Column("result")]
        rows: list[list[Cell]] = [
            [str(item.path), Verdict(item.result, item.passed)]
            for item in done.artifacts
        ]
        console.table(columns, rows)
        same = sum(item.passed for item in done.artifacts)
        total = counted(len(done.artifacts), "artifact")
        console.result(f"\n{same} of {total} the same, byte for byte")
    for item in done.artifacts:
        if item.error is not None:
            console.error(item.error)
        elif item.difference:
            lines = [item.difference]
            lines += [
                f"made with {library} {made}, here is {here}"
                for library, (made, here) in item.other_versions.items()
            ]
            console.error("\n  ".join([f"{item.path} is another:", *lines]))


def _verified(console: consoles.Console, done: Verification) -> None:
    compared = [(item, item.report) for item in done.artifacts if item.report]
    kinds = {(report.task, report.format) for _, report in compared}
    are_ours = not any(item.identified for item, _ in compared)
    are_told_apart = are_ours and len(kinds) == len(compared)
    columns = [
        Column("artifact", folds=True),
        Column("task", optional=0 if are_told_apart else 6),
        Column("format", optional=0 if are_told_apart else 5),
        *_PARITY_COLUMNS,
    ]
    rows: list[list[Cell]] = [
        [
            "" if are_told_apart else str(item.path),
            report.task,
            report.format,
            *_parity(item),
        ]
        for item, report in compared
    ]
    if rows:
        console.table(columns, rows)
    agreeing = sum(item.passed for item in done.artifacts)
    total = counted(len(done.artifacts), "artifact")
    console.result(f"\n{agreeing} of {total} agree with the checkpoint")


def _figures(output: OutputParity) -> tuple[str, str]:
    """Error and cosine of an output, each beside its limit if it has one."""
    from exporters import parity

    most, least = output.tolerance.max_error, output.tolerance.min_cosine
    error, cosine = (
        parity.figure(output.relative_error, most, 2),
        parity.figure(output.cosine, least),
    )
    return (
        f"{error} / {most:g}" if math.isfinite(most) else error,
        f"{cosine} / {least:g}" if least > 0 else cosine,
    )


def _parity(item: ExportedArtifact | VerifiedArtifact) -> list[Cell]:
    report = item.report
    if report is None:
        failed = item.error is not None
        return ["", "", "", "", Verdict(item.result, False) if failed else item.result]
    weights, main = report.weights, report.main
    error = cosine = top_1 = ""
    if main:
        error, cosine = _figures(main)
        top_1 = "" if main.top_1 is None else f"{main.top_1:.0%}"
    return [
        error,
        cosine,
        top_1,
        f"{weights.count - len(weights.wrong)}/{weights.count}",
        Verdict(item.result, report.passed),
    ]


def _differs(
    console: consoles.Console, path: Path, consequence: str, failures: Sequence[str]
) -> None:
    first = f"{path} does not agree with the checkpoint {consequence}".rstrip()
    console.error("\n".join([f"{first}:", *failures]))


def identification(
    console: consoles.Console, done: Identification, as_json: bool
) -> None:
    """Prints what each file holds, and whose weights."""
    if as_json:
        console.result(json.dumps(done.as_dict(), indent=2))
    for item in done.files:
        if item.error is not None:
            console.error(item.error)
        elif not as_json:
            console.result(f"{item.path}")
            console.fields(
                (name, value) for name, value in _identified(item) if value is not None
            )


def _identified(item: IdentifiedFile) -> Iterable[tuple[str, str | None]]:
    yield "form", item.form
    sure = "" if item.confidence == "none" else f" ({item.confidence})"
    yield "network", f"{item.network}{sure}"
    yield "kernels", f"{item.kernels}, {item.numbers:,} numbers"
    yield "precision", ", ".join(item.precision) or None
    if item.confidence != "none":
        if item.is_folded is not None:
            yield "batch norm", "folded" if item.is_folded else "on its own"
        yield "classes", "none" if item.classes is None else f"{item.classes:,}"
        yield "aux. head", "yes" if item.has_auxiliary_head else None
    if item.input_range:
        yield "images", "in [{:g}, {:g}]".format(*item.input_range)
    yield "stand-in", "yes" if item.is_stand_in else None
    if item.relation is not None:
        yield "weights", f"{_RELATIONS[item.relation]}"
        yield "matched", f"{item.matched} of {item.compared} layers"
    if item.not_compared:
        yield "not compared", ", ".join(item.not_compared)
    if item.matched and item.differences:
        lines = [_differing(difference) for difference in item.differences]
        more = len(lines) - _MOST_SKIPPED
        lines = lines[:_MOST_SKIPPED] + ([f"and {more} more"] if more > 0 else [])
        yield "differing", "\n".join(lines)


_RELATIONS = {
    "same": "the checkpoint's",
    "fine-tuned": "fine-tuned from the checkpoint's",
    "rearranged": "the checkpoint's, in other places",
    "partly": "some of the checkpoint's",
    "unrelated": "unrelated to the checkpoint's",
}


def _differing(difference: LayerDifference) -> str:
    scope = difference.layer.removeprefix("InceptionResnetV2/")
    what = {"place": "in another's place", "vectors": "biases or batch norm"}.get(
        difference.what, difference.what
    )
    if difference.difference is None:
        return f"{scope}: {what}"
    return f"{scope}: {what} by {difference.difference:.2g}"


def installed(
    console: consoles.Console, placed: Iterable[Installed], as_json: bool
) -> None:
    """Prints where artifacts were placed."""
    for item in placed:
        if item.warning:
            console.say(item.warning)
        for place, reason in item.kept.items():
            console.say(f"{place} is left as it is: {reason}")
        if not as_json:
            console.result(f"{item.handle}\n  {item.directory}")
    if as_json:
        facts = [
            {
                "handle": item.handle,
                "directory": str(item.directory),
                "replaced": item.replaced,
                "names": {name: str(place) for name, place in item.names.items()},
                "files": [str(file) for file in item.files],
                "kept": {str(place): why for place, why in item.kept.items()},
                "warning": item.warning,
            }
            for item in placed
        ]
        console.result(json.dumps({"installed": facts}, indent=2))


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
