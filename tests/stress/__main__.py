"""Runs the sections, and shows what was tried: `python -m stress --help`."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from stress import (
    bad_places,
    damaged_checkpoints,
    hostile_archives,
    kills,
    races,
    tampered_artifacts,
    workshop,
)
from stress.tally import KINDS, Plan, Section, Tally
from stress.workshop import Workshop

SECTIONS: dict[str, Section] = {
    "export": kills.exports,
    "install": kills.installations,
    "pack": kills.packing,
    "fetch": kills.fetching,
    "features": kills.feature_files,
    "places": bad_places.places,
    "races": races.races,
    "checkpoints": damaged_checkpoints.checkpoints,
    "bytes": tampered_artifacts.bytes_,
    "meanings": tampered_artifacts.meanings,
    "archives": hostile_archives.archives,
}

_WITHOUT_ARTIFACTS = {"fetch", "checkpoints", "archives"}


def main() -> int:
    """Returns 1 if there was a fault, else 0."""
    arguments = _arguments()
    workshop.install()
    names = arguments.sections or list(SECTIONS)
    deadline = time.monotonic() + 60 * arguments.minutes
    print(f"seed {arguments.seed}", flush=True)
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory(prefix="stress-", dir=arguments.folder) as folder:
        shop = Workshop(Path(folder))
        if not arguments.only_needed and not _WITHOUT_ARTIFACTS.issuperset(names):
            shop.prepare()
        waiting, running = list(names), {}
        while waiting or running:
            while waiting and len(running) < arguments.jobs:
                name = waiting.pop(0)
                plan = Plan(
                    shop.folder / name, shop, arguments.seed, arguments.count, deadline
                )
                running[_start(name, plan)] = name
            pid, status = os.wait()
            if name := running.pop(pid, ""):
                result = shop.folder / f"{name}.result"
                tally = (
                    pickle.loads(result.read_bytes()) if result.exists() else Tally()
                )
                if status:
                    tally.fault("crash", name, f"the section ended with {status}")
                tallies[name] = tally
                _show(name, tally)
    return _summary(tallies)


def _start(name: str, plan: Plan) -> int:
    """Runs a section in a process of its own, from which its commands are forked."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        plan.folder.mkdir()
        start = time.monotonic()
        tally = SECTIONS[name](plan)
        tally.seconds = time.monotonic() - start
        plan.folder.with_suffix(".result").write_bytes(pickle.dumps(tally))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _show(name: str, tally: Tally) -> None:
    tried = ", ".join(f"{count:,} {what}" for what, count in tally.tried.items())
    print(f"{name:<12} {tally.seconds:4.0f} s  {tried}", flush=True)
    for what, why in tally.skipped.items():
        print(f"  skipped: {what}: {why}")
    for fault in tally.faults:
        print(f"  {fault.kind.upper()}: {fault.case}\n    {fault.detail}", flush=True)


def _summary(tallies: dict[str, Tally]) -> int:
    tried: collections.Counter[str] = collections.Counter()
    found: collections.Counter[str] = collections.Counter()
    for tally in tallies.values():
        tried += tally.tried
        found.update(fault.kind for fault in tally.faults)
    rows = [*tried.items(), *((_plural(kind), found[kind]) for kind in KINDS)]
    print()
    for what, count in rows:
        print(f"{what:<24} {count:>9,}")
    return 1 if found else 0


def _plural(kind: str) -> str:
    return kind + ("es" if kind.endswith("sh") else "s")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS)
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same cases")
    parser.add_argument("--count", type=int, help="cases of each section")
    parser.add_argument(
        "--minutes",
        type=float,
        default=15,
        help="no case begins after them; default: 15",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="sections side by side"
    )
    parser.add_argument(
        "--only-needed",
        action="store_true",
        help="do not export everything first: quicker for few cases",
    )
    parser.add_argument("--folder", type=Path, help="for what is written meanwhile")
    parsed = parser.parse_args()
    if unknown := set(parsed.sections) - SECTIONS.keys():
        parser.error(
            f"no section {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}"
        )
    return parsed


if __name__ == "__main__":
    sys.exit(main())
