"""Error through the depth: of the artifact itself, cut behind blocks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small_build
from small_networks import BLOCK

from exporters import images
from exporters.artifact import OpenedArtifact, Output
from exporters.build import ExportOptions
from exporters.formats import FORMATS, open_artifact
from exporters.network.tasks import TASKS
from exporters.reporting import depth

CUT = [row.name for row in small_build.WRITTEN if "tfjs" not in row.name]
INTEGERS = ("onnx-int8", "tflite-int8")
CHECKPOINT = small_build.checkpoint()
BATCH = np.random.default_rng(3).random((3, *small_build.IMAGE_SIZE, 3), np.float32)
"""Noise, as the block is calibrated on."""


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Opens an artifact of the block, of a format and a task."""
    small_build.install(monkeypatch)

    def make(name, task="classification", **options):
        build = small_build.build(
            CHECKPOINT, dataclasses.replace(small_build.OPTIONS, **options)
        )
        row = FORMATS[name]
        path = tmp_path / f"{name}{row.container.suffix}"
        small_build.write(build, row, TASKS[task], path)
        return open_artifact(path)[0]

    return make


def test_the_network_falls_apart_where_one_tensor_goes_on():
    assert BLOCK.cuts == (
        "first/Relu",
        "sum/Relu",
        "head/mean",
        "head/features",
        "head/logits",
        "head/probabilities",
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", CUT)
def test_what_is_inside_is_the_artifacts_own(opened, name, task):
    artifact = opened(name, task)
    sections = artifact.sections(BLOCK.cuts)
    found = sections.through(BATCH)
    assert sections.layers[0] == "first/Relu"
    last = "head/logits" if task == "classification" else "head/features"
    assert sections.layers[-1] == last
    error = 1e-2 if name == "onnx-float16" else 0  # Where fewer roundings are fused.
    np.testing.assert_allclose(found[last], artifact.predict(BATCH), rtol=0, atol=error)
    shapes = BLOCK.shapes(small_build.IMAGE_SIZE)
    for layer in sections.layers:
        assert found[layer].shape == (len(BATCH), *shapes[layer])
        assert found[layer].dtype == np.float32


@pytest.mark.parametrize(
    "options", [{"nchw": True}, {"image_size": None}], ids=["nchw", "any size"]
)
def test_options_of_onnx(opened, options):
    artifact = opened("onnx-float32", **options)
    sections = artifact.sections(BLOCK.cuts)
    expected = small_build.BlockReference(CHECKPOINT).layers(BATCH, sections.layers)
    for found in (sections.through(BATCH), sections.apart(BATCH, expected)):
        for layer in sections.layers:
            np.testing.assert_allclose(found[layer], expected[layer], atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"integer_type": "uint8"}, {"signed_input": True}, {"softmax": True}]
)
def test_options_of_tflite(opened, options):
    artifact = opened("tflite-int8", **options)
    sections = artifact.sections(BLOCK.cuts)
    last = sections.layers[-1]
    assert (last == "head/probabilities") is ("softmax" in options)
    found = sections.through(BATCH)[last]
    np.testing.assert_array_equal(found, artifact.predict(BATCH))


def own_errors(measured):
    return {point.title: point.own.error for point in measured.points}


@pytest.mark.parametrize("kept", [["first"], ["left", "right", "joined", "up", "sum"]])
@pytest.mark.parametrize("name", INTEGERS)
def test_blocks_that_stay_in_float(opened, name, kept):
    reference = small_build.BlockReference(CHECKPOINT)
    options = {"full_integer": name == "tflite-int8"}
    rounded = own_errors(depth.measure(opened(name, **options), reference, BATCH))
    artifact = opened(name, keep_float=kept, **options)
    own = own_errors(depth.measure(artifact, reference, BATCH))
    title = "Conv2d_1a_3x3" if kept == ["first"] else "sum"
    assert own[title] <= rounded[title]
    if name == "tflite-int8":
        assert own[title] < 0.99 * rounded[title]
    sections = artifact.sections(BLOCK.cuts)
    assert {"first/Relu", "sum/Relu", "head/logits"} <= set(sections.layers)
    through = sections.through(BATCH)
    np.testing.assert_array_equal(through["head/logits"], artifact.predict(BATCH))
    apart = sections.apart(BATCH, through)
    for layer in sections.layers:
        np.testing.assert_allclose(apart[layer], through[layer], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CUT)
