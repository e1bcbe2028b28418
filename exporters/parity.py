"""Compares an opened artifact with the TF-Slim graph restored from the checkpoint.

Outputs are compared on images; weights are compared as well, every number of them, since
a single wrong one hardly shows in the outputs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.files import PathLike
from exporters import images as image_files
from exporters import weight_parity, windows
from exporters.artifact import OpenedArtifact, Output
from exporters.errors import MissingLibraryError
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.network.quantization import Precision
from exporters.progress import Progress, Step
from exporters.reference import Reference
from exporters.weight_parity import WeightParity

_TRAINING_FACTOR = 10
"""Batch statistics over few images amplify rounding; TensorFlow 1.15 and 2.21 differ by
4e-5 there, and by 1e-6 in evaluation."""
_TOP_5 = 5
_MOST_LINES = 3
"""Of a kind, when failures are told."""
_COUNT = 8
"""Number of images to compare on."""
_MOST_PIXELS = 1 << 20
"""Of the images that are run at once; bounds memory."""
_LEAST_PROBABILITY = 1e-6
"""Smaller ones count as this; float16 does not tell them apart."""


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from the TF-Slim graph it was made of.

    Attributes:
      max_error: largest absolute error allowed, relative to the output's largest
        magnitude.
      min_cosine: smallest cosine allowed between an image's output and its reference.
    """

    max_error: float
    min_cosine: float

    def of(self, output: Output, image_size: tuple[int, int] | None) -> Tolerance:
        """Returns the tolerance of an output, for images of a size."""
        factor = _TRAINING_FACTOR if output.is_training else 1
        return Tolerance(self.max_error * factor, self.min_cosine)


@dataclasses.dataclass(frozen=True)
class ToleranceWithExceptions(Tolerance):
    """The same, with other limits for some outputs.

    Attributes:
      outputs: TF-Slim's name of an endpoint -> its own tolerance.
      of_small: for images smaller than 299 x 299; None if they are no exception.
    """

    outputs: Mapping[str, Tolerance] = dataclasses.field(hash=False)
    of_small: Tolerance | None = None

    def of(self, output: Output, image_size: tuple[int, int] | None) -> Tolerance:
        """Returns the tolerance of an output, for images of a size."""
        is_small = image_size and math.prod(image_size) < DEFAULT_IMAGE_SIZE**2
        if is_small and self.of_small:
            return self.of_small.of(output, image_size)
        own = self.outputs.get(_endpoint(output))
        return own.of(output, image_size) if own else super().of(output, image_size)


@dataclasses.dataclass(frozen=True)
class LooseInTraining(Tolerance):
    """The same, of libraries that compute the statistics of a batch in their own way.

    TensorFlow's fused batch norm, TF-Slim's, rounds more than they do, which channels that
    are almost dead in a trained network show. Beside float64, features of a network trained
    on digits, 8 images of 299 x 299, were wrong by 1.1e-3 in TF-Slim's graph and by
    3.5e-4 without the fused op, which gives Keras's numbers.
    """

    def of(self, output: Output, image_size: tuple[int, int] | None) -> Tolerance:
        """Returns the tolerance of an output, for images of a size."""
        factor = _TRAINING_FACTOR**2 if output.is_training else 1
        return Tolerance(self.max_error * factor, self.min_cosine)


