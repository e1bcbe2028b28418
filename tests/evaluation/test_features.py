"""Features: written in parts, gone on with, and never mixed."""

import json
import queue
from concurrent import futures

import colours
import fake_format
import numpy as np
import pytest
import records as tfrecords

from checkpoints import scratch
from exporters.artifact import OpenedArtifact, Output
from exporters.errors import ArtifactError, EvaluationError, MissingLibraryError
from exporters.evaluation import models, vectors
from exporters.evaluation.features import features
from exporters.network.tasks import CLASSIFICATION
from exporters.progress import Note, Step

KINDS = ["npz", "parquet"]


@pytest.fixture
def model(tmp_path):
    return colours.artifact(tmp_path / "model.fake", task="feature_vector")


@pytest.fixture
def images(tmp_path):
    """Ten images; their features are known."""
    images = colours.folders(tmp_path / "images", 1)
    colours.save(tmp_path, "images", "loose.png", 3)
    colours.save(images, "deep/er", "other.png", 5)
    return images


NUMBERS = [*range(8), 5, 3]


def expected():
    return COLOURS[NUMBERS] @ colours.variables()["layer/weights"]


COLOURS = colours.COLOURS


def run(model, images, output, **options):
    return features(model, images, output, **{"formats": fake_format.TABLE} | options)


@pytest.mark.parametrize("kind", KINDS)
def test_features(tmp_path, model, images, kind):
    (images / "corrupt.png").touch()
    (images / "notes.txt").write_text("no image")
    done = run(model, images, tmp_path / "new" / "features", kind=kind, part_size=4)
    assert (done.written, done.before) == (10, 0)
    assert list(done.unreadable) == ["corrupt.png"]
    assert done.problems == {"notes.txt": "not called like an image"}
    assert sorted(path.name for path in done.output.iterdir()) == [
        f"part-0000{number}.{kind}" for number in range(3)
    ]
    found = vectors.read(done.output)
    assert found.names == [
        *(f"{number}/0.png" for number in range(8)),
        "deep/er/other.png",
        "loose.png",
    ]
    assert found.values.dtype == np.float32
    np.testing.assert_allclose(found.values, expected(), atol=1e-6)
    assert found.source == done.source
    assert found.source.pop("digest")
    assert found.source == {
        "format": "fake",
        "task": "feature_vector",
        "value": "feature_vector",
        "image_size": [75, 75],
        "checkpoint_identity": colours.checkpoint().identity,
        "provenance": "unverified",
        "stand_in": False,
    }
    assert json.dumps(done.as_dict())


def test_parquet_as_others_read_it(tmp_path, model, images):
    import pyarrow.parquet

    run(model, images, tmp_path / "features", kind="parquet", part_size=6)
    table = pyarrow.parquet.read_table(tmp_path / "features")
    assert table.column("name").to_pylist()[8:] == ["deep/er/other.png", "loose.png"]
    np.testing.assert_allclose(
        table.column("vector").to_pylist(), expected(), atol=1e-6
    )
    facts = json.loads(table.schema.metadata[b"irv2"])
    assert facts["checkpoint_identity"] == colours.checkpoint().identity


def test_features_of_records(tmp_path, model):
    contents = [tfrecords.tfds(colours.encoded(n), 0, f"{n}.png") for n in range(3)]
    path = tfrecords.write(tmp_path / "x.tfrecord", contents)
    run(model, path, tmp_path / "features")
    found = vectors.read(tmp_path / "features")
    assert found.names == ["0.png", "1.png", "2.png"]
    np.testing.assert_allclose(found.values, expected()[:3], atol=1e-6)


def test_features_of_the_checkpoint_and_logits_of_a_classifier(tmp_path, model, images):
    of = colours.checkpoint()
    done = features(
        None,
        images,
        tmp_path / "a",
        checkpoint=of,
        reference=fake_format.FakeReference(of),
        image_size=(75, 75),
    )
    assert done.source["format"] == "TF-Slim"
    np.testing.assert_allclose(vectors.read(done.output).values, expected(), atol=1e-6)
    classifier = colours.artifact(tmp_path / "classifier.fake")
    done = run(classifier, images, tmp_path / "b")
    assert done.source["value"] == "logits"
    biases = colours.variables()["layer/biases"]
    np.testing.assert_allclose(
        vectors.read(done.output).values, expected() + biases, atol=1e-6
    )


