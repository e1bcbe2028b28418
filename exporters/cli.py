"""The `irv2` command: its arguments, and what its errors become."""

from __future__ import annotations

import argparse
import re
import signal
import traceback
from pathlib import Path

from absl import app
from absl.flags import argparse_flags

from exporters import commands
from exporters.commands import EXIT_BAD_INPUT, EXIT_MISMATCH
from exporters.console import Console

EXIT_DOWNLOAD = 4
EXIT_FAULT = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_EXIT_CODES = """\
exit codes:
  0  done, and everything that was compared agrees
  1  an artifact does not agree with its checkpoint
  2  wrong usage, such as an unknown option
  3  a checkpoint, format, image or directory that cannot be used
  4  the download failed
  70 a fault of irv2's own, with a traceback
"""


def main() -> None:
    """Entry point of the console script."""
    # A request to end is cleaned up after as an interruption by Ctrl-C is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app.run(_run, flags_parser=_parse)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse_flags.ArgumentParser(
        prog="irv2",
        description="Rebuilds the published artifacts of inception_resnet_v2 from its "
        "training checkpoint, and checks them.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )

    def command(name, function, summary):
        added = subparsers.add_parser(
            name, help=summary, description=summary, inherited_absl_flags=None
        )
        added.set_defaults(command=function)
        return added

    added = command("list", commands.list_formats, "List the formats.")
    _add_json(added)

    added = command(
        "fetch", commands.fetch_checkpoint, "Download the published checkpoint, once."
    )
    added.add_argument("--url", help="mirror to download the archive from")
    added.add_argument(
        "--md5", type=_md5, help="MD5 of the archive, where it is another one"
    )
    added.add_argument("--force", action="store_true", help="download again")

    added = command(
        "stand-in", commands.make_stand_in, "Generate a checkpoint to try things with."
    )
    added.add_argument("--output", type=Path, required=True, help="V1 file to write")
    added.add_argument("--seed", type=int, default=0)
    added.add_argument(
        "--raw",
        action="store_true",
        help="leave the moving averages as generated; such a network hardly tells "
        "images apart",
    )
    added.add_argument("--force", action="store_true", help="replace an existing file")

    added = command(
        "inspect", commands.inspect_path, "Show what a checkpoint or artifact holds."
    )
    added.add_argument("path", type=Path)
    _add_json(added)

    added = command(
        "export", commands.export_artifacts, "Make artifacts from a checkpoint."
    )
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

    added = command(
        "verify", commands.verify_artifacts, "Compare artifacts with their checkpoint."
    )
    added.add_argument(
        "artifacts", type=Path, nargs="+", help="artifacts, or directories of them"
    )
    _add_checkpoint(added)
    _add_images(added)
    _add_json(added)

    added = command(
        "install", commands.install_artifacts, "Put artifacts where TF Hub looks first."
    )
    added.add_argument("artifacts", type=Path, nargs="+")
    added.add_argument("--cache", type=Path, help="default: TFHUB_CACHE_DIR")
    added.add_argument(
        "--allow-stand-in",
        action="store_true",
        help="install a stand-in under the published handle",
    )
    added.add_argument("--force", action="store_true", help="replace what is there")

    added = command(
        "uninstall", commands.uninstall_artifacts, "Remove what install put there."
    )
    added.add_argument("--cache", type=Path, help="default: TFHUB_CACHE_DIR")

    added = command(
        "pack", commands.pack_artifacts, "Make .tar.gz files for any web server."
    )
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
    except BrokenPipeError:  # As of `irv2 list | head`.
        return EXIT_BROKEN_PIPE
    except DownloadError as error:
        code, message = EXIT_DOWNLOAD, str(error)
    except ParityError as error:
        code, message = EXIT_MISMATCH, str(error)
    except bad_input as error:
        code, message = EXIT_BAD_INPUT, str(error)
    except KeyboardInterrupt:
        code, message = EXIT_INTERRUPTED, "interrupted"
    except Exception:
        code, message = EXIT_FAULT, traceback.format_exc()
    console.say(f"irv2: {message}")
    return code


if __name__ == "__main__":
    main()
