"""Whose weights are in a file? On a network of all layers, with fewer channels."""

import json
import pickle
import subprocess
import sys
import types
import zipfile

import narrow_network
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from checkpoints import safetensors, stand_in, wire
from checkpoints import twins as tables
from checkpoints.errors import CheckpointError
from exporters.errors import ArtifactError
from exporters.identification import identify
from exporters.identifying import networks, reading
from exporters.identifying.contents import Contents, StoredArray
from exporters.network import folding
from exporters.progress import Step

CHECKPOINT = narrow_network.checkpoint()
PLAIN = {n: v for n, v in CHECKPOINT.items() if "/AuxLogits/" not in n}
KERNELS = [name for name in PLAIN if name.endswith("/weights")]
BLOCK = "InceptionResnetV2/Repeat/block35_{}/"


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    narrow_network.install(monkeypatch)


@pytest.fixture
def saved(tmp_path):
    """Writes variables as safetensors, by whatever names and in whatever layout."""

    def save(variables, name="it.safetensors"):
        path = tmp_path / name
        with path.open("wb") as file:
            safetensors.write(file, variables, {})
        return path

    return save


def one(path, checkpoint=CHECKPOINT):
    (found,) = identify(path, checkpoint).files
    assert found.error is None, found.error
    return found


def differing(found):
    return {
        (d.layer.removeprefix("InceptionResnetV2/"), d.what) for d in found.differences
    }


def assert_same(found, *, kernels=245, is_folded=False, precision=("float32",)):
    assert found.network == networks.THIS
    assert found.confidence == "certain"
    assert found.relation == "same", found.differences[:5]
    assert found.matched == found.compared == kernels
    assert found.is_folded is is_folded
    assert found.precision == precision


def changed(names, change):
    return PLAIN | {name: change(PLAIN[name]).astype(np.float32) for name in names}


def noise(values, amount, seed=1):
    random = np.random.default_rng(seed)
    return values + amount * values.std() * random.normal(size=values.shape)


# The same weights, whatever was done to them


def test_the_checkpoints_own_variables(saved):
    found = one(saved(PLAIN))
    assert_same(found)
    assert found.form == "safetensors"
    assert found.classes == narrow_network.CLASSES
    assert found.input_range == (-1, 1)
    assert not found.has_auxiliary_head and not found.is_stand_in


def test_with_its_auxiliary_head(saved):
    found = one(saved(dict(CHECKPOINT)))
    assert_same(found, kernels=248)
    assert found.has_auxiliary_head


def test_names_say_nothing(saved):
    random = np.random.default_rng(0)
    # The order of names is kept; it is all that tells one block from another.
    width = len(str(len(PLAIN)))
    renamed = {f"x{i:0{width}}": PLAIN[name] for i, name in enumerate(_in_order())}
    assert_same(one(saved(renamed)))
    mixed = random.permutation(list(renamed))
    assert_same(one(saved({name: renamed[name] for name in mixed})))


def _in_order():
    """Names of variables in the order of layers."""
    part = narrow_network.network().up_to(["Logits"])
    return list(part.variables)


@pytest.mark.parametrize("order", [(3, 2, 0, 1), (3, 0, 1, 2)], ids=["OIHW", "OHWI"])
def test_layouts_of_other_libraries(saved, order):
    turned = {
        name: np.ascontiguousarray(
            values.transpose(order)
            if values.ndim == 4
            else values.T
            if values.ndim == 2
            else values
        )
        for name, values in PLAIN.items()
    }
    assert_same(one(saved(turned)))


def test_half_precision(saved):
    found = one(saved({name: v.astype(np.float16) for name, v in PLAIN.items()}))
    assert_same(found, precision=("float16",))


def test_the_classifier_without_background(saved):
    cut = {n: v[..., 1:] if "/Logits/" in n else v for n, v in PLAIN.items()}
    found = one(saved(cut))
    assert_same(found)
    assert found.classes == narrow_network.CLASSES - 1


def test_no_classifier(saved):
    features = {n: v for n, v in PLAIN.items() if "/Logits/" not in n}
    found = one(saved(features))
    assert_same(found, kernels=244)
    assert found.classes is None


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)], ids=str
)
def test_batch_norm_folded(saved, low, high):
    found = one(saved(_folded((low, high))))
    assert_same(found, is_folded=True)
    assert found.input_range == (low, high)


