"""What evaluations and features look like on the screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporters.command.console import Console
from exporters.command.tables import Cell, Column, Verdict
from exporters.command.units import counted, duration

if TYPE_CHECKING:
    from exporters.evaluation.comparing import FeatureComparison
    from exporters.evaluation.evaluating import (
        Agreement,
        EvaluatedArtifact,
        Evaluation,
    )
    from exporters.evaluation.features import Features

_MOST_NAMED = 10
_MOST_CLASSES = 20


def show(console: Console, done: Evaluation, as_json: bool) -> None:
    """Prints how often artifacts are right; what could not be used is said."""
    if as_json:
        console.result(json.dumps(done.as_dict(), indent=2))
    else:
        _figures(console, done)
    _unused(console, done)
    for why in done.without_card.values():
        console.say(why)
    if done.cards:
        console.say(f"{counted(len(done.cards), 'model card')} with these figures.")
    for item in done.artifacts:
        if item.error is not None:
            console.error(item.error)


def _figures(console: Console, done: Evaluation) -> None:
    agreements = {agreement.second: agreement for agreement in done.agreements}
    scored = [item for item in done.artifacts if item.top_1 is not None]
    columns = [
        Column("artifact", folds=True),
        Column("format", optional=1),
        Column("top-1", justify="right"),
        Column("top-5", justify="right"),
        Column("as the first", justify="right", optional=2),
        Column("result"),
    ]
    console.table(
        columns, [_row(item, agreements.get(item.name)) for item in done.artifacts]
    )
    rate = f", {done.count / done.seconds:.1f} images/s" if done.seconds > 1 else ""
    console.result(
        f"\n{counted(done.count, 'image')} of {done.images}, "
        f"{duration(done.seconds)}{rate}"
    )
    if done.is_published:
        from exporters.evaluation.evaluating import PUBLISHED

        console.result(
            f"Published for all {done.count:,} images: top-1 {PUBLISHED[0]:.1%}, "
            f"top-5 {PUBLISHED[1]:.1%}."
        )
    if scored:
        _classes(console, scored[0])
        _confusions(console, scored[0])
    for agreement in done.agreements:
        _differences(console, agreement)


def _row(item: EvaluatedArtifact, agreement: Agreement | None) -> list[Cell]:
    result: Cell = ""
    if item.error is not None:
        result = Verdict("failed", False)
    elif item.not_finite:
        result = Verdict(f"{item.not_finite} not finite", False)
    elif item.is_stand_in:
        result = "stand-in"
    return [
        item.name,
        f"{item.format} by {item.engine}" if item.engine else item.format or "",
        _percent(item.top_1),
        _percent(item.top_5),
        _percent(agreement.share if agreement else None),
        result,
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _classes(console: Console, item: EvaluatedArtifact) -> None:
    worst = sorted(item.per_class, key=lambda found: (found.top_1, found.number))
    is_all = len(worst) <= _MOST_CLASSES
    shown = item.per_class if is_all else worst[:_MOST_CLASSES]
    which = "Classes" if is_all else f"The {_MOST_CLASSES} classes most often missed"
    console.result(f"\n{which} by {item.name}:")
    columns = [
        Column("class", folds=True),
        Column("images", justify="right"),
        Column("top-1", justify="right"),
        Column("top-5", justify="right", optional=1),
    ]
    console.table(
        columns,
        [
            [
                found.name,
                str(found.count),
                _percent(found.top_1),
                "" if item.top_5 is None else _percent(found.top_5),
            ]
            for found in shown
        ],
    )


def _confusions(console: Console, item: EvaluatedArtifact) -> None:
    if not item.confusions:
        return
    console.result(f"\nMost confused by {item.name}:")
    columns = [
        Column("class", folds=True),
        Column("taken for", folds=True),
        Column("images", justify="right"),
    ]
    console.table(
        columns,
        [
            [found.label, found.predicted, str(found.count)]
            for found in item.confusions[:_MOST_NAMED]
        ],
    )


def _differences(console: Console, agreement: Agreement) -> None:
    if not agreement.differing:
        return
    console.result(
        f"\n{counted(len(agreement.differing), 'image')} for which {agreement.second} "
        f"says something else than {agreement.first}:"
    )
    columns = [
        Column("image", folds=True),
        Column("class", optional=1, folds=True),
        Column("the first says", folds=True),
        Column("it says", folds=True),
    ]
    console.table(
        columns,
        [
            [found.image, found.label, found.first, found.second]
            for found in agreement.differing[:_MOST_NAMED]
        ],
    )
    if more := agreement.differing[_MOST_NAMED:]:
        console.result(f"and {len(more):,} more; --json has all")


def _unused(console: Console, done: Evaluation) -> None:
    """Says what was not judged on, and why."""
    _listed(console, done.passed_over, "passed over", "because it is ")
    _listed(console, done.problems, "cannot be used", "")
    _listed(console, done.unreadable, "cannot be read", "")
    classes = {label: counted(count, "image") for label, count in done.unknown.items()}
    _listed(console, classes, "no class of the network", "")
    if done.empty:
        console.say(f"no image of {', '.join(done.empty[:_MOST_NAMED])}")
        if more := done.empty[_MOST_NAMED:]:
            console.say(f"nor of {len(more):,} more classes")
    if left := done.found - done.count:
        console.say(
            f"{left:,} of {counted(done.found, 'image')} have no part in the figures."
        )


def _listed(
    console: Console, found: Mapping[str, str], what: str, introduction: str
) -> None:
    items = list(found.items())
    for name, why in items[:_MOST_NAMED]:
        told = why if name in why else f"{name}, {introduction}{why}"
        console.say(f"{what}: {told}")
    if more := items[_MOST_NAMED:]:
        console.say(f"and {len(more):,} more; --json has all")


def features(console: Console, done: Features, as_json: bool) -> None:
    """Prints where vectors were written; what could not be used is said."""
    _listed(console, done.problems, "cannot be used", "")
    _listed(console, done.unreadable, "cannot be read", "")
    if done.unreadable:
        console.say(f"{counted(len(done.unreadable), 'image')} without a vector.")
    if as_json:
        console.result(json.dumps(done.as_dict(), indent=2))
        return
    total = done.written + done.before
    rate = f", {done.written / done.seconds:.1f} images/s" if done.seconds > 1 else ""
    console.say(f"{counted(total, 'vector')}, {done.written:,} of them new{rate}")
    console.result(str(done.output))


def comparison(console: Console, done: FeatureComparison, as_json: bool) -> None:
    """Prints how the vectors of two artifacts go together."""
    from exporters.evaluation.comparing import MIN_COMMON, MIN_COSINE

    if as_json:
        console.result(json.dumps(done.as_dict(), indent=2))
        return
    verdict = "may join" if done.may_join else "MAY NOT JOIN"
    console.fields(
        [
            ("images", f"{done.count:,} in both"),
            ("only in one", f"{done.only_first:,} and {done.only_second:,}"),
            ("cosine", f"{done.mean_cosine:.6f} on average"),
            ("smallest cosine", f"{done.min_cosine:.6f}"),
            ("found itself", _percent(done.found_itself)),
            *(
                (f"of {k} nearest", f"{share:.2%} the same")
                for k, share in done.common.items()
            ),
            ("rank correlation", f"{done.rank_correlation:.6f}"),
            ("verdict", Verdict(verdict, done.may_join)),
        ]
    )
    console.result(
        f"\nTo join, {MIN_COMMON:.0%} of 10 neighbours have to be the same, and the "
        f"cosine at least {MIN_COSINE:g}, on average. The worst images:"
    )
    rows: list[list[Cell]] = [
        [name, f"{cosine:.6f}"]
        for name, cosine in list(done.worst.items())[:_MOST_NAMED]
    ]
    console.table(
        [Column("image", folds=True), Column("cosine", justify="right")], rows
    )
