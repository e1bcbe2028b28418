"""State dicts for timm's network, whoever saved them; none is unpickled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from checkpoints import twins
from checkpoints.errors import CheckpointError
from checkpoints.safetensors import SafeTensors
from checkpoints.torch_state import TorchState
from exporters.artifact import reading
from exporters.containers.timm import container
from exporters.errors import ArtifactError
from exporters.identifying.running import CannotRunError, ForeignModel

_ZIP = b"PK\x03\x04"
_OTHER_NAMES = {"last_linear.": "classif."}
"""What the network is made of in other libraries of the same origin -> in timm."""


def run(path: Path, classes: int | None) -> ForeignModel:
    """Opens a state dict with timm.

    Raises:
      CannotRunError: its names are not those of timm's network.
      MissingLibraryError: timm is not there.
      ArtifactError: it is damaged.
    """
    create_model = container.create_model()
    import torch

    with _opened(path) as stored:
        names = _timm_names(stored.specs)
        if names is None:
            raise CannotRunError("it holds weights, by other names than timm's")
        with reading(path, "weights", "timm"):
            model = create_model(container.MODEL, num_classes=classes or 0).eval()
            state = {
                theirs: torch.from_numpy(stored.read(name).astype(np.float32))
                for name, theirs in names.items()
            }
            problems = model.load_state_dict(state, strict=False)
    lacking = [
        name for name in problems.missing_keys if not name.endswith(twins.TIMM_COUNTER)
    ]
    if differing := [*lacking, *problems.unexpected_keys]:
        raise CannotRunError(
            f"{len(differing)} of its arrays are not those of timm's network, such as "
            f"{differing[0]}"
        )

    def run_on(images: np.ndarray) -> dict[str, np.ndarray]:
        batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        with torch.no_grad():
            return {"0": model(batch).numpy()}

    return ForeignModel(container.library(), None, "NCHW", run_on)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[SafeTensors | TorchState]:
    try:
        with path.open("rb") as file:
            is_torch = file.read(len(_ZIP)) == _ZIP
            file.seek(0)
            yield (TorchState if is_torch else SafeTensors)(file, str(path))
    except CheckpointError as error:
        raise ArtifactError(str(error)) from error


def _timm_names(stored: Mapping[str, object]) -> dict[str, str] | None:
    """Name of an array -> its name in timm, whatever the network was a part of."""
    first = next(iter(twins.timm_names().values()))
    prefix = next((n[: -len(first)] for n in stored if n.endswith(first)), None)
    if prefix is None:
        return None
    found = {}
    for name in stored:
        if name.startswith(prefix):
            theirs = name.removeprefix(prefix)
            for other, ours in _OTHER_NAMES.items():
                if theirs.startswith(other):
                    theirs = ours + theirs.removeprefix(other)
            found[name] = theirs
    return found