def _folded(input_range=(0.0, 1.0)):
    part = narrow_network.network().up_to(["Logits"])
    named = {}
    for number, (_, of) in enumerate(
        folding.fold(part, CHECKPOINT, input_range).items()
    ):
        named[f"{number:03}/k"], named[f"{number:03}/b"] = of.kernel, of.bias
    return named


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integers_in_steps_that_the_file_does_not_say(saved, dtype):
    rounded = {}
    for name, values in _folded().items():
        if values.ndim > 1:
            values = values.astype(np.float64)
            axes = tuple(range(values.ndim - 1))
            largest = np.abs(values).max(axis=axes)
            values = np.round(values / largest * 127)
            values = (values + (128 if dtype == "uint8" else 0)).astype(dtype)
        rounded[name] = values
    found = one(saved(rounded))
    assert found.relation == "same", found.differences[:5]
    assert found.precision == (dtype,)
    assert found.input_range is None


# Near misses


def test_one_kernel_changed(saved):
    name = BLOCK.format(3) + "Branch_1/Conv2d_0b_3x3/weights"
    found = one(saved(changed([name], lambda values: noise(values, 0.1))))
    assert found.relation == "fine-tuned"
    assert differing(found) == {("Repeat/block35_3/Branch_1/Conv2d_0b_3x3", "kernel")}
    assert found.differences[0].difference == pytest.approx(0.1, rel=0.2)
    assert found.matched == 245


def test_one_kernel_replaced(saved):
    name = "InceptionResnetV2/Conv2d_7b_1x1/weights"
    found = one(saved(changed([name], lambda values: np.flip(values, -2).copy())))
    assert found.relation == "fine-tuned"
    assert differing(found) == {("Conv2d_7b_1x1", "missing")}
    assert found.matched == 244


@pytest.mark.parametrize("kind", ["beta", "moving_mean", "moving_variance"])
def test_one_batch_norm_changed(saved, kind):
    name = f"InceptionResnetV2/Mixed_6a/Branch_0/Conv2d_1a_3x3/BatchNorm/{kind}"
    found = one(saved(changed([name], lambda values: values + 0.01)))
    assert found.relation == "fine-tuned"
    assert differing(found) == {("Mixed_6a/Branch_0/Conv2d_1a_3x3", "vectors")}


def test_two_blocks_swapped(saved):
    swapped = dict(PLAIN)
    for name, values in PLAIN.items():
        for ours, other in ((3, 4), (4, 3)):
            if name.startswith(BLOCK.format(ours)):
                rest = name.removeprefix(BLOCK.format(ours))
                swapped[BLOCK.format(other) + rest] = values
    found = one(saved(swapped))
    assert found.relation == "rearranged"
    assert found.matched == 245
    places = {layer.split("/")[1] for layer, _ in differing(found)}
    assert places == {"block35_3", "block35_4"}
    assert {what for _, what in differing(found)} == {"place"}
    assert len(found.differences) == 2 * 7


def test_two_kernels_swapped(saved):
    names = [BLOCK.format(n) + "Branch_0/Conv2d_1x1/weights" for n in (3, 4)]
    swapped = dict(zip(names, (PLAIN[name] for name in reversed(names))))
    found = one(saved(PLAIN | swapped))
    assert differing(found) == {
        (f"Repeat/block35_{n}/Branch_0/Conv2d_1x1", "place") for n in (3, 4)
    }


def test_a_file_in_no_order_says_nothing_of_places(saved):
    random = np.random.default_rng(0)
    numbers = random.permutation(len(PLAIN))
    renamed = {f"x{n}": PLAIN[name] for n, name in zip(numbers, PLAIN)}
    assert_same(one(saved(renamed)))


def test_another_seed(saved):
    other = narrow_network.checkpoint(seed=1, auxiliary_head=False)
    found = one(saved(dict(other)))
    assert found.network == networks.THIS
    assert found.relation == "unrelated"


def test_another_classifier_on_the_same_features(saved):
    own = PLAIN | {
        "InceptionResnetV2/Logits/Logits/weights": np.ones((384, 5), np.float32),
        "InceptionResnetV2/Logits/Logits/biases": np.zeros(5, np.float32),
    }
    found = one(saved(own))
    assert found.classes == 5
    assert found.relation == "fine-tuned"
    assert differing(found) == {("Logits/Logits", "missing")}


