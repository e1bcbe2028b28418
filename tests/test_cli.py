"""The `irv2` command, as people and scripts use it."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import fake_format
import numpy as np
import published_directories
import pytest
from PIL import Image

from checkpoints import download, layout, stand_in
from checkpoints.http_transfer import DownloadError
from checkpoints.reader import Checkpoint, open_checkpoint
from exporters import cli, formats, manifest, parity
from exporters.network import graphs

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "list",
    "fetch",
    "stand-in",
    "inspect",
    "export",
    "verify",
    "install",
    "uninstall",
    "pack",
]
CLASSIFIER = "inception_resnet_v2-classification-fake.fake"
FEATURES = "inception_resnet_v2-feature_vector-fake.fake"


@dataclasses.dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def irv2(monkeypatch, capfd):
    """Runs the command in this process, which has TensorFlow already."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["irv2", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return Done(caught.value.code or 0, *capfd.readouterr())

    return run


def irv2_process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "exporters.cli", *arguments],
        cwd=ROOT,
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
        assert f"\n    {command}" in done.stdout
    assert "exit codes:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 120


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(irv2, command):
    done = irv2(command, "--help")
    assert done.code == 0
    assert done.out.startswith(f"usage: irv2 {command} [-h]")


@pytest.mark.parametrize("arguments", [["--help"], ["export", "--help"], ["list"]])
def test_quick_answers_import_no_library(arguments):
    script = f"""
import sys
from exporters import cli
sys.argv = ["irv2", *{arguments}]
try:
    cli.main()
except SystemExit as done:
    assert not done.code
libraries = {{"tensorflow", "tf_slim", "tf_keras", "onnx", "onnxruntime", "PIL"}}
print(sorted(libraries & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == "[]\n"
    assert done.returncode == 0


def test_list():
    done = irv2_process("list")
    assert done.returncode == 0
    assert done.stderr == ""
    header, _, *rows, _, tasks = done.stdout.splitlines()
    assert header.split("  ")[0] == "format"
    assert [row.split()[0] for row in rows] == list(formats.FORMATS)
    assert tasks == "Tasks: feature_vector, classification."


def test_list_for_machines():
    done = irv2_process("list", "--json")
    found = json.loads(done.stdout)
    assert found["tasks"] == ["feature_vector", "classification"]
    assert [row["format"] for row in found["formats"]] == list(formats.FORMATS)
    assert found["formats"][0]["published as"] == (
        "https://tfhub.dev/google/imagenet/inception_resnet_v2/{task}/1"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["list", "--unknown"],
        ["export", "--output", "x"],
        ["export", "--checkpoint", "x", "--output", "x", "--formats", ","],
        ["export", "--checkpoint", "x", "--output", "x", "--integer-type", "int4"],
        ["fetch", "--md5", "not an md5"],
        ["stand-in", "--output", "x", "--seed", "first"],
    ],
)
def test_wrong_usage(irv2, arguments):
    done = irv2(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("usage: irv2")
    assert "error: " in done.err.splitlines()[-1]


# Commands, with a network that is small and quick


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, with a checkpoint, under a small network."""
    fake_format.install(monkeypatch)
    monkeypatch.setattr(parity, "Reference", fake_format.FakeReference)
    monkeypatch.setattr(graphs, "NetworkGraphs", fake_format.FakeGraphs)
    monkeypatch.chdir(tmp_path)
    stand_in.write_v1(fake_format.variables(), tmp_path / "good.ckpt")
    return tmp_path


EXPORT = [
    *("export", "--checkpoint", "good.ckpt", "--output", "out"),
    *("--formats", "fake", "--image-size", "75"),
]
VERIFY = ["verify", "--checkpoint", "good.ckpt"]


def test_export_and_verify(irv2, place):
    done = irv2(*EXPORT)
    assert done.code == 0
    assert done.out.count("agrees") == 2
    assert f"\n{FEATURES}  " in done.out
    assert f"\n{CLASSIFIER}  " in done.out
    assert done.out.endswith("\n2 artifacts in out\n")
    assert sorted(tree(place / "out")) == [
        CLASSIFIER,
        f"{CLASSIFIER}.manifest.json",
        FEATURES,
        f"{FEATURES}.manifest.json",
    ]
    done = irv2(*VERIFY, "out")
    assert done.code == 0
    assert done.out.count("agrees") == 2
    assert done.out.count(" 2/2 ") == 2


