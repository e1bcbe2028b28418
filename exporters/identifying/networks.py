"""The networks that files are told apart by: the sizes of their kernels.

A kernel is known by its dimensions in any order, those of 1 left out, which no converter
changes.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator

from exporters.network import layers
from exporters.network.layers import Conv, Dense, Network
from exporters.network.tasks import AUXILIARY_CLASSIFICATION, CLASSIFICATION

Key = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class KnownNetwork:
    """A network, by its kernels.

    Attributes:
      name: in a few words.
      kernels: key -> how many kernels, but for the classifier.
      features: how many numbers the classifier reads.
    """

    name: str
    kernels: collections.Counter[Key]
    features: int


THIS = "inception_resnet_v2"
AUXILIARY = "inception_resnet_v2, auxiliary classifier"
VERSION_1 = "Inception-ResNet-v1"


def key_of(shape: Iterable[int]) -> Key:
    """Returns what a kernel of a shape is known by."""
    return tuple(sorted(size for size in shape if size != 1))


@functools.cache
def known() -> tuple[KnownNetwork, ...]:
    """Returns the networks, those first that others are a part of."""
    whole = layers.inception_resnet_v2(2, auxiliary_head=True)
    auxiliary = whole.up_to([AUXILIARY_CLASSIFICATION.endpoint])
    classifier = whole.up_to([CLASSIFICATION.endpoint])
    return (
        KnownNetwork(THIS, _kernels(classifier), _features(classifier)),
        KnownNetwork(AUXILIARY, _kernels(auxiliary), _features(auxiliary)),
        KnownNetwork(VERSION_1, collections.Counter(_version_1()), 1792),
    )


@functools.cache
def auxiliary_only() -> collections.Counter[Key]:
    """Returns the kernels that only the auxiliary head has."""
    this, auxiliary, _ = known()
    return auxiliary.kernels - this.kernels


def _features(network: Network) -> int:
    """How many numbers the classifier reads."""
    last = next(layer for layer in network.layers if isinstance(layer, Dense))
    return network.shapes((299, 299))[last.input][-1]


def _kernels(network: Network) -> collections.Counter[Key]:
    shapes = network.shapes((299, 299))
    found: collections.Counter[Key] = collections.Counter()
    for layer in network.weighted:
        if isinstance(layer, Conv):
            inputs = shapes[layer.input][-1]
            found[key_of((*layer.window, inputs, layer.channels))] += 1
    return found


def _version_1() -> Iterator[Key]:
    """Szegedy et al. 2016 (arXiv:1602.07261), figures 9 to 14, as FaceNet has it."""

    def chain(inputs: int, *convolutions: tuple[int, int, int]) -> Iterator[Key]:
        for height, width, channels in convolutions:
            yield key_of((height, width, inputs, channels))
            inputs = channels

    yield from chain(3, (3, 3, 32), (3, 3, 32), (3, 3, 64))
    yield from chain(64, (1, 1, 80), (3, 3, 192), (3, 3, 256))
    for _ in range(5):
        yield from chain(256, (1, 1, 32))
        yield from chain(256, (1, 1, 32), (3, 3, 32))
        yield from chain(256, (1, 1, 32), (3, 3, 32), (3, 3, 32))
        yield from chain(96, (1, 1, 256))
    yield from chain(256, (3, 3, 384))
    yield from chain(256, (1, 1, 192), (3, 3, 192), (3, 3, 256))
    for _ in range(10):
        yield from chain(896, (1, 1, 128))
        yield from chain(896, (1, 1, 128), (1, 7, 128), (7, 1, 128))
        yield from chain(256, (1, 1, 896))
    yield from chain(896, (1, 1, 256), (3, 3, 384))
    yield from chain(896, (1, 1, 256), (3, 3, 256))
    yield from chain(896, (1, 1, 256), (3, 3, 256), (3, 3, 256))
    for _ in range(6):
        yield from chain(1792, (1, 1, 192))
        yield from chain(1792, (1, 1, 192), (1, 3, 192), (3, 1, 192))
        yield from chain(384, (1, 1, 1792))