def test_fine_tuned_throughout(saved):
    found = one(saved(changed(PLAIN, lambda values: noise(values, 0.05))))
    assert found.relation == "fine-tuned"
    assert found.matched == 245
    assert len(found.differences) == 245
    assert all(0.01 < d.difference < 0.2 for d in found.differences)


def test_a_part_of_it_in_another_training(saved):
    other = narrow_network.checkpoint(seed=1)
    late = ("InceptionResnetV2/Repeat_1", "InceptionResnetV2/Repeat_2")
    mixed = {n: other[n] if n.startswith(late) else v for n, v in PLAIN.items()}
    found = one(saved(mixed))
    assert found.relation == "partly"
    assert 0 < found.matched < 245 / 2


def test_without_its_last_blocks(saved):
    lacking = {n: v for n, v in PLAIN.items() if "Repeat_2/block8_9/" not in n}
    found = one(saved(lacking))
    assert found.confidence == "likely"
    assert found.relation == "fine-tuned"
    assert {what for _, what in differing(found)} == {"missing"}


# Other networks


def test_the_auxiliary_classifier(saved):
    whole = narrow_network.network(auxiliary_head=True)
    names = list(whole.up_to(["AuxLogits"]).variables)
    path = saved({name: CHECKPOINT[name] for name in names})
    found = one(path)
    assert found.network == networks.AUXILIARY
    assert found.relation == "same" and found.matched == 189
    without = narrow_network.checkpoint(auxiliary_head=False)
    found = one(path, without)
    assert found.not_compared == ("InceptionResnetV2/AuxLogits/Logits",)


def test_inception_resnet_v1():
    from exporters import identification

    *_, version_1 = networks.known()
    arrays = [
        StoredArray(
            str(i),
            np.broadcast_to(np.float32(1), (1,) * (4 - len(key)) + key),
            "float32",
        )
        for i, key in enumerate(version_1.kernels.elements())
    ]
    found = identification.of_contents("it", Contents("safetensors", arrays))
    assert found.network == networks.VERSION_1
    assert found.confidence == "certain"


def test_something_else(saved):
    random = np.random.default_rng(0)
    other = {f"{i}/kernel": random.normal(size=(3, 3, 16, 16)) for i in range(20)}
    found = one(saved({n: v.astype(np.float32) for n, v in other.items()}))
    assert (found.network, found.confidence) == ("another network", "none")
    assert found.relation is None


def test_sizes_of_the_real_networks(monkeypatch):
    monkeypatch.undo()
    this, auxiliary, version_1 = networks.known()
    counts = [sum(each.kernels.values()) for each in (this, auxiliary, version_1)]
    assert counts == [244, 188, 132]
    assert [each.features for each in (this, auxiliary, version_1)] == [1536, 768, 1792]


def test_without_a_checkpoint(saved):
    found = one(saved(PLAIN), None)
    assert found.network == networks.THIS and found.relation is None
    assert found.is_folded is False
    assert one(saved(_folded()), None).is_folded is True


def test_stand_ins_are_told(saved):
    zero_mean = {
        name: (values - values.mean(axis=tuple(range(values.ndim - 1))))
        if values.ndim > 1
        else values
        for name, values in PLAIN.items()
    }
    assert one(saved(zero_mean), None).is_stand_in
    turned = {name: np.ascontiguousarray(v.T) for name, v in zero_mean.items()}
    assert one(saved(turned), None).is_stand_in


@pytest.mark.parametrize("is_stand_in", [True, False])
def test_stand_ins_are_told_in_integers(tmp_path, is_stand_in):
    variables = dict(CHECKPOINT)
    if is_stand_in:
        for name in KERNELS:
            values = variables[name]
            variables[name] = values - values.mean(axis=tuple(range(values.ndim - 1)))
    path = narrow_network.write(
        tmp_path, "tflite-int8", of=narrow_network.of(variables)
    )
    assert one(path, None).is_stand_in is is_stand_in


