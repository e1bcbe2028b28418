"""The `irv2` command: arguments, exit codes, and what errors become.

Each subcommand calls one verb of the library and shows what came back. Nothing slow to
import is imported before a subcommand needs it.
"""

from __future__ import annotations

import argparse
import errno
import importlib.metadata
import json
import re
import signal
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app
from absl.flags import argparse_flags

from exporters.command import show
from exporters.command.console import Console

if TYPE_CHECKING:
    from exporters.build import ExportOptions

EXIT_MISMATCH = 1
EXIT_BAD_INPUT = 3
EXIT_DOWNLOAD = 4
EXIT_FAULT = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_EXIT_CODES = """\
exit codes:
  0   done, and everything that was compared agrees
  1   an artifact does not agree with its checkpoint
  2   wrong usage, such as an unknown option
  3   a checkpoint, artifact, format, image or directory that cannot be used
  4   the download failed
  70  a fault of irv2's own, with a traceback
  130 interrupted
"""

_ENVIRONMENT_TROUBLES = {
    errno.EACCES,
    errno.EBUSY,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.ENXIO,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
    errno.ETXTBSY,
}
"""What a file system says when it is not our fault."""


def main() -> None:
    """Entry point of the console script."""
    # A request to end is cleaned up after as an interruption by Ctrl-C is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app.run(_run, flags_parser=_parse)


# What each subcommand does


