"""May vectors of one artifact join an index that was made with another?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.files import PathLike
from exporters.errors import EvaluationError
from exporters.evaluation import vectors
from exporters.evaluation.vectors import Vectors
from exporters.progress import Note, Progress, Step, silent

NEIGHBOURS = (1, 10, 100)
MIN_COMMON, MIN_COSINE = 0.9, 0.99
"""What is asked of vectors that are to join another index: so many of the 10 nearest
neighbours in common, on average, and so large a cosine, on average."""

_JUDGED_BY = 10
_FEWEST = _JUDGED_BY + 2
_MOST_QUERIES = 1000
_AT_ONCE = 50
_ROUNDING = 1e-6
"""Copies of one image are as near as itself."""
_MOST_WORST = 20


@dataclasses.dataclass(frozen=True)
class FeatureComparison:
    """How the vectors of two artifacts go together.

    Attributes:
      first: where the vectors of the one are, which the index is of.
      second: where those of the other are.
      count: of images that both have.
      only_first: number of images that only the one has.
      only_second: number of images that only the other has.
      queries: number of images whose neighbours were looked for.
      mean_cosine: between an image's two vectors.
      min_cosine: the smallest of these.
      found_itself: share of queries whose nearest of all images is the image itself.
      common: k -> of the k nearest neighbours in the index, how many are the same for a
        query of the other artifact, on average; without k that are too large.
      rank_correlation: Spearman's, between the orders in which the two queries put the
        whole index, on average.
      worst: the images with the smallest cosines -> cosine.
      notes: what one should know beside the figures.
    """

    first: Path
    second: Path
    count: int
    only_first: int
    only_second: int
    queries: int
    mean_cosine: float
    min_cosine: float
    found_itself: float
    common: Mapping[int, float]
    rank_correlation: float
    worst: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def may_join(self) -> bool:
        """Whether the vectors may join the index; images must be enough to tell."""
        common = self.common.get(_JUDGED_BY, 0.0)
        return common >= MIN_COMMON and self.mean_cosine >= MIN_COSINE

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "may_join": self.may_join,
            "min_common": MIN_COMMON,
            "min_cosine": MIN_COSINE,
            **dataclasses.asdict(self),
            "first": str(self.first),
            "second": str(self.second),
            "common": {str(k): share for k, share in self.common.items()},
        }


def compare_features(
    first: PathLike, second: PathLike, *, progress: Progress = silent
) -> FeatureComparison:
    """Compares the vectors that two artifacts give for the same images.

    The vectors of the first are an index. Queries are at most 1000 images, evenly spread
    over all: each is looked up by its vector of the first, and by that of the second.
    Similarity is the cosine; the image itself is no neighbour.

    Args:
      first: a directory that `features` wrote, or one file of it.
      second: another.
      progress: told what is done.

    Raises:
      EvaluationError: these are no vectors, not of the same kind, or of fewer than twelve
        images in common.
      MissingLibraryError: Parquet needs pyarrow.
      OSError: files cannot be read.
    """
    first, second = Path(first), Path(second)
    progress(Step(f"read {first}"))
    one = vectors.read(first)
    progress(Step(f"read {second}"))
    other = vectors.read(second)
    _check(one, other, first, second)
    places = {name: place for place, name in enumerate(other.names)}
    common = [name for name in one.names if name in places]
    if len(common) < _FEWEST:
        raise EvaluationError(
            f"{first} and {second} have {len(common)} images in common; expected "
            f"{_FEWEST} or more, to tell by {_JUDGED_BY} neighbours."
        )
    notes = _notes(one, other)
    for note in notes:
        progress(Note(note))
    in_one = {name: place for place, name in enumerate(one.names)}
    index = _unit(one.values[[in_one[name] for name in common]])
    queries = _unit(other.values[[places[name] for name in common]])
    cosines = np.einsum("ij,ij->i", index, queries)
    cosines[(index == queries).all(axis=1)] = 1  # As where both are zero.
    worst = np.argsort(cosines, kind="stable")[:_MOST_WORST]
    figures = _neighbours(index, queries, progress)
    return FeatureComparison(
        first=first,
        second=second,
        count=len(common),
        only_first=len(one.names) - len(common),
        only_second=len(other.names) - len(common),
        mean_cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
        worst={common[place]: float(cosines[place]) for place in worst},
        notes=tuple(notes),
        **figures,
    )


def _check(one: Vectors, other: Vectors, first: Path, second: Path) -> None:
    if one.source.get("value") != other.source.get("value"):
        raise EvaluationError(
            f"{first} has vectors of {one.source.get('value')}, and {second} of "
            f"{other.source.get('value')}. Compare vectors of one kind."
        )
    if one.values.shape[1] != other.values.shape[1]:
        raise EvaluationError(
            f"{first} has vectors of {one.values.shape[1]} numbers, and {second} of "
            f"{other.values.shape[1]}."
        )
    for vectors_, path in ((one, first), (other, second)):
        if not np.isfinite(vectors_.values).all():
            raise EvaluationError(f"{path} has vectors that are not finite.")


def _notes(one: Vectors, other: Vectors) -> list[str]:
    notes = []
    for name, told in (
        ("checkpoint_identity", "of different checkpoints"),
        ("image_size", "of images of different sizes"),
    ):
        if one.source.get(name) != other.source.get(name):
            notes.append(f"The vectors are {told}.")
    if one.source.get("stand_in") or other.source.get("stand_in"):
        notes.append(
            "The vectors are those of a STAND-IN, whose weights are generated: they say "
            "nothing about the real network."
        )
    return notes


def _unit(values: np.ndarray) -> np.ndarray:
    """Returns vectors of length 1; those of length 0 stay so."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths == 0, 1, lengths)


def _neighbours(
    index: np.ndarray, queries: np.ndarray, progress: Progress
) -> dict[str, Any]:
    """Looks queries up in the index, by their own vectors there and by the others."""
    count = len(index)
    number = min(count, _MOST_QUERIES)
    chosen = np.arange(number) * count // number
    sizes = [k for k in NEIGHBOURS if k < count]
    shared = dict.fromkeys(sizes, 0.0)
    correlation = itself = 0.0
    for start in range(0, number, _AT_ONCE):
        rows = chosen[start : start + _AT_ONCE]
        own, others = index[rows] @ index.T, queries[rows] @ index.T
        with_itself = others[np.arange(len(rows)), rows]
        itself += int((with_itself >= others.max(axis=1) - _ROUNDING).sum())
        for row, one, other in zip(rows, own, others):
            one, other = np.delete(one, row), np.delete(other, row)
            first = np.argsort(-one, kind="stable")
            second = np.argsort(-other, kind="stable")
            for k in sizes:
                shared[k] += len(np.intersect1d(first[:k], second[:k])) / k
            correlation += _correlation(first, second)
        progress(Step("look up", done=min(start + _AT_ONCE, number), total=number))
    return {
        "queries": number,
        "found_itself": itself / number,
        "common": {k: total / number for k, total in shared.items()},
        "rank_correlation": correlation / number,
    }


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of two orders of the same things."""
    count = len(first)
    ranks = np.empty((2, count))
    ranks[0, first] = ranks[1, second] = np.arange(count)
    difference = ranks[0] - ranks[1]
    return float(1 - 6 * (difference**2).sum() / (count * (count**2 - 1)))