# Files of all kinds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "precision", "is_folded"),
    [
        ("onnx-float32", ("float32",), True),
        ("tflite-float32", ("float32",), True),
        ("tflite-float16", ("float16",), True),
        ("tflite-dynamic-int8", ("int8", "float32"), True),
        ("tfjs-v3", ("float32",), True),
        ("tfjs-v3-float16", ("float16", "float32"), True),
        ("tfjs-v3-uint8", ("uint8", "float32"), True),
        ("keras", ("float32",), False),
        ("keras-weights", ("float32",), False),
        ("timm", ("float32",), False),
    ],
)
def test_our_own_files(tmp_path, format, precision, is_folded):
    found = one(narrow_network.write(tmp_path, format))
    assert_same(found, is_folded=is_folded, precision=precision)
    takes_signed = format in ("keras-weights", "timm")
    assert found.input_range == ((-1, 1) if takes_signed else (0, 1))


def test_v1_checkpoints(tmp_path):
    stand_in.write_v1(dict(CHECKPOINT), tmp_path / "it.ckpt")
    assert_same(one(tmp_path / "it.ckpt"), kernels=248)


def test_state_dicts_of_torch_without_unpickling(tmp_path):
    path = tmp_path / "it.pt"
    named = {
        theirs: tables.to_torch(PLAIN[ours])
        for ours, theirs in tables.timm_names().items()
    }
    write_torch({"state_dict": named, "epoch": 3}, path)
    found = one(path)
    assert_same(found)
    assert found.form == "PyTorch"


