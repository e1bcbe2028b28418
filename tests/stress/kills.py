"""kill -9 at any moment: there is the old or the new, and the next run tidies up."""

from __future__ import annotations

import functools
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from checkpoints import files
from exporters import manifest
from exporters.errors import ArtifactError
from exporters.tfhub import receipts
from stress import commands
from stress.commands import Outcome
from stress.places import images, served
from stress.tally import Plan, Tally
from stress.workshop import Workshop, artifact_name

GROUPS = (
    ("v1",),
    ("v3",),
    ("v4", "v5"),
    ("tfjs-v1", "tfjs-v3"),
    ("tfjs-v3-float16", "tfjs-v3-uint8"),
    ("onnx-float32", "onnx-float16", "onnx-int8"),
    ("tflite-published", "tflite-float32", "tflite-int8"),
    ("tflite-float16", "tflite-dynamic-int8"),
    ("keras", "keras-weights", "timm"),
)
"""Formats that are exported together."""


_MODULES = (("v3", "feature_vector"), ("v5", "classification"))
_TASK = "classification"


def exports(plan: Plan) -> Tally:
    """Exports of all formats, to an empty directory and over older artifacts."""
    tally, shop = Tally(), plan.shop
    for case, chance in plan.cases("kill during export", 100):
        group = chance.choice(GROUPS)
        has_older = chance.random() < 0.7
        place = Place(plan.folder / "place")
        if has_older:
            for name in group:
                shop.copy("old", name, _TASK, place.output)
        arguments = export_command(shop, group, place.output)
        case += f", {','.join(group)}{' over older' if has_older else ''}"
        measured = _measured(shop, plan.folder / "measured", group)
        case = place.killed(tally, case, chance, measured, arguments)
        for name in group:
            check_artifact(tally, case, shop, name, place.output, has_older)
        done = commands.run(
            *export_command(shop, ["timm"], place.output), environment=place.environment
        )
        tally.check(f"{case}, the next export", done, {0})
        expected = names_of((*group, "timm"))
        place.check_left(tally, case, expected)
        place.remove()
    return tally


def names_of(formats: Sequence[str]) -> set[str]:
    """All that lies in a directory with artifacts in these formats."""
    artifacts = [Path(artifact_name(name, _TASK)) for name in formats]
    return {
        path.name
        for artifact in artifacts
        for path in (
            artifact,
            manifest.path_of(artifact),
            *manifest.companions_of(artifact),
        )
    }


def export_command(
    shop: Workshop, formats: Sequence[str], output: Path, *, of: str = "new"
) -> list[object]:
    """What exports formats from a checkpoint, over what is there."""
    return [
        *("export", "--checkpoint", shop.checkpoint(of), "--output", output),
        *("--formats", ",".join(formats), "--tasks", _TASK, "--force", "--no-verify"),
    ]


@functools.cache
def _measured(
    shop: Workshop, folder: Path, formats: tuple[str, ...]
) -> tuple[float, int]:
    """How long an export takes, and how often it touches files."""
    place = Place(folder)
    arguments = export_command(shop, formats, place.output)
    found = place.measure(*arguments)
    place.remove()
    return found


def check_artifact(
    tally: Tally, case: str, shop: Workshop, name: str, output: Path, has_older: bool
) -> None:
    """It is the old or the new one, and so says the manifest beside it."""
    path = output / artifact_name(name, _TASK)
    if not path.exists():
        if has_older:
            tally.fault("wrong artifact", case, f"{path.name} is neither old nor new")
        return
    found = files.digests(path)
    if found not in [shop.digests(of, name, _TASK) for of in ("old", "new")]:
        tally.fault("wrong artifact", case, f"{path.name} is a mixture")
    if not manifest.path_of(path).is_file():
        tally.fault("wrong artifact", case, f"{path.name} is without its manifest")
        return
    try:
        changed = manifest.changed_files(path)
    except ArtifactError as error:
        changed = [str(error)]
    if changed:
        tally.fault("wrong artifact", case, f"not as the manifest says: {changed}")


