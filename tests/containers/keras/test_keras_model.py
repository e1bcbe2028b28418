"""Files called .keras: what they consist of, and in the hands of Keras 3."""

import json
import sys
import zipfile

import numpy as np
import pytest
import small_twins

from checkpoints.reader import CheckpointError, open_checkpoint
from exporters import images
from exporters import record as records
from exporters.containers.keras import configuration, container
from exporters.errors import ArtifactError, MissingLibraryError
from exporters.formats import open_artifact
from exporters.network import layers
from exporters.network.tasks import TASKS

CHECKPOINT = small_twins.CHECKPOINT
MEMBERS = ["metadata.json", "config.json", "model.weights.h5"]
CASES = [("classification", (299, 299)), ("feature_vector", (224, 320))]


# Of a small block: what is in a file, and files that are damaged or of others


small = small_twins.writing("keras")


def rewrite(path, **changed):
    """Replaces members of a file; None takes one away."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= {
        name: changed.get(name.split(".")[0], members[name]) for name in members
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


def json_of(path, name):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(name))


@pytest.mark.parametrize("task", TASKS)
def test_a_file_says_what_it_is(small, task):
    artifact, row = open_artifact(small(task))
    assert row.name == artifact.format == artifact.record.format == "keras"
    assert artifact.task.name == artifact.record.task == task
    assert artifact.record.checkpoint_identity == CHECKPOINT.identity
    assert artifact.image_size is None
    assert artifact.input_range == (0, 1)
    assert not artifact.is_folded
    assert artifact.check() == []
    assert next(iter(artifact.outputs)) == TASKS[task].output


@pytest.mark.parametrize("task", TASKS)
def test_it_holds_the_variables_as_they_are(small, task):
    found = container.open(small(task)).weights()
    expected = small_twins.variables(task)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].values, values)
        assert found[name].values.dtype == np.float32


def test_members_and_metadata(small):
    path = small()
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == MEMBERS
        # Keras reads weights from within the archive only if they are not compressed.
        assert {info.compress_type for info in archive.infolist()} == {0}
    metadata = json_of(path, "metadata.json")
    assert metadata["keras_version"] == "3.5.0"
    assert tuple(metadata["labels"]) == small_twins.small_build.LABELS
    assert records.of_facts(metadata["irv2"], "it").format == "keras"
    assert "labels" not in json_of(small("feature_vector"), "metadata.json")


def test_the_same_inputs_give_the_same_bytes(small):
    first = small().read_bytes()
    assert small().read_bytes() == first


@pytest.mark.parametrize("end", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(small, end):
    path = small()
    content = path.read_bytes()
    path.write_bytes(content[: int(end * len(content))])
    with pytest.raises(ArtifactError, match=f"{path} cannot be read as a .keras file"):
        container.open(path)


@pytest.mark.parametrize(
    "metadata", [b"{}", b"[]", b'{"irv2": 3}', b'{"keras_version": "3.15.1"}']
)
def test_a_file_of_another_tool(small, metadata):
    path = small()
    rewrite(path, metadata=metadata)
    with pytest.raises(ArtifactError, match="another tool's, or saved again by Keras"):
        container.open(path)


def test_a_record_of_another_format(small):
    path = small()
    metadata = json_of(path, "metadata.json")
    metadata["irv2"]["format"] = "timm"
    rewrite(path, metadata=json.dumps(metadata))
    with pytest.raises(ArtifactError, match="says that it is 'timm', which is no"):
        open_artifact(path)


@pytest.mark.parametrize("name", ["metadata", "config"])
@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe", b"[" * 100_000])
def test_damaged_or_missing_json(small, name, content):
    path = small()
    rewrite(path, **{name: content})
    with pytest.raises(ArtifactError, match=str(path)):
        container.open(path)


@pytest.mark.parametrize("content", [None, b"", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_damaged_or_missing_weights(small, content):
    path = small()
    rewrite(path, model=content)
    with pytest.raises(ArtifactError, match=str(path)):
        container.open(path).weights()


def test_damaged_weights_are_found_by_their_checksum(small):
    path = small()
    content = bytearray(path.read_bytes())
    kernel = np.ascontiguousarray(CHECKPOINT["scope/first/Relu/weights"]).tobytes()
    content[content.index(kernel) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{path}.*CRC"):
        container.open(path).weights()


def test_a_changed_configuration_is_told_layer_by_layer(small):
    path = small()
    config = json_of(path, "config.json")
    norm = next(
        layer
        for layer in config["config"]["layers"]
        if layer["name"] == "scope-left-Relu-BatchNorm"
    )
    norm["config"]["epsilon"] = 0.5
    rewrite(path, config=json.dumps(config))
    assert container.open(path).check() == [
        "layer scope-left-Relu-BatchNorm: not as the network has it"
    ]
    config["config"]["layers"].remove(norm)
    rewrite(path, config=json.dumps(config))
    assert container.open(path).check() == [
        "layer scope-left-Relu-BatchNorm: not as the network has it"
    ]
    for content, told in (
        (b"[]", "its configuration is not that of a functional model"),
        (b'{"config": {"layers": [3]}}', "its configuration is not"),
    ):
        rewrite(path, config=content)
        assert container.open(path).check()[0].startswith(told)


def test_without_keras_it_can_be_opened_and_not_run(small, monkeypatch):
    artifact = container.open(small())
    monkeypatch.setitem(sys.modules, "keras", None)
    assert artifact.weights()
    with pytest.raises(MissingLibraryError, match="Keras cannot be imported"):
        artifact.run(images.generate(1, 75, 75))


def test_keras_2_is_another_library(small, monkeypatch):
    older = type(sys)("keras")
    older.__version__ = "2.15.0"
    monkeypatch.setitem(sys.modules, "keras", older)
    with pytest.raises(MissingLibraryError, match=r"version 2\.15\.0, not 3"):
        container.open(small()).run(images.generate(1, 75, 75))


def test_the_way_back_gives_the_same_network(small):
    found = open_checkpoint(small(), check_layout=False)
    assert found.container == "Keras"
    assert found.identity == CHECKPOINT.identity
    assert any("no auxiliary head" in note for note in found.notes)


def test_a_damaged_file_is_no_checkpoint(small):
    path = small()
    rewrite(path, model=b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(CheckpointError, match=f"{path} is truncated or damaged"):
        open_checkpoint(path)


# The whole network's configuration


@pytest.fixture(scope="module")
def entries():
    network = layers.inception_resnet_v2()
    part = network.up_to([TASKS["classification"].endpoint])
    model = configuration.of_network(part, "inception_resnet_v2")
    return {layer["name"]: layer for layer in model["config"]["layers"]}


def test_names_are_unique_and_every_backend_takes_them(entries):
    config = configuration.of_network(layers.inception_resnet_v2(), "model")["config"]
    names = [layer["name"] for layer in config["layers"]]
    assert len(set(names)) == len(names)
    assert not [name for name in names if set(name) & set("/.: ")]
    assert config["output_layers"] == [["Logits-Predictions", 0, 0]] or (
        config["output_layers"][0] in names
    )


def test_layers_are_those_of_the_network(entries):
    kinds = [layer["class_name"] for layer in entries.values()]
    assert kinds.count("Conv2D") == 244
    assert kinds.count("BatchNormalization") == 204
    assert kinds.count("Dense") == 1
    assert {layer["module"] for layer in entries.values()} == {"keras.layers"}
    for layer in entries.values():
        for node in layer["inbound_nodes"]:
            assert "keras_tensor" in json.dumps(node)


def test_what_training_needs_is_there(entries):
    for layer in entries.values():
        config = layer["config"]
        if layer["class_name"] == "BatchNormalization":
            assert (config["momentum"], config["epsilon"]) == (0.99, 1e-3)
            assert config["center"] and not config["scale"]
        if layer["class_name"] in ("Conv2D", "Dense"):
            assert config["kernel_regularizer"]["config"] == {"l2": 2e-5}
            assert ("bias_regularizer" in config) == config["use_bias"]
    assert entries["Logits-Dropout"]["config"]["rate"] == 0.2


# The whole network, in Keras


@pytest.fixture
def written(twins):
    """The files of both tasks."""
    name = "inception_resnet_v2-{}-keras-stand-in.keras"
    return {task: twins / name.format(task) for task in TASKS}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "size"), CASES)
def test_keras_computes_what_tf_slim_does(written, reference, task, size):
    """In `tests/consumers`, on every backend."""
    with container.open(written[task]) as artifact:
        assert artifact.check() == []
        batch = images.generate(2, *size, seed=3)
        output = TASKS[task].output
        found = artifact.run(batch)[output]
        expected = reference.outputs(batch, [output])[output]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_the_way_back_of_the_whole_network(written, stand_in_checkpoint):
    found = open_checkpoint(written["classification"])
    assert found.identity == stand_in_checkpoint.identity
    assert found.is_stand_in and not found.has_auxiliary_head
    features = open_checkpoint(written["feature_vector"])
    assert features.num_classes is None
    assert features.identity == stand_in_checkpoint.identity_of_features


@pytest.mark.slow
def test_it_trains_with_fit(written):
    """Moving averages go a hundredth of the way to the statistics of each batch."""
    import keras

    model = keras.models.load_model(written["feature_vector"])
    kernel = model.get_layer("Conv2d_1a_3x3").kernel
    norm = model.get_layer("Conv2d_1a_3x3-BatchNorm")
    batch = images.generate(4, 75, 75, seed=3)
    first = keras.Model(model.input, model.get_layer("Conv2d_1a_3x3").output)
    statistics = np.asarray(first(batch)).mean(axis=(0, 1, 2))
    before, kernel_before = norm.moving_mean.numpy(), kernel.numpy()
    losses = sum(float(loss) for loss in model.losses)
    wanted = 2e-5 * sum(
        float((weight.numpy() ** 2).sum())
        for weight in model.trainable_weights
        if weight.name in ("kernel", "bias")
    )
    assert losses == pytest.approx(wanted, rel=1e-4)
    model.compile(keras.optimizers.SGD(1e-3), loss="mse", run_eagerly=True)
    model.fit(batch, np.zeros((4, 1536), "f"), batch_size=4, epochs=1, verbose=0)
    moved = norm.moving_mean.numpy() - before
    np.testing.assert_allclose(moved, 0.01 * (statistics - before), atol=1e-6)
    assert np.abs(kernel.numpy() - kernel_before).max() > 0
