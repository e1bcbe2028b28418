"""On Apache Beam: the figures and vectors of one machine, each image once."""

import builtins
import contextlib
import os
import threading
import time
from concurrent import futures
from pathlib import Path

import colours
import fake_format
import numpy as np
import pytest
import records as tfrecords
import shelf_file_system

from checkpoints import layout
from exporters.command import verbs
from exporters.command.arguments import parse
from exporters.errors import (
    EvaluationError,
    MissingLibraryError,
    PipelineError,
    StorageError,
)
from exporters.evaluation import pipelines, sharding, vectors
from exporters.evaluation.evaluating import evaluate
from exporters.evaluation.features import features
from exporters.evaluation.locations import RemotePath, Workplace, location
from exporters.progress import Note, Step

HERE = ["--runner=DirectRunner"]
TWO_PROCESSES = [
    "--runner=DirectRunner",
    "--direct_running_mode=multi_processing",
    "--direct_num_workers=2",
    "--beam_plugins=shelf_file_system",
]
RETRYING = ["--runner=BundleBasedDirectRunner"]
"""The runner of Beam's own that runs a bundle again when it fails, as clusters do."""


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """What processes of workers find modules of the tests by, and files."""
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tests}:{tests.parent}")
    monkeypatch.setenv("SHELF", str(tmp_path / "shelf"))
    monkeypatch.setattr(sharding, "SHARD_SIZE", 5)


@pytest.fixture
def model(tmp_path):
    return colours.artifact(tmp_path / "model.fake")


@pytest.fixture
def other(tmp_path):
    return colours.artifact(tmp_path / "blind.fake", colours.blind_to_red())


@pytest.fixture
def images(tmp_path):
    """27 images; one cannot be read, and three have no class."""
    images = colours.folders(tmp_path / "images")
    colours.save(images, "3", "wrong.png", 1)
    colours.save(images, "2", "wrong.png", 7)
    colours.save(images, "5", "wrong.png", 7)
    (images / "4" / "corrupt.png").write_text("no image")
    for number in range(3):
        colours.save(images, "99", f"{number}.png", 0)
    (images / "notes.txt").write_text("no image")
    return images


def run(artifacts, images, **options):
    return evaluate(artifacts, images, **{"formats": fake_format.TABLE} | options)


def run_features(model, images, output, **options):
    return features(model, images, output, **{"formats": fake_format.TABLE} | options)


def figures(done):
    facts = done.as_dict()
    return {k: v for k, v in facts.items() if k not in ("seconds", "images")}


def vectors_of(path):
    found = vectors.read(path)
    order = np.argsort(found.names)
    return [found.names[i] for i in order], found.values[order], found.source


def check_same(one, other):
    names, values, source = vectors_of(one)
    names_2, values_2, source_2 = vectors_of(other)
    assert (names, source) == (names_2, source_2)
    np.testing.assert_array_equal(values, values_2)


def files(directory):
    return sorted(
        path.relative_to(directory).as_posix() for path in directory.rglob("*")
    )


# The same as on one machine


def test_figures_are_those_of_one_machine(tmp_path, model, other, images):
    plain = run([model, other], images)
    assert plain.artifacts[0].top_1 == 24 / 27 and len(plain.unreadable) == 1
    state, events = tmp_path / "state", []
    options = {"state": state, "beam": HERE, "progress": events.append}
    done = run([model, other], images, **options)
    assert figures(done) == figures(plain)
    assert files(state) == [
        "evaluation.json",
        *(f"part-{number:05}.npz" for number in range(7)),
    ]
    assert Step("evaluate", done=31, total=31, unit="images") in events
    events.clear()
    again = run([model, other], images, **options)
    assert figures(again) == figures(plain)
    assert Note("31 of 31 images were done before.") in events


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_vectors_are_those_of_one_machine(tmp_path, model, images, kind):
    plain = run_features(model, images, tmp_path / "plain", kind=kind)
    options = {"kind": kind, "beam": HERE, "part_size": 10}
    done = run_features(model, images, tmp_path / "beam", **options)
    assert (done.written, done.before) == (plain.written, 0) == (30, 0)
    assert done.unreadable == plain.unreadable and done.problems == plain.problems
    assert files(tmp_path / "beam") == [f"part-0000{n}.{kind}" for n in range(4)]
    check_same(tmp_path / "plain", tmp_path / "beam")
    colours.save(images, "5", "more.png", 7)
    done = run_features(model, images, tmp_path / "beam", **options)
    assert (done.written, done.before) == (1, 30)
    # What one has begun, the other goes on with.
    colours.save(images, "5", "still_more.png", 7)
    run_features(model, images, tmp_path / "beam", kind=kind)
    run_features(model, images, tmp_path / "plain", kind=kind)
    check_same(tmp_path / "plain", tmp_path / "beam")


