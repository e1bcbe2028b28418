"""The graphs of v1 and v3, before any library sees them."""

import pytest

from exporters.containers.hub_module import published_graphs
from exporters.containers.hub_module.versions import V1, V3, ModuleVersion
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR

pytestmark = pytest.mark.slow

VERSIONS = {"v1": V1, "v3": V3}
TASKS = (FEATURE_VECTOR, CLASSIFICATION)
VARIABLES = {FEATURE_VECTOR: (896, 488), CLASSIFICATION: (898, 490)}
BATCH_NORMS = 204
DROPOUT = "InceptionResnetV2/Logits/Dropout/dropout_1"


@pytest.fixture(scope="module")
def tf():
    import tensorflow.compat.v1 as tf

    return tf


@pytest.fixture(scope="module")
def meta_graphs(graphs):
    """(version, task, is_training) -> MetaGraph."""
    return {
        (version, task, is_training): published_graphs.build(
            graphs.get(is_training=is_training),
            VERSIONS[version],
            task,
            ["train"] if is_training else [],
        )
        for version in VERSIONS
        for task in TASKS
        for is_training in (False, True)
    }


@pytest.fixture(
    params=[
        (version, task, is_training)
        for version in VERSIONS
        for task in TASKS
        for is_training in (False, True)
    ],
    ids=lambda key: f"{key[0]}-{key[1].name}-{'training' if key[2] else 'inference'}",
)
def key(request):
    return request.param


@pytest.fixture
def meta_graph(meta_graphs, key):
    return meta_graphs[key]


def members(meta_graph, collection):
    found = meta_graph.collection_def[collection]
    return list(found.node_list.value or found.bytes_list.value)


def nodes(meta_graph):
    return {node.name: node for node in meta_graph.graph_def.node}


def shape(tensor_info):
    return [dimension.size for dimension in tensor_info.tensor_shape.dim]


def test_collections(meta_graph, key):
    _, task, is_training = key
    expected = {
        "variables": VARIABLES[task][0],
        "model_variables": VARIABLES[task][0],
        "trainable_variables": VARIABLES[task][1],
        "regularization_losses": 284 if task == FEATURE_VECTOR else 286,
        "hub_module_attachments": 1,
    }
    if is_training:
        expected["update_ops"] = 2 * BATCH_NORMS
    # Any other collection makes hub.Module refuse the module.
    found = {name: len(members(meta_graph, name)) for name in meta_graph.collection_def}
    assert found == expected


def test_collections_name_what_is_in_the_graph(meta_graph):
    from tensorflow.core.framework import variable_pb2

    found = nodes(meta_graph)
    for collection in ("update_ops", "regularization_losses"):
        if collection in meta_graph.collection_def:
            for name in members(meta_graph, collection):
                assert name.partition(":")[0] in found
    for serialized in members(meta_graph, "variables"):
        variable = variable_pb2.VariableDef.FromString(serialized)
        for name in (
            variable.variable_name,
            variable.initializer_name,
            variable.initial_value_name,
            variable.snapshot_name,
        ):
            assert name.partition(":")[0] in found
        assert variable.is_resource
        assert variable.trainable == ("/moving_" not in variable.variable_name)


def test_nothing_but_the_task(meta_graph, key):
    """No ops to save or restore, no classifier beside a feature vector."""
    _, task, _ = key
    assert not meta_graph.HasField("saver_def")
    assert not meta_graph.graph_def.library.function
    found = nodes(meta_graph)
    assert not {node.op for node in found.values()} & {"SaveV2", "RestoreV2"}
    has_classifier = any("Logits/Logits" in name for name in found)
    assert has_classifier == (task == CLASSIFICATION)


def test_every_input_is_there(meta_graph):
    found = nodes(meta_graph)
    assert len(found) == len(meta_graph.graph_def.node)
    for node in found.values():
        for name in node.input:
            assert name.lstrip("^").partition(":")[0] in found
        for group in node.attr["_class"].list.s if "_class" in node.attr else []:
            assert group.decode().removeprefix("loc:@") in found


def test_listed_ops_are_those_of_the_graph(meta_graph):
    used = {node.op for node in meta_graph.graph_def.node}
    listed = [op.name for op in meta_graph.meta_info_def.stripped_op_list.op]
    assert sorted(listed) == sorted(used)
    assert {"Add", "FusedBatchNorm"} <= used
    assert not used & {"AddV2", "FusedBatchNormV3", "SelectV2"}


