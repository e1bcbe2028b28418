"""From labels as people write them to classes of a network.

Numbers are where most goes wrong: the network has 1001 classes, of which the first is
"background"; ImageNet has 1000, which some number from 0 and others from 1. So the
offset between the two is found only where the labels leave one possibility.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from exporters.errors import EvaluationError
from exporters.evaluation.datasets import Label
from exporters.labels import imagenet_synsets
from exporters.network.layers import NUM_CLASSES

_BACKGROUND = "background"
UNKNOWN = -1
_FEW = 3


@dataclasses.dataclass(frozen=True)
class Labelling:
    """The classes that labels stand for.

    Attributes:
      classes: int64 [count], a class of the network for each label; -1 if there is none.
      unknown: label without a class -> how many images have it.
      how: in a sentence, how labels became classes.
      offset: what was added to numbers; None where labels are no numbers.
    """

    classes: np.ndarray
    unknown: Mapping[str, int]
    how: str
    offset: int | None = None


def assign(
    labels: Sequence[Label | None],
    num_classes: int,
    names: Sequence[str] | None,
    *,
    offset: int | None = None,
    empty: Sequence[str] = (),
) -> Labelling:
    """Finds the class of each label.

    Labels are synsets (n01440764), names of classes ("tench", or "tench, Tinca tinca"),
    or numbers, also with a name behind ("7_seven"). All of them are of the one kind in
    which most have a class.

    Args:
      labels: one for each image.
      num_classes: of the network's classifier.
      names: of these classes, in their order.
      offset: to add to numbers; None to find it.
      empty: labels without images, which show how classes are numbered all the same.

    Raises:
      EvaluationError: labels do not tell how they are numbered, or none has a class.
    """
    distinct = list(dict.fromkeys([*(x for x in labels if x is not None), *empty]))
    found, how = ({}, "") if offset is not None else _by_name(distinct, names)
    synsets = _by_synset(distinct, num_classes)
    if len(synsets) > len(found):
        found, how = synsets, "Labels are synsets of ImageNet."
    numbers = {x: n for x in distinct if (n := _number(x)) is not None}
    if len(numbers) > len(found):
        if offset is None:
            offset, why = _find_offset(set(numbers.values()), num_classes, names)
        else:
            why = "as was asked"
        how = _offset_in_words(offset, why)
        found = {
            label: number + offset
            for label, number in numbers.items()
            if 0 <= number + offset < num_classes
        }
    elif offset is not None:
        raise EvaluationError(
            f"--label-offset has no effect on labels that are no numbers, such as "
            f"{_some(distinct)}."
        )
    classes = np.array([found.get(x, UNKNOWN) for x in labels], np.int64)  # type: ignore[arg-type]
    if not (classes >= 0).any():
        raise EvaluationError(
            f"No label is a class of the network, which has {num_classes}. Found: "
            f"{_some(distinct)}. Expected numbers, the names of classes (--labels) or, "
            f"for {NUM_CLASSES} classes, synsets such as n01440764."
        )
    unknown = Counter(
        "no label" if label is None else str(label)
        for label, number in zip(labels, classes)
        if number < 0
    )
    is_numbered = found.keys() <= numbers.keys() and offset is not None
    return Labelling(classes, dict(unknown), how, offset if is_numbered else None)


def _some(labels: Sequence[Label]) -> str:
    told = ", ".join(map(str, labels[:_FEW]))
    return f"{told}, ..." if len(labels) > _FEW else told or "none"


def _by_synset(labels: Sequence[Label], num_classes: int) -> dict[Label, int]:
    if num_classes != NUM_CLASSES:
        return {}
    known = {synset: number for number, synset in enumerate(imagenet_synsets())}
    return {x: known[x] for x in labels if isinstance(x, str) and x in known and x}


def _by_name(
    labels: Sequence[Label], names: Sequence[str] | None
) -> tuple[dict[Label, int], str]:
    """Finds labels among the names of classes, or their synonyms.

    A name that several classes have, as "crane" is a bird and a machine, is none.
    """
    full: dict[str, list[int]] = {}
    synonyms: dict[str, list[int]] = {}
    for number, name in enumerate(names or ()):
        full.setdefault(_plain(name), []).append(number)
        for synonym in name.split(","):
            synonyms.setdefault(_plain(synonym), []).append(number)
    found = {}
    for label in labels:
        for text in _texts(label):
            numbers = full.get(text) or synonyms.get(text) or []
            if len(numbers) == 1:
                found[label] = numbers[0]
                break
    return found, "Labels are names of classes."


def _texts(label: Label) -> list[str]:
    """What of a label may be a name: all of it, and what is behind a number."""
    whole = _plain(str(label))
    behind = re.fullmatch(r"\d+ (.+)", whole)
    return [whole, behind[1]] if behind else [whole]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _number(label: Label) -> int | None:
    if isinstance(label, int):
        return label
    found = re.fullmatch(r"(\d{1,9})(_.*)?", label)
    return int(found[1]) if found else None


def _find_offset(
    numbers: set[int], num_classes: int, names: Sequence[str] | None
) -> tuple[int, str]:
    """Finds what has to be added to numbers to make them classes, and says why."""
    has_background = bool(names) and _plain(names[0]) == _BACKGROUND  # type: ignore[index]
    if num_classes == NUM_CLASSES and names is None:
        has_background = True
    # Beyond all numberings, and so a label without a class.
    largest = num_classes - 1 if has_background else num_classes
    plausible = {number for number in numbers if 0 <= number <= largest}
    if not plausible:
        raise EvaluationError(
            f"No label is the number of a class: found {_some(sorted(numbers))}, "
            f"expected 0 to {largest}."
        )
    low, high = min(plausible), max(plausible)
    span = f"labels are {low} to {high}"
    if has_background:
        if high == largest:
            return 0, f"{span}, and the network's last class is {largest}"
        if low == 0:
            return 1, f"{span}, and no image is of the network's class 0, background"
        candidates = (
            "0 if they are numbers of the network's classes, of which 0 is background; "
            "1 if the first class behind background is 0"
        )
    else:
        if low == 0 and high == largest:
            raise EvaluationError(
                f"Labels are {low} to {high}, which are {num_classes + 1} classes; the "
                f"network has {num_classes}."
            )
        if low == 0:
            return 0, span
        if high == largest:
            return -1, f"{span}, and the network's classes are 0 to {num_classes - 1}"
        candidates = "0 if the first class is 0; -1 if it is 1"
    raise EvaluationError(
        f"It cannot be told how classes are numbered: {span}, and the network has "
        f"{num_classes} classes. Say what is to be added to a label to get a class of "
        f"the network, --label-offset: {candidates}."
    )


def _offset_in_words(offset: int, why: str) -> str:
    if offset == 0:
        return f"Labels are the numbers of the network's classes ({why})."
    sign = "+" if offset > 0 else "-"
    return f"A label {sign} {abs(offset)} is the number of the network's class ({why})."
