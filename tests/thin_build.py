"""A stand-in of the thin network, calibrated as the real one of the tests is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import thin_network

from checkpoints import stand_in
from checkpoints.reader import open_checkpoint
from exporters import calibration, images
from exporters.build import Build
from exporters.labels import imagenet_labels
from exporters.network import recalibration
from exporters.network.graphs import NetworkGraphs
from exporters.parity import ParityImages
from exporters.reference import Reference

MadeOnce = Callable[[str, Callable[[Path], None]], Path]
"""What the fixture `made_once` is."""


class FewImages(ParityImages):
    """Small ones, of which each layer makes enough for the statistics of a batch."""

    def batches(self, image_size: tuple[int, int] | None) -> list[np.ndarray]:
        sizes = [image_size] if image_size else [(139, 139), (139, 160)]
        return [batch for size in sizes for batch in self._of_size(4, *size)]


@dataclasses.dataclass(frozen=True)
class Thin:
    """What there is of the network of thin_network.py, while that is installed.

    Attributes:
      build: of a stand-in of its own, calibrated as the real one is.
      reference: TF-Slim's graph with the same weights.
      images: to compare on.
    """

    build: Build
    reference: Reference
    images: ParityImages


@contextlib.contextmanager
def installed(made_once: MadeOnce) -> Iterator[Thin]:
    """Puts the thin network in the place of the real one for a while."""
    name, graphs = "thin.ckpt", NetworkGraphs()

    def write(directory: Path) -> None:
        variables = recalibration.with_batch_statistics(
            stand_in.generate(0), images.generate(8, 299, 299), graphs
        )
        stand_in.write_v1(variables, directory / name)

    with thin_network.installed():
        checkpoint = open_checkpoint(made_once("thin", write) / name)
        build = Build(
            checkpoint,
            calibration=calibration.calibration_images(None, (299, 299)),
            labels=imagenet_labels(),
            graphs=graphs,
        )
        with Reference(checkpoint, graphs) as reference:
            yield Thin(build, reference, FewImages())
