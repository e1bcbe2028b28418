"""TF.js models: what is in their files, what they compute, and what is no such model."""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_graph_model
from small_graph_model import content, write
from small_networks import BLOCK

from exporters import formats
from exporters.containers.tfjs import container, graph, weights
from exporters.containers.tfjs.versions import V1, V3
from exporters.containers.tfjs.weights import SHARD_BYTES
from exporters.errors import ArtifactError, ExportError
from exporters.network import layers
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR, TASKS

ROOT = Path(__file__).parents[3]

APPLIED = "module_apply_default"
OPS = "InceptionResnetV2/InceptionResnetV2"
HEAD = "InceptionResnetV2/Logits"
NAMES = ("tfjs-v1", "tfjs-v3", "tfjs-v3-float16", "tfjs-v3-uint8")
PUBLISHED = layers.inception_resnet_v2()
PUBLISHED_BYTES = {FEATURE_VECTOR: 217_104_768, CLASSIFICATION: 223_258_916}


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """The small network in place of the published one."""
    monkeypatch.setattr(layers, "inception_resnet_v2", lambda classes: BLOCK)


# What is in the files


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("version", [V1, V3], ids=["v1", "v3"])
def test_weights_take_the_published_bytes(version, task):
    network = PUBLISHED.up_to([task.endpoint])
    made = graph.build(network, version.image_size)
    total = sum(
        4 * math.prod(shape_of(node["attr"]["value"]["tensor"]["tensorShape"]))
        for node in made.topology["node"]
        if node["op"] == "Const"
    )
    # Beyond that, nothing but where to concatenate, what to average, and a shape.
    constants = sum(values.nbytes for values in made.constants.values())
    assert total == PUBLISHED_BYTES[task] + constants
    assert constants <= 20
    shards = {FEATURE_VECTOR: 52, CLASSIFICATION: 54}[task]
    assert math.ceil(total / SHARD_BYTES) == shards


def shape_of(value):
    return [int(dimension["size"]) for dimension in value["dim"]]


