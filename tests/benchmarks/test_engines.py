"""Engines: each computes what the network does, for one image and for several."""

import dataclasses

import numpy as np
import pytest
import small_build

from benchmarks import engines
from benchmarks.engines import IMAGE_SIZE, UnknownEngineError
from exporters import images
from exporters.formats import FORMATS
from exporters.network.tasks import CLASSIFICATION, TASKS

CHECKPOINT = small_build.checkpoint()
BATCHES = [images.generate(count, *IMAGE_SIZE, seed=4) for count in (1, 2)]


@pytest.fixture(params=["onnx-float32", "tflite-float32", "onnx-int8", "tflite-int8"])
def small(request, monkeypatch, tmp_path):
    """A file of a small block."""
    small_build.install(monkeypatch)
    row = FORMATS[request.param]
    options = dataclasses.replace(small_build.OPTIONS, image_size=None)
    if row.container.needs_image_size:
        options = dataclasses.replace(options, image_size=IMAGE_SIZE)
    build = small_build.build(CHECKPOINT, options)
    pixels = images.generate(8, *IMAGE_SIZE, seed=2)
    calibration = dataclasses.replace(build.calibration, images=pixels)
    build = dataclasses.replace(build, calibration=calibration)
    path = tmp_path / f"small{row.container.suffix}"
    return small_build.write(build, row, CLASSIFICATION, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", [engine.name for engine in engines.ENGINES if "tensor" not in engine.name]
)
def test_files(engine, small):
    (engine,) = [known for known in engines.ENGINES if known.name == engine]
    pytest.importorskip(engine.library)
    if not engine.reads(small):
        assert engine.is_own
        return
    run = engine.load(small, 1)
    reference = small_build.BlockReference(CHECKPOINT)
    for batch in BATCHES:
        found = run(batch)
        expected = reference.outputs(batch, ["logits"])["logits"]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize(
    "engine",
    [engine for engine in engines.ENGINES if engine.load_cached],
    ids=lambda engine: engine.name,
)
def test_what_was_compiled_is_kept(engine, small, tmp_path):
    pytest.importorskip(engine.library)
    expected = engine.load(small, 1)(BATCHES[0])
    for _ in range(2):
        run = engine.load_cached(small, 1, tmp_path / "cache")
        np.testing.assert_allclose(run(BATCHES[0]), expected, atol=1e-3)
        assert list((tmp_path / "cache").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, format, task",
    [
        ("tensorflow", "v5", "classification"),
        ("tensorflow1", "v3", "classification"),
    ],
)
def test_directories(name, format, task, exported, reference, monkeypatch):
    threading = pytest.importorskip("tensorflow").config.threading
    for kind in ("intra", "inter"):  # This process has chosen already.
        monkeypatch.setattr(threading, f"set_{kind}_op_parallelism_threads", str)
    (engine,) = engines.installed([name])
    row, task = FORMATS[format], TASKS[task]
    path = exported / row.artifact_name(task, is_stand_in=True)
    assert [known.name for known in engines.ENGINES if known.reads(path)] == [name]
    found = engine.load(path, 2)(BATCHES[0])
    expected = reference.outputs(BATCHES[0], [task.output])[task.output]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_all_that_are_installed_are_taken():
    found = {engine.name for engine in engines.installed()}
    assert {"onnxruntime", "litert", "tensorflow"} <= found


def test_names_are_taken_in_order_and_once():
    found = engines.installed(["litert", "onnxruntime", "litert"])
    assert [engine.name for engine in found] == ["litert", "onnxruntime"]


def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr(engines, "version", lambda distribution: None)
    assert engines.installed() == []
    with pytest.raises(UnknownEngineError, match=r"litert needs ai-edge-litert"):
        engines.installed(["litert"])
