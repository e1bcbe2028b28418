"""What the results of the verbs look like, in a log and on a terminal of 80 columns."""

import re

import pytest
from terminals import run, run_on_terminal, shown

from exporters.formats import FORMATS

RESULTS = """
from pathlib import Path
from exporters.command import show
from exporters.exporting import Export, ExportedArtifact
from exporters.formats import FORMATS
from exporters.inspection import Inspection
from exporters.parity import OutputParity, ParityReport
from exporters.progress import Note, Step
from exporters.verification import Verification, VerifiedArtifact
from exporters.weight_parity import WeightParity

def report(format, task="classification", error=1e-7, cosine=1.0, wrong=(), **facts):
    tolerance = FORMATS[format].tolerance
    top_1 = 0.875 if task == "classification" else None
    output = "logits" if task == "classification" else "feature_vector"
    main = OutputParity(1.0, error, cosine, top_1, top_1, tolerance)
    weights = WeightParity(490, wrong)
    return ParityReport(format, task, {"299 x 299": 8}, output, {output: main}, weights, **facts)

def exported(format, task="classification", **figures):
    found = report(format, task, **figures)
    path = Path("build/artifacts") / f"inception_resnet_v2-{task}-{format}-stand-in.onnx"
    return ExportedArtifact(path, format, task, 62_600_000, {"write": 5.04, "verify": 8.0}, found)

def export(*artifacts, as_json=False):
    done = Export(Path("build/artifacts"), Path("x.ckpt"), "0" * 64, True, None, None,
                  artifacts, {"read": 1.0, "graphs": 9.0})
    show.export(console, done, as_json)

def verified(path, format, task="classification", **figures):
    return VerifiedArtifact(Path(path), report(format, task, **figures))

def verification(*artifacts, skipped={}):
    done = Verification(Path("x.ckpt"), "0" * 64, True, "generated images", artifacts, skipped)
    show.verification(console, done, False)

ALL = [exported(format, task, error=0.16 if "int8" in format else 2.4e-7,
                cosine=0.985213 if "int8" in format else 0.9999999999)
       for format in FORMATS for task in ("feature_vector", "classification")]
"""


def in_a_log(script):
    """Lines on standard output, and those on standard error."""
    done = run(RESULTS + script)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines(), done.stderr.decode().splitlines()


def on_a_terminal(script):
    """What is on a terminal of 80 columns in the end."""
    sent, done = run_on_terminal(RESULTS + script)
    assert done.returncode == 0, sent
    return shown(sent)


def cells(line):
    return re.split("  +", line.strip())


def test_an_export_in_a_log():
    out, err = in_a_log("export(*ALL)")
    header, _rule, *rows, empty, total = out
    assert cells(header) == [
        "task",
        "format",
        "size",
        "write s",
        "verify s",
        "error / limit",
        "cosine / limit",
        "top-1",
        "weights",
        "result",
    ]
    assert len(rows) == 2 * len(FORMATS)
    assert cells(rows[0]) == [
        *("feature_vector", "v1", "62.6 MB", "5.0", "8.0"),
        *("2.4e-07 / 2e-05", "1 / 0.999999", "490/490", "agrees"),
    ]
    assert cells(rows[2 * list(FORMATS).index("tflite-int8") + 1]) == [
        *("classification", "tflite-int8", "62.6 MB", "5.0", "8.0"),
        *("0.16 / 0.25", "0.9852 / 0.95", "88%", "490/490", "agrees"),
    ]
    assert (empty, total) == ("", f"{2 * len(FORMATS)} artifacts in build/artifacts")
    assert err == []


def test_an_export_on_a_terminal_has_a_line_for_each_artifact():
    header, _rule, *rows, left_out, _empty, total = on_a_terminal("export(*ALL)")
    assert cells(header) == [
        *("task", "format", "error / limit", "cosine / limit", "result")
    ]
    assert [cells(row)[1] for row in rows][::2] == list(FORMATS)
    assert all(cells(row)[-1] == "agrees" for row in rows)
    assert left_out.startswith("(no room for: size")
    assert total == f"{2 * len(FORMATS)} artifacts in build/artifacts"


def test_ranks_are_of_classes_alone():
    (header, *_), _ = in_a_log('export(exported("v4", "feature_vector"))')
    assert "top-1" not in header


def test_nothing_is_said_of_a_comparison_that_was_not_made():
    out, _ = in_a_log(
        'export(ExportedArtifact(Path("x"), "v4", "feature_vector", 5, {"write": 1.0}))'
    )
    assert cells(out[0]) == ["task", "format", "size", "write s", "result"]
    assert cells(out[2]) == ["feature_vector", "v4", "5 bytes", "1.0", "not compared"]