@dataclasses.dataclass(frozen=True)
class OutputParity:
    """How one output agrees with the reference, over all images.

    Probabilities are compared as logits: their logarithms, less the mean. What an
    output says in steps may be half a step off, which is not counted.

    Attributes:
      max_error: largest absolute difference.
      relative_error: the same, relative to the reference's largest magnitude.
      cosine: smallest cosine between an image's output and its reference.
      top_1: fraction of images with the same largest entry, for classes.
      top_5: mean fraction of the reference's five largest entries among the output's.
      tolerance: what was asked of it.
    """

    max_error: float
    relative_error: float
    cosine: float
    top_1: float | None
    top_5: float | None
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether the tolerance was met."""
        return (
            self.relative_error <= self.tolerance.max_error
            and self.cosine >= self.tolerance.min_cosine
        )

    def in_words(self) -> str:
        """Says what was found, and what was asked."""
        most, least = self.tolerance.max_error, self.tolerance.min_cosine
        error, cosine = figure(self.relative_error, most), figure(self.cosine, least)
        error_limit = f" (at most {most:g})" if math.isfinite(most) else ""
        cosine_limit = f" (at least {least:g})" if least > -1 else ""
        return (
            f"error {error} of the largest magnitude{error_limit}, "
            f"cosine {cosine}{cosine_limit}"
        )


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """All that was compared of one artifact.

    Attributes:
      format: name of the format.
      task: name of the task.
      images: number of images at each size, such as {"299 x 299": 8}.
      main_output: name of the task's own output.
      outputs: output name -> figures.
      weights: the comparison of weights.
      problems: what else does not fit, such as another checkpoint's identity.
      not_run: why outputs were not compared, None if they were.
      notes: how another tool's file was read, and what of it was not compared.
    """

    format: str
    task: str
    images: Mapping[str, int]
    main_output: str
    outputs: Mapping[str, OutputParity]
    weights: WeightParity
    problems: tuple[str, ...] = ()
    not_run: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return (
            (self.main_output in self.outputs or self.not_run is not None)
            and all(output.passed for output in self.outputs.values())
            and self.weights.passed
            and not self.problems
        )

    @property
    def main(self) -> OutputParity | None:
        """The task's own output, None if the artifact does not have it."""
        return self.outputs.get(self.main_output)

    def failures(self) -> list[str]:
        """Says in words what did not pass."""
        outputs = [
            f"output {name}: {output.in_words()}"
            for name, output in self.outputs.items()
            if not output.passed
        ]
        weights = [f"weight {line}" for line in self.weights.wrong]
        return [
            *_shortened(self.problems, "problems"),
            *_shortened(outputs, f"outputs of {len(self.outputs)}"),
            *_shortened(weights, f"weights of {self.weights.count}"),
        ]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values; figures that are not finite become None."""
        found = dataclasses.asdict(self, dict_factory=without_infinities)
        for name, output in self.outputs.items():
            found["outputs"][name]["passed"] = output.passed
        return found | {"passed": self.passed}


def result(report: ParityReport | None, error: str | None) -> str:
    """Says in a word what came of an artifact.

    Args:
      report: the comparison with the checkpoint, None if there was none.
      error: why it could not be made or read, None if it could.
    """
    if error is not None:
        return "FAILED"
    if report is None:
        return "not compared"
    if not report.passed:
        return "DIFFERS"
    return "agrees" if report.not_run is None else "weights agree"


def figure(value: float, limit: float, fewest: int = 4) -> str:
    """A number in a few digits, and as many as it takes to tell it from its limit."""
    for digits in range(fewest, 17):
        text = f"{value:.{digits}g}"
        if np.sign(float(text) - limit) == np.sign(value - limit):
            break
    return text


def _shortened(lines: Sequence[str], what: str) -> list[str]:
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], *([f"and {more} more {what}"] if more > 0 else [])]


def without_infinities(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes the JSON values of a dataclass; numbers that are not finite become None."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in fields
    }


class ParityImages:
    """The images to compare on, at whatever size an artifact takes.

    Attributes:
      description: where they come from, for the manifest and the screen.
      note: in words, what could not be read; None for nothing.
    """

    def __init__(self, directory: Path | None = None):
        """Takes the images of a directory, as far as there are enough, or generates some.

        Raises:
          exporters.images.ImageError: the directory holds no readable images.
        """
        self._files: tuple[Path, ...] = ()
        self._batches: dict[tuple[int, int, int], list[np.ndarray]] = {}
        self.description = "generated images"
        self.note = None
        if directory:
            found = image_files.read_directory(directory, limit=_COUNT)
            self._files = found.files
            self.note = found.note(directory)
            count = len(found.files)
            self.description = image_files.description(count, directory)
            if count < _COUNT:
                self.description += f" and {_COUNT - count} generated ones"
            self.batches(None)

    def name(self, number: int) -> str:
        """What to call an image, by its number in a batch."""
        if number < len(self._files):
            return self._files[number].name
        return f"generated {number + 1}"

    def batches(self, image_size: tuple[int, int] | None) -> list[np.ndarray]:
        """Returns 8 images of a fixed size; or 8 of 299 x 299 and 2 of 224 x 320.

        They come in one batch a size, unless they are large.
        """
        if image_size is None:
            default = self._of_size(_COUNT, DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
            return default + self._of_size(2, 224, 320)
        return self._of_size(_COUNT, *image_size)

    def _of_size(self, count: int, height: int, width: int) -> list[np.ndarray]:
        key = (count, height, width)
        if key not in self._batches:
            whole = image_files.generate(count, height, width, seed=1)
            files = self._files[:count]
            if files:
                whole[: len(files)] = image_files.read(files, height, width)
            at_once = max(1, _MOST_PIXELS // (height * width))
            self._batches[key] = [
                whole[start : start + at_once] for start in range(0, count, at_once)
            ]
        return self._batches[key]


def as_parity_images(
    images: PathLike | ParityImages | None, progress: Progress
) -> ParityImages:
    """Returns images to compare on: those given, of a directory, or generated ones.

    Raises:
      exporters.images.ImageError: the directory holds no readable images.
    """
    if isinstance(images, ParityImages):
        return images
    if images is None:
        return ParityImages()
    progress(Step("read images"))
    return ParityImages(Path(images))


def compare(
    artifact: OpenedArtifact,
    reference: Reference,
    parity_images: ParityImages,
    tolerance: Tolerance,
    precision: Precision | None = None,
    labels: Sequence[str] | None = None,
) -> ParityReport:
    """Runs an artifact and its reference on the same images, and compares weights.

    Args:
      artifact: opened with its consumer's library.
      reference: the checkpoint's network.
      parity_images: what to run both on.
      tolerance: what its format promises of outputs.
      precision: what its format promises of numbers; None if it holds the
        checkpoint's variables as they are.
      labels: names of the checkpoint's classes, None if they are not known.
    """
    reference.check_has({output.value for output in artifact.outputs.values()})
    problems = _problems_with_record(artifact, reference)
    problems += _problems_with_labels(artifact, labels)
    problems += artifact.check()
    endpoints = [_endpoint(output) for output in artifact.outputs.values()]
    if found := artifact.windows():
        problems += windows.problems(found, reference.network.up_to(endpoints))
    weights = artifact.weights()
    wanted = reference.weights(
        artifact.task,
        is_folded=artifact.is_folded,
        input_range=artifact.input_range,
        first_class=artifact.first_class,
    )
    if precision is None:
        compared = weight_parity.compare_weights(weights, wanted)
    else:
        rounded = artifact.activations()
        is_rounded = precision.activations == "int8"
        batch = parity_images.batches(artifact.image_size)[0]
        activations = reference.activations(batch) if is_rounded else None
        compared = weight_parity.compare_folded_weights(
            weights,
            wanted,
            network=reference.network,
            precision=precision,
            rounded=rounded,
            activations=activations,
        )
        problems += weight_parity.activation_problems(
            rounded,
            network=reference.network.up_to(endpoints),
            precision=precision,
            activations=activations,
            input_range=artifact.input_range,
        )
    del weights, wanted  # Half a gigabyte.
    # Last, since another process may still be computing what they should be.
    outputs = compare_outputs(artifact, reference, parity_images, tolerance)
    return ParityReport(
        format=artifact.format,
        task=artifact.task.name,
        images=outputs.images,
        main_output=next(iter(artifact.outputs)),
        outputs=outputs.figures,
        weights=compared,
        problems=(*outputs.problems, *problems),
        not_run=outputs.not_run,
    )


@dataclasses.dataclass(frozen=True)
class ComparedOutputs:
    """How the outputs of an artifact agree with the reference.

    Attributes:
      images: number of images at each size, such as {"299 x 299": 8}.
      figures: output name -> figures.
      problems: outputs that are missing, or are not expected.
      not_run: why outputs were not compared, None if they were.
    """

    images: Mapping[str, int]
    figures: Mapping[str, OutputParity]
    problems: tuple[str, ...]
    not_run: str | None


def compare_outputs(
    artifact: OpenedArtifact,
    reference: Reference,
    parity_images: ParityImages,
    tolerance: Tolerance,
) -> ComparedOutputs:
    """Runs an artifact and its reference on the same images; see `compare`."""
    figures: dict[str, list[_Figures]] = {}
    counts: dict[str, int] = {}
    unknown: set[str] = set()
    missing: set[str] = set()
    not_run = None
    problems: list[str] = []
    computed = artifact.computations()
    for batch in parity_images.batches(artifact.image_size):
        compared = _Compared(artifact, reference, batch, computed)
        try:
            if not compared.of(artifact.run, is_training=False):
                problems += compared.problems_of_one_image(tolerance)
            compared.of(artifact.train or _nothing, is_training=True)
        except MissingLibraryError as error:
            not_run = str(error)
            break
        count, height, width, _ = batch.shape
        size = f"{height} x {width}"
        counts[size] = counts.get(size, 0) + count
        unknown |= compared.unknown
        missing |= compared.missing
        for name, found in compared.figures.items():
            figures.setdefault(name, []).append(found)
    problems += [f"output {name}: unexpected" for name in sorted(unknown)]
    problems += [f"output {name}: missing" for name in sorted(missing)]
    return ComparedOutputs(
        images=counts,
        figures={
            name: _parity(figures[name], tolerance.of(output, artifact.image_size))
            for name, output in artifact.outputs.items()
            if name in figures
        },
        problems=tuple(problems),
        not_run=not_run,
    )


def _nothing(images: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of training where there are none; those that are expected are missing."""
    return {}


