"""The readers, and a few small files for each to begin with."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from checkpoints import archive, saved_slices, tensors, torch_state, wire
from checkpoints import safetensors as safetensors_files
from checkpoints import table as tables
from checkpoints.bundle import Bundle
from checkpoints.hdf5 import Hdf5
from checkpoints.reader import open_checkpoint
from checkpoints.regular_file import open_regular
from checkpoints.saved_slices import SavedSlices
from exporters import images, labels, manifest, record
from exporters.containers.tflite import reader as tflite_reader
from exporters.errors import ArtifactError
from exporters.evaluation import datasets, tfrecords, vectors
from exporters.evaluation import state as states
from exporters.identifying import reading, tensorflow_graphs
from exporters.rebuilding import _One
from exporters.tfhub import receipts

MOST_BYTES = 1 << 16
"""Of an input; what readers do with much is for the tests."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
      read: reads what is in a file; it may raise the errors of `irv2`.
      seeds: name -> content, for a directory that is empty.
      name: what the file is called.
      megabytes: that an input may occupy.
    """

    read: Callable[[Path], object]
    seeds: Callable[[], dict[str, bytes]]
    name: str = "input"
    megabytes: int = 4096


def _variables() -> dict[str, np.ndarray]:
    return {
        "layer/weights": np.ones((3, 2), np.float32),
        "layer/biases": np.arange(2, dtype=np.float32),
    }


def _record_text() -> str:
    made = record.Record("onnx-int8", "classification", "0" * 64, "unverified", False)
    return made.to_text()


# Archives and checkpoints


def _archive(path: Path) -> None:
    target = path.with_name("unpacked")
    try:
        archive.extract_checkpoint(path, target, max_bytes=1 << 22)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _tar_of(path: Path) -> None:
    """The same inside of gzip, whose checksum keeps changes from being seen."""
    packed = path.with_name("packed.tar.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 0))
    _archive(packed)


def _tar() -> dict[str, bytes]:
    found = {}
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            member = tarfile.TarInfo("folder/" * 20 + "model.ckpt")
            member.size = 9
            tar.addfile(member, io.BytesIO(b"something"))
        found[str(form)] = buffer.getvalue()
    return found


def _archives() -> dict[str, bytes]:
    return {name: gzip.compress(content) for name, content in _tar().items()}


def _checkpoint(path: Path) -> None:
    open_checkpoint(path, check_layout=False, moving_averages="ignore")


def _v1() -> dict[str, bytes]:
    buffer = io.BytesIO()
    saved_slices.write(_variables(), buffer)
    return {"v1": buffer.getvalue()}


def _v1_messages(path: Path) -> None:
    """A list of variables and a value, in a table with right checksums."""
    content = path.read_bytes()
    size = int.from_bytes(content[:2], "little")
    listed, value = content[2 : 2 + size], content[2 + size :]
    written = path.with_name("v1")
    key = tensors.slice_key("x", ((0, None),))
    with written.open("wb") as file:
        tables.write([(b"", [listed]), (key, [value])], file)
    with open_regular(written) as opened:
        stored = SavedSlices(opened, str(written))
        for name in stored.specs:
            stored.read(name)


def _messages_of_v1() -> dict[str, bytes]:
    buffer = io.BytesIO()
    saved_slices.write({"x": np.ones(3, np.float32)}, buffer)
    buffer.seek(0)
    table = tables.Table(io.BufferedReader(buffer), "seed")  # type: ignore[arg-type]
    (_, listed), (_, value) = ((key, bytes(message)) for key, message in table)
    return {"messages": len(listed).to_bytes(2, "little") + listed + value}


def _v2_message(path: Path) -> None:
    """The entry of a variable, in an index with right checksums."""
    prefix = path.with_name("v2")
    with prefix.with_name("v2.index").open("wb") as file:
        tables.write([(b"", [wire.field(1, 1)]), (b"x", [path.read_bytes()])], file)
    prefix.with_name("v2.data-00000-of-00001").write_bytes(bytes(12))
    stored = Bundle(prefix, str(prefix))
    for name in stored.specs:
        stored.read(name)


def _messages_of_v2() -> dict[str, bytes]:
    shape = wire.field(2, wire.field(1, 3))
    checksum = tables.crc32c(bytes(12)).to_bytes(4, "little")
    message = wire.field(1, 1) + wire.field(2, shape) + wire.field(5, 12)
    return {"entry": message + wire.varint(6 << 3 | 5) + checksum}


def _safetensors() -> dict[str, bytes]:
    header = json.dumps(
        {
            "__metadata__": {"irv2": _record_text()},
            "x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        }
    ).encode()
    return {"one": len(header).to_bytes(8, "little") + header + bytes(8)}


def _read_safetensors(path: Path) -> None:
    with open_regular(path) as file:
        stored = safetensors_files.SafeTensors(file, str(path))
        for name in stored.specs:
            stored.read(name)


def _hdf5() -> dict[str, bytes]:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 2), np.float32)
        file.attrs["layer_names"] = ["dense"]
    return {"one": buffer.getvalue()}


def _read_hdf5(path: Path) -> None:
    with open_regular(path) as file, Hdf5(file, str(path)) as stored:
        for name in stored.specs:
            stored.read(name)
        stored.attributes("/")


def _torch(path: Path) -> None:
    packed = path.with_name("model.pt")
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model/data.pkl", path.read_bytes())
        archive.writestr("model/data/0", bytes(64))
    with open_regular(packed) as file:
        stored = torch_state.TorchState(file, str(packed))
        for name in stored.specs:
            stored.read(name)


def _pickles() -> dict[str, bytes]:
    import pickle

    return {"dict": pickle.dumps({"a.weight": [1, 2], "b": ("x", 1.5)}, protocol=2)}


# Artifacts


def _any_file(path: Path) -> None:
    reading.read(path)


def _onnx() -> dict[str, bytes]:
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "w"], ["y"])],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    model = helper.make_model(graph)
    helper.set_model_props(model, {"irv2": _record_text()})
    content: bytes = model.SerializeToString()
    return {"one": content}


def _tflite() -> dict[str, bytes]:
    import small_build
    from small_networks import BLOCK, weights

    from exporters.containers.tflite import writer
    from exporters.network.quantization import Precision

    content = writer.write(
        BLOCK.up_to(["PreLogitsFlatten"]),
        weights(BLOCK),
        small_build.IMAGE_SIZE,
        Precision(),
        {"feature_vector": "head/features"},
        description="seed",
        metadata={
            tflite_reader.RECORD: _record_text().encode(),
            tflite_reader.SEAL: tflite_reader.UNSEALED,
        },
    )
    return {"one": bytes(content)}


def _sealed_tflite(path: Path) -> None:
    """A file whose seal is right, as whoever reads this code can make it."""
    with contextlib.suppress(Exception):
        tflite_reader.seal(path)
    found = tflite_reader.read(path)
    found.weights()
    found.activations()


def _graphs() -> dict[str, bytes]:
    tensor = wire.field(1, 1) + wire.field(2, wire.field(2, wire.field(1, 2)))
    value = wire.field(8, tensor + wire.field(4, bytes(8)))
    attribute = wire.field(1, b"value") + wire.field(2, value)
    node = wire.field(1, b"c") + wire.field(2, b"Const") + wire.field(5, attribute)
    conv = wire.field(1, b"d") + wire.field(2, b"Conv2D") + wire.field(3, b"c:0")
    graph = wire.field(1, node) + wire.field(1, conv)
    return {"graph": graph, "model": wire.field(2, wire.field(2, graph))}


def _graph(path: Path) -> None:
    content = path.read_bytes()
    for parse in (tensorflow_graphs.of_graph, tensorflow_graphs.of_saved_model):
        with contextlib.suppress(ValueError):
            parse(content)
    tensorflow_graphs.is_graph(content[:4096])


def _hub_module(path: Path) -> None:
    """saved_model.pb and tfhub_module.pb."""
    from exporters.containers.hub_module import container

    content = path.read_bytes()
    folder = path.with_name("module")
    folder.mkdir(exist_ok=True)
    (folder / container.MODULE_FILE).write_bytes(content[:2])
    (folder / "saved_model.pb").write_bytes(content[2:])
    container._read_meta_graphs(folder)


def _modules() -> dict[str, bytes]:
    import tensorflow as tf

    from exporters.containers.hub_module import container

    assert tf  # It takes longer to import than an input may take.
    return {n: container._MODULE_DEF + model for n, model in _graphs().items()}


_OPENVINO = """<?xml version="1.0"?><net name="n" version="11"><layers>
<layer id="0" name="w" type="Const" version="opset1">
<data element_type="u8" offset="0" shape="2, 3" size="6"/></layer>
<layer id="1" name="c" type="Convert" version="opset1"/>
<layer id="2" name="s" type="Const" version="opset1">
<data element_type="f32" offset="8" shape="1" size="4"/></layer>
<layer id="3" name="m" type="Multiply" version="opset1"/></layers>
<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
<edge from-layer="1" from-port="1" to-layer="3" to-port="0"/>
<edge from-layer="2" from-port="0" to-layer="3" to-port="1"/></edges></net>
"""


def _openvino(path: Path) -> None:
    path.with_suffix(".bin").write_bytes(bytes(range(16)))
    reading.read(path)


def _openvino_graphs() -> dict[str, bytes]:
    return {"one": _OPENVINO.encode()}


def _tfjs(path: Path) -> None:
    (path.parent / "group1-shard1of1.bin").write_bytes(bytes(range(16)))
    reading.read(path)


def _tfjs_models() -> dict[str, bytes]:
    rounded = {"dtype": "uint8", "scale": 0.5, "min": -1.0}
    weights = [
        {"name": "w", "shape": [2, 3], "dtype": "float32", "quantization": rounded},
        {"name": "b", "shape": [2], "dtype": "float32"},
    ]
    nodes = [
        {"name": "w", "op": "Const"},
        {"name": "y", "op": "Conv2D", "input": ["images", "w"]},
    ]
    made = {
        "format": "graph-model",
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": ["group1-shard1of1.bin"], "weights": weights}],
    }
    return {"graph": json.dumps(made).encode()}


# What lies beside artifacts, and what users give


def _manifest(path: Path) -> None:
    artifact = path.with_name("model.onnx")
    artifact.write_bytes(b"model")
    shutil.copyfile(path, manifest.path_of(artifact))
    with contextlib.suppress(ArtifactError):
        manifest.changed_files(artifact)
    _One(artifact, None, None, None, {}, None)._read_manifest()  # type: ignore[arg-type]


def _manifests() -> dict[str, bytes]:
    made = json.loads(_record_text()) | {"files": {"model.onnx": "0" * 64}}
    both = {**made, "replacement": made}
    return {"one": json.dumps(made).encode(), "two": json.dumps(both).encode()}


def _record(path: Path) -> None:
    record.parse(path.read_bytes(), str(path))


def _records() -> dict[str, bytes]:
    return {"one": _record_text().encode()}


def _receipt(path: Path) -> None:
    directory = path.with_name("0" * 40)
    shutil.copyfile(path, receipts.beside(directory))
    receipts.read(directory)


def _receipts() -> dict[str, bytes]:
    made = receipts.Receipt("https://tfhub.dev/x/1", {"a": "0" * 64}, "text", ["b"])
    return {"one": json.dumps(dataclasses.asdict(made)).encode()}


def _image(path: Path) -> None:
    images.decode(path.read_bytes(), str(path))


def _images() -> dict[str, bytes]:
    from PIL import Image

    found = {}
    for form in ("PNG", "JPEG", "BMP", "WEBP", "GIF"):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(buffer, form)
        found[form] = buffer.getvalue()
    return found


def _labels(path: Path) -> None:
    labels.read_labels(path)


def _lists() -> dict[str, bytes]:
    return {"three": "rose\ntulip\ngröße\n".encode()}


def _tfrecords(path: Path) -> None:
    if tfrecords.is_one(path):  # As `datasets.open_dataset` asks first.
        for found in datasets.scan([path]):
            for *_, place in found.rows:
                datasets.Example("x", None, place).content()


def _tfrecord() -> dict[str, bytes]:
    import records as written

    example = written.tf_slim(b"image", 3, "n01440764", "a.png")
    length = len(example).to_bytes(8, "little")
    head = length + tables.crc32c(length).to_bytes(4, "little")
    return {"one": head + example + tables.crc32c(example).to_bytes(4, "little")}


def _features(path: Path) -> None:
    vectors.read_part(path)


def _parts() -> dict[str, bytes]:
    buffer = io.BytesIO()
    facts = json.dumps({"irv2_features": 1})
    np.savez(buffer, facts=facts, name=["a"], vector=np.ones((1, 2), np.float32))
    return {"one": buffer.getvalue()}


def _state(path: Path) -> None:
    states.load(path, "0", 1, 1)


def _states() -> dict[str, bytes]:
    buffer = io.BytesIO()
    facts = {"fingerprint": "0", "finished": 1, "problems": [], "errors": []}
    top = np.zeros((1, 1, states.MOST), np.int32)
    np.savez(buffer, facts=json.dumps(facts), top=top)
    return {"one": buffer.getvalue()}


TARGETS = {
    "archive": Target(_archive, _archives, "input.tar.gz"),
    "tar": Target(_tar_of, _tar),
    "checkpoint": Target(_checkpoint, _v1),
    "v1": Target(_v1_messages, _messages_of_v1),
    "v2": Target(_v2_message, _messages_of_v2),
    "safetensors": Target(_read_safetensors, _safetensors),
    # Its library makes room for a text of 4 GB.
    "hdf5": Target(_read_hdf5, _hdf5, megabytes=6144),
    "torch": Target(_torch, _pickles),
    "onnx": Target(_any_file, _onnx, "input.onnx"),
    "tflite": Target(_any_file, _tflite, "input.tflite"),
    "sealed-tflite": Target(_sealed_tflite, _tflite),
    "saved-model": Target(_graph, _graphs),
    "hub-module": Target(_hub_module, _modules),
    "openvino": Target(_openvino, _openvino_graphs, "input.xml"),
    "tfjs": Target(_tfjs, _tfjs_models, "model.json"),
    "manifest": Target(_manifest, _manifests),
    "record": Target(_record, _records),
    "receipt": Target(_receipt, _receipts),
    "image": Target(_image, _images),
    "labels": Target(_labels, _lists),
    "tfrecords": Target(_tfrecords, _tfrecord),
    "features": Target(_features, _parts, "part-00000.npz"),
    "state": Target(_state, _states),
}