@pytest.mark.slow
def test_two_processes(tmp_path, model, images, monkeypatch):
    """Workers that share nothing but a file system, and that a cloud's."""
    (tmp_path / "images").rename(tmp_path / "photos")
    (tmp_path / "shelf").mkdir()
    (tmp_path / "photos").rename(tmp_path / "shelf" / "images")
    here, there = tmp_path / "shelf" / "images", "shelf://images"
    monkeypatch.setattr(sharding, "SHARD_SIZE", 2)
    plain = run(model, here)
    done = run(model, there, state="shelf://state", beam=TWO_PROCESSES)
    assert figures(done) == figures(plain)
    assert str(done.images) == there
    run_features(model, here, tmp_path / "plain")
    done = run_features(
        model, there, "shelf://features", beam=TWO_PROCESSES, part_size=3
    )
    assert done.written == 30
    check_same(tmp_path / "plain", location("shelf://features"))
    check_same(tmp_path / "plain", tmp_path / "shelf" / "features")


def test_records_in_a_cloud(tmp_path, model):
    contents = [
        tfrecords.tfds(colours.encoded(number % 8), number % 8, f"{number}.png")
        for number in range(20)
    ]
    (tmp_path / "shelf" / "records").mkdir(parents=True)
    here = tmp_path / "shelf" / "records"
    tfrecords.write(here / "a.tfrecord", contents[:12])
    cut = tfrecords.write(here / "b.tfrecord", contents[12:])
    cut.write_bytes(cut.read_bytes()[:-3])
    plain = run(model, here)
    assert plain.count == 19 and list(plain.problems) == ["b.tfrecord"]
    done = run(model, "shelf://records", state="shelf://state", beam=HERE)
    assert figures(done) == figures(plain)
    done = run(model, "shelf://records/a.tfrecord", state="shelf://b", beam=HERE)
    assert done.count == 12


def test_ground_truth_in_a_cloud(tmp_path, model):
    shelf = tmp_path / "shelf"
    for number in range(8):
        colours.save(shelf, "images", f"{number}.png", number)
    (shelf / "truth.txt").write_text("".join(f"{number}\n" for number in range(8)))
    options = {"ground_truth": "shelf://truth.txt", "beam": HERE}
    done = run(model, "shelf://images", state=tmp_path / "state", **options)
    assert done.artifacts[0].top_1 == 1
    assert figures(done) == figures(
        run(model, shelf / "images", ground_truth=shelf / "truth.txt")
    )


def test_the_checkpoint_itself(tmp_path, model, images, monkeypatch):
    """Its variables reach the workers, who make a network of them."""
    monkeypatch.setattr(layout, "num_classes", lambda variables: 8)
    monkeypatch.setattr(sharding, "Reference", fake_format.FakeReference)
    of = colours.checkpoint()
    options = {
        "checkpoint": of,
        "reference": fake_format.FakeReference(of),
        "image_size": (80, 90),
    }
    plain = run(model, images, **options)
    done = run(model, images, **options, state=tmp_path / "state", beam=HERE)
    assert done.artifacts[0].name == "checkpoint"
    assert figures(done) == figures(plain)
    run_features(None, images, tmp_path / "plain", **options)
    run_features(None, images, tmp_path / "beam", **options, beam=HERE)
    check_same(tmp_path / "plain", tmp_path / "beam")


