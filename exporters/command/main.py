"""The `irv2` command: arguments, exit codes, and what errors become.

Each subcommand calls one verb of the library and shows what came back. Nothing slow to
import is imported before a subcommand needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import math
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from exporters.command import evaluation, interruption, show, supervision
from exporters.command.console import Console

if TYPE_CHECKING:
    from exporters.build import ExportOptions
    from exporters.exporting import ExportedArtifact
    from exporters.parity import Tolerance
    from exporters.signatures import Trust
    from exporters.verification import VerifiedArtifact

EXIT_MISMATCH = 1
EXIT_USAGE = 2
EXIT_BAD_INPUT = 3
EXIT_DOWNLOAD = 4
EXIT_FAULT = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_EXIT_CODES = """\
exit codes:
  0    done, and everything that was compared agrees
  1    an artifact does not agree with its checkpoint, or features with others
  2    wrong usage, such as an unknown option
  3    a checkpoint, artifact, format, image or directory that cannot be used
  4    the download failed
  70   a fault of irv2's own, with a traceback
  130  interrupted
"""

_ONLY_READS = "only reads"
_WRITES_TOO = "writes too"

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
_OF_BUDGETS = ("max_error", "min_cosine", "max_drop", "ground_truth", "label_offset")
_ALSO_BEAMS = {"--labels"}
"""Options of ours that a runner of Beam's, Dataflow's, has as well."""


def main() -> NoReturn:
    """Entry point of the console script."""
    with interruption.heeded():
        arguments = _parse(sys.argv[1:])
    if not arguments.opens_files:
        sys.exit(_heeding(arguments))
    sys.exit(
        supervision.run(
            lambda: _heeding(arguments),
            again=arguments.opens_files == _ONLY_READS,
            crash_code=EXIT_BAD_INPUT,
        )
    )


def _heeding(arguments: argparse.Namespace) -> int:
    with interruption.heeded():
        return _run(arguments)


# What each subcommand does


def _list(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.formats import FORMATS

    show.formats(console, FORMATS.values(), arguments.json)
    return 0


def _fetch(arguments: argparse.Namespace, console: Console) -> int:
    from checkpoints import download
    from exporters.progress import Step

    url = arguments.url or download.PUBLISHED_URL
    with show.Steps(console) as progress:
        progress(Step("look into the cache"))

        def received(done: int, total: int | None) -> None:
            progress(Step(f"download {url}", "", done, total, "bytes"))

        path = download.fetch(
            url,
            md5=arguments.md5 or download.PUBLISHED_MD5,
            force=arguments.force,
            progress=received,
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

    with show.Steps(console) as progress:
        found = inspect(arguments.path, progress=progress)
    show.inspection(console, found, arguments.json)
    return 0


def _export(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.check:
        return _rebuild(arguments, console)
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
            labels=arguments.labels,
            moving_averages=arguments.moving_averages,
            verify=arguments.verify,
            budget=_budget(arguments),
            max_drop=arguments.max_drop,
            ground_truth=arguments.ground_truth,
            label_offset=arguments.label_offset,
            force=arguments.force,
            progress=progress,
        )
    show.export(console, done, arguments.json)
    return _exit_code(done.artifacts)


def _rebuild(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.build import ExportOptions
    from exporters.errors import ExportError
    from exporters.rebuilding import rebuild

    unheeded = [
        name
        for name in ("formats", "tasks", "images", "force", "verify", *_OF_BUDGETS)
        if getattr(arguments, name) is not arguments.parser.get_default(name)
    ]
    if unheeded or _options(arguments) != ExportOptions():
        raise ExportError(
            "--check takes what to make from the manifests. It heeds --checkpoint, "
            "--calibration-images, --labels and --moving-averages alone."
        )
    with show.Steps(console) as progress:
        done = rebuild(
            arguments.check,
            arguments.checkpoint,
            calibration_images=arguments.calibration_images,
            labels=arguments.labels,
            moving_averages=arguments.moving_averages,
            progress=progress,
        )
    show.rebuilding(console, done, arguments.json)
    if any(artifact.error for artifact in done.artifacts):
        return EXIT_BAD_INPUT
    return 0 if done.passed else EXIT_MISMATCH


def _verify(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.verification import verify

    with show.Steps(console) as progress:
        done = verify(
            arguments.artifacts,
            arguments.checkpoint,
            images=arguments.images,
            labels=arguments.labels,
            moving_averages=arguments.moving_averages,
            signed_by=_trust(arguments),
            engine=arguments.engine,
            progress=progress,
        )
    show.verification(console, done, arguments.json)
    return _exit_code(done.artifacts)


def _trust(arguments: argparse.Namespace) -> Trust | None:
    """Whose signatures count, None if no signature is asked for."""
    from exporters.signatures import TrustedIdentity, TrustedKey

    key, identity = arguments.public_key, arguments.identity
    provider = arguments.identity_provider
    if bool(identity) != bool(provider):
        arguments.parser.error("--identity and --identity-provider go together")
    if (key is not None) + bool(identity) != arguments.signature:
        arguments.parser.error(
            "--signature takes --public-key, or --identity and --identity-provider"
        )
    if not arguments.signature:
        return None
    return TrustedKey(key) if key else TrustedIdentity(identity, provider)


def _sign(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.signing import sign

    with show.Steps(console) as progress:
        signatures = sign(
            arguments.artifacts,
            arguments.private_key,
            password=os.environ.get("IRV2_KEY_PASSWORD"),
            progress=progress,
        )
    for signature in signatures:
        console.result(str(signature))
    return 0


def _report(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.reporting.reporting import report

    with show.Steps(console) as progress:
        done = report(
            arguments.artifacts,
            arguments.checkpoint,
            arguments.output,
            images=arguments.images,
            evaluation=arguments.evaluation,
            latency=arguments.latency,
            moving_averages=arguments.moving_averages,
            force=arguments.force,
            command=shlex.join(["irv2", *sys.argv[1:]]),
            progress=progress,
        )
    show.report(console, done, arguments.json)
    return _exit_code(item.verified for item in done.artifacts)


def _evaluate(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.evaluation.evaluating import evaluate

    with show.Steps(console) as progress:
        done = evaluate(
            arguments.artifacts,
            arguments.images,
            checkpoint=arguments.checkpoint,
            ground_truth=arguments.ground_truth,
            labels=arguments.labels,
            label_offset=arguments.label_offset,
            image_size=arguments.image_size,
            batch_size=arguments.batch_size,
            state=arguments.state,
            cards=arguments.cards,
            moving_averages=arguments.moving_averages,
            engine=arguments.engine,
            beam=_pipeline_options(arguments),
            progress=progress,
        )
    evaluation.show(console, done, arguments.json)
    return EXIT_BAD_INPUT if any(item.error for item in done.artifacts) else 0


def _features(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.evaluation.features import features

    with show.Steps(console) as progress:
        done = features(
            arguments.artifact,
            arguments.images,
            arguments.output,
            checkpoint=arguments.checkpoint,
            endpoint=arguments.endpoint,
            kind=arguments.kind,
            image_size=arguments.image_size,
            batch_size=arguments.batch_size,
            part_size=arguments.part_size,
            moving_averages=arguments.moving_averages,
            engine=arguments.engine,
            beam=_pipeline_options(arguments),
            progress=progress,
        )
    evaluation.features(console, done, arguments.json)
    return 0


def _pipeline_options(arguments: argparse.Namespace) -> list[str] | None:
    """Returns what is behind --beam; what would be irv2's own is refused there."""
    options: list[str] | None = arguments.beam
    own = set(re.findall(r"--[\w-]+", arguments.parser.format_usage()))
    for option in options or []:
        name = option.partition("=")[0]
        if name in own - _ALSO_BEAMS:
            arguments.parser.error(f"{name} has to be before --beam")
    return options