def test_an_endpoint_is_averaged(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    artifact = OpenedArtifact(
        "fake",
        CLASSIFICATION,
        None,
        None,
        {
            "logits": Output("logits"),
            "train/x": Output("Mixed_6a", is_training=True),
            "x": Output("Mixed_6a"),
        },
        run=lambda images: {"x": values, "logits": values[:, 0, 0]},
        weights=dict,
    )
    run = models._pooled(tmp_path, artifact, "Mixed_6a")
    np.testing.assert_allclose(run(np.zeros(1)), values.mean((1, 2)))
    with pytest.raises(
        ArtifactError, match=r"no endpoint Mixed_7a; it has: Mixed_6a, l"
    ):
        models._pooled(tmp_path, artifact, "Mixed_7a")


def test_an_endpoint_that_is_not_there(tmp_path, model, images):
    with pytest.raises(ArtifactError, match=r"model\.fake has no endpoint Mixed_7a"):
        run(model, images, tmp_path / "features", endpoint="Mixed_7a")
    of = colours.checkpoint()
    with pytest.raises(ArtifactError, match=r"colours\.ckpt has no endpoint Mixed_9z"):
        features(None, images, tmp_path / "f", checkpoint=of, endpoint="Mixed_9z")
    of.num_classes = None
    with pytest.raises(
        ArtifactError, match="has no endpoint Logits; it has: Conv2d_1a"
    ):
        features(None, images, tmp_path / "f", checkpoint=of, endpoint="Logits")
    assert not (tmp_path / "features").exists()


# Going on


@pytest.mark.parametrize("kind", KINDS)
def test_new_images_are_added(tmp_path, model, images, kind):
    output = tmp_path / "features"
    run(model, images, output, kind=kind)
    before = (output / f"part-00000.{kind}").read_bytes()
    colours.save(images, "3", "new.png", 6)
    events = []
    done = run(model, images, output, kind=kind, progress=events.append)
    assert (done.written, done.before) == (1, 10)
    assert Note("The vectors of 10 images are there already.") in events
    assert (output / f"part-00000.{kind}").read_bytes() == before
    found = vectors.read(output)
    assert found.names[-1] == "3/new.png" and len(found.names) == 11
    done = run(model, images, output, kind=kind)
    assert (done.written, done.before) == (0, 11)
    assert len(list(output.iterdir())) == 2


@pytest.mark.parametrize(("error", "kept"), [(KeyboardInterrupt, 6), (RuntimeError, 4)])
def test_an_interrupted_run_goes_on(tmp_path, model, images, error, kept):
    def progress(event):
        if isinstance(event, Step) and event.done == 6:
            raise error

    output = tmp_path / "features"
    options = {"part_size": 4, "batch_size": 2}
    with pytest.raises(error):
        run(model, images, output, progress=progress, **options)
    assert len(vectors.read(output).names) == kept
    done = run(model, images, output, **options)
    assert (done.before, done.written) == (kept, 10 - kept)
    found = vectors.read(output)
    np.testing.assert_allclose(found.values, expected(), atol=1e-6)


def test_what_a_killed_run_left_goes_even_if_nothing_is_to_do(tmp_path, model, images):
    run(model, images, tmp_path / "out")
    left = tmp_path / "out" / ".irv2-abc"
    left.mkdir()
    (left / ".owner").touch()
    run(model, images, tmp_path / "out")
    assert not left.exists()


def test_two_runs_into_one_directory_write_no_vector_twice(tmp_path, model, images):
    output, told = tmp_path / "out", queue.Queue()
    output.mkdir()
    with futures.ThreadPoolExecutor() as pool:
        with scratch.locked(output):
            waiting = pool.submit(run, model, images, output, progress=told.put)
            while told.get(timeout=30) != Step(
                f"wait for the irv2 at work in {output}"
            ):
                pass
            there = vectors.Vectors(["other"], np.zeros((1, 3), np.float32), {})
            vectors.write_part(output, "npz", there)
        with pytest.raises(EvaluationError, match="of another artifact"):
            waiting.result(timeout=30)  # It looks when it is its turn.


def test_vectors_of_another_artifact_are_left_alone(tmp_path, model, images):
    output = tmp_path / "features"
    run(model, images, output)
    before = (output / "part-00000.npz").read_bytes()
    other = colours.artifact(
        tmp_path / "other.fake", colours.blind_to_red(), "feature_vector"
    )
    with pytest.raises(EvaluationError, match=r"another artifact: checkpoint_identity"):
        run(other, images, output)
    classifier = colours.artifact(tmp_path / "classifier.fake")
    with pytest.raises(
        EvaluationError, match="value is 'feature_vector', not 'logits'"
    ):
        run(classifier, images, output)
    assert [path.name for path in output.iterdir()] == ["part-00000.npz"]
    assert (output / "part-00000.npz").read_bytes() == before


def test_the_same_artifact_by_another_name(tmp_path, model, images):
    run(model, images, tmp_path / "features")
    done = run(model.rename(tmp_path / "b.fake"), images, tmp_path / "features")
    assert (done.before, done.written) == (10, 0)


def test_parts_of_two_artifacts_are_refused(tmp_path, model, images):
    other = colours.artifact(tmp_path / "classifier.fake")
    run(model, images, tmp_path / "a")
    run(other, images, tmp_path / "b")
    (tmp_path / "b" / "part-00000.npz").rename(tmp_path / "a" / "part-00001.npz")
    with pytest.raises(EvaluationError, match=r"part-00001\.npz is not of the same"):
        vectors.read(tmp_path / "a")


def test_an_image_that_is_there_twice(tmp_path, model, images):
    run(model, images, tmp_path / "a")
    part = tmp_path / "a" / "part-00000.npz"
    (tmp_path / "a" / "part-00001.npz").write_bytes(part.read_bytes())
    with pytest.raises(EvaluationError, match=r"has the image 0/0\.png twice"):
        vectors.read(tmp_path / "a")


# What cannot be used


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0, 10, 200, -10])
def test_a_damaged_part_is_named(tmp_path, model, images, kind, kept):
    run(model, images, tmp_path / "a", kind=kind)
    part = tmp_path / "a" / f"part-00000.{kind}"
    part.write_bytes(part.read_bytes()[:kept])
    with pytest.raises(EvaluationError, match=rf"part-00000\.{kind} is no file of"):
        run(model, images, tmp_path / "a")


