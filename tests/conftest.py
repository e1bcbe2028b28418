"""What several test files share: one stand-in, one set of graphs, one set of artifacts."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # Of what runs in the background.
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # Programs begun here heed it.

import fake_format
import thin_build

from checkpoints import layout, stand_in
from checkpoints.reader import Checkpoint, open_checkpoint
from exporters import calibration, images, second_process
from exporters.build import Build, ExportOptions
from exporters.exporting import export
from exporters.formats import FORMATS
from exporters.labels import imagenet_labels
from exporters.network import recalibration
from exporters.network.graphs import NetworkGraphs
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR, Task
from exporters.parity import ParityImages
from exporters.reference import Reference
from exporters.verification import verify

PUBLISHED = ("v1", "v3", "v4", "v5")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first, so that short ones fill what time is left."""
    long_marks = ("consumers", "slow")
    files: dict[Path, set[str]] = {}
    for item in items:
        files.setdefault(item.path, set()).update(
            mark.name for mark in item.iter_markers()
        )

    def place(item: pytest.Item) -> int:
        for number, mark in enumerate(long_marks):
            if mark in files[item.path]:
                return number
        return len(long_marks)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """No second process: it would not have what tests put in the place of things."""
    monkeypatch.setattr(second_process, "is_possible", lambda: False)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of `--dist loadfile`, what is given to a worker at once, in the order above.

    That is a file, or of test_consumers.py what one program found in one environment.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.endswith("/test_consumers.py"):
                return nodeid.rpartition("-check_")[0]
            return file

    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> thin_build.MadeOnce:
    """Makes a directory (name, writer of what is in it), once for all workers of a run.

    Whoever asks while it is made waits.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def make(name: str, write: Callable[[Path], None]) -> Path:
        directory, whole = base / name, base / f"{name}.is-whole"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(directory, ignore_errors=True)
                directory.mkdir()
                write(directory)
                whole.touch()
        return directory

    return make


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
def stand_in_file(made_once, raw_variables, graphs) -> Path:
    """A calibrated stand-in as a V1 file."""
    name = "stand_in.ckpt"

    def write(directory: Path) -> None:
        variables = recalibration.with_batch_statistics(
            raw_variables, images.generate(8, 299, 299), graphs
        )
        stand_in.write_v1(variables, directory / name)

    return made_once("checkpoint", write) / name


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


def export_published(
    directory: Path,
    reference: Reference,
    images: ParityImages,
    compared: Mapping[str, Task],
) -> None:
    """Exports v1, v3, v4 and v5 of both tasks, and compares some."""
    checkpoint = reference.checkpoint
    export(
        checkpoint,
        directory,
        formats=PUBLISHED,
        verify=False,
        reference=reference,
    )
    paths = [
        directory / FORMATS[name].artifact_name(task, is_stand_in=True)
        for name, task in compared.items()
    ]
    done = verify(paths, checkpoint, images=images, reference=reference)
    assert done.passed, [item.report or item.error for item in done.artifacts]


@pytest.fixture(scope="session")
def exported(made_once, request) -> Path:
    """A directory with v1, v3, v4 and v5 of both tasks.

    v3 and v5 are compared as they are made; the consumers compare all.
    """

    def write(directory: Path) -> None:
        reference = request.getfixturevalue("reference")
        images = request.getfixturevalue("parity_images")
        compared = {"v3": CLASSIFICATION, "v5": FEATURE_VECTOR}
        export_published(directory, reference, images, compared)

    return made_once("exported", write)


@pytest.fixture(scope="session")
def deployable(made_once, request) -> Path:
    """A directory with the formats of today, of both tasks, for images of 139 x 139.

    That is enough for every layer to work, and small enough for runtimes without fast
    kernels.
    """

    def write(directory: Path) -> None:
        reference = request.getfixturevalue("reference")
        for heeded, options in (
            ("image_size", {}),
            ("full_integer", {"full_integer": True}),
        ):
            done = export(
                reference.checkpoint,
                directory,
                formats=[row for row in FORMATS.values() if heeded in row.options],
                options=ExportOptions(image_size=(139, 139), **options),
                verify=False,  # The consumers compare.
                reference=reference,
            )
            assert done.passed, [item.failures for item in done.artifacts]

    return made_once("deployable", write)


@pytest.fixture(scope="session")
def twins(made_once, request) -> Path:
    """A directory with the files for Keras and timm, of both tasks."""

    def write(directory: Path) -> None:
        reference = request.getfixturevalue("reference")
        done = export(
            reference.checkpoint,
            directory,
            formats=["keras", "keras-weights", "timm"],
            verify=False,
            reference=reference,
        )
        assert done.passed, [item.failures for item in done.artifacts]

    return made_once("twins", write)


# The thin network, for what is true of it as of the real one


@pytest.fixture(scope="module")
def thin(made_once) -> Iterator[thin_build.Thin]:
    """Puts the thin network in the place of the real one for a whole file of tests.

    So no test of that file may ask for what is above, which would be made of it too.
    """
    with thin_build.installed(made_once) as made:
        yield made


@pytest.fixture(scope="session")
def thin_exported(made_once) -> Path:
    """A directory with v1, v3, v4 and v5 of both tasks, each compared for one of them."""

    def write(directory: Path) -> None:
        tasks = FEATURE_VECTOR, CLASSIFICATION, CLASSIFICATION, FEATURE_VECTOR
        compared = dict(zip(PUBLISHED, tasks))
        with thin_build.installed(made_once) as thin:
            export_published(directory, thin.reference, thin.images, compared)

    return made_once("thin_exported", write)
