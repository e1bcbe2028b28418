"""Runs targets for a given time, each in a process: `python -m fuzzing --help`."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent import futures
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_LONGEST = 20
"""Seconds that an input may take."""
_UNCAUGHT = "=== Uncaught Python exception"
"""What atheris writes before a traceback."""


def main() -> int:
    """Returns 1 if anything was found, else 0."""
    arguments = _arguments()
    if arguments.run:
        _fuzz(arguments.run, arguments)
    names = arguments.targets or _names()
    seconds = max(1, arguments.seconds * arguments.jobs // len(names))
    print(f"{len(names)} targets, {seconds} s each", flush=True)
    with futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [
            pool.submit(_run, name, seconds, arguments.corpus, arguments.seed)
            for name in names
        ]
        found = 0
        total = 0
        for name, run in zip(names, runs):
            executions, trouble = run.result()
            total += executions
            found += bool(trouble)
            print(f"{name:<14} {executions:>10,} executions", flush=True)
            if trouble:
                print(f"  FOUND:\n{trouble}", flush=True)
    print(f"\nfuzz executions {total:,}, findings {found}")
    return 1 if found else 0


def _run(name: str, seconds: int, corpus: Path, seed: int) -> tuple[int, str]:
    """Returns the number of executions; and the last lines if something was found."""
    command = [sys.executable, "-m", "fuzzing", "--run", name, "--corpus", str(corpus)]
    command += ["--seconds", str(seconds), "--seed", str(seed)]
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=shared if shared.is_dir() else None, prefix="fuzz-"
    ) as place:
        done = subprocess.run(
            [*command, "--place", place],
            capture_output=True,
            text=True,
            errors="replace",
        )
    told = done.stdout + done.stderr
    counts = re.findall(r"^#(\d+)|stat::number_of_executed_units: (\d+)", told, re.M)
    executions = max((int(one or other) for one, other in counts), default=0)
    trouble = ""
    if done.returncode:
        start = max(0, told.find(_UNCAUGHT))
        trouble = told[start:][:2500] + "\n...\n" + told[-600:]
    if not executions and not trouble:
        trouble = f"nothing was executed:\n{told[-2000:]}"
    return executions, trouble


def _fuzz(name: str, arguments: argparse.Namespace) -> None:
    """Ends the process."""
    import atheris

    with atheris.instrument_imports(include=["checkpoints", "exporters"]):
        from fuzzing import targets
    from exporters.command import exit_codes, main

    target, corpus = targets.TARGETS[name], arguments.corpus / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed, content in target.seeds().items():
        (corpus / f"seed-{seed}").write_bytes(content)
    path = arguments.place / target.name

    def one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            target.read(path)
        except Exception as error:
            if main._told(error)[0] == exit_codes.FAULT:
                raise

    options = (
        f"-max_total_time={arguments.seconds}",
        f"-timeout={_LONGEST}",
        f"-rss_limit_mb={target.megabytes}",
        f"-max_len={targets.MOST_BYTES}",
        f"-artifact_prefix={corpus}-",
        f"-seed={arguments.seed or 1}",
        "-print_final_stats=1",
    )
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def _names() -> list[str]:
    from fuzzing import targets

    return list(targets.TARGETS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="of all; default: 60")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same inputs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