def test_export_for_machines(irv2, place):
    done = irv2(*EXPORT, "--tasks", "classification", "--json")
    result = json.loads(done.out)
    assert result["graph_seconds"] >= 0
    (found,) = result["artifacts"]
    path = Path("out") / CLASSIFIER
    assert found["path"] == str(path)
    assert found["bytes"] == path.stat().st_size
    assert found["parity"]["passed"]
    recorded = json.loads(manifest.path_of(path).read_text())
    assert recorded["options"] == {"image_size": [75, 75]}
    assert recorded["compared_on"] == "generated images"
    assert recorded["calibration"] == "16 generated images"


def test_export_without_comparison(irv2, place):
    done = irv2(*EXPORT, "--no-verify")
    assert done.code == 0
    assert done.out.count("not compared") == 2


def test_export_compares_on_images_of_a_directory(irv2, place):
    (place / "images").mkdir()
    Image.new("RGB", (90, 90), (10, 200, 30)).save(place / "images" / "green.png")
    done = irv2(*EXPORT, "--images", "images", "--json")
    assert "compared on 1 images of images and 7 generated ones." in done.err
    (found, _) = json.loads(done.out)["artifacts"]
    assert found["parity"]["images"] == {"75 x 75": 8}


def test_export_replaces_only_by_force(irv2, place):
    irv2(*EXPORT)
    (place / "out" / FEATURES).write_bytes(b"old")
    assert irv2(*EXPORT).code == 3
    assert (place / "out" / FEATURES).read_bytes() == b"old"
    assert irv2(*EXPORT, "--force").code == 0
    assert irv2(*VERIFY, "out").code == 0


def test_stand_ins_are_marked(irv2, place):
    done = irv2("stand-in", "--output", "good.ckpt", "--raw", "--seed", "-1", "--force")
    assert done.code == 0
    assert done.out == "good.ckpt\n"
    assert "STAND-IN" in done.err
    assert open_checkpoint(place / "good.ckpt").identity in done.err
    done = irv2(*EXPORT)
    assert "STAND-IN" in done.err
    assert all("-stand-in." in name for name in tree(place / "out"))


def test_verify_tells_what_differs(irv2, place):
    irv2(*EXPORT)
    weights = fake_format.variables()
    weights["layer/biases"][3] *= 1.01
    stand_in.write_v1(weights, place / "good.ckpt")
    done = irv2(*VERIFY, "out")
    assert done.code == cli.EXIT_MISMATCH
    assert done.out.count("DIFFERS") == 2
    assert f"{CLASSIFIER}: made of the checkpoint" in done.err
    assert f"{CLASSIFIER}: weight layer/biases: 1 of 8 values differ" in done.err


def test_verify_compares_files_with_the_manifest(irv2, place):
    irv2(*EXPORT, "--tasks", "classification")
    path = place / "out" / CLASSIFIER
    with np.load(path) as file:
        content = dict(file)
    with path.open("wb") as file:
        np.savez_compressed(file, **content)
    done = irv2(*VERIFY, path, "--json")
    assert done.code == cli.EXIT_MISMATCH
    found = json.loads(done.out)
    assert found["passed"] is False
    (report,) = found["artifacts"].values()
    assert report["weights"]["wrong"] == []
    assert report["problems"] == [f"not as its manifest says: {CLASSIFIER}"]


def test_an_artifact_that_does_not_agree_is_not_kept(irv2, place, monkeypatch):
    def write(inputs, format_name, task, path):
        weights = dict(inputs.checkpoint)
        weights["layer/weights"] = weights["layer/weights"] * np.float32(1.01)
        with path.open("wb") as file:
            facts = [format_name, task, inputs.checkpoint.identity]
            np.savez(file, facts=facts, **weights)

    monkeypatch.setattr(fake_format, "write", write)
    before = tree(place)
    done = irv2(*EXPORT)
    assert done.code == cli.EXIT_MISMATCH
    assert done.out == ""
    assert f"irv2: {FEATURES} does not agree with the checkpoint" in done.err
    assert tree(place) == before


