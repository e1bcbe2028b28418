"""The arguments of the `irv2` command, and what argparse makes of them."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from exporters.command import exit_codes, verbs
from exporters.command.console import Console

ONLY_READS = "only reads"
WRITES_TOO = "writes too"
"""What a subcommand does with the files that it opens."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Has room for each argument and its help in one line of 80 columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class _CommandsFormatter(_Formatter):
    """Has room for each command: argparse forgets that they are indented."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = len("    compare-features")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are for programs too, if `--json` is there."""

    def error(self, message: str) -> NoReturn:
        if "--json" in sys.argv:
            Console().result(exit_codes.error_as_json(message, exit_codes.USAGE))
        super().error(message)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns what was typed; `command` of it is what does that.

    Raises:
      SystemExit: it cannot be understood, and that was said; or it asked for help.
    """
    parser = _Parser(
        prog="irv2",
        description="Rebuilds the published artifacts of inception_resnet_v2 from its\n"
        "training checkpoint, and checks them.",
        epilog=exit_codes.IN_WORDS,
        formatter_class=_CommandsFormatter,
    )
    parser.add_argument(
        "-V", "--version", action=_Version, help="show irv2's version and exit"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_list,
        _add_fetch,
        _add_stand_in,
        _add_inspect,
        _add_export,
        _add_verify,
        _add_sign,
        _add_report,
        _add_evaluate,
        _add_features,
        _add_compare_features,
        _add_identify,
        _add_install,
        _add_uninstall,
        _add_pack,
    ):
        add(commands)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        parsed.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return parsed


def _add_command(
    commands: Any,
    function: Callable[[argparse.Namespace, Console], int],
    name: str,
    summary: str,
    *examples: str,
    opens_files: str = "",
) -> argparse.ArgumentParser:
    lines = [f"  irv2 {name} {example}".rstrip() for example in examples]
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog="\n".join(["examples:", *lines]),
        formatter_class=_Formatter,
    )
    added.set_defaults(command=function, parser=added, opens_files=opens_files)
    return added


def _add_list(commands: Any) -> None:
    added = _add_command(
        commands, verbs.run_list, "list", "List the formats.", "", "--json"
    )
    _add_json(added)


def _add_fetch(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_fetch,
        "fetch",
        "Download the published checkpoint, once, and print its path.",
        "",
        "--url https://example.org/inception_resnet_v2_2016_08_30.tar.gz",
    )
    added.add_argument("--url", help="a mirror to download the archive from")
    added.add_argument(
        "--md5", type=_md5, help="of the archive, if it is not the published one"
    )
    _add_force(added, "download again what is in the cache")


def _add_stand_in(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_stand_in,
        "stand-in",
        "Generate a checkpoint to try things; it classifies nothing.",
        "--output build/stand_in.ckpt",
        "--output build/other.ckpt --seed 7 --force",
    )
    _add_output(added, "FILE", "checkpoint to write, in the V1 format")
    added.add_argument(
        "--seed", type=int, default=0, help="same seed, same numbers; default: 0"
    )
    added.add_argument(
        "--raw", action="store_true", help="leave the moving averages as generated"
    )
    _add_force(added, "replace an existing file")


def _add_inspect(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_inspect,
        "inspect",
        "Show what a checkpoint, artifact or directory of these holds.",
        "inception_resnet_v2_2016_08_30.ckpt",
        "artifacts/inception_resnet_v2-feature_vector-v4 --json",
        opens_files=ONLY_READS,
    )
    added.add_argument("path", type=_path, help="file or directory to look at")
    _add_json(added)


def _add_export(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_export,
        "export",
        "Make artifacts from a checkpoint, and compare each with it.",
        "--checkpoint CHECKPOINT --output artifacts --formats v4,v5",
        "--checkpoint CHECKPOINT --output artifacts --formats tflite-int8 \\\n"
        "      --tasks classification --calibration-images photos",
        opens_files=WRITES_TOO,
    )
    _add_checkpoint(added)
    place = added.add_mutually_exclusive_group(required=True)
    place.add_argument(
        "--output",
        metavar="DIR",
        type=_path,
        help="directory to export to; made if needed",
    )
    place.add_argument(
        "--check",
        metavar="PATH",
        type=_path,
        help="make again what is here, and compare bytes",
    )
    added.add_argument(
        "--formats", type=_names, help="names of `irv2 list`, with commas; default: all"
    )
    added.add_argument(
        "--tasks", type=_names, help="feature_vector, classification; default: both"
    )
    _add_force(added, "replace existing artifacts")
    added.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not compare artifacts with the checkpoint",
    )
    _add_moving_averages(added)
    _add_labels(added)
    _add_images(added)
    _add_json(added)
    _add_options(added.add_argument_group("options of the ONNX and TFLite formats"))


def _add_verify(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_verify,
        "verify",
        "Compare artifacts, and files of other tools', with a checkpoint.",
        "--checkpoint CHECKPOINT artifacts",
        "--checkpoint CHECKPOINT --images photos model.onnx model.tflite",
        "--checkpoint CHECKPOINT by_tf2onnx.onnx frozen.pb state_dict.pt",
        opens_files=ONLY_READS,
    )
    added.add_argument(
        "artifacts",
        type=_path,
        nargs="+",
        help="artifacts, other tools' files, or directories",
    )
    _add_checkpoint(added)
    _add_moving_averages(added)
    _add_labels(added)
    _add_images(added)
    _add_engine(added)
    _add_json(added)
    group = added.add_argument_group("signatures")
    group.add_argument(
        "--signature", action="store_true", help="each artifact has to be signed"
    )
    group.add_argument(
        "--public-key", metavar="FILE", type=_path, help="by the owner of this key"
    )
    group.add_argument(
        "--identity", metavar="NAME", help="by this identity, as me@example.org"
    )
    group.add_argument(
        "--identity-provider", metavar="URL", help="as this provider vouches for"
    )


def _add_sign(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_sign,
        "sign",
        "Sign artifacts: their manifests, and so every file that these list.",
        "artifacts --private-key key.pem",
        "model.onnx",
        opens_files=WRITES_TOO,
    )
    added.add_argument(
        "artifacts", type=_path, nargs="+", help="artifacts, or directories of them"
    )
    added.add_argument(
        "--private-key",
        metavar="FILE",
        type=_path,
        help="an elliptic curve's key, PEM, its password in IRV2_KEY_PASSWORD; "
        "default: Sigstore asks who you are",
    )


def _add_report(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_report,
        "report",
        "Verify artifacts, and write a page about them: errors, depth, time.",
        "--checkpoint CHECKPOINT artifacts --output report.html",
        "--checkpoint CHECKPOINT artifacts --output report.html \\\n"
        "      --images photos --evaluation evaluation.json --latency",
        opens_files=WRITES_TOO,
    )
    added.add_argument(
        "artifacts", type=_path, nargs="+", help="artifacts, or directories of them"
    )
    _add_checkpoint(added)
    _add_output(added, "FILE", "HTML file to write")
    added.add_argument(
        "--evaluation",
        metavar="FILE",
        type=_path,
        help="what `irv2 evaluate --json` printed",
    )
    added.add_argument(
        "--latency", action="store_true", help="measure them on this machine"
    )
    _add_moving_averages(added)
    _add_images(added)
    _add_force(added, "replace an existing file")
    _add_json(added)


def _add_evaluate(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_evaluate,
        "evaluate",
        "Count how often artifacts, or the checkpoint, are right.",
        "artifacts --images imagenet/validation",
        "model.onnx --checkpoint CHECKPOINT --images photos \\\n"
        "      --ground-truth labels.txt --state evaluation.state",
        "model.onnx --images gs://bucket/photos \\\n"
        "      --state gs://bucket/state \\\n"
        "      --beam --runner=DataflowRunner --project=PROJECT",
        opens_files=ONLY_READS,
    )
    added.add_argument(
        "artifacts", type=_path, nargs="*", help="artifacts, or directories of them"
    )
    added.add_argument(
        "--images",
        metavar="PATH",
        type=_place,
        required=True,
        help="directory of a folder per class, or TFRecords",
    )
    _add_ground_truth(added, _place)
    _add_checkpoint(added, required=False)
    _add_moving_averages(added)
    _add_labels(added)
    _add_running(added)
    added.add_argument(
        "--state",
        metavar="FILE",
        type=_place,
        help="keep how far it is here, and go on from there",
    )
    added.add_argument(
        "--cards",
        action="store_true",
        help="write the figures into manifests and model cards",
    )
    _add_json(added)
    _add_beam(added)


def _add_features(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_features,
        "features",
        "Write a vector for each image, by an artifact or the checkpoint.",
        "model.onnx --images photos --output features",
        "--checkpoint CHECKPOINT --images photos --output features \\\n"
        "      --endpoint Mixed_7a --kind parquet",
        "model.onnx --images s3://bucket/photos \\\n"
        "      --output s3://bucket/features \\\n"
        "      --beam --runner=FlinkRunner --flink_master=HOST:8081",
        opens_files=ONLY_READS,
    )
    added.add_argument(
        "artifact", type=_path, nargs="?", help="instead of a checkpoint"
    )
    added.add_argument(
        "--images",
        metavar="PATH",
        type=_place,
        required=True,
        help="directory of images, or TFRecords",
    )
    added.add_argument(
        "--output",
        metavar="DIR",
        type=_place,
        required=True,
        help="directory to write to, or to add to",
    )
    _add_checkpoint(added, required=False)
    _add_moving_averages(added)
    added.add_argument(
        "--endpoint",
        metavar="NAME",
        help="of the network, averaged; default: the output",
    )
    added.add_argument(
        "--kind",
        choices=("npz", "parquet"),
        default="npz",
        help="of file; parquet needs pyarrow; default: npz",
    )
    added.add_argument(
        "--part-size",
        metavar="N",
        type=int,
        default=4096,
        help="images in a file; default: 4096",
    )
    _add_running(added)
    _add_json(added)
    _add_beam(added)


def _add_compare_features(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_compare_features,
        "compare-features",
        "Say whether vectors of one artifact may join those of another.",
        "features-float32 features-int8",
        "features-float32 features-int8 --json",
        opens_files=ONLY_READS,
    )
    added.add_argument("first", type=_path, help="what an index was made of")
    added.add_argument("second", type=_path, help="what is to join it")
    _add_json(added)


def _add_identify(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_identify,
        "identify",
        "Tell whose weights are in files of any tool's.",
        "model.onnx model.tflite weights.h5",
        "--checkpoint CHECKPOINT model.safetensors --json",
        opens_files=ONLY_READS,
    )
    added.add_argument(
        "files",
        type=_path,
        nargs="+",
        metavar="FILE",
        help="of ONNX, TFLite, TensorFlow, Keras or PyTorch",
    )
    _add_checkpoint(added, "weights to look for", required=False)
    _add_moving_averages(added)
    _add_json(added)


def _add_install(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_install,
        "install",
        "Put artifacts where TF Hub looks first, by their handles.",
        "artifacts",
        "artifacts --cache ~/tfhub_modules --allow-stand-in",
        opens_files=WRITES_TOO,
    )
    _add_published(added, "v1, v3, v4, v5")
    _add_cache(added)
    added.add_argument(
        "--allow-stand-in",
        action="store_true",
        help="install generated weights, which classify nothing",
    )
    _add_handle(added)
    _add_force(added, "replace what is there: what others put there is deleted")
    _add_json(added)


def _add_uninstall(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_uninstall,
        "uninstall",
        "Remove what install put there, and nothing else.",
        "",
        "--cache ~/tfhub_modules --force",
    )
    _add_cache(added)
    _add_force(added, "remove also what was changed since")


def _add_pack(commands: Any) -> None:
    added = _add_command(
        commands,
        verbs.run_pack,
        "pack",
        "Make .tar.gz files of artifacts, for any web server.",
        "artifacts --output www",
        "artifacts --output www --force",
        opens_files=WRITES_TOO,
    )
    _add_published(added, "v1, v3, v4, v5, TF.js")
    _add_output(added, "DIR", "directory to pack to; made if needed")
    _add_handle(added)
    _add_force(added, "replace existing files")


def _add_options(group: Any) -> None:
    group.add_argument(
        "--image-size",
        metavar="SIZE",
        type=_image_size,
        default="299",
        help="299, 224x320 (height x width), dynamic (ONNX)",
    )
    group.add_argument(
        "--nchw",
        action="store_true",
        help="channels first: [batch, 3, height, width] (ONNX)",
    )
    group.add_argument(
        "--endpoints", action="store_true", help="the endpoints as outputs too (ONNX)"
    )
    group.add_argument(
        "--softmax", action="store_true", help="probabilities, not logits (TFLite)"
    )
    group.add_argument(
        "--signed-input",
        action="store_true",
        help="images in [-1, 1], not [0, 1] (TFLite)",
    )
    group.add_argument(
        "--integer-type",
        metavar="TYPE",
        choices=("float32", "uint8", "int8"),
        default="float32",
        help="input and output as uint8 or int8 (tflite-int8)",
    )
    group.add_argument(
        "--full-integer",
        action="store_true",
        help="all layers in integers, for NPUs (tflite-int8)",
    )
    group.add_argument(
        "--int8-activations",
        metavar="HOW",
        choices=("asymmetric", "symmetric"),
        default="asymmetric",
        help="symmetric: zero points 0, for TensorRT (int8)",
    )
    group.add_argument(
        "--reduce-range",
        action="store_true",
        help="kernels in 7 bits, for old x86 (onnx-int8)",
    )
    group.add_argument(
        "--keep-float",
        metavar="BLOCK,...",
        type=_names,
        help="blocks that stay float32, as block8_9 (int8)",
    )
    group.add_argument(
        "--max-error",
        metavar="E",
        type=_limit,
        help="keep as few in float as this error takes (int8)",
    )
    group.add_argument(
        "--min-cosine",
        metavar="C",
        type=_limit,
        help="the same, for a cosine of at least this",
    )
    group.add_argument(
        "--max-drop",
        metavar="POINTS",
        type=_points,
        help="the same, for top-1 on --images, with labels",
    )
    _add_ground_truth(group, _path)
    group.add_argument(
        "--calibration-images",
        metavar="DIR",
        type=_path,
        help="images to quantize with; default: generated",
    )


def _add_ground_truth(group: Any, place: Callable[[str], Any]) -> None:
    group.add_argument(
        "--ground-truth",
        metavar="FILE",
        type=place,
        help="labels of the images of a directory",
    )
    group.add_argument(
        "--label-offset",
        metavar="N",
        type=int,
        help="added to numbers of classes; default: found",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=_path,
        help="names of the classes, one a line",
    )


def _add_force(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--force", action="store_true", help=help)


def _add_output(parser: argparse.ArgumentParser, metavar: str, help: str) -> None:
    parser.add_argument(
        "--output", metavar=metavar, type=_path, required=True, help=help
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-size",
        metavar="SIZE",
        type=_image_size,
        help="for what takes any size; default: 299",
    )
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=8,
        help="images that are run together; default: 8",
    )
    _add_engine(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        metavar="NAME",
        choices=("onnxruntime", "litert", "openvino"),
        help="onnxruntime, litert, openvino; default: its own",
    )


def _add_beam(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--beam",
        metavar="OPTION",
        nargs=argparse.REMAINDER,
        help="last: run on Apache Beam, with its own options",
    )


def _add_checkpoint(
    parser: argparse.ArgumentParser,
    help: str = "checkpoint, archive, v1 to v5, Keras's or timm's",
    *,
    required: bool = True,
) -> None:
    parser.add_argument(
        "--checkpoint", metavar="PATH", type=_path, required=required, help=help
    )


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=_path,
        help="images to compare on; default: generated",
    )


def _add_published(parser: argparse.ArgumentParser, formats: str) -> None:
    parser.add_argument(
        "artifacts",
        type=_path,
        nargs="+",
        help=f"artifacts ({formats}), or directories of them",
    )


def _add_moving_averages(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--moving-averages",
        metavar="HOW",
        choices=("use", "ignore"),
        help="use or ignore those of a training checkpoint",
    )


def _add_handle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--handle", metavar="URL", help="instead of the published one, for one artifact"
    )


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=_path,
        help="TF Hub's cache; default: TFHUB_CACHE_DIR, or TF Hub's own",
    )


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        import importlib.metadata

        Console().result(f"irv2 {importlib.metadata.version('irv2')}")
        parser.exit()


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("expected a path, found nothing")
    if re.match("https?://", text):
        raise argparse.ArgumentTypeError(
            f"expected a path, found a URL. `irv2 fetch --url {text}` downloads a "
            "checkpoint and prints its path"
        )
    return Path(text)


def _place(text: str) -> Path | str:
    """A path, or a URL that Apache Beam may know."""
    is_url = re.match(r"[a-zA-Z][\w+.-]*://", text) and not re.match("https?:", text)
    return text if is_url else _path(text)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected names, separated by commas")
    return names


def _md5(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{32}", text):
        raise argparse.ArgumentTypeError("expected 32 hexadecimal digits")
    return text


def _limit(text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number in (0, 1]")
    return limit


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points < 100:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected percentage points of top-1, from 0 to 100"
        )
    return points


def _image_size(text: str) -> tuple[int, int] | None:
    if text == "dynamic":
        return None
    parts = text.split("x")
    if len(parts) > 2 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"image size {text!r}: expected pixels as 299 or 224x320, or 'dynamic'"
        )
    return int(parts[0]), int(parts[-1])
