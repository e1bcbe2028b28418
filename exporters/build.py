"""What one build shares: a checkpoint, options, calibration images, and what they give.

Everything derived is computed when it is first asked for, and kept with the build. Other
inputs are another build (`dataclasses.replace`), so nothing that is kept can be stale.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from checkpoints.reader import Checkpoint
from exporters import calibration
from exporters.calibration import CalibrationImages
from exporters.errors import ExportError
from exporters.network import folding, layers
from exporters.network.graphs import NetworkGraph, NetworkGraphs
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE, MINIMUM_IMAGE_SIZE
from exporters.network.quantization import (
    Precision,
    QuantizedNetwork,
    Statistics,
    quantize_network,
)

T = TypeVar("T")

MAXIMUM_IMAGE_SIZE = 2048
"""In pixels; keeps the memory that comparing takes in bounds."""
SYMMETRIC = "symmetric"
"""Int8 activations whose zero points are 0."""


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
      full_integer: all its layers in integers, also the few that cost no time in
        float32; they are whenever its input and output are.
      signed_input: images in [-1, 1], as the published TFLite took them (TFLite).
      keep_float: blocks of the network, as `exporters.network.layers.Network.blocks`
        names them, that stay float32 where the others are int8.
      int8_activations: "asymmetric", or "symmetric": with zero points 0, as TensorRT and
        some NPUs need them.
      reduce_range: kernels in 7 bits, for x86 processors without VNNI (ONNX).

    Raises:
      ExportError: the image size is one that the network or a comparison cannot take, or
        choices exclude each other.
    """

    image_size: tuple[int, int] | None = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    nchw: bool = False
    endpoints: bool = False
    softmax: bool = False
    integer_type: str = "float32"
    full_integer: bool = False
    signed_input: bool = False
    keep_float: tuple[str, ...] = ()
    int8_activations: str = "asymmetric"
    reduce_range: bool = False

    def __post_init__(self) -> None:
        smallest, largest = MINIMUM_IMAGE_SIZE, MAXIMUM_IMAGE_SIZE
        if self.image_size and not all(
            smallest <= pixels <= largest for pixels in self.image_size
        ):
            height, width = self.image_size
            raise ExportError(
                f"image size {height} x {width}: expected at least {smallest} x "
                f"{smallest} pixels, at most {largest} x {largest}"
            )
        if self.int8_activations not in ("asymmetric", SYMMETRIC):
            raise ExportError(
                f"int8 activations {self.int8_activations!r}: expected 'asymmetric' or "
                "'symmetric'"
            )
        if self.int8_activations == SYMMETRIC and self.integer_type != "float32":
            raise ExportError(
                f"images of {self.integer_type} are pixels, whose zero point is no 0: "
                "--integer-type does not go with --int8-activations symmetric"
            )

    @property
    def input_range(self) -> tuple[float, float]:
        """Values of black and white in the images that a file takes."""
        return (-1.0, 1.0) if self.signed_input else (0.0, 1.0)

    def recorded(self, names: Collection[str]) -> dict[str, Any]:
        """Returns fields as an artifact's record has them.

        What was added later is among them only if it is not as it was before there was
        the choice: so the records of others are what they were then.
        """
        values = {name: getattr(self, name) for name in sorted(names)}
        if "full_integer" in values and self.integer_type != "float32":
            values["full_integer"] = True
        return {
            name: value
            for name, value in values.items()
            if name not in BEFORE or value != BEFORE[name]
        }

    def chosen(self, names: Collection[str]) -> list[str]:
        """Returns what is not the default among fields, in words for a file's name."""
        words = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in names or value == field.default:
                continue
            if field.name == "keep_float":
                words.append(f"{len(value)}-in-float")
            elif field.name == "image_size":
                words.append("x".join(map(str, dict.fromkeys(value or ["dynamic"]))))
            else:
                words.append(value if isinstance(value, str) else field.name)
        return [word.replace("_", "-") for word in words]


BEFORE: Mapping[str, Any] = {
    "keep_float": (),
    "int8_activations": "asymmetric",
    "reduce_range": False,
    "full_integer": True,
}
"""Options that records do not need to have -> what was before there was the choice."""


@dataclasses.dataclass(frozen=True)
class Build:
    """What every writer starts from.

    Attributes:
      checkpoint: the weights, checked.
      options: choices of the user.
      calibration: images for the quantized formats, None where none was asked for.
      labels: names of the classes, in the order of the logits, None if not known.
      graphs: TF-Slim's graphs, which do not depend on the weights.
    """

    checkpoint: Checkpoint
    options: ExportOptions = ExportOptions()
    calibration: CalibrationImages | None = None
    labels: tuple[str, ...] | None = None
    graphs: NetworkGraphs = dataclasses.field(default_factory=NetworkGraphs)
    _kept: dict[Any, Any] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def graph(self, *, is_training: bool = False) -> NetworkGraph:
        """TF-Slim's graph of the network."""
        num_classes = self.checkpoint.num_classes
        return self.graphs.get(num_classes=num_classes, is_training=is_training)

    @functools.cached_property
    def network(self) -> layers.Network:
        """All layers, up to the probabilities if there is a classifier."""
        return layers.inception_resnet_v2(self.checkpoint.num_classes)

    def weights(
        self, input_range: tuple[float, float] = (0.0, 1.0)
    ) -> Mapping[str, folding.Weights]:
        """The weights of all layers, by scope, folded for images of a range."""
        return self.once(_folded, input_range)

    def keeping_float(self, blocks: tuple[str, ...]) -> Build:
        """Returns a build with other blocks in float, which shares what this one has.

        What depends on blocks is kept by the precision that they give.
        """
        self.once(_statistics)
        options = dataclasses.replace(self.options, keep_float=blocks)
        changed = dataclasses.replace(self, options=options)
        changed._kept.update(self._kept)
        return changed

    @property
    def statistics(self) -> Statistics:
        """What activations are like over the calibration images.

        Raises:
          ExportError: there are none, or not of the size that the options say.
        """
        return self.once(_statistics)

    def quantized(
        self, precision: Precision, input_range: tuple[float, float] = (0.0, 1.0)
    ) -> QuantizedNetwork:
        """The network in integers, for images of a range.

        Raises:
          ExportError: there are no calibration images.
        """
        return self.once(_quantized, precision, input_range)

    def once(self, make: Callable[..., T], *arguments: Any) -> T:
        """Returns `make(build, *arguments)`, made at the first call with these."""
        key = (make, *arguments)
        if key not in self._kept:
            self._kept[key] = make(self, *arguments)
        return self._kept[key]


def _statistics(build: Build) -> Statistics:
    if build.calibration is None or not len(build.calibration.images):
        raise ExportError(
            "no calibration images: the ranges of activations are taken from them"
        )
    images = build.calibration.images
    size = build.options.image_size
    if size and images.shape[1:] != (*size, 3):
        raise ExportError(
            f"calibration images have the shape {list(images.shape)}; expected "
            f"[count, {size[0]}, {size[1]}, 3]"
        )
    return calibration.measure(build.network, build.weights(), images)


def _folded(
    build: Build, input_range: tuple[float, float]
) -> dict[str, folding.Weights]:
    return folding.fold(build.network, build.checkpoint, input_range)


def _quantized(
    build: Build, precision: Precision, input_range: tuple[float, float]
) -> QuantizedNetwork:
    images = build.network.input
    return quantize_network(
        build.network,
        build.weights(input_range),
        build.statistics.with_input_range(images, input_range),
        precision,
    )
