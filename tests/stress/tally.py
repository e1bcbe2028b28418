"""What was tried, and what went wrong."""

from __future__ import annotations

import collections
import dataclasses
import random
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from stress.commands import Outcome
from stress.workshop import Workshop

KINDS = ("wrong artifact", "hang", "crash", "traceback", "leftover", "exit code")
"""Of faults. None may happen."""
OF_COMMANDS = frozenset({0, 1, 2, 3, 4, 130})
"""The exit codes that `irv2 --help` lists, but for that of a fault of its own."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that must not happen.

    Attributes:
      kind: one of `KINDS`.
      case: what was tried, as exactly as it takes to try it again.
      detail: what happened.
    """

    kind: str
    case: str
    detail: str


@dataclasses.dataclass
class Tally:
    """What a section tried.

    Attributes:
      tried: what -> how often.
      faults: all that there were.
      skipped: what could not be tried on this machine -> why.
      seconds: how long it took.
    """

    tried: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    faults: list[Fault] = dataclasses.field(default_factory=list)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    def fault(self, kind: str, case: str, detail: object) -> None:
        """Notes a fault."""
        assert kind in KINDS
        self.faults.append(Fault(kind, case, str(detail).strip()))

    def add(self, other: Tally) -> None:
        """Notes what another has noted."""
        self.tried += other.tried
        self.faults += other.faults
        self.skipped |= other.skipped

    def check(
        self, case: str, done: Outcome, codes: Collection[int] = OF_COMMANDS
    ) -> bool:
        """Notes what is wrong with how a command ended; returns whether nothing is."""
        before = len(self.faults)
        screen = f"{done.out}\n{done.err}"
        if done.is_hanging:
            self.fault("hang", case, f"after {done.seconds:.0f} s: {screen[-2000:]}")
        elif done.signal is not None:
            self.fault("crash", case, f"signal {done.signal}: {screen[-500:]}")
        elif "Traceback (most recent call last)" in screen:
            self.fault("traceback", case, screen[-3000:])
        elif done.code not in codes:
            self.fault("exit code", case, f"{done.code}: {screen[-1000:]}")
        return len(self.faults) == before

    def check_left(self, case: str, directory: Path, expected: Collection[str]) -> bool:
        """Notes what is in a directory beside what is expected there."""
        found = {path.name for path in directory.iterdir()}
        left = found - set(expected)
        if left:
            self.fault("leftover", case, f"{directory} holds {sorted(left)}")
        return not left


@dataclasses.dataclass
class Plan:
    """How much a section is to try.

    Attributes:
      folder: an empty directory for it.
      shop: checkpoints and artifacts.
      seed: same seed, same cases.
      count: of cases; None for the section's own number.
      deadline: of `time.monotonic`; no case begins after it.
    """

    folder: Path
    shop: Workshop
    seed: int = 0
    count: int | None = None
    deadline: float = float("inf")

    def cases(self, name: str, count: int) -> Iterator[tuple[str, random.Random]]:
        """Gives what to call each case, and its own source of chance."""
        for number in range(self.count or count):
            if time.monotonic() > self.deadline:
                return
            case = f"{name} {number} of seed {self.seed}"
            yield case, random.Random(case)


Section = Callable[[Plan], Tally]
