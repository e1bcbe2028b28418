"""Tampered artifacts: any byte is found by the manifest, any meaning by `verify`."""

from __future__ import annotations

import functools
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tampering import change

from checkpoints import files
from checkpoints.reader import open_checkpoint
from exporters import manifest
from exporters.containers.tflite import reader
from exporters.parity import ParityImages
from exporters.reference import Reference
from exporters.verification import verify
from stress import commands, isolated
from stress.tally import Plan, Tally
from stress.workshop import jobs


def bytes_(plan: Plan) -> Tally:
    """One byte of one file, whatever it means."""
    tally = Tally()
    copies: dict[tuple[str, str], Path] = {}
    for case, chance in plan.cases("changed byte", 1000):
        job = chance.choice(jobs())
        if job not in copies:
            copies[job] = plan.shop.copy("new", *job, plan.folder)
        path = copies[job]
        inside = [path] if path.is_file() else sorted(path.rglob("*"))
        file = chance.choice([each for each in inside if each.is_file()])
        content = bytearray(file.read_bytes())
        if not content:
            continue
        place = chance.randrange(len(content))
        was = content[place]
        content[place] = chance.choice([b for b in range(256) if b != was])
        file.write_bytes(content)
        changed = manifest.changed_files(path)
        if changed != [file.relative_to(path.parent).as_posix()]:
            tally.fault("wrong artifact", f"{case}, {file} at {place}", changed)
        if not chance.randrange(25):
            done = commands.run("inspect", path)
            tally.check(f"{case}, {file} at {place}, inspect", done, {0, 3})
            if not re.search("changed|damaged", done.out + done.err):
                tally.fault("wrong artifact", f"{case}, inspect", done.err)
        content[place] = was
        file.write_bytes(content)
        tally.tried["changed bytes"] += 1
    return tally


def meanings(plan: Plan) -> Tally:
    """One number, key, name or attribute, with a manifest that says it is right."""
    tally = Tally()
    checkpoint = open_checkpoint(plan.shop.checkpoint("new"))

    @functools.cache
    def reference() -> Reference:
        isolated.quiet()
        return Reference(checkpoint)

    images = ParityImages()

    def one(tally: Tally, case: str, chance: Random) -> None:
        (job,) = chance.choices(_JOBS, _OFTEN)
        folder = plan.folder / "tampered"
        shutil.rmtree(folder, ignore_errors=True)
        path = plan.shop.copy("new", *job, folder)
        tamper = chance.choice(_changes_of(job[0]))
        before = files.digests(path)
        what = tamper(path, chance)
        if files.digests(path) == before:
            return  # There is nothing of this kind in the file.
        _rewrite_manifest(path)
        tally.tried["changed meanings"] += 1
        done = verify(path, checkpoint, images=images, reference=reference())
        if done.passed:
            words = tamper.__name__.strip("_").replace("_", " ")
            case += f", {path.name}, {words}: {what}"
            tally.fault("wrong artifact", case, "verify finds nothing")

    cases = list(plan.cases("changed meaning", 200))
    isolated.run(tally, cases, one, deadline=plan.deadline, timeout=120)
    return tally


_JOBS = [(name, task) for name, task in jobs() if task == "classification"]
_OFTEN = [1 if name.startswith("v") else 4 for name, _ in _JOBS]
"""How often each is tampered with: SavedModels take seconds to verify."""


def _rewrite_manifest(path: Path) -> None:
    place = manifest.path_of(path)
    described = files.read_json(place)
    described["files"] = files.digests(path)
    files.write_json(place, described)


Change = Callable[[Path, Random], str]


def _changes_of(format: str) -> list[Change]:
    if format in ("v1", "v3"):
        return [*_OF_MODULES, _key_of_a_signature]
    if format in ("v4", "v5"):
        return _OF_MODULES if format == "v4" else [*_OF_MODULES, _key_of_a_signature]
    if format.startswith("tfjs"):
        return [_weights_of_tfjs, _graph_of_tfjs, _scale_of_tfjs]
    if format.startswith("onnx"):
        return [_tensor_of_onnx, _attribute_of_onnx, _output_of_onnx, _blocks_of_onnx]
    if format.startswith("tflite"):
        return [_tensor_of_tflite, _padding_of_tflite, _blocks_of_tflite]
    if format == "timm":
        return [_weights_of_timm]
    if format == "keras":
        return [_weights_of_keras, _layer_of_keras]
    return [_weights_of_keras]


