"""`irv2 evaluate`, from its arguments to what is on the screen."""

import json
import re
import sys

import colours
import fake_format
import numpy as np
import pytest

from checkpoints import stand_in
from exporters import formats
from exporters.command import exit_codes, steps
from exporters.command.streams import Stream
from exporters.evaluation import evaluating, features
from exporters.evaluation.vectors import Vectors, write_part


@pytest.fixture
def place(tmp_path, monkeypatch, fake_layout):
    """The working directory, with two artifacts, a checkpoint, and images."""
    monkeypatch.setitem(formats.FORMATS, "fake", fake_format.FORMAT)
    for module in (evaluating, features):
        monkeypatch.setattr(module, "Reference", fake_format.FakeReference)
    monkeypatch.setattr("checkpoints.layout.num_classes", lambda variables: 8)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").mkdir()
    colours.artifact(tmp_path / "artifacts" / "a.fake")
    colours.artifact(tmp_path / "artifacts" / "b.fake", colours.blind_to_red())
    stand_in.write_v1(colours.variables(), tmp_path / "colours.ckpt")
    (tmp_path / "labels.txt").write_text("\n".join(colours.NAMES))
    images = colours.folders(tmp_path / "images")
    colours.save(images, "99", "strange.png", 1)
    (images / "3" / "corrupt.png").touch()
    return tmp_path


EVALUATE = ["evaluate", "artifacts", "--images", "images", "--labels", "labels.txt"]


def cells(text, first):
    (line,) = (line for line in text.splitlines() if line.startswith(f"{first}  "))
    return re.split("  +", line.strip())


def test_evaluate(irv2, place):
    code, out, err = irv2(*EVALUATE)
    assert code == 0
    assert cells(out, "artifacts/a.fake") == [
        "artifacts/a.fake",
        "fake",
        "100.00%",
        "100.00%",
    ]
    assert cells(out, "artifacts/b.fake")[2:] == ["87.50%", "87.50%", "87.50%"]
    assert "\n24 images of images, " in out
    assert "\nClasses by artifacts/a.fake:\n" in out
    assert cells(out, "black") == ["black", "3", "100.00%", "100.00%"]
    assert "3 images for which artifacts/b.fake says something else" in out
    assert cells(out, "4/0.png") == ["4/0.png", "red", "red", "black"]
    assert "no class of the network: 99, 1 image\n" in err
    assert "cannot be read: 3/corrupt.png cannot be read as an image" in err
    assert "2 of 26 images have no part in the figures.\n" in err
    assert "Labels are the numbers of the network's classes" not in out


def test_evaluate_the_checkpoint_for_machines(irv2, place):
    code, out, _ = irv2(
        *(*EVALUATE, "--checkpoint", "colours.ckpt", "--image-size", "75"),
        *("--batch-size", "3", "--label-offset", "0", "--state", "state", "--json"),
    )
    assert code == 0
    found = json.loads(out)
    assert [item["name"] for item in found["artifacts"]] == [
        "checkpoint",
        "artifacts/a.fake",
        "artifacts/b.fake",
    ]
    assert [item["top_1"] for item in found["artifacts"]] == [1, 1, 0.875]
    assert found["unknown"] == {"99": 1}
    assert [len(pair["differing"]) for pair in found["agreements"]] == [0, 3]
    assert (place / "state").is_file()


def test_an_artifact_that_cannot_be_opened(irv2, place):
    (place / "artifacts" / "c.fake").write_bytes(b"PK damaged")
    code, out, err = irv2(*EVALUATE)
    assert code == exit_codes.BAD_INPUT
    assert cells(out, "artifacts/c.fake")[-1] == "failed"
    assert "irv2: artifacts/c.fake is damaged" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--images", "nowhere"], "nowhere does not exist. Expected a directory"),
        (["--images", "artifacts"], "artifacts holds no images"),
        (["--images", "labels.txt"], "labels.txt is no TFRecord file"),
        (["--state", "labels.txt"], "labels.txt is no state of an evaluation"),
        (["--ground-truth", "labels.txt"], "--ground-truth has no effect on images"),
        (["--image-size", "60"], "expected at least 75 x 75"),
        (["--label-offset", "50"], "which has 8"),
    ],
)
def test_trouble(irv2, place, arguments, expected):
    before = sorted(place.rglob("*"))
    code, out, err = irv2(*EVALUATE, *arguments, "--json")
    assert code == exit_codes.BAD_INPUT
    assert expected in err
    assert json.loads(out)["exit_code"] == 3
    assert "Traceback" not in err
    assert sorted(place.rglob("*")) == before


# Features


def test_features_and_their_comparison(irv2, place):
    model = colours.artifact(place / "f.fake", task="feature_vector")
    arguments = ["--images", "images", "--batch-size", "5", "--part-size", "20"]
    code, out, err = irv2("features", model, *arguments, "--output", "one")
    assert (code, out) == (0, "one\n")
    assert "25 vectors, 25 of them new" in err
    assert "cannot be read: 3/corrupt.png cannot be read as an image" in err
    assert "1 image without a vector." in err
    code, out, _ = irv2(
        *("features", "--checkpoint", "colours.ckpt", *arguments, "--kind", "parquet"),
        *("--image-size", "75", "--output", "other", "--json"),
    )
    found = json.loads(out)
    assert (code, found["written"], found["output"]) == (0, 25, "other")
    code, out, _ = irv2("compare-features", "one", "other")
    assert code == 0
    assert cells(out, "verdict") == ["verdict", "may join"]
    assert cells(out, "images") == ["images", "25 in both"]
    code, out, _ = irv2("compare-features", "one", "other", "--json")
    assert json.loads(out)["may_join"] is True


def test_features_that_may_not_join(irv2, place):
    values = np.random.default_rng(0).normal(size=(2, 30, 8)).astype(np.float32)
    for name, part in zip(("one", "other"), values):
        names = [f"{number}.png" for number in range(30)]
        write_part(place / name, "npz", Vectors(names, part, {"value": "logits"}))
    code, out, _ = irv2("compare-features", "one", "other")
    assert code == exit_codes.MISMATCH
    assert cells(out, "verdict") == ["verdict", "MAY NOT JOIN"]
    code, _, err = irv2("compare-features", "one", "images")
    assert code == exit_codes.BAD_INPUT
    assert "images holds no vectors" in err


# Progress


def test_images_a_second_and_the_time_that_is_left_are_shown(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(steps.time, "monotonic", lambda: now[0])
    changed = []
    shown = steps.Step(
        "evaluate", Stream(sys.stderr, 2, "x"), lambda: changed.append(1)
    )
    shown.count(8, 50_000, "images")
    now[0] += 10
    shown.count(108, 50_000, "images")
    assert shown.at == "108 of 50000, 10.0 images/s, 1 h 23 min left"
