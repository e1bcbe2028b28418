"""Evaluating: right figures, nothing dropped in silence, and nothing counted twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import colours
import fake_format
import numpy as np
import pytest
import records as tfrecords
from PIL import Image

from checkpoints.reader import Provenance
from exporters import manifest
from exporters.errors import ArtifactError, EvaluationError
from exporters.evaluation import evaluating
from exporters.evaluation.evaluating import Disagreement, evaluate
from exporters.evaluation.running import top_classes
from exporters.progress import Note, Step

SIZE = fake_format.IMAGE_SIZE


@pytest.fixture
def model(tmp_path):
    return colours.artifact(tmp_path / "model.fake")


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(colours.NAMES))
    return path


def run(artifacts, images, **options):
    return evaluate(artifacts, images, **{"formats": fake_format.TABLE} | options)


def only(done):
    (item,) = done.artifacts
    return item


# Figures


def test_all_are_right(tmp_path, model):
    done = run(model, colours.folders(tmp_path / "images"))
    found = only(done)
    assert (found.top_1, found.top_5, found.count) == (1, 1, 24)
    assert (found.name, found.format) == (str(model), "fake")
    assert found.image_size == SIZE
    assert [(x.number, x.count, x.top_1) for x in found.per_class] == [
        (number, 3, 1.0) for number in range(8)
    ]
    assert (done.found, done.count, done.layout) == (
        *(24, 24),
        "a directory with one subdirectory per class",
    )
    assert done.label_offset == 0
    assert found.confusions == () and done.agreements == ()
    assert not done.is_published


def test_what_is_wrong_is_counted(tmp_path, model, names):
    images = tmp_path / "images"
    colours.save(images, "red", "a.png", 4)
    colours.save(images, "red", "b.png", 0)
    colours.save(images, "red", "c.png", 0)
    colours.save(images, "red", "d.png", 3)  # As far from red as can be.
    colours.save(images, "blue", "e.png", 4)
    found = only(run(model, images, labels=names))
    assert found.top_1 == 1 / 5
    assert found.top_5 == 4 / 5  # Of equal logits, the first class counts.
    assert [(x.name, x.count, x.top_1, x.top_5) for x in found.per_class] == [
        ("blue", 1, 0, 1),
        ("red", 4, 0.25, 0.75),
    ]
    assert [(x.label, x.predicted, x.count) for x in found.confusions] == [
        ("red", "black", 2),
        ("blue", "red", 1),
        ("red", "cyan", 1),
    ]


def test_top_classes():
    logits = np.array([[0, 3, 3, 1], [np.nan, 1, 2, 3], [9, np.inf, 1, 1]])
    np.testing.assert_array_equal(
        top_classes(logits, 1), [[2, 3, 4, 1, -1], [-1] * 5, [-1] * 5]
    )
    logits = np.random.default_rng(0).normal(size=(7, 1001))
    np.testing.assert_array_equal(top_classes(logits), np.argsort(logits)[:, :-6:-1])


def test_what_is_not_finite_is_wrong_and_said(tmp_path):
    biases = np.full(8, np.nan, np.float32)
    of = colours.checkpoint(**{"layer/biases": biases})
    path = colours.artifact(tmp_path / "nan.fake", of)
    found = only(run(path, colours.folders(tmp_path / "images", 1)))
    assert (found.top_1, found.top_5, found.not_finite) == (0, 0, 8)
    assert found.confusions[0].predicted == "none"


def test_several_artifacts_and_the_checkpoint_in_one_pass(tmp_path, model, names):
    blind = colours.artifact(tmp_path / "blind.fake", colours.blind_to_red())
    images = colours.folders(tmp_path / "images")
    events = []
    done = run(
        [model, blind],
        images,
        checkpoint=colours.checkpoint(),
        reference=fake_format.FakeReference(colours.checkpoint()),
        image_size=SIZE,
        labels=names,
        progress=events.append,
    )
    assert [item.name for item in done.artifacts] == [
        "checkpoint",
        str(model),
        str(blind),
    ]
    assert [item.top_1 for item in done.artifacts] == [1, 1, 21 / 24]
    same, other = done.agreements
    assert (same.first, same.second, same.share) == ("checkpoint", str(model), 1)
    assert other.share == pytest.approx(21 / 24)
    assert other.differing == tuple(
        Disagreement(f"4/{number}.png", "red", "red", "black") for number in range(3)
    )
    steps = [x for x in events if isinstance(x, Step) and x.name == "evaluate"]
    assert [step.done for step in steps] == [8, 16, 24]
    assert {(step.total, step.unit) for step in steps} == {(24, "images")}
    assert Note(done.labelling) in events


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_figures_do_not_depend_on_batches(tmp_path, model, batch_size):
    images = colours.folders(tmp_path / "images")
    colours.save(images, "3", "wrong.png", 1)
    found = only(run(model, images, batch_size=batch_size))
    assert found == only(run(model, images))
    assert found.top_1 == 24 / 25


def test_records_give_the_figures_of_files(tmp_path, model):
    contents = [
        tfrecords.tfds(colours.encoded(number % 8), number, f"{number}.png")
        for number in [*range(8), 0]
    ]
    contents[8] = tfrecords.tfds(colours.encoded(5), 6, "wrong.png")
    path = tfrecords.write(tmp_path / "x.tfrecord", contents)
    done = run(model, path)
    assert only(done).top_1 == 8 / 9
    assert done.layout == "TFRecord files"
    slim = [tfrecords.tf_slim(colours.encoded(n), n + 1) for n in range(8)]
    path = tfrecords.write(tmp_path / "y.tfrecord", slim)
    done = run(model, path)
    assert (done.label_offset, only(done).top_1) == (-1, 1)


def test_names_of_classes_are_the_manifests(tmp_path, model):
    beside = manifest.path_of(model)
    beside.write_text(json.dumps({"labels": colours.NAMES, "files": {}}))
    images = tmp_path / "images"
    colours.save(images, "red", "a.png", 4)
    colours.save(images, "Yellow", "b.png", 6)
    done = run(model, images)
    assert done.labelling == "Labels are names of classes."
    assert [x.name for x in only(done).per_class] == ["red", "yellow"]


def test_a_list_of_labels(tmp_path, model, names):
    images = tmp_path / "images"
    for number in range(3):
        colours.save(tmp_path, "images", f"{number}.png", number)
    (tmp_path / "truth.txt").write_text("black\nblue\nred\n")
    done = run(model, images, ground_truth=tmp_path / "truth.txt", labels=names)
    assert only(done).top_1 == pytest.approx(2 / 3)


def test_all_is_json(tmp_path, model):
    images = colours.folders(tmp_path / "images", 1)
    facts = run([model, tmp_path / "model.fake"], images).as_dict()
    found = json.loads(json.dumps(facts, allow_nan=False))
    assert found["artifacts"][0]["top_1"] == 1
    assert found["images"] == str(images)


# What cannot be used


def test_nothing_is_dropped_in_silence(tmp_path, model):
    images = colours.folders(tmp_path / "images", 1)
    white = images / "7"
    Image.new("L", (90, 90), 255).save(white / "grey.jpg")
    Image.new("CMYK", (90, 90), (0, 0, 0, 0)).save(white / "cmyk.jpg")
    Image.new("RGB", (1, 1), (255, 255, 255)).save(white / "one.png")
    Image.fromarray(np.full((90, 90), 65_535, np.uint16)).save(white / "sixteen.png")
    (white / "corrupt.jpg").write_bytes((white / "grey.jpg").read_bytes()[:200])
    (white / "empty.png").touch()
    (white / "gone.png").symlink_to(white / "nowhere.png")
    (white / "notes.txt").write_text("no image")
    colours.save(images, "99", "a.png", 0)
    colours.save(images, "99", "b.png", 0)
    (images / "5" / "0.png").unlink()
    done = run(model, images)
    found = only(done)
    assert (found.top_1, found.count) == (1, 11)
    assert done.unreadable.keys() == {
        f"7/{name}" for name in ("corrupt.jpg", "empty.png", "gone.png")
    }
    assert "No such file" in done.unreadable["7/gone.png"]
    assert done.unlabelled == {"99/a.png": "99", "99/b.png": "99"}
    assert done.unknown == {"99": 2}
    assert done.empty == ("5",)
    assert done.problems == {"7/notes.txt": "not called like an image"}
    assert done.found == 16 == done.count + len(done.unreadable) + len(done.unlabelled)


def test_not_one_image_can_be_read(tmp_path, model):
    images = tmp_path / "images" / "0"
    images.mkdir(parents=True)
    (images / "a.png").write_text("text")
    done = run(model, images.parent)
    assert done.count == 0 and done.unreadable.keys() == {"0/a.png"}
    assert only(done).top_1 is None


def test_one_bad_artifact_among_many_is_a_result(tmp_path, model):
    bad = tmp_path / "bad.fake"
    bad.write_bytes(b"PK damaged")
    other = colours.checkpoint()
    other.num_classes = 9
    other = colours.artifact(tmp_path / "other.fake", other)
    features = colours.artifact(tmp_path / "features.fake", task="feature_vector")
    done = run([bad, model, other, features], colours.folders(tmp_path / "images", 1))
    assert [(x.name, x.top_1) for x in done.artifacts] == [
        (str(model), 1),
        (str(bad), None),
        (str(other), None),
    ]
    assert "bad.fake is damaged" in done.artifacts[1].error
    assert "9 classes, and" in done.artifacts[2].error
    assert done.passed_over == {
        str(features): "for feature vectors, which name no class"
    }
    with pytest.raises(EvaluationError, match="no classifier to evaluate: for feature"):
        run(features, tmp_path / "images")


def test_an_artifact_that_fails_while_it_runs(tmp_path, model, monkeypatch):
    bad = colours.artifact(tmp_path / "bad.fake", colours.blind_to_red())
    right = fake_format.outputs

    def outputs(weights, images):
        if weights["layer/biases"][4] == -10:
            raise ArtifactError("it broke")
        return right(weights, images)

    monkeypatch.setattr(fake_format, "outputs", outputs)
    done = run([bad, model], colours.folders(tmp_path / "images"))
    assert [(x.error, x.top_1) for x in done.artifacts] == [
        ("it broke", None),
        (None, 1),
    ]
    assert done.agreements == ()


def test_what_is_bound_to_a_size_gets_it(tmp_path, model):
    of = colours.checkpoint()
    done = run(
        model,
        colours.folders(tmp_path / "images", 1),
        checkpoint=of,
        reference=fake_format.FakeReference(of),
        image_size=(90, 80),
    )
    assert [item.image_size for item in done.artifacts] == [(90, 80), SIZE]
    assert [item.top_1 for item in done.artifacts] == [1, 1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image_size": (74, 80)}, "at least 75 x 75"),
        ({"batch_size": 0}, "expected 1 or more"),
    ],
)
def test_options_that_cannot_be(tmp_path, model, options, expected):
    with pytest.raises(EvaluationError, match=expected):
        run(model, colours.folders(tmp_path / "images", 1), **options)


def test_a_checkpoint_without_a_classifier(tmp_path):
    of = colours.checkpoint()
    of.num_classes = None
    with pytest.raises(EvaluationError, match=r"colours\.ckpt has no classifier"):
        run([], colours.folders(tmp_path / "images", 1), checkpoint=of)


def test_nothing_to_evaluate(tmp_path):
    with pytest.raises(EvaluationError, match="Nothing to evaluate"):
        run([], tmp_path)


# Interrupted


class Stop(Exception):
    """Ends a run as Ctrl-C does, where pytest should go on."""


def stop_at(count):
    def progress(event):
        if isinstance(event, Step) and event.done == count:
            raise Stop

    return progress


@pytest.fixture
def images(tmp_path):
    images = colours.folders(tmp_path / "images")
    colours.save(images, "3", "wrong.png", 1)
    (images / "0" / "corrupt.png").touch()
    colours.save(images, "99", "unknown.png", 1)
    return images


def comparable(done):
    facts = done.as_dict()
    facts.pop("seconds")
    return facts


def test_an_interrupted_evaluation_goes_on(tmp_path, model, images):
    blind = colours.artifact(tmp_path / "blind.fake", colours.blind_to_red())
    whole = run([model, blind], images)
    state = tmp_path / "new" / "state"
    for at in (4, 12):
        with pytest.raises(Stop):
            run(
                [model, blind],
                images,
                state=state,
                batch_size=4,
                progress=stop_at(at),
            )
    events = []
    done = run([model, blind], images, state=state, progress=events.append)
    assert comparable(done) == comparable(whole)
    assert Note("12 of 27 images were done before.") in events
    assert list(state.parent.iterdir()) == [state]
    events.clear()
    again = run([model, blind], images, state=state, progress=events.append)
    assert comparable(again) == comparable(whole)
    assert not [x for x in events if isinstance(x, Step) and x.name == "evaluate"]


KILLED = """
import os, signal, sys
import fake_format
from exporters.evaluation import evaluating, running
from exporters.progress import Step

