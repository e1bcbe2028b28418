"""What a verb tells while it works, for whoever wants to show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Step:
    """What is being done. Another name means that the step before is done, unless that
    goes on beside it.

    Attributes:
      name: of the step, such as "[3/22] feature_vector v3".
      state: what it is at, such as "write".
      done: how much of it is done, in `unit`.
      total: how much there is, where that is known.
      unit: what is counted.
      goes_on: whether it does so while others are done, until it is told of again.
      waits: whether nothing is done of it until it is told of again.
      passed: at the end, whether all is well, and `state` says so; None before.
      seconds: at the end, that it took, if not all the time since it was told of first.
    """

    name: str
    state: str = ""
    done: int | None = None
    total: int | None = None
    unit: Literal["", "bytes", "images"] = ""
    goes_on: bool = False
    waits: bool = False
    passed: bool | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Note:
    """Something that the user should know, in one sentence or a few."""

    text: str


Progress = Callable[[Step | Note], None]


def silent(event: Step | Note) -> None:
    """Shows nothing."""


def waiting_for(directory: Path, progress: Progress) -> Callable[[], None]:
    """Returns what tells that another process is at work in a directory."""
    return lambda: progress(Step(f"wait for the irv2 at work in {directory}"))


STAND_IN = Note(
    "This checkpoint is a STAND-IN: its weights are generated and classify nothing. "
    "What is made of it is marked as a stand-in."
)
MADE_OF_STAND_IN = Note(
    "This is made of a STAND-IN, whose weights are generated: what it says means nothing."
)
