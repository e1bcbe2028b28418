"""The comparison of an artifact with its checkpoint, and what it must not let pass."""

import dataclasses
import json

import fake_format
import numpy as np
import pytest

from checkpoints.reader import Checkpoint
from exporters import parity
from exporters.artifact import ArtifactError
from exporters.parity import ParityImages

TOLERANCE = fake_format.FORMAT.tolerance.max_error
CHECKPOINT = fake_format.checkpoint()


@pytest.fixture(autouse=True)
def fake_network(monkeypatch):
    fake_format.install(monkeypatch)


@pytest.fixture
def artifact(tmp_path):
    """A classification artifact that is right."""
    path = tmp_path / "model.fake"
    inputs = fake_format.export_inputs(CHECKPOINT)
    fake_format.write(inputs, "fake", "classification", path)
    return fake_format.open(path)


def compare(artifact, checkpoint=CHECKPOINT):
    reference = fake_format.FakeReference(fake_format.FakeGraphs(), checkpoint)
    return parity.compare(artifact, reference, fake_format.IMAGES)


def with_outputs(artifact, change):
    """The artifact with `change` applied to the outputs that it should have."""
    return dataclasses.replace(
        artifact, run=lambda images: change(artifact.run(images))
    )


def with_weights(artifact, change):
    return dataclasses.replace(artifact, weights=lambda: change(artifact.weights()))


def changed(name, position, factor):
    """A function that multiplies one number of one weight."""

    def change(weights):
        value, allowed = weights[name]
        value = value.copy()
        value[position] *= factor
        return {**weights, name: (value, allowed)}

    return change


def test_an_equal_artifact_passes(artifact):
    report = compare(artifact)
    assert report.passed
    assert report.images == {"75 x 75": 8}
    assert report.main_output == "logits"
    assert report.main == parity.OutputParity(0, 0, pytest.approx(1), 1, 1, passed=True)
    assert report.weights == parity.WeightParity(count=2, wrong=())
    assert report.problems == ()


# Outputs


def test_an_error_within_the_tolerance_passes(artifact):
    peak = np.abs(compare_outputs(artifact)).max()

    def change(outputs):
        outputs["logits"][3, 2] += 0.9 * TOLERANCE * peak
        return outputs

    report = compare(with_outputs(artifact, change))
    assert report.passed
    assert report.main.relative_error == pytest.approx(0.9 * TOLERANCE, rel=0.01)
    assert report.main.max_error == pytest.approx(0.9 * TOLERANCE * peak, rel=0.01)


def compare_outputs(artifact):
    """The logits of the images that artifacts are compared on."""
    (batch,) = fake_format.IMAGES.batches(fake_format.IMAGE_SIZE)
    return artifact.run(batch)["logits"]


def test_a_single_error_above_the_tolerance_fails(artifact):
    peak = np.abs(compare_outputs(artifact)).max()

    def change(outputs):
        outputs["logits"][3, 2] += 1.1 * TOLERANCE * peak
        return outputs

    report = compare(with_outputs(artifact, change))
    assert not report.passed
    assert not report.main.passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_fail(artifact, value):
    def change(outputs):
        outputs["logits"][7, 7] = value
        return outputs

    assert not compare(with_outputs(artifact, change)).passed


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits[:, :7],
        lambda logits: logits[:4],
        lambda logits: logits[:, np.newaxis],
        lambda logits: logits.mean(axis=1, keepdims=True),
    ],
)
def test_outputs_of_another_shape_fail(artifact, change):
    report = compare(
        with_outputs(artifact, lambda outputs: {"logits": change(outputs["logits"])})
    )
    assert not report.passed


