"""Measuring, with a fake format, its engine, and tools that need no time."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_format
import numpy as np
import pytest

from benchmarks import exporting as exporting_
from benchmarks import machines
from benchmarks.__main__ import finish, main
from benchmarks.engines import Engine
from benchmarks.exporting import Made, Recipe
from benchmarks.figures import IRV2, Spread
from benchmarks.measuring import measure
from benchmarks.processes import ProcessError
from benchmarks.running import measure as measure_here
from exporters import exporting
from exporters.command.console import Console
from exporters.formats import FORMATS
from exporters.network.tasks import CLASSIFICATION

ROOT = Path(__file__).parents[2]
STOCK = "other tool"


def load(path, threads):
    artifact = fake_format.open(path)
    return lambda images: artifact.run(images)["logits"]


ENGINES = [
    Engine("fake engine", "numpy", "numpy", lambda path: path.suffix == ".fake", load),
    Engine("blind engine", "numpy", "numpy", lambda path: False, load),
]


class Tool:
    """Exports the fake format, and pretends to take longer each time."""

    def __init__(self, directory, *, expected=None, parts=True):
        self.directory = directory
        self.expected = expected or fake_format.checkpoint()
        self.parts = {"read": 0.5, "graphs": 0.0, "write": 0.25} if parts else {}
        self.times = 0

    def __call__(self):
        self.times += 1
        (item,) = exporting.export(
            fake_format.checkpoint(),
            self.directory,
            formats=[fake_format.FORMAT],
            tasks=["classification"],
            options=fake_format.OPTIONS,
            images=fake_format.IMAGES,
            reference=fake_format.FakeReference(self.expected),
            force=True,
        ).artifacts
        if not item.is_kept:
            raise ProcessError("\n".join(item.failures))
        return Made(item.path, item.bytes, self.times, 10**9, self.parts)


@pytest.fixture
def run(monkeypatch):
    """Measures ways to the fake format, and waits for nothing."""
    this_machine = functools.partial(machines.this_machine, seconds=0)
    monkeypatch.setattr(machines, "this_machine", this_machine)

    def run(*recipes, **options):
        return measure(
            recipes,
            CLASSIFICATION,
            ENGINES,
            **{
                "threads": 1,
                "seconds": 0.01,
                "run": lambda jobs, threads, seconds, loads: measure_here(
                    jobs, threads, seconds, ENGINES
                ),
                **options,
            },
        )

    return run


@pytest.fixture
def ours(tmp_path):
    return Recipe(fake_format.FORMAT, IRV2, Tool(tmp_path / "ours"))


@pytest.fixture
def verified(tmp_path):
    return Recipe(fake_format.FORMAT, IRV2, Tool(tmp_path / "ours"), is_verified=True)


@pytest.fixture
def stock(tmp_path):
    return Recipe(fake_format.FORMAT, STOCK, Tool(tmp_path / "stock", parts=False))


@pytest.fixture
def failing(tmp_path):
    other = fake_format.checkpoint(**{"layer/biases": np.zeros(8, np.float32)})
    tool = Tool(tmp_path / "failing", expected=other)
    return Recipe(fake_format.FORMAT, "failing tool", tool)


def test_making_is_measured_several_times(run, ours, verified, stock):
    found = run(ours, verified, stock, repeats=3)
    mine, other = found.artifacts
    assert (mine.format, mine.tool, mine.failed) == ("fake", IRV2, None)
    assert mine.export.seconds == Spread(1, 2, 3, 3)
    assert mine.export.memory.maximum == 10**9
    assert mine.export.write == Spread(0.25, 0.25, 0.25, 3)
    assert mine.verified_export.seconds.count == 3
    assert mine.bytes > 100
    assert (other.tool, other.verified_export) == (STOCK, None)
    assert other.export.write is None
    assert found.failures == []


def test_every_artifact_is_run_by_the_engines_that_read_it(run, ours, verified, stock):
    runs = run(ours, verified, stock, repeats=1).runs
    assert [(r.format, r.tool, r.engine) for r in runs] == [
        ("fake", IRV2, "fake engine"),
        ("fake", STOCK, "fake engine"),
    ]
    assert all(r.latency.count >= 5 for r in runs)
    assert runs[1].to_ours > 0


def test_machine_date_threads_and_versions_are_kept(run, ours):
    found = run(ours, repeats=1)
    assert found.date.endswith("Z") and len(found.date) == len("2026-11-23T14:05:00Z")
    assert found.machine.cores >= 1
    assert (found.threads, found.task) == (1, "classification")
    assert {"irv2", "python", "numpy"} <= found.versions.keys()


def test_what_fails_is_not_tried_again_and_does_not_end_the_rest(run, failing, ours):
    found = run(failing, ours, repeats=3)
    assert failing.make.times == 1
    bad, good = found.artifacts
    assert "logits" in bad.failed
    assert (bad.export, bad.bytes) == (None, None)
    assert good.export.seconds.count == 3
    assert [r.tool for r in found.runs] == [IRV2]


def test_artifacts_that_are_kept_are_made_once(run, ours, tmp_path):
    way = exporting_.kept(ours, tmp_path)
    for _ in range(2):
        found = run(way, repeats=3)
        (artifact,) = found.artifacts
        assert (artifact.export, artifact.failed) == (None, None)
        assert artifact.bytes > 100
        assert found.runs[0].latency and found.failures == []
    assert ours.make.times == 1


def test_everything(run, ours, failing):
    found = run(ours, repeats=1, everything=ours.make)
    assert found.everything.export.seconds.count == 1
    found = run(ours, repeats=1, everything=failing.make)
    assert found.everything.export is None
    assert len(found.failures) == 1


def test_the_auxiliary_classifier_is_compared_with_nothing(tmp_path):
    """It is another network; of the others, each is with the float32 file."""
    rows = [FORMATS[name] for name in ("tflite-published", "tflite-float32")]
    jobs = []

    def run(found, threads, seconds, loads):
        jobs.extend(found)
        return [job.failed("not run") for job in found]

    def made(row):
        return lambda: Made(tmp_path / f"{row.name}.tflite", 1, 1, 1)

    recipes = [Recipe(row, IRV2, made(row)) for row in rows]
    engine = Engine("litert", "numpy", "numpy", lambda path: True, load)
    measure(recipes, CLASSIFICATION, [engine], repeats=1, run=run)
    assert [(job.format, job.float32) for job in jobs] == [
        ("tflite-published", None),
        ("tflite-float32", "tflite-float32"),
    ]


# What is shown and kept


def finished(found, directory, capfd):
    code = finish(Console(), found, directory)
    return code, *capfd.readouterr()


def test_what_is_shown_and_kept(run, ours, verified, tmp_path, capfd):
    found = run(ours, verified, repeats=2)
    code, out, err = finished(found, tmp_path / "kept", capfd)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["fake", "irv2", "1.5", "(1.0", "to", "2.0)"] in [line[:6] for line in lines]
    (path,) = (tmp_path / "kept").iterdir()
    assert str(path) in err
    assert path.name == found.date.replace(":", "") + ".json"
    kept = json.loads(path.read_text())
    assert kept["artifacts"][0]["export"]["seconds"]["maximum"] == 2
    assert kept["runs"][0]["latency"]["count"] >= 5


def test_a_failing_artifact_is_shown_kept_and_exit_code_1(
    run, ours, failing, tmp_path, capfd
):
    found = run(ours, failing, repeats=1)
    code, out, err = finished(found, tmp_path / "kept", capfd)
    assert code == 1
    (line,) = [line for line in out.splitlines() if "failing tool" in line]
    assert "FAILED" in line
    assert "fake by failing tool: " in err
    (path,) = (tmp_path / "kept").iterdir()
    assert json.loads(path.read_text())["artifacts"][1]["failed"]


def test_an_engine_that_fails_is_exit_code_1(run, ours, tmp_path, capfd):
    def broken(jobs, threads, seconds, loads):
        return [job.failed("no such op") for job in jobs]

    found = run(ours, repeats=1, run=broken)
    code, out, err = finished(found, tmp_path / "kept", capfd)
    assert code == 1
    assert "FAILED" in out
    assert "fake by irv2, run by fake engine: no such op" in err


def test_another_tools_file_that_an_engine_cannot_read_is_told(
    run, ours, stock, tmp_path, capfd
):
    found = run(ours, stock, repeats=1)
    mine, other = found.runs
    found = dataclasses.replace(
        found, runs=(mine, dataclasses.replace(other, failed="no such op"))
    )
    code, out, err = finished(found, tmp_path / "kept", capfd)
    assert code == 0
    assert "FAILED" in out
    assert "fake by other tool, run by fake engine: no such op" in err


def test_a_busy_machine_is_told(run, ours, tmp_path, capfd):
    found = run(ours, repeats=1)
    busy = dataclasses.replace(found.machine, busy=0.62)
    _, out, _ = finished(
        dataclasses.replace(found, machine=busy), tmp_path / "a", capfd
    )
    assert "62% busy" in out
    quiet = dataclasses.replace(found.machine, busy=0.02)
    _, out, _ = finished(
        dataclasses.replace(found, machine=quiet), tmp_path / "b", capfd
    )
    assert "busy" not in out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--formats", "onnx-float23"], "'onnx-float23'"),
        (["--engines", "caffe"], "'caffe'"),
        (["--repeats", "0"], "from 1 on"),
        (["--threads", "two"], "from 1 on"),
        (["--output", __file__], "test_measuring.py"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--checkpoint", "no.ckpt", *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_is_asked_to_end(request_to_end, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "benchmarks", "--checkpoint", "no.ckpt"]
    with subprocess.Popen(
        [*command, "--output", tmp_path / "kept"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
    ) as process:
        deadline = time.monotonic() + 30
        while not any(scratch.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(request_to_end)
        assert b"Traceback" not in process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_the_whole_benchmark_of_one_format(stand_in_file, tmp_path, capfd):
    arguments = ["--checkpoint", str(stand_in_file), "--formats", "onnx-float32"]
    arguments += ["--output", str(tmp_path), "--repeats", "1", "--seconds", "0.1"]
    arguments += ["--no-stock", "--no-everything", "--engines", "onnxruntime"]
    assert main(arguments) == 0
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())
    (artifact,) = found["artifacts"]
    assert (
        artifact["export"]["seconds"]["median"] > artifact["export"]["write"]["median"]
    )
    assert artifact["verified_export"]["verify"]["median"] > 0
    assert artifact["bytes"] > 50_000_000
    (run,) = found["runs"]
    assert run["latency"]["median"] > 0 and run["throughput"]["median"] > 0