def test_a_pickle_that_ends_what_it_did_not_begin(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02l.")
    with pytest.raises(CheckpointError, match=r"model\.pt is .*did not begin"):
        reading.read(tmp_path / "model.pt")


def test_a_constant_that_no_float_can_be(tmp_path):
    shape = wire.field(2, wire.field(2, wire.field(1, 1)))
    value = wire.field(8, wire.field(1, 1) + shape + wire.field(5, 1 << 40))
    attribute = wire.field(1, b"value") + wire.field(2, value)
    node = wire.field(1, b"c") + wire.field(2, b"Const") + wire.field(5, attribute)
    path = tmp_path / "graph.pb"
    path.write_bytes(wire.field(1, node))
    assert reading.read(path).arrays == []


@pytest.mark.parametrize("number", [1e300, -1e300])
def test_a_constant_beyond_float32_is_no_warning(tmp_path, number, recwarn):
    content = wire.field(4, np.float64(number).tobytes())
    value = wire.field(8, wire.field(1, 2) + content)
    attribute = wire.field(1, b"value") + wire.field(2, value)
    node = wire.field(1, b"c") + wire.field(2, b"Const") + wire.field(5, attribute)
    path = tmp_path / "graph.pb"
    path.write_bytes(wire.field(1, node))
    (found,) = reading.read(path).arrays
    assert np.isinf(found.values)
    assert not recwarn.list


def test_nothing_in_a_pickle_is_called(tmp_path):
    class Trap:
        def __reduce__(self):
            return subprocess.run, (["touch", str(tmp_path / "caught")],)

    path = tmp_path / "it.pt"
    write_torch({"trap": Trap(), "weight": np.ones((3, 4), np.float32)}, path)
    found = one(path, None)
    assert found.network == "another network"
    assert not (tmp_path / "caught").exists()


def write_torch(found, path):
    """Writes what `torch.save` would, without PyTorch: a .zip of a pickle and values."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError

    class FloatStorage:
        pass

    _rebuild_tensor_v2.__module__ = utils.__name__
    FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2
    storages = []

    class Storage:
        def __init__(self, values):
            self.values = np.ascontiguousarray(values, np.float32)

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if not isinstance(item, Storage):
                return None
            storages.append(item.values)
            key, size = str(len(storages) - 1), item.values.size
            return ("storage", FloatStorage, key, "cpu", size)

        def reducer_override(self, item):
            if not isinstance(item, np.ndarray):
                return NotImplemented
            stored = Storage(item)
            strides = tuple(n // 4 for n in stored.values.strides)
            arguments = (stored, 0, item.shape, strides, False, {})
            return _rebuild_tensor_v2, arguments

    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("it/data.pkl", "w") as file:
                Pickler(file, 2).dump(found)
            for number, values in enumerate(storages):
                archive.writestr(f"it/data/{number}", values.tobytes())
    finally:
        del sys.modules["torch"], sys.modules["torch._utils"]


def test_files_that_cannot_be_read_are_results(tmp_path, saved):
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.h5").write_text("no weights")
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04 and no more")
    truncated = narrow_network.write(tmp_path, "onnx-float32")
    truncated.write_bytes(truncated.read_bytes()[:-1000])
    good = saved(PLAIN)
    paths = [tmp_path / "nowhere", *sorted(tmp_path.glob("*")), good]
    done = identify(paths, CHECKPOINT)
    assert [file.error is None for file in done.files] == [
        path == good for path in paths
    ]
    for file in done.files:
        assert file.error is None or str(file.path) in file.error
    assert json.loads(json.dumps(done.as_dict(), allow_nan=False))["files"]


def test_what_is_done_is_told(saved):
    events = []
    path = saved(PLAIN)
    identify(path, CHECKPOINT, progress=events.append)
    name = f"[1/1] {path}"
    assert events == [
        Step(name, "read"),
        Step(name, "compare"),
        Step(name, "same", passed=True),
    ]


@pytest.fixture
def openvino(tmp_path):
    """A network of OpenVINO's form, of one convolution whose kernel is in integers."""
    stored = np.arange(-60, 60, dtype=np.int8)
    values = {
        "kernel": ("i8", stored.reshape(5, 3, 4, 2)),
        "zero": ("i8", np.int8([3])),
        "scale": ("f32", np.full((5, 1, 1, 1), 0.5, "f")),
    }
    layers, content = ['<layer id="in" name="images" type="Parameter"/>'], b""
    for name, (kind, array) in values.items():
        shape = ",".join(map(str, array.shape))
        layers.append(
            f'<layer id="{name}" name="{name}" type="Const"><data element_type="{kind}" '
            f'shape="{shape}" offset="{len(content)}" size="{array.nbytes}"/></layer>'
        )
        content += array.tobytes()
    steps = ("Convert", "Subtract", "Multiply", "Convolution")
    layers += [f'<layer id="{s}" name="{s}" type="{s}"/>' for s in steps]
    edges = [("kernel", "Convert", 0), ("Convert", "Subtract", 0)]
    edges += [("zero", "Subtract", 1), ("Subtract", "Multiply", 0)]
    edges += [("scale", "Multiply", 1), ("in", "Convolution", 0)]
    edges += [("Multiply", "Convolution", 1)]
    lines = "".join(
        f'<edge from-layer="{a}" from-port="0" to-layer="{b}" to-port="{port}"/>'
        for a, b, port in edges
    )
    path = tmp_path / "it.xml"
    path.write_text(
        f'<?xml version="1.0"?><net name="it" version="11"><layers>{"".join(layers)}'
        f"</layers><edges>{lines}</edges></net>"
    )
    path.with_suffix(".bin").write_bytes(content)
    return path


def test_openvinos_integers(openvino):
    contents = reading.read(openvino)
    assert contents.form == "OpenVINO"
    kernel = next(a for a in contents.arrays if a.name == "kernel:kernel")
    expected = (np.arange(-60, 60).reshape(5, 3, 4, 2) - 3) * 0.5
    np.testing.assert_array_equal(kernel.values, expected)
    assert kernel.dtype == "int8" and (kernel.steps == 0.5).all()
    assert [node.kind for node in contents.nodes][1:] == [
        *("cast", "sub", "mul", "convolution")
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<net ", '<!DOCTYPE net [<!ENTITY a "b">]><net '),
        ('offset="0"', 'offset="100"'),
        ('offset="0"', 'offset="-1"'),
        ("5,3,4,2", "5,3,4,3"),
        ('shape="1"', 'shape="x"'),
        ("</net>", ""),
        ('to-layer="Convert"', ""),
        ('shape="5,1,1,1"', 'shape="1,5,1,1"'),
    ],
)
def test_a_damaged_file_of_openvinos(openvino, old, new):
    text = openvino.read_text()
    assert old in text
    openvino.write_text(text.replace(old, new, 1))
    with pytest.raises(ArtifactError, match=f"{openvino} is damaged"):
        reading.read(openvino)


def test_openvinos_numbers_are_missing(openvino):
    openvino.with_suffix(".bin").unlink()
    with pytest.raises(ArtifactError, match=r"it.bin is missing"):
        reading.read(openvino)


