"""Running: times and ratios of what is compared; what fails is a result too."""

import dataclasses
import json
import time

import numpy as np
import pytest

from benchmarks import running
from benchmarks.engines import Engine
from benchmarks.figures import Spread
from benchmarks.processes import ProcessError
from benchmarks.running import Job

SECONDS = {"float": 0.02, "int": 0.01, "stock": 0.04}


def load(path, threads, *, factor=1.0, noise=0.0):
    """Waits as long as the path says, and says what is in the images."""
    if path.name == "damaged":
        raise ValueError("it is damaged:\n  in line 3")
    random = np.random.default_rng(0)

    def run(images):
        if path.name == "only-one" and len(images) > 1:
            raise RuntimeError("only one image")
        time.sleep(SECONDS.get(path.name, 0) * factor)
        outputs = images.reshape(len(images), -1)[:, :100]
        return outputs + noise * random.normal(size=outputs.shape)

    return run


TABLE = [
    Engine("own", "numpy", "numpy", lambda path: True, load),
    Engine(
        "other",
        "numpy",
        "numpy",
        lambda path: True,
        lambda path, threads: load(path, threads, factor=0.5, noise=0.1),
    ),
    Engine("absent", "no_such_library", "no-such", lambda path: True, load),
]


def job(path, format="float", tool="irv2", engine="own"):
    return Job(path, format, tool, engine, "float", "own")


def measure(*jobs):
    return running.measure(jobs, threads=1, seconds=0.01, table=TABLE)


@pytest.fixture(scope="module")
def runs():
    jobs = [
        job("float"),
        job("float", engine="other"),
        job("stock", tool="stock"),
        job("int", "int"),
        job("int", "int", engine="other"),
    ]
    return {(r.format, r.tool, r.engine): r for r in measure(*jobs)}


def test_latency_and_throughput(runs):
    run = runs["float", "irv2", "own"]
    assert run.failed is None
    assert run.latency.count >= 5
    assert 0.02 <= run.latency.minimum <= run.latency.median <= run.latency.maximum
    assert run.throughput.maximum <= 8 / 0.02


def test_ratios(runs):
    def about(value):
        return pytest.approx(value, rel=0.4)

    ours = runs["float", "irv2", "own"]
    assert (ours.to_float32, ours.to_own_engine) == (None, None)
    assert ours.to_ours is None
    stock = runs["float", "stock", "own"]
    assert stock.to_float32 == about(2)
    assert stock.to_ours == about(2)
    assert stock.to_ours == stock.latency.minimum / ours.latency.minimum
    integers = runs["int", "irv2", "other"]
    assert integers.to_float32 == about(0.5)
    assert integers.to_own_engine == about(0.5)
    assert integers.to_ours is None


def test_outputs_are_compared_with_our_float32_file_on_its_own_engine(runs):
    assert runs["int", "irv2", "own"].cosine == pytest.approx(1)
    assert 0.9 < runs["int", "irv2", "other"].cosine < 0.9999


@pytest.mark.parametrize(
    "failing, why",
    [
        (job("damaged", "int"), "it is damaged: in line 3"),
        (job("only-one", "int"), "only one image"),
        (job("int", "int", engine="absent"), "No module named 'no_such_library'"),
    ],
)
def test_what_fails_is_a_result_and_the_rest_goes_on(failing, why):
    good, bad = measure(job("float"), failing)
    assert good.latency and good.failed is None
    assert bad == failing.failed(why)


def test_failures_name_the_file_alone(tmp_path):
    path = tmp_path / "model.onnx"

    def load(path, threads):
        raise ValueError(f"cannot read {path}")

    table = [Engine("own", "numpy", "numpy", lambda path: True, load)]
    (run,) = running.measure([job(str(path))], 1, 0, table)
    assert run.failed == "cannot read model.onnx"


def test_they_take_turns():
    order = []

    def load_in_turn(path, threads):
        def run(images):
            order.append(path.name)
            return images

        return run

    table = [Engine("own", "numpy", "numpy", lambda path: True, load_in_turn)]
    running.measure([job("a"), job("b", "int")], 1, 0, table)
    assert order == ["a", "a", "b", "b"] * (len(order) // 4)
    assert len(order) >= 4 * 5


def test_jobs_of_a_process_that_ends_have_all_failed(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # No Python starts so.
    jobs = [job("float"), job("int", "int")]
    runs = running.measure_apart(jobs, 1, 0.01, 1)
    assert [(run.format, run.latency) for run in runs] == [
        ("float", None),
        ("int", None),
    ]
    assert all("exit code" in run.failed for run in runs)


def test_in_a_process_of_its_own(tmp_path):
    """The program that is started; the file is damaged, so that no library is needed."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing")
    one = dataclasses.replace(job(str(path)), engine="onnxruntime")
    (run,) = running.measure_apart([one], 1, 0.01, 1)
    assert "model.onnx" in run.failed


def test_loading_is_measured_apart_and_several_times(monkeypatch):
    """As seconds and memory of a process that does nothing else."""
    engines = {"own": "onnxruntime", "other": "openvino"}
    jobs = [
        job("float"),
        job("damaged", "int", "other"),
        job("int", "int"),
        job("float", engine="other"),
    ]
    measured = [dataclasses.asdict(run) for run in measure(*jobs)]
    jobs = [dataclasses.replace(one, engine=engines[one.engine]) for one in jobs]
    calls = []

    def apart(verb, given, *numbers):
        if verb == "measure":
            return measured, 10**9
        found = json.loads(given)
        calls.append((found["engine"], *numbers))
        if found["path"] == "int" and len(calls) > 2:
            raise ProcessError("killed")
        return len(numbers), len(calls)

    monkeypatch.setattr(running, "_apart", apart)
    good, damaged, killed, caching = running.measure_apart(jobs, 1, 0.01, 2)
    assert (good.load, good.memory) == (Spread(1, 1, 1, 2), Spread(1, 3.5, 6, 2))
    assert good.cached_load is None
    assert (damaged.load, damaged.failed) == (None, measured[1]["failed"])
    assert (killed.latency, killed.failed) == (None, "killed")
    # The first time with a cache is not counted.
    assert caching.load == Spread(1, 1, 1, 2)
    assert caching.cached_load == Spread(2, 2, 2, 2)
    assert caching.cached_memory.count == 2
    assert [len(numbers) for _, *numbers in calls] == [1, 1, 1, 2, 2, 1, 1, 1, 2]


def test_loading_has_the_first_batch_in_it():
    assert running.load(job("float"), 1, None, TABLE) >= SECONDS["float"]
    with pytest.raises(ValueError, match="damaged"):
        running.load(job("damaged"), 1, None, TABLE)
