"""What an evaluation costs: figures of both, of the same images, and memory all along."""

import dataclasses
import json

import pytest
import small_build

from benchmarks import evaluating
from benchmarks.evaluating import Throughput
from benchmarks.figures import Spread
from exporters.errors import ArtifactError
from exporters.formats import FORMATS
from exporters.network.tasks import CLASSIFICATION


@pytest.fixture(params=["onnx-float32", "tflite-int8"])
def small(request, monkeypatch, tmp_path):
    """A file of a small block."""
    small_build.install(monkeypatch)
    row = FORMATS[request.param]
    build = small_build.build(small_build.checkpoint())
    path = tmp_path / f"small{row.container.suffix}"
    return small_build.write(build, row, CLASSIFICATION, path)


@pytest.mark.slow
def test_figures_are_kept(small, tmp_path, capfd):
    options = ["--images=9", "--repeats=2", "--memory-images=70", "--output"]
    assert evaluating.main([str(small), *options, str(tmp_path / "kept")]) == 0
    (kept,) = (tmp_path / "kept").iterdir()
    found = json.loads(kept.read_text())
    (one,) = found["throughputs"]
    assert one["artifact"] == small.name
    assert one["engine"] == ("litert" if small.suffix == ".tflite" else "onnxruntime")
    assert one["bare"]["count"] == one["evaluated"]["count"] == 2
    assert 0 < one["bare_processor"]["minimum"] < 5
    assert 0 < one["evaluated_processor"]["minimum"] < 5
    assert one["bare"]["minimum"] > 0 and one["evaluated"]["minimum"] > 0
    assert found["memory"]["images"] == 70
    assert 0 < found["memory"]["early"] < 64e9 and 0 < found["memory"]["late"] < 64e9
    assert small.name in capfd.readouterr().out


def test_what_is_lost_is_by_the_best_of_both():
    bare, evaluated = Spread.of([8, 10, 9]), Spread.of([5, 9, 8])
    few, more = Spread.of([0.2, 0.1]), Spread.of([0.12, 0.5])
    one = Throughput("x", "own", bare, evaluated, few, more)
    assert one.lost == pytest.approx(0.1)
    assert one.added == pytest.approx(0.2)
    assert dataclasses.replace(one, evaluated=bare).lost == 0


def test_what_has_no_engine_of_its_own(tmp_path):
    with pytest.raises(ArtifactError, match="no engine here that it was made for"):
        evaluating._own_engine(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.onnx"], "missing.onnx does not exist"),
        (["missing.onnx", "--images", "0"], "'0': expected a number from 1 on"),
        (["missing.onnx", "--output", "{file}/x"], "Not a directory"),
    ],
)
def test_what_cannot_be_measured(arguments, told, tmp_path, capfd):
    (tmp_path / "file").touch()
    given = [text.format(file=tmp_path / "file") for text in arguments]
    output = [] if "--output" in given else ["--output", str(tmp_path / "kept")]
    with pytest.raises(SystemExit) as caught:
        evaluating.main([*given, *output, "--memory-images=0"])
    assert caught.value.code == 2
    assert told in capfd.readouterr().err
