"""The comparison of an artifact with its checkpoint, and what it must not let pass."""

import dataclasses
import json

import fake_format
import numpy as np
import pytest

from checkpoints.reader import Checkpoint
from exporters import parity
from exporters.artifact import Output, StoredWeight
from exporters.build import Build
from exporters.formats import FORMATS
from exporters.network.tasks import CLASSIFICATION
from exporters.parity import OutputParity, ParityImages, ParityReport
from exporters.weight_parity import WeightParity

TOLERANCE = fake_format.TOLERANCE.max_error
CHECKPOINT = fake_format.checkpoint()


@pytest.fixture
def artifact(tmp_path):
    """A classification artifact that is right."""
    path = tmp_path / "model.fake"
    build = Build(CHECKPOINT, fake_format.OPTIONS)
    record = fake_format.record()
    fake_format.write(build, "a variant", CLASSIFICATION, record, path)
    return fake_format.open(path)


def compare(artifact, checkpoint=CHECKPOINT, images=fake_format.IMAGES, reference=None):
    reference = reference or fake_format.FakeReference(checkpoint)
    return parity.compare(artifact, reference, images, fake_format.TOLERANCE)


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
        value = weights[name].values.copy()
        value[position] *= factor
        return {**weights, name: StoredWeight(value)}

    return change


def test_an_equal_artifact_passes(artifact):
    report = compare(artifact)
    assert report.passed
    assert report.images == {"75 x 75": 8}
    assert report.main_output == "logits"
    assert report.main == OutputParity(
        0, 0, pytest.approx(1), 1, 1, fake_format.TOLERANCE
    )
    assert report.weights == WeightParity(count=2, wrong=())
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
        record=dataclasses.replace(
            artifact.record, checkpoint_identity=checkpoint.identity
        ),
        weights=lambda: {name: StoredWeight(value) for name, value in weights.items()},
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

    for sign, passes in ((1, True), (-1, False)):
        tried = dataclasses.replace(artifact, run=lambda images, s=sign: run(images, s))
        report = compare(tried, checkpoint, Images())
        assert report.main.relative_error < TOLERANCE
        assert report.passed == passes
    assert report.main.cosine == pytest.approx(-1)


def with_another_output(artifact, name, output, change):
    """The artifact with one more output, made of the logits."""

    def run(images):
        return {**artifact.run(images), **(train(images) if not in_training else {})}

    def train(images):
        return {name: change(artifact.run(images)["logits"])}

    in_training = output.is_training
    outputs = {**artifact.outputs, name: output}
    return dataclasses.replace(
        artifact, run=run, train=train if in_training else None, outputs=outputs
    )


def test_every_output_counts(artifact):
    signature = Output("logits")
    report = compare(
        with_another_output(
            artifact, "serving", signature, lambda logits: logits * 1.01
        )
    )
    assert report.outputs["logits"].passed
    assert not report.outputs["serving"].passed
    assert not report.passed


def test_outputs_in_training_are_allowed_ten_times_the_error(artifact):
    def with_error(relative):
        def change(logits):
            return logits + np.float32(relative * np.abs(logits).max())

        output = Output("logits", is_training=True)
        return with_another_output(artifact, "trained", output, change)

    assert compare(with_error(9 * TOLERANCE)).passed
    assert not compare(with_error(11 * TOLERANCE)).passed


def test_training_that_is_not_there_is_missing(artifact):
    output = Output("logits", is_training=True)
    whole = with_another_output(artifact, "trained", output, lambda logits: logits)
    assert compare(whole).passed
    report = compare(dataclasses.replace(whole, train=None))
    assert report.problems == ("output trained: missing",)


def counted(artifact, told, computed):
    """The artifact, with what its logits are said to be computed of."""

    def run(images):
        told.append(len(images))
        return artifact.run(images)

    return dataclasses.replace(
        artifact, run=run, computations=lambda: {"logits": computed}
    )


def test_what_is_computed_as_another_was_is_compared_once(artifact):
    told = []
    reference = fake_format.FakeReference(CHECKPOINT)
    first = compare(counted(artifact, told, b"one"), reference=reference)
    assert told == [8]
    # The next is run on one image, to see that it runs.
    again = compare(counted(artifact, told, b"one"), reference=reference)
    assert told == [8, 1]
    assert again == first
    compare(counted(artifact, told, b"two"), reference=reference)
    assert told == [8, 1, 8]
    # Another reference, or other images, are another matter.
    compare(counted(artifact, told, b"one"))
    assert told == [8, 1, 8, 8]

    class Others(ParityImages):
        def batches(self, image_size):
            return [1 - batch for batch in super().batches(image_size)]

    compare(counted(artifact, told, b"one"), images=Others(), reference=reference)
    assert told == [8, 1, 8, 8, 8]