def _compare_features(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.evaluation.comparing import compare_features

    with show.Steps(console) as progress:
        done = compare_features(arguments.first, arguments.second, progress=progress)
    evaluation.comparison(console, done, arguments.json)
    return 0 if done.may_join else EXIT_MISMATCH


def _identify(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.identification import identify

    with show.Steps(console) as progress:
        done = identify(
            arguments.files,
            arguments.checkpoint,
            moving_averages=arguments.moving_averages,
            progress=progress,
        )
    show.identification(console, done, arguments.json)
    return EXIT_BAD_INPUT if any(file.error for file in done.files) else 0


def _exit_code(artifacts: Iterable[ExportedArtifact | VerifiedArtifact]) -> int:
    artifacts = list(artifacts)
    if any(item.report and not item.report.passed for item in artifacts):
        return EXIT_MISMATCH
    return EXIT_BAD_INPUT if any(item.error for item in artifacts) else 0


def _install(arguments: argparse.Namespace, console: Console) -> int:
    from exporters.tfhub.cache import install

    with show.Steps(console) as progress:
        placed = install(
            arguments.artifacts,
            arguments.cache,
            handle=arguments.handle,
            allow_stand_in=arguments.allow_stand_in,
            force=arguments.force,
            progress=progress,
        )
    show.installed(console, placed, arguments.json)
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
            handle=arguments.handle,
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
        keep_float=tuple(arguments.keep_float or ()),
        int8_activations=arguments.int8_activations,
        reduce_range=arguments.reduce_range,
    )


def _budget(arguments: argparse.Namespace) -> Tolerance | None:
    from exporters.parity import Tolerance

    error, cosine = arguments.max_error, arguments.min_cosine
    if error is None and cosine is None:
        return None
    return Tolerance(
        math.inf if error is None else error, -1 if cosine is None else cosine
    )


# Arguments


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
            Console().result(_error_as_json(message, EXIT_USAGE))
        super().error(message)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="irv2",
        description="Rebuilds the published artifacts of inception_resnet_v2 from its\n"
        "training checkpoint, and checks them.",
        epilog=_EXIT_CODES,
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
    added = _add_command(commands, _list, "list", "List the formats.", "", "--json")
    _add_json(added)


def _add_fetch(commands: Any) -> None:
    added = _add_command(
        commands,
        _fetch,
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
        _make_stand_in,
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
        _inspect,
        "inspect",
        "Show what a checkpoint, artifact or directory of these holds.",
        "inception_resnet_v2_2016_08_30.ckpt",
        "artifacts/inception_resnet_v2-feature_vector-v4 --json",
        opens_files=_ONLY_READS,
    )
    added.add_argument("path", type=_path, help="file or directory to look at")
    _add_json(added)


def _add_export(commands: Any) -> None:
    added = _add_command(
        commands,
        _export,
        "export",
        "Make artifacts from a checkpoint, and compare each with it.",
        "--checkpoint CHECKPOINT --output artifacts --formats v4,v5",
        "--checkpoint CHECKPOINT --output artifacts --formats tflite-int8 \\\n"
        "      --tasks classification --calibration-images photos",
        opens_files=_WRITES_TOO,
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
        _verify,
        "verify",
        "Compare artifacts, and files of other tools', with a checkpoint.",
        "--checkpoint CHECKPOINT artifacts",
        "--checkpoint CHECKPOINT --images photos model.onnx model.tflite",
        "--checkpoint CHECKPOINT by_tf2onnx.onnx frozen.pb state_dict.pt",
        opens_files=_ONLY_READS,
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
        _sign,
        "sign",
        "Sign artifacts: their manifests, and so every file that these list.",
        "artifacts --private-key key.pem",
        "model.onnx",
        opens_files=_WRITES_TOO,
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
        _report,
        "report",
        "Verify artifacts, and write a page about them: errors, depth, time.",
        "--checkpoint CHECKPOINT artifacts --output report.html",
        "--checkpoint CHECKPOINT artifacts --output report.html \\\n"
        "      --images photos --evaluation evaluation.json --latency",
        opens_files=_WRITES_TOO,
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
        _evaluate,
        "evaluate",
        "Count how often artifacts, or the checkpoint, are right.",
        "artifacts --images imagenet/validation",
        "model.onnx --checkpoint CHECKPOINT --images photos \\\n"
        "      --ground-truth labels.txt --state evaluation.state",
        "model.onnx --images gs://bucket/photos \\\n"
        "      --state gs://bucket/state \\\n"
        "      --beam --runner=DataflowRunner --project=PROJECT",
        opens_files=_ONLY_READS,
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
        _features,
        "features",
        "Write a vector for each image, by an artifact or the checkpoint.",
        "model.onnx --images photos --output features",
        "--checkpoint CHECKPOINT --images photos --output features \\\n"
        "      --endpoint Mixed_7a --kind parquet",
        "model.onnx --images s3://bucket/photos \\\n"
        "      --output s3://bucket/features \\\n"
        "      --beam --runner=FlinkRunner --flink_master=HOST:8081",
        opens_files=_ONLY_READS,
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
        _compare_features,
        "compare-features",
        "Say whether vectors of one artifact may join those of another.",
        "features-float32 features-int8",
        "features-float32 features-int8 --json",
        opens_files=_ONLY_READS,
    )
    added.add_argument("first", type=_path, help="what an index was made of")
    added.add_argument("second", type=_path, help="what is to join it")
    _add_json(added)


def _add_identify(commands: Any) -> None:
    added = _add_command(
        commands,
        _identify,
        "identify",
        "Tell whose weights are in files of any tool's.",
        "model.onnx model.tflite weights.h5",
        "--checkpoint CHECKPOINT model.safetensors --json",
        opens_files=_ONLY_READS,
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
        _install,
        "install",
        "Put artifacts where TF Hub looks first, by their handles.",
        "artifacts",
        "artifacts --cache ~/tfhub_modules --allow-stand-in",
        opens_files=_WRITES_TOO,
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
        _uninstall,
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
        _pack,
        "pack",
        "Make .tar.gz files of artifacts, for any web server.",
        "artifacts --output www",
        "artifacts --output www --force",
        opens_files=_WRITES_TOO,
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


# Errors


def _run(arguments: argparse.Namespace) -> int:
    console = Console()
    try:
        with console.alone():
            code: int = arguments.command(arguments, console)
            return code
    except BrokenPipeError:  # As of `irv2 list | head`.
        return EXIT_BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        code, message = _told(error)
    with contextlib.suppress(BrokenPipeError):
        console.error(message)
        if getattr(arguments, "json", False):
            console.result(_error_as_json(message, code))
    return code


def _told(error: BaseException) -> tuple[int, str]:
    """Returns the exit code of an error, and what people are told."""
    from checkpoints.errors import CheckpointError
    from checkpoints.http_transfer import DownloadError
    from exporters.errors import (
        ArtifactError,
        EvaluationError,
        ExportError,
        MissingLibraryError,
        PipelineError,
        SigningError,
        StorageError,
        UnknownFormatError,
        is_out_of_memory,
    )
    from exporters.images import ImageError

    match error:
        case KeyboardInterrupt():
            return EXIT_INTERRUPTED, "interrupted"
        case DownloadError():
            return EXIT_DOWNLOAD, str(error)
        case (
            ArtifactError()
            | CheckpointError()
            | EvaluationError()
            | ExportError()
            | MissingLibraryError()
            | ImageError()
            | PipelineError()
            | SigningError()
            | StorageError()
            | UnknownFormatError()
        ):
            return EXIT_BAD_INPUT, str(error)
        case OSError() if error.errno in _ENVIRONMENT_TROUBLES:
            names = [str(name) for name in (error.filename, error.filename2) if name]
            file = " and ".join(names) or "a file"
            return EXIT_BAD_INPUT, f"{file}: {error.strerror}"
        case _ if is_out_of_memory(error):
            return EXIT_BAD_INPUT, f"not enough memory, or room: {error}"
    lines = traceback.format_exception(error)
    return EXIT_FAULT, "a fault of irv2's own:\n" + "".join(lines).rstrip()


def _error_as_json(message: str, code: int) -> str:
    return json.dumps({"error": message, "exit_code": code})


if __name__ == "__main__":
    main()
