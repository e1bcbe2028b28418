"""What writers are given and what openers return, the same for every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from checkpoints.reader import Checkpoint
from exporters.network import inception_resnet_v2 as network
from exporters.network.graphs import NetworkGraphs

MAXIMUM_IMAGE_SIZE = 2048
"""In pixels; keeps the memory that comparing takes in bounds."""


class ExportError(Exception):
    """An option or input that no artifact can be made of."""


class ArtifactError(Exception):
    """A path that holds no readable artifact of a known format."""


@dataclasses.dataclass(frozen=True)
class CalibrationImages:
    """Images that quantization takes its activation ranges from.

    Attributes:
      images: float32 [count, height, width, 3] in [0, 1].
      description: where they come from, for the manifest and the screen.
    """

    images: np.ndarray
    description: str


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Choices of the deployable formats; the published formats have none.

    Attributes:
      image_size: (height, width) in pixels; None leaves both to each batch (ONNX).
      nchw: input as [batch, 3, height, width] instead of NHWC (ONNX).
      endpoints: show the endpoints as outputs too (ONNX).
      softmax: probabilities instead of logits (TFLite classification).
      integer_type: "float32", "uint8" or "int8": type of input and output of the full
        int8 TFLite.
      signed_input: images in [-1, 1], as the published TFLite took them (TFLite).
    """

    image_size: tuple[int, int] | None = (
        network.DEFAULT_IMAGE_SIZE,
        network.DEFAULT_IMAGE_SIZE,
    )
    nchw: bool = False
    endpoints: bool = False
    softmax: bool = False
    integer_type: str = "float32"
    signed_input: bool = False

    def __post_init__(self) -> None:
        """Refuses sizes that the network or a comparison cannot take.

        Raises:
          ExportError: the image size is out of range.
        """
        smallest, largest = network.MINIMUM_IMAGE_SIZE, MAXIMUM_IMAGE_SIZE
        if self.image_size and not all(
            smallest <= pixels <= largest for pixels in self.image_size
        ):
            height, width = self.image_size
            raise ExportError(
                f"image size {height} x {width}: expected at least {smallest} x "
                f"{smallest} pixels, at most {largest} x {largest}"
            )


@dataclasses.dataclass(frozen=True)
class ExportInputs:
    """What every writer starts from.

    Attributes:
      checkpoint: the weights, checked.
      graphs: the network's graphs, shared by all formats of one run.
      options: choices of the user.
      calibration: images for the quantized formats.
      shared: results that formats of one run share, by a key of the format module's.
    """

    checkpoint: Checkpoint
    graphs: NetworkGraphs
    options: ExportOptions
    calibration: CalibrationImages
    shared: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class OpenedArtifact:
    """An artifact in the hands of its consumer library.

    Attributes:
      format: name of its row in `exporters.formats`, read from the artifact itself.
      task: "feature_vector" or "classification".
      checkpoint_identity: as the artifact says, None if it does not.
      is_stand_in: as the artifact says, None if it does not.
      image_size: the (height, width) it is bound to, None if any will do.
      run: images, float32 [batch, height, width, 3] in [0, 1] -> output name -> array.
      weights: returns name -> (value, allowed absolute error). Names are those of the
        checkpoint, or of `exporters.inference_graph.folded_weights` if `is_folded`.
      is_folded: whether batch norm is folded into the weights.
    """

    format: str
    task: str
    checkpoint_identity: str | None
    is_stand_in: bool | None
    image_size: tuple[int, int] | None
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    weights: Callable[[], Mapping[str, tuple[np.ndarray, Any]]]
    is_folded: bool = False


def first_line(error: Exception) -> str:
    """The first line of an exception's message, short enough for ours."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
