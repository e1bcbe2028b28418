"""What int8 costs in quality: the same images and float files for every tool."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import thin_network

from benchmarks import exporting, processes, quantizing, tables
from benchmarks.figures import Machine
from benchmarks.quantizing import Closeness, Figures, Quality, Way
from exporters import calibration, images
from exporters.build import ExportOptions
from exporters.command import verbs
from exporters.command.arguments import parse
from exporters.exporting import export

SIZE = (75, 75)
FIGURES = Figures(
    date="2026-11-27T11:00:00Z",
    machine=Machine("A processor of 2026", ("avx2", "vnni"), cores=2, busy=0.01),
    versions=dict.fromkeys(quantizing._OTHERS, "1.0"),
    calibrated_on={"stand-in": "16 generated images", "digits": "256 images"},
    image_sizes={"stand-in": [299, 299], "digits": [75, 75]},
    qualities=(
        Quality(
            "stand-in",
            "onnx-int8",
            "irv2",
            (Closeness("generated", 16, 0.98765, 0.91), Closeness("digits", 3, 1, 1)),
        ),
        Quality("stand-in", "tflite-int8", "another", failed="it was killed"),
        Quality(
            "digits",
            "onnx-int8",
            "irv2, 7 bits",
            (Closeness("held-out digits", 297, 0.9999, 0.9991),),
            top_1=0.973,
        ),
    ),
)


@pytest.fixture
def thin(monkeypatch, tmp_path):
    """A network of few channels, which this process exports."""
    thin_network.install(monkeypatch)
    checkpoint = thin_network.write(tmp_path / "model.ckpt")

    def made(checkpoint, output, *options):
        words = ["--checkpoint", str(checkpoint), "--output", str(output), *options]
        given = parse(["export", *words])
        (item,) = export(
            checkpoint,
            output,
            formats=given.formats,
            tasks=given.tasks,
            options=verbs.options(given),
            verify=given.verify,
            force=True,
        ).artifacts
        return exporting.Made(item.path, item.bytes, 0.0, 0)

    monkeypatch.setattr(exporting, "export", made)
    return quantizing.Network(
        "digits",
        checkpoint,
        ("--image-size", "75x75"),
        calibration.calibration_images(None, SIZE),
        {"generated": images.generate(3, *SIZE, seed=11)},
        np.array([0, 1, 2]),
    )


def test_our_own_ways(thin, tmp_path):
    ours = [way for way in quantizing.ways() if way.tool.startswith("irv2")]
    found = list(quantizing.measure(thin, ours, tmp_path / "made", lambda _: None))
    assert [one.tool for one in found] == [
        "irv2",  # In float32.
        *("irv2", "irv2, symmetric", "irv2, 7 bits"),
        *("irv2", "irv2, all in integers", "irv2, symmetric"),
    ]
    assert not any(one.failed for one in found)
    (float32,), *others = [one.closeness for one in found]
    assert float32.worst == pytest.approx(1)
    means = [one[0].mean for one in others]
    assert len(set(means)) == len(means)  # Each is a file of its own.
    assert all(0.9 < one[0].worst <= one[0].mean < 1 for one in others)
    assert all(one[0].count == 3 for one in others)
    assert all(one.top_1 in (0, 1 / 3, 2 / 3, 1) for one in found)


def test_another_tool_gets_our_file_and_our_images(thin, tmp_path, monkeypatch):
    commands = []

    def run(command):
        commands.append(command)
        given = dict(zip(command[3::2], command[4::2]))
        calibrated = np.load(given["--calibration"])
        np.testing.assert_array_equal(calibrated, thin.calibration.images)
        if "nncf" in command:
            raise processes.ProcessError("it was killed")
        shutil.copy(given["--source"], given["--output"])

    monkeypatch.setattr(processes, "run", run)
    others = [
        way
        for way in quantizing.ways()
        if way.tool in ("NNCF", "ONNX Runtime, MinMax", "ai-edge-quantizer")
    ]
    found = list(quantizing.measure(thin, others, tmp_path / "made", lambda _: None))
    by_tool = {one.tool: one for one in found}
    assert by_tool["NNCF"].failed == "it was killed"
    for tool in ("ONNX Runtime, MinMax", "ai-edge-quantizer"):
        (one,) = by_tool[tool].closeness
        assert one.worst > 0.99999  # A copy of the float32 file.
    assert [command[2] for command in commands] == ["benchmarks.stock_files"] * 3
    assert "-onnx-float32-" in commands[0][commands[0].index("--source") + 1]
    assert "-tflite-float32-" in commands[2][commands[2].index("--source") + 1]


def test_the_converter_starts_from_v5(thin, tmp_path, monkeypatch):
    given = {}

    def run(command):
        given.update(zip(command[3::2], command[4::2]))
        raise processes.ProcessError("enough")

    monkeypatch.setattr(processes, "run", run)
    (way,) = (w for w in quantizing.ways() if w.tool == exporting.CONVERTER)
    (_, one) = quantizing.measure(thin, [way], tmp_path / "made", lambda _: None)
    assert one.failed == "enough"
    assert given["--saved-model"].endswith("-v5") and given["--format"] == "tflite-int8"


def test_integers_outside_are_made_numbers(thin, tmp_path, monkeypatch):
    def integers(network, directory):
        return (
            export(
                network.checkpoint,
                directory / "integers",
                formats=["tflite-int8"],
                tasks=["classification"],
                options=ExportOptions(image_size=SIZE, integer_type="uint8"),
                verify=False,
            )
            .artifacts[0]
            .path
        )

    ways = [quantizing._ours("tflite-int8"), Way("tflite-int8", "uint8", integers)]
    _, plain, outside = quantizing.measure(thin, ways, tmp_path / "x", lambda _: None)
    assert outside.closeness[0].mean == pytest.approx(plain.closeness[0].mean, abs=1e-3)


def test_images_of_three_kinds():
    assert quantizing.photographs((75, 99)).shape == (8, 75, 99, 3)
    digits = quantizing.digits((75, 99))
    assert digits.shape == (16, 75, 99, 3)
    assert 0 <= digits.min() < 0.1 and 0.9 < digits.max() <= 1


def test_figures_are_kept_and_read(tmp_path, capfd):
    from exporters.command.console import Console

    assert quantizing._finish(Console(), FIGURES, tmp_path) == 1
    told = capfd.readouterr()
    assert "tflite-int8 by another: it was killed" in told.err
    assert "0.98765" in told.out and "97.3 %" in told.out
    (kept,) = tmp_path.iterdir()
    assert kept.name == "quantizing-2026-11-27T110000Z.json"
    assert quantizing.read(kept) == FIGURES
    kept.write_text(json.dumps({"date": "x"}))
    with pytest.raises(ValueError, match="holds no figures"):
        quantizing.read(kept)


def test_figures_of_another_network_may_be_earlier():
    def only(network):
        return dataclasses.replace(
            FIGURES,
            qualities=tuple(q for q in FIGURES.qualities if q.network == network),
            calibrated_on={network: FIGURES.calibrated_on[network]},
            image_sizes={network: FIGURES.image_sizes[network]},
        )

    both = quantizing.joined(only("stand-in"), only("digits"))
    assert both == FIGURES
    again = dataclasses.replace(only("digits"), qualities=())
    assert quantizing.joined(again, FIGURES).qualities == FIGURES.qualities[:2]


def test_tables_in_pages(tmp_path, figures):
    from benchmarks import figures as all_figures
    from checkpoints import files

    machine = tmp_path / "a-machine"
    all_figures.write(figures, machine / "2026-11-23.json")
    files.write_json(
        machine / "quantizing-2026-11-27.json", dataclasses.asdict(FIGURES)
    )
    text = "".join(
        f"<!-- benchmarks: {name}, a-machine -->\n<!-- /benchmarks -->\n"
        for name in ("quantizing", "quantizing digits", "quantizing machine", "latency")
    )
    lines = tables.with_tables(text, tmp_path).splitlines()
    assert "| onnx-int8 | irv2 | 0.98765 | 0.91000 | 1.00000 | 1.00000 |" in lines
    assert "| tflite-int8 | another | FAILED | FAILED | FAILED | FAILED |" in lines
    assert "| onnx-int8 | irv2, 7 bits | 97.3 % | 0.99990 | 0.99910 |" in lines
    assert any(
        "A processor of 2026 (avx2, vnni), stand-in at 299 x 299 pixels, " in x
        for x in lines
    )
    assert any("ms |" in line for line in lines)  # Of the other figures.


def test_nothing_to_quantize(capfd):
    with pytest.raises(SystemExit):
        quantizing.main([])
    assert "give --checkpoint, or --digits" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        quantizing.main(["--digits", "x", "--ways", "magic"])
    assert "--ways: there are irv2, irv2, symmetric" in capfd.readouterr().err