@pytest.mark.parametrize(
    ("figures", "error", "cosine"),
    [
        ("error=0.25, cosine=0.95", "0.25", "0.95"),
        ("error=0.2500003, cosine=0.9499998", "0.2500003", "0.9499998"),
        ("error=0.2496, cosine=0.95001", "0.2496", "0.95001"),
        ("error=float('inf'), cosine=-1.0", "inf", "-1"),
    ],
)
def test_no_figure_is_rounded_over_its_limit(figures, error, cosine):
    out, _ = in_a_log(f'export(exported("onnx-int8", {figures}))')
    assert f"  {error} / 0.25  " in out[2]
    assert f"  {cosine} / 0.95  " in out[2]


FAILING = """
export(
    exported("v4"),
    exported("v5", error=0.5, wrong=tuple(f"{x}: missing" for x in "abcde"),
             problems=("made of the checkpoint 012345..., compared with 6789...",)),
    ExportedArtifact(Path("build/artifacts/x"), "v3", "classification",
                     error="build/artifacts/x cannot be written: No space left on device"),
    ExportedArtifact(Path("build/y"), "onnx-float16", "classification",
                     error="too much for float16"),
    as_json=%s,
)
"""


@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_not_kept_is_told_below(as_json):
    out, err = in_a_log(FAILING % as_json)
    assert err == [
        "irv2: build/artifacts/inception_resnet_v2-classification-v5-stand-in.onnx does "
        "not agree with the checkpoint and was not kept:",
        "  made of the checkpoint 012345..., compared with 6789...",
        "  output logits: error 0.5 of the largest magnitude (at most 2e-05), cosine 1 "
        "(at least 0.999999)",
        "  weight a: missing",
        "  weight b: missing",
        "  weight c: missing",
        "  and 2 more weights of 490",
        "irv2: build/artifacts/x cannot be written: No space left on device",
        "irv2: build/y: too much for float16",
    ]
    if not as_json:
        assert [cells(row)[-1] for row in out[2:5]] == ["agrees", "DIFFERS", "FAILED"]
        assert out[-1] == "1 artifact in build/artifacts, 3 not made or not kept"


def test_trials_of_a_budget():
    out, _ = in_a_log(
        """
import dataclasses, math
from exporters.budget import Score, Trial
from exporters.parity import Tolerance

item = exported("onnx-int8")
figures = dataclasses.replace(item.report.main, tolerance=Tolerance(math.inf, -1))
trials = (Trial((), figures, 31.4, Score(285, 290, 297, 0.5)),
          Trial(("Mixed_7a", "Block8"), figures, 40.2, Score(289, 290, 297, 0.5)))
export(dataclasses.replace(item, trials=trials))
"""
    )
    head, _, first, second, chosen = out[3:8]
    assert "top-1 / points lost" in head
    assert re.search(r"0 blocks in float .* 96.0% / 1.68 of 0.5 .* no$", first.strip())
    assert re.search(
        r"2 blocks in float .* 97.3% / 0.337 of 0.5 .* yes$", second.strip()
    )
    assert chosen == "In float: Mixed_7a, Block8"


def test_what_was_not_kept_on_a_terminal():
    lines = on_a_terminal(FAILING % False)
    assert max(map(len, lines)) <= 80
    assert "  weight a: missing" in lines
    assert "irv2: build/artifacts/x cannot be written: No space left on device" in lines


def test_a_verification_has_the_same_columns():
    script = """
verification(verified("a/x.onnx", "onnx-int8", error=0.16, cosine=0.985213),
             verified("a/y", "v4", "feature_vector"))
"""
    (header, _, first, second, _empty, total), err = in_a_log(script)
    assert cells(header) == [
        *("task", "format", "error / limit", "cosine / limit", "top-1", "weights"),
        "result",
    ]
    assert cells(first) == [
        *("classification", "onnx-int8", "0.16 / 0.25", "0.9852 / 0.95"),
        *("88%", "490/490", "agrees"),
    ]
    assert cells(second)[:2] == ["feature_vector", "v4"]
    assert total == "2 of 2 artifacts agree with the checkpoint"
    assert err == []


def test_artifacts_of_one_kind_are_told_apart_by_their_paths():
    script = """
name = "inception_resnet_v2-classification-onnx-int8-stand-in.onnx"
verification(*(verified(f"{folder}/{name}", "onnx-int8") for folder in "ab"))
"""
    (header, _, first, second, *_), _ = in_a_log(script)
    assert cells(header)[0] == "artifact"
    assert first.startswith(
        "a/inception_resnet_v2-classification-onnx-int8-stand-in.onnx"
    )
    assert second.startswith("b/inception_resnet_v2")
    lines = on_a_terminal(script)
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("a/inception_resnet_v2-") for line in lines)


