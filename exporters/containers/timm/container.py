"""Weights for `timm.create_model("inception_resnet_v2")`, as safetensors.

timm's network takes float32 [batch, 3, height, width] in [-1, 1], which is a mean and a
standard deviation of 0.5, and has the classes without "background". Neither timm nor
PyTorch is needed to write it.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import safetensors, twins
from checkpoints.errors import CheckpointError
from checkpoints.safetensors import SafeTensors
from checkpoints.scratch import temporary
from checkpoints.timm_weights import TimmWeights
from exporters import record as records
from exporters.artifact import OpenedArtifact, Output, StoredWeight, first_line, reading
from exporters.build import Build
from exporters.errors import ArtifactError, ForeignFileError, MissingLibraryError
from exporters.labels import first_without_background
from exporters.network.layers import without_classes
from exporters.network.tasks import TASKS, Task
from exporters.record import Record

MODEL = "inception_resnet_v2"

_RECORD = "irv2"
_LABELS = "labels"
_PREPROCESSING = {
    "input_size": [3, 299, 299],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "crop_pct": 0.8975,
}
"""As timm evaluates the network (timm/models/inception_resnet_v2.py)."""


def write(build: Build, variant: None, task: Task, record: Record, path: Path) -> None:
    """Writes a state dict.

    Args:
      build: checkpoint and labels.
      variant: there is only one.
      task: what for; a feature vector has no classifier, `num_classes=0` in timm.
      record: what the file says about itself.
      path: the file to write.
    """
    first = first_without_background(build.checkpoint.num_classes)
    variables = without_classes(build.checkpoint, first)
    names = build.network.up_to([task.endpoint]).variables
    arrays = dict(_arrays({name: variables[name] for name in names}))
    width = len(arrays["classif.bias"]) if task.needs_classifier else 0
    metadata = {
        "format": "pt",
        "architecture": MODEL,
        "num_classes": str(width),
        **{name: json.dumps(value) for name, value in _PREPROCESSING.items()},
        _RECORD: record.to_text(),
    }
    if task.needs_classifier and build.labels:
        metadata[_LABELS] = "\n".join(build.labels[first:])
    with path.open("wb") as file:
        safetensors.write(file, arrays, metadata)


def _arrays(variables: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """The state dict: PyTorch's batch norm has a gamma, and counts its training."""
    for name, values in variables.items():
        theirs = twins.timm_names()[name]
        yield theirs, twins.to_torch(values)
        norm, _, kind = theirs.rpartition(".bn.")
        if norm and kind == "bias":
            yield f"{norm}.bn.weight", np.ones_like(values)
            yield norm + twins.TIMM_COUNTER, np.zeros((), np.int64)


def open(path: Path) -> OpenedArtifact:
    """Opens a state dict that `write` made, with timm once it is run.

    Raises:
      ArtifactError: the file is damaged, or not of this toolkit.
    """
    record, names = _read_header(path)
    task = TASKS[record.task]
    first = first_without_background(record.num_classes)
    width = (record.num_classes or 0) - first

    @functools.cache
    def model() -> Any:
        network = create_model()
        with temporary() as directory:
            link = directory / "model.safetensors"  # timm goes by the name.
            link.symlink_to(path.absolute())
            with reading(path, "weights", "timm"):
                return network(
                    MODEL,
                    checkpoint_path=str(link),
                    num_classes=width if task.needs_classifier else 0,
                ).eval()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        network = model()
        import torch

        batch = torch.from_numpy(2 * images.transpose(0, 3, 1, 2) - 1)
        with torch.no_grad():
            return {task.output: network(batch).numpy()}

    def weights() -> dict[str, StoredWeight]:
        with _opened(path) as arrays:
            found = TimmWeights(arrays)
            return {name: StoredWeight(found.read(name)) for name in found.specs}

    def labels() -> list[str]:
        with _opened(path) as arrays:
            text = arrays.metadata.get(_LABELS, "")
        return text.split("\n") if text else []

    def check() -> list[str]:
        missing = sorted(twins.timm_gammas().keys() - names)
        return [f"{name}: missing" for name in missing]

    return OpenedArtifact(
        format=record.format,
        task=task,
        record=record,
        image_size=None,
        outputs={task.output: Output(task.output)},
        run=run,
        weights=weights,
        input_range=(-1.0, 1.0),
        first_class=first,
        labels=labels,
        check=check,
        close=model.cache_clear,
    )


def create_model() -> Callable[..., Any]:
    """Returns timm's function of that name.

    Raises:
      MissingLibraryError: timm cannot be imported.
    """
    try:
        from timm import create_model
    except Exception as error:  # Also where PyTorch and torchvision do not fit.
        raise MissingLibraryError(
            f"timm cannot be imported ({first_line(error)}); "
            "pip install 'irv2[timm]' brings it"
        ) from error
    found: Callable[..., Any] = create_model
    return found


def library() -> str:
    """What runs the network, and its versions."""
    import timm
    import torch

    return f"timm {timm.__version__}, PyTorch {torch.__version__}"


def _read_header(path: Path) -> tuple[Record, set[str]]:
    """Reads the record, and the names of all arrays."""
    with _opened(path) as arrays:
        if _RECORD not in arrays.metadata:
            raise ForeignFileError(
                f"{path} is a safetensors file of another tool's. Expected one exported "
                "by irv2."
            )
        record = records.parse(arrays.metadata[_RECORD], str(path))
        return record, set(arrays.specs)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[SafeTensors]:
    try:
        with path.open("rb") as file:
            yield SafeTensors(file, str(path))
    except CheckpointError as error:
        raise ArtifactError(str(error)) from error
