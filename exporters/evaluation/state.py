"""What an evaluation has found so far, kept in a file: whoever interrupts it goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from checkpoints import files
from checkpoints.scratch import scratch_beside
from checkpoints.zip_archives import NPZ_DAMAGE
from exporters.errors import EvaluationError
from exporters.evaluation.locations import Location

MOST = 5
"""Of the classes that a network names first, so many are kept."""
NOT_RUN = -2
NO_NUMBERS = -1
"""In the place of classes, where logits are not finite or there are no more classes."""


@dataclasses.dataclass
class State:
    """Predictions for the first images of a dataset.

    Attributes:
      fingerprint: of the images, the models and all that has a part in the figures.
      top: int32 [models, images, 5], the classes named first; NOT_RUN, NO_NUMBERS.
      finished: number of images, from the first, that are done.
      problems: position of an image -> why it cannot be read.
      errors: number of a model -> why it does not go on.
    """

    fingerprint: str
    top: np.ndarray
    finished: int = 0
    problems: dict[int, str] = dataclasses.field(default_factory=dict)
    errors: dict[int, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def new(cls, fingerprint: str, models: int, images: int) -> State:
        """One of an evaluation that begins."""
        return cls(fingerprint, np.full((models, images, MOST), NOT_RUN, np.int32))

    def content(self) -> bytes:
        """The state as a file holds it."""
        facts = {
            "irv2_evaluation": 1,
            "fingerprint": self.fingerprint,
            "finished": self.finished,
            "problems": list(self.problems.items()),
            "errors": list(self.errors.items()),
        }
        file = io.BytesIO()
        np.savez(file, facts=json.dumps(facts), top=self.top)
        return file.getvalue()

    def save(self, path: Path) -> None:
        """Replaces the file at `path` by this state, at once.

        Raises:
          OSError: it cannot be written.
        """
        with scratch_beside(path) as scratch:
            written = scratch / "state.npz"
            written.write_bytes(self.content())
            files.sync(written)
            files.replace({written: path}, scratch)


def load(path: Location, fingerprint: str, models: int, images: int) -> State:
    """Reads a state.

    Raises:
      EvaluationError: the file is no state, or one of another evaluation.
      OSError, StorageError: it cannot be read.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        with np.load(content) as file:
            top = np.asarray(file["top"])  # Bytes, of what is no array.
            facts = files.parse_json(str(file["facts"]))
        state = State(
            facts["fingerprint"],
            top,
            int(facts["finished"]),
            {int(position): str(why) for position, why in facts["problems"]},
            {int(model): str(why) for model, why in facts["errors"]},
        )
    except (*NPZ_DAMAGE, LookupError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{path} is no state of an evaluation. Name another file, or remove it."
        ) from error
    fits = top.shape == (models, images, MOST) and top.dtype == np.int32
    if state.fingerprint != fingerprint or not fits or state.finished > images:
        raise EvaluationError(
            f"{path} is the state of an evaluation of other images, labels or artifacts. "
            "Name another file, or remove it to begin anew."
        )
    return state


def fingerprint(parts: Iterable[object]) -> str:
    """Returns a digest of what may not change while an evaluation is interrupted."""
    result = hashlib.sha256()
    for part in parts:
        result.update(f"{part!r}\n".encode("utf-8", "surrogateescape"))
    return result.hexdigest()
