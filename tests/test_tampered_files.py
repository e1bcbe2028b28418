"""What a comparison must find in files that were changed, or written wrongly.

The files are those of a small block, written and opened as the real network's are.
"""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_build
from small_networks import BLOCK
from tampering import change

from exporters import parity
from exporters import record as records
from exporters.errors import ArtifactError
from exporters.formats import FORMATS, open_artifact
from exporters.network import quantization
from exporters.network.quantization import Quantization
from exporters.network.tasks import TASKS
from exporters.parity import ParityReport
from exporters.verification import verify

CHECKPOINT = small_build.checkpoint()
REFERENCE = small_build.BlockReference(CHECKPOINT)
WRITTEN = [row.name for row in small_build.WRITTEN]
FLOAT32 = ["onnx-float32", "tflite-float32"]
FLOAT16 = ["onnx-float16", "tflite-float16"]
INT8 = ["onnx-int8", "tflite-int8"]
LAYER = "scope/left/Relu"
KERNEL, BIAS = f"{LAYER}/weights", f"{LAYER}/biases"
SOURCE = "max"
"""What the layer reads."""


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    small_build.install(monkeypatch)


@pytest.fixture
def write(tmp_path):
    """Writes a file for classification in a format."""

    def write(format: str, **options) -> Path:
        row = FORMATS[format]
        options = dataclasses.replace(small_build.OPTIONS, **options)
        build = small_build.build(CHECKPOINT, options)
        path = tmp_path / f"file{row.container.suffix}"
        return small_build.write(build, row, TASKS["classification"], path)

    return write


def compare(path: Path) -> ParityReport:
    artifact, row = open_artifact(path)
    with artifact:
        return parity.compare(
            artifact, REFERENCE, small_build.IMAGES, row.tolerance, row.precision
        )


def wrong(path: Path) -> dict[str, str]:
    """Weight or activation that a comparison finds fault with -> what is wrong."""
    report = compare(path)
    lines = [*report.weights.wrong, *report.problems]
    assert report.passed is False or not lines
    return dict(line.removeprefix("activation ").split(": ", 1) for line in lines)


@pytest.mark.parametrize("format", WRITTEN)
def test_what_was_written_agrees(write, format):
    report = compare(write(format))
    assert report.passed, report.failures()
    assert report.weights.count == 2 * len(list(BLOCK.weighted))


# Names of classes


@pytest.mark.parametrize("format", WRITTEN)
def test_names_of_classes(write, format):
    artifact, row = open_artifact(write(format))
    given = small_build.IMAGES, row.tolerance, row.precision
    last = small_build.LABELS[-1]
    with artifact:
        for names, expected in (
            (small_build.LABELS, []),
            (None, []),
            (
                (*small_build.LABELS[:-1], "oak"),
                [
                    f"class {len(small_build.LABELS) - 1} is called {last!r}, "
                    "expected 'oak'"
                ],
            ),
            (
                (*small_build.LABELS, "oak"),
                ["6 names of classes, expected 7"],
            ),
            (
                ("oak", "ash", *small_build.LABELS[2:-2], "elm", "yew"),
                [
                    "4 of 6 classes have other names than expected: class 0 is called "
                    "'rose', expected 'oak', and so on. Names of your own are given "
                    "with --labels."
                ],
            ),
        ):
            report = parity.compare(artifact, REFERENCE, *given, names)
            assert list(report.problems) == expected
            assert report.passed is not bool(expected)


@pytest.mark.parametrize("format", ["onnx-float32", "tflite-float32", "tfjs-v3"])
def test_a_name_that_was_changed(write, format):
    """By as many bytes, as somebody would who fits the manifest to it as well."""
    path = write(format)
    file = path / "model.json" if path.is_dir() else path
    content = file.read_bytes()
    assert content.count(b"daisy") == 1
    file.write_bytes(content.replace(b"daisy", b"dandy"))
    if format.startswith("tflite"):
        # The archive's checksum, where Python looks at it, or the seal.
        with pytest.raises(ArtifactError):
            opened, _ = open_artifact(path)
            opened.labels()
        return
    artifact, row = open_artifact(path)
    with artifact:
        report = parity.compare(
            artifact,
            REFERENCE,
            small_build.IMAGES,
            row.tolerance,
            row.precision,
            small_build.LABELS,
        )
    assert report.problems == ("class 2 is called 'dandy', expected 'daisy'",)


# Kernels in integers


@pytest.mark.parametrize("format", INT8)
def test_nothing_in_steps_of_ten(write, format):
    path = write(format)
    change(
        path, {KERNEL: np.zeros_like, f"{KERNEL}/scale": lambda scale: 10 + 0 * scale}
    )
    assert wrong(path)[KERNEL].startswith("its scales differ")


