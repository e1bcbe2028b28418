"""Int8 in other ways than the usual: files that say so, and are so."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import small_build
from onnx import numpy_helper
from small_networks import BLOCK

from exporters import exporting, manifest, rebuilding
from exporters.build import ExportOptions
from exporters.errors import ExportError
from exporters.exporting import export
from exporters.formats import FORMATS, open_artifact
from exporters.inspection import inspect
from exporters.network import quantization
from exporters.network.tasks import TASKS
from exporters.verification import verify

CHECKPOINT = small_build.checkpoint()
CHECKPOINT.num_classes = len(small_build.LABELS)
SYMMETRIC = {"int8_activations": "symmetric"}
REDUCED = {"reduce_range": True}
FULL = {"full_integer": True}
INTEGERS_OUTSIDE = {"integer_type": "uint8"}
VARIANTS = [
    ("onnx-int8", SYMMETRIC, "-symmetric"),
    ("onnx-int8", REDUCED, "-reduce-range"),
    ("onnx-int8", SYMMETRIC | REDUCED, "-symmetric-reduce-range"),
    ("onnx-int8", SYMMETRIC | {"keep_float": ("up",)}, "-1-in-float-symmetric"),
    ("tflite-int8", SYMMETRIC, "-symmetric"),
    ("tflite-int8", SYMMETRIC | {"softmax": True}, "-softmax-symmetric"),
    ("tflite-int8", SYMMETRIC | {"signed_input": True}, "-signed-input-symmetric"),
]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_build.install(monkeypatch)
    monkeypatch.setattr(exporting, "labels_for", lambda *_: small_build.LABELS)


def row(name):
    """A row, for the tasks of the block."""
    return dataclasses.replace(FORMATS[name], tasks=tuple(TASKS.values()))


def exported(directory, name, **options):
    (item,) = export(
        CHECKPOINT,
        directory,
        formats=[row(name)],
        tasks=["classification"],
        options=dataclasses.replace(small_build.OPTIONS, **options),
        reference=small_build.BlockReference(CHECKPOINT),
        images=small_build.IMAGES,
    ).artifacts
    assert item.is_kept, item.failures
    return item.path


def verified(path):
    done = verify(
        path,
        CHECKPOINT,
        images=small_build.IMAGES,
        reference=small_build.BlockReference(CHECKPOINT),
    )
    (item,) = done.artifacts
    return item


def rebuilt(path):
    return rebuilding.rebuild(
        path,
        CHECKPOINT,
        formats={name: row(name) for name in ("onnx-int8", "tflite-int8")},
        reference=small_build.BlockReference(CHECKPOINT),
    )


@pytest.mark.parametrize(("name", "options", "word"), VARIANTS)
def test_files_say_what_they_are(tmp_path, name, options, word):
    path = exported(tmp_path, name, **options)
    assert path.stem.endswith(f"{name}-75{word}")
    described = json.loads(manifest.path_of(path).read_text())
    given = {k: list(v) if k == "keep_float" else v for k, v in options.items()}
    assert given.items() <= described["options"].items()
    card = manifest.card_of(path).read_text()
    assert all(f'"{option}": ' in card for option in options)
    assert verified(path).passed
    done = rebuilt(path)
    assert done.passed, done.artifacts


def in_integers(path):
    """The layers with weights, and whether they are integers."""
    artifact, _ = open_artifact(path)
    with artifact:
        return {
            name.removesuffix("/weights"): weight.values.dtype == np.int8
            for name, weight in artifact.weights().items()
            if name.endswith("/weights")
        }


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (FULL, "-full-integer"),
        (FULL | SYMMETRIC, "-full-integer-symmetric"),
        (INTEGERS_OUTSIDE, "-uint8"),
        (FULL | INTEGERS_OUTSIDE, "-uint8-full-integer"),
    ],
)
def test_all_layers_in_integers(tmp_path, options, word):
    """Such a file's record is what it was when there were no others."""
    path = exported(tmp_path, "tflite-int8", **options)
    assert path.stem.endswith(f"tflite-int8-75{word}")
    assert all(in_integers(path).values())
    described = json.loads(manifest.path_of(path).read_text())
    assert "full_integer" not in described["options"]
    assert inspect(path).facts["options"]["full_integer"] is True
    assert '"full_integer": true' in manifest.card_of(path).read_text()
    assert verified(path).passed
    assert rebuilt(path).passed


def test_the_first_and_the_last_layer_in_float(tmp_path):
    path = exported(tmp_path, "tflite-int8")
    assert path.stem.endswith("tflite-int8-75")
    floats = {
        scope for scope, is_integer in in_integers(path).items() if not is_integer
    }
    assert floats == {"scope/first/Relu", "scope/logits"}
    described = json.loads(manifest.path_of(path).read_text())
    assert described["options"]["full_integer"] is False
    assert verified(path).passed
    assert rebuilt(path).passed
    outputs = {}
    for name, options in {"full": FULL, "usual": {}}.items():
        artifact, _ = open_artifact(exported(tmp_path / name, "tflite-int8", **options))
        with artifact:
            outputs[name] = artifact.activations()
    assert outputs["full"].keys() - outputs["usual"].keys() >= {"in", "head/logits"}


@pytest.mark.parametrize("name", ["onnx-int8", "tflite-int8"])
def test_zero_points_are_0(tmp_path, name):
    path = exported(tmp_path, name, **SYMMETRIC)
    artifact, found = open_artifact(path)
    with artifact:
        rounded = artifact.activations()
    assert found.precision.is_symmetric
    assert rounded.keys() >= found.precision.quantized_activations(BLOCK) - {
        "head/probabilities",  # In float, or no part of it.
        *("head/mean", "head/features"),  # The same numbers: one may be there alone.
    }
    assert {each.zero_point for each in rounded.values()} == {0}
    plain, _ = open_artifact(exported(tmp_path / "plain", name))
    with plain:
        assert {each.zero_point for each in plain.activations().values()} != {0}


