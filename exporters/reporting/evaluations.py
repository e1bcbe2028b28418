"""What `irv2 evaluate --json` wrote, as far as it is of the artifacts at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoints import files
from exporters.errors import EvaluationError
from exporters.evaluation.evaluating import Disagreement

_MOST_DIFFERING, _MOST_CLASSES, _MOST_CONFUSIONS = 24, 10, 10


@dataclasses.dataclass(frozen=True)
class Score:
    """How often an artifact is right.

    Attributes:
      count: of images that it was judged on.
      top_1: share of them with the right class first.
      top_5: share of them with the right class among the first five, if there are more.
      agreement: share of them with the same class first as the first artifact; None for
        that one.
      differing: number of the other images.
      differences: some of these.
      missed: name of a class -> (images, top-1), of the classes most often missed.
      confusions: (class, taken for, images), of the most frequent.
    """

    count: int
    top_1: float
    top_5: float | None
    agreement: float | None = None
    differing: int = 0
    differences: tuple[Disagreement, ...] = ()
    missed: Mapping[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    confusions: tuple[tuple[str, str, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class ReadEvaluation:
    """An evaluation that was read.

    Attributes:
      file: where it was.
      images: where its images were.
      layout: in which form, in words.
      count: of images that artifacts were judged on.
      found: number of images that there were.
      labelling: in a sentence, how labels became classes.
      first: what the others are compared with.
      scores: digest of an artifact's files, or the checkpoint's identity -> its score.
      names: digest, likewise -> the name that it had.
      published: top-1 and top-5 that were published for these images, if any were.
    """

    file: Path
    images: str
    layout: str
    count: int
    found: int
    labelling: str
    first: str | None
    scores: Mapping[str, Score]
    names: Mapping[str, str]
    published: tuple[float, float] | None = None


def read(file: Path) -> ReadEvaluation:
    """Reads what `irv2 evaluate --json` printed.

    Raises:
      EvaluationError: it is something else.
      OSError: it cannot be read.
    """
    try:
        return _parsed(file, files.read_json(file))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{file} is no evaluation of this irv2. Expected what `irv2 evaluate --json` "
            f"prints; found {type(error).__name__}: {error}"
        ) from error


def _parsed(file: Path, facts: Mapping[str, Any]) -> ReadEvaluation:
    agreements = {found["second"]: found for found in facts["agreements"]}
    scored = [item for item in facts["artifacts"] if item["top_1"] is not None]
    names = {str(item["digest"]): str(item["name"]) for item in scored}
    published = facts.get("published")
    return ReadEvaluation(
        file=file,
        images=str(facts["images"]),
        layout=str(facts["layout"]),
        count=int(facts["count"]),
        found=int(facts["found"]),
        labelling=str(facts["labelling"]),
        first=next(iter(names.values()), None),
        scores={
            str(item["digest"]): _score(item, agreements.get(item["name"]))
            for item in scored
        },
        names=names,
        published=(float(published["top_1"]), float(published["top_5"]))
        if published
        else None,
    )


def _score(item: Mapping[str, Any], agreement: Mapping[str, Any] | None) -> Score:
    differing = agreement["differing"] if agreement else []
    missed = sorted(
        (found for found in item["per_class"] if found["top_1"] < 1),
        key=lambda found: (found["top_1"], found["number"]),
    )
    return Score(
        count=int(item["count"]),
        top_1=float(item["top_1"]),
        top_5=None if item["top_5"] is None else float(item["top_5"]),
        agreement=float(agreement["share"]) if agreement else None,
        differing=len(differing),
        differences=tuple(
            Disagreement(
                *(str(found[name]) for name in ("image", "label", "first", "second"))
            )
            for found in differing[:_MOST_DIFFERING]
        ),
        missed={
            str(found["name"]): (int(found["count"]), float(found["top_1"]))
            for found in missed[:_MOST_CLASSES]
        },
        confusions=tuple(
            (str(found["label"]), str(found["predicted"]), int(found["count"]))
            for found in item["confusions"][:_MOST_CONFUSIONS]
        ),
    )
