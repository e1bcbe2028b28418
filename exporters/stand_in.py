"""Making a stand-in: a checkpoint with the published layout and generated weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from checkpoints import files, stand_in
from checkpoints.files import PathLike
from checkpoints.reader import open_checkpoint
from checkpoints.scratch import scratch_beside
from exporters import images
from exporters.errors import ExportError
from exporters.network import recalibration
from exporters.network.graphs import NetworkGraphs
from exporters.progress import STAND_IN, Progress, Step, silent


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A stand-in at its place.

    Attributes:
      path: the V1 file.
      identity: of its weights.
    """

    path: Path
    identity: str


def make_stand_in(
    output: PathLike,
    *,
    seed: int = 0,
    raw: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> StandIn:
    """Writes a generated checkpoint, which classifies nothing, to try things with.

    Args:
      output: V1 file to write. Its directory is made if needed.
      seed: same seed, same numbers.
      raw: leave the moving averages as generated. Such a network hardly tells images
        apart, and errors of quantization mean little.
      force: replace an existing file.
      progress: told what is done.

    Raises:
      ExportError: something is in the way.
      OSError: the file cannot be written.
    """
    path = Path(output)
    if path.is_dir():
        raise ExportError(f"{path} is a directory; expected a file to write")
    if path.exists() and not force:
        raise ExportError(f"{path} exists already. Use --force to replace it.")
    if files.is_no_directory(path.parent):
        raise ExportError(f"{path.parent} is a file; expected a directory")

    def generated(done: int, total: int) -> None:
        progress(Step("generate variables", done=done, total=total))

    # First of all, so that a directory that cannot be written is found at once.
    with scratch_beside(path):
        variables = stand_in.generate(seed, generated)
        if not raw:
            progress(Step("set moving averages to batch statistics"))
            batch = images.generate(8, 299, 299)
            variables = recalibration.with_batch_statistics(
                variables, batch, NetworkGraphs()
            )
        progress(Step("write"))
        stand_in.write_v1(variables, path)
    progress(STAND_IN)
    return StandIn(path, open_checkpoint(path).identity)