# Every image once


@pytest.fixture
def fails_once(tmp_path, monkeypatch):
    """Has the second shard that is run fail once, when a file of it was written."""
    runs = []

    def install(job):
        right = job.run

        def run(self, opened, number):
            right(self, opened, number)
            runs.append(number)
            if runs.count(1) == 1 and number == 1:
                raise RuntimeError("a worker was lost")

        monkeypatch.setattr(job, "run", run)
        return runs

    return install


def test_a_bundle_that_is_run_again_counts_once(tmp_path, model, images, fails_once):
    runs = fails_once(sharding.EvaluationJob)
    done = run(model, images, state=tmp_path / "state", beam=RETRYING)
    assert runs.count(1) == 2
    assert figures(done) == figures(run(model, images))
    assert len(list((tmp_path / "state").glob("part-*"))) == 7


def test_vectors_of_a_bundle_that_is_run_again(tmp_path, model, images, fails_once):
    runs = fails_once(sharding.FeaturesJob)
    options = {"part_size": 10, "beam": RETRYING}
    done = run_features(model, images, tmp_path / "beam", **options)
    assert runs.count(1) == 2 and done.written == 30
    run_features(model, images, tmp_path / "plain")
    check_same(tmp_path / "plain", tmp_path / "beam")


def test_a_shard_that_is_run_twice_at_once(tmp_path, model, images):
    """As runners do with what is slow; the file is whole whoever is first."""
    found = np.arange(20, dtype=np.float32)
    workplace = Workplace(location("shelf://place"))
    path = workplace.directory / "part-00000.npz"
    seen = set()

    def write(_):
        workplace.write(path, found.tobytes())
        with contextlib.suppress(FileNotFoundError):  # For a moment.
            seen.add(path.read_bytes())

    with futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(100)))
    assert seen == {found.tobytes()} == {path.read_bytes()}
    assert workplace.names("part-*") == {"part-00000.npz"}
    assert workplace.names("*", workplace.work) == set()


def test_what_is_opened_is_opened_once(tmp_path, model, images, monkeypatch):
    opened = []
    right = sharding.Shipment.open
    monkeypatch.setattr(
        sharding.Shipment, "open", lambda self: opened.append(1) or right(self)
    )
    run(model, images, state=tmp_path / "state", beam=HERE)
    assert opened == [1]


def test_a_run_that_ended_early_goes_on(tmp_path, model, images, monkeypatch):
    right = sharding.EvaluationJob.run

    def fails(self, opened, number):
        if number == 3:
            raise OSError("the disk of a worker is full")
        right(self, opened, number)

    monkeypatch.setattr(sharding.EvaluationJob, "run", fails)
    state, events = tmp_path / "state", []
    with pytest.raises(PipelineError, match=r"ended early: .*disk of a worker is full"):
        run(model, images, state=state, beam=HERE)
    monkeypatch.setattr(sharding.EvaluationJob, "run", right)
    there = len(list(state.glob("part-*")))
    assert 0 < there < 7
    done = run(model, images, state=state, beam=HERE, progress=events.append)
    assert figures(done) == figures(run(model, images))
    assert Note(f"{5 * there} of 31 images were done before.") in events


def test_an_interrupted_run_ends_at_once(tmp_path, model, images, monkeypatch):
    monkeypatch.setattr(pipelines, "_SECONDS_BETWEEN_LOOKS", 0.1)
    release = threading.Event()
    monkeypatch.setattr(
        sharding.EvaluationJob, "run", lambda *_: release.wait(20) and None
    )

    def progress(event):
        if isinstance(event, Step) and event.name == "evaluate":
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(model, images, state=tmp_path / "s", beam=HERE, progress=progress)
    assert time.monotonic() - start < 10
    release.set()


