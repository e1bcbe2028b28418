"""TFRecord files as TF-Slim's and TFDS's converters write them, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from checkpoints import wire
from checkpoints.table import crc32c


def example(features: Mapping[str, bytes | int]) -> bytes:
    """A tf.train.Example with one value for each feature."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = wire.field(1, wire.field(1, value))
        else:
            feature = wire.field(3, wire.field(1, wire.varint(value % (1 << 64))))
        entry = wire.field(1, name.encode()) + wire.field(2, feature)
        entries += wire.field(1, entry)
    return wire.field(1, entries)


def write(path: Path, contents: Iterable[bytes]) -> Path:
    with path.open("wb") as file:
        for content in contents:
            length = len(content).to_bytes(8, "little")
            file.write(length + crc32c(length).to_bytes(4, "little"))
            file.write(content + crc32c(content).to_bytes(4, "little"))
    return path


def tf_slim(image: bytes, label: int, synset: str = "", name: str = "") -> bytes:
    """As build_imagenet_data.py writes it."""
    features = {
        "image/height": 80,
        "image/format": b"JPEG",
        "image/encoded": image,
        "image/class/label": label,
    }
    if synset:
        features["image/class/synset"] = synset.encode()
    if name:
        features["image/filename"] = name.encode()
    return example(features)


def tfds(image: bytes, label: int, name: str) -> bytes:
    return example({"file_name": name.encode(), "image": image, "label": label})
