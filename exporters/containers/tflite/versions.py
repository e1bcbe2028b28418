"""What sets the published TFLite file apart from ours."""

from __future__ import annotations

import dataclasses

from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.network.quantization import Precision


@dataclasses.dataclass(frozen=True)
class AuxiliaryClassifier:
    """The classifier that was published as TFLite.

    It is not the network's own, but the auxiliary one of its training: the network cut
    in its middle, half as large, and less exact.

    Attributes:
      precision: in what numbers it is.
      image_size: (height, width) in pixels that it is bound to.
      takes_signed: whether images are in [-1, 1].
    """

    precision: Precision = Precision()  # noqa: RUF009
    image_size: tuple[int, int] = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    takes_signed: bool = True


AUXILIARY = AuxiliaryClassifier()
FORMAT = "tflite-published"
"""Name of its format."""
