"""Pages about artifacts: their figures are the JSON's, and nothing is hidden."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import small_build
from reporting import blocks

from checkpoints.reader import Provenance
from exporters import manifest
from exporters.errors import (
    ArtifactError,
    EvaluationError,
    ExportError,
    MissingLibraryError,
)
from exporters.formats import open_artifact
from exporters.progress import Note
from exporters.reporting import depth, figures, measuring

CHECKPOINT = blocks.checkpoint()
COMMAND = "irv2 report artifacts --output report.html"


@pytest.fixture(scope="module")
def evaluation(artifacts, tmp_path_factory):
    """The JSON file of an evaluation of the artifacts."""
    return blocks.evaluated(artifacts, tmp_path_factory.mktemp("evaluated"))


@pytest.fixture
def changed(evaluation, tmp_path):
    """Changes that file; returns the changed one, and what it says."""

    def change(how):
        told = json.loads(evaluation.read_text())
        how(told)
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(told))
        return path, told

    return change


@pytest.fixture(scope="module")
def whole(artifacts, evaluation, tmp_path_factory):
    """A page with everything: what was reported, and the page."""
    return blocks.write(
        artifacts,
        tmp_path_factory.mktemp("whole") / "report.html",
        CHECKPOINT,
        latency=True,
        evaluation=evaluation,
        command=COMMAND,
    )


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a page, without plots; returns what was reported, and the page."""
    monkeypatch.setattr(figures, "_svg", lambda *_, **__: "<svg></svg>")

    def run(directory, of=CHECKPOINT, **options):
        return blocks.write(directory, tmp_path / "report.html", of, **options)

    return run


def find(page, label):
    (number,) = (
        number
        for number, found in enumerate(page.facts["artifacts"])
        if found["label"] == label
    )
    return number


INT8 = "onnx-int8, classification"


# What a page says


def test_the_page_holds_what_was_returned(whole):
    done, page = whole
    assert done.passed
    assert page.facts == json.loads(json.dumps(done.as_dict()))
    assert [found["label"] for found in page.facts["artifacts"]] == [
        f"{name}, {task}"
        for name in ("onnx-float32", "onnx-int8", "tflite-int8")
        for task in ("classification", "feature vector")
    ]
    assert "All 6 agree with the checkpoint." in page.sections["verdict"]
    assert list(page.sections) == [
        *("verdict", "formats", "depth", "errors", "images", "evaluation", "files"),
        "made",
    ]
    assert COMMAND in page.sections["made"]
    assert page.facts["machine"]["name"] in page.sections["made"]
    assert CHECKPOINT.identity in page.sections["verdict"]
    for found in page.facts["artifacts"]:
        assert found["measurement"]["latency"]["runs"] >= 5
        (digest,) = found["digests"].values()
        assert digest == manifest.files.digest(Path(found["path"]))
        assert digest in page.sections["files"]
        assert found["changed"] == []


def test_every_figure_is_the_jsons(whole):
    _, page = whole
    assert len(page.figures) > 150
    kinds = set()
    for place, value, shown in page.figures:
        found = page.at(place)
        assert float(value) == found, place
        kinds.add(re.sub(r"\d+", "N", place))
        if shown.startswith("< "):
            assert found < 0.001
            continue
        text = shown.replace(",", "").removesuffix(" %").removesuffix(" ms")
        text = text.removesuffix(" MB").removesuffix(" bytes")
        number = float(text)
        factor = {"%": 100, "ms": 1000, "MB": 1e-6}.get(shown.split()[-1], 1)
        mantissa, _, exponent = text.partition("e")
        last = int(exponent or 0) - len(mantissa.partition(".")[2])
        within = pytest.approx(found * factor, rel=0, abs=0.51 * 10.0**last)
        assert number == within, (place, shown)
    assert {
        "/artifacts/N/main/cosine",
        "/artifacts/N/main/relative_error",
        "/artifacts/N/measurement/latency/median",
        "/artifacts/N/measurement/depth/points/N/own/error",
        "/artifacts/N/score/top_N",
    } <= kinds