@pytest.mark.parametrize("size", [(299, 299), None], ids=["v1", "v3"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_names_of_nodes_are_the_published_ones(task, size):
    network = PUBLISHED.up_to([task.endpoint])
    nodes = {node["name"]: node for node in graph.build(network, size).topology["node"]}
    assert shape_of(nodes["images"]["attr"]["shape"]["shape"]) == [
        -1,
        *(size or (-1, -1)),
        3,
    ]
    pool = "AvgPool_1a_8x8/AvgPool" if size else "global_pool"
    last = {
        FEATURE_VECTOR: f"{APPLIED}/hub_output/feature_vector/SpatialSqueeze",
        CLASSIFICATION: f"{APPLIED}/{HEAD}/Logits/BiasAdd",
    }[task]
    expected = {
        f"{APPLIED}/{OPS}/Conv2d_1a_3x3/Relu": "_FusedConv2D",
        f"{APPLIED}/{OPS}/MaxPool_3a_3x3/MaxPool": "MaxPool",
        f"{APPLIED}/{OPS}/Mixed_5b/Branch_3/AvgPool_0a_3x3/AvgPool": "AvgPool",
        f"{APPLIED}/{OPS}/Mixed_5b/concat": "ConcatV2",
        f"{APPLIED}/{OPS}/Repeat/block35_1/Conv2d_1x1/BiasAdd": "_FusedConv2D",
        f"{APPLIED}/{OPS}/Repeat/block35_1/add": "Add",
        f"{APPLIED}/{OPS}/Repeat/block35_1/Relu": "Relu",
        f"{APPLIED}/{OPS}/Block8/add": "Add",
        f"{APPLIED}/{OPS}/Conv2d_7b_1x1/Relu": "_FusedConv2D",
        f"{APPLIED}/{HEAD}/{pool}": "AvgPool" if size else "Mean",
        last: "Squeeze" if task is FEATURE_VECTOR else "_FusedMatMul",
    }
    assert {name: nodes[name]["op"] for name in expected} == expected
    assert list(nodes)[-1] == last


def test_a_model_is_what_loaders_take(tmp_path):
    model = content(write(tmp_path / "model"))
    assert model["format"] == "graph-model"
    names = set()
    for node in model["modelTopology"]["node"]:
        # The loader of TF.js needs each before it is read.
        assert names.issuperset(node["input"])
        names.add(node["name"])
    assert set(model["modelTopology"]["versions"]) == {"producer", "minConsumer"}
    (images,) = model["signature"]["inputs"].values()
    (output,) = model["signature"]["outputs"].values()
    assert (images["name"], shape_of(images["tensorShape"])) == (
        "images:0",
        [-1, -1, -1, 3],
    )
    assert output["name"] == f"{APPLIED}/head/logits:0"
    assert shape_of(output["tensorShape"]) == [-1, 6]
    assert model["userDefinedMetadata"]["labels"] == list(small_graph_model.LABELS)
    assert model["userDefinedMetadata"]["irv2"]["stand_in"] is True


def test_features_have_no_names_of_classes(tmp_path):
    model = content(write(tmp_path / "model", task=FEATURE_VECTOR))
    assert "labels" not in model["userDefinedMetadata"]


def test_files_of_weights(tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "a": random.normal(size=(1000, 1500)).astype(np.float32),
        "b": random.normal(size=(3, 5, 200_000)).astype(np.float32).transpose(1, 0, 2),
        "c": np.array(3, np.int32),
    }
    entries = [
        weights.encode(name, values, "float32") for name, values in arrays.items()
    ]
    (group,) = weights.write(entries, tmp_path)
    total = sum(values.nbytes for values in arrays.values())
    assert group["paths"] == [f"group1-shard{n}of5.bin" for n in range(1, 6)]
    sizes = [(tmp_path / name).stat().st_size for name in group["paths"]]
    assert sizes == [4_194_304] * 4 + [total - 4 * 4_194_304]
    content = b"".join((tmp_path / name).read_bytes() for name in group["paths"])
    assert content == b"".join(values.tobytes() for values in arrays.values())
    found = weights.read(tmp_path, [group], "model.json")
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name].values, values)


# What loaders make of weights that are stored in fewer bits (TF.js's io_utils.ts).


def decoded(entry):
    affine = entry.spec["quantization"]
    if affine["dtype"] == "float16":
        return entry.values.astype(np.float32)
    return (entry.values * affine["scale"] + affine["min"]).astype(np.float32)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=(3, 3, 8, 16)),
        np.linspace(0.5, 9, 100),
        np.linspace(-7, -0.1, 100),
        np.array([-1e-3, 1.0, 0.3]),
        np.zeros(4),
    ],
    ids=["both signs", "positive", "negative", "hardly negative", "zeros"],
)
def test_uint8_is_within_half_a_step(values, tmp_path):
    values = values.astype(np.float32)
    entry = weights.encode("a", values, "uint8")
    assert entry.values.dtype == np.uint8
    span = max(values.max(), 0) - min(values.min(), 0)
    found = decoded(entry)
    assert np.abs(found - values).max() <= span / 255 * 0.5001
    assert (
        decoded(weights.encode("a", np.append(values, np.float32(0)), "uint8"))[-1] == 0
    )
    read = weights.read(tmp_path, weights.write([entry], tmp_path), "model.json")["a"]
    np.testing.assert_allclose(weights.as_float32(read), found, rtol=1e-6, atol=1e-9)


