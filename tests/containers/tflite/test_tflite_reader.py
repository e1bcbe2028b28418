"""TFLite files read back: their seal, their record, and damage of every kind."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import small_build
import small_networks
from ai_edge_litert import schema_py_generated as schema
from small_networks import BLOCK, SIZE

from exporters.containers.tflite import container, reader, writer
from exporters.errors import ArtifactError
from exporters.formats import FORMATS
from exporters.network.quantization import Precision
from exporters.network.tasks import TASKS

CHECKPOINT = small_build.checkpoint()
INT8 = FORMATS["tflite-int8"]


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    small_build.install(monkeypatch)


@pytest.fixture
def path(tmp_path) -> Path:
    """A file in integers."""
    build = small_build.build(CHECKPOINT)
    task = TASKS["classification"]
    return small_build.write(build, INT8, task, tmp_path / "file.tflite")


def _open(path: Path) -> tuple[np.ndarray, schema.Model]:
    data = np.memmap(path, np.uint8, "r+")
    return data, schema.Model.GetRootAs(data)


def _tensors(model: schema.Model) -> dict[str, schema.Tensor]:
    subgraph = model.Subgraphs(0)
    tensors = map(subgraph.Tensors, range(subgraph.TensorsLength()))
    return {tensor.Name().decode(): tensor for tensor in tensors}


def _span(data: np.ndarray, content: np.ndarray) -> slice:
    start = content.ctypes.data - data.ctypes.data
    return slice(start, start + content.nbytes)


def _weight_spans(data: np.ndarray, model: schema.Model) -> list[slice]:
    return [
        _span(data, model.Buffers(tensor.Buffer()).DataAsNumpy())
        for name, tensor in _tensors(model).items()
        if name.endswith(("/weights", "/biases"))
    ]


def test_what_is_written_is_read(path):
    file = reader.read(path)
    assert file.record.format == "tflite-int8"
    assert file.record.checkpoint_identity == CHECKPOINT.identity
    weights = file.weights()
    assert list(weights) == [
        f"{layer.scope}/{part}"
        for layer in BLOCK.weighted
        for part in ("weights", "biases")
    ]
    expected = small_build.build(CHECKPOINT).quantized(INT8.precision)
    for scope, of in expected.weights.items():
        for name, integers in (
            (f"{scope}/weights", of.kernel),
            (f"{scope}/biases", of.bias),
        ):
            values = weights[name].values  # A matrix may be a 1 x 1 convolution's.
            values = values.reshape(integers.values.shape)
            np.testing.assert_array_equal(values, integers.values)
            found = weights[name].quantization
            np.testing.assert_array_equal(found.scale, integers.quantization.scale)
            assert found.zero_point == 0
    found = file.activations()
    # What the classifier gives is flattened, not the mean before it.
    assert found.keys() == expected.activations.keys() - {
        "head/features",
        "head/probabilities",
    }
    for name, of in found.items():
        assert of.scale == expected.activations[name].scale
        assert of.zero_point == expected.activations[name].zero_point


# Damage


def test_damage_anywhere_but_in_weights_is_found(path):
    data, model = _open(path)
    outside = np.ones(len(data), bool)
    for span in _weight_spans(data, model):
        outside[span] = False
    places = np.flatnonzero(outside)
    record = path.read_bytes().index(b'{"schema_version": ')
    random = np.random.default_rng(0)
    chosen = [*places[:60], *range(record, record + 400), *random.choice(places, 200)]
    for place in chosen:
        value = data[place]
        data[place] ^= random.integers(1, 256, dtype=np.uint8)
        with pytest.raises(ArtifactError, match=r"file\.tflite"):
            container.open(path)
        data[place] = value
    container.open(path)


def test_changed_weights_are_read_as_they_are(path):
    """They cannot crash anything, and are compared with the checkpoint's."""
    before = reader.read(path).weights()["scope/up/weights"].values.copy()
    data, model = _open(path)
    data[
        _span(
            data,
            model.Buffers(_tensors(model)["scope/up/weights"].Buffer()).DataAsNumpy(),
        )
    ] ^= 1
    assert (reader.read(path).weights()["scope/up/weights"].values != before).all()


