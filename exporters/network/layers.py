"""Inception-ResNet-v2 as data: a list of layers, the source of every deployable format.

The list is written down directly, without TensorFlow, and holds no weights: a layer says
by its scope which variables of the checkpoint are its own, `exporters.network.folding`
makes its kernel and bias of them. A format is one `match` over the kinds of layers.

TF-Slim's definition (`exporters.network.inception_resnet_v2`) is independent of it. Each
layer has the name of the op of TF-Slim's graph that computes the same values, by which
the two are compared, in the tests op by op, and at every export by their numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import numpy as np

Padding = Literal["SAME", "VALID"]
Window = tuple[int, int]
"""Height and width."""

IMAGES = "hub_input/images"
NUM_CLASSES = 1001
NUM_FEATURES = 1536

_SCOPE = "InceptionResnetV2"
_CLASSIFIER = f"{_SCOPE}/Logits/"
_OPS = "InceptionResnetV2/InceptionResnetV2"
_REPEATED = ("Repeat", "Repeat_1", "Repeat_2")
"""Scopes of blocks."""


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with bias.

    Attributes:
      name: of its output, as of all layers.
      input: name of the layer it reads, or of the network's input.
      scope: of its variables in the checkpoint.
      channels: of its output.
      window: of the kernel.
      stride: the same in both directions.
      padding: as TensorFlow's.
      normalized: whether batch norm without gamma follows; a bias otherwise.
      relu: whether the output is rectified.
      scale: what the output is multiplied by, before the network adds it to something.
    """

    name: str
    input: str
    scope: str
    channels: int
    window: Window
    stride: int = 1
    padding: Padding = "SAME"
    normalized: bool = True
    relu: bool = True
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Pool:
    """The maximum or average of each window; padding does not count."""

    name: str
    input: str
    kind: Literal["max", "average"]
    window: Window
    stride: int
    padding: Padding


@dataclasses.dataclass(frozen=True)
class Concat:
    """Its inputs' channels, one after the other."""

    name: str
    inputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Add:
    """The sum of two inputs, rectified or not."""

    name: str
    inputs: tuple[str, str]
    relu: bool


@dataclasses.dataclass(frozen=True)
class GlobalMean:
    """The mean over height and width, which both become 1."""

    name: str
    input: str