def test_the_state_of_another_evaluation(tmp_path, model, other, images):
    state = tmp_path / "state"
    run(model, images, state=state, beam=HERE)
    before = {path: path.read_bytes() for path in state.iterdir()}
    with pytest.raises(EvaluationError, match="of other images, labels or artifacts"):
        run(other, images, state=state, beam=HERE)
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match="file is a file; expected a directory"):
        run(model, images, state=tmp_path / "file", beam=HERE)
    (state / "evaluation.json").write_text("{}")
    with pytest.raises(EvaluationError, match="of other images, labels or artifacts"):
        run(model, images, state=state, beam=HERE)


# What cannot be


def test_options_behind_beam(tmp_path, model, images, capsys):
    """All that is behind --beam is the pipeline's; what is ours is refused there."""
    arguments = ["evaluate", str(model), "--images", str(images), "--state", "x"]
    parsed = parse([*arguments, "--json", "--beam", *TWO_PROCESSES])
    assert parsed.beam == TWO_PROCESSES and parsed.json
    assert verbs.pipeline_options(parsed) == TWO_PROCESSES
    parsed = parse([*arguments, "--beam", *HERE, '--labels={"team": "a"}'])
    assert verbs.pipeline_options(parsed) == parsed.beam
    assert verbs.pipeline_options(parse(arguments)) is None
    for own in ("--json", "--image-size=75"):
        parsed = parse([*arguments, "--beam", *HERE, own])
        with pytest.raises(SystemExit):
            verbs.pipeline_options(parsed)
        assert "has to be before --beam" in capsys.readouterr().err


def test_the_runner_is_named(tmp_path, model, images):
    for beam in ([], ["--direct_num_workers=2"]):
        with pytest.raises(EvaluationError, match="expected the runner among"):
            run(model, images, state=tmp_path / "state", beam=beam)
    with pytest.raises(PipelineError, match="NoRunner"):
        run(model, images, state=tmp_path / "state", beam=["--runner=NoRunner"])
    with pytest.raises(EvaluationError, match="does not take these options"):
        beam = [*HERE, "--direct_num_workers=many"]
        run(model, images, state=tmp_path / "other", beam=beam)


def test_the_state_is_named(model, images):
    with pytest.raises(EvaluationError, match="--state has to name a directory"):
        run(model, images, beam=HERE)


def test_urls_are_for_beam(tmp_path, model, images):
    for options in ({"images": "gs://b/c"}, {"state": "gs://b/c"}):
        with pytest.raises(EvaluationError, match=r"gs://b/c: expected a path of this"):
            run(model, **{"images": images} | options)
    with pytest.raises(EvaluationError, match=r"--output gs://b/c: expected a path"):
        run_features(model, images, "gs://b/c")


def test_a_file_system_that_beam_does_not_know(tmp_path, model):
    with pytest.raises(StorageError, match=r"what://b/c cannot be reached: Unable to"):
        run(model, "what://b/c", state=tmp_path / "state", beam=HERE)


def test_nothing_at_a_url(tmp_path, model):
    with pytest.raises(EvaluationError, match="shelf://nowhere does not exist"):
        run(model, "shelf://nowhere", state=tmp_path / "state", beam=HERE)


def test_a_file_that_went_is_named_and_one_that_cannot_be_reached_is_not(tmp_path):
    with pytest.raises(FileNotFoundError):
        RemotePath("shelf://nowhere").size()
    (tmp_path / "shelf" / "directory").mkdir(parents=True)
    with pytest.raises(StorageError, match="shelf://directory cannot be reached"):
        RemotePath("shelf://directory").read_bytes()


def test_without_beam(tmp_path, model, images, monkeypatch):
    right = builtins.__import__

    def without(name, *rest, **named):
        if name.partition(".")[0] == "apache_beam":
            raise ImportError(name)
        return right(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingLibraryError, match=r"pip install 'irv2\[beam\]'"):
        run(model, images, state=tmp_path / "state", beam=HERE)
    assert run(model, images).count == 27
    assert not os.path.exists(tmp_path / "state")
    assert shelf_file_system.place("shelf://a").name == "a"
