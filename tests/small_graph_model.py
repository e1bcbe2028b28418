"""A TF.js model of a network that has a layer of every kind, and is small and quick."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import numpy as np

from exporters.containers.tfjs import container
from exporters.formats import FORMATS
from exporters.network import layers
from exporters.network.folding import Weights
from exporters.network.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    Network,
    Pool,
)
from exporters.network.tasks import CLASSIFICATION, Task
from exporters.record import Record

OPS = "InceptionResnetV2/InceptionResnetV2"
HEAD = "InceptionResnetV2/Logits"
LABELS = ("background", "daisy", "rose", "<b>tulip</b>", "Ümlaut")
FIRST = f"{OPS}/Conv2d_1a_3x3/Relu"
SCOPE = f"{OPS}/Block8/Conv2d_1x1"
RESIDUAL = f"{SCOPE}/BiasAdd"


def network(num_classes: int = len(LABELS)) -> Network:
    """The network, up to the logits."""
    flat = f"{HEAD}/Flatten/flatten/Reshape"
    made = (
        Conv(FIRST, layers.IMAGES, f"{OPS}/Conv2d_1a_3x3", 6, (3, 3), 2, "VALID"),
        Pool(f"{OPS}/Max", FIRST, "max", (3, 3), 2, "VALID"),
        Pool(f"{OPS}/Average", f"{OPS}/Max", "average", (3, 3), 1, "SAME"),
        Concat(f"{OPS}/concat", (f"{OPS}/Max", f"{OPS}/Average")),
        Conv(RESIDUAL, f"{OPS}/concat", SCOPE, 12, (1, 1), relu=False),
        Add(f"{OPS}/Block8/Relu", (f"{OPS}/concat", RESIDUAL), True),
        Add(f"{OPS}/Last/add", (f"{OPS}/Block8/Relu", RESIDUAL), False),
        GlobalMean(f"{HEAD}/global_pool", f"{OPS}/Last/add"),
        Flatten(flat, f"{HEAD}/global_pool"),
        Dense(f"{HEAD}/Logits/BiasAdd", flat, f"{HEAD}/Logits", num_classes),
    )
    endpoints = {
        "Conv2d_1a_3x3": FIRST,
        "PreLogitsFlatten": flat,
        "Logits": f"{HEAD}/Logits/BiasAdd",
    }
    return Network(layers.IMAGES, made, endpoints)


def weights(num_classes: int = len(LABELS)) -> dict[str, Weights]:
    """Random ones, by scope."""
    random = np.random.default_rng(0)
    of = network(num_classes)
    shapes = of.shapes((299, 299))
    made = {}
    for layer in of.weighted:
        kernel = (shapes[layer.input][-1], shapes[layer.name][-1])
        if isinstance(layer, Conv):
            kernel = (*layer.window, *kernel)
        made[layer.scope] = Weights(
            random.normal(size=kernel).astype(np.float32),
            random.normal(size=kernel[-1]).astype(np.float32),
        )
    return made


def write(
    path: Path,
    name: str = "tfjs-v3",
    task: Task = CLASSIFICATION,
    *,
    is_stand_in: bool = True,
    num_classes: int = len(LABELS),
) -> Path:
    """Writes a model, as the format of a name; with labels, if it has some."""
    build: Any = types.SimpleNamespace(
        network=network(num_classes),
        weights=lambda: weights(num_classes),
        labels=LABELS if num_classes == len(LABELS) else None,
    )
    provenance = "stand-in" if is_stand_in else "unverified"
    record = Record(name, task.name, "0" * 64, provenance, is_stand_in, num_classes)
    container.write(build, FORMATS[name].variant, task, record, path)
    return path


def content(path: Path) -> dict[str, Any]:
    """What model.json says."""
    return json.loads((path / "model.json").read_text(encoding="utf-8"))


def outputs(images: np.ndarray, task: Task) -> np.ndarray:
    """What the network computes, by TensorFlow's own functions."""
    import tensorflow as tf

    made = weights()

    def conv(x, scope, **options):
        part = made[f"{OPS}/{scope}"]
        return tf.nn.conv2d(x, part.kernel, **options) + part.bias

    x = tf.nn.relu(conv(images, "Conv2d_1a_3x3", strides=2, padding="VALID"))
    x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    x = tf.concat([x, tf.nn.avg_pool2d(x, 3, 1, "SAME")], 3)
    residual = conv(x, "Block8/Conv2d_1x1", strides=1, padding="SAME")
    x = tf.nn.relu(x + residual) + residual
    features = tf.reduce_mean(x, [1, 2])
    if task is not CLASSIFICATION:
        return features.numpy()
    dense = made[f"{HEAD}/Logits"]
    return (features @ dense.kernel + dense.bias).numpy()