def _other_float(value: np.floating, chance: Random) -> np.floating:
    """Another float, sometimes the next one."""
    dtype = type(value)
    if chance.random() < 0.5:
        return np.nextafter(value, dtype(np.inf))
    return dtype(value * dtype(1.5) + dtype(0.01))


def _change_one(values: np.ndarray, chance: Random) -> np.ndarray:
    """Returns an array in which one number is another."""
    changed = np.array(values)
    flat = changed.reshape(-1)
    place = chance.randrange(flat.size)
    if changed.dtype.kind == "f":
        flat[place] = _other_float(flat[place], chance)
    else:
        limits = np.iinfo(changed.dtype)
        step = 1 if flat[place] < limits.max else -1
        flat[place] += step * (1 if changed.itemsize == 1 else limits.max // 1024)
    return changed


# SavedModels


def _variable(path: Path, chance: Random) -> str:
    """A weight, a bias or a moving average."""
    import tensorflow as tf

    prefix = str(path / "variables" / "variables")
    stored = tf.train.load_checkpoint(prefix)
    dtypes = stored.get_variable_to_dtype_map()
    values = {name: stored.get_tensor(name) for name in dtypes}
    floats = sorted(name for name, dtype in dtypes.items() if dtype == tf.float32)
    name = chance.choice(floats)
    values[name] = _change_one(values[name], chance)
    names = sorted(values)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(values[each], dtypes[each]) for each in names],
    )
    return name


def _in_graph(path: Path, change: Callable) -> str:
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    what: str = change(model)
    file.write_bytes(model.SerializeToString(deterministic=True))
    return what


def _nodes(model, chance: Random) -> list:
    """The nodes of a graph, or of a function that computes the network."""
    meta_graph = chance.choice(model.meta_graphs)
    library = [f for f in meta_graph.graph_def.library.function if len(f.node_def) > 99]
    if library:
        return list(chance.choice(library).node_def)
    return list(meta_graph.graph_def.node)


def _padding_of_a_node(path: Path, chance: Random) -> str:
    def change(model) -> str:
        nodes = [
            node
            for node in _nodes(model, chance)
            # The padding of a window of one pixel means nothing.
            if "padding" in node.attr and "1x1" not in node.name
        ]
        node = chance.choice(nodes)
        other = {b"SAME": b"VALID", b"VALID": b"SAME"}
        node.attr["padding"].s = other[node.attr["padding"].s]
        return str(node.name)

    return _in_graph(path, change)


def _epsilon_of_a_node(path: Path, chance: Random) -> str:
    def change(model) -> str:
        nodes = [node for node in _nodes(model, chance) if "epsilon" in node.attr]
        node = chance.choice(nodes)
        node.attr["epsilon"].f = 0.01
        return str(node.name)

    return _in_graph(path, change)


def _kind_of_a_node(path: Path, chance: Random) -> str:
    def change(model) -> str:
        nodes = [node for node in _nodes(model, chance) if node.op == "Relu"]
        node = chance.choice(nodes)
        node.op = chance.choice(["Relu6", "Elu"])
        return str(node.name)

    return _in_graph(path, change)


def _key_of_a_signature(path: Path, chance: Random) -> str:
    def change(model) -> str:
        meta_graph = chance.choice(model.meta_graphs)
        keys = [k for k in meta_graph.signature_def if not k.startswith("__")]
        key = chance.choice(sorted(keys))
        signature = meta_graph.signature_def[key]
        outputs = sorted(signature.outputs)
        kind = chance.randrange(3)
        if kind == 0:
            meta_graph.signature_def[f"{key}_2"].CopyFrom(signature)
            del meta_graph.signature_def[key]
        elif kind == 1 and len(outputs) > 1:
            one, other = chance.sample(outputs, 2)
            kept = signature.outputs[one].name
            signature.outputs[one].name = signature.outputs[other].name
            signature.outputs[other].name = kept
        else:
            name = chance.choice(outputs)
            signature.outputs[f"{name}_2"].CopyFrom(signature.outputs[name])
            del signature.outputs[name]
        return f"{key}, {kind}"

    return _in_graph(path, change)