class _Compared:
    """Outputs of an artifact, of one batch, beside the reference.

    Attributes:
      figures: output name -> how it agrees.
      unknown: names of outputs that are not expected.
      missing: names of those that are, and are not there.
    """

    def __init__(
        self,
        artifact: OpenedArtifact,
        reference: Reference,
        batch: np.ndarray,
        computed: Mapping[str, bytes],
    ) -> None:
        """Runs nothing yet.

        Args:
          artifact: what is compared.
          reference: what with.
          batch: the images.
          computed: what stands for what outputs are computed of, where that can be told.
        """
        self.figures: dict[str, _Figures] = {}
        self.unknown: set[str] = set()
        self.missing: set[str] = set()
        self._artifact = artifact
        self._reference = reference
        self._batch = batch
        digest = hashlib.sha256(batch.data).digest()
        if computed.keys() - artifact.outputs.keys():  # There are unexpected ones.
            computed = {}
        self._keys = {
            name: (found, artifact.outputs[name], artifact.first_class, digest)
            for name, found in computed.items()
        }

    def of(
        self,
        run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
        *,
        is_training: bool,
    ) -> bool:
        """Compares the outputs of training, or those of evaluation.

        Returns:
          Whether they were run: not if each is computed as an output was that has been
          compared with this reference.
        """
        outputs = self._outputs(is_training)
        known = self._reference.compared
        keys = {name: self._keys.get(name) for name in outputs}
        if outputs and all(key in known for key in keys.values()):
            self.figures |= {name: known[key] for name, key in keys.items()}
            return False
        found = self._run(run, self._batch, outputs)
        count = len(self._batch)
        for name, figures in self._compared(found, count, is_training=is_training):
            self.figures[name] = figures
            if key := keys[name]:
                known[key] = figures
        return True

    def problems_of_one_image(self, tolerance: Tolerance) -> list[str]:
        """Runs the artifact on one image alone; says what is wrong with any output.

        What outputs are computed of does not say whether the library runs them at all.
        """
        outputs = self._outputs(is_training=False)
        found = self._run(self._artifact.run, self._batch[:1], outputs)
        problems = []
        for name, figures in self._compared(found, 1, is_training=False):
            limits = tolerance.of(outputs[name], self._artifact.image_size)
            parity = _parity([figures], limits)
            if not parity.passed:
                problems.append(f"output {name} of one image: {parity.in_words()}")
        return problems

    def _outputs(self, is_training: bool) -> dict[str, Output]:
        return {
            name: output
            for name, output in self._artifact.outputs.items()
            if output.is_training is is_training
        }

    def _run(
        self,
        run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
        images: np.ndarray,
        outputs: Mapping[str, Output],
    ) -> dict[str, np.ndarray]:
        """Returns the outputs that are expected, and notes what is not as it should be."""
        found = run(images)
        self.unknown |= found.keys() - outputs.keys()
        self.missing |= outputs.keys() - found.keys()
        return {name: found[name] for name in outputs if name in found}

    def _compared(
        self, found: Mapping[str, np.ndarray], count: int, *, is_training: bool
    ) -> Iterator[tuple[str, _Figures]]:
        """Compares outputs of the first so many images of the batch."""
        if not found:
            return
        wanted = {self._artifact.outputs[name].value for name in found}
        expected = self._reference.outputs(self._batch, wanted, is_training=is_training)
        for name, values in found.items():
            output = self._artifact.outputs[name]
            value = expected[output.value][:count]
            if is_classes(output):
                value = value[..., self._artifact.first_class :]
            yield name, _figures(output, value, np.asarray(values))


