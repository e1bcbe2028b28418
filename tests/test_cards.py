"""Model cards: true to the manifest, and their programs run."""

import dataclasses
import re
import subprocess
import sys

import fake_format
import numpy as np
import pytest
import small_build
from manifests import described
from PIL import Image

from exporters import cards, exporting, manifest, test_vectors
from exporters.containers.tflite.versions import FORMAT as PUBLISHED_TFLITE
from exporters.exporting import export
from exporters.formats import FORMATS, open_artifact
from exporters.network.tasks import TASKS

SIZE = small_build.IMAGE_SIZE

# What they say


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("task", TASKS)
def test_every_format_has_a_card(name, task):
    row = FORMATS[name]
    found = cards.text("model", row, described(row, task))
    header, body = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", found, re.DOTALL).groups()
    assert "license: apache-2.0" in header.splitlines()
    tag = {"classification": "image-classification"}.get(
        task, "image-feature-extraction"
    )
    assert f"pipeline_tag: {tag}" in header.splitlines()
    assert f"- {name}" in header.splitlines()
    assert re.search(r"^library_name: [\w-]+$", header, re.MULTILINE)
    assert body.startswith("# model\n")
    assert fake_format.checkpoint().identity in body
    assert "@" not in body.replace("@tensorflow", "")
    titles = re.findall("^## (.*)", body, re.MULTILINE)
    assert titles == [
        "Use",
        "Input and output",
        *(["Labels"] if task == "classification" else []),
        "Training data and accuracy",
        "Parity",
        "Licence",
        "Checkpoint",
    ]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("v1", {}, "float32, [batch, 299, 299, 3], RGB, [0, 1]"),
        ("v4", {}, "float32, [batch, height, width, 3], RGB, [0, 1]"),
        ("tfjs-v1", {}, "float32, [batch, 299, 299, 3], RGB, [0, 1]"),
        ("tfjs-v3", {}, "float32, [batch, height, width, 3], RGB, [0, 1]"),
        (
            "onnx-int8",
            {"nchw": True, "image_size": (224, 320)},
            "float32, [batch, 3, 224, 320], RGB, [0, 1]",
        ),
        ("onnx-int8", {"image_size": None}, "[batch, height, width, 3]"),
        (
            "tflite-int8",
            {"integer_type": "uint8"},
            "uint8, [batch, 299, 299, 3], RGB, pix",
        ),
        ("tflite-int8", {"integer_type": "int8"}, "RGB, pixels less 128"),
        ("tflite-float32", {"signed_input": True}, "RGB, [-1, 1]"),
        (PUBLISHED_TFLITE, {}, "float32, [batch, 299, 299, 3], RGB, [-1, 1]"),
        ("timm", {}, "float32, [batch, 3, height, width], RGB, [-1, 1]"),
        ("keras-weights", {}, "float32, [batch, height, width, 3], RGB, [-1, 1]"),
    ],
)
def test_input_contract(name, options, expected):
    row = FORMATS[name]
    facts = described(row)
    facts["options"] = facts["options"] | options
    assert expected in cards.text("model", row, facts)


def test_classes():
    found = cards.text("model", FORMATS["v4"], described(FORMATS["v4"]))
    assert "1001 classes: 0 = background, 1 = tench." in found
    assert "[batch, 1001]" in found
    found = cards.text("model", FORMATS["timm"], described(FORMATS["timm"]))
    assert "[batch, 1000]" in found and "num_classes=1000," in found
    own = described(FORMATS["v4"], num_classes=7, labels=None)
    assert "7 classes, whose names are not known." in cards.text(
        "m", FORMATS["v4"], own
    )


def test_stand_ins_are_marked_first():
    row = FORMATS["v4"]
    facts = described(row, stand_in=True, provenance="stand-in")
    found = cards.text("model", row, facts)
    assert "- stand-in\n" in found
    assert "# model\n\n> **STAND-IN.**" in found
    assert "80.4" not in found and "imagenet-1k" not in found


def test_published_figures_are_for_the_published_checkpoint_alone():
    row = FORMATS["v4"]
    for provenance in ("published", "unverified", "stand-in"):
        found = cards.text("model", row, described(row, provenance=provenance))
        is_published = provenance == "published"
        assert ("80.4 % top-1 and 95.3 % top-5" in found) is is_published
        assert ("- imagenet-1k" in found) is is_published


def test_parity():
    row = FORMATS["onnx-int8"]
    found = cards.text("model", row, described(row))
    assert "| `logits` | 1.5e-07 | 2e-05 | 1 | 0.999999 |" in found
    assert "on generated images (8 of 299 x 299); 490 weights" in found
    assert "calibrated on 16 generated images" in found
    found = cards.text("model", row, described(row, parity=None))
    assert "It was not compared" in found


