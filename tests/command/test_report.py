"""`irv2 report`, from its arguments to the page, the screen and the exit code."""

import json

import fake_format
import pytest
from PIL import Image

from checkpoints import stand_in
from exporters import formats
from exporters.command import exit_codes
from exporters.reporting import reporting

NAME = "inception_resnet_v2-8-classes-classification-fake-75.fake"
REPORT = ["report", "out", "--checkpoint", "good.ckpt", "--output", "pages/report.html"]


@pytest.fixture
def place(tmp_path, monkeypatch, fake_layout, irv2):
    """The working directory, with a checkpoint, and what was exported from it."""
    monkeypatch.setitem(formats.FORMATS, "fake", fake_format.FORMAT)
    for module in ("exporting", "reporting.reporting"):
        monkeypatch.setattr(f"exporters.{module}.Reference", fake_format.FakeReference)
    monkeypatch.setattr("checkpoints.layout.num_classes", lambda variables: 8)
    monkeypatch.chdir(tmp_path)
    stand_in.write_v1(fake_format.variables(), tmp_path / "good.ckpt")
    (tmp_path / "labels.txt").write_text("\n".join("abcdefgh"))
    done = irv2(
        *(
            "export",
            "--checkpoint",
            "good.ckpt",
            "--output",
            "out",
            "--formats",
            "fake",
        ),
        *("--image-size", "75", "--labels", "labels.txt"),
    )
    assert done.code == 0, done.err
    return tmp_path


def facts_of(page):
    _, _, rest = page.read_text().partition(
        '<script type="application/json" id="report">'
    )
    return json.loads(rest.partition("</script>")[0])


def test_a_page(irv2, place):
    code, out, err = irv2(*REPORT, "--latency")
    assert code == 0
    assert out.splitlines()[-1] == "pages/report.html"
    assert "2 of 2 artifacts agree with the checkpoint" in out
    assert " ... agrees, " in err and "  draw ... " in err
    facts = facts_of(place / "pages" / "report.html")
    assert facts["passed"] is True
    assert facts["command"].endswith("--output pages/report.html --latency")
    assert facts["command"].startswith("irv2 report out --checkpoint good.ckpt")
    assert list(place.joinpath("pages").iterdir()) == [place / "pages" / "report.html"]


def test_for_machines(irv2, place):
    code, out, _ = irv2(*REPORT, "--json")
    assert code == 0
    assert json.loads(out) == facts_of(place / "pages" / "report.html")


def test_what_does_not_agree(irv2, place):
    weights = fake_format.variables()
    weights["layer/biases"][3] *= 1.01
    stand_in.write_v1(weights, place / "good.ckpt")
    code, out, err = irv2(*REPORT)
    assert code == exit_codes.MISMATCH
    assert out.splitlines()[-1] == "pages/report.html"
    assert f"irv2: out/{NAME} does not agree" in err
    facts = facts_of(place / "pages" / "report.html")
    assert [found["result"] for found in facts["artifacts"]] == ["DIFFERS"] * 2


def test_what_is_missing_or_broken(irv2, place):
    (place / "out" / NAME).unlink()
    code, _, err = irv2(*REPORT)
    assert code == exit_codes.BAD_INPUT
    assert f"out/{NAME} does not exist" in err
    facts = facts_of(place / "pages" / "report.html")
    assert {found["result"] for found in facts["artifacts"]} == {"FAILED", "agrees"}


def test_what_cannot_be_used(irv2, place):
    page = place / "pages" / "report.html"
    page.parent.mkdir()
    page.write_text("mine")
    (place / "evaluation.json").write_text("{}")
    for options, message in (
        ([], "pages/report.html exists already. Use --force to replace it."),
        (
            ["--force", "--evaluation", "evaluation.json"],
            "is no evaluation of this irv2",
        ),
        (["--force", "--evaluation", "none.json"], "none.json: No such file"),
        (["--force", "--images", "none"], "none does not exist"),
    ):
        code, out, err = irv2(*REPORT, *options)
        assert (code, out) == (exit_codes.BAD_INPUT, "")
        assert message in err and "Traceback" not in err
        assert page.read_text() == "mine"
    assert irv2(*REPORT, "--force").code == 0
    assert facts_of(page)["passed"]


def test_an_evaluation_of_the_same_files(irv2, place):
    images = place / "images" / "0"
    images.mkdir(parents=True)
    Image.new("RGB", (90, 90), "red").save(images / "red.png")
    code, out, _ = irv2(
        *("evaluate", f"out/{NAME}", "--images", "images", "--cards", "--json"),
        *("--label-offset", "0"),
    )
    assert code == 0
    (place / "evaluation.json").write_text(out)
    assert irv2(*REPORT, "--evaluation", "evaluation.json").code == 0
    facts = facts_of(place / "pages" / "report.html")
    scores = {found["name"]: found["score"] for found in facts["artifacts"]}
    assert scores[NAME]["count"] == 1
    assert json.loads(out)["artifacts"][0]["top_1"] == scores[NAME]["top_1"]
    assert [score for name, score in scores.items() if name != NAME] == [None]
    assert "## Evaluation" in (place / "out" / f"{NAME}.card.md").read_text()
    assert reporting.SCHEMA_VERSION == facts["irv2_report"]
