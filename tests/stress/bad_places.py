"""Full disks, quotas, places that nobody may write to, directories that vanish."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from stress import commands
from stress.commands import Outcome
from stress.kills import GROUPS, Place, check_artifact, export_command, names_of
from stress.places import images, served
from stress.tally import Plan, Tally

_NOBODY = 65534
_WORDS = {
    "full disk": "No space left on device",
    "quota": "File too large",
    "no permission": "Permission denied",
}


def places(plan: Plan) -> Tally:
    """Every command that writes, in each of these places."""
    tally = Tally()
    kinds: dict[str, Callable[..., contextlib.AbstractContextManager]] = {
        "full disk": _full_disk,
        "quota": _quota,
        "no permission": _no_permission,
        "vanishing directory": _vanishing,
    }
    if why := _why_no_disk(plan.folder):
        tally.skipped["full disk"] = why
        del kinds["full disk"]
    if os.geteuid() != 0:
        tally.skipped["no permission"] = "needs root, to become somebody else"
        del kinds["no permission"]
    pictures = images(plan.folder / "images", 6)
    with served(plan.shop.checkpoint("new"), plan.folder / "www") as (url, md5):
        for case, chance in plan.cases("bad place", 100):
            kind = chance.choice(list(kinds))
            place = Place(plan.folder / "place")
            group = chance.choice(GROUPS)
            verb = chance.choice(["export", "export", "pack", "install", "fetch"])
            verb = "features" if not chance.randrange(6) else verb
            modules = [
                plan.shop.exported("new", *module)
                for module in (("v3", "feature_vector"), ("v5", "classification"))
            ]
            command = {
                "export": export_command(plan.shop, group, place.output),
                "install": ["install", *modules, "--cache", place.output],
                "pack": ["pack", *modules, "--output", place.output],
                "fetch": ["fetch", "--url", url, "--md5", md5],
                "features": [
                    "features",
                    plan.shop.exported("new", "onnx-int8", "feature_vector"),
                    *("--images", pictures, "--output", place.output),
                ],
            }[verb]
            case += f", {kind}, {verb} {','.join(group) if verb == 'export' else ''}"
            with kinds[kind](place, chance) as run:
                done = run(command)
                tally.tried["bad places"] += 1
                _check(tally, case, done, kind)
                if verb == "export" and place.output.exists():
                    for name in group:
                        check_artifact(
                            tally, case, plan.shop, name, place.output, has_older=False
                        )
                _check_nothing_left(tally, case, place, verb, kind, group)
            place.remove()
    return tally


def _check(tally: Tally, case: str, done: Outcome, kind: str) -> None:
    codes = {0, 3, 4} if "fetch" in case else {0, 3}
    if not tally.check(case, done, codes):
        return
    if done.code and (words := _WORDS.get(kind)) and words not in done.err:
        tally.fault("exit code", case, f"without {words!r}: {done.err[-400:]}")


def _check_nothing_left(
    tally: Tally, case: str, place: Place, verb: str, kind: str, group: tuple[str, ...]
) -> None:
    tally.check_left(case, place.temporary, set())
    hidden = [
        path
        for path in place.folder.rglob("*")
        if path.name.startswith((".irv2-", "irv2-")) or path.name == "unpacking"
    ]
    if hidden:
        tally.fault("leftover", case, hidden)
    if verb == "export" and place.output.exists():
        tally.check_left(case, place.output, names_of(group))


Runner = Callable[[list[object]], Outcome]


@contextlib.contextmanager
def _full_disk(place: Place, chance: Random) -> Iterator[Runner]:
    """Of any size up to what is needed; sometimes temporary files are on it too."""
    kilobytes = int(10 ** chance.uniform(1.5, 4))
    for directory in (place.output, place.folder / "fetched"):
        directory.mkdir()
        _mount(directory, kilobytes)
    environment = dict(place.environment)
    if chance.random() < 0.3:
        _mount(place.temporary, kilobytes)
    try:
        yield lambda command: commands.run(*command, environment=environment)
    finally:
        for directory in (place.output, place.folder / "fetched", place.temporary):
            subprocess.run(["umount", str(directory)], capture_output=True)


def _mount(directory: Path, kilobytes: int) -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none"]
    subprocess.run([*command, str(directory)], check=True, capture_output=True)


def _why_no_disk(folder: Path) -> str | None:
    directory = folder / "probe"
    directory.mkdir()
    try:
        _mount(directory, 64)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"a small one cannot be mounted: {error}"
    finally:
        subprocess.run(["umount", str(directory)], capture_output=True)
        directory.rmdir()
    return None


@contextlib.contextmanager
def _quota(place: Place, chance: Random) -> Iterator[Runner]:
    """A limit on the size of files."""
    limit = int(10 ** chance.uniform(4, 6.6))

    def before() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    yield lambda command: commands.run(
        *command, environment=place.environment, before=before
    )


@contextlib.contextmanager
def _no_permission(place: Place, chance: Random) -> Iterator[Runner]:
    """Somebody who may read everything, and write to temporary files alone."""
    place.output.mkdir()
    for path in place.folder.parents[1::-1]:
        path.chmod(0o755)
    place.temporary.chmod(0o777)

    def before() -> None:
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)

    yield lambda command: commands.run(
        *command, environment=place.environment, before=before
    )
    tally_left = list(place.output.iterdir())
    assert not tally_left, tally_left


@contextlib.contextmanager
def _vanishing(place: Place, chance: Random) -> Iterator[Runner]:
    """Somebody removes the directory while the command is at work."""
    after = chance.uniform(0, 2.5)
    victims = [place.output, place.folder / "fetched"]

    def run(command: list[object]) -> Outcome:
        process = commands.Process(command, environment=place.environment)
        stop = threading.Event()

        def remove() -> None:
            stop.wait(after)
            for _ in range(20):
                for victim in victims:
                    shutil.rmtree(victim, ignore_errors=True)
                time.sleep(0.005)

        thread = threading.Thread(target=remove)
        thread.start()
        done = process.wait()
        stop.set()
        thread.join()
        return done

    yield run
