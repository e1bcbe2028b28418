"""Calibration: the images that quantization takes its ranges from, and the ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent import futures
from pathlib import Path

import numpy as np

from checkpoints.scratch import temporary
from exporters import images
from exporters.network.folding import Weights
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.network.layers import Network, Softmax
from exporters.network.quantization import Statistics

_COUNT = 16
_LARGEST_COUNT = 256
"""Keeps time and memory in bounds, whatever the folder."""
_AT_ONCE = 2


@dataclasses.dataclass(frozen=True)
class CalibrationImages:
    """Images that quantization takes its activation ranges from.

    Attributes:
      images: float32 [count, height, width, 3] in [0, 1].
      description: where they come from, for the manifest and the screen.
      note: in words, what could not be read; None for nothing.
    """

    images: np.ndarray
    description: str
    note: str | None = None


def calibration_images(
    directory: Path | None, image_size: tuple[int, int] | None
) -> CalibrationImages:
    """Reads calibration images, or generates some.

    Args:
      directory: of images; if there are more than 256, so many of them, evenly spread
        over all. None for generated images.
      image_size: (height, width) in pixels; None for 299 x 299.

    Raises:
      exporters.images.ImageError: the directory holds no readable images.
    """
    height, width = image_size or (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    if directory is None:
        generated = images.generate(_COUNT, height, width, seed=2)
        return CalibrationImages(generated, f"{_COUNT} generated images")
    found = images.read_directory(directory, height, width, _LARGEST_COUNT)
    description = images.description(len(found.files), directory)
    return CalibrationImages(found.images, description, found.note(directory))


def measure(
    network: Network, weights: Mapping[str, Weights], images: np.ndarray
) -> Statistics:
    """Runs a network in float32 and notes what its activations are like.

    Bounds inside the extremes, such as percentiles, were tried: they are somewhat
    better on average, and worse on images with more contrast than those given.

    Args:
      network: of images in [0, 1].
      weights: of its layers, by scope, folded for that range.
      images: float32 [count, height, width, 3] in [0, 1], at least one.

    Returns:
      The range and the means of the images and of every layer but the probabilities.
    """
    import onnxruntime

    from exporters.containers.onnx import nodes, serialization

    names = [layer.name for layer in network.layers if not isinstance(layer, Softmax)]
    shapes = network.shapes(images.shape[1:3])
    graph = nodes.convert(network, weights)
    reductions = []
    for name in names:
        positions = [0, 2, 3] if len(shapes[name]) == 3 else [0]
        reductions += [
            nodes.make_node("ReduceMin", [name], f"{name}/low", keepdims=0),
            nodes.make_node("ReduceMax", [name], f"{name}/high", keepdims=0),
            nodes.make_node(
                "ReduceMean", [name], f"{name}/mean", axes=positions, keepdims=0
            ),
        ]
    outputs = [node.name for node in reductions]
    measuring = nodes.OnnxGraph(
        [*graph.nodes, *reductions], graph.weights, dict(zip(outputs, outputs))
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # Else the last bits depend on how many there are.
    with temporary() as directory:
        path = directory / "measuring.onnx"
        serialization.write(measuring, path, image_shape=["batch", *images.shape[1:]])
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(
            pool.map(
                lambda image: session.run(outputs, {nodes.INPUT: image[np.newaxis]}),
                images,
            )
        )
    of = {output: np.stack(values) for output, values in zip(outputs, zip(*found))}
    ranges = {
        name: (
            min(0.0, float(of[f"{name}/low"].min())),
            max(0.0, float(of[f"{name}/high"].max())),
        )
        for name in names
    }
    ranges[network.input] = (0.0, 1.0)  # All that an image can have.
    means = {name: of[f"{name}/mean"].mean(axis=0) for name in names}
    means[network.input] = images.mean(axis=(0, 1, 2))
    return Statistics(ranges, means)
