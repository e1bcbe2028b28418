"""Other engines: the network's numbers by them too, and clear words where they are none."""

import dataclasses
import os
import subprocess
import sys

import colours
import fake_format
import numpy as np
import pytest
import small_build

from exporters import cards, engines, images, parity
from exporters.command.arguments import parse
from exporters.engines import OpenVino
from exporters.errors import ArtifactError, EvaluationError, MissingLibraryError
from exporters.evaluation import vectors
from exporters.evaluation.evaluating import evaluate
from exporters.evaluation.features import features
from exporters.formats import FORMATS, open_artifact
from exporters.network.tasks import TASKS
from exporters.processor import this_processor
from exporters.verification import verify

CHECKPOINT = small_build.checkpoint()
FORMATS_WITH_A_CHOICE = [
    row.name for row in small_build.WRITTEN if row.container.engines
]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Writes a file of a small block."""
    small_build.install(monkeypatch)

    def write(format, task="classification", **options):
        options = dataclasses.replace(small_build.OPTIONS, **options)
        build = small_build.build(CHECKPOINT, options)
        row = FORMATS[format]
        path = tmp_path / f"{format}{row.container.suffix}"
        return small_build.write(build, row, TASKS[task], path)

    return write


def compare(path, engine="openvino"):
    artifact, row = open_artifact(path, engine=engine)
    reference = small_build.BlockReference(CHECKPOINT)
    return parity.compare(
        artifact, reference, small_build.IMAGES, row.tolerance, row.precision
    )


def test_there_is_a_choice_for_onnx_and_tflite():
    containers = {FORMATS[name].container.library for name in FORMATS_WITH_A_CHOICE}
    assert containers == {"onnx", "litert"}


@pytest.mark.parametrize("format", FORMATS_WITH_A_CHOICE)
def test_openvino_agrees_with_the_network(small, format):
    report = compare(small(format))
    assert report.passed, report.failures()


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("onnx-float32", {"nchw": True, "endpoints": True}),
        ("onnx-int8", {"nchw": True, "endpoints": True}),
        ("onnx-float32", {"image_size": None}),
        ("tflite-float32", {"softmax": True, "signed_input": True}),
        ("tflite-int8", {"integer_type": "uint8"}),
        ("tflite-int8", {"integer_type": "int8", "signed_input": True}),
    ],
)
def test_options_agree_by_openvino(small, format, options):
    report = compare(small(format, **options))
    assert report.passed, report.failures()


@pytest.mark.parametrize("format", ["onnx-float32", "tflite-float32"])
def test_float32_is_computed_in_float32(small, format):
    """Also on processors with bfloat16, whose error would be some 1e-3."""
    assert engines.FLOAT32 == {"INFERENCE_PRECISION_HINT": "f32"}
    path = small(format)
    openvino = pytest.importorskip("openvino")
    compiled = OpenVino(path, shape=(1, *small_build.IMAGE_SIZE, 3))._compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compare(path).main.relative_error < 1e-5


def test_bfloat16_would_be_seen(small):
    """What OpenVINO takes if it is not asked for float32, where there is bfloat16."""
    if "bfloat16" not in this_processor().instructions:
        pytest.skip("this processor has no bfloat16")
    path = small("onnx-float32")
    exact, free = OpenVino(path), OpenVino(path, {})
    pixels = images.generate(2, *small_build.IMAGE_SIZE, seed=4)
    (expected,), (found,) = exact(pixels), free(pixels)
    assert np.abs(found - expected).max() > 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("format", ["onnx-float32", "tflite-int8"])
def test_batches_of_any_length(small, format):
    """A shorter one is filled up for OpenVINO, and what was filled up is left out."""
    path = small(format)
    own, _ = open_artifact(path)
    other, _ = open_artifact(path, engine="openvino")
    pixels = images.generate(9, *small_build.IMAGE_SIZE, seed=4)
    for count in (3, 2, 3, 9, 1):
        expected, found = own.predict(pixels[:count]), other.predict(pixels[:count])
        assert found.shape == expected.shape
        atol = 0.05 if "int8" in format else 1e-5
        np.testing.assert_allclose(found, expected, atol=atol)


def test_the_files_own_engine_may_be_named(small):
    for format, engine in (("onnx-int8", "onnxruntime"), ("tflite-int8", "litert")):
        assert compare(small(format), engine).passed


# In the verbs


def test_verify(small):
    path = small("onnx-int8")
    wrong = small("tflite-int8")
    done = verify(
        [path, wrong],
        CHECKPOINT,
        engine="onnxruntime",
        images=small_build.IMAGES,
        reference=small_build.BlockReference(CHECKPOINT),
    )
    assert [item.passed for item in done.artifacts] == [True, False]
    assert done.as_dict()["engine"] == "onnxruntime"
    assert "cannot be run by onnxruntime: expected litert or openvino" in (
        done.artifacts[1].error
    )


def test_evaluate_and_features(small, tmp_path):
    path = small("onnx-float32")
    folder = colours.folders(tmp_path / "images", 1)
    plain = evaluate(path, folder, label_offset=0)
    done = evaluate(path, folder, label_offset=0, engine="openvino")
    assert done.artifacts[0].engine == "openvino"
    assert done.artifacts[0].per_class == plain.artifacts[0].per_class
    own = evaluate(path, folder, label_offset=0, engine="onnxruntime")
    assert own.artifacts == plain.artifacts and own.artifacts[0].engine is None
    features(path, folder, tmp_path / "own")
    made = features(path, folder, tmp_path / "other", engine="openvino")
    assert made.source["engine"] == "openvino"
    one, other = vectors.read(tmp_path / "own"), vectors.read(tmp_path / "other")
    np.testing.assert_allclose(one.values, other.values, atol=1e-3)
    # What another engine computes is not the same to the last bit.
    with pytest.raises(EvaluationError, match="another artifact"):
        features(path, folder, tmp_path / "own", engine="openvino")
    state = tmp_path / "state"
    evaluate(path, folder, label_offset=0, state=state)
    with pytest.raises(EvaluationError, match="of other images, labels or artifacts"):
        evaluate(path, folder, label_offset=0, state=state, engine="openvino")


def test_a_card_says_which_engine_its_figures_are_of():
    found = {"count": 8, "images": "x", "layout": "y", "top_1": 1.0, "top_5": None}
    described = {"evaluation": found | {"engine": "openvino"}, "stand_in": False}
    assert cards._evaluation(described).endswith("100.00 %, run by openvino.")
    described = {"evaluation": found, "stand_in": False}
    assert cards._evaluation(described).endswith("100.00 %.")


def test_on_beam(small, tmp_path):
    path = small("onnx-float32")
    folder = colours.folders(tmp_path / "images", 1)
    options = {"label_offset": 0, "engine": "openvino"}
    beam = {"beam": ["--runner=DirectRunner"], "state": tmp_path / "state"}
    done = evaluate(path, folder, **options, **beam)
    assert done.artifacts == evaluate(path, folder, **options).artifacts


def test_the_command_takes_it():
    for verb in (["verify", "x", "--checkpoint", "y"], ["evaluate", "--images", "x"]):
        parsed = parse([*verb, "--engine", "openvino"])
        assert parsed.engine == "openvino"
        assert parse(verb).engine is None


# What cannot be


def test_the_wrong_engine(small, tmp_path):
    with pytest.raises(
        ArtifactError, match=r"float32\.onnx cannot be run by litert: expected onnxrun"
    ):
        open_artifact(small("onnx-float32"), engine="litert")
    path = colours.artifact(tmp_path / "model.fake")
    with pytest.raises(ArtifactError, match=r"by openvino: it has its own alone"):
        open_artifact(path, fake_format.TABLE, "openvino")


def test_a_request_to_end_after_two_files_were_run(small, tmp_path):
    """It was handled on a stack that the first one had put back, and was gone."""
    program = """