FILL_THE_DISK = """
import pathlib, resource, numpy
from exporters.containers.tfjs import weights
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
entry = weights.Entry({}, numpy.zeros(500, numpy.float32))
try:
    weights.write([entry], pathlib.Path("."))
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_is_told_as_such(tmp_path):
    command = [sys.executable, "-c", FILL_THE_DISK]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    assert told == "File too large\n"


def test_float16_is_rounded_to_the_nearest(tmp_path):
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    entry = weights.encode("a", values, "float16")
    np.testing.assert_array_equal(entry.values, values.astype(np.float16))
    read = weights.read(tmp_path, weights.write([entry], tmp_path), "model.json")["a"]
    np.testing.assert_array_equal(weights.as_float32(read), decoded(entry))


def test_a_weight_too_large_for_float16():
    with pytest.raises(ExportError, match=r"a reaches 70000: too much for float16"):
        weights.encode("a", np.array([1, 7e4], np.float32), "float16")


@pytest.mark.parametrize(
    ("name", "kernel", "bias"),
    [("tfjs-v3-float16", "float16", "float16"), ("tfjs-v3-uint8", "uint8", None)],
)
def test_what_is_stored_in_fewer_bits(tmp_path, name, kernel, bias):
    (group,) = content(write(tmp_path / "model", name))["weightsManifest"]
    stored = {
        spec["name"].removeprefix("module/scope/"): spec.get("quantization", {}).get(
            "dtype"
        )
        for spec in group["weights"]
    }
    assert stored["first/Relu/weights"] is stored["first/Relu/biases"] is None
    assert stored["up/weights"] == kernel
    assert stored["up/biases"] == bias


# What they compute


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("tfjs-v1", 2e-5),
        ("tfjs-v3", 2e-5),
        ("tfjs-v3-float16", 2e-3),
        ("tfjs-v3-uint8", 5e-2),
    ],
)
def test_a_graph_computes_the_network(tmp_path, name, error, task):
    random = np.random.default_rng(1)
    sizes = [(299, 299)] if name == "tfjs-v1" else [(299, 299), (64, 97)]
    with container.open(write(tmp_path / "model", name, task)) as artifact:
        assert artifact.format == name
        assert artifact.task is task
        assert artifact.image_size == formats.FORMATS[name].variant.image_size
        for size in sizes:
            images = random.random((2, *size, 3), np.float32)
            (found,) = artifact.run(images).values()
            wanted = small_graph_model.outputs(images, task)
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() <= error * np.abs(wanted).max()


def test_weights_are_those_that_were_written(tmp_path):
    with container.open(write(tmp_path / "model")) as artifact:
        found = artifact.weights()
    assert artifact.is_folded
    names = {
        f"{scope}/{kind}": values
        for scope, made in small_graph_model.WEIGHTS.items()
        for kind, values in (("weights", made.kernel), ("biases", made.bias))
    }
    assert found.keys() == names.keys()
    for name, values in names.items():
        np.testing.assert_array_equal(found[name].values, values)
        assert found[name].quantization is None


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    first, second = write(tmp_path / "first"), write(tmp_path / "second")
    assert {file.name for file in first.iterdir()} == {
        file.name for file in second.iterdir()
    }
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


# What is no such model. Each is told by its file, what is there, and what should be.


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write(tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def changed(good, tmp_path):
    """A copy of a model, to be changed."""
    return shutil.copytree(good, tmp_path / "model")


def put(*keys_and_value):
    """Returns a change of model.json: a value at a place."""
    *keys, last, value = keys_and_value

    def change(model):
        for key in keys:
            model = model[key]
        model[last] = value

    return change


def drop(*keys):
    def change(model):
        *first, last = keys
        for key in first:
            model = model[key]
        del model[last]

    return change


def node(model, op):
    return next(node for node in model["modelTopology"]["node"] if node["op"] == op)


def put_op(op, new):
    return lambda model: node(model, op).update(op=new)


def put_attribute(op, name, value):
    return lambda model: node(model, op)["attr"].update({name: value})


def put_input(op, value):
    return lambda model: node(model, op)["input"].__setitem__(0, value)


def quantized(**affine):
    return put(*MANIFEST, "weights", 0, "quantization", affine)


MANIFEST = ("weightsManifest", 0)
RECORD = ("userDefinedMetadata", "irv2")
KERNEL = "module/scope/first/Relu/weights"
HOSTILE = {
    "another format": (put("format", "layers-model"), "the format 'layers-model'"),
    "no record": (drop("userDefinedMetadata"), "none that irv2 made"),
    "a record that is none": (put(*RECORD, []), "none that irv2 made"),
    "a task that is none": (put(*RECORD, "task", "detection"), "no task 'detection'"),
    "another task": (
        put(*RECORD, "task", "feature_vector"),
        "node module_apply_default/hub_output",
    ),
    "another format by its record": (put(*RECORD, "format", "tfjs-v1"), "node images"),
    "less than no classes": (put(*RECORD, "num_classes", -5), "-5 classes"),
    "more classes than names": (
        put(*RECORD, "num_classes", 10**30),
        " classes; expected",
    ),
    "no signature": (drop("signature"), "the signature None"),
    "another output": (
        put("signature", "outputs", "default", "name", "images:0"),
        "the signature",
    ),
    "no graph": (drop("modelTopology"), "another graph, or none"),
    "a graph that is text": (put("modelTopology", "graph"), "another graph, or none"),
    "no nodes": (put("modelTopology", "node", []), "a graph of 0 nodes"),
    "a node that is none": (
        put("modelTopology", "node", 0, 7),
        "from the node images on",
    ),
    "an unknown field": (put("modelTopology", "nodes", []), "another graph"),
    "functions": (
        put("modelTopology", "library", {"function": [{"signature": {"name": "f"}}]}),
        "another graph",
    ),
    "an op that reads files": (put_op("Relu", "ReadFile"), "sum/Relu on"),
    "a graph with a loop": (
        put_input("_FusedConv2D", f"{APPLIED}/sum/Relu"),
        "first/Relu on",
    ),
    "strides of nothing": (
        put_attribute("MaxPool", "strides", {"list": {"i": ["1", "0", "0", "1"]}}),
        "max on",
    ),
    "no manifest": (drop("weightsManifest"), "the weightsManifest None"),
    "two groups": (
        lambda model: model["weightsManifest"].append(model["weightsManifest"][0]),
        "expected one group",
    ),
    "a path to elsewhere": (
        put(*MANIFEST, "paths", ["../../group1-shard1of1.bin"]),
        "group1-shard1of1.bin and so on",
    ),
    "a path that is none": (put(*MANIFEST, "paths", [7]), "in the files"),
    "no paths": (put(*MANIFEST, "paths", []), "in the files"),
    "weights that are none": (put(*MANIFEST, "weights", {}), "the weightsManifest"),
    "a weight that is none": (put(*MANIFEST, "weights", 0, 7), "the weight 7"),
    "a weight without a name": (drop(*MANIFEST, "weights", 0, "name"), "the weight"),
    "a weight of another name": (
        put(*MANIFEST, "weights", 0, "name", "another"),
        "for another the shape [3, 3, 3, 16]; expected None",
    ),
    "a missing weight": (
        drop(*MANIFEST, "weights", 1),
        "group1-shard1of1.bin has",
    ),
    "two of a name": (
        lambda model: model["weightsManifest"][0]["weights"][0].update(
            name=model["weightsManifest"][0]["weights"][1]["name"]
        ),
        "two weights of one name",
    ),
    "a negative shape": (put(*MANIFEST, "weights", 0, "shape", [-1, 2]), "the weight"),
    "a shape of fractions": (
        put(*MANIFEST, "weights", 0, "shape", [1.5]),
        "the weight",
    ),
    "a shape beyond any memory": (
        put(*MANIFEST, "weights", 0, "shape", [10**9, 10**9, 10**9]),
        "weights of 4,000,000,000,000,000,000,",
    ),
    "a shape of the same size": (
        put(*MANIFEST, "weights", 0, "shape", [3, 3, 16, 3]),
        f"for {KERNEL} the shape [3, 3, 16, 3]; expected [3, 3, 3, 16]",
    ),
    "other numbers": (put(*MANIFEST, "weights", 0, "dtype", "string"), "the weight"),
    "fewer bits than there are": (quantized(dtype="float16"), " bytes; expected"),
    "bits that are none": (quantized(dtype="uint4"), "the quantization"),
    "integers of nothing": (quantized(dtype="uint8"), "the quantization"),
    "a scale of nothing": (
        quantized(dtype="uint8", min=0.0, scale=0.0),
        "the quantization",
    ),
    "a scale beyond numbers": (
        quantized(dtype="uint8", min=0.0, scale=math.inf),
        "the quantization",
    ),
    "a minimum between steps": (
        quantized(dtype="uint8", min=-0.15, scale=0.1),
        "the quantization",
    ),
    "a constant of floats": (
        put(*MANIFEST, "weights", -1, "dtype", "float32"),
        "value of",
    ),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_models(changed, change, message):
    model = content(changed)
    change(model)
    (changed / "model.json").write_text(json.dumps(model))
    with pytest.raises(ArtifactError) as caught:
        container.open(changed)
    assert str(changed) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"format": "graph-model"',
        b"[" * 10**6,
        b"\xff\xfe\xfd",
    ],
    ids=["empty", "cut", "a list", "a number", "cut later", "nested", "no text"],
)
def test_a_model_that_is_no_json_object(changed, content):
    (changed / "model.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.json has"):
        container.open(changed)


def test_a_model_that_is_a_directory(tmp_path):
    (tmp_path / "model.json").mkdir()
    with pytest.raises(ArtifactError, match=r"model\.json cannot be read"):
        container.open(tmp_path)


@pytest.mark.parametrize("bytes_", [-1, 1])
def test_a_file_of_weights_of_another_size(changed, bytes_):
    file = changed / "group1-shard1of1.bin"
    content = file.read_bytes()
    file.write_bytes(content[:bytes_] if bytes_ < 0 else content + b"\0")
    found = f"{len(content) + bytes_:,} bytes; expected {len(content):,}"
    with pytest.raises(ArtifactError, match=rf"shard1of1\.bin has {found}"):
        container.open(changed)


def test_a_constant_of_another_value(changed):
    """It would be an axis, or a shape, of which TensorFlow might not take all."""
    file = changed / "group1-shard1of1.bin"
    content = file.read_bytes()
    file.write_bytes(content[:-4] + b"\xff\xff\xff\x7f")
    with pytest.raises(ArtifactError, match="another value of"):
        container.open(changed)


def test_a_missing_file_of_weights(changed):
    (changed / "group1-shard1of1.bin").unlink()
    with pytest.raises(ArtifactError, match=r"group1-shard1of1\.bin is missing"):
        container.open(changed)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_becomes_of_a_model_it_is_an_error_or_a_model(changed, seed):
    """Values are moved to other places of the file, and nothing else is raised."""
    random = np.random.default_rng(seed)
    original = content(changed)
    for _ in range(15):
        model = json.loads(json.dumps(original))
        places = list(walk(model))
        for _ in range(random.integers(1, 4)):
            (parent, key), (source, other) = (
                places[random.integers(len(places))] for _ in range(2)
            )
            value = source[other]
            # Not into itself.
            parent[key] = json.loads(json.dumps(value))
        (changed / "model.json").write_text(json.dumps(model))
        try:
            with container.open(changed) as artifact:
                artifact.run(np.zeros((1, 75, 75, 3), np.float32))
        except ArtifactError as error:
            assert str(changed) in str(error)


def walk(value):
    """Every place of a JSON value, as (container, key)."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from walk(value[key])


# The table of formats finds them.


def test_the_table_knows_them_by_their_content(good):
    assert formats.container_of(good).module == container.__name__
    artifact, row = formats.open_artifact(good)
    with artifact:
        assert row.name == "tfjs-v3"


def test_handles_are_the_published_ones():
    url = "https://tfhub.dev/google/tfjs-model/imagenet/inception_resnet_v2"
    found = {
        (name, task): formats.FORMATS[name].handle(task)
        for name, task in itertools.product(NAMES, TASKS)
    }
    published = {key: value for key, value in found.items() if value}
    assert published == {
        (f"tfjs-v{version}", task): f"{url}/{task}/{version}/default/1"
        for version in (1, 3)
        for task in TASKS
    }