# Beside artifacts, with programs that run


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """Exports the small network in formats of today."""
    small_build.install(monkeypatch)
    monkeypatch.setattr(exporting, "labels_for", lambda *_: small_build.LABELS)

    def run(names, task="classification", verify=True, **options):
        checkpoint = small_build.checkpoint()
        checkpoint.num_classes = len(small_build.LABELS)
        tasks = tuple(TASKS.values())
        done = export(
            checkpoint,
            tmp_path / "out",
            formats=[dataclasses.replace(FORMATS[name], tasks=tasks) for name in names],
            tasks=[task],
            options=dataclasses.replace(small_build.OPTIONS, **options),
            images=small_build.IMAGES if verify else None,
            verify=verify,
            reference=small_build.BlockReference(checkpoint),
            force=True,
        )
        assert done.passed, [item.failures for item in done.artifacts]
        return [item.path for item in done.artifacts]

    return run


DEPLOYED = [
    ("onnx-float32", {}),
    ("onnx-float32", {"nchw": True}),
    ("onnx-int8", {}),
    ("tflite-float32", {}),
    ("tflite-float32", {"signed_input": True}),
    ("tflite-float32", {"softmax": True}),
    ("tflite-int8", {"integer_type": "uint8"}),
    ("tflite-int8", {"integer_type": "int8", "softmax": True}),
]


def run_snippet(path, cwd):
    """Runs the program of a card, and returns what it prints."""
    card = manifest.card_of(path).read_text()
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(cwd / "photo.jpg")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{program}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(("name", "options"), DEPLOYED)
def test_programs_of_today_run(exported, name, options):
    (path,) = exported([name], **options)
    printed = run_snippet(path, path.parent)
    assert printed.strip() in small_build.LABELS
    artifact, _ = open_artifact(path)
    with artifact:
        with Image.open(path.parent / "photo.jpg") as image:
            pixels = np.asarray(image.resize(SIZE[::-1]), np.float32)
        expected = artifact.predict(pixels[np.newaxis] / 255)
    assert printed.strip() == small_build.LABELS[expected.argmax()]


@pytest.mark.parametrize("name", ["onnx-float32", "tflite-float32"])
def test_programs_for_features_run(exported, name):
    (path,) = exported([name], task="feature_vector")
    assert re.match(r"\(1, \d+\) \d+\n", run_snippet(path, path.parent))


# Test vectors


def vectors(path):
    directory = manifest.vectors_of(path)
    return {file.stem: np.load(file) for file in directory.iterdir()}


@pytest.mark.parametrize(("name", "options"), DEPLOYED)
def test_the_artifact_itself_meets_its_test_vectors(exported, name, options):
    """As a program elsewhere would look at it: by input and output tensors."""
    (path,) = exported([name], **options)
    found = vectors(path)
    output = "probabilities" if options.get("softmax") else "logits"
    assert found.keys() == {"images", output, "max_error", "min_cosine"}
    assert len(found["images"]) == 2 == len(found[output])
    values = run_raw(path, found["images"])
    assert found["max_error"].shape == found["min_cosine"].shape == ()
    expected = found[output]
    assert np.abs(values - expected).max() <= found["max_error"]
    for one, other in zip(values, expected):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert cosine >= found["min_cosine"]
    if "int8" not in name:
        assert found["max_error"] < 1e-2 * np.abs(expected).max()
    card = manifest.card_of(path).read_text()
    assert f"`{path.name}.test_vectors/`" in card and f"`{output}.npy`" in card


def run_raw(path, images):
    if path.suffix == ".onnx":
        import onnxruntime

        (values,) = onnxruntime.InferenceSession(path).run(None, {"images": images})
        return values
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        assert image.dtype == into["dtype"]
        interpreter.set_tensor(into["index"], image[np.newaxis])
        interpreter.invoke()
        values = interpreter.get_tensor(out["index"])
        if values.dtype != np.float32:
            scale, zero = out["quantization"]
            values = (values.astype(np.float32) - zero) * scale
        rows.append(values[0])
    return np.stack(rows)


def test_input_of_the_published_tflite_file():
    row = FORMATS[PUBLISHED_TFLITE]
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    found = test_vectors.as_input(row, described(row), images)
    np.testing.assert_allclose(found, images * 2 - 1)


def test_the_manifest_lists_what_lies_beside(exported):
    (path,) = exported(["onnx-float32"])
    found = manifest.files.read_json(manifest.path_of(path))["companions"]
    name = path.name
    assert found.keys() == {
        f"{name}.card.md",
        f"{name}.cdx.json",
        *(
            f"{name}.test_vectors/{part}.npy"
            for part in ("images", "logits", "max_error", "min_cosine")
        ),
    }
    for part, digest in found.items():
        assert manifest.files.digest(path.parent / part) == digest


def test_vectors_of_a_replaced_artifact_do_not_stay(exported, tmp_path):
    (path,) = exported(["onnx-float32"])
    assert manifest.vectors_of(path).is_dir()
    assert exported(["onnx-float32"], verify=False) == [path]
    assert not manifest.vectors_of(path).exists()
    assert "test_vectors" not in manifest.card_of(path).read_text()
    assert not list((tmp_path / "out").glob(".irv2-*"))
