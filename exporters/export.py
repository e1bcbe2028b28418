"""Exports artifacts one by one: written aside, checked, then moved to their place."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from exporters import manifest
from exporters.artifact import ExportError, ExportInputs, first_line
from exporters.formats import Format, container_of
from exporters.parity import ParityImages, ParityReport, Reference, compare

_QUANTIZATION_HINT = (
    "Quantization fits images like those it was calibrated on; give such images to "
    "compare on as well, by --calibration-images and --images."
)


class ParityError(Exception):
    """An artifact that was made does not agree with its checkpoint."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """An artifact at its final place.

    Attributes:
      path: the file or directory.
      report: the comparison with the checkpoint, None if it was not asked for.
      bytes: size of all its files.
      seconds: time to write it, and to verify it.
    """

    path: Path
    report: ParityReport | None
    bytes: int
    seconds: dict[str, float]


def destinations(
    output: Path,
    selection: Sequence[tuple[Format, str]],
    *,
    is_stand_in: bool,
    overwrite: bool,
) -> list[Path]:
    """Returns where each artifact will be, before any work is done.

    Raises:
      ExportError: the output directory is a file, or an artifact is there already.
    """
    if output.exists() and not output.is_dir():
        raise ExportError(f"{output} is a file; expected a directory to export to")
    paths = [
        output / row.artifact_name(task, is_stand_in=is_stand_in)
        for row, task in selection
    ]
    existing = [path.name for path in paths if path.exists()]
    if existing and not overwrite:
        raise ExportError(
            f"{output} already holds {', '.join(existing)}. Use --force to replace."
        )
    return paths


def export(
    inputs: ExportInputs,
    row: Format,
    task: str,
    path: Path,
    *,
    reference: Reference | None,
    parity_images: ParityImages,
    overwrite: bool = True,
    step: Callable[[str], None] = lambda name: None,
) -> Exported:
    """Writes one artifact and its manifest, and compares it with the checkpoint.

    Both appear at their place only when whole and, if compared, right.

    Args:
      inputs: what the writer is given.
      row: the format.
      task: "feature_vector" or "classification".
      path: where the artifact goes; its directory is made if needed.
      reference: what to compare with, None to skip the comparison.
      parity_images: images to compare on.
      overwrite: replace what is there.
      step: called with "write" and "verify" as each begins.

    Raises:
      ExportError: something is there already.
      ParityError: the artifact does not agree with the checkpoint. It is not kept.
    """
    seconds = {}
    with _scratch_beside(path) as scratch:
        unfinished = scratch / path.name
        step("write")
        start = time.monotonic()
        try:
            row.write(inputs, task, unfinished)
        except Exception as error:
            if not type(error).__module__.startswith("tensorflow"):
                raise
            # Such as a full disk, which TensorFlow does not report as an OSError.
            raise ExportError(
                f"{path} cannot be written: {first_line(error)}"
            ) from error
        seconds["write"] = time.monotonic() - start

        report = None
        if reference:
            step("verify")
            start = time.monotonic()
            opened = container_of(unfinished).open(unfinished)
            report = compare(opened, reference, parity_images)
            seconds["verify"] = time.monotonic() - start
            problems = failures(report)
            if (opened.format, opened.task) != (row.name, task):
                problems.append(f"it is {opened.format} of {opened.task}")
            if problems:
                hint = f" {_QUANTIZATION_HINT}" if row.is_quantized else ""
                raise ParityError(
                    f"{path.name} does not agree with the checkpoint, and was not "
                    f"kept: {'; '.join(problems)}.{hint}"
                )
        described = manifest.describe(
            unfinished,
            inputs.checkpoint,
            format=row.name,
            task=task,
            handle=row.handle(task),
            options={
                name: getattr(inputs.options, name) for name in sorted(row.options)
            },
            calibration=inputs.calibration.description if row.is_quantized else None,
            compared_on=parity_images.description if report else None,
            parity=report and report.as_dict(),
        )
        text = json.dumps(described, indent=2, allow_nan=False) + "\n"
        manifest.path_of(unfinished).write_text(text, encoding="utf-8")
        if path.exists() and not overwrite:
            raise ExportError(f"{path} was made meanwhile. Use --force to replace it.")
        _replace(
            {unfinished: path, manifest.path_of(unfinished): manifest.path_of(path)},
            scratch,
        )
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return Exported(path, report, size, seconds)


def failures(report: ParityReport) -> list[str]:
    """Says in words what did not pass in a comparison."""
    lines = list(report.problems)
    for name, output in report.outputs.items():
        if not output.passed:
            lines.append(
                f"output {name}: error {output.relative_error:.2g} of the largest "
                f"magnitude, cosine {output.cosine:.6f}"
            )
    wrong = report.weights.wrong
    lines += [f"weight {line}" for line in wrong[:3]]
    if len(wrong) > 3:
        lines.append(f"and {len(wrong) - 3} more weights of {report.weights.count}")
    return lines


@contextlib.contextmanager
def _scratch_beside(path: Path) -> Iterator[Path]:
    """A temporary directory on the same file system, so that moving is renaming.

    Directories that had to be made for it are removed again if nothing stays in them.
    """
    made = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".irv2-", dir=path.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            for directory in made:
                directory.rmdir()


def _replace(moves: Mapping[Path, Path], scratch: Path) -> None:
    """Moves each source to its destination; if one move fails, none has happened."""
    with contextlib.ExitStack() as undo:
        for source, destination in moves.items():
            if destination.exists():
                replaced = scratch / f"replaced-{destination.name}"
                destination.rename(replaced)
                undo.callback(replaced.rename, destination)
            source.rename(destination)
            undo.callback(destination.rename, source)
        undo.pop_all()
