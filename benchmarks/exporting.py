"""What it takes to make artifacts: by `irv2 export`, and by the stock tools."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.figures import IRV2, Agreement, Process, Spread
from checkpoints import files
from exporters.formats import Format
from exporters.network.tasks import Task

TF2ONNX = "tf2onnx"
CONVERTER = "TensorFlow's converter"
_OPSET = "17"
"""Of our ONNX files too."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What a command made, and what it took.

    Attributes:
      path: of the artifact, or of a directory of artifacts.
      bytes: size of all its files.
      seconds: of the whole process.
      memory: largest resident memory, in bytes.
      parts: field of `benchmarks.figures.Process` -> seconds of the whole.
      agreements: of the artifacts that were verified.
    """

    path: Path
    bytes: int
    seconds: float
    memory: int
    parts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    agreements: tuple[Agreement, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """A way to an artifact.

    Attributes:
      row: the artifact's format.
      tool: that makes it.
      make: makes it, in place of the last one; raises `processes.ProcessError`.
      is_verified: whether it is compared with the network as well.
    """

    row: Format
    tool: str
    make: Callable[[], Made]
    is_verified: bool = False


def ours(
    checkpoint: Path, row: Format, task: Task, directory: Path, *, is_verified: bool
) -> Recipe:
    """Returns our way to a format."""
    options = ["--formats", row.name, "--tasks", task.name]
    if not is_verified:
        options.append("--no-verify")

    def make() -> Made:
        return export(checkpoint, directory, *options)

    return Recipe(row, IRV2, make, is_verified)


def stock(row: Format, saved_model: Callable[[], Path], path: Path) -> Recipe | None:
    """Returns the stock tool's way to a format; None if there is none.

    Args:
      row: the format.
      saved_model: returns where our v5 is, which the tool starts from.
      path: where to write.
    """
    command = ["--output", str(path)]
    if row.name == "onnx-float32":
        tool = TF2ONNX
        command = ["tf2onnx.convert", *command, "--opset", _OPSET]
    elif row.container.suffix == ".tflite" and not row.needs_auxiliary_head:
        tool = CONVERTER
        command = ["benchmarks.stock_tflite", *command, "--format", row.name]
    else:
        return None

    def make() -> Made:
        source = ["--saved-model", str(saved_model())]
        ended = processes.run([sys.executable, "-m", *command, *source])
        return Made(path, files.size(path), ended.seconds, ended.memory)

    return Recipe(row, tool, make)


def export(checkpoint: Path, output: Path, *options: str) -> Made:
    """Runs `irv2 export`.

    Raises:
      processes.ProcessError: it failed.
    """
    command = [sys.executable, "-m", "exporters.command.main", "export", "--json"]
    command += ["--checkpoint", str(checkpoint), "--output", str(output), "--force"]
    ended = processes.run([*command, *options])
    said = json.loads(ended.output)
    artifacts: list[dict[str, Any]] = said["artifacts"]
    parts = {"read": said["read_seconds"], "graphs": said["graph_seconds"]}
    for part in ("write", "verify"):
        taken = [a["seconds"][part] for a in artifacts if part in a["seconds"]]
        if taken:
            parts[part] = sum(taken)
    return Made(
        path=Path(artifacts[0]["path"]) if len(artifacts) == 1 else output,
        bytes=sum(artifact["bytes"] for artifact in artifacts),
        seconds=ended.seconds,
        memory=ended.memory,
        parts=parts,
        agreements=tuple(
            _agreement(artifact["parity"])
            for artifact in artifacts
            if artifact["parity"]
        ),
    )


def _agreement(parity: Mapping[str, Any]) -> Agreement:
    main = parity["outputs"][parity["main_output"]]
    return Agreement(
        parity["format"], parity["task"], main["relative_error"], main["cosine"]
    )


def process(made: Sequence[Made]) -> Process:
    """Returns what a command took, that was run at least once."""
    parts = {
        part: Spread.of([one.parts[part] for one in made]) for part in made[0].parts
    }
    return Process(
        seconds=Spread.of([one.seconds for one in made]),
        memory=Spread.of([one.memory for one in made]),
        **parts,
    )