@dataclasses.dataclass(frozen=True)
class Flatten:
    """[batch, 1, 1, channels] as [batch, channels]."""

    name: str
    input: str


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer with bias; `scope` is that of its variables."""

    name: str
    input: str
    scope: str
    units: int


@dataclasses.dataclass(frozen=True)
class Softmax:
    """Probabilities of logits."""

    name: str
    input: str


Layer = Conv | Pool | Concat | Add | GlobalMean | Flatten | Dense | Softmax


def inputs_of(layer: Layer) -> tuple[str, ...]:
    """Returns the names of what a layer reads."""
    return layer.inputs if isinstance(layer, Concat | Add) else (layer.input,)


@dataclasses.dataclass(frozen=True)
class Network:
    """Layers, each after those that it reads.

    Attributes:
      input: name of the images.
      layers: all of them.
      endpoints: TF-Slim's name of an endpoint -> name of the layer.
    """

    input: str
    layers: tuple[Layer, ...]
    endpoints: Mapping[str, str]

    @property
    def weighted(self) -> Iterator[Conv | Dense]:
        """The layers that have weights."""
        return (layer for layer in self.layers if isinstance(layer, Conv | Dense))

    @property
    def variables(self) -> Iterator[str]:
        """Names of the variables of its layers in the checkpoint."""
        for layer in self.weighted:
            yield f"{layer.scope}/weights"
            if isinstance(layer, Conv) and layer.normalized:
                for name in ("beta", "moving_mean", "moving_variance"):
                    yield f"{layer.scope}/BatchNorm/{name}"
            else:
                yield f"{layer.scope}/biases"

    @property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """The parts that TF-Slim names, in order: a block's name -> its layers' names.

        "block35_1" to "block35_10", "block17_1" to "block17_20", "block8_1" to "block8_9"
        and "Block8" are residual; the others are "Mixed_5b" and the like, and
        single layers.
        """
        found: dict[str, tuple[str, ...]] = {}
        for layer in self.layers:
            scopes = layer.name.removeprefix(f"{_OPS}/").removeprefix(
                f"{_SCOPE}/Logits/"
            )
            first, _, rest = scopes.partition("/")
            block = rest.partition("/")[0] if first in _REPEATED else first
            found[block] = (*found.get(block, ()), layer.name)
        return found

    @property
    def cuts(self) -> tuple[str, ...]:
        """Names of the layers whose output is all that what follows them reads.

        Behind each of these the network falls in two: the stem's layers, the ends of
        blocks, the head's layers, and the last one.
        """
        numbers = {layer.name: number for number, layer in enumerate(self.layers)}
        last_read = dict.fromkeys([self.input, *numbers], -1)
        for number, layer in enumerate(self.layers):
            for name in inputs_of(layer):
                last_read[name] = number
        found = []
        needed_until = last_read[self.input]
        for number, layer in enumerate(self.layers):
            if needed_until <= number:
                found.append(layer.name)
            needed_until = max(needed_until, last_read[layer.name])
        return tuple(found)

    def title(self, layer: str) -> str:
        """What to call a layer for people: the endpoint that it is, or its block."""
        block = layer.rpartition("/")[0].rpartition("/")[2]
        endpoint = next((e for e, of in self.endpoints.items() if of == layer), None)
        is_block = any(isinstance(x, Add) and x.name == layer for x in self.layers)
        if is_block and endpoint:
            return f"{block} ({endpoint})"
        return endpoint or block or layer

    def up_to(self, endpoints: Collection[str]) -> Network:
        """Returns the part of the network that some endpoints need."""
        needed = {self.endpoints[name] for name in endpoints}
        layers: list[Layer] = []
        for layer in reversed(self.layers):
            if layer.name in needed:
                needed.update(inputs_of(layer))
                layers.insert(0, layer)
        kept = {name: of for name, of in self.endpoints.items() if of in needed}
        return Network(self.input, tuple(layers), kept)

    def shapes(self, image_size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """Returns the shape of the input and of every layer, without the batch.

        Args:
          image_size: (height, width) in pixels.

        Returns:
          Name -> (height, width, channels), or (channels,) from `Flatten` on.
        """
        shapes: dict[str, tuple[int, ...]] = {self.input: (*image_size, 3)}
        for layer in self.layers:
            shape = shapes[inputs_of(layer)[0]]
            match layer:
                case Conv(channels=channels):
                    shape = (*_grid(shape, layer), channels)
                case Pool():
                    shape = (*_grid(shape, layer), shape[-1])
                case Concat(inputs=inputs):
                    channels = sum(shapes[name][-1] for name in inputs)
                    shape = (*shape[:-1], channels)
                case GlobalMean():
                    shape = (1, 1, shape[-1])
                case Flatten():
                    shape = shape[-1:]
                case Dense(units=units):
                    shape = (units,)
                case Add() | Softmax():
                    pass
            shapes[layer.name] = shape
        return shapes


def _grid(shape: tuple[int, ...], layer: Conv | Pool) -> Iterator[int]:
    """Height and width of what a window that moves over a shape gives."""
    for pixels, window in zip(shape[:2], layer.window, strict=True):
        lost = window - 1 if layer.padding == "VALID" else 0
        yield -(-(pixels - lost) // layer.stride)


def transpose(values: np.ndarray, source: str, target: str) -> np.ndarray:
    """Moves axes, named by letters, to where a format wants them.

    Args:
      values: of the layout `source`.
      source: a letter for each axis, such as "HWIO" (TensorFlow's kernels).
      target: the same letters in another order, such as "OIHW" (ONNX's kernels).
    """
    return values.transpose([source.index(axis) for axis in target])


def without_classes(
    variables: Mapping[str, np.ndarray], first: int
) -> dict[str, np.ndarray]:
    """Returns variables of a network without the classes before the `first`."""
    return {
        name: values[..., first:] if name.startswith(_CLASSIFIER) else values
        for name, values in variables.items()
    }


def inception_resnet_v2(
    num_classes: int | None = NUM_CLASSES, *, auxiliary_head: bool = False
) -> Network:
    """Returns the network.

    Comments give each layer's output at 299 x 299.

    Args:
      num_classes: width of the logits; None for no classifier.
      auxiliary_head: whether to add the classifier of the training loss, which only
        images of 299 x 299 fit. It needs classes.
    """
    net = _List()

    x = net.conv(IMAGES, "Conv2d_1a_3x3", 32, 3, 2, "VALID")  # 149 x 149 x 32
    net.endpoint("Conv2d_1a_3x3", x)
    x = net.conv(x, "Conv2d_2a_3x3", 32, 3, 1, "VALID")  # 147 x 147 x 32
    net.endpoint("Conv2d_2a_3x3", x)
    x = net.conv(x, "Conv2d_2b_3x3", 64, 3)  # 147 x 147 x 64
    net.endpoint("Conv2d_2b_3x3", x)
    x = net.max_pool(x, "MaxPool_3a_3x3")  # 73 x 73 x 64
    net.endpoint("MaxPool_3a_3x3", x)
    x = net.conv(x, "Conv2d_3b_1x1", 80, 1, 1, "VALID")  # 73 x 73 x 80
    net.endpoint("Conv2d_3b_1x1", x)
    x = net.conv(x, "Conv2d_4a_3x3", 192, 3, 1, "VALID")  # 71 x 71 x 192
    net.endpoint("Conv2d_4a_3x3", x)
    x = net.max_pool(x, "MaxPool_5a_3x3")  # 35 x 35 x 192
    net.endpoint("MaxPool_5a_3x3", x)

    b0 = net.conv(x, "Mixed_5b/Branch_0/Conv2d_1x1", 96, 1)
    b1 = net.conv(x, "Mixed_5b/Branch_1/Conv2d_0a_1x1", 48, 1)
    b1 = net.conv(b1, "Mixed_5b/Branch_1/Conv2d_0b_5x5", 64, 5)
    b2 = net.conv(x, "Mixed_5b/Branch_2/Conv2d_0a_1x1", 64, 1)
    b2 = net.conv(b2, "Mixed_5b/Branch_2/Conv2d_0b_3x3", 96, 3)
    b2 = net.conv(b2, "Mixed_5b/Branch_2/Conv2d_0c_3x3", 96, 3)
    b3 = net.average_pool(x, "Mixed_5b/Branch_3/AvgPool_0a_3x3")
    b3 = net.conv(b3, "Mixed_5b/Branch_3/Conv2d_0b_1x1", 64, 1)
    x = net.concat("Mixed_5b", b0, b1, b2, b3)  # 35 x 35 x 320
    net.endpoint("Mixed_5b", x)

    for number in range(1, 11):
        x = _block35(net, x, f"Repeat/block35_{number}")

    b0 = net.conv(x, "Mixed_6a/Branch_0/Conv2d_1a_3x3", 384, 3, 2, "VALID")
    b1 = net.conv(x, "Mixed_6a/Branch_1/Conv2d_0a_1x1", 256, 1)
    b1 = net.conv(b1, "Mixed_6a/Branch_1/Conv2d_0b_3x3", 256, 3)
    b1 = net.conv(b1, "Mixed_6a/Branch_1/Conv2d_1a_3x3", 384, 3, 2, "VALID")
    b2 = net.max_pool(x, "Mixed_6a/Branch_2/MaxPool_1a_3x3")
    x = net.concat("Mixed_6a", b0, b1, b2)  # 17 x 17 x 1088
    net.endpoint("Mixed_6a", x)

    for number in range(1, 21):
        x = _block17(net, x, f"Repeat_1/block17_{number}")
    net.endpoint("PreAuxLogits", x)

    b0 = net.conv(x, "Mixed_7a/Branch_0/Conv2d_0a_1x1", 256, 1)
    b0 = net.conv(b0, "Mixed_7a/Branch_0/Conv2d_1a_3x3", 384, 3, 2, "VALID")
    b1 = net.conv(x, "Mixed_7a/Branch_1/Conv2d_0a_1x1", 256, 1)
    b1 = net.conv(b1, "Mixed_7a/Branch_1/Conv2d_1a_3x3", 288, 3, 2, "VALID")
    b2 = net.conv(x, "Mixed_7a/Branch_2/Conv2d_0a_1x1", 256, 1)
    b2 = net.conv(b2, "Mixed_7a/Branch_2/Conv2d_0b_3x3", 288, 3)
    b2 = net.conv(b2, "Mixed_7a/Branch_2/Conv2d_1a_3x3", 320, 3, 2, "VALID")
    b3 = net.max_pool(x, "Mixed_7a/Branch_3/MaxPool_1a_3x3")
    x = net.concat("Mixed_7a", b0, b1, b2, b3)  # 8 x 8 x 2080
    net.endpoint("Mixed_7a", x)

    for number in range(1, 10):
        x = _block8(net, x, f"Repeat_2/block8_{number}", scale=0.20, relu=True)
    x = _block8(net, x, "Block8", scale=1.0, relu=False)

    x = net.conv(x, "Conv2d_7b_1x1", NUM_FEATURES, 1)  # 8 x 8 x 1536
    net.endpoint("Conv2d_7b_1x1", x)

    head = f"{_SCOPE}/Logits"
    x = net.add(GlobalMean(f"{head}/global_pool", x))
    net.endpoint("global_pool", x)
    x = net.add(Flatten(f"{head}/Flatten/flatten/Reshape", x))
    net.endpoint("PreLogitsFlatten", x)
    if num_classes:
        x = net.add(Dense(f"{head}/Logits/BiasAdd", x, f"{head}/Logits", num_classes))
        net.endpoint("Logits", x)
        x = net.add(Softmax(f"{head}/Predictions", x))
        net.endpoint("Predictions", x)
    if num_classes and auxiliary_head:
        _auxiliary_logits(net, net.endpoints["PreAuxLogits"], num_classes)
    return Network(IMAGES, tuple(net.layers), net.endpoints)


def _auxiliary_logits(net: _List, x: str, num_classes: int) -> None:
    """The auxiliary classifier, from 17 x 17 x 1088."""
    head = f"{_SCOPE}/AuxLogits"
    name = f"{head}/Conv2d_1a_3x3/AvgPool"  # 5 x 5 x 1088
    x = net.add(Pool(name, x, "average", (5, 5), 3, "VALID"))
    scope = f"{head}/Conv2d_1b_1x1"  # 5 x 5 x 128
    x = net.add(Conv(f"{scope}/Relu", x, scope, 128, (1, 1)))
    scope = f"{head}/Conv2d_2a_5x5"  # 1 x 1 x 768
    x = net.add(Conv(f"{scope}/Relu", x, scope, 768, (5, 5), 1, "VALID"))
    x = net.add(Flatten(f"{head}/Flatten/flatten/Reshape", x))
    x = net.add(Dense(f"{head}/Logits/BiasAdd", x, f"{head}/Logits", num_classes))
    net.endpoint("AuxLogits", x)


def _block35(net: _List, x: str, scope: str) -> str:
    """Inception-ResNet-A, the residual block of the 35 x 35 grid."""
    b0 = net.conv(x, f"{scope}/Branch_0/Conv2d_1x1", 32, 1)
    b1 = net.conv(x, f"{scope}/Branch_1/Conv2d_0a_1x1", 32, 1)
    b1 = net.conv(b1, f"{scope}/Branch_1/Conv2d_0b_3x3", 32, 3)
    b2 = net.conv(x, f"{scope}/Branch_2/Conv2d_0a_1x1", 32, 1)
    b2 = net.conv(b2, f"{scope}/Branch_2/Conv2d_0b_3x3", 48, 3)
    b2 = net.conv(b2, f"{scope}/Branch_2/Conv2d_0c_3x3", 64, 3)
    return net.residual(x, scope, (b0, b1, b2), 320, scale=0.17, relu=True)


def _block17(net: _List, x: str, scope: str) -> str:
    """Inception-ResNet-B, the residual block of the 17 x 17 grid."""
    b0 = net.conv(x, f"{scope}/Branch_0/Conv2d_1x1", 192, 1)
    b1 = net.conv(x, f"{scope}/Branch_1/Conv2d_0a_1x1", 128, 1)
    b1 = net.conv(b1, f"{scope}/Branch_1/Conv2d_0b_1x7", 160, (1, 7))
    b1 = net.conv(b1, f"{scope}/Branch_1/Conv2d_0c_7x1", 192, (7, 1))
    return net.residual(x, scope, (b0, b1), 1088, scale=0.10, relu=True)


def _block8(net: _List, x: str, scope: str, scale: float, relu: bool) -> str:
    """Inception-ResNet-C, the residual block of the 8 x 8 grid."""
    b0 = net.conv(x, f"{scope}/Branch_0/Conv2d_1x1", 192, 1)
    b1 = net.conv(x, f"{scope}/Branch_1/Conv2d_0a_1x1", 192, 1)
    b1 = net.conv(b1, f"{scope}/Branch_1/Conv2d_0b_1x3", 224, (1, 3))
    b1 = net.conv(b1, f"{scope}/Branch_1/Conv2d_0c_3x1", 256, (3, 1))
    return net.residual(x, scope, (b0, b1), 2080, scale=scale, relu=relu)


class _List:
    """Layers in the making. Each method adds one and returns its name."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.endpoints: dict[str, str] = {}

    def add(self, layer: Layer) -> str:
        self.layers.append(layer)
        return layer.name

    def endpoint(self, name: str, layer: str) -> None:
        self.endpoints[name] = layer

    def conv(
        self,
        x: str,
        scope: str,
        channels: int,
        window: int | Window,
        stride: int = 1,
        padding: Padding = "SAME",
    ) -> str:
        """A convolution with batch norm, rectified."""
        if isinstance(window, int):
            window = window, window
        name = f"{_OPS}/{scope}/Relu"
        scope = f"{_SCOPE}/{scope}"
        return self.add(Conv(name, x, scope, channels, window, stride, padding))

    def max_pool(self, x: str, scope: str) -> str:
        """The pool that halves a grid."""
        name = f"{_OPS}/{scope}/MaxPool"
        return self.add(Pool(name, x, "max", (3, 3), 2, "VALID"))

    def average_pool(self, x: str, scope: str) -> str:
        """The pool that keeps a grid."""
        name = f"{_OPS}/{scope}/AvgPool"
        return self.add(Pool(name, x, "average", (3, 3), 1, "SAME"))

    def concat(self, scope: str, *branches: str) -> str:
        return self.add(Concat(f"{_OPS}/{scope}/concat", branches))

    def residual(
        self,
        x: str,
        scope: str,
        branches: tuple[str, ...],
        channels: int,
        *,
        scale: float,
        relu: bool,
    ) -> str:
        """Projects branches to the channels of x, and adds a fraction of that to x."""
        projection = self.add(
            Conv(
                name=f"{_OPS}/{scope}/Conv2d_1x1/BiasAdd",
                input=self.concat(scope, *branches),
                scope=f"{_SCOPE}/{scope}/Conv2d_1x1",
                channels=channels,
                window=(1, 1),
                normalized=False,
                relu=False,
                scale=scale,
            )
        )
        name = f"{_OPS}/{scope}/{'Relu' if relu else 'add'}"
        return self.add(Add(name, (x, projection), relu))