_OF_MODULES: list[Change] = [
    _variable,
    _variable,
    _padding_of_a_node,
    _epsilon_of_a_node,
    _kind_of_a_node,
]


# TF.js


def _weights_of_tfjs(path: Path, chance: Random) -> str:
    file = path / "group1-shard1of1.bin"
    content = bytearray(file.read_bytes())
    place = chance.randrange(len(content))
    content[place] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return f"byte {place}"


def _in_json(path: Path, change: Callable) -> str:
    file = path / "model.json"
    model = json.loads(file.read_text("utf-8"))
    what: str = change(model)
    file.write_text(json.dumps(model), "utf-8")
    return what


def _graph_of_tfjs(path: Path, chance: Random) -> str:
    def change(model) -> str:
        nodes = [n for n in model["modelTopology"]["node"] if "padding" in n["attr"]]
        node = chance.choice(nodes)
        node["attr"]["padding"]["s"] = {"VkFMSUQ=": "U0FNRQ==", "U0FNRQ==": "VkFMSUQ="}[
            node["attr"]["padding"]["s"]
        ]
        return str(node["name"])

    return _in_json(path, change)


def _scale_of_tfjs(path: Path, chance: Random) -> str:
    def change(model) -> str:
        specs = [
            spec
            for spec in model["weightsManifest"][0]["weights"]
            if "scale" in spec.get("quantization", {})
        ]
        if not specs:
            return ""
        spec = chance.choice(specs)
        spec["quantization"][chance.choice(["scale", "min"])] *= 1.01
        return str(spec["name"])

    return _in_json(path, change)


# ONNX and TFLite


def _tensor_of_onnx(path: Path, chance: Random) -> str:
    """A weight, a bias, a scale or a zero point."""
    import onnx

    names = [
        tensor.name
        for tensor in onnx.load(path).graph.initializer
        if tensor.name.endswith(("/weights", "/biases", "/scale", "/zero_point"))
    ]
    name = chance.choice(sorted(names))
    by = functools.partial(_scaled, chance=chance) if name.endswith("scale") else None
    change(path, {name: by or functools.partial(_change_one, chance=chance)})
    return name


def _scaled(values: np.ndarray, chance: Random) -> np.ndarray:
    changed = np.array(values)
    place = chance.randrange(changed.size)
    changed.reshape(-1)[place] *= np.float32(chance.choice([0.05, 40]))
    return changed


def _attribute_of_onnx(path: Path, chance: Random) -> str:
    import onnx

    model = onnx.load(path)
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in ("Conv", "MaxPool", "AveragePool")
    ]
    node = chance.choice(nodes)
    names = [a.name for a in node.attribute if a.name in ("pads", "strides")]
    if not names:
        node.attribute.append(onnx.helper.make_attribute("pads", [1, 1, 0, 0]))
    else:
        name = chance.choice(names)
        (attribute,) = (a for a in node.attribute if a.name == name)
        place = chance.randrange(len(attribute.ints))
        attribute.ints[place] += 1
    onnx.save(model, path)
    return str(node.name or node.output[0])


def _output_of_onnx(path: Path, chance: Random) -> str:
    import onnx

    model = onnx.load(path)
    was = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{was}_2" if name == was else name for name in node.output]
    model.graph.output[0].name = f"{was}_2"
    onnx.save(model, path)
    return was


