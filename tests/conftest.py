"""What several test files share: one stand-in, one set of graphs, one set of artifacts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from checkpoints import stand_in
from checkpoints.reader import Checkpoint, open_checkpoint
from exporters import export, formats, images, recalibration
from exporters.artifact import ExportInputs, ExportOptions
from exporters.calibration import calibration_images
from exporters.graphs import CLASSIFICATION, FEATURE_VECTOR, TASKS, NetworkGraphs
from exporters.parity import ParityImages, Reference

PUBLISHED_FORMATS = ("v1", "v3", "v4", "v5")
COMPARED = {
    ("v1", FEATURE_VECTOR),
    ("v3", CLASSIFICATION),
    ("v4", CLASSIFICATION),
    ("v5", FEATURE_VECTOR),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts the consumers' programs first, and asks for their results last.

    Before them come the tests that change how environments are made: the programs that
    run beside all other tests have theirs made as each is started.
    """
    order = {"test_programs_start": 1, "test_consumer": 3}

    def place(item: pytest.Item) -> int:
        if item.path.stem == "test_consumer_environments":
            return 0
        return order.get(getattr(item, "originalname", ""), 2)

    items.sort(key=place)


@pytest.fixture(scope="session")
def reference_values() -> dict[str, np.ndarray]:
    """What TensorFlow 1.15.5 and the original TF-Slim network computed, seed 0."""
    with np.load(Path(__file__).parent / "data" / "reference.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def graphs() -> NetworkGraphs:
    return NetworkGraphs()


@pytest.fixture(scope="session")
def raw_variables() -> dict[str, np.ndarray]:
    """The seed 0 stand-in, as the reference values' checkpoint was generated."""
    return stand_in.generate(0)


@pytest.fixture(scope="session")
def stand_in_file(tmp_path_factory, raw_variables, graphs) -> Path:
    """A calibrated stand-in as a V1 file."""
    path = tmp_path_factory.mktemp("checkpoint") / "stand_in.ckpt"
    variables = recalibration.with_batch_statistics(
        raw_variables, images.generate(8, 299, 299), graphs
    )
    stand_in.write_v1(variables, path)
    return path


@pytest.fixture(scope="session")
def stand_in_checkpoint(stand_in_file) -> Checkpoint:
    return open_checkpoint(stand_in_file)


@pytest.fixture(scope="session")
def export_inputs(stand_in_checkpoint, graphs) -> ExportInputs:
    options = ExportOptions()
    calibration = calibration_images(None, options.image_size)
    return ExportInputs(stand_in_checkpoint, graphs, options, calibration)


@pytest.fixture(scope="session")
def parity_images() -> ParityImages:
    return ParityImages()


@pytest.fixture(scope="session")
def reference(graphs, stand_in_checkpoint):
    """The TF-Slim graph with the calibrated stand-in's weights."""
    with Reference(graphs, stand_in_checkpoint) as reference:
        yield reference


@pytest.fixture(scope="session")
def exported(tmp_path_factory, export_inputs, reference, parity_images) -> Path:
    """A directory with v1, v3, v4 and v5 of both tasks.

    Every format is compared for one task as it is made; the consumers compare all.
    """
    directory = tmp_path_factory.mktemp("exported")
    for row in formats.select(PUBLISHED_FORMATS):
        for task in TASKS:
            export.export(
                export_inputs,
                row,
                task,
                directory / row.artifact_name(task, is_stand_in=True),
                reference=reference if (row.name, task) in COMPARED else None,
                parity_images=parity_images,
            )
    return directory


@pytest.fixture(scope="session")
def deployable(tmp_path_factory, export_inputs, parity_images) -> Path:
    """A directory with the formats of today, of both tasks, for images of 139 x 139.

    That is enough for every layer to work, and small enough for runtimes without fast
    kernels.
    """
    directory = tmp_path_factory.mktemp("deployable")
    options = ExportOptions(image_size=(139, 139))
    calibration = calibration_images(None, options.image_size)
    inputs = dataclasses.replace(
        export_inputs, options=options, calibration=calibration, shared={}
    )
    for row in formats.FORMATS.values():
        if row.name in PUBLISHED_FORMATS:
            continue
        for task in TASKS:
            export.export(
                inputs,
                row,
                task,
                directory / row.artifact_name(task, is_stand_in=True),
                reference=None,  # The consumers compare.
                parity_images=parity_images,
            )
    return directory
