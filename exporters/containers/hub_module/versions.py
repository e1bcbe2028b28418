"""What sets the versions of the TF1 Hub format apart."""

from __future__ import annotations

import dataclasses

from exporters.network import inception_resnet_v2 as network
from exporters.network.graphs import HUB_MOMENTUM


@dataclasses.dataclass(frozen=True)
class ModuleVersion:
    """What sets a published version of the module apart from the others.

    Attributes:
      image_size: (height, width) in pixels that the module is bound to; None for any.
      momentum: batch norm momentum in the training graph, unless the consumer gives it.
      takes_momentum: whether there are signatures in which the consumer can.
    """

    image_size: tuple[int, int] | None
    momentum: float
    takes_momentum: bool


DEFAULT_IMAGE_SIZE = (network.DEFAULT_IMAGE_SIZE, network.DEFAULT_IMAGE_SIZE)
V1 = ModuleVersion(DEFAULT_IMAGE_SIZE, network.TRAINING_MOMENTUM, False)
V3 = ModuleVersion(None, HUB_MOMENTUM, True)