def test_inspect(irv2, place):
    done = irv2("inspect", "good.ckpt")
    assert done.code == 0
    facts = dict(line.split(maxsplit=1) for line in done.out.splitlines()[2:])
    assert facts["container"] == "V1"
    assert facts["layout"] == "inception_resnet_v2"
    found = json.loads(irv2("inspect", "good.ckpt", "--json").out)
    assert found["identity"] == facts["identity"]


def test_inspect_says_what_is_wrong_with_a_layout(irv2, place):
    stand_in.write_v1({"other/weights": np.ones(3, np.float32)}, place / "other.ckpt")
    done = irv2("inspect", "other.ckpt")
    assert done.code == 0
    facts, problems = done.out.split("\n\n")
    assert max(map(len, facts.splitlines())) < 100
    assert problems.startswith("other.ckpt is not a checkpoint of inception_resnet_v2")
    assert "  1 unexpected:\n    other/weights" in problems


def test_fetch(irv2, place, monkeypatch):
    asked = []

    def fetch(url, *, md5, force, progress):
        asked.append((url, md5, force))
        progress(1, None)
        progress(2, 4)
        return place / "cached.ckpt"

    monkeypatch.setattr(download, "fetch", fetch)
    assert irv2("fetch").out == f"{place / 'cached.ckpt'}\n"
    md5 = "0123456789abcdef" * 2
    irv2("fetch", "--url", "http://mirror/x", "--md5", md5, "--force")
    assert asked == [
        (download.PUBLISHED_URL, download.PUBLISHED_MD5, False),
        ("http://mirror/x", md5, True),
    ]


# What people can act on


@pytest.fixture
def trouble(place):
    """The working directory, with everything that may be wrong in it."""
    content = (place / "good.ckpt").read_bytes()
    (place / "text.ckpt").write_text("a checkpoint, or so they say\n")
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
    (place / "saved_model").mkdir()
    (place / "saved_model" / "saved_model.pb").write_text("a graph, or so they say")
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
    "calibration that changes nothing": (
        export(formats="v4", image_size="299", calibration_images="empty"),
        ["--calibration-images has no effect on v4"],
    ),
    "image size of many digits": (
        export(image_size="9" * 5000),
        ["expected pixels as 299"],
    ),
    "unknown format": (
        export(formats="v4,v2"),
        ["unknown format 'v2'; there are: v1, v3, v4, v5, onnx-float32"],
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
    "image size of three numbers": (
        export(image_size="1x299x299"),
        ["image size '1x299x299': expected pixels as 299 or 224x320, or 'dynamic'"],
    ),
    "negative image size": (
        export(image_size="-299"),
        ["image size '-299': expected pixels as 299"],
    ),
    "image size that is no number": (
        export(image_size="big"),
        ["image size 'big': expected pixels as 299"],
    ),
    "no directory of images": (
        export(images="nowhere"),
        ["nowhere does not exist. Expected a directory of images"],
    ),
    "no calibration images": (
        export(calibration_images="empty"),
        ["empty holds no images"],
    ),
    "an image that cannot be read": (
        export(images="broken images"),
        ["cat.jpg cannot be read as an image"],
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
        ["text.ckpt/out", "Not a directory"],
    ),
    "no artifact": (
        [*VERIFY, "nowhere"],
        ["nowhere does not exist. Expected an exported artifact"],
    ),
    "text for an artifact": (
        [*VERIFY, "artifacts/model.onnx.txt"],
        ["model.onnx.txt is no artifact of a known format"],
    ),
    "damaged artifact": (
        [*VERIFY, f"artifacts/{CLASSIFIER}"],
        [f"{CLASSIFIER} is damaged"],
    ),
    "damaged SavedModel": (
        [*VERIFY, "saved_model"],
        ["saved_model cannot be loaded as a TF2 SavedModel", "damaged or incomplete"],
    ),
    "directory without artifacts": (
        [*VERIFY, "empty"],
        ["empty is no artifact, and holds none"],
    ),
    "checkpoint to verify with": (
        ["verify", "--checkpoint", "text.ckpt", "artifacts"],
        ["text.ckpt is not a checkpoint"],
    ),
    "nothing to inspect": (["inspect", "nowhere"], ["nowhere does not exist"]),
    "text to inspect": (["inspect", "text.ckpt"], ["text.ckpt is not a checkpoint"]),
    "existing stand-in": (
        ["stand-in", "--raw", "--output", "good.ckpt"],
        ["good.ckpt exists already. Use --force to replace it."],
    ),
    "directory for a stand-in": (
        ["stand-in", "--raw", "--force", "--output", "empty"],
        ["empty is a directory; expected a file"],
    ),
    "no directory for a stand-in": (
        ["stand-in", "--raw", "--output", "nowhere/x.ckpt"],
        ["nowhere is not a directory"],
    ),
}


