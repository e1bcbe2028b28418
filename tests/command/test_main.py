"""The `irv2` command, as people and scripts use it."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_format
import numpy as np
import onnx
import published_directories
import pytest
from PIL import Image

from checkpoints import download, layout, stand_in
from checkpoints.http_transfer import DownloadError
from checkpoints.reader import open_checkpoint
from exporters import exporting, formats, manifest, parity, verification
from exporters.command import exit_codes
from exporters.command.arguments import parse

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "list",
    "fetch",
    "stand-in",
    "inspect",
    "export",
    "verify",
    "report",
    "evaluate",
    "features",
    "compare-features",
    "identify",
    "install",
    "uninstall",
    "pack",
]
CLASSIFIER = "inception_resnet_v2-classification-fake-75.fake"
FEATURES = "inception_resnet_v2-feature_vector-fake-75.fake"


def irv2_process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "exporters.command.main", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def tree(directory):
    """Everything in a directory, with the content of files."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


# Without TensorFlow


def test_help():
    done = irv2_process("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^    {command}  +\w", done.stdout, re.MULTILINE)
    assert "exit codes:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(irv2, monkeypatch, command):
    """Has a line for every argument, and examples, in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    done = irv2(command, "--help")
    assert done.code == 0
    assert done.out.startswith(f"usage: irv2 {command} [-h]")
    assert max(map(len, done.out.splitlines())) <= 80
    usage, *sections, examples = done.out.split("\n\n")
    listed = [line for section in sections[1:] for line in section.splitlines()[1:]]
    assert all(re.match(r"  \S.*?  +\S", line) for line in listed), listed
    arguments = re.findall(r"--[\w-]+", usage)
    told = [name for line in listed for name in re.findall(r"^  (--[\w-]+)", line)]
    assert sorted(told) == sorted(arguments)
    assert examples.startswith("examples:\n")
    assert examples.count(f"\n  irv2 {command}") >= 2


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_can_be_typed(monkeypatch, command):
    """As far as they are understood."""
    help_text = irv2_process(command, "--help").stdout
    lines = help_text.partition("examples:\n")[2].replace("\\\n", " ").splitlines()
    assert lines
    for line in lines:
        irv2, *arguments = line.split()
        assert irv2 == "irv2"
        assert parse(arguments).command


def test_version():
    done = irv2_process("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"irv2 \d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize("arguments", [["--help"], ["export", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    done = modules_imported_by(arguments)
    assert not {"numpy", "rich", "absl", "PIL", *LIBRARIES} & done


def test_the_list_of_formats_imports_no_library():
    assert not LIBRARIES & modules_imported_by(["list"])


LIBRARIES = {"tensorflow", "tf_slim", "tf_keras", "onnx", "onnxruntime"}


def modules_imported_by(arguments):
    script = f"""
import sys
from exporters.command import main
sys.argv = ["irv2", *{arguments}]
try:
    main.main()
except SystemExit as done:
    assert not done.code
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_list():
    done = irv2_process("list")
    assert done.returncode == 0
    assert done.stderr == ""
    table, _, rest = done.stdout.partition("\n\n")
    header, _, *rows = table.splitlines()
    tasks, site, *handles = rest.splitlines()
    assert header.split("  ")[0] == "format"
    assert [row.split()[0] for row in rows] == list(formats.FORMATS)
    assert tasks == "Tasks: feature_vector, classification."
    assert site == "Handles, below https://tfhub.dev/"
    assert [line.strip() for line in handles] == [
        "v1, v3, v4, v5:",
        "google/imagenet/inception_resnet_v2/TASK/VERSION",
        "tfjs-v1, tfjs-v3:",
        "google/tfjs-model/imagenet/inception_resnet_v2/TASK/VERSION/default/1",
        "tflite-published:",
        "tensorflow/lite-model/inception_resnet_v2/VERSION/metadata/1",
    ]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_list_for_machines():
    done = irv2_process("list", "--json")
    found = json.loads(done.stdout)
    assert found["tasks"] == ["feature_vector", "classification"]
    assert [row["format"] for row in found["formats"]] == list(formats.FORMATS)
    assert found["formats"][0]["published as"] == (
        "https://tfhub.dev/google/imagenet/inception_resnet_v2/{task}/1"
    )


USAGE = {
    "nothing": ([], ["COMMAND"]),
    "unknown command": (["unknown"], ["'unknown'", "inspect"]),
    "unknown option": (["list", "--unknown"], ["usage: irv2 list", "--unknown"]),
    "one path too many": (["inspect", "a", "b"], ["usage: irv2 inspect", "b"]),
    "no path": (["inspect", ""], ["expected a path, found nothing"]),
    "no checkpoint": (["export", "--output", "x"], ["--checkpoint"]),
    "no names": (["export", "--formats", ","], ["expected names"]),
    "unknown choice": (
        ["verify", "--checkpoint", "x", "--moving-averages", "maybe", "y"],
        ["'maybe'", "'use', 'ignore'"],
    ),
    "unknown type": (["export", "--integer-type", "int4"], ["'int4'", "uint8"]),
    "no MD5": (["fetch", "--md5", "not an md5"], ["32 hexadecimal digits"]),
    "no seed": (["stand-in", "--output", "x", "--seed", "first"], ["'first'"]),
    "a URL for a checkpoint": (
        ["verify", "--checkpoint", "http://host/x.tar.gz", "artifacts"],
        ["--checkpoint", "a URL", "irv2 fetch --url http://host/x.tar.gz"],
    ),
    "image size of many digits": (
        ["export", "--image-size", "9" * 5000],
        ["expected pixels as 299"],
    ),
    "image size of three numbers": (
        ["export", "--image-size", "1x299x299"],
        ["image size '1x299x299': expected pixels as 299 or 224x320, or 'dynamic'"],
    ),
    "negative image size": (
        ["export", "--image-size=-299"],
        ["image size '-299': expected pixels as 299"],
    ),
    "image size that is no number": (
        ["export", "--image-size", "big"],
        ["image size 'big': expected pixels as 299"],
    ),
}


@pytest.mark.parametrize("what", USAGE)
def test_wrong_usage(irv2, what):
    arguments, expected = USAGE[what]
    done = irv2(*arguments)
    assert done.code == exit_codes.USAGE
    assert done.out == ""
    assert done.err.startswith("usage: irv2")
    assert "error: " in done.err.splitlines()[-1]
    for part in expected:
        assert part in done.err


