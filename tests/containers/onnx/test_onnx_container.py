"""ONNX files in the hands of their consumers, by ONNX Runtime."""

import collections
import dataclasses
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import small_build
from onnx import numpy_helper

from checkpoints.reader import Checkpoint
from exporters import images, parity
from exporters import record as records
from exporters.containers.onnx import container
from exporters.errors import ArtifactError, ExportError
from exporters.formats import FORMATS, open_artifact
from exporters.network.tasks import TASKS

WRITTEN = [name for name in FORMATS if name.startswith("onnx-")]
CHECKPOINT = small_build.checkpoint()


# On a small block: options, metadata, files of all kinds


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Writes a file of the block."""
    small_build.install(monkeypatch)

    def write(format, task="classification", checkpoint=CHECKPOINT, **options):
        options = dataclasses.replace(small_build.OPTIONS, **options)
        build = small_build.build(checkpoint, options)
        row, path = FORMATS[format], tmp_path / f"{format}.onnx"
        return small_build.write(build, row, TASKS[task], path)

    return write


def compare(path):
    artifact, row = open_artifact(path)
    reference = small_build.BlockReference(CHECKPOINT)
    return parity.compare(
        artifact, reference, small_build.IMAGES, row.tolerance, row.precision
    )


def metadata_of(path):
    model = onnx.load(path)
    return {entry.key: entry.value for entry in model.metadata_props}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format", WRITTEN)
def test_a_file_says_what_it_is(small, format, task):
    artifact = container.open(small(format, task))
    assert artifact.format == artifact.record.format == format
    assert artifact.task == TASKS[task]
    assert artifact.record.checkpoint_identity == CHECKPOINT.identity
    assert artifact.record.stand_in is False
    assert artifact.record.options == {
        "image_size": [75, 75],
        "nchw": False,
        "endpoints": False,
    }
    assert artifact.image_size == (75, 75)
    assert artifact.is_folded


def test_metadata_tells_consumers_how_to_use_it(small):
    metadata = metadata_of(small("onnx-int8"))
    assert tuple(metadata["labels"].split("\n")) == small_build.LABELS
    assert metadata["input"] == "images: float32 NHWC, RGB in [0, 1]"
    assert metadata["stand_in"] == "false"
    assert metadata["calibration"] == "noise"
    metadata = metadata_of(small("onnx-float16", "feature_vector", nchw=True))
    assert metadata["input"] == "images: float32 NCHW, RGB in [0, 1]"
    assert metadata.keys().isdisjoint({"labels", "calibration"})


@pytest.mark.parametrize("format", WRITTEN)
def test_a_file_is_valid_and_old_runtimes_read_it(small, format):
    path = small(format, endpoints=True)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert model.ir_version <= 10
    assert [(entry.domain, entry.version <= 21) for entry in model.opset_import] == [
        ("", True)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"nchw": True},
        {"endpoints": True},
        {"image_size": None},
        {"nchw": True, "endpoints": True, "image_size": None},
    ],
    ids=lambda options: ", ".join(options),
)
@pytest.mark.parametrize("format", WRITTEN)
def test_every_option_agrees_with_the_network(small, format, options, monkeypatch):
    if "image_size" in options:  # At sizes that take less time.
        generated = [images.generate(2, *size) for size in [(75, 80), (90, 75)]]
        monkeypatch.setattr(small_build.IMAGES, "batches", lambda _: generated)
    path = small(format, **options)
    report = compare(path)
    assert report.passed, report.failures()
    endpoints = TASKS["classification"].endpoints if "endpoints" in options else ()
    assert list(report.outputs) == [
        "logits",
        *(f"InceptionResnetV2/{name}" for name in endpoints),
    ]
    (image,) = onnxruntime.InferenceSession(str(path)).get_inputs()
    grid = ["height", "width"] if "image_size" in options else [75, 75]
    expected = [3, *grid] if "nchw" in options else [*grid, 3]
    assert image.shape == ["batch", *expected]


def test_shapes_of_outputs_are_stated(small):
    session = onnxruntime.InferenceSession(
        str(small("onnx-float32", "feature_vector", endpoints=True))
    )
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes == {
        "feature_vector": ["batch", 16],
        "InceptionResnetV2/Conv2d_1a_3x3": ["batch", 73, 73, 16],
        "InceptionResnetV2/global_pool": ["batch", 1, 1, 16],
    }


@pytest.mark.parametrize("format", WRITTEN)
def test_the_same_inputs_give_the_same_bytes(small, format):
    assert small(format).read_bytes() == small(format).read_bytes()


def test_a_batch_may_be_of_any_length(small):
    session = onnxruntime.InferenceSession(str(small("onnx-int8")))
    (batch,) = small_build.IMAGES.batches((75, 75))
    (together,) = session.run(["logits"], {"images": batch})
    single = [session.run(["logits"], {"images": image[None]})[0] for image in batch]
    np.testing.assert_allclose(together, np.concatenate(single), atol=1e-6)


# float16


def _with_large_activations(largest):
    variables = {name: value.copy() for name, value in CHECKPOINT.items()}
    variables["scope/left/Relu/BatchNorm/beta"][2] = largest
    return small_build.checkpoint(**variables)


def test_activations_too_large_for_float16_are_refused(small):
    with pytest.raises(
        ExportError,
        match=r"left/Relu reaches [\d.e+]+ on the calibration images.*65504",
    ):
        small("onnx-float16", checkpoint=_with_large_activations(4e4))
    small("onnx-float16", checkpoint=_with_large_activations(2e4))
    small("onnx-float32", checkpoint=_with_large_activations(4e4))


def test_a_sum_too_large_for_float16_is_refused(small):
    """Though each part is not."""
    variables = {name: value.copy() for name, value in CHECKPOINT.items()}
    variables["scope/first/Relu/BatchNorm/beta"][:] = 2e4
    for name in ("left", "right"):
        variables[f"scope/{name}/Relu/weights"][:] = 0
    variables["scope/up/biases"][:] = 5e4  # Half of it is added.
    with pytest.raises(ExportError, match="sum/Relu reaches"):
        small("onnx-float16", checkpoint=small_build.checkpoint(**variables))


# Files of the first version, whose records lay in keys of their own


def _as_version_1(path, format="onnx-int8", **changed):
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    del kept[container.RECORD]
    facts = {
        "tool": "irv2",
        "format": format,
        "task": "classification",
        "checkpoint_identity": CHECKPOINT.identity,
        "provenance": "unverified",
        "input_layout": "NHWC",
    }
    facts = {name: text for name, text in (kept | facts | changed).items() if text}
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("nchw, endpoints", [(False, False), (True, True)])
def test_files_of_version_1_are_compared(small, format, nchw, endpoints):
    layout = "NCHW" if nchw else "NHWC"
    path = _as_version_1(
        small(format, nchw=nchw, endpoints=endpoints), format, input_layout=layout
    )
    record = container.open(path).record
    assert record.schema_version == 1
    assert record.options == {"nchw": nchw, "endpoints": endpoints}
    report = compare(path)
    assert report.passed, report.failures()


@pytest.mark.parametrize(
    "changed, found",
    [
        ({"tool": "other"}, "Expected one exported by irv2"),
        ({"tool": ""}, "Expected one exported by irv2"),
        ({"format": ""}, "format is None"),
        ({"task": "segmentation"}, "no task 'segmentation'"),
        ({"stand_in": "maybe"}, "stand_in is None"),
        ({"provenance": "hearsay"}, "no provenance 'hearsay'"),
    ],
)
def test_records_of_version_1_that_are_none(small, changed, found):
    path = _as_version_1(small("onnx-int8"), **changed)
    with pytest.raises(ArtifactError, match=found) as error:
        container.open(path)
    assert str(path) in str(error.value)


# Other files


def _foreign() -> bytes:
    images = onnx.helper.make_tensor_value_info("images", 1, ["batch"])
    output = onnx.helper.make_tensor_value_info("out", 1, ["batch"])
    node = onnx.helper.make_node("Relu", ["images"], ["out"])
    graph = onnx.helper.make_graph([node], "g", [images], [output])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(
        graph, opset_imports=opset, ir_version=8, producer_name="somebody"
    )
    return model.SerializeToString()


@pytest.mark.parametrize(
    "content, found",
    [
        (b"", "cannot open"),
        (b"\x08no model", "cannot open"),
        (b'\x08\x08:\x06\n\x04"\x02\xff\xff', "cannot open"),  # No UTF-8.
        (_foreign(), "'somebody'"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, found):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=found) as error:
        container.open(path)
    assert str(path) in str(error.value)
    assert "irv2" in str(error.value)


@pytest.mark.parametrize("kept", [8, 1000, 0.5, 0.999])
def test_truncated_files_are_refused(small, kept):
    path = small("onnx-int8")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(ArtifactError, match=r"onnx-int8\.onnx"):
        container.open(path)


def test_missing_file_is_refused_by_name(tmp_path):
    for open_ in (container.open, open_artifact):
        with pytest.raises(ArtifactError, match=r"missing\.onnx"):
            open_(tmp_path / "missing.onnx")


@pytest.mark.parametrize("is_missing", [False, True])
def test_weights_in_other_files_are_refused(small, tmp_path, is_missing):
    """As other tools may store them again."""
    path = small("onnx-float32")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / path.name
    onnx.save(
        onnx.load(path.parent.parent / path.name),
        path,
        save_as_external_data=True,
        location="data",
        size_threshold=0,
    )
    if is_missing:
        (tmp_path / "folder" / "data").unlink()
    found = r"folder/onnx-float32\.onnx" if is_missing else "weights in other files"
    with pytest.raises(ArtifactError, match=found):
        container.open(path).weights()


def test_another_input_is_refused(small):
    path = small("onnx-float32")
    model = onnx.load(path)
    model.graph.input[0].name = "pixels"
    model.graph.node[0].input[0] = "pixels"
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=r"input pixels .*expected images"):
        container.open(path)


def test_one_more_input_is_refused(small):
    path = small("onnx-float32")
    model = onnx.load(path)
    more = onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])
    model.graph.input.append(more)
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=r"input images .*, more .*expected images"):
        container.open(path)


def test_a_layout_other_than_the_record_says(small):
    path = small("onnx-float32", nchw=True)
    model = onnx.load(path)
    record = records.make("onnx-float32", "classification", CHECKPOINT, {})
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, metadata | {container.RECORD: record.to_text()})
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match="cannot be run on images of the shape"):
        compare(path)


@pytest.mark.parametrize("part", ["scale", "zero_point"])
def test_several_zero_points_or_no_scale(small, part):
    path = small("onnx-int8")
    name = "scope/up/weights"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == f"{name}/zero_point" and part == "zero_point":
            values = np.arange(16, dtype=np.int8)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        if tensor.name == f"{name}/scale" and part == "scale":
            tensor.name = "elsewhere"
            for node in model.graph.node:
                node.input[:] = [
                    "elsewhere" if x == f"{name}/scale" else x for x in node.input
                ]
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=f"no scale or no zero point.*{name}"):
        container.open(path).weights()


# The real network


@pytest.fixture(scope="module")
def files(build, tmp_path_factory):
    """A function (format, task, **options) -> path; each file is made once."""
    directory = tmp_path_factory.mktemp("onnx")
    written = {}

    def write(format, task="classification", **options):
        key = (format, task, *sorted(options.items()))
        if key not in written:
            changed = build
            if options:
                options = dataclasses.replace(build.options, **options)
                changed = dataclasses.replace(build, options=options)
            path = directory / f"{len(written)}.onnx"
            written[key] = small_build.write(
                changed, FORMATS[format], TASKS[task], path
            )
        return written[key]

    yield write
    shutil.rmtree(directory)  # They are large.


def _op_types(path) -> collections.Counter:
    return collections.Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("format", WRITTEN)
def test_files_agree_with_tf_slim(files, reference, parity_images, format, task):
    artifact, row = open_artifact(files(format, task))
    report = parity.compare(
        artifact, reference, parity_images, row.tolerance, row.precision
    )
    assert report.passed, report.failures()
    cosine = {"float32": 0.999999, "float16": 0.9999, "int8": 0.97}
    if task == "feature_vector":  # A random classifier sees only what differs in them.
        cosine["int8"] = 0.995
    assert report.main.cosine >= cosine[format.rpartition("-")[2]]


@pytest.mark.slow
@pytest.mark.parametrize("image_size", ["299", "224x320"])
def test_float32_agrees_with_tensorflow_1_15(
    build, raw_variables, reference_values, tmp_path, image_size
):
    raw = dataclasses.replace(
        build,
        checkpoint=Checkpoint(raw_variables, path=tmp_path / "raw.ckpt"),
        options=dataclasses.replace(build.options, image_size=None, endpoints=True),
    )
    row, task = FORMATS["onnx-float32"], TASKS["classification"]
    artifact = container.open(small_build.write(raw, row, task, tmp_path / "raw.onnx"))
    batch = reference_values[f"images_{image_size}"] / np.float32(255)
    found = artifact.run(batch)
    for name in ("global_pool", "Logits"):
        expected = reference_values[f"eval_{image_size}/{name}"]
        error = np.abs(found[f"InceptionResnetV2/{name}"] - expected).max()
        assert error <= 2e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_float32_graph_has_nothing_superfluous(files):
    assert _op_types(files("onnx-float32")) == {
        "Transpose": 1,
        "Conv": 244,
        "Relu": 243,
        "MaxPool": 4,
        "AveragePool": 1,
        "Concat": 43,
        "Add": 40,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
        "Identity": 1,
    }


@pytest.mark.slow
def test_onnx_runtime_finds_integer_kernels(files, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(files("onnx-int8", "feature_vector")), options)
    op_types = _op_types(tmp_path / "optimized.onnx")
    assert op_types["QLinearConv"] == 240
    assert op_types["QLinearAdd"] == 30
    assert op_types["Add"] == 10
    assert op_types["QLinearConcat"] == 43
    assert op_types["Conv"] == 4
    # Each sum in float reads a convolution's integers, and gives integers to the next;
    # before and after them, and at the ends, there is one more.
    assert op_types["QuantizeLinear"] == 11
    assert op_types["DequantizeLinear"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("format", WRITTEN)
def test_endpoints_of_images_of_any_size(files, reference, format):
    path = files(format, image_size=None, nchw=True, endpoints=True)
    onnx.checker.check_model(str(path), full_check=True)
    artifact = container.open(path)
    assert artifact.image_size is None
    batch = images.generate(2, 75, 110)
    found = artifact.run(batch)
    values = {name: output.value for name, output in artifact.outputs.items()}
    endpoints = TASKS["classification"].endpoints
    assert list(found) == ["logits", *(f"InceptionResnetV2/{e}" for e in endpoints)]
    expected = reference.outputs(batch, set(values.values()))
    tolerance = {"float32": 2e-5, "float16": 0.05, "int8": 0.5}
    for name, value in found.items():
        wanted = expected[values[name]]
        assert value.shape == wanted.shape
        error = np.abs(value - wanted).max() / np.abs(wanted).max()
        assert error <= tolerance[format.rpartition("-")[2]], name


@pytest.mark.slow
@pytest.mark.parametrize("format", WRITTEN)
def test_single_changed_weights_are_found(
    files, reference, parity_images, format, tmp_path
):
    """An integer by one, a float by its last bit; a bias by what shows beside rounding."""
    changed = {
        "InceptionResnetV2/Conv2d_1a_3x3/weights",
        "InceptionResnetV2/Conv2d_4a_3x3/weights",
        "InceptionResnetV2/Repeat_1/block17_7/Conv2d_1x1/biases",
        "InceptionResnetV2/Repeat_1/block17_7/Branch_1/Conv2d_0b_1x7/biases",
        "InceptionResnetV2/Logits/Logits/weights",
    }
    model = onnx.load(files(format))
    arrays = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            values = arrays[tensor.name].copy()
            one = values.reshape(-1)[values.size // 2 :][:1]
            if values.dtype == np.int32:
                one += np.int32(0.5 / arrays[f"{tensor.name}/scale"][values.size // 2])
            elif values.dtype == np.int8:
                one += -1 if one > 0 else 1
            else:
                one[:] = np.nextafter(one, values.dtype.type(np.inf))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = tmp_path / "changed.onnx"
    onnx.save(model, path)
    artifact, row = open_artifact(path)
    report = parity.compare(
        artifact, reference, parity_images, row.tolerance, row.precision
    )
    path.unlink()
    found = {line.partition(":")[0] for line in report.weights.wrong}
    assert found == changed
    assert all("1 of " in line for line in report.weights.wrong)