@pytest.mark.parametrize("what", TROUBLE)
def test_trouble_is_told_in_a_few_lines(irv2, trouble, what):
    arguments, expected = TROUBLE[what]
    before = tree(trouble)
    done = irv2(*arguments)
    assert done.code == cli.EXIT_BAD_INPUT
    assert done.out == ""
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) < 25
    message = done.err[done.err.index("irv2: ") :]
    for part in expected:
        assert part in message
    assert tree(trouble) == before


def test_one_unreadable_artifact_does_not_hide_the_others(irv2, place):
    assert irv2(*EXPORT).code == 0
    (place / "out" / CLASSIFIER).write_bytes(b"")
    done = irv2(*VERIFY, "out")
    assert done.code == cli.EXIT_BAD_INPUT
    assert f"irv2: out/{CLASSIFIER} is no artifact of a known format" in done.err
    assert FEATURES in done.out and "agrees" in done.out
    (place / "out" / CLASSIFIER).unlink()
    done = irv2(*VERIFY, "out", "--json")
    assert done.code == cli.EXIT_BAD_INPUT
    found = json.loads(done.out)
    assert not found["passed"]
    assert "does not exist" in found["artifacts"][f"out/{CLASSIFIER}"]["error"]
    assert found["artifacts"][f"out/{FEATURES}"]["passed"]