def test_batch_norm_inputs(meta_graph, key, tf):
    """TF1's gradient in training needs empty mean and variance."""
    _, _, is_training = key
    found = nodes(meta_graph)
    norms = [node for node in found.values() if node.op == "FusedBatchNorm"]
    assert len(norms) == BATCH_NORMS
    for norm in norms:
        # True is the default, and left out.
        assert ("is_training" not in norm.attr) == is_training
        for name in norm.input[3:]:
            if is_training:
                assert tf.make_ndarray(found[name].attr["value"].tensor).shape == (0,)
            else:
                assert found[name].op == "ReadVariableOp"


def test_signatures(meta_graph, key):
    version, task, _ = key
    named = {"image_feature_vector": "hub_output/feature_vector/SpatialSqueeze:0"}
    if task == CLASSIFICATION:
        named["image_classification"] = "InceptionResnetV2/Logits/Logits/BiasAdd:0"
    expected = {"default": named[published_graphs.NAMED_SIGNATURES[task]], **named}
    if version == "v3":
        expected |= {f"{name}_with_bn_hparams": named[name] for name in named}
    assert {
        name: signature.outputs["default"].name
        for name, signature in meta_graph.signature_def.items()
    } == expected

    images = [-1, 299, 299, 3] if version == "v1" else [-1, -1, -1, 3]
    endpoints = set(task.published)
    for name, signature in meta_graph.signature_def.items():
        inputs = {"images": images}
        if name.endswith("_with_bn_hparams"):
            inputs["batch_norm_momentum"] = []
        assert {k: shape(info) for k, info in signature.inputs.items()} == inputs
        assert signature.inputs["images"].name == "hub_input/images:0"
        extra = set() if name == "default" else endpoints
        assert set(signature.outputs) == {"default"} | extra


@pytest.mark.parametrize(
    ("endpoint", "tensor"),
    [
        ("Conv2d_7b_1x1", "InceptionResnetV2/InceptionResnetV2/Conv2d_7b_1x1/Relu:0"),
        ("Mixed_5b", "InceptionResnetV2/InceptionResnetV2/Mixed_5b/concat:0"),
        (
            "PreAuxLogits",
            "InceptionResnetV2/InceptionResnetV2/Repeat_1/block17_20/Relu:0",
        ),
        ("Predictions", "InceptionResnetV2/Logits/Predictions:0"),
    ],
)
def test_endpoints_keep_their_names(meta_graphs, endpoint, tensor):
    for (_, task, _), meta_graph in meta_graphs.items():
        if endpoint in task.endpoints:
            outputs = meta_graph.signature_def["image_feature_vector"].outputs
            assert outputs[f"InceptionResnetV2/{endpoint}"].name == tensor


def test_dropout_only_in_training(meta_graphs):
    for (_, task, is_training), meta_graph in meta_graphs.items():
        has_dropout = f"{DROPOUT}/mul" in nodes(meta_graph)
        assert has_dropout == (task == CLASSIFICATION and is_training)


@pytest.mark.parametrize(("version", "momentum"), [("v1", 0.9997), ("v3", 0.99)])
def test_momentum_unless_given(meta_graphs, tf, version, momentum):
    for task in TASKS:
        found = nodes(meta_graphs[version, task, True])
        placeholder = found["batch_norm_momentum"]
        assert placeholder.op == "PlaceholderWithDefault"
        constant = found[placeholder.input[0]].attr["value"].tensor
        assert tf.make_ndarray(constant) == pytest.approx(momentum)


def test_default_image_size_is_attached(meta_graph):
    (attachment,) = members(meta_graph, "hub_module_attachments")
    # ModuleAttachment{key: "image_module_info", value: {default_image_size:
    # {height: 299, width: 299}}}, as tensorflow-hub 0.2.0 encodes it.
    expected = b"\n\x11image_module_info\x12\x08\n\x06\x08\xab\x02\x10\xab\x02"
    assert attachment == expected


def test_fixed_size_is_what_tf_slim_builds_for_it(meta_graphs, graphs):
    """v1's graph is made from the one of variable size, to save building another."""
    fixed = published_graphs.build(
        graphs.get(image_size=(299, 299)),
        ModuleVersion(None, 0.9997, takes_momentum=False),
        CLASSIFICATION,
        [],
    )
    found = meta_graphs["v1", CLASSIFICATION, False]
    assert nodes(found) == nodes(fixed)
    assert found.signature_def == fixed.signature_def