@pytest.mark.parametrize("format", ["tflite-dynamic-int8", *INT8])
def test_a_whole_file_of_nothing_in_steps_of_ten(write, format):
    path = write(format)
    artifact, _ = open_artifact(path)
    kernels = [n for n, of in artifact.weights().items() if of.values.dtype == np.int8]
    assert len(kernels) >= 3
    changes = {name: np.zeros_like for name in kernels}
    changes |= {f"{name}/scale": lambda scale: 10 + 0 * scale for name in kernels}
    change(path, changes)
    assert wrong(path).keys() >= set(kernels)


@pytest.mark.parametrize("format", ["tflite-dynamic-int8", *INT8])
def test_coarser_steps_of_the_same_values(write, format):
    """A channel in steps twice as large has lost a bit: no harmless change."""

    def change_channel(factor):
        def changed(values):
            values = values.copy()
            values[3] = np.rint(values[3] * factor)
            return values

        return changed

    path = write(format)
    change(
        path,
        {
            KERNEL: change_channel(0.5),
            f"{KERNEL}/scale": lambda scale: scale * np.where(np.arange(8) == 3, 2, 1),
        },
    )
    assert wrong(path)[KERNEL] == "its scales differ from the checkpoint's by up to 1"


@pytest.mark.parametrize("format", ["tflite-dynamic-int8", *INT8])
def test_one_integer_moved_by_one(write, format):
    def moved(values):
        values = values.copy()
        values.flat[10] += -1 if values.flat[10] > 0 else 1
        return values

    path = write(format)
    change(path, {KERNEL: moved})
    found = wrong(path)
    assert found.keys() == {KERNEL}
    assert found[KERNEL].startswith("1 of 128 values differ")


@pytest.mark.parametrize("format", INT8)
def test_two_channels_swapped(write, format):
    path = write(format)
    swapped = [1, 0, 2, 3, 4, 5, 6, 7]
    names = [KERNEL, f"{KERNEL}/scale", BIAS, f"{BIAS}/scale"]
    change(path, {name: lambda values: values[swapped] for name in names})
    assert KERNEL in wrong(path)


# Biases in integers


@pytest.mark.parametrize("format", INT8)
def test_one_bias_moved(write, format):
    """By a 30th of what the layer's output ranges over."""
    path = write(format)
    artifact, _ = open_artifact(path)
    step = artifact.weights()[BIAS].quantization.scale[4]
    span = 255 * artifact.activations()["left/Relu"].scale[0]

    def moved(values):
        return values + np.where(np.arange(8) == 4, span / 30 / step, 0).astype(int)

    change(path, {BIAS: moved})
    found = wrong(path)
    assert found.keys() == {BIAS}
    assert found[BIAS].startswith("1 of 8 values differ")


@pytest.mark.parametrize("format", INT8)
def test_biases_made_good_for_what_did_not_happen(write, format, monkeypatch):
    def wrong_shift(kernel, *_):
        return np.ones(kernel.shape[-1], np.float32)

    monkeypatch.setattr(quantization, "rounding_shift", wrong_shift)
    path = write(format)
    in_integers = {
        name
        for name, of in open_artifact(path)[0].weights().items()
        if of.values.dtype == np.int32
    }
    assert len(in_integers) >= 3
    assert wrong(path).keys() == in_integers


