"""v1 and v3 as files: what is written, and what opening them finds wrong with them.

Of the thin network; `tests/consumers` has the real one's in TensorFlow 1.12 to 2.15.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from published_directories import content

from exporters import extra_assets, images
from exporters.containers.hub_module import container as hub_module
from exporters.containers.hub_module.versions import V3
from exporters.errors import ArtifactError
from exporters.network.tasks import TASKS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("thin")]

VERSIONS = ("v1", "v3")
FEATURE_VECTOR, CLASSIFICATION = TASKS
DATA = "variables/variables.data-00000-of-00001"
WEIGHT = "InceptionResnetV2/Conv2d_2b_3x3/weights"


@pytest.fixture
def tf():
    import tensorflow

    return tensorflow


@pytest.fixture(scope="module")
def reference(thin):
    return thin.reference


def directory(thin_exported, version, task):
    return thin_exported / f"inception_resnet_v2-{task}-{version}-stand-in"


@pytest.fixture
def module(thin_exported, tmp_path):
    """A copy of a module whose files can be replaced, but not written into."""
    source = directory(thin_exported, "v3", FEATURE_VECTOR)
    return shutil.copytree(source, tmp_path / "module", copy_function=os.link)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def change_graphs(module, change):
    """Replaces saved_model.pb by what a function makes of it."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = module / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(saved_model)
    replace(path, saved_model.SerializeToString())


# What is written


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("version", VERSIONS)
def test_files(thin_exported, version, task):
    path = directory(thin_exported, version, task)
    assert set(content(path)) == {
        "assets",
        "assets.extra",
        "assets.extra/irv2.json",
        "saved_model.pb",
        "tfhub_module.pb",
        "variables",
        "variables/variables.index",
        DATA,
    }
    assert (path / "tfhub_module.pb").read_bytes() == b"\x08\x03"


@pytest.mark.parametrize("task", TASKS)
def test_variables_are_the_checkpoint_s(thin_exported, tf, thin, task):
    path = directory(thin_exported, "v3", task) / "variables/variables"
    shapes = dict(tf.train.list_variables(str(path)))
    expected = {
        name: list(value.shape)
        for name, value in thin.build.checkpoint.items()
        if not name.startswith("InceptionResnetV2/AuxLogits/")
        and (task == CLASSIFICATION or not name.startswith("InceptionResnetV2/Logits/"))
    }
    assert shapes == expected


def test_schema_and_tags(thin_exported):
    from tensorflow.core.protobuf import saved_model_pb2

    path = directory(thin_exported, "v1", CLASSIFICATION) / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    assert saved_model.saved_model_schema_version == 1
    tags = [list(graph.meta_info_def.tags) for graph in saved_model.meta_graphs]
    assert tags == [[], ["train"]]


def test_same_checkpoint_same_bytes(thin, thin_exported, tmp_path):
    first = Path(directory(thin_exported, "v3", FEATURE_VECTOR))
    record = extra_assets.read_record(first)
    hub_module.write(thin.build, V3, TASKS[FEATURE_VECTOR], record, tmp_path / "again")
    first = content(directory(thin_exported, "v3", FEATURE_VECTOR))
    assert content(tmp_path / "again") == first


# What opening finds. That outputs and weights are the checkpoint's has been found by
# whoever exported these modules.


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("version", VERSIONS)
def test_facts(thin_exported, thin, version, task):
    opened = hub_module.open(directory(thin_exported, version, task))
    assert (opened.format, opened.task.name) == (version, task)
    assert opened.record.checkpoint_identity == thin.build.checkpoint.identity
    assert opened.record.stand_in
    assert opened.image_size == ((299, 299) if version == "v1" else None)


def test_outputs(thin_exported, reference):
    batch = images.generate(2, 75, 100, seed=5)
    opened = hub_module.open(directory(thin_exported, "v3", CLASSIFICATION))
    found, trained = opened.run(batch), opened.train(batch)
    published = TASKS[CLASSIFICATION].published
    features = "image_feature_vector/default"
    assert found.keys() == {"logits", features} | published.keys()
    assert trained.keys() == {"train/feature_vector", "train/moving_averages"}
    assert found.keys() | trained.keys() == opened.outputs.keys()
    values = {"logits": "logits", features: "feature_vector"} | published
    outputs = reference.outputs(batch, values.values())
    expected = {name: outputs[value] for name, value in values.items()}
    for name in found:
        np.testing.assert_allclose(
            found[name], expected[name], atol=2e-5 * np.abs(expected[name]).max()
        )
    assert found["InceptionResnetV2/global_pool"].shape == (2, 1, 1, 192)
    training = reference.outputs(
        batch, ["feature_vector", "moving_averages"], is_training=True
    )
    for name, expected in training.items():
        np.testing.assert_allclose(
            trained[f"train/{name}"], expected, atol=2e-4 * np.abs(expected).max()
        )


def test_fixed_size_refuses_others(thin_exported):
    opened = hub_module.open(directory(thin_exported, "v1", FEATURE_VECTOR))
    with pytest.raises(ArtifactError, match="299"):
        opened.run(images.generate(1, 224, 320))


