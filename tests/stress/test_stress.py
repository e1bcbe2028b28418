"""A small part of `make stress`, which says what all of it is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "stress", "--jobs", "1", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    counts = dict(re.findall(r"^([a-z][a-z ]*?)  +([\d,]+)$", done.stdout, re.M))
    return done, {name: int(count.replace(",", "")) for name, count in counts.items()}


FAULTS = {
    *("wrong artifacts", "hangs", "crashes", "tracebacks", "leftovers", "exit codes"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections, tried",
    [
        (["fetch", "features", "--count", "6"], {"kills": 12}),
        (["install", "--count", "4"], {"kills": 4}),
        (["export", "places", "--count", "3"], {"kills": 3, "bad places": 3}),
        (["races", "--count", "2"], {"races": 2}),
        (
            ["checkpoints", "archives", "--count", "60"],
            {"corruptions": 60, "archives": 60},
        ),
        (["bytes", "meanings", "--count", "4"], {"changed bytes": 4}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_nothing_is_found(sections, tried):
    done, counts = run(*sections, "--only-needed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: counts[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert {name: counts[name] for name in tried} == tried
    if "meanings" in sections:
        assert counts["changed meanings"] > 0


@pytest.mark.slow
def test_a_fault_is_found(tmp_path):
    """One that is made here: what is half-written is taken for whole."""
    (tmp_path / "sitecustomize.py").write_text(
        "import checkpoints.table as table\n"
        "table.crc32c = lambda *pieces: 0\n"  # No checksum is ever wrong.
    )
    paths = [str(tmp_path), str(ROOT), str(TESTS)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "stress",
            "checkpoints",
            "--count",
            "200",
            "--jobs",
            "1",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "WRONG ARTIFACT: corruption " in done.stdout