@pytest.mark.parametrize("format", INT8)
def test_biases_in_steps_of_their_own(write, format):
    path = write(format)
    change(path, {f"{BIAS}/scale": lambda s: s * 2, BIAS: lambda values: values // 2})
    assert wrong(path)[BIAS] == "not in steps of input times kernel"


# Activations in integers


@pytest.mark.parametrize("format", INT8)
def test_an_activation_in_other_steps_than_its_reader_counts_in(write, format):
    """What a pool gives, and all that shares its steps: TFLite would not run otherwise."""
    path = write(format)
    alike = ["first/Relu", "max", "average"]
    change(path, {f"{name}/scale": lambda scale: scale * 1.5 for name in alike})
    found = wrong(path)
    for bias in (BIAS, "scope/right/Relu/biases"):
        assert found[bias] == "not in steps of input times kernel"


def test_a_pool_that_changes_steps(write):
    path = write("tflite-int8")
    change(path, {"max/scale": lambda scale: scale * 1.5})
    with pytest.raises(ArtifactError, match=r"file\.tflite"):
        compare(path)


def _write_with(change_of, names, write, format, monkeypatch) -> Path:
    """Writes a file in which some activations have another quantization throughout."""
    right = quantization.of_activations

    def wrong(*arguments, **options):
        found = right(*arguments, **options)
        return found | {name: change_of(found[name]) for name in names}

    monkeypatch.setattr(quantization, "of_activations", wrong)
    return write(format)


@pytest.mark.parametrize("format", INT8)
@pytest.mark.parametrize("factor", [0.1, 30])
@pytest.mark.parametrize(
    "names",
    [["sum/Relu"], ["up"], ["left/Relu", "right/Relu", "joined"]],
    ids=lambda names: names[0],
)
def test_ranges_that_do_not_suit_the_network(write, format, factor, names, monkeypatch):
    def scaled(of):
        return Quantization(of.scale * np.float32(factor), of.zero_point)

    path = _write_with(scaled, names, write, format, monkeypatch)
    found = wrong(path)
    # All have the range of the largest, which suits the others longer.
    assert names[0] in found
    assert found.keys() <= set(names)
    assert "the network's from" in found[names[0]]


@pytest.mark.parametrize("format", INT8)
@pytest.mark.parametrize(
    "name, zero_point",
    [("sum/Relu", -64), ("sum/Relu", 127), ("up", -128), ("up", 127)],
)
def test_wrong_zero_points(write, format, name, zero_point, monkeypatch):
    def moved(of):
        return Quantization(of.scale, zero_point)

    path = _write_with(moved, [name], write, format, monkeypatch)
    assert wrong(path).keys() == {name}


@pytest.mark.parametrize("format", INT8)
def test_what_joins_rectified_layers_starts_at_0_as_they_do(write, format, monkeypatch):
    def moved(of):
        return Quantization(of.scale, of.zero_point + 1)

    names = ["left/Relu", "right/Relu", "joined"]
    path = _write_with(moved, names, write, format, monkeypatch)
    assert wrong(path).keys() == set(names)


@pytest.mark.parametrize("factor, zero_point", [(1.01, -128), (1, -127)])
def test_images_have_the_range_that_the_format_says(
    write, factor, zero_point, monkeypatch
):
    def changed(of):
        return Quantization(of.scale * np.float32(factor), zero_point)

    def write_full(format):
        return write(format, full_integer=True)

    path = _write_with(changed, ["in"], write_full, "tflite-int8", monkeypatch)
    assert wrong(path)["in"].endswith("expected 0 to 1")


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_ranges_of_other_images_are_no_fault(write, factor, monkeypatch):
    def scaled(of):
        return Quantization(of.scale * np.float32(factor), of.zero_point)

    path = _write_with(scaled, ["up", "sum/Relu"], write, "onnx-int8", monkeypatch)
    assert wrong(path) == {}


# Floats


@pytest.mark.parametrize("format", FLOAT32)
@pytest.mark.parametrize("name", [KERNEL, BIAS])
def test_one_float_off_by_its_last_bit(write, format, name):
    def moved(values):
        values = values.copy()
        values.flat[5] = np.nextafter(values.flat[5], np.float32(np.inf))
        return values

    path = write(format)
    change(path, {name: moved})
    found = wrong(path)
    assert found.keys() == {name}
    assert found[name].startswith("1 of ")


@pytest.mark.parametrize("format", FLOAT16)
@pytest.mark.parametrize("name", [KERNEL, BIAS])
def test_one_half_rounded_the_wrong_way(write, format, name):
    weights = REFERENCE.weights(TASKS["classification"], is_folded=True)
    exact = weights[name].reshape(-1, 8)[0, 5]  # Output 5, the kernel's first place.

    def moved(values):
        values = values.copy()
        first = values.reshape(8, -1)[5]
        other = np.inf if first[0] < exact else -np.inf
        first[0] = np.nextafter(first[0], np.float16(other))
        return values

    path = write(format)
    change(path, {name: moved})
    found = wrong(path)
    assert found.keys() == {name}
    assert found[name].startswith("1 of ")


def test_layers_promised_in_float_are_compared_bit_by_bit(write):
    path = write("onnx-int8")
    name = "scope/first/Relu/weights"
    change(path, {name: lambda values: values * np.float32(1 + 1e-6)})
    assert wrong(path).keys() == {name}


# Outputs


def _without_output(path: Path, name: str) -> None:
    model = onnx.load(path)
    (dropped,) = (output for output in model.graph.output if output.name == name)
    model.graph.output.remove(dropped)
    onnx.save(model, path)


@pytest.mark.parametrize("format", ["onnx-float32", "onnx-int8"])
@pytest.mark.parametrize(
    "name", ["logits", "InceptionResnetV2/Predictions", "InceptionResnetV2/global_pool"]
)
def test_a_dropped_output(write, format, name):
    path = write(format, endpoints=True)
    _without_output(path, name)
    report = compare(path)
    assert not report.passed
    assert report.problems == (f"output {name}: missing",)


def test_an_output_too_many(write):
    path = write("onnx-float32")
    model = onnx.load(path)
    extra = onnx.ValueInfoProto(name="head/features")
    model.graph.output.append(extra)
    onnx.save(model, path)
    assert compare(path).problems == ("output head/features: unexpected",)


# What a file says about itself


def _write_as(claimed: str, written: str, path: Path) -> Path:
    """Writes a file in one format that says it is of another."""
    build = small_build.build(CHECKPOINT)
    row, task = FORMATS[written], TASKS["classification"]
    options = build.options.recorded(row.options)
    record = records.make(claimed, task.name, CHECKPOINT, options)
    row.write(build, task, record, path)
    return path


@pytest.mark.parametrize(
    "claimed, written",
    [
        (claimed, written)
        for claimed in WRITTEN
        for written in WRITTEN
        if claimed != written
        and claimed.split("-")[0] == written.split("-")[0]
        # Cannot even be opened as another.
        and "tfjs-v1" not in (claimed, written)
    ],
)
def test_another_format_of_the_same_container(claimed, written, tmp_path):
    report = compare(_write_as(claimed, written, tmp_path / "file"))
    assert report.weights.wrong
    assert not report.passed


@pytest.mark.parametrize("written", ["tflite-int8", "onnx-int8"])
@pytest.mark.parametrize("claimed", ["int9", "v1", "tflite-float32", "onnx-float32"])
def test_a_format_that_its_container_does_not_have(written, claimed, tmp_path):
    if claimed.split("-")[0] == written.split("-")[0]:
        return
    path = _write_as(claimed, written, tmp_path / "file")
    with pytest.raises(ArtifactError, match=f"'{claimed}', which is no format of its"):
        open_artifact(path)


def test_one_file_of_an_unknown_format_does_not_hide_the_others(tmp_path):
    unknown = _write_as("tflite-int9", "tflite-int8", tmp_path / "a.tflite")
    known = _write_as("tflite-int8", "tflite-int8", tmp_path / "b.tflite")
    done = verify(
        tmp_path,
        CHECKPOINT,
        images=small_build.IMAGES,
        reference=REFERENCE,
    )
    by_path = {item.path: item for item in done.artifacts}
    assert "tflite-int9" in by_path[unknown].error
    assert by_path[known].passed
    assert not done.passed


@pytest.mark.parametrize("format", INT8)
def test_another_task(format, tmp_path):
    record = records.make(format, "feature_vector", CHECKPOINT, {})
    row, path = FORMATS[format], tmp_path / "file"
    row.write(small_build.build(CHECKPOINT), TASKS["classification"], record, path)
    report = compare(path)
    assert "output feature_vector: missing" in report.problems
    assert "output logits: unexpected" in report.problems


@pytest.mark.parametrize("format", ["tflite-float32", "tflite-int8"])
def test_logits_that_a_record_calls_probabilities(format, tmp_path):
    record = records.make(format, "classification", CHECKPOINT, {"softmax": True})
    row, path = FORMATS[format], tmp_path / "file"
    row.write(small_build.build(CHECKPOINT), TASKS["classification"], record, path)
    assert "output probabilities: missing" in compare(path).problems


class _DeepRecord(records.Record):
    def to_text(self) -> str:
        return "[" * 100_000


@pytest.mark.parametrize("format", ["onnx-int8", "tflite-int8"])
def test_a_record_nested_too_deeply(format, tmp_path):
    row, task = FORMATS[format], TASKS["classification"]
    record = records.make(format, task.name, CHECKPOINT, {})
    path = tmp_path / "file"
    deep = _DeepRecord(**record.as_dict())
    row.write(small_build.build(CHECKPOINT), task, deep, path)
    with pytest.raises(ArtifactError, match="nested too deeply"):
        open_artifact(path)


@pytest.mark.parametrize("format", WRITTEN)
def test_another_checkpoint(write, format):
    other = small_build.checkpoint(seed=1)
    artifact, row = open_artifact(write(format))
    reference = small_build.BlockReference(other)
    report = parity.compare(
        artifact, reference, small_build.IMAGES, row.tolerance, row.precision
    )
    assert any("made of the checkpoint" in problem for problem in report.problems)
    assert len(report.weights.wrong) >= len(list(BLOCK.weighted))