running._SECONDS_BETWEEN_STATES = 0

def progress(event):
    if isinstance(event, Step) and event.done == 12:
        os.kill(os.getpid(), getattr(signal, sys.argv[4]))

evaluating.evaluate(sys.argv[1], sys.argv[2], state=sys.argv[3], batch_size=4,
                    formats=fake_format.TABLE, progress=progress)
"""


@pytest.mark.parametrize("kind", ["SIGINT", "SIGKILL"])
def test_a_killed_evaluation_goes_on(tmp_path, model, images, kind):
    state = tmp_path / "state"
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, model, images, state, kind],
        env={**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -getattr(signal, kind), done.stderr
    events = []
    resumed = run(model, images, state=state, progress=events.append)
    before = 12 if kind == "SIGINT" else 8  # What was being saved is done once more.
    assert Note(f"{before} of 27 images were done before.") in events
    assert comparable(resumed) == comparable(run(model, images))


def test_the_state_of_another_evaluation_is_refused(tmp_path, model, images):
    state = tmp_path / "state"
    run(model, images, state=state)
    before = state.read_bytes()
    other = colours.artifact(tmp_path / "other.fake", colours.blind_to_red())
    for artifacts, options in (
        ([other], {}),
        ([model, other], {}),
        ([model], {"label_offset": -1}),
    ):
        with pytest.raises(EvaluationError, match="of other images, labels or"):
            run(artifacts, images, state=state, **options)
    colours.save(images, "5", "more.png", 5)
    with pytest.raises(EvaluationError, match="of other images, labels or"):
        run(model, images, state=state)
    assert state.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"{}"])
def test_another_file_in_place_of_the_state(tmp_path, model, images, content):
    state = tmp_path / "state"
    state.write_bytes(content)
    with pytest.raises(EvaluationError, match="no state of an evaluation"):
        run(model, images, state=state)
    assert state.read_bytes() == content


# The published figures


@pytest.mark.parametrize("provenance", [Provenance.PUBLISHED, Provenance.UNVERIFIED])
@pytest.mark.parametrize("count", [2, 3])
def test_published_figures_are_for_all_images_alone(
    tmp_path, monkeypatch, provenance, count
):
    monkeypatch.setattr(evaluating, "_PUBLISHED_COUNT", 16)
    monkeypatch.setattr(evaluating, "_PUBLISHED_CLASSES", 8)
    of = colours.checkpoint()
    of.provenance = provenance
    path = colours.artifact(tmp_path / "model.fake", of)
    done = run(path, colours.folders(tmp_path / "images", count))
    assert done.is_published == (provenance is Provenance.PUBLISHED and count == 2)
    expected = {"top_1": 0.804, "top_5": 0.953} if done.is_published else None
    assert done.as_dict().get("published") == expected