def test_a_section_reads_what_it_is_given(opened, name):
    """Of the sum, given with 0 for half of it, only the other half is left behind it."""
    sections = opened(name).sections(BLOCK.cuts)
    given = dict(sections.through(BATCH))
    found = sections.apart(BATCH, given)
    half = 1e-2 if name == "onnx-float16" else 1e-6
    for layer in sections.layers:
        np.testing.assert_allclose(found[layer], given[layer], rtol=half, atol=half)
    changed = given | {"sum/Relu": np.where(np.arange(16) < 8, given["sum/Relu"], 0)}
    found = sections.apart(BATCH, changed)
    pooled = next(n for n in ("head/mean", "head/features") if n in sections.layers)
    assert not found[pooled][..., 8:].any() and found[pooled][..., :8].any()
    np.testing.assert_array_equal(
        found["first/Relu"], sections.through(BATCH)["first/Relu"]
    )
    assert np.abs(found["sum/Relu"] - given["sum/Relu"]).max() < half


@pytest.mark.parametrize("name", INTEGERS)
def test_errors_are_those_of_what_is_rounded(opened, name):
    artifact = opened(name)
    reference = small_build.BlockReference(CHECKPOINT)
    measured = depth.measure(artifact, reference, BATCH)
    assert (measured.images, measured.size, measured.difference) == (3, (75, 75), 0.0)
    found = {point.title: point for point in measured.points}
    assert list(found)[:2] == ["Conv2d_1a_3x3", "sum"]
    assert list(found)[-1] == "Logits"
    sections = artifact.sections(BLOCK.cuts)
    expected = reference.layers(BATCH, BLOCK.cuts)
    through = sections.through(BATCH)
    for layer in sections.layers:
        point = found[BLOCK.title(layer)]
        difference = np.linalg.norm(through[layer] - expected[layer])
        error = difference / np.linalg.norm(expected[layer])
        assert point.accumulated.error == pytest.approx(error, rel=1e-5)
        assert 0.99 < point.accumulated.cosine <= 1
    # The first section has nothing before it; what ONNX computes in floats loses nothing.
    first, last = found["Conv2d_1a_3x3"], found["Logits"]
    assert first.own == first.accumulated
    assert last.own.error <= last.accumulated.error
    if name == "onnx-int8":
        assert last.own.error < 1e-6 < 1e-4 < last.accumulated.error
    assert 1e-4 < found["sum"].own.error < found["sum"].accumulated.error + 1e-3


def test_a_fault_shows_where_it_is(opened):
    """Weights that are another's, behind the first section."""
    (up,) = (layer for layer in BLOCK.weighted if layer.name == "up")
    name = f"{up.scope}/weights"
    other = small_build.checkpoint(**{name: 3 * CHECKPOINT[name]})
    measured = depth.measure(
        opened("onnx-float32"), small_build.BlockReference(other), BATCH
    )
    own = own_errors(measured)
    assert own["sum"] > 0.1
    assert all(error < 1e-5 for title, error in own.items() if title != "sum")


def test_numbers_that_are_not_finite(opened):
    artifact = opened("onnx-int8")
    sections = artifact.sections(BLOCK.cuts)

    def through(batch):
        return {**sections.through(batch), "sum/Relu": np.full((1, 2), np.inf)}

    broken = dataclasses.replace(sections, through=through)
    artifact = dataclasses.replace(artifact, sections=lambda _: broken)
    measured = depth.measure(artifact, small_build.BlockReference(CHECKPOINT), BATCH)
    (point,) = (point for point in measured.points if point.title == "sum")
    assert (point.accumulated.error, point.accumulated.cosine) == (np.inf, -1)
    assert np.isfinite(point.own.error)


def test_formats_that_cannot_be_cut():
    artifact = OpenedArtifact("v4", TASKS["classification"], None, None, {}, dict, dict)
    assert (
        depth.measure(artifact, small_build.BlockReference(CHECKPOINT), BATCH) is None
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", INTEGERS)
def test_the_real_network(deployable, reference, name):
    """All endpoints and blocks, by the names of TF-Slim's ops."""
    row, task = FORMATS[name], TASKS["classification"]
    options = ExportOptions(image_size=(139, 139))
    path = deployable / row.artifact_name(task, is_stand_in=True, options=options)
    with open_artifact(path)[0] as artifact:
        measured = depth.measure(artifact, reference, images.generate(1, 139, 139))
    titles = [point.title for point in measured.points]
    blocks = [title for title in titles if title.lower().startswith("block")]
    assert len(blocks) == 40
    assert blocks[0] == "block35_1" and blocks[-1] == "Block8"
    assert "block17_20 (PreAuxLogits)" in blocks
    known = {title.partition(" ")[0] for title in titles} | {"PreAuxLogits"}
    missing = set(task.endpoints) - known
    # Logits are what both give. The mean and what is flattened are the same numbers;
    # TFLite does both at once.
    left_out = {"onnx-int8": "PreLogitsFlatten", "tflite-int8": "global_pool"}
    assert missing <= {"Predictions", left_out[name]}
    assert measured.difference == 0
    for point in measured.points:
        assert 0 <= point.own.error < 0.2
        assert point.own.error <= point.accumulated.error * 1.5 + 1e-6
    last = measured.points[-1].accumulated
    assert last.cosine > row.tolerance.of(Output("logits"), (139, 139)).min_cosine
