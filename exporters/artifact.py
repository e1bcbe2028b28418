"""An artifact in the hands of its consumer's library, the same for every format."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from exporters.errors import ArtifactError, is_of_the_machine
from exporters.network.quantization import Quantization
from exporters.network.tasks import Task
from exporters.record import Record
from exporters.windows import Window


@dataclasses.dataclass(frozen=True)
class Output:
    """What one output of an artifact should be.

    Attributes:
      value: name of the reference's value that it equals; see
        `exporters.reference.Reference.outputs`.
      is_training: whether it is normalized by the statistics of the batch.
      step: what its values are multiples of, 0 for floats.
    """

    value: str
    is_training: bool = False
    step: float = 0.0


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """A weight as an artifact holds it.

    Attributes:
      values: float32, float16, int8 or int32, in TensorFlow's layout.
      quantization: what integers stand for, None for floats.
    """

    values: np.ndarray
    quantization: Quantization | None = None


@dataclasses.dataclass(frozen=True)
class Sections:
    """An artifact cut behind some of its layers, to see and to feed what is inside.

    Its numbers and operators are as they were, and its own library runs them. Arrays are
    float32, in TensorFlow's layout; what is integers inside is given as what these stand
    for.

    Attributes:
      layers: behind which it is cut, from first to last.
      through: images, as `OpenedArtifact.run` takes them -> layer -> what the artifact
        makes of them up to there.
      apart: images, and layer -> what its output is to be -> layer -> what the section
        before it makes of the output given for the layer before.
    """

    layers: tuple[str, ...]
    through: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    apart: Callable[[np.ndarray, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


TRAINED = "train/feature_vector"
"""Output that is normalized by the statistics of the batch."""
MOVED = "train/moving_averages"
"""Output with the moving averages after one step of training, by `MOMENTUM`."""
MOMENTUM = 0.5
"""Batch norm's, where training is compared: averages move half way."""


def nothing() -> None:
    """What there is to close by default."""


@dataclasses.dataclass(frozen=True)
class OpenedArtifact(contextlib.AbstractContextManager):
    """An artifact opened by its consumer's library; a context that closes it.

    Attributes:
      format: name of its row in `exporters.formats`.
      task: what it is for.
      record: what it says about itself, None if another tool made it.
      image_size: the (height, width) it is bound to, None if any will do.
      outputs: name -> what it should be, of all that `run` and `train` return; the task's
        own output comes first.
      run: images, float32 [batch, height, width, 3] in [0, 1] -> output name -> array.
        It raises `MissingLibraryError` where its library is an extra that is not there.
      train: the same for outputs of a step of training, which leaves no trace; None where
        there are none.
      main_only: the same as `run` but for the outputs beside the task's own, where these
        cost more than taking them; None where `run` is as quick.
      computations: returns output name -> what stands for all that it is computed of,
        numbers as well, of those where that can be told: in two artifacts that have the
        same, the same library computes the same of the same images.
      weights: returns name -> weight, as the checkpoint names them; or, if `is_folded`,
        "<scope>/weights" and "<scope>/biases" for each layer.
      activations: returns layer -> the quantization of its output, for those that are
        quantized.
      windows: returns layer -> how it moves over what it reads, of convolutions and pools,
        by `exporters.windows.key`; nothing where that is not told apart from the network.
      input_range: values of black and white in the images that the file itself takes.
      is_folded: whether batch norm is folded into the weights.
      first_class: of the checkpoint's classes that it has; those before are left out.
      labels: returns the names of its classes, none if it names none; None where a format
        has no place for them.
      check: returns in words what else is wrong, that outputs and weights do not show.
      sections: cuts it behind those of some layers, named in order, that it has; None
        where the format cannot be cut.
      close: frees what the library holds.
    """

    format: str
    task: Task
    record: Record | None
    image_size: tuple[int, int] | None
    outputs: Mapping[str, Output]
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    weights: Callable[[], Mapping[str, StoredWeight]]
    train: Callable[[np.ndarray], Mapping[str, np.ndarray]] | None = None
    main_only: Callable[[np.ndarray], Mapping[str, np.ndarray]] | None = None
    computations: Callable[[], Mapping[str, bytes]] = dict
    activations: Callable[[], Mapping[str, Quantization]] = dict
    windows: Callable[[], Mapping[str, Window]] = dict
    input_range: tuple[float, float] = (0.0, 1.0)
    is_folded: bool = False
    first_class: int = 0
    labels: Callable[[], Sequence[str]] | None = None
    check: Callable[[], list[str]] = list
    sections: Callable[[Sequence[str]], Sections] | None = None
    close: Callable[[], None] = nothing

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns the task's own output for images; see `run`."""
        found = (self.main_only or self.run)(images)
        return found[next(iter(self.outputs))]

    def __exit__(self, *exception: object) -> None:
        self.close()


def moving_averages(variables: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns all moving averages in one row, in the order of their names.

    Args:
      variables: name -> array; others are left out.
    """
    names = sorted(name for name in variables if "/moving_" in name)
    return np.concatenate([variables[name].ravel() for name in names])[np.newaxis]


@contextlib.contextmanager
def reading(path: Path, kind: str, library: str) -> Iterator[None]:
    """Turns what a library raises about a file into an error of ours.

    Args:
      path: the artifact.
      kind: what it is read as, such as "a TF1 Hub module".
      library: the consumer's.

    Raises:
      ArtifactError: the library raised something that is not this machine's fault.
    """
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:
        if is_of_the_machine(error):
            raise
        raise ArtifactError(
            f"{path} cannot be read as {kind}; it is incomplete or damaged: export it "
            f"again. {library} says: {first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