def test_another_direction_fails_however_small_the_error_is_beside_the_peak(artifact):
    """One image's output hides behind another's that is much larger."""
    weights = fake_format.variables()
    weights["layer/biases"][:] = 0
    checkpoint = Checkpoint(weights, path="memory")
    artifact = dataclasses.replace(
        artifact,
        checkpoint_identity=checkpoint.identity,
        weights=lambda: {name: (value, 0.0) for name, value in weights.items()},
    )
    batch = fake_format.IMAGES.batches(fake_format.IMAGE_SIZE)[0].copy()
    batch[0] *= 1e-6

    class Images:
        def batches(self, image_size):
            return [batch]

    def run(images, sign):
        logits = fake_format.outputs(weights, images)["logits"]
        logits[0] *= sign
        return {"logits": logits}

    reference = fake_format.FakeReference(fake_format.FakeGraphs(), checkpoint)
    for sign, passes in ((1, True), (-1, False)):
        tried = dataclasses.replace(artifact, run=lambda images, s=sign: run(images, s))
        report = parity.compare(tried, reference, Images())
        assert report.main.relative_error < TOLERANCE
        assert report.passed == passes
    assert report.main.cosine == pytest.approx(-1)


def test_every_output_counts(artifact):
    """Outputs may have a prefix that says how they were computed."""

    def change(outputs):
        logits = outputs["logits"]
        return {"logits": logits, "serving_default/logits": logits * 1.01}

    report = compare(with_outputs(artifact, change))
    assert report.outputs["logits"].passed
    assert not report.outputs["serving_default/logits"].passed
    assert not report.passed


def test_outputs_in_training_are_allowed_ten_times_the_error(artifact):
    def with_error(relative):
        def change(outputs):
            error = relative * np.abs(outputs["logits"]).max()
            return {**outputs, "train/logits": outputs["logits"] + np.float32(error)}

        return with_outputs(artifact, change)

    assert compare(with_error(9 * TOLERANCE)).passed
    assert not compare(with_error(11 * TOLERANCE)).passed


def test_an_output_that_the_network_does_not_have_is_a_problem(artifact):
    def change(outputs):
        return {**outputs, "serving_default/scores": outputs["logits"]}

    report = compare(with_outputs(artifact, change))
    assert not report.passed
    assert report.problems == ("output serving_default/scores: unexpected",)
    assert report.main.passed


def test_an_artifact_without_an_output_of_the_network(artifact):
    with pytest.raises(ArtifactError, match=r"no output of this fake .* Found: scores"):
        compare(with_outputs(artifact, lambda outputs: {"scores": outputs["logits"]}))
    with pytest.raises(ArtifactError, match="Found: none"):
        compare(with_outputs(artifact, lambda outputs: {}))


def test_figures_of_an_example_made_by_hand(artifact):
    """Two images of eight logits, compared with the ones below."""
    expected = np.array([[8, 7, 6, 5, 4, 3, 2, 1], [0, 0, 0, 0, 0, 0, 3, 4]], float)
    found = np.array([[8, 7, 6, 5, 3, 4, 2, 1], [0, 0, 0, 0, 0, 0, 4, 3]], float)

    class Reference:
        checkpoint = CHECKPOINT

        def outputs(self, batch, is_training):
            return {"logits": expected}

        def weights(self, task, is_folded):
            return CHECKPOINT

    tried = dataclasses.replace(artifact, run=lambda images: {"logits": found})
    figures = parity.compare(tried, Reference(), fake_format.IMAGES).main
    assert figures.max_error == 1
    assert figures.relative_error == 1 / 8
    assert figures.cosine == pytest.approx(24 / 25)  # The second: (12 + 12) / 5².
    assert figures.top_1 == 1 / 2
    # Of the first, {8, 7, 6, 5, 4} are classes 0 to 4, and the artifact's 0 to 3 and 5;
    # of the second, they are classes 6 and 7, and the first three in both.
    assert figures.top_5 == pytest.approx((4 / 5 + 1) / 2)


# Weights


@pytest.mark.parametrize(
    ("name", "position", "size"),
    [("layer/weights", (1, 4), 24), ("layer/biases", 4, 8)],
)
def test_one_percent_of_one_number_of_one_weight_fails(artifact, name, position, size):
    report = compare(with_weights(artifact, changed(name, position, 1.01)))
    assert not report.passed
    assert report.main.passed
    (line,) = report.weights.wrong
    difference = 0.01 * abs(CHECKPOINT[name][position])
    text, _, shown = line.rpartition(" ")
    assert text == f"{name}: 1 of {size} values differ, by up to"
    assert float(shown) == pytest.approx(difference, rel=0.01)