import os, signal, sys
from pathlib import Path
import numpy as np
from exporters.engines import OpenVino

images = np.load(sys.argv[2])
first, second = OpenVino(Path(sys.argv[1])), OpenVino(Path(sys.argv[1]))
first(images)
second(images)
del first
del second
signal.signal(signal.SIGINT, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGINT)
"""
    images = tmp_path / "images.npy"
    np.save(images, small_build.IMAGES.batches(small_build.OPTIONS.image_size)[0])
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            program,
            small("onnx-float32"),
            images,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_an_unknown_engine():
    with pytest.raises(ArtifactError, match=r"unknown engine 'x'; there are: onnxr"):
        engines.check("x")
    engines.check(None)
    engines.check("litert")


def test_an_engine_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    for call in (
        lambda: verify("nothing", CHECKPOINT, engine="openvino"),
        lambda: evaluate("nothing", tmp_path, engine="openvino"),
        lambda: features("nothing", tmp_path, tmp_path / "x", engine="openvino"),
    ):
        with pytest.raises(MissingLibraryError, match=r"install 'irv2\[openvino\]'"):
            call()


def test_a_file_that_openvino_cannot_read(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match=r"OpenVINO cannot read .*model\.onnx: "):
        OpenVino(tmp_path / "model.onnx")


def test_images_that_openvino_cannot_run(small):
    model = OpenVino(small("onnx-float32"))
    with pytest.raises(ArtifactError, match=r"OpenVINO cannot run .*\.onnx: "):
        model(np.zeros((1, 3, 3, 7), np.float32))
