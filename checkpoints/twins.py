"""Where the network's twins in other libraries keep its variables.

Keras Applications and timm have the same network, written by others, and call its parts
by other names. `data/twins.tsv` has a row for each layer that has weights:

    scope     of its variables, in TF-Slim
    layer     position in `keras.applications.InceptionResNetV2().layers`
    norm      that of the batch norm after it, if there is one
    Keras     name of the layer in a first model of a process
    timm      path of the module in `timm.create_model("inception_resnet_v2")`
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

TIMM_COUNTER = ".bn.num_batches_tracked"
"""How a name ends that says how long a batch norm of timm was trained."""

_NORM_VARIABLES = ("beta", "moving_mean", "moving_variance")
"""In Keras's order."""
_TIMM_NORM = {"beta": "bias", "moving_mean": "running_mean"} | {
    "moving_variance": "running_var"
}


@dataclasses.dataclass(frozen=True)
class KerasLayer:
    """A layer with weights of Keras's network.

    Attributes:
      name: in a first model of a process; models after that count on.
      kind: its class, as files of Keras 3's write it.
      number: how many of that class come before it in `model.layers`.
      variables: names in TF-Slim's definition, in Keras's order.
    """

    name: str
    kind: str
    number: int
    variables: tuple[str, ...]

    @property
    def places(self) -> dict[str, str]:
        """Name of each variable -> its path in a file of Keras 3's."""
        group = f"{self.kind}_{self.number}" if self.number else self.kind
        return {
            name: f"layers/{group}/vars/{number}"
            for number, name in enumerate(self.variables)
        }


@dataclasses.dataclass(frozen=True)
class _Row:
    scope: str
    layer: int
    norm: int | None
    keras: str
    timm: str


@functools.cache
def _rows() -> tuple[_Row, ...]:
    text = (importlib.resources.files("checkpoints") / "data/twins.tsv").read_text()
    rows = []
    for line in text.splitlines():
        scope, layer, norm, keras, timm = line.split("\t")
        rows.append(_Row(scope, int(layer), int(norm) if norm else None, keras, timm))
    return tuple(rows)


@functools.cache
def keras_layers() -> tuple[KerasLayer, ...]:
    """Returns the layers with weights, in the order of `model.layers`."""
    found: list[tuple[int, str, str, tuple[str, ...]]] = []
    for row in _rows():
        kind = "dense" if row.keras == "predictions" else "conv2d"
        own = ["weights"] if row.norm is not None else ["weights", "biases"]
        variables = tuple(f"{row.scope}/{name}" for name in own)
        found.append((row.layer, kind, row.keras, variables))
        if row.norm is not None:
            name = row.keras.replace("conv2d", "batch_normalization")
            name = name if name != row.keras else f"{name}_bn"
            variables = tuple(f"{row.scope}/BatchNorm/{n}" for n in _NORM_VARIABLES)
            found.append((row.norm, "batch_normalization", name, variables))
    layers = []
    counts: dict[str, int] = {}
    for _, kind, name, variables in sorted(found):
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        layers.append(KerasLayer(name, kind, number, variables))
    return tuple(layers)


@functools.cache
def timm_names() -> Mapping[str, str]:
    """Returns name of a variable in TF-Slim's definition -> name in timm's state dict."""
    names = {}
    for row in _rows():
        if row.norm is None:
            names[f"{row.scope}/weights"] = f"{row.timm}.weight"
            names[f"{row.scope}/biases"] = f"{row.timm}.bias"
            continue
        names[f"{row.scope}/weights"] = f"{row.timm}.conv.weight"
        for name, theirs in _TIMM_NORM.items():
            names[f"{row.scope}/BatchNorm/{name}"] = f"{row.timm}.bn.{theirs}"
    return MappingProxyType(names)


@functools.cache
def timm_gammas() -> Mapping[str, str]:
    """Returns name of a batch norm's gamma in timm -> scope of the layer in TF-Slim."""
    return MappingProxyType(
        {f"{row.timm}.bn.weight": row.scope for row in _rows() if row.norm is not None}
    )


def to_torch(values: np.ndarray) -> np.ndarray:
    """Returns a variable of TensorFlow's layout in PyTorch's.

    Kernels [height, width, inputs, outputs] become [outputs, inputs, height, width],
    matrices [inputs, outputs] their transpose; vectors stay.
    """
    return values.transpose(np.argsort(axes_from_torch(values.ndim)))


def from_torch(values: np.ndarray) -> np.ndarray:
    """Returns a variable of PyTorch's layout in TensorFlow's; see `to_torch`."""
    return values.transpose(axes_from_torch(values.ndim))


def axes_from_torch(rank: int) -> tuple[int, ...]:
    """Returns the axes of PyTorch's layout in the order of TensorFlow's."""
    return (2, 3, 1, 0) if rank == 4 else tuple(reversed(range(rank)))