def test_plots_are_of_the_jsons_figures(whole):
    _, page = whole
    number = find(page, INT8)
    base = f"/artifacts/{number}/measurement"
    points = page.at(f"{base}/depth/points")
    largest = max(p["accumulated"]["error"] for p in points)
    for kind in ("accumulated", "own"):
        marks = page.marks(f"{base}/depth/points/{kind}")
        drawn = [
            (row, math.log10(p[kind]["error"]))
            for row, p in enumerate(points)
            if p[kind]["error"] > 1e-4 * largest
        ]
        assert len(marks) == len(drawn) >= 2
        assert_in_a_line(
            *zip(*((x, error) for (x, _), (_, error) in zip(marks, drawn)))
        )
        assert_in_a_line(*zip(*((y, row) for (_, y), (row, _) in zip(marks, drawn))))
    sample = page.at(f"{base}/sample")
    marks = page.marks(f"{base}/sample")
    assert len(marks) == len(sample) == 8 * len(small_build.LABELS)
    assert_in_a_line([x for x, _ in marks], [expected for expected, _ in sample])
    assert_in_a_line([y for _, y in marks], [found for _, found in sample])
    of_rows = [
        (page.marks(f"/artifacts/{n}/measurement/shares/100%")[0][0], found)
        for n in range(6)
        if (found := page.at(f"/artifacts/{n}/measurement/shares/100%")) > 1e-12
    ]
    assert_in_a_line(*zip(*((x, math.log10(found)) for x, found in of_rows)))


def test_bars_and_shares_are_the_jsons(whole):
    _, page = whole
    for where, factor in (("bytes", 1e-6), ("measurement/latency/median", 1000)):
        bars = [
            (
                page.bar(f"/artifacts/{n}/{where}"),
                factor * page.at(f"/artifacts/{n}/{where}"),
            )
            for n in range(6)
        ]
        assert_in_a_line(*zip(*bars))
    scored = [n for n in range(6) if page.at(f"/artifacts/{n}")["score"]]
    shares = [
        (
            page.marks(f"/artifacts/{n}/score/top_1")[0][0],
            page.at(f"/artifacts/{n}/score/top_1"),
        )
        for n in scored
    ]
    assert len(shares) >= 2
    assert_in_a_line(*zip(*shares))


def assert_in_a_line(places, values):
    """Of an axis, which is linear in the values."""
    slope, offset = np.polyfit(values, places, 1)
    np.testing.assert_allclose(np.polyval([slope, offset], values), places, atol=0.01)
    assert abs(slope) > 0


def test_figures_are_those_of_the_artifact(copied, write):
    done, page = write(copied("onnx-int8"))
    item = done.artifacts[0]
    assert item.format == "onnx-int8" and item.task == "classification"
    (batch,) = small_build.IMAGES.batches(small_build.IMAGE_SIZE)
    with open_artifact(item.verified.path)[0] as artifact:
        found = artifact.predict(batch)
    reference = small_build.BlockReference(CHECKPOINT)
    expected = reference.outputs(batch, ["logits"])["logits"]
    errors = np.abs(found - expected) / np.abs(expected).max()
    measured = item.measurement
    assert measured.shares["100%"] == pytest.approx(errors.max(), rel=1e-4)
    assert measured.shares["50%"] == pytest.approx(np.median(errors), rel=1e-4)
    assert sum(measured.counts) == errors.size
    worst = max(measured.sample, key=lambda pair: abs(pair[1] - pair[0]))
    assert abs(worst[1] - worst[0]) == pytest.approx(np.abs(found - expected).max())
    for image, row, own in zip(measured.images, found, expected):
        assert image.top[0].name == small_build.LABELS[row.argmax()]
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        assert image.top[0].probability == pytest.approx(shares.max(), rel=1e-5)
        cosine = row @ own / np.linalg.norm(row) / np.linalg.norm(own)
        assert image.cosine == pytest.approx(cosine)
    assert item.measurement.latency is None and "Latency" not in page.text
    (image, *_) = page.facts["images"]
    best = small_build.LABELS[expected[0].argmax()]
    assert image["top"]["75 x 75"][0]["name"] == best