def compare_main(
    artifact: OpenedArtifact,
    reference: Reference,
    parity_images: ParityImages,
    tolerance: Tolerance,
) -> OutputParity:
    """Runs an artifact and its reference, and compares the task's own output alone."""
    output = next(iter(artifact.outputs.values()))
    figures = []
    for batch in parity_images.batches(artifact.image_size):
        expected = reference.outputs(batch, [output.value])[output.value]
        figures.append(_figures(output, expected, artifact.predict(batch)))
    return _parity(figures, tolerance)


_ENDPOINTS = {
    "feature_vector": "PreLogitsFlatten",
    "logits": "Logits",
    "probabilities": "Predictions",
}


def is_main(output: Output) -> bool:
    """Whether an output is what a task is for, and no endpoint beside it."""
    return output.value in _ENDPOINTS


def is_classes(output: Output) -> bool:
    """Whether the entries of an output are classes, of which one is the largest."""
    return _endpoint(output) in ("Logits", "AuxLogits", "Predictions")


def _endpoint(output: Output) -> str:
    return _ENDPOINTS.get(output.value, output.value)


def _problems_with_record(artifact: OpenedArtifact, reference: Reference) -> list[str]:
    record, checkpoint = artifact.record, reference.checkpoint
    if record is None:
        return []
    problems = []
    if not record.is_of(checkpoint):
        problems.append(
            f"made of the checkpoint {record.checkpoint_identity[:12]}..., compared "
            f"with {checkpoint.identity[:12]}..."
        )
    if record.stand_in is not checkpoint.is_stand_in:
        said = "is" if record.stand_in else "is not"
        problems.append(f"says that it {said} a stand-in, unlike the checkpoint")
    return problems