def _list(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.formats import FORMATS

    show.formats(console, FORMATS.values(), arguments.json)
    return 0


def _fetch(arguments: argparse.Namespace, console: Console) -> int:
    from checkpoints import download

    url = arguments.url or download.PUBLISHED_URL
    with console.step(f"fetch {url}") as step:
        path = download.fetch(
            url,
            md5=arguments.md5 or download.PUBLISHED_MD5,
            force=arguments.force,
            progress=step.bytes,
        )
    console.result(str(path))
    return 0


def _make_stand_in(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.stand_in import make_stand_in

    with show.Steps(console) as progress:
        made = make_stand_in(
            arguments.output,
            seed=arguments.seed,
            raw=arguments.raw,
            force=arguments.force,
            progress=progress,
        )
    console.say(f"identity {made.identity}")
    console.result(str(made.path))
    return 0


def _inspect(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.inspection import inspect

    with console.step(f"open {arguments.path}"):
        found = inspect(arguments.path)
    show.inspection(console, found, arguments.json)
    return 0


def _export(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.exporting import export

    with show.Steps(console) as progress:
        done = export(
            arguments.checkpoint,
            arguments.output,
            formats=arguments.formats,
            tasks=arguments.tasks,
            options=_options(arguments),
            images=arguments.images,
            calibration_images=arguments.calibration_images,
            verify=arguments.verify,
            force=arguments.force,
            progress=progress,
        )
    show.export(console, done, arguments.json)
    if done.passed:
        return 0
    mismatch = any(
        artifact.error is None for artifact in done.artifacts if not artifact.is_kept
    )
    return EXIT_MISMATCH if mismatch else EXIT_BAD_INPUT


def _verify(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.verification import verify

    with show.Steps(console) as progress:
        done = verify(
            arguments.artifacts,
            arguments.checkpoint,
            images=arguments.images,
            progress=progress,
        )
    show.verification(console, done, arguments.json)
    if any(artifact.error for artifact in done.artifacts):
        return EXIT_BAD_INPUT
    return 0 if done.passed else EXIT_MISMATCH


def _install(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.tfhub.cache import install

    with show.Steps(console) as progress:
        placed = install(
            arguments.artifacts,
            arguments.cache,
            allow_stand_in=arguments.allow_stand_in,
            force=arguments.force,
            progress=progress,
        )
    show.installed(console, placed)
    return 0


def _uninstall(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.tfhub.cache import uninstall

    done = uninstall(arguments.cache, force=arguments.force)
    show.uninstalled(console, done)
    return EXIT_BAD_INPUT if done.kept else 0


def _pack(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.tfhub.packing import pack

    with show.Steps(console) as progress:
        packed = pack(
            arguments.artifacts,
            arguments.output,
            force=arguments.force,
            progress=progress,
        )
    show.packed(console, packed)
    return 0


def _options(arguments: argparse.Namespace) -> ExportOptions:
    from exporters.build import ExportOptions

    return ExportOptions(
        image_size=arguments.image_size,
        nchw=arguments.nchw,
        endpoints=arguments.endpoints,
        softmax=arguments.softmax,
        integer_type=arguments.integer_type,
        signed_input=arguments.signed_input,
    )


# Arguments


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse_flags.ArgumentParser(
        prog="irv2",
        description="Rebuilds the published artifacts of inception_resnet_v2 from its "
        "training checkpoint, and checks them.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show irv2's version")
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )

    def command(name, function, summary, *examples):
        lines = [f"  irv2 {name} {example}".rstrip() for example in examples]
        added = subparsers.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="examples:\n" + "\n".join(lines),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            inherited_absl_flags=None,
        )
        added.set_defaults(command=function)
        return added

    added = command("list", _list, "List the formats.", "", "--json")
    _add_json(added)

    added = command(
        "fetch",
        _fetch,
        "Download the published checkpoint, once, and print where it is.",
        "",
        "--url https://example.org/inception_resnet_v2_2016_08_30.tar.gz",
    )
    added.add_argument("--url", help="mirror to download the archive from")
    added.add_argument(
        "--md5", type=_md5, help="MD5 of the archive, where it is another one"
    )
    added.add_argument("--force", action="store_true", help="download again")

    added = command(
        "stand-in",
        _make_stand_in,
        "Generate a checkpoint to try things with; it classifies nothing.",
        "--output build/stand_in.ckpt",
        "--output build/other.ckpt --seed 7 --force",
    )
    added.add_argument(
        "--output", type=_path, required=True, help="V1 checkpoint file to write"
    )
    added.add_argument(
        "--seed", type=int, default=0, help="same seed, same numbers; default: 0"
    )
    added.add_argument(
        "--raw",
        action="store_true",
        help="leave the moving averages as generated; such a network hardly tells "
        "images apart",
    )
    added.add_argument("--force", action="store_true", help="replace an existing file")

    added = command(
        "inspect",
        _inspect,
        "Show what a checkpoint, an artifact or a directory of artifacts holds.",
        "inception_resnet_v2_2016_08_30.ckpt",
        "artifacts/inception_resnet_v2-classification-onnx-int8.onnx --json",
    )
    added.add_argument("path", type=_path, help="file or directory to look at")
    _add_json(added)

    added = command(
        "export",
        _export,
        "Make artifacts from a checkpoint, and compare each with it.",
        "--checkpoint CHECKPOINT --output artifacts --formats v4,v5",
        "--checkpoint CHECKPOINT --output artifacts --formats tflite-int8 \\\n"
        "      --tasks classification --calibration-images photos",
    )
    _add_checkpoint(added)
    added.add_argument(
        "--output", type=_path, required=True, help="directory to export to"
    )
    added.add_argument(
        "--formats", type=_names, help="comma-separated, see `irv2 list`; default: all"
    )
    added.add_argument(
        "--tasks",
        type=_names,
        help="feature_vector, classification or both, comma-separated; default: both",
    )
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

    added = command(
        "verify",
        _verify,
        "Compare artifacts with their checkpoint, and with their manifests.",
        "--checkpoint CHECKPOINT artifacts",
        "--checkpoint CHECKPOINT --images photos model.onnx model.tflite",
    )
    added.add_argument(
        "artifacts", type=_path, nargs="+", help="artifacts, or directories of them"
    )
    _add_checkpoint(added)
    _add_images(added)
    _add_json(added)

    added = command(
        "install",
        _install,
        "Put artifacts where TF Hub looks first, under their published handles.",
        "artifacts",
        "artifacts/inception_resnet_v2-feature_vector-v4 --cache ~/tfhub_modules",
    )
    _add_artifacts(added)
    added.add_argument(
        "--cache", type=_path, help="the library's cache; default: TFHUB_CACHE_DIR"
    )
    added.add_argument(
        "--allow-stand-in",
        action="store_true",
        help="install generated weights under the handle of the trained ones",
    )
    added.add_argument(
        "--force",
        action="store_true",
        help="replace what is there, even if somebody else put it there",
    )

    added = command(
        "uninstall",
        _uninstall,
        "Remove what install put there, and nothing else.",
        "",
        "--cache ~/tfhub_modules --force",
    )
    added.add_argument(
        "--force",
        action="store_true",
        help="remove what was changed since it was installed too",
    )
    added.add_argument(
        "--cache", type=_path, help="the library's cache; default: TFHUB_CACHE_DIR"
    )

    added = command(
        "pack",
        _pack,
        "Make .tar.gz files of artifacts, for any web server.",
        "artifacts --output www",
        "artifacts/inception_resnet_v2-feature_vector-v4 --output www --force",
    )
    _add_artifacts(added)
    added.add_argument(
        "--output", type=_path, required=True, help="directory to pack to"
    )
    added.add_argument("--force", action="store_true", help="replace existing files")
    return parser.parse_args(arguments[1:])


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings, dest, help=None):
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser, namespace, values, option_string=None):
        parser.exit(message=f"irv2 {importlib.metadata.version('irv2')}\n")


def _add_json(parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def _add_checkpoint(parser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=_path,
        required=True,
        help="V1 file, V2 prefix, a directory with one, or .tar.gz",
    )


def _add_artifacts(parser) -> None:
    parser.add_argument(
        "artifacts",
        type=_path,
        nargs="+",
        help="artifacts of v1, v3, v4 or v5, or directories that hold such",
    )


def _add_images(parser) -> None:
    parser.add_argument(
        "--images", type=_path, help="directory of JPEG or PNG files to compare on"
    )


def _add_deployment(parser) -> None:
    parser.add_argument(
        "--image-size",
        type=_image_size,
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
        type=_path,
        help="directory of JPEG or PNG files to quantize with; default: generated",
    )


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("expected a path, found nothing")
    return Path(text)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected names, separated by commas")
    return names


def _md5(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{32}", text):
        raise argparse.ArgumentTypeError("expected 32 hexadecimal digits")
    return text


def _image_size(text: str) -> tuple[int, int] | None:
    if text == "dynamic":
        return None
    parts = text.split("x")
    if len(parts) > 2 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected pixels as 299 or 224x320, or 'dynamic'"
        )
    return int(parts[0]), int(parts[-1])


# Errors


def _run(arguments: argparse.Namespace) -> int:
    from checkpoints.archive import ArchiveError
    from checkpoints.http_transfer import DownloadError
    from checkpoints.layout import CheckpointLayoutError
    from checkpoints.reader import CheckpointError
    from exporters.errors import ArtifactError, ExportError, UnknownFormatError
    from exporters.images import ImageError

    console = Console()
    try:
        with console.alone():
            return arguments.command(arguments, console)
    except BrokenPipeError:  # As of `irv2 list | head`.
        return EXIT_BROKEN_PIPE
    except DownloadError as error:
        code, message = EXIT_DOWNLOAD, str(error)
    except (
        ArchiveError,
        ArtifactError,
        CheckpointError,
        CheckpointLayoutError,
        ExportError,
        ImageError,
        UnknownFormatError,
    ) as error:
        code, message = EXIT_BAD_INPUT, str(error)
    except OSError as error:
        if error.errno in _ENVIRONMENT_TROUBLES:
            code, message = EXIT_BAD_INPUT, _of_file_system(error)
        else:
            code, message = EXIT_FAULT, traceback.format_exc()
    except KeyboardInterrupt:
        code, message = EXIT_INTERRUPTED, "interrupted"
    except Exception:
        code, message = EXIT_FAULT, traceback.format_exc()
    if getattr(arguments, "json", False):
        console.result(json.dumps({"error": message, "exit_code": code}))
    console.error(message)
    return code


def _of_file_system(error: OSError) -> str:
    """Names the file, and what the file system says of it."""
    names = [str(name) for name in (error.filename, error.filename2) if name]
    return f"{' and '.join(names) or 'a file'}: {error.strerror}"


if __name__ == "__main__":
    main()