class Place:
    """A directory for one case, with a directory for temporary files of its own."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.output = folder, folder / "output"
        self.temporary = folder / "temporary"
        self.temporary.mkdir(parents=True)
        self.environment = {
            "TMPDIR": str(self.temporary),
            "IRV2_CACHE_DIR": str(folder / "fetched"),
            "KAGGLEHUB_CACHE": str(folder / "kaggle"),
        }

    def measure(self, *arguments: object) -> tuple[float, int]:
        """How long a command takes, and how often it touches files in here."""
        return commands.measure(
            *arguments, within=[self.folder], environment=self.environment
        )

    def killed(
        self,
        tally: Tally,
        case: str,
        chance: random.Random,
        measured: tuple[float, int],
        command: Sequence[object],
    ) -> str:
        """Kills a command at a random moment; returns the case with that moment."""
        kill = commands.random_kill(chance, *measured, [self.folder])
        case += f", {kill}"
        done = commands.run(*command, environment=self.environment, kill=kill)
        tally.tried["kills"] += 1
        tally.check(case, done, {0, None})
        return case

    def check_left(self, tally: Tally, case: str, expected: set[str]) -> None:
        tally.check_left(case, self.output, expected)
        tally.check_left(case, self.temporary, set())

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def installations(plan: Plan) -> Tally:
    """install over nothing, or over an older one, and uninstall."""
    tally, shop = Tally(), plan.shop
    measured: dict[str, tuple[float, int]] = {}
    for case, chance in plan.cases("kill during install and uninstall", 60):
        verb = chance.choice(["install", "reinstall", "replace", "uninstall"])
        place = Place(plan.folder / "place")
        cache = place.output

        def install(of: str, cache: Path = cache) -> list[object]:
            paths = [shop.exported(of, *module) for module in _MODULES]
            return ["install", *paths, "--cache", cache]

        def run(*arguments: object, place: Place = place) -> Outcome:
            return commands.run(*arguments, environment=place.environment)

        if verb != "install":
            before = "old" if verb == "replace" else "new"
            tally.check(f"{case}, before", run(*install(before)), {0})
        command = install("new")
        if verb == "uninstall":
            command = ["uninstall", "--cache", cache]
        if verb not in measured:
            shutil.copytree(place.folder, plan.folder / "kept", symlinks=True)
            measured[verb] = place.measure(*command)
            shutil.rmtree(place.folder)
            (plan.folder / "kept").rename(place.folder)
        case += f", {verb}"
        case = place.killed(tally, case, chance, measured[verb], command)
        check_installed(tally, case, shop, cache, lasting=verb in _KEEPING)
        tally.check(f"{case}, the next install", run(*install("new")), {0})
        expected = {"old": False, "new": True}
        check_installed(tally, case, shop, cache, lasting=True, states=expected)
        tally.check_left(case, place.temporary, set())
        tally.check_left(case, cache, cached(cache))
        done = run("uninstall", "--cache", cache)
        tally.check(f"{case}, uninstall", done, {0})
        for directory in (cache, place.folder / "kaggle"):
            if directory.exists():
                tally.check_left(f"{case}, uninstall", directory, set())
        place.remove()
    return tally


_KEEPING = ("reinstall", "replace")
"""Verbs that have an installation before and after."""


def cached(cache: Path) -> set[str]:
    """What may be in a cache: what receipts tell of, and the receipts."""
    names = set()
    for path in cache.glob(f"*{receipts.SUFFIX}"):
        directory = path.with_name(path.name.removesuffix(receipts.SUFFIX))
        names |= {directory.name, *(file.name for file in receipts.written(directory))}
        receipt = receipts.read(directory)
        names |= set(receipt.links if receipt else ())
    return names


def check_installed(
    tally: Tally,
    case: str,
    shop: Workshop,
    cache: Path,
    *,
    lasting: bool,
    states: dict[str, bool] | None = None,
) -> None:
    """What a client finds at each handle is whole, the old or the new."""
    from exporters.formats import FORMATS
    from exporters.tfhub import handles

    for format, task in _MODULES:
        version = FORMATS[format].published_version
        assert version is not None
        directory = cache / handles.cached_name(handles.urls(task, version)[0])
        if not directory.exists():
            if lasting:
                tally.fault("wrong artifact", case, f"{format} is gone")
            continue
        found = {
            name: receipts.digests(directory)
            == receipts.digests(shop.exported(name, format, task))
            for name in ("old", "new")
        }
        if not any(found.values()) or (states and found != states):
            tally.fault("wrong artifact", case, f"{format} in the cache: {found}")


def packing(plan: Plan) -> Tally:
    """pack, to a new directory and over older archives."""
    tally, shop = Tally(), plan.shop
    modules = [*_MODULES, ("tfjs-v3", "classification")]
    whole: dict[str, dict[str, str]] = {}
    measured = None
    for case, chance in plan.cases("kill during pack", 30):
        place = Place(plan.folder / "place")

        def pack(of: str, place: Place = place) -> list[object]:
            paths = [shop.exported(of, *module) for module in modules]
            return ["pack", *paths, "--output", place.output, "--force"]

        for of in ("old", "new"):
            if of not in whole:
                commands.run(*pack(of))
                whole[of] = _tree(place.output)
        if measured is None:
            measured = place.measure(*pack("new"))
        shutil.rmtree(place.output, ignore_errors=True)
        has_older = chance.random() < 0.5
        if has_older:
            commands.run(*pack("old"))
        case += " over older" if has_older else ""
        case = place.killed(tally, case, chance, measured, pack("new"))
        found = _tree(place.output)
        for name in whole["new"]:
            digest = found.get(name)
            if digest not in (whole["old"][name], whole["new"][name]):
                if has_older or digest is not None:
                    tally.fault("wrong artifact", case, f"{name} is neither")
        done = commands.run(*pack("new"), environment=place.environment)
        tally.check(f"{case}, the next pack", done, {0})
        if _tree(place.output) != whole["new"]:
            left = set(_tree(place.output)) ^ set(whole["new"])
            tally.fault("leftover", case, f"differs in {sorted(left)}")
        tally.check_left(case, place.temporary, set())
        place.remove()
    return tally


def _tree(directory: Path) -> dict[str, str]:
    """Digest of every file, and of what is hidden too."""
    return {
        path.relative_to(directory).as_posix(): files.digest(path)
        if path.is_file()
        else ""
        for path in sorted(directory.rglob("*"))
        if path.is_file() or path.name.startswith(".")
    }


def fetching(plan: Plan) -> Tally:
    """fetch, from a server on this machine, and what goes on where it stopped."""
    tally, shop = Tally(), plan.shop
    measured = None
    with served(shop.checkpoint("new"), plan.folder / "www") as (url, md5):
        for case, chance in plan.cases("kill during fetch", 30):
            place = Place(plan.folder / "place")
            command = ["fetch", "--url", url, "--md5", md5]
            if measured is None:
                measured = place.measure(*command)
                place = Place(place.folder)
            case = place.killed(tally, case, chance, measured, command)
            done = commands.run(*command, environment=place.environment)
            tally.check(f"{case}, the next fetch", done, {0})
            found = Path(done.out.strip())
            source = shop.checkpoint("new")
            if not found.is_file() or found.read_bytes() != source.read_bytes():
                tally.fault("wrong artifact", case, f"{found} is not what is served")
            folder = place.folder / "fetched" / md5
            tally.check_left(case, folder, {"lock", "archive.tar.gz", source.name})
            tally.check_left(case, place.temporary, set())
            place.remove()
    return tally


def feature_files(plan: Plan) -> Tally:
    """features: after a kill, another run adds what is missing."""
    from exporters.evaluation import vectors

    tally, shop = Tally(), plan.shop
    artifact = shop.exported("new", "onnx-int8", "feature_vector")
    pictures = images(plan.folder / "images", 12)
    expected = measured = None
    for case, chance in plan.cases("kill during features", 20):
        place = Place(plan.folder / "place")
        command = [
            *("features", artifact, "--images", pictures, "--output", place.output),
            *("--part-size", 3, "--batch-size", 2, "--kind"),
            chance.choice(["npz", "parquet"]),
        ]
        if measured is None:
            measured = place.measure(*command)
            there = vectors.read(place.output)
            expected = dict(zip(there.names, map(bytes, there.values)))
            place = Place(place.folder)
        case += f", {command[-1]}"
        case = place.killed(tally, case, chance, measured, command)
        done = commands.run(*command, environment=place.environment)
        tally.check(f"{case}, the next features", done, {0})
        there = vectors.read(place.output)
        if dict(zip(there.names, map(bytes, there.values))) != expected:
            tally.fault("wrong artifact", case, "other vectors than without a kill")
        parts = {path.name for path in place.output.glob("part-*")}
        place.check_left(tally, case, parts)
        place.remove()
    return tally