def compare_output(
    output: Output, expected: np.ndarray, found: np.ndarray, tolerance: Tolerance
) -> OutputParity:
    """Compares what an artifact gave for a batch with what it should be."""
    return _parity([_figures(output, expected, found)], tolerance)


def _problems_with_labels(
    artifact: OpenedArtifact, labels: Sequence[str] | None
) -> list[str]:
    if not (artifact.labels and labels and artifact.task.needs_classifier):
        return []
    found, expected = list(artifact.labels()), list(labels)[artifact.first_class :]
    if len(found) != len(expected):
        return [f"{len(found)} names of classes, expected {len(expected)}"]
    problems = [
        f"class {number} is called {one!r}, expected {other!r}"
        for number, (one, other) in enumerate(zip(found, expected))
        if one != other
    ]
    if len(problems) <= len(expected) / 2:
        return problems
    return [
        f"{len(problems)} of {len(expected)} classes have other names than expected: "
        f"{problems[0]}, and so on. Names of your own are given with --labels."
    ]


@dataclasses.dataclass(frozen=True)
class _Figures:
    """How one output agrees with the reference, over some images.

    Attributes:
      max_error: largest absolute difference.
      magnitude: the reference's largest.
      cosine: the smallest between an image's output and its reference.
      top_1: of each image, whether the largest entry is the same, for classes.
      top_5: of each image, the fraction of the reference's five largest entries that are
        among the output's, likewise.
    """

    max_error: float
    magnitude: float
    cosine: float
    top_1: tuple[bool, ...] = ()
    top_5: tuple[float, ...] = ()


