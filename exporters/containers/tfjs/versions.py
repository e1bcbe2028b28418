"""What sets the TF.js formats apart."""

from __future__ import annotations

import dataclasses

from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.network.quantization import Precision


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """What sets a format apart from the others.

    Attributes:
      image_size: (height, width) in pixels that the model is bound to; None for any.
      precision: in what numbers its weights are stored. It computes in float32.
    """

    image_size: tuple[int, int] | None
    precision: Precision = Precision()  # noqa: RUF009


V1 = ModelVersion((DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE))
V3 = ModelVersion(None)
