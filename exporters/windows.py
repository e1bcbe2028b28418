"""How convolutions and pools move over what they read: what a file says, and should.

Outputs alone do not show it where a format is allowed to be off: a stem that pads its
images gives features that are hardly different.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from exporters.network.layers import Conv, Network, Pool

_OP = re.compile(
    "(/(Relu|BatchNorm/FusedBatchNormV3|BiasAdd|MaxPool|AvgPool))?(/float32)?$"
)
"""How names end of what an op gives, before it is rounded too."""


@dataclasses.dataclass(frozen=True)
class Window:
    """How an op moves.

    Attributes:
      size: height and width of its window.
      strides: in both directions.
      pads: what is added above, to the left, below and to the right; None if that
        depends on the size of the image.
      others: what else the file says, where nothing should be said.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int] | None
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        pads = "that depend on the image" if self.pads is None else list(self.pads)
        words = [
            f"windows of {self.size[0]} x {self.size[1]}",
            f"strides {list(self.strides)}",
            f"pads {pads}",
            *self.others,
        ]
        return ", ".join(words)


def pads(
    padding: str, size: tuple[int, int], strides: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Returns what TensorFlow's padding, "SAME" or "VALID", adds; see `Window`."""
    if padding == "VALID":
        return 0, 0, 0, 0
    if strides != (1, 1):
        return None
    height, width = size[0] - 1, size[1] - 1
    return height // 2, width // 2, height - height // 2, width - width // 2


def key(name: str) -> str:
    """Returns what the ops of a layer have in common in their names."""
    return _OP.sub("", name, count=1)


def problems(found: Mapping[str, Window], network: Network) -> list[str]:
    """Compares what a file says with the network.

    Args:
      found: `key` of a layer's name -> window.
      network: the layers that it should have.

    Returns:
      What differs, in words.
    """
    wrong = []
    for layer in network.layers:
        if not isinstance(layer, Conv | Pool):
            continue
        strides = layer.stride, layer.stride
        expected = Window(
            layer.window, strides, pads(layer.padding, layer.window, strides)
        )
        window = found.get(key(layer.name))
        if window != expected:
            wrong.append(
                f"{key(layer.name)}: {window or 'missing'}; expected {expected}"
            )
    return wrong
