"""The whole network with a quarter of its channels: all layers, and small files.

Its structure is the real one's, so that other tools' converters can be given it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from checkpoints.reader import Checkpoint
from exporters.identifying import networks
from exporters.network import layers
from exporters.network.layers import Conv, Network

NARROWER = 4
CLASSES = 11
BACKGROUND = 1
"""Classes before the first that other libraries have."""
_MADE = layers.inception_resnet_v2


def network(num_classes: int | None = CLASSES, *, auxiliary_head: bool = False):
    """The network, narrower; what takes the place of the real one."""
    whole = _MADE(num_classes, auxiliary_head=auxiliary_head)
    made = tuple(
        dataclasses.replace(layer, channels=layer.channels // NARROWER)
        if isinstance(layer, Conv)
        else layer
        for layer in whole.layers
    )
    return Network(whole.input, made, whole.endpoints)


def install(monkeypatch) -> None:
    """Puts it in the place of the real one."""
    monkeypatch.setattr(layers, "inception_resnet_v2", network)
    for function in (networks.known, networks.auxiliary_only):
        monkeypatch.setattr(networks, function.__name__, function.__wrapped__)


def checkpoint(seed: int = 0, auxiliary_head: bool = True) -> Checkpoint:
    """Variables as somebody might have trained them: kernels have means."""
    random = np.random.default_rng(seed)
    whole = network(auxiliary_head=auxiliary_head)
    shapes = whole.shapes((299, 299))
    made: dict[str, np.ndarray] = {}
    for layer in whole.weighted:
        inputs, outputs = shapes[layer.input][-1], shapes[layer.name][-1]
        window = layer.window if isinstance(layer, Conv) else ()
        shape = (*window, inputs, outputs)
        deviation = 1 / np.sqrt(np.prod(shape[:-1]))
        made[f"{layer.scope}/weights"] = random.normal(
            0.1 * deviation, deviation, shape
        )
        if isinstance(layer, Conv) and layer.normalized:
            norm = f"{layer.scope}/BatchNorm"
            made[f"{norm}/beta"] = random.normal(0, 0.3, outputs)
            made[f"{norm}/moving_mean"] = random.normal(0, 0.3, outputs)
            made[f"{norm}/moving_variance"] = random.uniform(0.2, 2, outputs)
        else:
            made[f"{layer.scope}/biases"] = random.normal(0, 0.1, outputs)
    return of({name: values.astype(np.float32) for name, values in made.items()})


def of(variables: Mapping[str, np.ndarray]) -> Checkpoint:
    """A checkpoint of the network's variables."""
    found = Checkpoint(variables, path=Path("folder/narrow.ckpt"))
    found.num_classes = CLASSES
    found.has_auxiliary_head = any("/AuxLogits/" in name for name in variables)
    return found