def test_a_weight_may_be_as_far_off_as_its_encoding_allows(artifact):
    def rounded(step):
        def change(weights):
            value, _ = weights["layer/weights"]
            quantized = np.rint(value / 0.125).astype(np.float32) * 0.125
            return {**weights, "layer/weights": (quantized, step / 2)}

        return with_weights(artifact, change)

    assert compare(rounded(0.125)).passed
    assert not compare(rounded(0.0625)).passed


def test_allowed_errors_may_differ_by_channel(artifact):
    allowed = np.zeros(8)
    allowed[-1] = 0.1

    def change(position):
        def change(weights):
            value = weights["layer/weights"][0].copy()
            value[0, position] += 0.05
            return {**weights, "layer/weights": (value, allowed)}

        return with_weights(artifact, change)

    assert compare(change(-1)).passed
    assert not compare(change(-2)).passed


def test_every_kind_of_wrong_weight_is_named(artifact):
    def missing(weights):
        return {"layer/weights": weights["layer/weights"]}

    def unexpected(weights):
        return {**weights, "layer/gamma": (np.ones(8), 0)}

    def transposed(weights):
        return {**weights, "layer/weights": (weights["layer/weights"][0].T, 0)}

    def not_a_number(weights):
        value = weights["layer/weights"][0].copy()
        value[1, 1] = np.nan
        return {**weights, "layer/weights": (value, np.inf)}

    for change, line in (
        (missing, "layer/biases: missing"),
        (unexpected, "layer/gamma: unexpected"),
        (transposed, "layer/weights: shape [8, 3], expected [3, 8]"),
        (not_a_number, "layer/weights: 1 of 24 values differ, by up to 0"),
    ):
        report = compare(with_weights(artifact, change))
        assert report.weights.wrong == (line,)
        assert not report.passed


# Identity and report


def test_an_artifact_of_another_checkpoint_fails(artifact):
    other = "0123456789abcdef" * 4
    report = compare(dataclasses.replace(artifact, checkpoint_identity=other))
    assert not report.passed
    assert report.problems == (
        f"made of the checkpoint 0123456789ab..., compared with "
        f"{CHECKPOINT.identity[:12]}...",
    )


def test_a_stand_in_or_not(artifact):
    report = compare(dataclasses.replace(artifact, is_stand_in=True))
    assert not report.passed
    assert report.problems == ("says that it is a stand-in, unlike the checkpoint",)


def test_an_artifact_that_does_not_say_its_checkpoint_is_compared_all_the_same(
    artifact,
):
    anonymous = dataclasses.replace(artifact, checkpoint_identity=None)
    assert compare(anonymous).passed
    assert not compare(with_weights(anonymous, changed("layer/biases", 0, 1.01))).passed


def test_a_report_is_json(artifact):
    def change(outputs):
        return {"logits": outputs["logits"][:, :7]}

    for tried, passed in ((artifact, True), (with_outputs(artifact, change), False)):
        report = compare(tried)
        text = json.dumps(report.as_dict(), allow_nan=False)
        read = json.loads(text)
        assert read["passed"] == read["outputs"]["logits"]["passed"] == passed
        assert read["weights"] == {"count": 2, "wrong": []}
    assert read["outputs"]["logits"]["max_error"] is None


# The images


def test_images_of_the_size_an_artifact_takes():
    (batch,) = ParityImages().batches((75, 80))
    assert batch.shape == (8, 75, 80, 3)


def test_any_size_means_two_sizes():
    square, oblong = ParityImages().batches(None)
    assert square.shape == (8, 299, 299, 3)
    assert oblong.shape == (2, 224, 320, 3)


def test_a_batch_is_made_once():
    images = ParityImages()
    assert images.batches((75, 75))[0] is images.batches((75, 75))[0]