def test_tensorrt_has_what_it_takes(tmp_path):
    graph = onnx.load(exported(tmp_path, "onnx-int8", **SYMMETRIC)).graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero_point = arrays[node.input[2]]
            assert zero_point.dtype == np.int8 and not zero_point.any(), node.name
        if node.op_type in ("Conv", "Gemm"):
            assert arrays[node.input[2]].dtype == np.float32


@pytest.mark.parametrize("options", [REDUCED, REDUCED | SYMMETRIC])
def test_reduced_kernels_have_7_bits(tmp_path, options):
    artifact, _ = open_artifact(exported(tmp_path, "onnx-int8", **options))
    with artifact:
        kernels = [
            weight.values
            for weight in artifact.weights().values()
            if weight.values.dtype == np.int8
        ]
    assert kernels
    assert max(np.abs(kernel.astype(int)).max() for kernel in kernels) == 64


def test_7_bits_are_what_int16_holds():
    kernel = np.linspace(-1, 1, 257, dtype=np.float32)[:, np.newaxis]
    reduced = quantization.Precision("int8", "int8", is_reduced=True).largest_weight
    integers = quantization.of_kernel(kernel, largest_weight=reduced).quantize(
        kernel, np.int8
    )
    largest = np.abs(integers.astype(int)).max()
    assert 2 * 255 * largest <= np.iinfo(np.int16).max < 2 * 255 * (largest + 1)


@pytest.mark.parametrize(("low", "high"), [(0, 3), (-1, 3), (-4, 3), (-1, 0), (0, 0)])
def test_symmetric_ranges(low, high):
    found = quantization.of_range(low, high, is_symmetric=True)
    assert found.zero_point == 0
    integers = found.quantize(np.array([low, high]), np.int8)
    assert max(abs(integers)) == (127 if low or high else 0)
    assert np.allclose(found.dequantize(integers), [low, high], atol=found.scale / 2)


@pytest.mark.parametrize(
    ("options", "said", "problems"),
    [
        ({}, SYMMETRIC, ["activation first/Relu: in uint8, expected int8"]),
        (SYMMETRIC, {}, ["activation first/Relu: in int8, expected uint8"]),
        ({}, REDUCED, ["scales differ from the checkpoint's by up to 0.4"]),
        (REDUCED, {}, ["scales differ from the checkpoint's by up to 0.9"]),
    ],
)
def test_files_that_are_not_what_they_say(tmp_path, options, said, problems):
    path = exported(tmp_path, "onnx-int8", **options)
    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "irv2")
    record = json.loads(entry.value)
    for name in SYMMETRIC | REDUCED:
        record["options"].pop(name, None)
    record["options"] |= said
    entry.value = json.dumps(record)
    path.write_bytes(model.SerializeToString())
    for beside in manifest.companions_of(path):
        if beside.is_file():
            beside.unlink()
    manifest.path_of(path).unlink()
    item = verified(path)
    assert not item.passed
    told = "\n".join([*item.report.problems, *item.report.weights.wrong])
    for problem in problems:
        assert problem in told


def test_integer_images_have_no_zero_point_of_0():
    with pytest.raises(ExportError, match="--integer-type does not go with"):
        ExportOptions(integer_type="uint8", **SYMMETRIC)
    with pytest.raises(ExportError, match="expected 'asymmetric' or 'symmetric'"):
        ExportOptions(int8_activations="odd")


@pytest.mark.parametrize(
    ("name", "options", "flag"),
    [
        ("onnx-float32", SYMMETRIC, "--int8-activations"),
        ("tflite-dynamic-int8", SYMMETRIC, "--int8-activations"),
        ("onnx-float16", REDUCED, "--reduce-range"),
        ("tflite-int8", REDUCED, "--reduce-range"),
    ],
)
def test_formats_without(tmp_path, name, options, flag):
    with pytest.raises(ExportError, match=f"{flag} has no effect on {name}"):
        exported(tmp_path, name, **options)


def test_a_manifest_with_odd_options(tmp_path):
    path = exported(tmp_path, "onnx-int8", **SYMMETRIC)
    place = manifest.path_of(path)
    described = json.loads(place.read_text())
    described["options"]["int8_activations"] = "odd"
    place.write_text(json.dumps(described))
    done = rebuilding.rebuild(
        path,
        CHECKPOINT,
        formats={"onnx-int8": row("onnx-int8")},
        reference=small_build.BlockReference(CHECKPOINT),
    )
    assert "expected 'asymmetric'" in done.artifacts[0].error


def test_records_of_others_are_what_they_were():
    recorded = ExportOptions().recorded(FORMATS["onnx-int8"].options)
    assert set(recorded) == {"image_size", "nchw", "endpoints"}


@pytest.mark.parametrize(
    ("name", "options"),
    [("onnx-int8", SYMMETRIC | REDUCED), ("tflite-int8", SYMMETRIC)],
)
def test_what_is_inside_can_be_seen(tmp_path, name, options):
    artifact, _ = open_artifact(exported(tmp_path, name, **options))
    (batch,) = small_build.IMAGES.batches(small_build.IMAGE_SIZE)
    with artifact:
        found = artifact.sections(BLOCK.cuts).through(batch)["head/logits"]
        np.testing.assert_array_equal(found, artifact.predict(batch))
