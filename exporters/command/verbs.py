"""What each subcommand does: it calls a verb of the library, and shows what came back.

The verbs are imported when they are called.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from exporters.command import evaluation, exit_codes, show
from exporters.command.console import Console

if TYPE_CHECKING:
    from exporters.build import ExportOptions
    from exporters.exporting import ExportedArtifact
    from exporters.parity import Tolerance
    from exporters.signatures import Trust
    from exporters.verification import VerifiedArtifact

_OF_BUDGETS = ("max_error", "min_cosine", "max_drop", "ground_truth", "label_offset")
_ALSO_BEAMS = {"--labels"}
"""Options of ours that a runner of Beam's, Dataflow's, has as well."""


def run_list(arguments: argparse.Namespace, console: Console) -> int:
    """Prints the formats."""
    from exporters.formats import FORMATS

    show.formats(console, FORMATS.values(), arguments.json)
    return 0


def run_fetch(arguments: argparse.Namespace, console: Console) -> int:
    """Downloads the published checkpoint."""
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


def run_stand_in(arguments: argparse.Namespace, console: Console) -> int:
    """Generates a checkpoint."""
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


def run_inspect(arguments: argparse.Namespace, console: Console) -> int:
    """Shows what a path holds."""
    from exporters.inspection import inspect

    with show.Steps(console) as progress:
        found = inspect(arguments.path, progress=progress)
    show.inspection(console, found, arguments.json)
    return 0


def run_export(arguments: argparse.Namespace, console: Console) -> int:
    """Makes artifacts, or makes them again to compare bytes."""
    if arguments.check:
        return run_rebuild(arguments, console)
    from exporters.exporting import export

    with show.Steps(console) as progress:
        done = export(
            arguments.checkpoint,
            arguments.output,
            formats=arguments.formats,
            tasks=arguments.tasks,
            options=options(arguments),
            images=arguments.images,
            calibration_images=arguments.calibration_images,
            labels=arguments.labels,
            moving_averages=arguments.moving_averages,
            verify=arguments.verify,
            budget=budget(arguments),
            max_drop=arguments.max_drop,
            ground_truth=arguments.ground_truth,
            label_offset=arguments.label_offset,
            force=arguments.force,
            progress=progress,
        )
    show.export(console, done, arguments.json)
    return _exit_code(done.artifacts)


def run_rebuild(arguments: argparse.Namespace, console: Console) -> int:
    """Makes artifacts again, by their manifests."""
    from exporters.build import ExportOptions
    from exporters.errors import ExportError
    from exporters.rebuilding import rebuild

    unheeded = [
        name
        for name in ("formats", "tasks", "images", "force", "verify", *_OF_BUDGETS)
        if getattr(arguments, name) is not arguments.parser.get_default(name)
    ]
    if unheeded or options(arguments) != ExportOptions():
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
        return exit_codes.BAD_INPUT
    return 0 if done.passed else exit_codes.MISMATCH


def run_verify(arguments: argparse.Namespace, console: Console) -> int:
    """Compares artifacts with a checkpoint."""
    from exporters.verification import verify

    with show.Steps(console) as progress:
        done = verify(
            arguments.artifacts,
            arguments.checkpoint,
            images=arguments.images,
            labels=arguments.labels,
            moving_averages=arguments.moving_averages,
            signed_by=trust(arguments),
            engine=arguments.engine,
            progress=progress,
        )
    show.verification(console, done, arguments.json)
    return _exit_code(done.artifacts)


def trust(arguments: argparse.Namespace) -> Trust | None:
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


def run_sign(arguments: argparse.Namespace, console: Console) -> int:
    """Signs artifacts."""
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


def run_report(arguments: argparse.Namespace, console: Console) -> int:
    """Writes a page about artifacts."""
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


def run_evaluate(arguments: argparse.Namespace, console: Console) -> int:
    """Counts how often artifacts are right."""
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
            beam=pipeline_options(arguments),
            progress=progress,
        )
    evaluation.show(console, done, arguments.json)
    return exit_codes.BAD_INPUT if any(item.error for item in done.artifacts) else 0


def run_features(arguments: argparse.Namespace, console: Console) -> int:
    """Writes vectors of images."""
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
            beam=pipeline_options(arguments),
            progress=progress,
        )
    evaluation.features(console, done, arguments.json)
    return 0


def pipeline_options(arguments: argparse.Namespace) -> list[str] | None:
    """Returns what is behind --beam; what would be irv2's own is refused there."""
    options: list[str] | None = arguments.beam
    own = set(re.findall(r"--[\w-]+", arguments.parser.format_usage()))
    for option in options or []:
        name = option.partition("=")[0]
        if name in own - _ALSO_BEAMS:
            arguments.parser.error(f"{name} has to be before --beam")
    return options


def run_compare_features(arguments: argparse.Namespace, console: Console) -> int:
    """Says whether vectors may join others."""
    from exporters.evaluation.comparing import compare_features

    with show.Steps(console) as progress:
        done = compare_features(arguments.first, arguments.second, progress=progress)
    evaluation.comparison(console, done, arguments.json)
    return 0 if done.may_join else exit_codes.MISMATCH


def run_identify(arguments: argparse.Namespace, console: Console) -> int:
    """Tells whose weights are in files."""
    from exporters.identification import identify

    with show.Steps(console) as progress:
        done = identify(
            arguments.files,
            arguments.checkpoint,
            moving_averages=arguments.moving_averages,
            progress=progress,
        )
    show.identification(console, done, arguments.json)
    return exit_codes.BAD_INPUT if any(file.error for file in done.files) else 0


def _exit_code(artifacts: Iterable[ExportedArtifact | VerifiedArtifact]) -> int:
    artifacts = list(artifacts)
    if any(item.report and not item.report.passed for item in artifacts):
        return exit_codes.MISMATCH
    return exit_codes.BAD_INPUT if any(item.error for item in artifacts) else 0


def run_install(arguments: argparse.Namespace, console: Console) -> int:
    """Puts artifacts where TF Hub looks."""
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


def run_uninstall(arguments: argparse.Namespace, console: Console) -> int:
    """Removes what was installed."""
    from exporters.tfhub.cache import uninstall

    done = uninstall(arguments.cache, force=arguments.force)
    show.uninstalled(console, done)
    return exit_codes.BAD_INPUT if done.kept else 0


def run_pack(arguments: argparse.Namespace, console: Console) -> int:
    """Makes archives of artifacts."""
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


def options(arguments: argparse.Namespace) -> ExportOptions:
    """Returns the options of an export."""
    from exporters.build import ExportOptions

    return ExportOptions(
        image_size=arguments.image_size,
        nchw=arguments.nchw,
        endpoints=arguments.endpoints,
        softmax=arguments.softmax,
        integer_type=arguments.integer_type,
        full_integer=arguments.full_integer,
        signed_input=arguments.signed_input,
        keep_float=tuple(arguments.keep_float or ()),
        int8_activations=arguments.int8_activations,
        reduce_range=arguments.reduce_range,
    )


def budget(arguments: argparse.Namespace) -> Tolerance | None:
    """Returns what is asked of the task's own output, None if nothing is."""
    from exporters.parity import Tolerance

    error, cosine = arguments.max_error, arguments.min_cosine
    if error is None and cosine is None:
        return None
    return Tolerance(
        math.inf if error is None else error, -1 if cosine is None else cosine
    )