def test_wrong_usage_for_machines(irv2):
    done = irv2("inspect", "--json")
    found = json.loads(done.out)
    assert (done.code, found["exit_code"]) == (2, 2)
    assert "path" in found["error"]
    assert found["error"] in done.err


# Commands, with a network that is small and quick


@pytest.fixture
def place(tmp_path, monkeypatch, fake_layout):
    """The working directory, with a checkpoint, under a small network."""
    monkeypatch.setitem(formats.FORMATS, "fake", fake_format.FORMAT)
    for module in (exporting, verification):
        monkeypatch.setattr(module, "Reference", fake_format.FakeReference)
    monkeypatch.chdir(tmp_path)
    stand_in.write_v1(fake_format.variables(), tmp_path / "good.ckpt")
    return tmp_path


EXPORT = [
    *("export", "--checkpoint", "good.ckpt", "--output", "out"),
    *("--formats", "fake", "--image-size", "75"),
]
VERIFY = ["verify", "--checkpoint", "good.ckpt"]


def row_of(task, text):
    """The cells of a task's row in a table."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"{task}  "))
    return re.split("  +", line)


def test_export_and_verify(irv2, place):
    done = irv2(*EXPORT)
    assert done.code == 0
    assert row_of("feature_vector", done.out)[-1] == "agrees"
    assert row_of("classification", done.out)[-1] == "agrees"
    assert done.out.endswith("\n2 artifacts in out\n")
    assert sorted(tree(place / "out")) == [
        CLASSIFIER,
        f"{CLASSIFIER}.card.md",
        f"{CLASSIFIER}.cdx.json",
        f"{CLASSIFIER}.manifest.json",
        FEATURES,
        f"{FEATURES}.card.md",
        f"{FEATURES}.cdx.json",
        f"{FEATURES}.manifest.json",
    ]
    done = irv2(*VERIFY, "out")
    assert done.code == 0
    assert row_of("feature_vector", done.out)[-2:] == ["2/2", "agrees"]
    assert row_of("classification", done.out)[-2:] == ["2/2", "agrees"]
    assert done.out.endswith("\n2 of 2 artifacts agree with the checkpoint\n")
    assert "skipped" not in done.err


def test_export_for_machines(irv2, place):
    done = irv2(*EXPORT, "--tasks", "classification", "--json")
    result = json.loads(done.out)
    assert result["passed"] is True
    assert result["stand_in"] is False
    assert result["checkpoint"] == "good.ckpt"
    assert result["checkpoint_identity"] == fake_format.checkpoint().identity
    assert result["compared_on"] == "generated images"
    assert result["graph_seconds"] >= 0
    (found,) = result["artifacts"]
    path = Path("out") / CLASSIFIER
    assert found["path"] == str(path)
    assert found["bytes"] == path.stat().st_size
    assert found["kept"] and found["error"] is None
    assert found["parity"]["passed"]
    recorded = json.loads(manifest.path_of(path).read_text())
    assert recorded["options"] == {"image_size": [75, 75]}
    assert recorded["compared_on"] == "generated images"


def test_verify_for_machines(irv2, place):
    irv2(*EXPORT)
    (place / "out" / "notes.txt").write_text("no artifact")
    result = json.loads(irv2(*VERIFY, "out", "--json").out)
    assert result["passed"] is True
    assert result["stand_in"] is False
    assert result["checkpoint"] == "good.ckpt"
    assert result["checkpoint_identity"] == fake_format.checkpoint().identity
    assert result["compared_on"] == "generated images"
    assert set(result["artifacts"]) == {f"out/{CLASSIFIER}", f"out/{FEATURES}"}
    assert set(result["skipped"]) == {"out/notes.txt"}


def test_export_without_comparison(irv2, place):
    done = irv2(*EXPORT, "--no-verify")
    assert done.code == 0
    assert done.out.count("not compared") == 2
    assert "error / limit" not in done.out


def test_export_compares_on_images_of_a_directory(irv2, place):
    (place / "images").mkdir()
    Image.new("RGB", (90, 90), (10, 200, 30)).save(place / "images" / "green.png")
    done = irv2(*EXPORT, "--images", "images", "--json")
    assert "compared on 1 image of images and 7 generated ones." in done.err
    (found, _) = json.loads(done.out)["artifacts"]
    assert found["parity"]["images"] == {"75 x 75": 8}


def odd_images(directory):
    """Some that can be read, one of them further down, and some that cannot."""
    directory.mkdir()
    (directory / "n01440764").mkdir()
    green = Image.new("RGB", (90, 90), (10, 200, 30))
    green.save(directory / "n01440764" / "ILSVRC2012_val_00000293.JPEG")
    green.save(directory / "green.webp")
    (directory / "empty.jpg").touch()
    (directory / "notes.png").write_text("no image")
    (directory / "._green.jpg").write_bytes(b"\0\5\26\7")
    return "Not read in images: empty.jpg (empty), notes.png (no image in it)."


def test_images_that_cannot_be_read_are_named_before_long_work(irv2, place):
    note = odd_images(place / "images")
    done = irv2(*EXPORT, "--images", "images")
    assert done.code == 0
    assert "compared on 2 images of images and 6 generated ones." in done.err
    assert done.err.count(note) == 1
    assert done.err.index(note) < done.err.index("read good.ckpt")
    done = irv2(*VERIFY, "out", "--images", "images")
    assert done.code == 0
    assert done.err.index(note) < done.err.index("read good.ckpt")


def test_calibration_images_that_cannot_be_read_are_named(irv2, place):
    note = odd_images(place / "images")
    arguments = ["export", "--checkpoint", "text.ckpt", "--output", "out"]
    arguments += ["--formats", "onnx-int8", "--calibration-images", "images"]
    (place / "text.ckpt").write_text("a checkpoint, or so they say")
    done = irv2(*arguments)
    assert done.code == exit_codes.BAD_INPUT
    assert note in done.err


def test_export_replaces_only_by_force(irv2, place):
    irv2(*EXPORT)
    (place / "out" / FEATURES).write_bytes(b"old")
    assert irv2(*EXPORT).code == 3
    assert (place / "out" / FEATURES).read_bytes() == b"old"
    assert irv2(*EXPORT, "--force").code == 0
    assert irv2(*VERIFY, "out").code == 0


def test_other_options_are_another_artifact(irv2, place):
    irv2(*EXPORT)
    before = tree(place / "out")
    assert irv2(*EXPORT, "--image-size", "75x80", "--no-verify", "--force").code == 0
    assert before.items() < tree(place / "out").items()


def test_stand_ins_are_marked(irv2, place):
    done = irv2("stand-in", "--output", "good.ckpt", "--raw", "--seed", "-1", "--force")
    assert done.code == 0
    assert done.out == "good.ckpt\n"
    assert "STAND-IN" in done.err
    assert open_checkpoint(place / "good.ckpt").identity in done.err
    done = irv2(*EXPORT)
    assert "STAND-IN" in done.err
    assert all("-stand-in." in name for name in tree(place / "out"))
    done = irv2(*VERIFY, "out", "--json")
    assert "STAND-IN" in done.err
    assert json.loads(done.out)["stand_in"] is True


def test_a_stand_in_makes_its_directory(irv2, place):
    done = irv2("stand-in", "--raw", "--output", "new/folder/x.ckpt")
    assert (done.code, done.out) == (0, "new/folder/x.ckpt\n")


def test_verify_tells_what_differs(irv2, place):
    irv2(*EXPORT)
    weights = fake_format.variables()
    weights["layer/biases"][3] *= 1.01
    stand_in.write_v1(weights, place / "good.ckpt")
    for options in ([], ["--json"]):
        done = irv2(*VERIFY, "out", *options)
        assert done.code == exit_codes.MISMATCH
        message = done.err.partition(f"irv2: out/{CLASSIFIER} does not agree")[2]
        assert "\n  made of the checkpoint" in message
        assert "\n  weight layer/biases: 1 of 8 values differ" in message
    assert not json.loads(done.out)["passed"]
    assert irv2(*VERIFY, "out").out.count("DIFFERS") == 2


def test_verify_compares_files_with_the_manifest(irv2, place):
    irv2(*EXPORT, "--tasks", "classification")
    path = place / "out" / CLASSIFIER
    with np.load(path) as file:
        content = dict(file)
    with path.open("wb") as file:
        np.savez_compressed(file, **content)
    done = irv2(*VERIFY, path, "--json")
    assert done.code == exit_codes.MISMATCH
    found = json.loads(done.out)
    assert found["passed"] is False
    (report,) = found["artifacts"].values()
    assert report["weights"]["wrong"] == []
    assert report["problems"] == [f"not as its manifest says: {CLASSIFIER}"]


def write_wrong_classifiers(build, variant, task, record, path):
    """A writer that spoils one of the two tasks."""
    weights = dict(build.checkpoint)
    if task.needs_classifier:
        weights["layer/weights"] = weights["layer/weights"] * np.float32(1.01)
    with path.open("wb") as file:
        np.savez(file, record=record.to_text(), **weights)


def test_an_artifact_that_does_not_agree_is_not_kept_and_others_are(
    irv2, place, monkeypatch
):
    monkeypatch.setattr(fake_format, "write", write_wrong_classifiers)
    tasks = ("--tasks", "classification,feature_vector")
    done = irv2(*EXPORT, *tasks)
    assert done.code == exit_codes.MISMATCH
    assert row_of("classification", done.out)[-1] == "DIFFERS"
    assert row_of("feature_vector", done.out)[-1] == "agrees"
    assert done.out.endswith("\n1 artifact in out, 1 not made or not kept\n")
    assert f"irv2: out/{CLASSIFIER} does not agree with the checkpoint" in done.err
    assert "weight layer/weights: 24 of 24 values differ" in done.err
    assert sorted(tree(place / "out")) == [
        FEATURES,
        f"{FEATURES}.card.md",
        f"{FEATURES}.cdx.json",
        f"{FEATURES}.manifest.json",
    ]

    done = irv2(*EXPORT, *tasks, "--force", "--json")
    assert done.code == exit_codes.MISMATCH
    found = json.loads(done.out)
    assert not found["passed"]
    assert [item["kept"] for item in found["artifacts"]] == [False, True]


def test_nothing_is_left_of_an_export_of_nothing(irv2, place, monkeypatch):
    monkeypatch.setattr(fake_format, "write", write_wrong_classifiers)
    before = tree(place)
    assert irv2(*EXPORT, "--tasks", "classification").code == exit_codes.MISMATCH
    assert tree(place) == before


def test_options_without_effect_on_part_of_an_export_are_named(
    irv2, place, monkeypatch
):
    for name, options in {"plain": (), "soft": ("image_size", "softmax")}.items():
        row = dataclasses.replace(fake_format.FORMAT, name=name, options=options)
        monkeypatch.setitem(formats.FORMATS, name, row)
    done = irv2(*EXPORT, "--formats", "fake,plain,soft", "--softmax", "--no-verify")
    assert done.code == 0
    lines = done.err.splitlines()
    assert "--image-size has no effect on plain." in lines
    assert "--softmax has no effect on fake, plain, feature_vector." in lines
    recorded = {
        path.name: json.loads(path.read_text())["options"]
        for path in (place / "out").glob("*.manifest.json")
    }
    name = "inception_resnet_v2-{}.fake.manifest.json"
    size = {"image_size": [75, 75]}
    assert recorded == {
        name.format("feature_vector-fake-75"): size,
        name.format("classification-fake-75"): size,
        name.format("feature_vector-plain"): {},
        name.format("classification-plain"): {},
        name.format("feature_vector-soft-75"): size,
        name.format("classification-soft-75-softmax"): size | {"softmax": True},
    }


def test_inspect(irv2, place):
    done = irv2("inspect", "good.ckpt")
    assert done.code == 0
    facts = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert facts["container"] == "V1"
    assert facts["layout"] == "inception_resnet_v2"
    found = json.loads(irv2("inspect", "good.ckpt", "--json").out)
    assert found["identity"] == facts["identity"]


def test_inspect_says_what_is_wrong_with_a_layout(irv2, place):
    stand_in.write_v1({"other/weights": np.ones(3, np.float32)}, place / "other.ckpt")
    done = irv2("inspect", "other.ckpt")
    assert done.code == 0
    facts, problems = done.out.split("\nlayout ")
    assert max(map(len, facts.splitlines())) < 100
    assert problems.strip().startswith("other.ckpt is not a checkpoint of inception")
    assert "1 unexpected:" in problems
    assert "other/weights" in problems


def test_inspect_an_artifact_or_its_manifest(irv2, place):
    irv2(*EXPORT, "--tasks", "classification")
    done = irv2("inspect", f"out/{CLASSIFIER}")
    facts = dict(re.split("  +", line, maxsplit=1) for line in done.out.splitlines())
    assert facts["format"] == "fake"
    assert facts["task"] == "classification"
    assert facts["image size"] == "75 x 75"
    assert facts["layout"] == "NHWC"
    assert facts["images"] == "float32, RGB in [0, 1]"
    assert facts["outputs"] == "logits"
    assert facts["options"] == "image_size 75 x 75"
    again = irv2("inspect", f"out/{CLASSIFIER}.manifest.json")
    assert again.out == done.out


def test_inspect_a_directory_of_artifacts(irv2, place):
    irv2(*EXPORT)
    done = irv2("inspect", "out")
    assert done.code == 0
    assert f"\n{CLASSIFIER}  " in done.out
    assert f"\n{FEATURES}  " in done.out
    assert "\n2 artifacts in out;" in done.out
    found = json.loads(irv2("inspect", "out", "--json").out)
    assert found["kind"] == "directory"
    assert [item["name"] for item in found["artifacts"]] == [CLASSIFIER, FEATURES]
    assert [item["task"] for item in found["artifacts"]] == [
        "classification",
        "feature_vector",
    ]


def test_inspect_says_at_once_that_an_artifact_was_changed(irv2, place, monkeypatch):
    irv2(*EXPORT, "--tasks", "classification")
    path = place / "out" / CLASSIFIER
    path.write_bytes(path.read_bytes()[:200])
    opened = []
    monkeypatch.setattr(
        fake_format, "open", lambda path, open=fake_format.open: opened.append(open)
    )
    done = irv2("inspect", path)
    changed = f"By its manifest, these files changed: {CLASSIFIER}."
    assert changed in done.err


def test_fetch(irv2, place, monkeypatch):
    asked = []

    def fetch(url, *, md5, force, progress):
        asked.append((url, md5, force))
        progress(1, None)
        progress(2, 4)
        return place / "cached.ckpt"

    monkeypatch.setattr(download, "fetch", fetch)
    done = irv2("fetch")
    assert done.out == f"{place / 'cached.ckpt'}\n"
    assert f"download {download.PUBLISHED_URL} ..." in done.err
    md5 = "0123456789abcdef" * 2
    irv2("fetch", "--url", "http://mirror/x", "--md5", md5, "--force")
    assert asked == [
        (download.PUBLISHED_URL, download.PUBLISHED_MD5, False),
        ("http://mirror/x", md5, True),
    ]


def test_fetch_what_is_in_the_cache(irv2, place, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *_, **__: place / "cached.ckpt")
    done = irv2("fetch")
    assert done.out == f"{place / 'cached.ckpt'}\n"
    assert "http" not in done.err
    assert "cache" in done.err


# What people can act on


@pytest.fixture
def trouble(place):
    """The working directory, with everything that may be wrong in it."""
    content = (place / "good.ckpt").read_bytes()
    (place / "text.ckpt").write_text("a checkpoint, or so they say\n")
    (place / "empty.tflite").write_bytes(b"")
    (place / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    newer = onnx.ModelProto(ir_version=99, graph=onnx.GraphProto(name="graph"))
    newer.opset_import.add(version=17)
    (place / "newer.onnx").write_bytes(newer.SerializeToString())
    (place / "truncated.ckpt").write_bytes(content[: len(content) // 2])
    (place / "archive.tar.gz").write_bytes(b"\x1f\x8b" + content)
    weights = fake_format.variables()
    del weights["layer/weights"]
    stand_in.write_v1(weights, place / "missing.ckpt")
    weights["layer/weights"] = np.full((3, 8), np.nan, np.float32)
    stand_in.write_v1(weights, place / "nan.ckpt")
    weights["layer/weights"] = np.ones((8, 3), np.float32)
    stand_in.write_v1(weights, place / "shape.ckpt")
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 1])
    (place / "flipped.ckpt").write_bytes(
        content[:middle] + flipped + content[middle + 1 :]
    )

    (place / "empty").mkdir()
    (place / "broken images").mkdir()
    (place / "broken images" / "cat.jpg").write_text("a cat")
    (place / "artifacts").mkdir()
    (place / "artifacts" / CLASSIFIER).write_bytes(b"PK, but not whole")
    (place / "artifacts" / "model.onnx.txt").write_text("an artifact, or so they say")
    (place / "no artifacts").mkdir()
    (place / "no artifacts" / "empty.onnx").write_bytes(b"")
    (place / "no artifacts" / "notes.txt").write_text("notes")
    (place / "saved_model").mkdir()
    (place / "saved_model" / "saved_model.pb").write_text("a graph, or so they say")
    os.mkfifo(place / "pipe")
    published_directories.make(place / "published", "v4")
    changed = published_directories.make(place / "changed", "v4")
    (changed / "saved_model.pb").write_bytes(b"changed")
    return place


def export(**changed):
    options = dict(zip(EXPORT[1::2], EXPORT[2::2])) | {
        f"--{name.replace('_', '-')}": value for name, value in changed.items()
    }
    return ["export", *(word for option in options.items() for word in option)]


TROUBLE = {
    "no checkpoint": (
        export(checkpoint="nowhere.ckpt"),
        ["nowhere.ckpt does not exist", "Expected a V1 checkpoint file"],
    ),
    "text for a checkpoint": (
        export(checkpoint="text.ckpt"),
        ["text.ckpt is not a checkpoint", "Expected a V1 checkpoint file"],
    ),
    "truncated checkpoint": (
        export(checkpoint="truncated.ckpt"),
        ["truncated.ckpt is not a checkpoint, or a truncated one"],
    ),
    "damaged archive": (
        export(checkpoint="archive.tar.gz"),
        ["archive.tar.gz is damaged or truncated", "download or pack it again"],
    ),
    "pipe for a checkpoint": (
        export(checkpoint="pipe"),
        ["pipe is a named pipe; expected a file"],
    ),
    "directory without a checkpoint": (
        export(checkpoint="empty"),
        ["empty holds no checkpoint", "Found: no files"],
    ),
    "NaN": (
        export(checkpoint="nan.ckpt"),
        ["nan.ckpt holds values", "1 not finite", "layer/weights: 24 of 24 values"],
    ),
    "missing variable": (
        export(checkpoint="missing.ckpt"),
        ["missing.ckpt is not a", "1 missing", "layer/weights"],
    ),
    "flipped bit": (
        export(checkpoint="flipped.ckpt"),
        ["flipped.ckpt is truncated or damaged"],
    ),
    "wrong shape": (
        export(checkpoint="shape.ckpt"),
        ["shape.ckpt is not a", "layer/weights", "8, 3"],
    ),
    "option that changes nothing": (
        [*export(), "--nchw"],
        ["--nchw has no effect on fake"],
    ),
    "option that changes nothing of a task": (
        [*export(formats="tflite-int8", tasks="feature_vector"), "--softmax"],
        ["--softmax has no effect on tflite-int8 of feature_vector"],
    ),
    "calibration that changes nothing": (
        export(formats="v4", image_size="299", calibration_images="empty"),
        ["--calibration-images has no effect on v4"],
    ),
    "images to compare on, and no comparison": (
        [*export(images="broken images"), "--no-verify"],
        ["--images has no effect without a comparison"],
    ),
    "labels of another network": (
        export(labels="text.ckpt"),
        ["text.ckpt: 1 names, expected one for each", "1001 classes"],
    ),
    "moving averages of a checkpoint without": (
        export(moving_averages="use"),
        ["good.ckpt", "moving averages"],
    ),
    "unknown format": (
        export(formats="v4,v2"),
        ["unknown format 'v2'; there are: v1, v3, v4, v5, ", ", onnx-float32, "],
    ),
    "unknown task": (
        export(tasks="detection"),
        ["unknown task 'detection'; there are: feature_vector, classification"],
    ),
    "small image size": (
        export(image_size="299x74"),
        ["image size 299 x 74: expected at least 75 x 75 pixels"],
    ),
    "image size beyond memory": (
        export(image_size="99999"),
        ["image size 99999 x 99999", "at most 2048 x 2048"],
    ),
    "TFLite for any image size": (
        export(image_size="dynamic", formats="onnx-float32,tflite-float16"),
        ["'dynamic': tflite-float16 cannot do without a size"],
    ),
    "no directory of images": (
        export(images="nowhere"),
        ["nowhere does not exist. Expected a directory of images"],
    ),
    "no calibration images": (
        export(formats="tflite-int8", calibration_images="empty"),
        ["empty holds no images"],
    ),
    "an image that cannot be read": (
        export(images="broken images"),
        ["broken images holds no images; not read: cat.jpg (no image in it)"],
    ),
    "existing artifact": (
        export(output="artifacts", tasks="classification"),
        [f"artifacts already holds {CLASSIFIER}. Use --force to replace."],
    ),
    "output is a file": (
        export(output="text.ckpt"),
        ["text.ckpt is a file; expected a directory"],
    ),
    "output below a file": (
        export(output="text.ckpt/out"),
        ["text.ckpt is a file; expected a directory"],
    ),
    "no artifact": (
        [*VERIFY, "nowhere"],
        ["nowhere does not exist. Expected an artifact"],
    ),
    "text for an artifact": (
        [*VERIFY, "artifacts/model.onnx.txt"],
        ["model.onnx.txt is no artifact of a known format", ".onnx, .tflite"],
    ),
    "empty file for an artifact": (
        [*VERIFY, "empty.tflite"],
        ["empty.tflite is empty", ".onnx, .tflite"],
    ),
    "pipe for an artifact": ([*VERIFY, "pipe"], ["pipe is no artifact"]),
    "directory without artifacts": (
        [*VERIFY, "empty"],
        ["empty is no artifact, and holds none. Found: nothing"],
    ),
    "directory of other files": (
        [*VERIFY, "no artifacts"],
        [
            "holds none. Found: empty.onnx (empty), notes.txt (no artifact of "
            "a known format)"
        ],
    ),
    "checkpoint to verify with": (
        ["verify", "--checkpoint", "text.ckpt", "artifacts"],
        ["text.ckpt is not a checkpoint"],
    ),
    "nothing to inspect": (
        ["inspect", "nowhere"],
        ["nowhere does not exist", "What can be inspected", ".onnx"],
    ),
    "text to inspect": (
        ["inspect", "text.ckpt"],
        ["text.ckpt is not a checkpoint", "What can be inspected", ".onnx"],
    ),
    "Keras file to inspect": (
        ["inspect", "model.h5"],
        ["model.h5 is truncated or damaged"],
    ),
    "empty file to inspect": (
        ["inspect", "empty.tflite"],
        ["empty.tflite is empty", "What can be inspected", ".onnx"],
    ),
    "what a library says": (
        ["inspect", "newer.onnx"],
        ["cannot open newer.onnx", "Unsupported model IR version: 99, max supported"],
    ),
    "pipe to inspect": (["inspect", "pipe"], ["pipe is a named pipe"]),
    "directory of nothing to inspect": (
        ["inspect", "no artifacts"],
        ["no artifacts holds no checkpoint", "Nor is it an artifact"],
    ),
    "existing stand-in": (
        ["stand-in", "--raw", "--output", "good.ckpt"],
        ["good.ckpt exists already. Use --force to replace it."],
    ),
    "directory for a stand-in": (
        ["stand-in", "--raw", "--force", "--output", "empty"],
        ["empty is a directory; expected a file"],
    ),
    "stand-in below a file": (
        ["stand-in", "--raw", "--output", "text.ckpt/x.ckpt"],
        ["text.ckpt is a file; expected a directory"],
    ),
    "install below a file": (
        ["install", "published", "--cache", "text.ckpt"],
        ["text.ckpt is a file; expected"],
    ),
    "install nothing": (
        ["install", "no artifacts", "--cache", "cache"],
        ["no artifacts is no artifact, and holds none"],
    ),
    "install what was changed": (
        ["install", "changed", "--cache", "cache"],
        ["is not as its manifest says", "saved_model.pb"],
    ),
    "pack to a file": (
        ["pack", "published", "--output", "text.ckpt"],
        ["text.ckpt is a file; expected a directory"],
    ),
    "pack nothing": (
        ["pack", "no artifacts", "--output", "www"],
        ["no artifacts is no artifact, and holds none"],
    ),
}
FULL = Path("/proc/irv2")
"""What not even a superuser can make."""
if FULL.parent.is_dir():
    TROUBLE |= {
        f"{name} to where nothing can be made": (
            arguments,
            [f"{FULL}: No such"],
        )
        for name, arguments in {
            "export": export(output=str(FULL), checkpoint="text.ckpt"),
            "stand-in": ["stand-in", "--output", f"{FULL}/x.ckpt"],
            "install": ["install", "published", "--cache", str(FULL)],
            "pack": ["pack", "published", "--output", str(FULL)],
        }.items()
    }


@pytest.mark.parametrize("what", TROUBLE)
def test_trouble_is_told_in_a_few_lines(irv2, trouble, what):
    arguments, expected = TROUBLE[what]
    before = tree(trouble)
    done = irv2(*arguments)
    assert done.code == exit_codes.BAD_INPUT
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "Errno" not in done.err
    assert len(done.err.splitlines()) < 25
    message = done.err[done.err.index("irv2: ") :]
    for part in expected:
        assert part in message
    assert tree(trouble) == before

    if arguments[0] in ("inspect", "export", "verify"):
        done = irv2(*arguments, "--json")
        found = json.loads(done.out)
        assert (done.code, found["exit_code"]) == (3, 3)
        assert all(part in found["error"] for part in expected)


DAMAGED = {
    f"artifacts/{CLASSIFIER}": [f"{CLASSIFIER} is damaged"],
    "saved_model": [
        "saved_model cannot be read as a TF2 SavedModel",
        "incomplete or damaged",
    ],
}


@pytest.mark.parametrize("path", DAMAGED)
def test_verify_a_damaged_artifact(irv2, trouble, path):
    done = irv2(*VERIFY, path)
    assert done.code == exit_codes.BAD_INPUT
    assert done.out == "\n0 of 1 artifact agree with the checkpoint\n"
    message = done.err[done.err.index("irv2: ") :]
    assert all(part in message for part in DAMAGED[path])
    done = irv2(*VERIFY, path, "--json")
    assert done.code == exit_codes.BAD_INPUT
    found = json.loads(done.out)["artifacts"][path]
    assert not found["passed"]
    assert all(part in found["error"] for part in DAMAGED[path])


def test_export_made_again(irv2, place):
    checkpoint = EXPORT[EXPORT.index("--checkpoint") + 1]
    assert irv2(*EXPORT).code == 0
    check = ("export", "--checkpoint", checkpoint, "--check", "out")
    done = irv2(*check, "--json")
    assert done.code in (0, exit_codes.MISMATCH)  # The fake format writes the time.
    assert json.loads(done.out)["artifacts"]
    done = irv2(*check, "--formats", "fake")
    assert done.code == exit_codes.BAD_INPUT
    assert "--check takes what to make from the manifests" in done.err


def test_one_unreadable_artifact_does_not_hide_the_others(irv2, place):
    assert irv2(*EXPORT).code == 0
    (place / "out" / CLASSIFIER).write_bytes(b"")
    done = irv2(*VERIFY, "out")
    assert done.code == exit_codes.BAD_INPUT
    message = done.err[done.err.index(f"irv2: out/{CLASSIFIER} is no artifact") :]
    assert f"By its manifest, these files changed: {CLASSIFIER}." in message
    assert row_of("feature_vector", done.out)[-1] == "agrees"
    assert "1 of 2 artifacts agree" in done.out
    (place / "out" / CLASSIFIER).unlink()
    done = irv2(*VERIFY, "out", "--json")
    assert done.code == exit_codes.BAD_INPUT
    found = json.loads(done.out)
    assert not found["passed"]
    assert "does not exist" in found["artifacts"][f"out/{CLASSIFIER}"]["error"]
    assert found["artifacts"][f"out/{FEATURES}"]["passed"]


def test_a_difference_counts_more_than_an_unreadable_artifact(irv2, place):
    assert irv2(*EXPORT).code == 0
    (place / "out" / CLASSIFIER).write_bytes(b"")
    weights = fake_format.variables()
    weights["layer/biases"][3] *= 1.01
    stand_in.write_v1(weights, place / "good.ckpt")
    assert irv2(*VERIFY, "out").code == exit_codes.MISMATCH


def test_verify_says_what_it_skips(irv2, place):
    irv2(*EXPORT)
    (place / "out" / "empty.onnx").write_bytes(b"")
    (place / "out" / "model.h5").write_bytes(b"\x89HDF")
    (place / "out" / "photos").mkdir()
    done = irv2(*VERIFY, "out")
    assert done.code == 0
    assert done.err.endswith(
        "skipped: out/empty.onnx, because it is empty\n"
        "skipped: out/model.h5, because it is no artifact of a known format\n"
        "skipped: out/photos, because it is a directory that is no artifact\n"
    )


def test_what_a_shell_makes_of_a_star(irv2, place):
    """Manifests are named too."""
    irv2(*EXPORT)
    done = irv2(*VERIFY, *sorted((place / "out").iterdir()))
    assert done.code == 0
    assert "2 of 2 artifacts agree" in done.out


def test_a_full_disk(irv2, place, monkeypatch):
    def write(build, variant, task, record, path):
        if task.needs_classifier:
            raise OSError(errno.ENOSPC, "No space left on device", "scratch/unknown")
        right(build, variant, task, record, path)

    right = fake_format.write
    monkeypatch.setattr(fake_format, "write", write)
    done = irv2(*EXPORT)
    assert done.code == exit_codes.BAD_INPUT
    assert done.err.endswith(
        f"irv2: out/{CLASSIFIER} cannot be written: No space left on device\n"
    )
    assert row_of("classification", done.out)[-1] == "FAILED"
    assert row_of("feature_vector", done.out)[-1] == "agrees"
    assert sorted(tree(place / "out")) == [
        FEATURES,
        f"{FEATURES}.card.md",
        f"{FEATURES}.cdx.json",
        f"{FEATURES}.manifest.json",
    ]


def test_files_that_get_too_large(tmp_path):
    """The nearest that there is to a full disk, without one."""
    published_directories.make(tmp_path / "published", "v4", content=bytes(2 << 20))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20,) * 2)"
    before = tree(tmp_path)
    for command in (
        ["stand-in", "--raw", "--output", "new/x.ckpt"],
        ["install", "published", "--cache", "new"],
    ):
        script = f"{limit}; import sys; sys.argv = ['irv2', *{command}]"
        script += "; from exporters.command import main; main.main()"
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == exit_codes.BAD_INPUT
        assert done.stderr.splitlines()[-1].startswith("irv2: ")
        assert done.stderr.endswith("new: File too large\n")
        assert tree(tmp_path) == before


def test_a_reader_that_stops_reading():
    for command in ("list", "list --json", "inspect --json nowhere"):
        done = subprocess.run(
            f"{sys.executable} -m exporters.command.main {command} | true; "
            "exit ${PIPESTATUS[0]}",
            shell=True,
            executable="/bin/bash",
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, exit_codes.BAD_INPUT, exit_codes.BROKEN_PIPE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_results_that_cannot_be_written():
    for command in ("list", "list --json"):
        done = subprocess.run(
            f"{sys.executable} -m exporters.command.main {command} > /dev/full",
            shell=True,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == exit_codes.BAD_INPUT
        assert done.stderr == "irv2: standard output: No space left on device\n"


# TF Hub's cache


def test_install_and_uninstall(irv2, tmp_path):
    artifact = published_directories.make(tmp_path, "v4", is_stand_in=True)
    handle = f"{published_directories.PUBLISHED}/feature_vector/4"
    cache = tmp_path / "cache"
    done = irv2("install", artifact, "--cache", cache)
    assert done.code == exit_codes.BAD_INPUT
    assert "is a stand-in" in done.err and "--allow-stand-in" in done.err
    assert not cache.exists()

    done = irv2("install", artifact, "--cache", cache, "--allow-stand-in")
    assert done.code == 0
    found, directory = done.out.splitlines()
    assert found == handle
    (Path(directory.strip()) / "saved_model.pb").write_bytes(b"changed")
    again = ("install", artifact, "--cache", cache, "--allow-stand-in")
    done = irv2(*again)
    assert done.code == exit_codes.BAD_INPUT
    assert "Use --force" in done.err
    assert irv2(*again, "--force").code == 0

    done = irv2("uninstall", "--cache", cache)
    assert (done.code, done.out) == (0, f"{handle}\n")
    assert list(cache.iterdir()) == []


def test_install_for_machines(irv2, tmp_path):
    artifact = published_directories.make(tmp_path, "v4")
    done = irv2("install", artifact, "--cache", tmp_path / "cache", "--json")
    assert done.code == 0
    (found,) = json.loads(done.out)["installed"]
    assert found["handle"] == f"{published_directories.PUBLISHED}/feature_vector/4"
    assert Path(found["directory"]).is_dir()
    assert found["names"][found["handle"]] == found["directory"]
    assert not found["replaced"]


def test_install_and_pack_under_another_handle(irv2, tmp_path):
    artifact = published_directories.make(tmp_path, "v4")
    handle = ("--handle", "https://example.org/my/model/1")
    done = irv2("install", artifact, "--cache", tmp_path / "cache", *handle)
    assert done.out.splitlines()[0] == handle[1]
    done = irv2("pack", artifact, "--output", tmp_path / "www", *handle)
    assert done.out == f"{tmp_path / 'www/my/model/1.tar.gz'}\n"


def test_install_where_the_environment_says(irv2, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    assert irv2("install", published_directories.make(tmp_path)).code == 0
    assert any((tmp_path / "cache").iterdir()) and any((tmp_path / "kaggle").iterdir())
    assert irv2("uninstall").code == 0


def test_pack(irv2, tmp_path):
    artifact = published_directories.make(tmp_path, "v3")
    packing = ("pack", artifact, "--output", tmp_path / "www")
    done = irv2(*packing)
    path = "google/imagenet/inception_resnet_v2/feature_vector/3.tar.gz"
    assert (done.code, done.out) == (0, f"{tmp_path / 'www' / path}\n")
    done = irv2(*packing)
    assert done.code == exit_codes.BAD_INPUT
    assert "Use --force" in done.err
    assert irv2(*packing, "--force").code == 0


def test_another_network_is_told_in_a_few_lines(irv2, trouble, monkeypatch):
    shapes = {f"layer_{number}/weights": (3, 3) for number in range(908)}
    monkeypatch.setattr(layout, "variable_shapes", lambda: shapes)
    done = irv2(*EXPORT)
    assert done.code == exit_codes.BAD_INPUT
    assert len(done.err.splitlines()) < 25
    assert "and 904 more" in done.err


def test_a_download_that_fails(irv2, place, monkeypatch):
    def fetch(*_, **__):
        raise DownloadError("http://mirror/x: no answer")

    monkeypatch.setattr(download, "fetch", fetch)
    done = irv2("fetch")
    assert done.code == exit_codes.DOWNLOAD
    assert done.err.endswith("\nirv2: http://mirror/x: no answer\n")
    assert done.out == ""


def test_an_error_of_the_system_that_no_user_can_mend_is_a_fault(irv2, monkeypatch):
    def fetch(*_, **__):
        raise OSError(errno.EBADF, "ours")

    monkeypatch.setattr(download, "fetch", fetch)
    done = irv2("fetch")
    assert done.code == exit_codes.FAULT
    assert done.err.endswith("OSError: [Errno 9] ours\n")


@pytest.mark.parametrize(
    ("error", "code", "end"),
    [
        (KeyboardInterrupt, exit_codes.INTERRUPTED, "irv2: interrupted\n"),
        (ZeroDivisionError("ours"), exit_codes.FAULT, "ZeroDivisionError: ours\n"),
        (MemoryError("so much"), exit_codes.BAD_INPUT, "memory, or room: so much\n"),
    ],
)
def test_what_ends_an_export(irv2, place, monkeypatch, error, code, end):
    def write(*_):
        raise error

    monkeypatch.setattr(fake_format, "write", write)
    before = tree(place)
    done = irv2(*EXPORT)
    assert done.code == code
    assert done.err.endswith(end)
    assert tree(place) == before


def test_an_export_that_is_asked_to_end(irv2, place, monkeypatch):
    def write(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fake_format, "write", write)
    before = tree(place)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    done = irv2(*EXPORT, is_asked_to_end=True)
    assert done.code == exit_codes.INTERRUPTED
    assert tree(place) == before
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_a_request_that_was_dropped_ends_the_next_step(irv2, place, monkeypatch):
    """Extension modules drop exceptions while they are imported."""

    def write(*_):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(fake_format, "write", write)
    before = tree(place)
    done = irv2(*EXPORT, is_asked_to_end=True)
    assert (done.code, tree(place)) == (exit_codes.INTERRUPTED, before)


def test_a_request_to_end_the_tests_is_none_to_the_command(irv2, place, monkeypatch):
    monkeypatch.setattr(
        fake_format, "write", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(KeyboardInterrupt):
        irv2(*EXPORT)


def test_what_a_process_was_started_to_ignore_is_ignored(irv2, place, monkeypatch):
    write = fake_format.write

    def write_when_asked_to_end(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        write(*given)

    monkeypatch.setattr(fake_format, "write", write_when_asked_to_end)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        done = irv2(*EXPORT)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_process_that_is_asked_to_end(tmp_path, number):
    """While it writes, which here takes long enough to be met."""
    program = (
        "import time\n"
        "from checkpoints import stand_in\n"
        "from exporters.command.main import main\n"
        "write = stand_in.write_v1\n"
        "stand_in.write_v1 = lambda *given: (write(*given), time.sleep(60))\n"
        "main()\n"
    )
    command = ["stand-in", "--raw", "--output", "new/x.ckpt"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("new/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == exit_codes.INTERRUPTED
    assert out == ""
    assert err.endswith("irv2: interrupted\n")
    assert "Traceback" not in err
    assert tree(tmp_path) == {}


def test_the_screen_of_a_real_process_shows_only_our_message(tmp_path):
    """TensorFlow logs from C++ as soon as it is imported."""
    path = tmp_path / "damaged.ckpt"
    stand_in.write_v1(fake_format.variables(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-m", "exporters.command.main", "inspect", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == exit_codes.BAD_INPUT
    assert done.stdout == ""
    step, line = done.stderr.splitlines()
    assert step.startswith(f"  open {path} ... stopped after ")
    assert line.startswith(f"irv2: {path} is truncated or damaged")


# The real network


@pytest.mark.slow
def test_stand_in_tells_images_apart(irv2, stand_in_checkpoint, reference, tmp_path):
    path = tmp_path / "stand_in.ckpt"
    done = irv2("stand-in", "--output", path)
    assert done.code == 0
    assert "STAND-IN" in done.err
    assert stand_in_checkpoint.identity in done.err

    (batch, _) = parity.ParityImages().batches(None)
    correlations = np.corrcoef(
        reference.outputs(batch, ["feature_vector"])["feature_vector"]
    )
    assert correlations[np.triu_indices(len(batch), 1)].mean() < 0.6


# Signatures


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--signature"], "--signature takes --public-key, or"),
        (["--public-key", "key.pub"], "--signature takes --public-key, or"),
        (["--signature", "--identity", "me"], "go together"),
        (
            "--signature --public-key k --identity me --identity-provider x".split(),
            "--signature takes --public-key, or",
        ),
    ],
)
def test_whose_signature(irv2, place, options, reason):
    done = irv2(*VERIFY, "out", *options)
    assert done.code == exit_codes.USAGE
    assert reason in done.err


def test_sign_and_verify(irv2, place):
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem, spki = forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo
    private = key.private_bytes(pem, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    (place / "key.pem").write_bytes(private)
    (place / "key.pub").write_bytes(key.public_key().public_bytes(pem, spki))
    demand = [*VERIFY, "out", "--signature", "--public-key", "key.pub"]
    irv2(*EXPORT)
    unsigned = irv2(*demand)
    assert unsigned.code == exit_codes.MISMATCH
    assert f"not signed: there is no {FEATURES}.sig" in unsigned.err
    done = irv2("sign", "out", "--private-key", "key.pem")
    assert done.code == 0
    assert done.out.splitlines() == [f"out/{CLASSIFIER}.sig", f"out/{FEATURES}.sig"]
    assert irv2(*demand).code == 0
    refused = irv2("sign", "out", "--private-key", "key.pub")
    assert refused.code == exit_codes.BAD_INPUT
    assert "key.pub cannot be used as a key: " in refused.err


# Budgets


@pytest.mark.parametrize("option", ["--max-error", "--min-cosine"])
@pytest.mark.parametrize("limit", ["0", "1.5", "nan", "-1", "little"])
def test_a_budget_that_is_none(irv2, option, limit):
    done = irv2(*EXPORT, f"{option}={limit}")
    assert done.code == exit_codes.USAGE
    assert f"'{limit}': expected a number in (0, 1]" in done.err


@pytest.mark.parametrize("limit", ["-1", "100", "nan", "few"])
def test_a_drop_that_is_none(irv2, limit):
    done = irv2(*EXPORT, f"--max-drop={limit}")
    assert done.code == exit_codes.USAGE
    assert f"'{limit}': expected percentage points of top-1" in done.err


@pytest.mark.parametrize("option", ["--max-drop=0", "--label-offset=0", "--no-verify"])
def test_checking_takes_no_budget(irv2, option):
    done = irv2("export", "--checkpoint=x", "--check=out", option)
    assert done.code == exit_codes.BAD_INPUT
    assert "--check takes what to make from the manifests" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label-offset=1"], "--label-offset has no effect without --max-drop"),
        (["--ground-truth=x.txt"], "--ground-truth has no effect without --max-drop"),
    ],
)
def test_labels_without_a_limit_on_what_is_lost(irv2, place, options, said):
    before = tree(place)
    done = irv2(*EXPORT, *options)
    assert done.code == exit_codes.BAD_INPUT
    assert said in done.err
    assert tree(place) == before


@pytest.mark.parametrize(
    "options",
    [
        ["--max-error=0.1"],
        ["--min-cosine=0.9"],
        ["--max-drop=0.5"],
        ["--keep-float=block8_9"],
    ],
)
def test_a_budget_for_what_is_not_quantized(irv2, place, options):
    before = tree(place)
    done = irv2(*EXPORT, *options)
    assert done.code == exit_codes.BAD_INPUT
    assert "has no effect on fake" in done.err
    assert tree(place) == before