def test_files_of_other_tools_have_their_paths_and_what_was_found_out():
    (header, _, row, *_), err = in_a_log(
        """
from exporters.identification import IdentifiedFile
found = report("onnx-float32", notes=("read as ONNX, float32", "run on NHWC images"))
verification(VerifiedArtifact(Path("a/x.onnx"), found, identified=IdentifiedFile("x")))
"""
    )
    assert cells(header)[0] == "artifact"
    assert cells(row)[0] == "a/x.onnx"
    assert err == ["x.onnx: read as ONNX, float32", "x.onnx: run on NHWC images"]


def test_what_was_skipped_is_told_with_its_reason():
    _, err = in_a_log(
        """
verification(verified("a", "v4"), skipped={Path("x.onnx"): "empty", Path(".y"): "hidden"})
"""
    )
    assert err == [
        "skipped: x.onnx, because it is empty",
        "skipped: .y, because it is hidden",
    ]


def test_not_everything_that_was_skipped_is_named():
    _, err = in_a_log(
        """
photos = {Path(f"{number}.jpg"): "no artifact of a known format" for number in range(500)}
verification(verified("a", "v4"), skipped=photos)
"""
    )
    assert len(err) < 15
    assert err[-1] == "and 490 more"


def test_facts_have_lines_of_their_own():
    script = """
show.inspection(console, Inspection(Path("x"), "artifact", {
    "image size": [224, 320],
    "outputs": ["logits", "InceptionResnetV2/Mixed_5b"],
    "options": {"image_size": [224, 320], "nchw": True, "endpoints": False},
    "numbers": 1234567,
    "optimizer variables, not used": 0,
    "made of checkpoint": "0123456789abcdef" * 4,
    "provenance": None,
    "stand-in": False,
}), False)
"""
    out, _ = in_a_log(script)
    assert [cells(line) for line in out] == [
        ["kind", "artifact"],
        ["image size", "224 x 320"],
        ["outputs", "logits"],
        ["InceptionResnetV2/Mixed_5b"],
        ["options", "image_size 224 x 320, nchw yes, endpoints no"],
        ["numbers", "1,234,567"],
        ["checkpoint", "0123456789abcdef" * 4],
        ["stand-in", "no"],
    ]
    assert on_a_terminal(script) == out


def test_progress_of_a_verb():
    _, err = in_a_log(
        """
with show.Steps(console) as progress:
    progress(Step("read x"))
    progress(Note("A note."))
    progress(Step("pack", done=1_000_000, total=4_000_000, unit="bytes"))
    progress(Step("generate", done=3, total=908))
    progress(Step("[1/2] v4", "write"))
    progress(Step("[1/2] v4", "agrees", passed=True))
    progress(Step("[2/2] v5", "write"))
"""
    )
    took = re.compile(r"\d+\.\d s$")
    assert [took.sub("TIME", line) for line in err] == [
        "A note.",
        "  read x ... TIME",
        "  pack ... TIME",
        "  generate ... TIME",
        "  [1/2] v4 ... agrees, TIME",
        "  [2/2] v5 ... TIME",
    ]


def test_steps_that_wait_are_not_shown():
    _, err = in_a_log(
        """
with show.Steps(console) as progress:
    progress(Step("[1/2] v4", "write"))
    progress(Step("[1/2] v4", waits=True))
    progress(Step("[2/2] v5", "write"))
    progress(Step("[2/2] v5", waits=True))
    progress(Step("[1/2] v4", "verify", goes_on=True))
    progress(Step("[2/2] v5", "agrees", passed=True, seconds=3.25))
    progress(Step("[1/2] v4", "agrees", passed=True, seconds=71.0))
"""
    )
    assert err == [
        "  [2/2] v5 ... agrees, 3.2 s",
        "  [1/2] v4 ... agrees, 1 min 11 s",
    ]


def test_steps_that_go_on_beside_others():
    _, err = in_a_log(
        """
with show.Steps(console) as progress:
    progress(Step("[1/3] v4", "write"))
    progress(Step("[1/3] v4", "verify", goes_on=True))
    progress(Step("[2/3] v5", "write"))
    progress(Step("[2/3] v5", "verify", goes_on=True))
    progress(Step("[3/3] v3", "write"))
    progress(Step("[1/3] v4", "DIFFERS", passed=False))
    progress(Step("[3/3] v3", "agrees", passed=True))
    progress(Step("look at it"))
    progress(Step("[2/3] v5", "agrees", passed=True))
"""
    )
    took = re.compile(r"\d+\.\d s$")
    assert [took.sub("TIME", line) for line in err] == [
        "  [1/3] v4 ... DIFFERS, TIME",
        "  [3/3] v3 ... agrees, TIME",
        "  [2/3] v5 ... agrees, TIME",
        "  look at it ... TIME",
    ]
