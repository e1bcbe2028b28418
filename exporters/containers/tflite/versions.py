"""What sets the published TFLite file apart from ours."""

from __future__ import annotations

import dataclasses

from exporters.network.quantization import Precision


@dataclasses.dataclass(frozen=True)
class AuxiliaryClassifier:
    """The classifier that was published as TFLite.

    It is not the network's own, but the auxiliary one of its training: the network cut
    in its middle, half as large, and less exact.

    Attributes:
      precision: in what numbers it is.
    """

    precision: Precision = Precision()  # noqa: RUF009


AUXILIARY = AuxiliaryClassifier()
FORMAT = "tflite-published"
"""Name of its format."""
