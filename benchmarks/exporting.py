"""What it takes to make artifacts: by `irv2 export`, and by other tools."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.figures import IRV2, Agreement, Process, Spread
from checkpoints import files
from exporters.formats import Format
from exporters.network.tasks import Task

TF2ONNX = "tf2onnx"
CONVERTER = "TensorFlow's converter"
ONNX_RUNTIME = "ONNX Runtime's tools"
NNCF = "NNCF"
NNCF_IR = "NNCF, IR"
AI_EDGE = "ai-edge-quantizer"
IR = "OpenVINO's IR"
"""Of our ONNX file, as OpenVINO saves it."""
_ON_FILES = {
    "onnx-float32": ((IR, "onnx-float32", "ir"),),
    "onnx-float16": (
        (ONNX_RUNTIME, "onnx-float32", "float16"),
        (IR, "onnx-float32", "ir-float16"),
    ),
    "onnx-int8": (
        (ONNX_RUNTIME, "onnx-float32", "quantize_static"),
        (NNCF, "onnx-float32", "nncf"),
        (NNCF_IR, "onnx-float32", "nncf-ir"),
        (IR, "onnx-int8", "ir"),
    ),
    "tflite-dynamic-int8": ((AI_EDGE, "tflite-float32", "ai-edge-dynamic"),),
    "tflite-int8": ((AI_EDGE, "tflite-float32", "ai-edge-static"),),
}
"""Format -> other tools that make it, from which file of ours, and the way."""
_OPSET = "17"
"""Of our ONNX files too."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What a command made, and what it took.

    Attributes:
      path: of the artifact, or of a directory of artifacts.
      bytes: size of all its files.
      seconds: of the whole process, None if it was made before.
      memory: largest resident memory, in bytes; None likewise.
      parts: field of `benchmarks.figures.Process` -> seconds of the whole.
      agreements: of the artifacts that were verified.
    """

    path: Path
    bytes: int
    seconds: float | None
    memory: int | None
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


def stock(
    row: Format, source: Callable[[str], Path], directory: Path
) -> Iterator[Recipe]:
    """Yields other tools' ways to a format.

    Args:
      row: the format.
      source: returns where our artifact of a format is, which a tool starts from.
      directory: where to write, into a folder for each tool.
    """

    def recipe(tool: str, of: str, option: str, command: Sequence[str]) -> Recipe:
        suffix = ".xml" if tool in (IR, NNCF_IR) else row.container.suffix
        path = directory / f"{row.name} by {tool}" / f"{row.name}{suffix}"

        def make() -> Made:
            start = [option, str(source(of)), "--output", str(path)]
            path.parent.mkdir(parents=True, exist_ok=True)
            ended = processes.run([sys.executable, "-m", *command, *start])
            bytes = files.size(path.parent)
            return Made(path, bytes, ended.seconds, ended.memory)

        return Recipe(row, tool, make)

    if row.name == "onnx-float32":
        command = ["tf2onnx.convert", "--opset", _OPSET]
        yield recipe(TF2ONNX, "v5", "--saved-model", command)
    elif row.container.suffix == ".tflite" and not row.needs_auxiliary_head:
        command = ["benchmarks.stock_tflite", "--format", row.name]
        yield recipe(CONVERTER, "v5", "--saved-model", command)
    for tool, of, way in _ON_FILES.get(row.name, ()):
        yield recipe(tool, of, "--source", ["benchmarks.stock_files", "--way", way])


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


def kept(recipe: Recipe, directory: Path) -> Recipe:
    """Returns a way to an artifact that is kept: it is made if it is not there.

    Args:
      recipe: makes it below `directory`.
      directory: where it says what it made, too.
    """
    note = directory / f"{recipe.row.name} by {recipe.tool}.json"

    def make() -> Made:
        if not note.is_file():
            made = recipe.make()
            said = {"path": str(made.path.relative_to(directory)), "bytes": made.bytes}
            files.write_json(note, said)
        said = files.read_json(note)
        return Made(directory / said["path"], said["bytes"], None, None)

    return dataclasses.replace(recipe, make=make)


def process(made: Sequence[Made]) -> Process | None:
    """Returns what a command took, each time it was run; None if it never was."""
    seconds = [one.seconds for one in made if one.seconds is not None]
    if not seconds:
        return None
    parts = {
        part: Spread.of([one.parts[part] for one in made]) for part in made[0].parts
    }
    return Process(
        seconds=Spread.of(seconds),
        memory=Spread.of([one.memory for one in made if one.memory is not None]),
        **parts,
    )
