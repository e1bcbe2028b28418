"""The network as Keras 3's configuration: what a .keras file has in its config.json.

All layers are built-in ones, so no custom objects are needed. They are called after
TF-Slim's scopes and ops, with "-" between the parts: "/" and "." are not allowed in names
on all of Keras's backends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from exporters.network.graphs import HUB_MOMENTUM
from exporters.network.inception_resnet_v2 import (
    BATCH_NORM_EPSILON,
    DROPOUT_KEEP_PROBABILITY,
    WEIGHT_DECAY,
)
from exporters.network.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    Layer,
    Network,
    Pool,
    Softmax,
    inputs_of,
)

IMAGES = "images"
FEATURES = "Logits-Flatten-flatten-Reshape"
"""The layer that gives feature vectors, before dropout."""

_SCOPE = "InceptionResnetV2/"
_DROPOUT = "Logits-Dropout"


def of_network(network: Network, name: str) -> dict[str, Any]:
    """Returns the configuration of a functional model.

    Its input is float32 [batch, height, width, 3] in [0, 1], of any height and width;
    its output is that of the last layer.

    Args:
      network: all its layers.
      name: of the model.
    """
    model = _Model()
    black_to_white = {"scale": 2.0, "offset": -1.0}
    x = model.add("Rescaling", "images_to_network", [IMAGES], 3, **black_to_white)
    names = {network.input: x}
    shapes = network.shapes((299, 299))
    for layer in network.layers:
        inputs = [names[name] for name in inputs_of(layer)]
        channels = shapes[layer.name][-1]
        x = names[layer.name] = _add(model, layer, inputs, channels)
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": name,
            "trainable": True,
            "layers": model.layers,
            "input_layers": [IMAGES, 0, 0],
            "output_layers": [x, 0, 0],
        },
        "registered_name": "Functional",
        "build_config": {"input_shape": None},
    }


def _add(model: _Model, layer: Layer, inputs: list[str], channels: int) -> str:
    """Adds what a layer is in Keras; returns the name of the last of it."""
    name = _name(layer.name)
    match layer:
        case Conv(scope=scope):
            scope = _name(scope)
            weights = {} if layer.normalized else {"bias_regularizer": _L2}
            x = model.add(
                "Conv2D",
                scope,
                inputs,
                channels,
                filters=channels,
                kernel_size=list(layer.window),
                strides=[layer.stride, layer.stride],
                padding=layer.padding.lower(),
                data_format="channels_last",
                use_bias=not layer.normalized,
                kernel_regularizer=_L2,
                **weights,
            )
            if layer.normalized:
                x = model.add(
                    "BatchNormalization",
                    f"{scope}-BatchNorm",
                    [x],
                    channels,
                    axis=-1,
                    momentum=HUB_MOMENTUM,
                    epsilon=BATCH_NORM_EPSILON,
                    center=True,
                    scale=False,
                )
            if layer.scale != 1:
                scale = {"scale": layer.scale, "offset": 0.0}
                x = model.add("Rescaling", f"{scope}-mul", [x], channels, **scale)
            return model.rectify(x, name, channels) if layer.relu else x
        case Pool(kind=kind):
            return model.add(
                "MaxPooling2D" if kind == "max" else "AveragePooling2D",
                name,
                inputs,
                channels,
                pool_size=list(layer.window),
                strides=[layer.stride, layer.stride],
                padding=layer.padding.lower(),
                data_format="channels_last",
            )
        case Concat():
            return model.add("Concatenate", name, inputs, channels, axis=-1)
        case Add(relu=relu):
            sum_ = f"{name.removesuffix('-Relu')}-add" if relu else name
            x = model.add("Add", sum_, inputs, channels)
            return model.rectify(x, name, channels) if relu else x
        case GlobalMean():
            return model.add(
                "GlobalAveragePooling2D",
                name,
                inputs,
                channels,
                data_format="channels_last",
                keepdims=True,
            )
        case Flatten():
            return model.add(
                "Flatten", name, inputs, channels, data_format="channels_last"
            )
        case Dense(scope=scope):
            rate = 1 - DROPOUT_KEEP_PROBABILITY
            features = model.shapes[inputs[0]][-1]
            x = model.add("Dropout", _DROPOUT, inputs, features, rate=round(rate, 3))
            return model.add(
                "Dense",
                _name(scope),
                [x],
                channels,
                units=channels,
                use_bias=True,
                kernel_regularizer=_L2,
                bias_regularizer=_L2,
            )
        case Softmax():
            return model.add("Softmax", name, inputs, channels)
        case _:
            assert_never(layer)


def _name(scope: str) -> str:
    """A name that starts with the network's scope, once or twice, without that."""
    parts = scope.removeprefix(_SCOPE).removeprefix(_SCOPE)
    return parts.replace("/", "-")


_L2 = {
    "module": "keras.regularizers",
    "class_name": "L2",
    # Of the sum of squares; TF-Slim takes the half of it.
    "config": {"l2": WEIGHT_DECAY / 2},
    "registered_name": None,
}


class _Model:
    """Layers in the making, as entries of a functional model's configuration."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[Any]] = {IMAGES: [None, None, None, 3]}
        shape = {"batch_shape": self.shapes[IMAGES], "dtype": "float32"}
        self.layers = [_entry("InputLayer", IMAGES, shape, [])]

    def add(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        channels: int,
        **config: Any,
    ) -> str:
        """Adds a layer and returns its name."""
        tensors = [
            {
                "class_name": "__keras_tensor__",
                "config": {
                    "shape": self.shapes[source],
                    "dtype": "float32",
                    "keras_history": [source, 0, 0],
                },
            }
            for source in inputs
        ]
        merges = kind in ("Add", "Concatenate")
        node: dict[str, Any] = {"args": [tensors] if merges else tensors, "kwargs": {}}
        config = {"trainable": True, "dtype": "float32", **config}
        self.layers.append(_entry(kind, name, config, [node]))
        is_flat = kind in ("Flatten", "Dropout", "Dense", "Softmax")
        self.shapes[name] = [None, *([] if is_flat else [None, None]), channels]
        return name

    def rectify(self, x: str, name: str, channels: int) -> str:
        return self.add("Activation", name, [x], channels, activation="relu")


def _entry(
    kind: str, name: str, config: dict[str, Any], nodes: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": nodes,
    }
