"""A network trained as people train it, out of every kind of file.

It is the thin one. `make trained` does the same with the real one, in full: until it
classifies, and for every format.
"""

import dataclasses

import numpy as np
import pytest
import thin_network

from checkpoints.layout import MovingAveragesError
from checkpoints.reader import Checkpoint, open_checkpoint
from examples import digits
from exporters import images
from exporters.build import ExportOptions
from exporters.exporting import export
from exporters.formats import FORMATS, open_artifact
from exporters.network.graphs import NetworkGraphs
from exporters.parity import ParityImages
from exporters.reference import Reference

STEPS = 3
SIZE = (digits.IMAGE_SIZE, digits.IMAGE_SIZE)
ONE_OF_EACH = (
    "v3",
    "v4",
    "tfjs-v3",
    "onnx-float32",
    "tflite-float32",
    "keras",
    "keras-weights",
    "timm",
)
FOR_OTHERS = ("keras-weights", "timm")
"""For networks that other libraries have, whole and of all channels."""

pytestmark = pytest.mark.slow


class ParityDigits(ParityImages):
    """Digits, of the size that the network is trained at; larger images for any size.

    Of 75 x 75 pixels one position is left in the last layers, too few for the statistics
    of a batch, which v1 to v5 and Keras are compared in too.
    """

    def __init__(self, digits):
        super().__init__()
        self.description = "digits"
        self._digits = [digits]
        self._larger = [images.generate(4, 139, 139, seed=3)]

    def batches(self, image_size):
        assert image_size in (None, SIZE)
        return self._digits if image_size else self._larger


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What was trained, and what its own graph says to some images."""

    directory: object
    images: np.ndarray
    logits: dict


@pytest.fixture(scope="module", autouse=True)
def graphs():
    """TF-Slim's graphs of the thin network, in the place of the real one's."""
    with thin_network.installed():
        yield NetworkGraphs()


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits")
    digits.write_images(directory / "images")
    training = digits.read_images(directory / "images" / "training")
    held_out = digits.read_images(directory / "images" / "validation")
    few = digits.Digits(held_out.images[:8], held_out.classes[:8])
    trained = digits.train(
        training, few, directory / "train_dir", steps=STEPS, optimizer="rmsprop"
    )
    logits = {"use": trained.logits, "ignore": trained.raw_logits}
    return FineTuned(directory / "train_dir", few.images, logits)


def test_it_is_saved_as_tf_slims_trainer_saves(fine_tuned):
    import tensorflow as tf

    assert {path.name for path in fine_tuned.directory.iterdir()} == {
        "checkpoint",
        *(
            f"model.ckpt-{STEPS}{suffix}"
            for suffix in (".meta", ".index", ".data-00000-of-00001")
        ),
    }
    found = {name for name, _ in tf.train.list_variables(str(fine_tuned.directory))}
    with pytest.raises(MovingAveragesError):
        open_checkpoint(fine_tuned.directory)
    checkpoint = open_checkpoint(fine_tuned.directory, moving_averages="ignore")
    assert checkpoint.num_classes == 10
    assert checkpoint.step == STEPS
    assert not checkpoint.has_auxiliary_head
    network = set(checkpoint)
    expected = network | {f"{name}/ExponentialMovingAverage" for name in network}
    expected |= {
        f"{name}/{slot}"
        for name in network
        if "/moving_" not in name
        for slot in ("RMSProp", "RMSProp_1")
    }
    assert found == expected | {"global_step"}
    assert checkpoint.slots == 2 * sum("/moving_" not in name for name in network)
    by_meta = fine_tuned.directory / f"model.ckpt-{STEPS}.meta"
    again = open_checkpoint(by_meta, moving_averages="ignore")
    assert again.identity == checkpoint.identity


def test_moving_averages_are_another_network(fine_tuned):
    used, ignored = fine_tuned.logits["use"], fine_tuned.logits["ignore"]
    assert used.shape == ignored.shape == (8, 10)
    assert np.abs(used - ignored).max() > 1e-2 * np.abs(used).max()


def test_there_is_one_of_each_container():
    containers = [FORMATS[name].container for name in ONE_OF_EACH]
    assert set(containers) == {row.container for row in FORMATS.values()}


@pytest.mark.parametrize(
    ("moving_averages", "formats"),
    [("use", ONE_OF_EACH), ("ignore", ("v3", "onnx-float32", "tflite-float32"))],
)
def test_all_give_what_the_training_graph_gives(
    fine_tuned, moving_averages, formats, graphs, tmp_path
):
    """Where another library has the network, its numbers."""
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(digits.LABELS))
    checkpoint = open_checkpoint(fine_tuned.directory, moving_averages=moving_averages)
    with Reference(checkpoint, graphs) as reference:
        options = {
            "tasks": ["classification"],
            "images": ParityDigits(fine_tuned.images),
            "labels": labels,
            "reference": reference,
        }
        done = export(
            checkpoint,
            tmp_path / "artifacts",
            formats=[name for name in formats if name not in FOR_OTHERS],
            options=ExportOptions(image_size=SIZE),
            **options,
        )
        of_others = export(
            checkpoint,
            tmp_path / "artifacts",
            formats=FOR_OTHERS,
            verify=False,
            **options,
        )
    assert done.passed and of_others.passed
    for item in of_others.artifacts:
        assert "10-classes" in item.path.name
        assert open_checkpoint(item.path).identity == checkpoint.identity
    expected = fine_tuned.logits[moving_averages]
    for item in done.artifacts:
        assert "10-classes" in item.path.name
        artifact, row = open_artifact(item.path)
        with artifact:
            assert artifact.record.num_classes == 10
            found = artifact.run(fine_tuned.images)[next(iter(artifact.outputs))]
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error < 2e-5, row.name


def test_without_its_classifier_it_still_gives_features(fine_tuned, graphs, tmp_path):
    whole = open_checkpoint(fine_tuned.directory, moving_averages="use")
    features = Checkpoint(
        {name: value for name, value in whole.items() if "/Logits/" not in name},
        path=whole.path,
    )
    assert features.num_classes is None
    with Reference(features, graphs) as reference:
        done = export(
            features,
            tmp_path,
            formats=["onnx-float32"],
            options=ExportOptions(image_size=SIZE),
            images=ParityDigits(fine_tuned.images),
            reference=reference,
        )
    (made,) = done.artifacts
    assert made.task == "feature_vector"
    assert made.is_kept, made.failures