def _swapped(values: np.ndarray, chance: Random) -> np.ndarray:
    """Two blocks of an array, exchanged, which are not the same."""
    sizes = [size for size in (4, 16, 64) if values.size >= 2 * size]
    while True:
        changed = np.array(values)
        flat = changed.reshape(-1)
        size = chance.choice(sizes)
        first, second = chance.sample(range(flat.size // size), 2)
        one = flat[first * size :][:size].copy()
        flat[first * size :][:size] = flat[second * size :][:size]
        flat[second * size :][:size] = one
        if (changed != values).any():
            return changed


def _blocks_of_onnx(path: Path, chance: Random) -> str:
    import onnx

    kernels = [
        tensor.name
        for tensor in onnx.load(path).graph.initializer
        if tensor.name.endswith("/weights")
    ]
    name = chance.choice(sorted(kernels))
    change(path, {name: functools.partial(_swapped, chance=chance)})
    return name


def _names_of_tflite(path: Path) -> list[str]:
    model = schema.Model.GetRootAs(np.fromfile(path, np.uint8))
    graph = model.Subgraphs(0)
    tensors = map(graph.Tensors, range(graph.TensorsLength()))
    return sorted(t.Name().decode() for t in tensors)


def _tensor_of_tflite(path: Path, chance: Random) -> str:
    names = [n for n in _names_of_tflite(path) if n.endswith(("/weights", "/biases"))]
    name = chance.choice(names)
    change(path, {name: functools.partial(_change_one, chance=chance)})
    return name


def _blocks_of_tflite(path: Path, chance: Random) -> str:
    names = [n for n in _names_of_tflite(path) if n.endswith("/weights")]
    name = chance.choice(names)
    change(path, {name: functools.partial(_swapped, chance=chance)})
    return name


def _padding_of_tflite(path: Path, chance: Random) -> str:
    data = np.fromfile(path, np.uint8)
    model = schema.Model.GetRootAs(data)
    graph = model.Subgraphs(0)
    padded = []
    for number in range(graph.OperatorsLength()):
        options = graph.Operators(number).BuiltinOptions()
        code = model.OperatorCodes(graph.Operators(number).OpcodeIndex())
        if options is None or code.BuiltinCode() not in (
            schema.BuiltinOperator.CONV_2D,
            schema.BuiltinOperator.MAX_POOL_2D,
            schema.BuiltinOperator.AVERAGE_POOL_2D,
        ):
            continue
        has_kernel = graph.Operators(number).InputsLength() > 1
        kernel = graph.Tensors(graph.Operators(number).Inputs(int(has_kernel)))
        if has_kernel and max(kernel.ShapeAsNumpy()[1:3]) < 2:
            continue  # The padding of a window of one pixel means nothing.
        if offset := options.Offset(4):  # Of the first field, the padding.
            padded.append(options.Pos + offset)
    place = chance.choice(padded)
    data[place] ^= 1
    data.tofile(path)
    reader.seal(path)
    return f"byte {place}"


# Keras and timm


def _weights_of_timm(path: Path, chance: Random) -> str:
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    place = start + 4 * chance.randrange((len(content) - start) // 4)
    values = np.frombuffer(content, np.float32, 1, place)
    content[place : place + 4] = np.float32(_other_float(values[0], chance)).tobytes()
    path.write_bytes(content)
    return f"byte {place}"


def _change_hdf5(file, chance: Random) -> str:
    import h5py

    with h5py.File(file, "r+") as opened:
        names: list[str] = []
        opened.visititems(
            lambda name, item: (
                names.append(name)
                if isinstance(item, h5py.Dataset) and item.dtype == np.float32
                else None
            )
        )
        name = chance.choice(sorted(names))
        opened[name][...] = _change_one(opened[name][...], chance)
        return name


def _change_member(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Changes a file in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members.items():
            is_it = info.filename == name
            archive.writestr(info, change(content) if is_it else content)


def _weights_of_keras(path: Path, chance: Random) -> str:
    if not path.name.endswith(".keras"):
        return _change_hdf5(path, chance)
    changed = []

    def change(content: bytes) -> bytes:
        buffer = io.BytesIO(content)
        changed.append(_change_hdf5(buffer, chance))
        return buffer.getvalue()

    _change_member(path, "model.weights.h5", change)
    return changed[0]


def _layer_of_keras(path: Path, chance: Random) -> str:
    changed = []

    def change(content: bytes) -> bytes:
        described = json.loads(content)
        configs = [layer["config"] for layer in described["config"]["layers"]]
        config = chance.choice([c for c in configs if "padding" in c])
        other = {"same": "valid", "valid": "same"}
        config["padding"] = other[config["padding"]]
        changed.append(config["name"])
        return json.dumps(described).encode()

    _change_member(path, "config.json", change)
    return changed[0]
