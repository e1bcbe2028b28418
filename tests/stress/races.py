"""Several processes at once in one place."""

from __future__ import annotations

from pathlib import Path
from random import Random

from stress import commands
from stress.kills import (
    GROUPS,
    Place,
    cached,
    check_artifact,
    check_installed,
    export_command,
    names_of,
)
from stress.places import images, served
from stress.tally import Plan, Tally


def races(plan: Plan) -> Tally:
    """Exports, installations, archives, downloads and features, all at once."""
    tally = Tally()
    pictures = images(plan.folder / "images", 12)
    kinds = [_exports, _installations, _installations, _packs, _fetches, _features]
    with served(plan.shop.checkpoint("new"), plan.folder / "www") as server:
        for case, chance in plan.cases("race", 60):
            kind = chance.choice(kinds)
            case += f", {kind.__name__.strip('_')}"
            place = Place(plan.folder / "place")
            tally.tried["races"] += 1
            kind(tally, case, chance, plan, place, server, pictures)
            tally.check_left(case, place.temporary, set())
            place.remove()
    return tally


def _together(
    tally: Tally, case: str, place: Place, chance: Random, *runs: list[object]
) -> list[int | None]:
    """Starts commands at nearly the same time; returns their exit codes."""
    started = []
    for run in runs:
        delay = chance.uniform(0, 0.2)
        started.append(
            commands.Process(
                run, environment=place.environment, before=lambda d=delay: _sleep(d)
            )
        )
    done = [process.wait() for process in started]
    for run, each in zip(runs, done):
        tally.check(f"{case}: {' '.join(map(str, run[:1]))}", each, {0, 3})
    return [each.code for each in done]


def _sleep(seconds: float) -> None:
    import time

    time.sleep(seconds)


def _exports(
    tally: Tally, case: str, chance: Random, plan: Plan, place: Place, *_
) -> None:
    group = chance.choice(GROUPS)
    of = [chance.choice(["old", "new"]) for _ in range(chance.choice([2, 3]))]
    forced = chance.random() < 0.7
    runs = [export_command(plan.shop, group, place.output, of=each) for each in of]
    if not forced:
        runs = [[word for word in run if word != "--force"] for run in runs]
    case += f" of {','.join(group)} from {of}{'' if forced else ', not forced'}"
    codes = _together(tally, case, place, chance, *runs)
    if 0 not in codes or (forced and any(codes)):
        tally.fault("exit code", case, codes)
    for name in group:
        check_artifact(tally, case, plan.shop, name, place.output, has_older=True)
    tally.check_left(case, place.output, names_of(group))


def _installations(
    tally: Tally, case: str, chance: Random, plan: Plan, place: Place, *_
) -> None:
    modules = {
        of: [
            plan.shop.exported(of, *module)
            for module in (("v3", "feature_vector"), ("v5", "classification"))
        ]
        for of in ("old", "new")
    }
    install = {
        of: ["install", *paths, "--cache", place.output, "--force"]
        for of, paths in modules.items()
    }
    uninstall: list[object] = ["uninstall", "--cache", place.output, "--force"]
    verbs = [chance.choice(["old", "new", "uninstall"]) for _ in range(3)]
    runs = [uninstall if verb == "uninstall" else install[verb] for verb in verbs]
    case += f" {verbs}"
    codes = _together(tally, case, place, chance, *runs)
    if any(codes):
        tally.fault("exit code", case, codes)
    lasting = "uninstall" not in verbs
    check_installed(tally, case, plan.shop, place.output, lasting=lasting)
    if place.output.exists():
        tally.check_left(case, place.output, cached(place.output))
    last = commands.run(*uninstall, environment=place.environment)
    tally.check(f"{case}, uninstall", last, {0})
    for directory in (place.output, place.folder / "kaggle"):
        if directory.exists():
            tally.check_left(f"{case}, uninstall", directory, set())


def _packs(
    tally: Tally, case: str, chance: Random, plan: Plan, place: Place, *_
) -> None:
    modules = [("v3", "feature_vector"), ("tfjs-v3", "classification")]
    runs: list[list[object]] = []
    for of in (chance.choice(["old", "new"]) for _ in range(2)):
        paths = [plan.shop.exported(of, *module) for module in modules]
        runs.append(["pack", *paths, "--output", place.output, "--force"])
    codes = _together(tally, case, place, chance, *runs)
    if any(codes):
        tally.fault("exit code", case, codes)
    if hidden := list(place.output.rglob(".irv2-*")):
        tally.fault("leftover", case, hidden)
    if len([p for p in place.output.rglob("*.tar.gz")]) != 1:
        tally.fault("wrong artifact", case, sorted(place.output.rglob("*")))


def _fetches(
    tally: Tally,
    case: str,
    chance: Random,
    plan: Plan,
    place: Place,
    server: tuple[str, str],
    _: Path,
) -> None:
    url, md5 = server
    run: list[object] = ["fetch", "--url", url, "--md5", md5]
    codes = _together(tally, case, place, chance, run, run, [*run, "--force"])
    if any(codes):
        tally.fault("exit code", case, codes)
    source = plan.shop.checkpoint("new")
    folder = place.folder / "fetched" / md5
    if (folder / source.name).read_bytes() != source.read_bytes():
        tally.fault("wrong artifact", case, "not what is served")
    tally.check_left(case, folder, {"lock", "archive.tar.gz", source.name})


def _features(
    tally: Tally,
    case: str,
    chance: Random,
    plan: Plan,
    place: Place,
    _: tuple[str, str],
    pictures: Path,
) -> None:
    from exporters.evaluation import vectors

    artifact = plan.shop.exported("new", "onnx-int8", "feature_vector")
    run: list[object] = ["features", artifact, "--images", pictures]
    run += ["--output", place.output, "--part-size", 3, "--batch-size", 2]
    codes = _together(tally, case, place, chance, run, run)
    if any(codes):
        tally.fault("exit code", case, codes)
    last = commands.run(*run, environment=place.environment)
    if tally.check(f"{case}, once more", last, {0}):
        if len(vectors.read(place.output).names) != 12:
            tally.fault("wrong artifact", case, vectors.read(place.output).names)
    parts = {path.name for path in place.output.glob("part-*")}
    tally.check_left(case, place.output, parts)
