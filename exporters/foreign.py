"""Compares files of other tools' with the checkpoint, as far as they are this network.

What such a file is, its content tells (`exporters.identification`): the network, the
numbers, the range of images, the classes. What it does not tell is found by trying, and
said.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from exporters import identification, parity
from exporters.artifact import OpenedArtifact, Output
from exporters.errors import ArtifactError, MissingLibraryError
from exporters.formats import TOLERANCES
from exporters.identification import IdentifiedFile, LayerDifference
from exporters.identifying import networks, reading, running
from exporters.identifying.running import CannotRunError, ForeignModel
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.network.tasks import (
    AUXILIARY_CLASSIFICATION,
    CLASSIFICATION,
    FEATURE_VECTOR,
    Task,
)
from exporters.parity import ComparedOutputs, ParityImages, ParityReport, Tolerance
from exporters.reference import Reference
from exporters.weight_parity import WeightParity

_RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
"""Of images, to try where a file does not say which it takes."""
_ANY = Tolerance(np.inf, -1.0)
_PROBABILITIES = 1e-2
"""How far sums of probabilities are from 1 at most."""
_DEFAULT_SIZE = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
_LAST_CONVOLUTION = "Conv2d_7b_1x1"
_TO_NHWC = (0, 2, 3, 1)


def compare(
    path: Path, reference: Reference, parity_images: ParityImages
) -> tuple[ParityReport, IdentifiedFile]:
    """Compares a file's weights and outputs with those of the checkpoint.

    Args:
      path: the file, or directory of a SavedModel.
      reference: the checkpoint's network.
      parity_images: what to run both on.

    Returns:
      The comparison, and what the file is.

    Raises:
      ArtifactError, CheckpointError: it cannot be read or run, or is another network.
      OSError: it cannot be read.
    """
    contents = reading.read(path)
    found = identification.of_contents(path, contents)
    if found.network not in (networks.THIS, networks.AUXILIARY):
        raise ArtifactError(
            f"{path} is {contents.form} of another tool's, and holds {found.network}: "
            f"{found.kernels} kernels of {found.numbers:,} numbers. Expected "
            f"{networks.THIS}."
        )
    found = identification.compared(found, contents, reference.checkpoint)
    ran = _run(path, found, reference, parity_images)
    problems = [*ran.problems, *ran.outputs.problems]
    if found.relation == identification.UNRELATED:
        problems.append("its weights are unrelated to the checkpoint's")
    lacking = [
        f"{layer} was not compared: the checkpoint has none"
        for layer in found.not_compared
    ]
    report = ParityReport(
        format=" ".join([found.form, *found.precision[:1]]),
        task=ran.task.name,
        images=ran.outputs.images,
        main_output=ran.main_output,
        outputs=ran.outputs.figures,
        weights=_weights(found),
        problems=tuple(problems),
        not_run=ran.outputs.not_run,
        notes=(_how_read(found), *ran.notes, *lacking),
    )
    return report, found


@dataclasses.dataclass(frozen=True)
class _Ran:
    """What came of running a file: for which task, with what outputs, and what to say."""

    task: Task
    main_output: str
    outputs: ComparedOutputs
    notes: Sequence[str] = ()
    problems: Sequence[str] = ()


def _run(
    path: Path, found: IdentifiedFile, reference: Reference, parity_images: ParityImages
) -> _Ran:
    with contextlib.ExitStack() as stack:
        try:
            model = running.run(path, found.form, found.classes)
            stack.enter_context(model)
            opened = _Opened(found, model, reference, parity_images)
            artifact = opened.artifact()
        except (CannotRunError, MissingLibraryError) as error:
            task = _task(found)
            return _Ran(task, task.output, ComparedOutputs({}, {}, (), str(error)))
        tolerance = TOLERANCES[_coarsest(found.precision)]
        outputs = parity.compare_outputs(artifact, reference, parity_images, tolerance)
    return _Ran(
        task=artifact.task,
        main_output=next(iter(artifact.outputs), artifact.task.output),
        outputs=outputs,
        notes=opened.notes,
        problems=[]
        if artifact.outputs
        else ["none of its outputs is one of the checkpoint's network"],
    )


def _coarsest(precision: tuple[str, ...]) -> str:
    if any("int" in dtype for dtype in precision):
        return "int8"
    if {"float16", "bfloat16"} & set(precision):
        return "float16"
    return "float32"


def _how_read(found: IdentifiedFile) -> str:
    facts = [f"read as {found.form}", " and ".join(found.precision)]
    if found.network == networks.AUXILIARY:
        facts.append("of the auxiliary classifier")
    if found.is_folded is not None:
        facts.append("batch norm folded" if found.is_folded else "batch norm unfolded")
    if found.classes is None:
        facts.append("no classifier")
    else:
        left_out = ', "background" left out' if found.first_class else ""
        count = "1 class" if found.classes == 1 else f"{found.classes:,} classes"
        facts.append(f"{count}{left_out}")
    return ", ".join(facts)


def _task(found: IdentifiedFile) -> Task:
    if found.network == networks.AUXILIARY:
        return AUXILIARY_CLASSIFICATION
    return FEATURE_VECTOR if found.classes is None else CLASSIFICATION


def _weights(found: IdentifiedFile) -> WeightParity:
    wrong: dict[str, str] = {}
    for difference in found.differences:
        wrong.setdefault(difference.layer, f"{difference.layer}: {_said(difference)}")
    return WeightParity(found.compared, tuple(wrong.values()))


def _said(difference: LayerDifference) -> str:
    by = "" if difference.difference is None else f" by {difference.difference:.2g}"
    return {
        "kernel": f"its kernel differs{by}",
        "vectors": f"its biases, or batch norm, differ{by}",
        "missing": "no kernel is like the checkpoint's",
        "place": "it is in another's place",
    }[difference.what]


class _Opened:
    """A file that runs, and what is found out by running it.

    Attributes:
      notes: what was found out.
    """

    def __init__(
        self,
        found: IdentifiedFile,
        model: ForeignModel,
        reference: Reference,
        parity_images: ParityImages,
    ) -> None:
        self.notes: list[str] = []
        self._found = found
        self._model = model
        self._reference = reference
        self._images = parity_images
        self._size = self._image_size()
        self._batch = parity_images.batches(self._size)[0]
        # Range of images -> what it gives for the first of these.
        self._first: dict[tuple[float, float], Mapping[str, np.ndarray]] = {}

    def artifact(self) -> OpenedArtifact:
        """Returns the file as other artifacts are opened, with the outputs it has.

        These are none where what it gives is neither the feature vector nor the classes
        of the checkpoint.
        """
        if self._found.input_range:
            how, artifact = "", self._artifact(self._found.input_range)
        else:
            how = " (found by trying: the file does not say)"
            artifact = min(map(self._artifact, _RANGES), key=self._error)
        low, high = artifact.input_range
        self.notes.append(
            f"run by {self._model.library} on {self._model.layout} images in "
            f"[{low:g}, {high:g}]{how}"
        )
        for name, values in self._first[artifact.input_range].items():
            if name not in artifact.outputs:
                shape = list(values.shape)
                self.notes.append(f"output {name} {shape} was not compared")
        return artifact

    def _image_size(self) -> tuple[int, int] | None:
        """The size that it takes, not only says."""
        if self._model.image_size or self._found.network == networks.AUXILIARY:
            return self._model.image_size or _DEFAULT_SIZE
        batches = self._images.batches(None)
        self._model.run(batches[0][:1])
        try:
            self._model.run(batches[-1][:1])
        except ArtifactError:
            self.notes.append("it takes 299 x 299, and not any size, as it says")
            return _DEFAULT_SIZE
        return None

    def _artifact(self, input_range: tuple[float, float]) -> OpenedArtifact:
        low, high = map(np.float32, input_range)

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            return _shaped(self._model.run(images * (high - low) + low), outputs)

        found = self._model.run(self._batch[:1] * (high - low) + low)
        self._first[input_range] = found
        outputs = dict(self._recognized(found))
        has_classes = any(map(parity.is_classes, outputs.values()))
        return OpenedArtifact(
            format=self._found.form,
            task=_task(self._found) if has_classes else FEATURE_VECTOR,
            record=None,
            image_size=self._size,
            outputs=outputs,
            run=run,
            weights=dict,
            input_range=input_range,
            first_class=self._found.first_class,
        )

    def _recognized(
        self, found: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[str, Output]]:
        """The outputs that are the network's, classes first."""
        known = [(name, self._value(values)) for name, values in found.items()]
        order = ("AuxLogits", "probabilities", "logits", "feature_vector")
        ranks = {value: rank for rank, value in enumerate(order)}
        known.sort(key=lambda pair: ranks.get(pair[1] or "", len(ranks)))
        for name, value in known:
            if value is not None:
                yield name, Output(value, step=self._model.steps.get(name, 0.0))

    def _value(self, values: np.ndarray) -> str | None:
        """What an output of one image is, by its shape and its numbers."""
        checkpoint, found = self._reference.checkpoint, self._found
        features, classes = self._widths()
        width = values.size
        if found.network == networks.AUXILIARY:
            is_there = width == classes and checkpoint.has_auxiliary_head
            return "AuxLogits" if is_there else None
        if width == classes:
            total = float(values.sum())
            is_softmax = values.min() >= 0 and abs(total - 1) <= _PROBABILITIES
            return "probabilities" if is_softmax else "logits"
        if width == features:
            return "feature_vector"
        if values.ndim == 4 and features in (values.shape[1], values.shape[3]):
            return _LAST_CONVOLUTION
        return None

    def _widths(self) -> tuple[int, int | None]:
        """How many features there are, and classes that can be compared."""
        checkpoint, found = self._reference.checkpoint, self._found
        if checkpoint.num_classes is None or found.classes is None:
            return _features(), None
        are_same = checkpoint.num_classes - found.classes == found.first_class
        return _features(), found.classes if are_same else None

    def _error(self, artifact: OpenedArtifact) -> float:
        """How far its own output for the first image is from the reference's."""
        if not artifact.outputs:
            return np.inf
        name, output = next(iter(artifact.outputs.items()))
        found = _shaped(self._first[artifact.input_range], {name: output})[name]
        known = self._reference.outputs(self._batch, {output.value})[output.value][:1]
        if parity.is_classes(output):
            known = known[..., artifact.first_class :]
        return parity.compare_output(output, known, found, _ANY).max_error


def _shaped(
    found: Mapping[str, np.ndarray], outputs: Mapping[str, Output]
) -> dict[str, np.ndarray]:
    """The outputs that are known, in the shapes of the reference's."""
    shaped = {}
    for name, output in outputs.items():
        values = found[name].astype(np.float32)
        if output.value != _LAST_CONVOLUTION:
            values = values.reshape(len(values), -1)
        elif values.shape[3] != _features():
            values = values.transpose(_TO_NHWC)
        shaped[name] = values
    return shaped


def _features() -> int:
    return next(n.features for n in networks.known() if n.name == networks.THIS)
