"""What each subcommand of `irv2` does: calls the library and prints.

A command takes the parsed arguments and returns the exit code. Nothing slow to import is
imported before a command needs it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.console import Console, bar, size, table

if TYPE_CHECKING:
    import argparse

    from checkpoints.reader import Checkpoint
    from exporters.artifact import ExportOptions
    from exporters.export import Exported
    from exporters.formats import Format
    from exporters.parity import ParityReport

EXIT_MISMATCH = 1
EXIT_BAD_INPUT = 3

_STAND_IN_NOTICE = (
    "This checkpoint is a STAND-IN: its weights are generated and classify nothing. "
    "What is made of it is marked as a stand-in."
)


def list_formats(arguments: argparse.Namespace, console: Console) -> int:
    """Prints the table of formats."""
    from exporters.formats import FORMATS
    from exporters.graphs import TASKS

    rows = [
        {
            "format": row.name,
            "what it is": row.summary,
            "published as": row.handle("{task}"),
        }
        for row in FORMATS.values()
    ]
    if arguments.json:
        console.result(json.dumps({"tasks": TASKS, "formats": rows}, indent=2))
        return 0
    cells = [[value or "-" for value in row.values()] for row in rows]
    console.result(table(list(rows[0]), cells))
    console.result(f"\nTasks: {', '.join(TASKS)}.")
    return 0


def fetch_checkpoint(arguments: argparse.Namespace, console: Console) -> int:
    """Downloads the published checkpoint and prints where it is."""
    from checkpoints import download

    url = arguments.url or download.PUBLISHED_URL
    with console.step(f"fetch {url}") as show:

        def progress(done: int, total: int | None) -> None:
            show(bar(done, total) if total else size(done))

        path = download.fetch(
            url,
            md5=arguments.md5 or download.PUBLISHED_MD5,
            force=arguments.force,
            progress=progress,
        )
    console.result(str(path))
    return 0


def make_stand_in(arguments: argparse.Namespace, console: Console) -> int:
    """Writes a generated checkpoint."""
    from checkpoints import stand_in
    from checkpoints.reader import open_checkpoint
    from exporters import images, recalibration
    from exporters.artifact import ExportError
    from exporters.graphs import NetworkGraphs

    path = arguments.output
    if path.is_dir():
        raise ExportError(f"{path} is a directory; expected a file to write")
    if path.exists() and not arguments.force:
        raise ExportError(f"{path} exists already. Use --force to replace it.")
    if not path.parent.is_dir():
        raise ExportError(f"{path.parent} is not a directory; {path} cannot be made")
    with console.step("generate") as show:
        variables = stand_in.generate(
            arguments.seed, lambda done, total: show(f"{done} of {total} variables")
        )
    if not arguments.raw:
        with console.step("set moving averages to batch statistics"):
            variables = recalibration.with_batch_statistics(
                variables,
                images.generate(8, 299, 299),
                NetworkGraphs(),
            )
    with console.step("write"):
        stand_in.write_v1(variables, path)
    console.say(_STAND_IN_NOTICE)
    console.say(f"identity {open_checkpoint(path).identity}")
    console.result(str(path))
    return 0


def _open_checkpoint(path: Path, console: Console) -> Checkpoint:
    from checkpoints.reader import open_checkpoint

    with console.step(f"read {path}"):
        checkpoint = open_checkpoint(path)
    if checkpoint.is_stand_in:
        console.say(_STAND_IN_NOTICE)
    return checkpoint


def inspect_path(arguments: argparse.Namespace, console: Console) -> int:
    """Prints what a checkpoint or artifact holds."""
    from exporters.inspection import inspect

    with console.step(f"open {arguments.path}"):
        facts = inspect(arguments.path)
    if arguments.json:
        console.result(json.dumps(facts, indent=2))
        return 0
    rows = [
        [name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)]
        for name, value in facts.items()
        if value is not None
    ]
    # What is wrong with the layout takes several lines.
    long = [text for _, text in rows if "\n" in text]
    short = [row for row in rows if "\n" not in row[1]]
    console.result("\n\n".join([table(["", "found"], short), *long]))
    return 0


def export_artifacts(arguments: argparse.Namespace, console: Console) -> int:
    """Makes artifacts and prints how each compares with the checkpoint."""
    from exporters import export, formats
    from exporters.artifact import ExportInputs, ExportOptions
    from exporters.calibration import calibration_images
    from exporters.graphs import NetworkGraphs
    from exporters.parity import ParityImages, Reference

    rows = formats.select(arguments.formats)
    tasks = formats.select_tasks(arguments.tasks)
    selection = [(row, task) for row in rows for task in tasks]
    options = ExportOptions(
        image_size=_image_size(arguments.image_size),
        nchw=arguments.nchw,
        endpoints=arguments.endpoints,
        softmax=arguments.softmax,
        integer_type=arguments.integer_type,
        signed_input=arguments.signed_input,
    )
    _check_options(options, rows, arguments.calibration_images)
    is_quantized = any(row.is_quantized for row in rows)
    parity_images = ParityImages(arguments.images)
    with console.step("read images"):
        calibration = calibration_images(
            arguments.calibration_images, options.image_size
        )
    checkpoint = _open_checkpoint(arguments.checkpoint, console)
    paths = export.destinations(
        arguments.output,
        selection,
        is_stand_in=checkpoint.is_stand_in,
        overwrite=arguments.force,
    )
    if is_quantized:
        console.say(f"Quantization is calibrated on {calibration.description}.")
    if arguments.verify:
        console.say(f"Artifacts are compared on {parity_images.description}.")

    inputs = ExportInputs(checkpoint, NetworkGraphs(), options, calibration)
    done = []
    with Reference(inputs.graphs, checkpoint) as reference:
        start = time.monotonic()
        with console.step("build the network"):
            inputs.graphs.get()
            if any(row.published_version for row in rows):
                inputs.graphs.get(is_training=True)
        graph_seconds = time.monotonic() - start
        for number, ((row, task), path) in enumerate(zip(selection, paths), start=1):
            with console.step(f"[{number}/{len(paths)}] {task} {row.name}") as show:
                done.append(
                    export.export(
                        inputs,
                        row,
                        task,
                        path,
                        reference=reference if arguments.verify else None,
                        parity_images=parity_images,
                        overwrite=arguments.force,
                        step=show,
                    )
                )
    if arguments.json:
        console.result(_as_json(done, graph_seconds))
    else:
        header = ["artifact", "size", "write s", "verify s", *_PARITY_HEADER]
        console.result(table(header, [_exported_cells(item) for item in done]))
        console.result(f"\n{len(done)} artifacts in {arguments.output}")
    return 0


def _as_json(done: Sequence[Exported], graph_seconds: float) -> str:
    artifacts = [
        {
            "path": str(item.path),
            "bytes": item.bytes,
            "seconds": item.seconds,
            "parity": item.report and item.report.as_dict(),
        }
        for item in done
    ]
    return json.dumps(
        {"graph_seconds": graph_seconds, "artifacts": artifacts}, indent=2
    )


def _exported_cells(item: Exported) -> Sequence[str]:
    return (
        item.path.name,
        size(item.bytes),
        f"{item.seconds['write']:.1f}",
        f"{item.seconds.get('verify', 0):.1f}",
        *_parity_cells(item.report),
    )


_PARITY_HEADER = ("rel. error", "cosine", "top-1", "weights", "result")


def _parity_cells(report: ParityReport | None) -> Sequence[str]:
    if report is None:
        return ("-", "-", "-", "-", "not compared")
    main = report.main
    return (
        f"{main.relative_error:.1e}",
        f"{main.cosine:.6f}",
        "-" if main.top_1 is None else f"{main.top_1:.0%}",
        f"{report.weights.count - len(report.weights.wrong)}/{report.weights.count}",
        "agrees" if report.passed else "DIFFERS",
    )


def verify_artifacts(arguments: argparse.Namespace, console: Console) -> int:
    """Compares artifacts with a checkpoint; EXIT_MISMATCH if one differs."""
    from exporters import manifest
    from exporters.artifact import ArtifactError
    from exporters.export import failures
    from exporters.formats import artifacts_in, container_of
    from exporters.graphs import NetworkGraphs
    from exporters.parity import ParityImages, Reference, compare

    paths = artifacts_in(arguments.artifacts)
    parity_images = ParityImages(arguments.images)
    checkpoint = _open_checkpoint(arguments.checkpoint, console)
    console.say(f"Artifacts are compared on {parity_images.description}.")
    graphs = NetworkGraphs()
    reports, unreadable = {}, {}
    with Reference(graphs, checkpoint) as reference:
        with console.step("build the network"):
            graphs.get()
        for number, path in enumerate(paths, start=1):
            with console.step(f"[{number}/{len(paths)}] {path}"):
                try:
                    artifact = container_of(path).open(path)
                    report = compare(artifact, reference, parity_images)
                    changed = manifest.changed_files(path)
                except ArtifactError as error:
                    unreadable[path] = str(error)
                    continue
                if changed:
                    problem = f"not as its manifest says: {', '.join(changed)}"
                    report = dataclasses.replace(
                        report, problems=(*report.problems, problem)
                    )
                reports[path] = report
    passed = not unreadable and all(report.passed for report in reports.values())
    if arguments.json:
        found = {str(path): report.as_dict() for path, report in reports.items()}
        for path, message in unreadable.items():
            found[str(path)] = {"passed": False, "error": message}
        console.result(json.dumps({"passed": passed, "artifacts": found}, indent=2))
    elif reports:
        rows = [[str(path), *_parity_cells(report)] for path, report in reports.items()]
        console.result(table(["artifact", *_PARITY_HEADER], rows))
    for path, report in reports.items():
        for line in failures(report):
            console.say(f"{path.name}: {line}")
    for message in unreadable.values():
        console.say(f"irv2: {message}")
    if unreadable:
        return EXIT_BAD_INPUT
    return 0 if passed else EXIT_MISMATCH


def install_artifacts(arguments: argparse.Namespace, console: Console) -> int:
    """Puts artifacts into a TF Hub cache."""
    from exporters.tfhub import cache

    placed = cache.install(
        arguments.artifacts,
        arguments.cache,
        allow_stand_in=arguments.allow_stand_in,
        force=arguments.force,
    )
    for item in placed:
        if item.warning:
            console.say(item.warning)
        for place, reason in item.kept.items():
            console.say(f"{place} is left as it is: {reason}")
        console.result(f"{item.handle}\n  {item.directory}")
    return 0


def uninstall_artifacts(arguments: argparse.Namespace, console: Console) -> int:
    """Takes out of a TF Hub cache what install put there."""
    from exporters.tfhub import cache

    done = cache.uninstall(arguments.cache)
    for item in done.removed:
        for place in item.left:
            console.say(f"{place} holds something else by now, and is left as it is")
        console.result(item.handle)
    count = len(done.removed)
    console.say(f"{count} artifact{'' if count == 1 else 's'} removed")
    for item in done.kept:
        console.say(
            f"irv2: {item.directory} was changed since it was installed, and left: "
            f"{', '.join(item.changed[:3])}."
        )
    return EXIT_BAD_INPUT if done.kept else 0


def pack_artifacts(arguments: argparse.Namespace, console: Console) -> int:
    """Makes .tar.gz files of artifacts."""
    from exporters.tfhub import packing

    with console.step("pack") as show:
        packed = packing.pack(
            arguments.artifacts,
            arguments.output,
            force=arguments.force,
            progress=lambda done, total: show(bar(done, total)),
        )
    for item in packed:
        if item.warning:
            console.say(item.warning)
        console.result(str(item.path))
    return 0


def _check_options(
    options: ExportOptions, rows: Sequence[Format], calibration_images: Path | None
) -> None:
    """Refuses options that no format asked for heeds, and sizes that one cannot do."""
    from exporters.artifact import ExportError

    names = ", ".join(row.name for row in rows)
    for field in dataclasses.fields(options):
        is_given = getattr(options, field.name) != field.default
        if is_given and not any(field.name in row.options for row in rows):
            flag = field.name.replace("_", "-")
            raise ExportError(f"--{flag} has no effect on {names}")
    if calibration_images and not any(row.is_quantized for row in rows):
        raise ExportError(f"--calibration-images has no effect on {names}")
    fixed = [row.name for row in rows if row.container.needs_image_size]
    if options.image_size is None and fixed:
        raise ExportError(
            f"image size 'dynamic': {', '.join(fixed)} cannot do without a size. Name "
            "others with --formats."
        )


def _image_size(text: str) -> tuple[int, int] | None:
    from exporters.artifact import ExportError

    if text == "dynamic":
        return None
    parts = text.split("x")
    if len(parts) > 2 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise ExportError(
            f"image size {text!r}: expected pixels as 299 or 224x320, or 'dynamic'"
        )
    return int(parts[0]), int(parts[-1])