def test_rankings():
    found = measuring.top(np.array([0.0, 3, 3, -1]), ["a", "b", "c", "d", "e"], 1)
    assert [(x.number, x.name) for x in found] == [
        (2, "c"),
        (3, "d"),
        (1, "b"),
        (4, "e"),
    ]
    assert sum(x.probability for x in found) == pytest.approx(1)
    found = measuring.top(np.array([0.25, 0.75]), None, is_probability=True)
    assert [(x.name, x.probability) for x in found] == [("1", 0.75), ("0", 0.25)]


# It stands alone


def test_it_asks_for_nothing(whole):
    _, page = whole
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "default-src 'none'" in page.text
    assert "url(#" in page.text and not re.findall(r"url\((?!#)", page.text)
    assert "@import" not in page.text
    assert not page.tags & {"iframe", "object", "embed", "form", "base"}


@pytest.mark.slow
def test_names_are_text_whatever_is_in_them(block, write, tmp_path, monkeypatch):
    hostile = '</script><script src="https://example.org/x.js"></script><b>&amp;"\''
    monkeypatch.setattr(small_build, "LABELS", (hostile, *small_build.LABELS[1:]))
    directory = blocks.make(tmp_path, CHECKPOINT, ["onnx-int8"])
    _, page = write(directory, command=hostile)
    assert hostile in page.sections["made"]
    assert hostile in page.sections["images"]
    assert page.facts["command"] == hostile
    assert "<script src" not in page.text


@pytest.mark.parametrize("is_stand_in", [True, False])
def test_stand_ins_are_marked_in_every_section(block, tmp_path, is_stand_in):
    of = Provenance.STAND_IN if is_stand_in else Provenance.UNVERIFIED
    checkpoint = blocks.checkpoint(of)
    directory = blocks.make(tmp_path, checkpoint, ["onnx-int8"])
    done, page = blocks.write(directory, tmp_path / "report.html", checkpoint)
    assert done.is_stand_in is page.facts["stand_in"] is is_stand_in
    if not is_stand_in:
        assert "STAND-IN" not in page.text
        return
    assert re.search("<title>STAND-IN: ", page.text)
    for text in page.sections.values():
        assert text.strip().startswith("STAND-IN: generated weights")
    assert page.text.count('class="watermark"') == len(page.sections) == 7
    plots = re.findall("<svg role.*?</svg>", page.text, re.DOTALL)
    assert plots and all(">STAND-IN</text>" in plot for plot in plots)


@pytest.mark.slow
def test_an_artifact_that_says_it_is_a_stand_in_is_enough(block, write, tmp_path):
    checkpoint = blocks.checkpoint(Provenance.STAND_IN)
    directory = blocks.make(tmp_path, checkpoint, ["onnx-int8"])
    for path in directory.glob("*.manifest.json"):
        path.unlink()
    done, page = write(directory)
    assert not done.passed
    assert "2 of 2 DO NOT AGREE" in page.sections["verdict"]
    assert done.is_stand_in and 'class="watermark"' in page.text


# What is wrong


