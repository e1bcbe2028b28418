"""Compares an opened artifact with the TF-Slim graph restored from the checkpoint.

The reference never passes through a writer: it is the network of `exporters.network.inception_resnet_v2`,
with the checkpoint's arrays in its variables, run by TensorFlow. Weights are compared
too, since a single wrong one hardly shows in the outputs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.reader import Checkpoint
from exporters import formats, images, inference_graph
from exporters.artifact import ArtifactError, OpenedArtifact
from exporters.network.graphs import CLASSIFICATION, ENDPOINTS, NetworkGraphs

_TRAINING_PREFIX = "train/"
_TRAINING_FACTOR = 10
"""Batch statistics over few images amplify rounding; TensorFlow 1.15 and 2.21 differ by
4e-5 there, and by 1e-6 in evaluation."""
_TOP_5 = 5
_COUNT = 8
"""Number of images to compare on."""


@dataclasses.dataclass(frozen=True)
class OutputParity:
    """How one output agrees with the reference, over all images.

    Attributes:
      max_error: largest absolute difference.
      relative_error: the same, relative to the reference's largest magnitude.
      cosine: smallest cosine between an image's output and its reference.
      top_1: fraction of images with the same largest entry, for vectors.
      top_5: mean fraction of the reference's five largest entries among the output's.
      passed: whether the tolerance was met.
    """

    max_error: float
    relative_error: float
    cosine: float
    top_1: float | None
    top_5: float | None
    passed: bool


@dataclasses.dataclass(frozen=True)
class WeightParity:
    """How the artifact's weights agree with the checkpoint.

    Attributes:
      count: number of weight arrays that the checkpoint says there should be.
      wrong: what is wrong with each that does not agree.
    """

    count: int
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.wrong


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """All that was compared of one artifact.

    Attributes:
      format: name of the format.
      task: "feature_vector" or "classification".
      images: number of images at each size, such as {"299 x 299": 8}.
      main_output: name of the task's own output.
      outputs: output name -> figures.
      weights: the comparison of weights.
      problems: what else does not fit, such as another checkpoint's identity.
    """

    format: str
    task: str
    images: Mapping[str, int]
    main_output: str
    outputs: Mapping[str, OutputParity]
    weights: WeightParity
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return (
            bool(self.outputs)
            and all(output.passed for output in self.outputs.values())
            and self.weights.passed
            and not self.problems
        )

    @property
    def main(self) -> OutputParity:
        """The task's own output."""
        return self.outputs[self.main_output]

    def as_dict(self) -> dict:
        """The report as JSON values; figures that are not finite become None."""
        found = dataclasses.asdict(self, dict_factory=_without_infinities)
        return found | {"passed": self.passed}


def _without_infinities(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in fields
    }


class Reference(contextlib.AbstractContextManager):
    """The network as TF-Slim defines it, holding a checkpoint's weights."""

    def __init__(self, graphs: NetworkGraphs, checkpoint: Checkpoint):
        self.checkpoint = checkpoint
        self._graphs = graphs
        self._sessions: dict = {}
        self._outputs: dict[tuple[int, bool], dict[str, np.ndarray]] = {}
        self._batches: list[np.ndarray] = []

    def __exit__(self, *exception) -> None:
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def outputs(
        self, batch: np.ndarray, *, is_training: bool = False
    ) -> dict[str, np.ndarray]:
        """Runs the network; a batch that was run before is remembered.

        Args:
          batch: float32 [count, height, width, 3] in [0, 1].
          is_training: normalize by the batch's statistics.

        Returns:
          "feature_vector", and unless training "logits", "probabilities" and all
          endpoints as "InceptionResnetV2/<endpoint>".
        """
        key = (id(batch), is_training)
        if key not in self._outputs:
            self._batches.append(batch)  # Keeps its id from being given to another.
            self._outputs[key] = self._run(batch, is_training)
        return self._outputs[key]

    def _run(self, batch: np.ndarray, is_training: bool) -> dict[str, np.ndarray]:
        graph = self._graphs.get(is_training=is_training)
        if is_training not in self._sessions:
            self._sessions[is_training] = graph.start_session(self.checkpoint)
        fetches = {"feature_vector": graph.feature_vector}
        if not is_training:
            fetches |= {
                "logits": graph.endpoints["Logits"],
                "probabilities": graph.endpoints["Predictions"],
            }
            for name in ENDPOINTS[CLASSIFICATION]:
                fetches[f"InceptionResnetV2/{name}"] = graph.endpoints[name]
        return self._sessions[is_training].run(fetches, {graph.images: batch})

    def weights(self, task: str, is_folded: bool) -> Mapping[str, np.ndarray]:
        """The weights that an artifact of a task should hold."""
        if is_folded:
            return inference_graph.folded_weights(self.checkpoint, task)
        names = self._graphs.get().variable_names(task)
        return {name: self.checkpoint[name] for name in names}


class ParityImages:
    """The images to compare on, at whatever size an artifact takes.

    Attributes:
      description: where they come from, for the manifest and the screen.
    """

    def __init__(self, directory: Path | None = None):
        """Takes the images of a directory, as far as there are enough, or generates some.

        Raises:
          exporters.images.ImageError: the directory holds no readable images.
        """
        self._files = images.files_in(directory, _COUNT) if directory else []
        self._batches: dict[tuple[int, int, int], np.ndarray] = {}
        self.description = "generated images"
        if directory:
            found = len(self._files)
            self.description = f"{found} images of {directory.resolve().name}"
            if found < _COUNT:
                self.description += f" and {_COUNT - found} generated ones"
            self.batches(None)

    def batches(self, image_size: tuple[int, int] | None) -> list[np.ndarray]:
        """Returns 8 images of a fixed size; or 8 of 299 x 299 and 2 of 224 x 320."""
        if image_size is None:
            return [self._batch(_COUNT, 299, 299), self._batch(2, 224, 320)]
        return [self._batch(_COUNT, *image_size)]

    def _batch(self, count: int, height: int, width: int) -> np.ndarray:
        key = (count, height, width)
        if key not in self._batches:
            batch = images.generate(count, height, width, seed=1)
            files = self._files[:count]
            batch[: len(files)] = images.read(files, height, width)
            self._batches[key] = batch
        return self._batches[key]


