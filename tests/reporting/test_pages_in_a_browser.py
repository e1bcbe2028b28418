"""Pages in a browser: at two widths, in light and dark, printed, and asking for nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from consumers import environments
from reporting import blocks

from checkpoints.reader import Provenance

pytestmark = pytest.mark.consumers

LOOKS = [(1200, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def visited(block, artifacts, tmp_path_factory):
    """(is stand-in, width) -> what a browser shows of a page."""
    try:
        node_modules, browser = environments.node_modules(), environments.browser()
    except environments.NoInterpreterError as reason:
        pytest.skip(str(reason))
    place = tmp_path_factory.mktemp("pages")
    of = blocks.checkpoint()
    evaluation = blocks.evaluated(artifacts, place)
    blocks.write(
        artifacts, place / "real.html", of, latency=True, evaluation=evaluation
    )
    stand_in = blocks.checkpoint(Provenance.STAND_IN)
    directory = blocks.make(place, stand_in, ["onnx-int8", "tflite-int8"])
    next(directory.glob("*.tflite")).unlink()
    blocks.write(directory, place / "stand-in.html", stand_in)
    keys = [(page, *look) for page in ("real", "stand-in") for look in LOOKS]
    jobs = [
        {
            "page": str(place / f"{page}.html"),
            "width": width,
            "scheme": scheme,
            "screenshot": str(place / f"{page}-{width}.png"),
            "pdf": str(place / f"{page}-{width}.pdf"),
        }
        for page, width, scheme in keys
    ]
    (place / "jobs.json").write_text(json.dumps(jobs))
    arguments = [browser, place / "jobs.json", place / "results.json"]
    environments.run_in_node(node_modules, "report_consumer.js", *arguments)
    found = json.loads((place / "results.json").read_text())
    for shown, job in zip(found, jobs):
        shown["pdf"] = Path(job["pdf"]).read_bytes()
    return {(page, width): shown for (page, width, _), shown in zip(keys, found)}


@pytest.mark.parametrize("width", [width for width, _ in LOOKS])
@pytest.mark.parametrize("page", ["real", "stand-in"])
def test_it_asks_for_nothing_and_fits(visited, page, width):
    shown = visited[page, width]
    assert shown["asked"] == [] and shown["complaints"] == []
    assert not shown["isTooWide"]
    assert shown["pdf"].startswith(b"%PDF") and len(shown["pdf"]) > 10_000


@pytest.mark.parametrize("width", [width for width, _ in LOOKS])
def test_figures_are_the_jsons(visited, width):
    figures = visited["real", width]["figures"]
    assert len(figures) > 150
    assert all(figure["isSame"] for figure in figures)
    assert {"/artifacts/0/main/cosine", "/artifacts/0/bytes"} < {
        figure["at"] for figure in figures
    }


def brightness(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3]))


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_plots_can_be_read(visited, width, scheme):
    shown = visited["real", width]
    assert (brightness(shown["paper"]) > 600) is (scheme == "light")
    titles = [plot["title"] for plot in shown["plots"]]
    for title in ("Size, MB", "Latency", "1 - cosine", "Top-1"):
        assert title in titles
    assert [t for t in titles if t.startswith("Error through the depth of onnx-int8")]
    for plot in shown["plots"]:
        assert 200 < plot["width"] <= min(width, 520)
        assert plot["smallest"] > 6  # Pixels, of a line of text.
        for colour in (plot["label"], plot["colour"]):
            assert abs(brightness(colour) - brightness(shown["paper"])) > 120, plot


@pytest.mark.parametrize("width", [width for width, _ in LOOKS])
def test_stand_ins_are_marked_wherever_a_screenshot_is_cut(visited, width):
    shown = visited["stand-in", width]
    assert shown["title"].startswith("STAND-IN: 3 of 4")
    assert all(section["isMarked"] for section in shown["sections"])
    assert all("STAND-IN" in section["text"] for section in shown["sections"])
    assert all(plot["title"].startswith("STAND-IN ") for plot in shown["plots"])
    assert "1 of 4 DO NOT AGREE" in shown["sections"][0]["text"]
    real = visited["real", width]
    assert not any(section["isMarked"] for section in real["sections"])