def test_a_part_compressed_in_no_known_way(tmp_path, model, images):
    run(model, images, tmp_path / "f")
    (part,) = (tmp_path / "f").iterdir()
    content = bytearray(part.read_bytes())
    entry = content.index(b"PK\x01\x02")  # The first in the list of members.
    for place in (8, entry + 10):  # Of the method, in both of its headers.
        content[place] = 77
    part.write_bytes(content)
    with pytest.raises(EvaluationError, match=part.name):
        vectors.read(tmp_path / "f")


def test_other_npz_and_parquet_files(tmp_path):
    import pyarrow
    import pyarrow.parquet

    np.savez(tmp_path / "part-00000.npz", x=np.zeros(3))
    table = pyarrow.table({"x": [1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "part-00001.parquet")
    for part in tmp_path.iterdir():
        with pytest.raises(EvaluationError, match=r"is no file of `irv2 features`"):
            vectors.read(part)


def test_no_vectors(tmp_path):
    with pytest.raises(EvaluationError, match="nowhere does not exist"):
        vectors.read(tmp_path / "nowhere")
    with pytest.raises(EvaluationError, match="holds no vectors"):
        vectors.read(tmp_path)


def test_a_file_in_place_of_the_directory(tmp_path, model, images):
    (tmp_path / "file").write_text("text")
    with pytest.raises(EvaluationError, match="file is a file; expected a directory"):
        run(model, images, tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"part_size": 0}, "part size 0: expected 1 or more"),
        ({"batch_size": 0}, "batch size 0: expected 1 or more"),
        ({"checkpoint": "x.ckpt"}, "either an artifact or a checkpoint"),
    ],
)
def test_options_that_cannot_be(tmp_path, model, images, options, expected):
    with pytest.raises(EvaluationError, match=expected):
        run(model, images, tmp_path / "features", **options)


def test_parquet_without_its_library(tmp_path, model, images, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'irv2\[features\]'"):
        run(model, images, tmp_path / "features", kind="parquet")
    assert not (tmp_path / "features").exists()
