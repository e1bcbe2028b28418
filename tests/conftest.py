"""What several test files share: one stand-in, one set of graphs, one set of artifacts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import fake_format

from checkpoints import layout, stand_in
from checkpoints.reader import Checkpoint, open_checkpoint
from exporters import calibration, images, second_process
from exporters.build import Build, ExportOptions
from exporters.exporting import export
from exporters.formats import FORMATS
from exporters.labels import imagenet_labels
from exporters.network import recalibration
from exporters.network.graphs import NetworkGraphs
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR
from exporters.parity import ParityImages
from exporters.reference import Reference
from exporters.verification import verify

COMPARED = {
    "v1": FEATURE_VECTOR,
    "v3": CLASSIFICATION,
    "v4": CLASSIFICATION,
    "v5": FEATURE_VECTOR,
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


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """No second process: it would not have what tests put in the place of things."""
    monkeypatch.setattr(second_process, "is_possible", lambda: False)


@pytest.fixture
def fake_layout(monkeypatch):
    """The layout of the fake format's network in place of the published one."""
    monkeypatch.setattr(layout, "variable_shapes", lambda: fake_format.SHAPES)
    monkeypatch.setattr(layout, "num_classes", lambda variables: 1001)


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
def build(stand_in_checkpoint, graphs) -> Build:
    """A build of the calibrated stand-in, with default options."""
    images_ = calibration.calibration_images(None, (299, 299))
    return Build(
        stand_in_checkpoint,
        calibration=images_,
        labels=imagenet_labels(),
        graphs=graphs,
    )


@pytest.fixture(scope="session")
def parity_images() -> ParityImages:
    return ParityImages()


@pytest.fixture(scope="session")
def reference(graphs, stand_in_checkpoint):
    """The TF-Slim graph with the calibrated stand-in's weights."""
    with Reference(stand_in_checkpoint, graphs) as reference:
        yield reference


@pytest.fixture(scope="session")
def exported(tmp_path_factory, build, reference, parity_images) -> Path:
    """A directory with v1, v3, v4 and v5 of both tasks.

    Every format is compared for one task as it is made; the consumers compare all.
    """
    directory = tmp_path_factory.mktemp("exported")
    checkpoint = build.checkpoint
    export(
        checkpoint,
        directory,
        formats=list(COMPARED),
        verify=False,
        reference=reference,
    )
    compared = [
        directory / FORMATS[name].artifact_name(task, is_stand_in=True)
        for name, task in COMPARED.items()
    ]
    done = verify(compared, checkpoint, images=parity_images, reference=reference)
    assert done.passed, [item.report or item.error for item in done.artifacts]
    return directory


@pytest.fixture(scope="session")
def deployable(tmp_path_factory, stand_in_checkpoint, reference) -> Path:
    """A directory with the formats of today, of both tasks, for images of 139 x 139.

    That is enough for every layer to work, and small enough for runtimes without fast
    kernels.
    """
    directory = tmp_path_factory.mktemp("deployable")
    done = export(
        stand_in_checkpoint,
        directory,
        formats=[row for row in FORMATS.values() if "image_size" in row.options],
        options=ExportOptions(image_size=(139, 139)),
        verify=False,  # The consumers compare.
        reference=reference,
    )
    assert done.passed, [item.failures for item in done.artifacts]
    return directory


@pytest.fixture(scope="session")
def twins(tmp_path_factory, stand_in_checkpoint, reference) -> Path:
    """A directory with the files for Keras and timm, of both tasks."""
    directory = tmp_path_factory.mktemp("twins")
    done = export(
        stand_in_checkpoint,
        directory,
        formats=["keras", "keras-weights", "timm"],
        verify=False,
        reference=reference,
    )
    assert done.passed, [item.failures for item in done.artifacts]
    return directory
