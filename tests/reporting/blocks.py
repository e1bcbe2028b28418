"""Exports of a small block in the place of the real network, and pages about them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import small_build
from PIL import Image
from reporting.pages import Page

from checkpoints.reader import Checkpoint, Provenance
from exporters.build import ExportOptions
from exporters.evaluation.evaluating import evaluate
from exporters.exporting import export
from exporters.formats import FORMATS
from exporters.network.tasks import TASKS
from exporters.reporting.reporting import Report, report

NAMES = ("onnx-float32", "onnx-int8", "tflite-int8")


def checkpoint(provenance=Provenance.UNVERIFIED) -> Checkpoint:
    made = small_build.checkpoint()
    made.num_classes = len(small_build.LABELS)
    made.provenance = provenance
    return made


def make(place: Path, of: Checkpoint, names=NAMES, tasks=None, **options) -> Path:
    """Exports formats of the block, compared; returns the directory."""
    directory = place / "artifacts"
    (place / "labels.txt").write_text("\n".join(small_build.LABELS))
    done = export(
        of,
        directory,
        tasks=tasks,
        formats=[
            dataclasses.replace(FORMATS[name], tasks=tuple(TASKS.values()))
            for name in names
        ],
        options=ExportOptions(image_size=small_build.IMAGE_SIZE, **options),
        images=small_build.IMAGES,
        labels=place / "labels.txt",
        force=True,
        reference=small_build.BlockReference(of),
    )
    assert done.passed, [item.failures for item in done.artifacts]
    return directory


def write(
    directory: Path, output: Path, of: Checkpoint, **options
) -> tuple[Report, Page]:
    """Writes a page about a directory; returns what was reported, and the page."""
    given = {
        "images": small_build.IMAGES,
        "reference": small_build.BlockReference(of),
        "force": True,
    }
    done = report(directory, of, output, **given | options)
    return done, Page(output)


def evaluated(directory: Path, place: Path) -> Path:
    """Evaluates artifacts on images of noise; returns the JSON file."""
    random = np.random.default_rng(0)
    for number, label in enumerate(small_build.LABELS * 4):
        folder = place / "images" / label
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (90, 90, 3), np.uint8) // (1 + number)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    done = evaluate(directory, place / "images")
    path = place / "evaluation.json"
    path.write_text(json.dumps(done.as_dict()))
    return path