@pytest.mark.parametrize("kept", [0, 3, 8, 100, 1000, 0.5, 0.999])
def test_truncated_files_are_refused(path, kept):
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(int(kept * size) if 0 < kept < 1 else kept)
    with pytest.raises(ArtifactError, match=r"file\.tflite"):
        container.open(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\x08\x0a" * 100)
    with pytest.raises(ArtifactError, match="no TFLite file"):
        container.open(path)


def test_files_of_other_makers_are_refused(tmp_path):
    path = tmp_path / "other.tflite"
    weights = small_networks.weights(BLOCK)
    outputs, metadata = {"out": "head/logits"}, {"min_runtime_version": b"2.3"}
    content = writer.write(
        BLOCK, weights, SIZE, Precision(), outputs, metadata=metadata
    )
    path.write_bytes(content)
    with pytest.raises(
        ArtifactError, match=r"none that irv2 made.*min_runtime_version"
    ):
        container.open(path)


def _without_quantization(tensor: schema.TensorT) -> None:
    tensor.quantization = None


def _without_scale(tensor: schema.TensorT) -> None:
    tensor.quantization.scale = None


def _of_another_type(tensor: schema.TensorT) -> None:
    tensor.type = schema.TensorType.INT64


def _of_another_shape(tensor: schema.TensorT) -> None:
    tensor.shape = [7, 7]


def _of_several_zero_points(tensor: schema.TensorT) -> None:
    tensor.quantization.scale = np.ones(2, np.float32)
    tensor.quantization.zeroPoint = np.arange(2)


@pytest.mark.parametrize(
    "name, change",
    [
        ("scope/up/weights", _without_quantization),
        ("scope/up/weights", _of_another_type),
        ("scope/up/weights", _of_another_shape),
        ("sum/Relu", _without_quantization),
        ("sum/Relu", _of_several_zero_points),
    ],
)
def test_a_seal_does_not_make_nonsense_readable(path, name, change):
    """As somebody might leave it who changes files, and knows of the seal."""
    _rebuild(path, name, change)
    with pytest.raises(ArtifactError, match=r"file\.tflite"):
        file = reader.read(path)
        file.weights(), file.activations()


def test_no_scale_is_a_scale_of_0(path):
    _rebuild(path, "sum/Relu", _without_scale)
    assert reader.read(path).activations()["sum/Relu"].scale.tolist() == [0]


def _rebuild(path: Path, name: str, change) -> None:
    """Writes a file with a tensor changed, and seals it."""
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    for tensor in model.subgraphs[0].tensors:
        if tensor.name.decode() == name:
            change(tensor)
    for entry in model.metadata:
        if entry.name.decode() == reader.SEAL:
            model.buffers[entry.buffer].data = np.frombuffer(reader.UNSEALED, np.uint8)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    reader.seal(path)


# Records of the first version, which held the seal


VERSION_1 = {
    "format": "tflite-float32",
    "task": "classification",
    "checkpoint_identity": CHECKPOINT.identity,
    "stand_in": False,
    "provenance": "unverified",
    "signed_input": False,
}


def _write_version_1(path: Path, output="logits", **changed) -> Path:
    facts = VERSION_1 | changed
    unsealed = json.dumps(facts | {"seal": "0" * 64}).encode()
    build = small_build.build(CHECKPOINT)
    input_range = (-1.0, 1.0) if facts["signed_input"] else (0.0, 1.0)
    content = writer.write(
        BLOCK,
        build.weights(input_range),
        small_build.IMAGE_SIZE,
        Precision(),
        {output: f"head/{output}"},
        metadata={"irv2": unsealed},
    )
    path.write_bytes(content)
    data, model = _open(path)
    record = _span(data, model.Buffers(model.Metadata(0).Buffer()).DataAsNumpy())
    outside = np.ones(len(data), bool)
    for span in [*_weight_spans(data, model), record]:
        outside[span] = False
    seal = hashlib.sha256(unsealed + data[outside].tobytes()).hexdigest()
    sealed = json.dumps(facts | {"seal": seal}).encode()
    data[record] = np.frombuffer(sealed, np.uint8)
    data.flush()
    return path


@pytest.mark.parametrize("signed_input", [False, True])
def test_files_of_version_1_are_read(tmp_path, signed_input):
    path = _write_version_1(tmp_path / "old.tflite", signed_input=signed_input)
    artifact = container.open(path)
    assert artifact.record.schema_version == 1
    assert artifact.record.options == {"signed_input": signed_input}
    assert artifact.format == "tflite-float32"
    assert list(artifact.outputs) == ["logits"]
    assert artifact.input_range == ((-1, 1) if signed_input else (0, 1))
    images = small_build.IMAGES.batches(small_build.IMAGE_SIZE)[0][:2]
    reference = small_build.BlockReference(CHECKPOINT)
    expected = reference.outputs(images, ["logits"])["logits"]
    np.testing.assert_allclose(artifact.run(images)["logits"], expected, atol=1e-4)


def test_files_of_version_1_that_give_probabilities(tmp_path):
    """Which their record did not say."""
    path = _write_version_1(tmp_path / "old.tflite", output="probabilities")
    assert list(container.open(path).outputs) == ["probabilities"]


def test_damage_in_files_of_version_1(tmp_path):
    path = _write_version_1(tmp_path / "old.tflite")
    content = path.read_bytes()
    record, end = content.index(b'{"format"'), content.index(b'"}') + 2
    for place in [*range(8, 200, 5), *range(record, end)]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"old\.tflite"):
            container.open(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "{}", '{"seal": 3}', "null", "\0"]
)
def test_records_of_version_1_that_are_none(tmp_path, text):
    path = tmp_path / "file.tflite"
    content = writer.write(
        BLOCK,
        small_networks.weights(BLOCK),
        SIZE,
        Precision(),
        {"out": "head/logits"},
        metadata={"irv2": text.encode()},
    )
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"file\.tflite is damaged"):
        container.open(path)
