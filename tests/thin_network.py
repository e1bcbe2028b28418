"""The network with one block of each kind and a fraction of its channels.

Every format, and every command, works with it as with the real network, TF-Slim's
definition included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import layout, twins
from exporters import second_process
from exporters.identifying import networks
from exporters.network import inception_resnet_v2 as definition
from exporters.network import layers
from exporters.network.layers import Add, Concat, Conv, Network
from exporters.network.tf_slim_compat import import_tf_slim

THINNER = 8
"""Each artifact then has less than a megabyte, and is made in a second."""
CLASSES = 1001
_WHOLE = layers.inception_resnet_v2
_REPEATED = re.compile(r"(block(?:35|17|8))_\d+")
_ROWS = twins._rows


def network(num_classes: int | None = CLASSES, *, auxiliary_head: bool = False):
    """The list of layers; what takes the place of the real one."""
    whole = _WHOLE(num_classes, auxiliary_head=auxiliary_head)
    made: dict[str, Any] = {}
    for layer in whole.layers:
        changes: dict[str, Any] = {"name": _first(layer.name)}
        if isinstance(layer, Add | Concat):
            changes["inputs"] = tuple(map(_first, layer.inputs))
        else:
            changes["input"] = _first(layer.input)
        if isinstance(layer, Conv):
            changes["scope"] = _first(layer.scope)
            changes["channels"] = layer.channels // THINNER
        made.setdefault(changes["name"], dataclasses.replace(layer, **changes))
    endpoints = {name: _first(layer) for name, layer in whole.endpoints.items()}
    return Network(whole.input, tuple(made.values()), endpoints)


def _first(name: str) -> str:
    """The first of repeated blocks in the place of each."""
    return _REPEATED.sub(r"\1_1", name)


@functools.cache
def variable_shapes() -> Mapping[str, tuple[int, ...]]:
    """Name -> shape of the variables, with the auxiliary head."""
    whole = network(auxiliary_head=True)
    channels = {n: shape[-1] for n, shape in whole.shapes((299, 299)).items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in whole.weighted:
        window = layer.window if isinstance(layer, Conv) else ()
        size = channels[layer.name]
        shapes[f"{layer.scope}/weights"] = (*window, channels[layer.input], size)
        if isinstance(layer, Conv) and layer.normalized:
            for name in ("beta", "moving_mean", "moving_variance"):
                shapes[f"{layer.scope}/BatchNorm/{name}"] = (size,)
        else:
            shapes[f"{layer.scope}/biases"] = (size,)
    return types.MappingProxyType(shapes)


def _rows() -> tuple[twins._Row, ...]:
    scopes = {layer.scope for layer in network(auxiliary_head=True).weighted}
    return tuple(row for row in _ROWS() if row.scope in scopes)


@functools.cache
def _slim() -> Any:
    """TF-Slim, which repeats blocks once and makes few channels."""
    slim = import_tf_slim()

    @slim.add_arg_scope
    def conv2d(x, channels, window, **options):
        if options.get("normalizer_fn", ...) is not None:  # None for projections.
            channels //= THINNER
        return slim.conv2d(x, channels, window, **options)

    def repeat(x, times, *arguments, **options):
        return slim.repeat(x, 1, *arguments, **options)

    return types.SimpleNamespace(**{**vars(slim), "conv2d": conv2d, "repeat": repeat})


def install(monkeypatch: Any, thinner: int = THINNER) -> None:
    """Puts it in the place of the real one, wherever that is looked up.

    Args:
      monkeypatch: pytest's, or something with its `setattr`.
      thinner: what to divide the numbers of channels by.
    """
    # Which would have the real network.
    monkeypatch.setattr(second_process, "is_possible", lambda: False)
    this = sys.modules[__name__]
    monkeypatch.setattr(this, "THINNER", thinner)
    for name in ("variable_shapes", "_slim"):
        uncached = getattr(this, name).__wrapped__
        monkeypatch.setattr(this, name, functools.cache(uncached))
    monkeypatch.setattr(layers, "inception_resnet_v2", network)
    monkeypatch.setattr(definition, "import_tf_slim", _slim)
    monkeypatch.setattr(layout, "variable_shapes", variable_shapes)
    monkeypatch.setattr(twins, "_rows", _rows)
    for module, names in {
        twins: ("keras_layers", "timm_names", "timm_gammas"),
        networks: ("known", "auxiliary_only"),
    }.items():
        for name in names:
            uncached = getattr(module, name).__wrapped__
            monkeypatch.setattr(module, name, functools.cache(uncached))


def install_for_good() -> None:
    """Does so for the rest of the process."""
    install(types.SimpleNamespace(setattr=setattr))


@contextlib.contextmanager
def installed(thinner: int = THINNER) -> Iterator[None]:
    """Puts it in the place of the real one for a while."""
    import pytest  # Which programs that have the network for good do not need.

    with pytest.MonkeyPatch.context() as patch:
        install(patch, thinner)
        yield


def variables(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights as somebody might have trained them: kernels have means."""
    random = np.random.default_rng(seed)
    made = {}
    for name, shape in variable_shapes().items():
        if name.endswith("weights"):
            deviation = np.sqrt(2 / np.prod(shape[:-1]))
            values = random.normal(0.02 * deviation, deviation, shape)
        elif name.endswith("moving_variance"):
            values = random.uniform(0.5, 1.5, shape)
        else:
            values = random.normal(0, 0.1, shape)
        made[name] = values.astype(np.float32)
    return made


def write(path: Path, seed: int = 0) -> Path:
    """Writes a V1 checkpoint."""
    from checkpoints import saved_slices

    with path.open("wb") as file:
        saved_slices.write(dict(sorted(variables(seed).items())), file)
    return path