_UNFIT = _Figures(np.inf, np.inf, -1.0)
"""Of what has another shape, or is no number."""


def _figures(output: Output, expected: np.ndarray, found: np.ndarray) -> _Figures:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return _UNFIT
    ranks = []
    if is_classes(output):
        ranks = [_rank(e, f) for e, f in zip(expected, found, strict=True)]
    half = output.step / 2
    found = np.clip(expected, found - half, found + half)
    if _endpoint(output) == "Predictions":
        expected, found = _as_logits(expected), _as_logits(found)
    return _Figures(
        max_error=float(np.abs(expected - found).max()),
        magnitude=float(np.abs(expected).max()),
        cosine=min(
            1.0, *(cosine(e.ravel(), f.ravel()) for e, f in zip(expected, found))
        ),
        top_1=tuple(is_same for is_same, _ in ranks),
        top_5=tuple(fraction for _, fraction in ranks),
    )


def _rank(expected: np.ndarray, found: np.ndarray) -> tuple[bool, float]:
    """Whether the largest entry is the same, and how many of the five largest are."""
    ranks_e, ranks_f = np.argsort(-expected)[:_TOP_5], np.argsort(-found)[:_TOP_5]
    common = len(np.intersect1d(ranks_e, ranks_f))
    return bool(ranks_e[0] == ranks_f[0]), common / len(ranks_e)


def _parity(figures: Sequence[_Figures], tolerance: Tolerance) -> OutputParity:
    """Puts together how one output agrees, from batch to batch."""
    if _UNFIT in figures:
        return OutputParity(np.inf, np.inf, -1.0, None, None, tolerance)
    error = max(each.max_error for each in figures)
    magnitude = max(each.magnitude for each in figures)
    top_1 = [is_same for each in figures for is_same in each.top_1]
    top_5 = [fraction for each in figures for fraction in each.top_5]
    return OutputParity(
        max_error=error,
        relative_error=error / magnitude if magnitude else error,
        cosine=min(each.cosine for each in figures),
        top_1=float(np.mean(top_1)) if top_1 else None,
        top_5=float(np.mean(top_5)) if top_5 else None,
        tolerance=tolerance,
    )


def _as_logits(probabilities: np.ndarray) -> np.ndarray:
    """Returns what softmax makes these probabilities of: [batch, classes], mean 0."""
    logits = np.log(np.maximum(probabilities, _LEAST_PROBABILITY))
    return logits - logits.mean(axis=1, keepdims=True)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors; 1 if both are 0."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else float(not a.any() and not b.any())
