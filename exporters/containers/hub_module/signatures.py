"""The signatures of a module, compared with the one that its outputs are taken from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from exporters.containers.hub_module.published_graphs import (
    DEFAULT,
    MOMENTUM_INPUT,
    NAMED_SIGNATURES,
    WITH_MOMENTUM,
)
from exporters.containers.hub_module.versions import ModuleVersion
from exporters.network.tasks import FEATURE_VECTOR, Task

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf


def problems(
    meta_graph: tf.MetaGraphDef, version: ModuleVersion, task: Task
) -> list[str]:
    """Says in words what is wrong with the signatures of a graph.

    A signature that has the tensors of another computes the same, so it is enough to run
    one: all must have the images and outputs of the task's own, but for the main output
    of "image_feature_vector"; and those with momentum have what feeds the updates.

    Args:
      meta_graph: with the task's own signature, and its outputs.
      version: what the module says it is.
      task: what it is for.
    """
    signatures = {
        name: _tensors(signature)
        for name, signature in meta_graph.signature_def.items()
    }
    own = NAMED_SIGNATURES[task]
    features = NAMED_SIGNATURES[FEATURE_VECTOR]
    inputs, outputs = signatures[own]
    expected: dict[str, tuple[dict, dict]] = {
        DEFAULT: (inputs, {DEFAULT: outputs[DEFAULT]}),
        own: (inputs, outputs),
    }
    main = signatures.get(features, ({}, {}))[1].get(DEFAULT)
    expected[features] = inputs, outputs | {DEFAULT: main}
    if version.takes_momentum:
        with_momentum = inputs | {MOMENTUM_INPUT: f"{MOMENTUM_INPUT}:0"}
        for name in (own, features):
            expected[name + WITH_MOMENTUM] = with_momentum, expected[name][1]
    found = [
        f"signature {name}: {'missing' if name not in signatures else 'unexpected'}"
        for name in sorted(expected.keys() ^ signatures.keys())
    ]
    found += [
        f"signature {name}: other tensors than those of {own}"
        for name in sorted(expected.keys() & signatures.keys())
        if signatures[name] != expected[name]
    ]
    momentum = _default_momentum(meta_graph)
    if momentum != np.float32(version.momentum):
        found.append(f"momentum {momentum}, expected {version.momentum}")
    return found


def _tensors(signature: tf.SignatureDef) -> tuple[dict[str, str], dict[str, str]]:
    def names(tensors: Mapping) -> dict[str, str]:
        return {key: info.name for key, info in tensors.items()}

    return names(signature.inputs), names(signature.outputs)


def _default_momentum(meta_graph: tf.MetaGraphDef) -> float | None:
    """The momentum unless a consumer gives one, None where no op tells."""
    import tensorflow as tf

    nodes = {node.name: node for node in meta_graph.graph_def.node}
    given = nodes.get(MOMENTUM_INPUT)
    default = nodes.get(given.input[0]) if given and given.input else None
    if default is None or default.op != "Const":
        return None
    values = tf.make_ndarray(default.attr["value"].tensor)
    return values.item() if values.shape == () else None