def test_an_output_that_is_new_has_all_run(artifact):
    told = []
    reference = fake_format.FakeReference(CHECKPOINT)
    compare(counted(artifact, told, b"one"), reference=reference)
    more = with_another_output(
        counted(artifact, told, b"one"), "more", Output("logits"), lambda x: x * 1.01
    )
    told.clear()
    assert not compare(more, reference=reference).outputs["more"].passed
    assert sum(told) > 1


def test_one_that_does_not_run_as_it_says_is_found(artifact):
    told = []
    reference = fake_format.FakeReference(CHECKPOINT)
    assert compare(counted(artifact, told, b"one"), reference=reference).passed
    wrong = dataclasses.replace(
        artifact, run=lambda images: {"logits": -artifact.run(images)["logits"]}
    )
    report = compare(counted(wrong, told, b"one"), reference=reference)
    assert not report.passed
    (problem,) = report.problems
    assert problem.startswith("output logits of one image: error 2 of ")


@pytest.mark.parametrize("is_known", [False, True])
def test_outputs_of_fewer_images_than_were_given(artifact, is_known):
    told = []
    reference = fake_format.FakeReference(CHECKPOINT)
    if is_known:
        compare(counted(artifact, told, b"one"), reference=reference)
    fewer = with_outputs(artifact, lambda found: {"logits": found["logits"][1:]})
    assert not compare(counted(fewer, told, b"one"), reference=reference).passed


def test_where_an_output_is_unexpected_all_is_run(artifact):
    told = []
    reference = fake_format.FakeReference(CHECKPOINT)
    assert compare(counted(artifact, told, b"one"), reference=reference).passed
    computed = {"logits": b"one", "scores": b"another"}
    more = dataclasses.replace(
        with_outputs(artifact, lambda found: {**found, "scores": found["logits"]}),
        computations=lambda: computed,
    )
    report = compare(more, reference=reference)
    assert report.problems == ("output scores: unexpected",)
    # So it is where it is not said.
    del computed["scores"]
    report = compare(more, reference=reference)
    assert report.problems == ("output scores: unexpected",)


def test_a_failure_is_remembered_too(artifact):
    told = []
    reference = fake_format.FakeReference(CHECKPOINT)
    wrong = dataclasses.replace(
        artifact, run=lambda images: {"logits": artifact.run(images)["logits"][:, :1]}
    )
    reports = [
        compare(counted(wrong, told, b"one"), reference=reference).outputs["logits"]
        for _ in range(2)
    ]
    assert reports[0] == reports[1]
    assert not reports[0].passed


def test_an_output_that_there_should_not_be_is_a_problem(artifact):
    def change(outputs):
        return {**outputs, "scores": outputs["logits"]}

    report = compare(with_outputs(artifact, change))
    assert not report.passed
    assert report.problems == ("output scores: unexpected",)
    assert report.main.passed


def test_an_output_that_there_should_be_is_missed(artifact):
    more = dataclasses.replace(
        artifact, outputs={**artifact.outputs, "endpoint": Output("logits")}
    )
    report = compare(more)
    assert not report.passed
    assert report.problems == ("output endpoint: missing",)
    assert report.main.passed


def test_the_tasks_own_output_is_missed(artifact):
    report = compare(with_outputs(artifact, lambda outputs: {}))
    assert not report.passed
    assert report.main is None
    assert report.problems == ("output logits: missing",)


def test_what_else_an_artifact_finds_wrong_is_a_problem(artifact):
    report = compare(dataclasses.replace(artifact, check=lambda: ["momentum is 0.5"]))
    assert not report.passed
    assert report.problems == ("momentum is 0.5",)


def test_figures_of_an_example_made_by_hand(artifact):
    """Two images of eight logits, compared with the ones below."""
    expected = np.array([[8, 7, 6, 5, 4, 3, 2, 1], [0, 0, 0, 0, 0, 0, 3, 4]], float)
    found = np.array([[8, 7, 6, 5, 3, 4, 2, 1], [0, 0, 0, 0, 0, 0, 4, 3]], float)

    class Reference(fake_format.FakeReference):
        def outputs(self, batch, values, is_training):
            return {"logits": expected}

    tried = dataclasses.replace(artifact, run=lambda images: {"logits": found})
    figures = parity.compare(
        tried, Reference(CHECKPOINT), fake_format.IMAGES, fake_format.TOLERANCE
    ).main
    assert figures.max_error == 1
    assert figures.relative_error == 1 / 8
    assert figures.cosine == pytest.approx(24 / 25)  # The second: (12 + 12) / 5².
    assert figures.top_1 == 1 / 2
    # Of the first, {8, 7, 6, 5, 4} are classes 0 to 4, and the artifact's 0 to 3 and 5;
    # of the second, they are classes 6 and 7, and the first three in both.
    assert figures.top_5 == pytest.approx((4 / 5 + 1) / 2)