def test_single_changed_weight_shows(module, tf, thin):
    values = {
        name: thin.build.checkpoint[name]
        for name, _ in tf.train.list_variables(str(module / "variables/variables"))
    }
    changed = values[WEIGHT].copy()
    changed.flat[7] = np.nextafter(changed.flat[7], np.float32(np.inf))
    values[WEIGHT] = changed
    shutil.rmtree(module / "variables")
    (module / "variables").mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(module / "variables/variables"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    found = hub_module.open(module).weights()[WEIGHT].values
    assert np.count_nonzero(found != thin.build.checkpoint[WEIGHT]) == 1


def test_module_of_another_publisher_has_no_record(module):
    shutil.rmtree(module / "assets.extra")
    opened = hub_module.open(module)
    assert opened.record is None


# What training and the other signatures show


def problems(module):
    with hub_module.open(module) as opened:
        return opened.check()


def test_nothing_is_wrong_with_what_is_written(thin_exported):
    for version, task in zip(VERSIONS, TASKS):
        assert problems(directory(thin_exported, version, task)) == []


@pytest.mark.parametrize(
    ("name", "key", "found"),
    [
        ("default", "default", "signature default: other tensors"),
        (
            "image_feature_vector_with_bn_hparams",
            "InceptionResnetV2/Mixed_7a",
            "signature image_feature_vector_with_bn_hparams: other tensors",
        ),
    ],
)
def test_signature_with_another_tensor(module, name, key, found):
    def change(saved_model):
        outputs = saved_model.meta_graphs[0].signature_def[name].outputs
        outputs[key].name = "InceptionResnetV2/Conv2d_1a_3x3/Relu:0"

    change_graphs(module, change)
    (problem,) = problems(module)
    assert problem.startswith(f"inference graph: {found}")


def test_signature_that_is_missing(module):
    change_graphs(
        module, lambda model: model.meta_graphs[1].signature_def.pop("default")
    )
    assert problems(module) == ["training graph: signature default: missing"]


def test_other_momentum(module):
    def change(saved_model):
        nodes = {n.name: n for n in saved_model.meta_graphs[1].graph_def.node}
        default = nodes[nodes["batch_norm_momentum"].input[0]]
        default.attr["value"].tensor.float_val[:] = [0.9]

    change_graphs(module, change)
    assert problems(module) == [
        "training graph: momentum 0.8999999761581421, expected 0.99"
    ]


def test_update_that_is_left_out(module, reference):
    """The average that it would have moved stays where it is."""

    def change(saved_model):
        del saved_model.meta_graphs[1].collection_def["update_ops"].node_list.value[0]

    batch = images.generate(2, 75, 100, seed=5)
    name = "moving_averages"
    expected = reference.outputs(batch, [name], is_training=True)[name]

    def error():
        with hub_module.open(module) as opened:
            return np.abs(opened.train(batch)[f"train/{name}"] - expected).max()

    largest = np.abs(expected).max()
    assert error() <= 2e-4 * largest
    change_graphs(module, change)
    assert error() > 2e-4 * largest


def test_loss_that_is_left_out_or_another(module):
    def losses(saved_model):
        collections = saved_model.meta_graphs[1].collection_def
        return collections["regularization_losses"].node_list.value

    def repeat(saved_model):
        losses(saved_model)[0] = losses(saved_model)[5]

    change_graphs(module, repeat)
    assert problems(module) == ["regularization losses: not those of the weights"]
    change_graphs(module, lambda saved_model: losses(saved_model).pop())
    assert problems(module) == ["49 regularization losses, expected 50"]


# What is no module of ours


def refused(module, match):
    with pytest.raises(ArtifactError, match=match):
        hub_module.open(module)


def test_no_module(tmp_path):
    refused(tmp_path, "is no TF1 Hub module")
    refused(tmp_path / "missing", "is no TF1 Hub module")


def test_other_module_format(module):
    replace(module / "tfhub_module.pb", b"\x08\x04")
    refused(module, "expected .* format 3")


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_missing_file(module, name):
    (module / name).unlink()
    refused(module, "incomplete or damaged")


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.999])
def test_truncated_graph(module, fraction):
    path = module / "saved_model.pb"
    whole = path.read_bytes()
    replace(path, whole[: int(fraction * len(whole))])
    refused(module, "damaged|tags")


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_damaged_variables(module, damage):
    path = module / DATA
    whole = path.read_bytes()
    middle = len(whole) // 2
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        replace(path, whole[:middle])
    else:
        replace(path, whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    opened = hub_module.open(module)
    with pytest.raises(ArtifactError, match="incomplete or damaged"):
        opened.weights()
    with pytest.raises(ArtifactError, match="incomplete or damaged"):
        opened.run(images.generate(1, 75, 75))


def test_record_that_does_not_fit(module):
    path = module / extra_assets.RECORD
    record = json.loads(path.read_text()) | {"format": "v1"}
    replace(path, json.dumps(record).encode())
    refused(module, "recorded as v1 of feature_vector, but")


def test_missing_training_graph(module):
    change_graphs(module, lambda saved_model: saved_model.meta_graphs.pop())
    refused(module, "graphs with the tags")


def test_other_network(module):
    def change(saved_model):
        for graph in saved_model.meta_graphs:
            outputs = graph.signature_def["image_feature_vector"].outputs
            outputs["InceptionV3/Mixed_7c"].CopyFrom(
                outputs.pop("InceptionResnetV2/Mixed_7a")
            )

    change_graphs(module, change)
    refused(module, "no module of inception_resnet_v2.*InceptionV3/Mixed_7c")


def test_variable_that_is_not_in_the_file(module):
    def change(saved_model):
        graph = saved_model.meta_graphs[1].graph_def
        (node,) = (node for node in graph.node if node.name == WEIGHT)
        node.attr["shape"].shape.dim[0].size = 5

    change_graphs(module, change)
    refused(module, f"the variable {WEIGHT} of shape")