def test_broken_and_missing_artifacts(copied, write):
    directory = copied()
    paths = {path.name: path for path in directory.iterdir() if path.is_file()}
    broken = next(p for n, p in paths.items() if n.endswith("75.onnx") and "int8" in n)
    missing = next(p for n, p in paths.items() if n.endswith(".tflite"))
    changed = next(
        p for n, p in paths.items() if n.endswith("75.onnx") and "float32" in n
    )
    broken.write_bytes(broken.read_bytes()[:1000])
    missing.unlink()
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 64
    changed.write_bytes(content)
    done, page = write(directory, latency=True)
    assert not done.passed and not page.facts["passed"]
    assert "3 of 6 DO NOT AGREE" in page.sections["verdict"]
    of = {found["name"]: found for found in page.facts["artifacts"]}
    for path in (broken, missing):
        found = of[path.name]
        assert found["result"] == "FAILED" and found["measurement"] is None
        assert found["format"] and found["task"]  # By the manifest.
        assert found["error"] in page.sections["verdict"]
        assert path.name in page.sections["verdict"]
    assert of[missing.name]["bytes"] == 0 and of[missing.name]["digests"] == {}
    assert "missing" in page.sections["formats"]
    assert of[broken.name]["changed"] == [broken.name]
    assert of[changed.name]["result"] in ("DIFFERS", "FAILED")
    assert "Not as its manifest says" in page.sections["files"]


def test_all_are_broken(copied, write):
    directory = copied("onnx-int8")
    for path in directory.glob("*.onnx"):
        path.write_bytes(b"\x08")
    done, page = write(directory)
    assert [item.verified.result for item in done.artifacts] == ["FAILED"] * 2
    assert list(page.sections) == ["verdict", "formats", "files", "made"]
    assert "2 of 2 DO NOT AGREE" in page.sections["verdict"]


def test_what_is_not_run_is_said(copied, write, monkeypatch):
    directory = copied("onnx-int8")

    def fail(*_, **__):
        raise ArtifactError("its runtime has gone")

    monkeypatch.setattr(measuring, "measure", fail)
    done, page = write(directory)
    assert done.passed
    assert done.artifacts[0].not_measured == "its runtime has gone"
    assert "was not measured: its runtime has gone" in page.sections["formats"]


@pytest.mark.slow
def test_numbers_that_are_not_finite(copied, write, monkeypatch):
    real = depth.measure

    def measure(*arguments):
        found = real(*arguments)
        first, *others = found.points
        infinite = dataclasses.replace(first, own=depth.Deviation(math.inf, -1.0))
        return dataclasses.replace(found, points=(infinite, *others))

    monkeypatch.setattr(depth, "measure", measure)
    _, page = write(copied("onnx-int8"))
    points = page.at(f"/artifacts/{find(page, INT8)}/measurement/depth/points")
    assert points[0]["own"]["error"] is None
    assert "Most is added by Conv2d_1a_3x3 (none)" in page.sections["depth"]


def test_no_manifest(copied, write):
    directory = copied("onnx-int8")
    for path in directory.glob("*.manifest.json"):
        path.unlink()
    done, page = write(directory)
    assert done.passed and done.artifacts[0].changed is None
    assert "No manifest beside it" in page.sections["files"]
    assert done.artifacts[0].measurement.images[0].top[0].name.isdigit()


# Evaluations


def test_an_evaluation(whole, evaluation):
    told = json.loads(evaluation.read_text())
    done, page = whole
    scores = {item["name"]: item for item in told["artifacts"]}
    for item in done.artifacts:
        if item.task == "feature_vector":
            assert item.score is None
            continue
        expected = scores[str(item.verified.path)]
        assert item.score.top_1 == expected["top_1"]
        assert item.score.top_5 == expected["top_5"]
        assert item.score.count == 24
    for agreement in told["agreements"]:
        item = of_name(done, agreement["second"])
        assert item.score.agreement == agreement["share"]
        assert item.score.differing == len(agreement["differing"])
    assert "24 images" in page.sections["evaluation"]
    assert "How often are they right?" in page.sections["evaluation"]
    assert done.not_here == ()


def of_name(done, name):
    (item,) = (item for item in done.artifacts if str(item.verified.path) == name)
    return item