def probabilities_of(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def compare_probabilities(artifact, expected, found, step=0.0):
    """Figures of an artifact whose softmax gives `found`, of a format in integers."""

    class Reference(fake_format.FakeReference):
        def outputs(self, batch, values, is_training):
            return {"probabilities": expected}

    tried = dataclasses.replace(
        artifact,
        run=lambda images: {"probabilities": found},
        outputs={"probabilities": Output("probabilities", step=step)},
        image_size=(299, 299),
    )
    tolerance = FORMATS["tflite-int8"].tolerance
    return parity.compare(
        tried, Reference(CHECKPOINT), fake_format.IMAGES, tolerance
    ).main


@pytest.fixture
def logits():
    """Of 1001 classes, as small as those of a stand-in."""
    return np.random.default_rng(0).normal(0.5, 0.5, (8, 1001))


def test_probabilities_are_compared_as_logits(artifact, logits):
    noise = np.random.default_rng(1).normal(0, 0.1, logits.shape)
    expected, found = (probabilities_of(values) for values in (logits, logits + noise))
    figures = compare_probabilities(artifact, expected, found)
    noise -= noise.mean(axis=1, keepdims=True)
    assert figures.max_error == pytest.approx(np.abs(noise).max())
    assert figures.passed


def test_probabilities_that_say_nothing_fail(artifact, logits):
    """Though their cosine with those of a stand-in is 0.9."""
    expected = probabilities_of(logits)
    for found in (np.full_like(expected, 1 / 1001), np.zeros_like(expected)):
        figures = compare_probabilities(artifact, expected, found)
        assert not figures.passed
        assert figures.cosine == pytest.approx(0, abs=1e-6)


def test_probabilities_too_small_for_float16_are_equal(artifact):
    sure = probabilities_of(np.linspace(0, 40, 8 * 1001).reshape(8, 1001))
    figures = compare_probabilities(artifact, sure, sure.astype(np.float16))
    assert figures.passed
    assert figures.relative_error < 0.02


def in_steps(probabilities):
    return np.rint(probabilities * 256) / 256


def test_what_steps_cannot_say_is_not_counted(artifact, logits):
    expected = probabilities_of(logits)
    assert np.rint(expected * 256).max() == 1
    figures = compare_probabilities(artifact, expected, in_steps(expected), 1 / 256)
    assert figures.relative_error == 0
    assert figures.passed
    assert not compare_probabilities(artifact, expected, in_steps(expected)).passed


def test_what_steps_can_say_is_counted(artifact, logits):
    expected = probabilities_of(logits)
    wrong = in_steps(probabilities_of(2 * logits))
    for found in (np.zeros_like(expected), expected + 1 / 256, wrong):
        assert not compare_probabilities(artifact, expected, found, 1 / 256).passed


def test_ranks_are_those_of_the_steps(artifact, logits):
    expected = probabilities_of(logits)
    nothing = np.zeros_like(expected)
    assert compare_probabilities(artifact, expected, nothing, 1 / 256).top_1 == 0


@pytest.mark.parametrize("name", ["onnx-int8", "tflite-dynamic-int8", "tflite-int8"])
def test_the_noise_of_integers_is_taken_away_by_averaging(name):
    """Where there is little to average, more is let pass, and nowhere else."""
    tolerance = FORMATS[name].tolerance

    def asked(value, *image_size):
        return tolerance.of(Output(value), image_size or None).min_cosine

    of_logits = "logits", "Logits", "probabilities", "Predictions"
    for value in ("feature_vector", "global_pool", *of_logits):
        large, small = asked(value), asked(value, 75, 75)
        assert large == asked(value, 299, 299) == asked(value, 600, 400)
        assert small == asked(value, 224, 224) == asked(value, 224, 320)
        assert 0.75 < small < large
        assert large > (0.9 if value in of_logits else 0.94)
    assert 0.75 < asked("Conv2d_7b_1x1") == asked("Conv2d_7b_1x1", 75, 75) < 0.9
    for value in ("Conv2d_1a_3x3", "Mixed_5b", "Mixed_6a", "PreAuxLogits", "Mixed_7a"):
        assert asked(value) == asked(value, 75, 75) == 0.95


@pytest.mark.parametrize("name", ["v3", "onnx-float32", "onnx-float16"])
def test_other_formats_have_one_tolerance(name):
    tolerance = FORMATS[name].tolerance
    for value in ("logits", "Conv2d_7b_1x1"):
        for size in (None, (299, 299), (75, 75)):
            assert tolerance.of(Output(value), size) == tolerance


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


def test_every_kind_of_wrong_weight_is_named(artifact):
    def missing(weights):
        return {"layer/weights": weights["layer/weights"]}

    def unexpected(weights):
        return {**weights, "layer/gamma": StoredWeight(np.ones(8))}

    def transposed(weights):
        value = weights["layer/weights"].values
        return {**weights, "layer/weights": StoredWeight(value.T)}

    def not_a_number(weights):
        value = weights["layer/weights"].values.copy()
        value[1, 1] = np.nan
        return {**weights, "layer/weights": StoredWeight(value)}

    def in_double(weights):
        value = weights["layer/weights"].values
        return {**weights, "layer/weights": StoredWeight(value.astype(np.float64))}

    for change, line in (
        (missing, "layer/biases: missing"),
        (unexpected, "layer/gamma: unexpected"),
        (transposed, "layer/weights: shape [8, 3], expected [3, 8]"),
        (not_a_number, "layer/weights: 1 of 24 values differ, by up to nan"),
        (in_double, "layer/weights: stored as float64, expected float32"),
    ):
        report = compare(with_weights(artifact, change))
        assert report.weights.wrong == (line,)
        assert not report.passed


# Identity and report


def test_an_artifact_of_another_checkpoint_fails(artifact):
    other = "0123456789abcdef" * 4
    record = dataclasses.replace(artifact.record, checkpoint_identity=other)
    report = compare(dataclasses.replace(artifact, record=record))
    assert not report.passed
    assert report.problems == (
        f"made of the checkpoint 0123456789ab..., compared with "
        f"{CHECKPOINT.identity[:12]}...",
    )


def test_a_stand_in_or_not(artifact):
    record = dataclasses.replace(artifact.record, stand_in=True)
    report = compare(dataclasses.replace(artifact, record=record))
    assert not report.passed
    assert report.problems == ("says that it is a stand-in, unlike the checkpoint",)


def test_an_artifact_that_does_not_say_its_checkpoint_is_compared_all_the_same(
    artifact,
):
    anonymous = dataclasses.replace(artifact, record=None)
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


def test_large_images_come_one_by_one():
    batches = ParityImages().batches((600, 600))
    assert [batch.shape for batch in batches] == [(2, 600, 600, 3)] * 4


def test_figures_do_not_depend_on_how_images_are_parted(artifact):
    """The largest magnitude, and so the relative error, is that of all images."""
    (batch,) = fake_format.IMAGES.batches(fake_format.IMAGE_SIZE)

    class OneByOne:
        def batches(self, image_size):
            return [batch[i : i + 1] for i in range(len(batch))]

    def change(outputs):
        return {"logits": outputs["logits"] + 1e-5}

    changed_artifact = with_outputs(artifact, change)
    whole = compare(changed_artifact)
    parts = compare(changed_artifact, images=OneByOne())
    assert parts.images == whole.images == {"75 x 75": 8}
    for name, value in dataclasses.asdict(whole.main).items():
        assert getattr(parts.main, name) == pytest.approx(value, rel=1e-4) or (
            name == "tolerance"
        )


def test_a_batch_is_made_once():
    images = ParityImages()
    assert images.batches((75, 75))[0] is images.batches((75, 75))[0]


# Saying what failed


def test_failures_are_told_in_a_few_lines():
    def figures(error, cosine):
        tolerance = parity.Tolerance(0.01, 0.9)
        return OutputParity(0.5, error, cosine, None, None, tolerance)

    report = ParityReport(
        format="v4",
        task="feature_vector",
        images={"299 x 299": 8},
        main_output="feature_vector",
        outputs={
            "feature_vector": figures(0.0, 1.0),
            "train/feature_vector": figures(0.125, 0.75),
        },
        weights=WeightParity(9, tuple(f"{name}: missing" for name in "abcde")),
        problems=("made of another checkpoint",),
    )
    assert report.failures() == [
        "made of another checkpoint",
        "output train/feature_vector: error 0.125 of the largest magnitude "
        "(at most 0.01), cosine 0.75 (at least 0.9)",
        "weight a: missing",
        "weight b: missing",
        "weight c: missing",
        "and 2 more weights of 9",
    ]
    many = dataclasses.replace(report, problems=tuple("abcdef"))
    assert many.failures()[:4] == ["a", "b", "c", "and 3 more problems"]
    right = dataclasses.replace(
        report, outputs={}, weights=WeightParity(9, ()), problems=()
    )
    assert right.failures() == []


def test_keras_may_differ_more_in_training_alone():
    exact, loose = FORMATS["v4"].tolerance, FORMATS["keras"].tolerance
    main, trained = Output("logits"), Output("feature_vector", is_training=True)
    assert loose.of(main, None) == exact.of(main, None)
    assert loose.of(trained, None).max_error == pytest.approx(2e-3)
    assert exact.of(trained, None).max_error == pytest.approx(2e-4)