def test_a_full_disk(irv2, place, monkeypatch):
    import tensorflow as tf

    def write(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(fake_format, "write", write)
    before = tree(place)
    done = irv2(*EXPORT)
    assert done.code == cli.EXIT_BAD_INPUT
    assert done.err.endswith("cannot be written: No space left on device\n")
    assert tree(place) == before


def test_a_reader_that_stops_reading():
    done = subprocess.run(
        f"{sys.executable} -m exporters.cli list | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.returncode in (0, cli.EXIT_BROKEN_PIPE)


# TF Hub's cache


def test_install_and_uninstall(irv2, tmp_path):
    artifact = published_directories.make(tmp_path, "v4", is_stand_in=True)
    handle = f"{published_directories.PUBLISHED}/feature_vector/4"
    cache = tmp_path / "cache"
    done = irv2("install", artifact, "--cache", cache)
    assert done.code == cli.EXIT_BAD_INPUT
    assert "is a stand-in" in done.err and "--allow-stand-in" in done.err
    assert not cache.exists()

    done = irv2("install", artifact, "--cache", cache, "--allow-stand-in")
    assert done.code == 0
    found, directory = done.out.splitlines()
    assert found == handle
    (Path(directory.strip()) / "saved_model.pb").write_bytes(b"changed")
    again = ("install", artifact, "--cache", cache, "--allow-stand-in")
    done = irv2(*again)
    assert done.code == cli.EXIT_BAD_INPUT
    assert "Use --force" in done.err
    assert irv2(*again, "--force").code == 0

    done = irv2("uninstall", "--cache", cache)
    assert (done.code, done.out) == (0, f"{handle}\n")
    assert list(cache.iterdir()) == []


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
    assert done.code == cli.EXIT_BAD_INPUT
    assert "Use --force" in done.err
    assert irv2(*packing, "--force").code == 0


def test_another_network_is_told_in_a_few_lines(irv2, trouble, monkeypatch):
    shapes = {f"layer_{number}/weights": (3, 3) for number in range(908)}
    monkeypatch.setattr(layout, "variable_shapes", lambda: shapes)
    done = irv2(*EXPORT)
    assert done.code == cli.EXIT_BAD_INPUT
    assert len(done.err.splitlines()) < 25
    assert "and 904 more" in done.err


def test_a_download_that_fails(irv2, place, monkeypatch):
    def fetch(*_, **__):
        raise DownloadError("http://mirror/x: no answer")

    monkeypatch.setattr(download, "fetch", fetch)
    done = irv2("fetch")
    assert done.code == cli.EXIT_DOWNLOAD
    assert done.err == "irv2: http://mirror/x: no answer\n"
    assert done.out == ""


@pytest.mark.parametrize(
    ("error", "code", "end"),
    [
        (KeyboardInterrupt, cli.EXIT_INTERRUPTED, "irv2: interrupted\n"),
        (ZeroDivisionError("ours"), cli.EXIT_FAULT, "ZeroDivisionError: ours\n\n"),
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
    handler = signal.getsignal(signal.SIGTERM)
    try:
        done = irv2(*EXPORT)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert done.code == cli.EXIT_INTERRUPTED
    assert tree(place) == before


def test_the_screen_of_a_real_process_shows_only_our_message(tmp_path):
    """TensorFlow logs from C++ as soon as it is imported."""
    path = tmp_path / "damaged.ckpt"
    stand_in.write_v1(fake_format.variables(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-m", "exporters.cli", "inspect", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == cli.EXIT_BAD_INPUT
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"irv2: {path} is truncated or damaged")


# The real network


@pytest.mark.slow
def test_verify_finds_one_percent_of_one_weight(
    irv2, exported, stand_in_file, tmp_path
):
    """Of the 54 million numbers of a SavedModel, on disk."""
    source = exported / "inception_resnet_v2-feature_vector-v4-stand-in"
    path = shutil.copytree(source, tmp_path / "model")
    change_a_weight(path / "variables" / "variables")
    done = irv2("verify", path, "--checkpoint", stand_in_file, "--json")
    assert done.code == cli.EXIT_MISMATCH
    (report,) = json.loads(done.out)["artifacts"].values()
    assert not report["passed"]
    assert report["problems"] == []
    (line,) = report["weights"]["wrong"]
    assert "weights: 1 of " in line
    assert f"model: weight {line}" in done.err


@pytest.mark.slow
def test_export_and_verify_deployable_formats(
    irv2, stand_in_file, stand_in_checkpoint, graphs, tmp_path
):
    """Outputs alone tell a network whose residuals in the middle are twice as large."""
    names = [row.name for row in formats.FORMATS.values() if not row.published_version]
    given = ("--checkpoint", stand_in_file)
    made = ("--output", tmp_path, "--formats", ",".join(names))
    made += ("--tasks", "classification")
    done = irv2("export", *given, *made, "--json")
    assert done.code == 0
    assert len(json.loads(done.out)["artifacts"]) == len(names)

    scales = {
        name: 2 * value if "/block17_" in name and "/Conv2d_1x1/" in name else value
        for name, value in stand_in_checkpoint.items()
    }
    wrong = Checkpoint(scales, path=stand_in_file)
    with parity.Reference(graphs, wrong) as reference:
        for path in formats.artifacts_in([tmp_path]):
            artifact = formats.container_of(path).open(path)
            report = parity.compare(artifact, reference, parity.ParityImages())
            assert not report.main.passed, (path.name, report.main)


@pytest.mark.slow
def test_stand_in_tells_images_apart(irv2, stand_in_checkpoint, reference, tmp_path):
    path = tmp_path / "stand_in.ckpt"
    done = irv2("stand-in", "--output", path)
    assert done.code == 0
    assert "STAND-IN" in done.err
    assert stand_in_checkpoint.identity in done.err

    (batch, _) = parity.ParityImages().batches(None)
    correlations = np.corrcoef(reference.outputs(batch)["feature_vector"])
    assert correlations[np.triu_indices(len(batch), 1)].mean() < 0.6


def change_a_weight(prefix):
    """Changes the middle number of a kernel in the middle by one percent."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    values = {
        name: reader.get_tensor(name)  # Bytes, for the record of objects.
        for name in reader.get_variable_to_shape_map()
    }
    kernels = sorted(name for name, value in values.items() if np.ndim(value) == 4)
    kernel = values[kernels[len(kernels) // 2]]
    kernel.flat[np.argsort(np.abs(kernel), axis=None)[kernel.size // 2]] *= 1.01
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
