"""The `irv2` command: parses, calls, prints."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app
from absl.flags import argparse_flags

from exporters.console import Console, size, table

if TYPE_CHECKING:
    from checkpoints.reader import Checkpoint
    from exporters.parity import ParityReport

EXIT_MISMATCH = 1
EXIT_BAD_INPUT = 3
EXIT_DOWNLOAD = 4
EXIT_INTERRUPTED = 130

_EXIT_CODES = """\
exit codes:
  0  done, and everything that was compared agrees
  1  an artifact does not agree with its checkpoint
  2  wrong usage, such as an unknown option
  3  a checkpoint, format, image or directory that cannot be used
  4  the download failed
"""
_STAND_IN_NOTICE = (
    "This checkpoint is a STAND-IN: its weights are generated and classify nothing. "
    "What is made of it is marked as a stand-in."
)


def main() -> None:
    """Entry point of the console script."""
    app.run(_run, flags_parser=_parse)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse_flags.ArgumentParser(
        prog="irv2",
        description="Rebuilds the published artifacts of inception_resnet_v2 from its "
        "training checkpoint, and checks them.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name, function, summary):
        added = commands.add_parser(
            name, help=summary, description=summary, inherited_absl_flags=None
        )
        added.set_defaults(command=function)
        return added

    added = command("list", _list, "List the formats.")
    _add_json(added)

    added = command("fetch", _fetch, "Download the published checkpoint, once.")
    added.add_argument("--url", help="mirror to download the archive from")
    added.add_argument(
        "--md5", type=_md5, help="MD5 of the archive, where it is another one"
    )
    added.add_argument("--force", action="store_true", help="download again")

    added = command("stand-in", _stand_in, "Generate a checkpoint to try things with.")
    added.add_argument("--output", type=Path, required=True, help="V1 file to write")
    added.add_argument("--seed", type=int, default=0)
    added.add_argument(
        "--raw",
        action="store_true",
        help="leave the moving averages as generated; such a network hardly tells "
        "images apart",
    )
    added.add_argument("--force", action="store_true", help="replace an existing file")

    added = command("inspect", _inspect, "Show what a checkpoint or artifact holds.")
    added.add_argument("path", type=Path)
    _add_json(added)

    added = command("export", _export, "Make artifacts from a checkpoint.")
    _add_checkpoint(added)
    added.add_argument("--output", type=Path, required=True, help="directory")
    added.add_argument("--formats", type=_names, help="comma-separated; default: all")
    added.add_argument("--tasks", type=_names, help="comma-separated; default: both")
    added.add_argument(
        "--force", action="store_true", help="replace existing artifacts"
    )
    added.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not compare the artifacts with the checkpoint",
    )
    _add_images(added)
    _add_json(added)
    _add_deployment(added.add_argument_group("options of the ONNX and TFLite formats"))

    added = command("verify", _verify, "Compare artifacts with their checkpoint.")
    added.add_argument(
        "artifacts", type=Path, nargs="+", help="artifacts, or directories of them"
    )
    _add_checkpoint(added)
    _add_images(added)
    _add_json(added)

    added = command("install", _install, "Put artifacts where TF Hub looks first.")
    added.add_argument("artifacts", type=Path, nargs="+")
    added.add_argument("--cache", type=Path, help="default: TFHUB_CACHE_DIR")
    added.add_argument(
        "--allow-stand-in",
        action="store_true",
        help="install a stand-in under the published handle",
    )
    added.add_argument("--force", action="store_true", help="replace what is there")

    added = command("uninstall", _uninstall, "Remove what install put there.")
    added.add_argument("--cache", type=Path, help="default: TFHUB_CACHE_DIR")

    added = command("pack", _pack, "Make .tar.gz files for any web server.")
    added.add_argument("artifacts", type=Path, nargs="+")
    added.add_argument("--output", type=Path, required=True, help="directory")
    added.add_argument("--force", action="store_true", help="replace existing files")
    return parser.parse_args(arguments[1:])


def _add_json(parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def _add_checkpoint(parser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="V1 file, V2 prefix, a directory with one, or .tar.gz",
    )


def _add_images(parser) -> None:
    parser.add_argument(
        "--images", type=Path, help="directory of JPEG or PNG files to compare on"
    )


def _add_deployment(parser) -> None:
    parser.add_argument(
        "--image-size",
        default="299",
        help="pixels, as 299 or 224x320 (height x width), or 'dynamic' (ONNX)",
    )
    parser.add_argument("--nchw", action="store_true", help="channels first (ONNX)")
    parser.add_argument(
        "--endpoints", action="store_true", help="show the endpoints too (ONNX)"
    )
    parser.add_argument(
        "--softmax", action="store_true", help="probabilities, not logits (TFLite)"
    )
    parser.add_argument(
        "--signed-input",
        action="store_true",
        help="images in [-1, 1], as the published TFLite took them (TFLite)",
    )
    parser.add_argument(
        "--integer-type",
        choices=("float32", "uint8", "int8"),
        default="float32",
        help="type of input and output of tflite-int8",
    )
    parser.add_argument(
        "--calibration-images",
        type=Path,
        help="directory of JPEG or PNG files to quantize with; default: generated",
    )


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected names, separated by commas")
    return names


def _md5(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{32}", text):
        raise argparse.ArgumentTypeError("expected 32 hexadecimal digits")
    return text


def _run(arguments: argparse.Namespace) -> int:
    from checkpoints.archive import ArchiveError
    from checkpoints.http_transfer import DownloadError
    from checkpoints.layout import CheckpointLayoutError
    from checkpoints.reader import CheckpointError
    from exporters.artifact import ArtifactError, ExportError
    from exporters.export import ParityError
    from exporters.formats import UnknownFormatError
    from exporters.images import ImageError

    console = Console()
    bad_input = (
        ArchiveError,
        ArtifactError,
        CheckpointError,
        CheckpointLayoutError,
        ExportError,
        ImageError,
        OSError,
        UnknownFormatError,
    )
    try:
        with console.alone():
            return arguments.command(arguments, console)
    except DownloadError as error:
        code, message = EXIT_DOWNLOAD, str(error)
    except ParityError as error:
        code, message = EXIT_MISMATCH, str(error)
    except bad_input as error:
        code, message = EXIT_BAD_INPUT, str(error)
    except KeyboardInterrupt:
        code, message = EXIT_INTERRUPTED, "interrupted"
    console.say(f"irv2: {message}")
    return code


def _list(arguments: argparse.Namespace, console: Console) -> int:
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


def _fetch(arguments: argparse.Namespace, console: Console) -> int:
    from checkpoints import download

    url = arguments.url or download.PUBLISHED_URL
    with console.step(f"fetch {url}") as show:

        def progress(done: int, total: int | None) -> None:
            share = f"{done / total:4.0%} of {size(total)}" if total else size(done)
            show(share)

        path = download.fetch(
            url,
            md5=arguments.md5 or download.PUBLISHED_MD5,
            force=arguments.force,
            progress=progress,
        )
    console.result(str(path))
    return 0


def _stand_in(arguments: argparse.Namespace, console: Console) -> int:
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


def _inspect(arguments: argparse.Namespace, console: Console) -> int:
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


def _export(arguments: argparse.Namespace, console: Console) -> int:
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
    parity_images = ParityImages(arguments.images)
    calibration = calibration_images(arguments.calibration_images, options.image_size)
    checkpoint = _open_checkpoint(arguments.checkpoint, console)
    paths = export.destinations(
        arguments.output,
        selection,
        is_stand_in=checkpoint.is_stand_in,
        overwrite=arguments.force,
    )
    if any(row.is_quantized for row in rows):
        console.say(f"Quantization is calibrated on {calibration.description}.")
    if arguments.verify:
        console.say(f"Artifacts are compared on {parity_images.description}.")

    inputs = ExportInputs(checkpoint, NetworkGraphs(), options, calibration)
    done = []
    with Reference(inputs.graphs, checkpoint) as reference:
        with console.step("build the network"):
            inputs.graphs.get()
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
                        facts={
                            "options": dataclasses.asdict(options),
                            "calibration": calibration.description,
                        },
                        step=show,
                    )
                )
    if arguments.json:
        console.result(
            json.dumps(
                [
                    {
                        "path": str(item.path),
                        "bytes": item.bytes,
                        "seconds": item.seconds,
                        "parity": item.report and item.report.as_dict(),
                    }
                    for item in done
                ],
                indent=2,
            )
        )
        return 0
    header = ["artifact", "size", "write s", "verify s", *_PARITY_HEADER]
    console.result(
        table(
            header,
            [
                [
                    item.path.name,
                    size(item.bytes),
                    f"{item.seconds['write']:.1f}",
                    f"{item.seconds.get('verify', 0):.1f}",
                    *_parity_cells(item.report),
                ]
                for item in done
            ],
        )
    )
    console.result(f"\n{len(done)} artifacts in {arguments.output}")
    return 0


_PARITY_HEADER = ("max error", "cosine", "top-1", "weights", "result")


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


def _verify(arguments: argparse.Namespace, console: Console) -> int:
    from exporters import manifest
    from exporters.export import failures
    from exporters.formats import artifacts_in, container_of
    from exporters.graphs import NetworkGraphs
    from exporters.parity import ParityImages, Reference, compare

    paths = artifacts_in(arguments.artifacts)
    parity_images = ParityImages(arguments.images)
    checkpoint = _open_checkpoint(arguments.checkpoint, console)
    console.say(f"Artifacts are compared on {parity_images.description}.")
    graphs = NetworkGraphs()
    reports = {}
    with Reference(graphs, checkpoint) as reference:
        with console.step("build the network"):
            graphs.get()
        for number, path in enumerate(paths, start=1):
            with console.step(f"[{number}/{len(paths)}] {path}"):
                report = compare(
                    container_of(path).open(path), reference, parity_images
                )
                changed = manifest.changed_files(path)
                if changed:
                    problem = f"not as its manifest says: {', '.join(changed)}"
                    report = dataclasses.replace(
                        report, problems=(*report.problems, problem)
                    )
                reports[path] = report
    passed = all(report.passed for report in reports.values())
    if arguments.json:
        found = {str(path): report.as_dict() for path, report in reports.items()}
        console.result(json.dumps({"passed": passed, "artifacts": found}, indent=2))
    else:
        rows = [[str(path), *_parity_cells(report)] for path, report in reports.items()]
        console.result(table(["artifact", *_PARITY_HEADER], rows))
    for path, report in reports.items():
        for line in failures(report):
            console.say(f"{path.name}: {line}")
    return 0 if passed else EXIT_MISMATCH


def _install(arguments: argparse.Namespace, console: Console) -> int:
    from exporters import hub_cache

    placed = hub_cache.install(
        arguments.artifacts,
        arguments.cache,
        allow_stand_in=arguments.allow_stand_in,
        force=arguments.force,
    )
    for handle, directory in placed.items():
        console.result(f"{handle}\n  {directory}")
    return 0


def _uninstall(arguments: argparse.Namespace, console: Console) -> int:
    from exporters import hub_cache

    removed = hub_cache.uninstall(arguments.cache)
    for handle in removed:
        console.result(handle)
    console.say(f"{len(removed)} artifacts removed")
    return 0


def _pack(arguments: argparse.Namespace, console: Console) -> int:
    from exporters import hub_cache

    for path in hub_cache.pack(
        arguments.artifacts, arguments.output, force=arguments.force
    ):
        console.result(str(path))
    return 0


def _image_size(text: str) -> tuple[int, int] | None:
    from exporters.artifact import ExportError
    from exporters.network import MINIMUM_IMAGE_SIZE

    if text == "dynamic":
        return None
    parts = text.split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ExportError(
            f"image size {text!r}: expected pixels as 299 or 224x320, or 'dynamic'"
        )
    height, width = int(parts[0]), int(parts[-1])
    if min(height, width) < MINIMUM_IMAGE_SIZE:
        raise ExportError(
            f"image size {height} x {width}: the network takes no less than "
            f"{MINIMUM_IMAGE_SIZE} x {MINIMUM_IMAGE_SIZE} pixels"
        )
    return height, width


if __name__ == "__main__":
    main()