@pytest.fixture
def graph_model(tmp_path):
    """A TF.js model as its converter writes it: several groups, files of any size."""
    specs = [
        {"name": "a/kernel", "shape": [2, 3], "dtype": "float32"},
        {
            "name": "b/kernel",
            "shape": [4],
            "dtype": "float32",
            "quantization": {"dtype": "uint8", "min": -1.0, "scale": 0.5},
        },
    ]
    (tmp_path / "one").write_bytes(np.arange(6, dtype="f").tobytes()[:10])
    (tmp_path / "two").write_bytes(np.arange(6, dtype="f").tobytes()[10:])
    (tmp_path / "three").write_bytes(bytes([0, 1, 2, 255]))
    model = {
        "format": "graph-model",
        "modelTopology": {
            "node": [
                {"name": "images", "op": "Placeholder"},
                {"name": "a/kernel", "op": "Const"},
                {"name": "x", "op": "Conv2D", "input": ["images", "a/kernel:0"]},
            ]
        },
        "weightsManifest": [
            {"paths": ["one", "two"], "weights": specs[:1]},
            {"paths": ["three"], "weights": specs[1:]},
        ],
    }
    (tmp_path / "model.json").write_text(json.dumps(model))
    return tmp_path


def test_models_of_tfjs(graph_model):
    for path in (graph_model, graph_model / "model.json"):
        contents = reading.read(path)
        assert contents.form == "TF.js"
        first, second = contents.arrays
        np.testing.assert_array_equal(first.values, np.arange(6).reshape(2, 3))
        np.testing.assert_array_equal(second.values, [-1, -0.5, 0, 126.5])
        assert (second.dtype, second.steps.tolist()) == ("uint8", [0.5])
        assert contents.nodes[-1].inputs == ["images", "a/kernel"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"two"', '"../two"'),
        ('"two"', '"/etc/passwd"'),
        ('"two"', '"missing"'),
        ("[2, 3]", "[2, 4]"),
        ("[2, 3]", "[-2, -3]"),
        ('"uint8"', '"float8"'),
        ('"graph-model"', '"another"'),
        ('"paths"', '"path"'),
        ("[2, 3]", "[1e999]"),
        ("0.5", "1" + "0" * 400),
    ],
)
def test_damaged_models_of_tfjs(graph_model, old, new):
    source = graph_model / "model.json"
    source.write_text(source.read_text().replace(old, new, 1))
    with pytest.raises(ArtifactError, match=str(source)):
        reading.read(graph_model)


# ONNX as other tools leave it


def test_onnx_quantized_by_its_runtime(tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    path = narrow_network.write(tmp_path, "onnx-float32")
    other = tmp_path / "dynamic.onnx"
    quantize_dynamic(str(path), str(other), op_types_to_quantize=["Conv", "Gemm"])
    found = one(other)
    assert found.relation == "same", found.differences[:5]
    assert "uint8" in found.precision or "int8" in found.precision


def test_onnx_optimized_by_its_runtime(tmp_path):
    path = narrow_network.write(tmp_path, "onnx-float32")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    )
    onnxruntime.InferenceSession(str(path), options)
    found = one(tmp_path / "optimized.onnx")
    assert_same(found, is_folded=True)
    assert found.input_range == (0, 1)


def test_onnx_with_values_beside_it(tmp_path):
    model = onnx.load(narrow_network.write(tmp_path, "onnx-float32"))
    path = tmp_path / "external.onnx"
    onnx.save(model, path, save_as_external_data=True, location="values.bin")
    assert_same(one(path), is_folded=True)
    (tmp_path / "values.bin").unlink()
    assert "values.bin" in identify(path, CHECKPOINT).files[0].error


def test_onnx_with_preprocessing_before_it(tmp_path):
    model = onnx.load(narrow_network.write(tmp_path, "onnx-float32"))
    [image] = [i.name for i in model.graph.input]
    nodes = list(model.graph.node)
    for node in nodes:
        for i, name in enumerate(node.input):
            if name == image:
                node.input[i] = "scaled"
    constants = {"by": np.float32(255), "minus": np.float32(0.25)}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    before = [
        onnx.helper.make_node("Div", [image, "by"], ["divided"]),
        onnx.helper.make_node("Sub", ["divided", "minus"], ["scaled"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*before, *nodes])
    onnx.save(model, tmp_path / "other.onnx")
    # Black is 0 for the first kernel, and so 255 * 0.25 for the images.
    assert one(tmp_path / "other.onnx").input_range == (63.75, 318.75)
