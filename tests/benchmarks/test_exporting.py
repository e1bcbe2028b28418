"""What is measured of `irv2 export`, and which tools make what beside it."""

import json
from pathlib import Path

import fake_format
import pytest

from benchmarks import exporting, processes
from benchmarks.figures import Agreement, Spread
from benchmarks.processes import Finished
from exporters.exporting import export
from exporters.formats import FORMATS


@pytest.fixture
def command(monkeypatch):
    """Runs the export of a fake format in place of the command; returns its options."""
    commands = []

    def run(command):
        commands.append(command)
        done = export(
            fake_format.checkpoint(),
            command[command.index("--output") + 1],
            formats=[fake_format.FORMAT],
            tasks=["classification"] if "--tasks" in command else None,
            options=fake_format.OPTIONS,
            images=fake_format.IMAGES,
            verify="--no-verify" not in command,
            reference=fake_format.FakeReference(fake_format.checkpoint()),
        )
        return Finished(3.5, 10**9, json.dumps(done.as_dict()))

    monkeypatch.setattr(processes, "run", run)
    return commands


def test_an_export_of_one_artifact(command, tmp_path):
    options = ["--tasks", "classification", "--no-verify"]
    made = exporting.export(Path("a.ckpt"), tmp_path, *options)
    assert command[0][-3:] == options
    assert made.path.suffix == ".fake" and made.path.parent == tmp_path
    assert made.bytes == made.path.stat().st_size
    assert (made.seconds, made.memory) == (3.5, 10**9)
    assert made.parts.keys() == {"read", "graphs", "write"}
    assert made.agreements == ()
    process = exporting.process([made, made])
    assert process.seconds == Spread(3.5, 3.5, 3.5, 2)
    assert process.write.count == 2
    assert process.verify is None


def test_an_export_of_everything_that_is_verified(command, tmp_path):
    made = exporting.export(Path("a.ckpt"), tmp_path)
    assert made.path == tmp_path
    assert made.parts["verify"] > 0
    assert made.agreements == (
        Agreement("fake", "feature_vector", 0, pytest.approx(1)),
        Agreement("fake", "classification", 0, pytest.approx(1)),
    )


def test_formats_that_stock_tools_make_too(tmp_path):
    found = {
        name: [recipe.tool for recipe in exporting.stock(row, Path, tmp_path)]
        for name, row in FORMATS.items()
    }
    assert {name: tools for name, tools in found.items() if tools} == {
        "onnx-float32": ["tf2onnx", "OpenVINO's IR"],
        "onnx-float16": ["ONNX Runtime's tools", "OpenVINO's IR"],
        "onnx-int8": ["ONNX Runtime's tools", "NNCF", "NNCF, IR", "OpenVINO's IR"],
        "tflite-float32": ["TensorFlow's converter"],
        "tflite-float16": ["TensorFlow's converter"],
        "tflite-dynamic-int8": ["TensorFlow's converter", "ai-edge-quantizer"],
        "tflite-int8": ["TensorFlow's converter", "ai-edge-quantizer"],
    }


def test_a_stock_tool_starts_from_a_file_of_ours(tmp_path, monkeypatch):
    """Its size is that of all it writes: OpenVINO's numbers are in a second file."""

    def run(command):
        arguments = dict(zip(command[3::2], command[4::2]))
        assert arguments["--source"] == "onnx-int8.file"
        path = Path(arguments["--output"])
        path.write_bytes(b"12")
        path.with_suffix(".bin").write_bytes(b"345")
        return Finished(3.5, 10**9, "")

    monkeypatch.setattr(processes, "run", run)
    recipes = exporting.stock(
        FORMATS["onnx-int8"], lambda name: Path(f"{name}.file"), tmp_path
    )
    made = list(recipes)[-1].make()
    assert (made.path.suffix, made.bytes) == (".xml", 5)
    assert (made.seconds, made.memory) == (3.5, 10**9)
