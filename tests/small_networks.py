"""Networks of a few layers, and what TensorFlow computes with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporters.network.folding import Weights
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
)

SIZE = (9, 11)
"""Height and width of the images."""


def network(*layers: Layer, **endpoints: str) -> Network:
    """A network whose last layer is the endpoint "out"."""
    return Network("in", layers, endpoints | {"out": layers[-1].name})


def conv(name: str, x: str, channels: int = 5, window=(3, 3), **options) -> Conv:
    """A convolution, not rectified unless options say so, with a scope of its own."""
    options = {"normalized": False, "relu": False} | options
    return Conv(name, x, f"scope/{name}", channels, window, **options)


_HEAD = (
    GlobalMean("mean", "in"),
    Flatten("flat", "mean"),
    Dense("logits", "flat", "scope/logits", 6),
)
ONE_OR_TWO_LAYERS = {
    "convolution, VALID": network(conv("a", "in", padding="VALID")),
    "convolution, VALID, stride": network(conv("a", "in", padding="VALID", stride=2)),
    "convolution, SAME": network(conv("a", "in")),
    "convolution, SAME, 1 x 7": network(conv("a", "in", window=(1, 7))),
    "convolution, SAME, 5 x 3": network(conv("a", "in", window=(5, 3))),
    "convolution, rectified": network(conv("a/Relu", "in", relu=True)),
    "convolution, normalized": network(
        conv("a/Relu", "in", normalized=True, relu=True)
    ),
    "two convolutions": network(
        conv("a/Relu", "in", relu=True), conv("b", "a/Relu", 4)
    ),
    "max pooling, VALID": network(Pool("a", "in", "max", (3, 3), 2, "VALID")),
    "max pooling, SAME": network(Pool("a", "in", "max", (3, 3), 1, "SAME")),
    "average pooling, SAME": network(Pool("a", "in", "average", (3, 3), 1, "SAME")),
    "average pooling, VALID": network(Pool("a", "in", "average", (2, 4), 2, "VALID")),
    "global mean": network(GlobalMean("a", "in")),
    "concatenation": network(conv("a", "in"), Concat("b", ("in", "a", "in"))),
    "sum": network(conv("a", "in", 3), Add("b", ("in", "a"), relu=False)),
    "sum, rectified": network(
        conv("a", "in", 3), Add("b/Relu", ("a", "in"), relu=True)
    ),
    "features": network(*_HEAD[:2]),
    "classifier": network(*_HEAD),
    "probabilities": network(*_HEAD, Softmax("probabilities", "logits")),
}


def residual_block() -> Network:
    """A block as the real network has them, with both poolings, a head and classes."""
    relu = {"normalized": True, "relu": True}
    return network(
        conv("first/Relu", "in", 16, padding="VALID", **relu),
        Pool("max", "first/Relu", "max", (3, 3), 1, "SAME"),
        conv("left/Relu", "max", 8, (1, 1), **relu),
        Pool("average", "first/Relu", "average", (3, 3), 1, "SAME"),
        conv("right/Relu", "average", 4, **relu),
        Concat("joined", ("left/Relu", "right/Relu")),
        conv("up", "joined", 16, (1, 1), scale=0.5),
        Add("sum/Relu", ("first/Relu", "up"), relu=True),
        GlobalMean("head/mean", "sum/Relu"),
        Flatten("head/features", "head/mean"),
        Dense("head/logits", "head/features", "scope/logits", 6),
        Softmax("head/probabilities", "head/logits"),
        Conv2d_1a_3x3="first/Relu",
        global_pool="head/mean",
        PreLogitsFlatten="head/features",
        Logits="head/logits",
        Predictions="head/probabilities",
    )


def weights(network: Network, seed: int = 0) -> dict[str, Weights]:
    """Random weights that keep the size of activations, by scope."""
    random = np.random.default_rng(seed)
    made = {}
    channels = {name: shape[-1] for name, shape in network.shapes(SIZE).items()}
    for layer in network.weighted:
        window = layer.window if isinstance(layer, Conv) else ()
        shape = (*window, channels[layer.input], channels[layer.name])
        kernel = random.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        bias = random.normal(size=shape[-1]) / 4
        made[layer.scope] = Weights(kernel.astype("f"), bias.astype("f"))
    return made


def images(count: int = 2, seed: int = 0) -> np.ndarray:
    """Images of noise, float32 [count, height, width, 3] in [0, 1]."""
    random = np.random.default_rng(seed)
    return random.uniform(size=(count, *SIZE, 3)).astype(np.float32)


def run(
    network: Network, weights: Mapping[str, Weights], images: np.ndarray
) -> dict[str, np.ndarray]:
    """What TensorFlow computes: name of the input or of a layer -> its output."""
    import tensorflow as tf

    values = {network.input: tf.constant(images)}
    for layer in network.layers:
        values[layer.name] = run_layer(layer, values, weights)
    return {name: value.numpy() for name, value in values.items()}


def run_layer(layer, values, weights):
    """What TensorFlow computes as the output of a layer, given all before it."""
    import tensorflow as tf

    match layer:
        case Conv(input=x, scope=scope):
            of = weights[scope]
            product = tf.nn.conv2d(values[x], of.kernel, layer.stride, layer.padding)
            return _rectified(product + of.bias, layer)
        case Pool(input=x, kind=kind):
            pool = tf.nn.max_pool2d if kind == "max" else tf.nn.avg_pool2d
            return pool(values[x], layer.window, layer.stride, layer.padding)
        case Concat(inputs=inputs):
            return tf.concat([values[x] for x in inputs], axis=3)
        case Add(inputs=(a, b)):
            return _rectified(values[a] + values[b], layer)
        case GlobalMean(input=x):
            return tf.reduce_mean(values[x], [1, 2], keepdims=True)
        case Flatten(input=x):
            return tf.squeeze(values[x], [1, 2])
        case Dense(input=x, scope=scope):
            return values[x] @ weights[scope].kernel + weights[scope].bias
        case Softmax(input=x):
            return tf.nn.softmax(values[x])
    raise AssertionError(f"{layer} is of no known kind")


def _rectified(values, layer: Conv | Add):
    import tensorflow as tf

    return tf.nn.relu(values) if layer.relu else values


BLOCK = residual_block()