def compare(
    artifact: OpenedArtifact, reference: Reference, parity_images: ParityImages
) -> ParityReport:
    """Runs an artifact and the reference on the same images and compares.

    Args:
      artifact: the artifact, opened.
      reference: the checkpoint's network.
      parity_images: what to run both on.

    Raises:
      ArtifactError: no output of the artifact is one of the network's.
    """
    tolerance = formats.FORMATS[artifact.format].tolerance
    expected: dict[str, list[np.ndarray]] = {}
    found: dict[str, list[np.ndarray]] = {}
    counts: dict[str, int] = {}
    unknown: dict[str, None] = {}  # A set in the order of the outputs.
    for batch in parity_images.batches(artifact.image_size):
        count, height, width, _ = batch.shape
        counts[f"{height} x {width}"] = count
        for name, value in artifact.run(batch).items():
            # "train/x" and "serving_default/x" are ways to compute the output "x".
            is_training = name.startswith(_TRAINING_PREFIX)
            known = reference.outputs(batch, is_training=is_training)
            plain = name if name in known else name.partition("/")[2]
            if plain not in known:
                unknown[name] = None
                continue
            expected.setdefault(name, []).append(known[plain])
            found.setdefault(name, []).append(np.asarray(value))
    if not expected:
        raise ArtifactError(
            f"no output of this {artifact.format} artifact is one of the network's. "
            f"Found: {', '.join(unknown) or 'none'}. Expected {artifact.task}'s."
        )
    outputs = {
        name: _compare_output(expected[name], found[name], _scaled(tolerance, name))
        for name in expected
    }
    problems = [f"output {name}: unexpected" for name in unknown]
    identity = reference.checkpoint.identity
    if artifact.checkpoint_identity not in (None, identity):
        problems.append(
            f"made of the checkpoint {artifact.checkpoint_identity[:12]}..., compared "
            f"with {identity[:12]}..."
        )
    if artifact.is_stand_in not in (None, reference.checkpoint.is_stand_in):
        said = "is" if artifact.is_stand_in else "is not"
        problems.append(f"says that it {said} a stand-in, unlike the checkpoint")
    return ParityReport(
        format=artifact.format,
        task=artifact.task,
        images=counts,
        main_output=next(iter(outputs)),
        outputs=outputs,
        weights=_compare_weights(artifact, reference),
        problems=tuple(problems),
    )


def _scaled(tolerance: formats.Tolerance, output: str) -> formats.Tolerance:
    if not output.startswith(_TRAINING_PREFIX):
        return tolerance
    return dataclasses.replace(
        tolerance, max_error=tolerance.max_error * _TRAINING_FACTOR
    )


def _compare_output(
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    tolerance: formats.Tolerance,
) -> OutputParity:
    if any(
        e.shape != f.shape or not np.isfinite(f).all() for e, f in zip(expected, found)
    ):
        return OutputParity(np.inf, np.inf, -1.0, None, None, passed=False)
    max_error = max(float(np.abs(e - f).max()) for e, f in zip(expected, found))
    magnitude = max(float(np.abs(e).max()) for e in expected)
    expected_rows = [row.ravel() for e in expected for row in e]
    found_rows = [row.ravel() for f in found for row in f]
    cosine = min(_cosine(e, f) for e, f in zip(expected_rows, found_rows))
    top_1 = top_5 = None
    if expected[0].ndim == 2:
        ranks = [
            (np.argsort(-e)[:_TOP_5], np.argsort(-f)[:_TOP_5])
            for e, f in zip(expected_rows, found_rows)
        ]
        top_1 = float(np.mean([e[0] == f[0] for e, f in ranks]))
        top_5 = float(np.mean([len(np.intersect1d(e, f)) / _TOP_5 for e, f in ranks]))
    relative_error = max_error / magnitude if magnitude else max_error
    return OutputParity(
        max_error=max_error,
        relative_error=relative_error,
        cosine=cosine,
        top_1=top_1,
        top_5=top_5,
        passed=relative_error <= tolerance.max_error and cosine >= tolerance.min_cosine,
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else float(not a.any() and not b.any())


def _compare_weights(artifact: OpenedArtifact, reference: Reference) -> WeightParity:
    expected = reference.weights(artifact.task, artifact.is_folded)
    found = artifact.weights()
    wrong = [f"{name}: unexpected" for name in found if name not in expected]
    for name, value in expected.items():
        if name not in found:
            wrong.append(f"{name}: missing")
            continue
        weight, allowed = found[name]
        if weight.shape != value.shape:
            wrong.append(
                f"{name}: shape {list(weight.shape)}, expected {list(value.shape)}"
            )
            continue
        error = np.abs(weight.astype(np.float64) - value)
        bad = ~(error <= allowed)  # NaN is bad as well.
        if bad.any():
            wrong.append(
                f"{name}: {np.count_nonzero(bad)} of {bad.size} values differ, by up "
                f"to {np.nanmax(error):.3g}"
            )
    return WeightParity(count=len(expected), wrong=tuple(sorted(wrong)))