@pytest.mark.slow
def test_images_that_artifacts_differ_about(artifacts, write, changed):
    image = {"image": "rose/0.png", "label": "rose", "first": "tulip", "second": "iris"}
    outside = image | {"image": "../evaluation.json"}

    def differ(told):
        told["agreements"][0]["differing"] = [image, outside] * 20

    path, told = changed(differ)
    done, page = write(artifacts, evaluation=path)
    item = of_name(done, told["agreements"][0]["second"])
    assert item.score.differing == 40 and len(item.score.differences) == 24
    text = page.sections["evaluation"]
    assert f"Where {item.label} says something else" in text
    assert text.count("rose/0.png") == 12 and "And 16 more." in text
    section = page.text[page.text.index('<section id="evaluation"') :]
    assert section.count('height="48"') == 12


@pytest.mark.slow
def test_figures_of_other_bytes_are_left_out(artifacts, write, changed):
    path, told = changed(lambda told: told["artifacts"][0].update(digest="0" * 64))
    events = []
    done, page = write(artifacts, evaluation=path, progress=events.append)
    (name,) = done.not_here
    assert name == told["artifacts"][0]["name"]
    assert of_name(done, name).score is None
    assert f"none of those at hand: {name}" in page.sections["evaluation"]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any(name in note and "left out" in note for note in notes)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"artifacts": [{}], "agreements": []}', "[" * 100_000, "\xff"],
)
def test_no_evaluation(write, tmp_path, content):
    path = tmp_path / "evaluation.json"
    path.write_text(content, encoding="latin-1")
    (tmp_path / "artifacts").mkdir()
    with pytest.raises(EvaluationError, match=r"evaluation\.json is no evaluation of"):
        write(tmp_path / "artifacts", evaluation=path)
    assert not (tmp_path / "report.html").exists()


# The file


def test_what_is_in_the_way(copied, write, tmp_path):
    output = tmp_path / "report.html"
    output.write_text("mine")
    with pytest.raises(ExportError, match="exists already"):
        write(tmp_path, force=False)
    assert output.read_text() == "mine"
    output.unlink()
    output.mkdir()
    with pytest.raises(ExportError, match="is a directory; expected a file"):
        write(tmp_path)


def test_nothing_is_half_written(copied, write, tmp_path, monkeypatch):
    directory = copied("onnx-int8")
    (tmp_path / "report.html").write_text("mine")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("exporters.reporting.page.render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(directory)
    assert (tmp_path / "report.html").read_text() == "mine"
    assert not list(tmp_path.glob(".irv2-*"))


def test_no_artifacts(write, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="is no artifact, and holds none"):
        write(tmp_path / "empty")


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_the_extra_is_missing(write, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'irv2\[report\]'"):
        write(tmp_path)


def test_two_artifacts_of_a_format_are_called_by_their_names(block, tmp_path):
    blocks.make(tmp_path, CHECKPOINT, ["onnx-float32"])
    directory = blocks.make(tmp_path, CHECKPOINT, ["onnx-float32"], nchw=True)
    done, _ = blocks.write(directory, tmp_path / "report.html", CHECKPOINT)
    labels = [item.label for item in done.artifacts]
    assert labels == [item.verified.path.name for item in done.artifacts]
    assert len(labels) == 4


def test_two_artifacts_of_one_name_are_called_by_their_paths(block, tmp_path):
    for name in ("$old$", "new"):
        (tmp_path / name).mkdir()
        blocks.make(tmp_path / name, CHECKPOINT, ["onnx-float32"], ["classification"])
    directories = [tmp_path / "new", tmp_path / "$old$"]
    paths = [path for of in directories for path in (of / "artifacts").glob("*.onnx")]
    done, page = blocks.write(paths, tmp_path / "report.html", CHECKPOINT, latency=True)
    labels = [item.label for item in done.artifacts]
    assert sorted(labels) == sorted(map(str, paths))
    assert all(page.bar(f"/artifacts/{n}/bytes") > 0 for n in range(2))
