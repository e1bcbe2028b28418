"""Whose weights are in files that other tools made, and do these compute what they should?

Keras, TensorFlow and its converter, tf2onnx, ONNX Runtime's tools, PyTorch, timm and
OpenVINO are given a network of all layers, with fewer channels. Each file is verified,
which says what it is as well.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import foreign_files
import narrow_network
import numpy as np
import pytest
from test_foreign import IMAGES, SIZE

from exporters import verification
from exporters.identification import identify
from exporters.identifying import networks
from exporters.parity import ParityImages

pytestmark = [
    pytest.mark.slow,
    # Of Keras, about NumPy; of tf2onnx and PyTorch, about themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SIGNED, UNSIGNED, PIXELS = (-1, 1), (0, 1), (0, 255)
FORMS = {
    ".keras": "Keras",
    ".h5": "HDF5",
    ".pb": "frozen graph",
    "": "SavedModel",
    ".tflite": "TFLite",
    ".onnx": "ONNX",
    ".xml": "OpenVINO",
    ".safetensors": "safetensors",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
}
HERE = [
    # file, precision, folded, images, "background" left out
    ("again.keras", "float32", False, UNSIGNED, 0),
    ("older.h5", "float32", False, UNSIGNED, 0),
    ("applications.keras", "float32", False, SIGNED, 1),
    ("applications.h5", "float32", False, SIGNED, 1),
    ("applications.weights.h5", "float32", False, SIGNED, 1),
    ("frozen.pb", "float32", False, UNSIGNED, 0),
    ("module", "float32", False, PIXELS, 0),
    ("tf1", "float32", False, UNSIGNED, 0),
    ("float32.tflite", "float32", True, UNSIGNED, 0),
    ("float16.tflite", "float16", True, UNSIGNED, 0),
    ("dynamic.tflite", "int8", True, UNSIGNED, 0),
    ("int8.tflite", "int8", True, UNSIGNED, 0),
    ("tf2onnx.onnx", "float32", True, UNSIGNED, 0),
    ("half.onnx", "float16", True, UNSIGNED, 0),
    ("dynamic.onnx", "int8", True, UNSIGNED, 0),
    ("static.onnx", "int8", True, UNSIGNED, 0),
    ("optimized.onnx", "float32", True, UNSIGNED, 0),
    ("external.onnx", "float32", True, UNSIGNED, 0),
]
ELSEWHERE = [
    ("torch.onnx", "float32", True, SIGNED, 0),
    ("it.xml", "float32", True, UNSIGNED, 0),
    ("half.xml", "float16", True, UNSIGNED, 0),
]
STATE_DICTS = [
    ("again.safetensors", "float32"),
    ("state.pt", "float32"),
    ("half.pth", "float16"),
    ("wrapped.pt", "float32"),
]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    narrow_network.install(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The directory of all files of the tools that are here."""
    directory = tmp_path_factory.mktemp("made")
    foreign_files.make(directory)
    return directory


@pytest.fixture(scope="module")
def made_elsewhere(tmp_path_factory, made) -> Path:
    """The directory of those of tools that have environments of their own."""
    directory = tmp_path_factory.mktemp("elsewhere")
    foreign_files.make_elsewhere(directory, made)
    return directory


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    with narrow_network.installed():
        directory = tmp_path_factory.mktemp("reference")
        return narrow_network.NarrowReference(foreign_files.checkpoint(), directory)


class OneSize(ParityImages):
    """Of images: for each, `keras.applications` builds its network anew."""

    def batches(self, image_size):
        return IMAGES.batches(image_size or SIZE)


def verify(path, reference):
    is_weights = path.name.endswith(".weights.h5")
    with foreign_files.narrow_applications():
        (item,) = verification.verify(
            path,
            reference.checkpoint,
            images=OneSize() if is_weights else IMAGES,
            reference=reference,
        ).artifacts
    assert item.error is None
    return item


def assert_identified(found, path, precision, is_folded):
    assert (found.form, found.network) == (FORMS[path.suffix], networks.THIS)
    assert found.confidence == "certain"
    assert found.relation == "same", found.differences[:5]
    assert found.matched == found.compared == 245
    assert found.precision[0] == precision
    assert found.is_folded is is_folded


def assert_verified(item, path, precision, is_folded, input_range, first_class):
    found, report = item.identified, item.report
    assert_identified(found, path, precision, is_folded)
    assert found.first_class == first_class
    assert found.classes == narrow_network.CLASSES - first_class
    assert report.passed, report.failures()
    assert report.task == "classification"
    assert report.format == f"{FORMS[path.suffix]} {precision}"
    images = "images in [{:g}, {:g}]".format(*input_range)
    assert any(images in note for note in report.notes), report.notes


@pytest.mark.parametrize(
    ("name", "precision", "is_folded", "input_range", "first_class"), HERE
)
def test_a_file(made, reference, name, precision, is_folded, input_range, first_class):
    item = verify(made / name, reference)
    assert item.result == "agrees"
    assert_verified(item, made / name, precision, is_folded, input_range, first_class)


@pytest.mark.consumers
@pytest.mark.parametrize(
    ("name", "precision", "is_folded", "input_range", "first_class"), ELSEWHERE
)
def test_a_file_made_elsewhere(
    made_elsewhere, reference, name, precision, is_folded, input_range, first_class
):
    path = made_elsewhere / name
    item = verify(path, reference)
    if path.suffix == ".xml" and not importlib.util.find_spec("openvino"):
        assert item.result == "weights agree"
        assert "OpenVINO cannot be imported" in item.report.not_run
        assert_identified(item.identified, path, precision, is_folded)
    else:
        assert item.result == "agrees", item.report.failures()
        assert_verified(item, path, precision, is_folded, input_range, first_class)


@pytest.mark.consumers
@pytest.mark.parametrize(("name", "precision"), STATE_DICTS)
def test_a_state_dict(made_elsewhere, reference, monkeypatch, name, precision):
    """timm itself has the real network alone; it runs in `tests/consumers`."""
    monkeypatch.setitem(sys.modules, "timm", None)
    item = verify(made_elsewhere / name, reference)
    assert item.result == "weights agree"
    assert "timm cannot be imported" in item.report.not_run
    assert_identified(item.identified, made_elsewhere / name, precision, False)
    assert item.identified.input_range == SIGNED


# Near misses


def found_in(path, checkpoint=None):
    (found,) = identify(path, checkpoint or foreign_files.checkpoint()).files
    assert found.error is None, found.error
    return found


GRAPHS = [
    *("frozen.pb", "module", "float16.tflite", "dynamic.tflite", "int8.tflite"),
    *("tf2onnx.onnx", "half.onnx", "dynamic.onnx", "static.onnx", "applications.h5"),
]


@pytest.mark.parametrize("name", GRAPHS)
def test_another_seed(made, name):
    found = found_in(made / name, narrow_network.checkpoint(seed=1))
    assert found.network == networks.THIS
    assert found.relation == "unrelated"


@pytest.mark.parametrize("name", GRAPHS)
def test_one_layer_changed(made, name):
    layer = "InceptionResnetV2/Repeat_1/block17_7/Branch_0/Conv2d_1x1"
    checkpoint = foreign_files.checkpoint()
    kernel = checkpoint[f"{layer}/weights"]
    noise = np.random.default_rng(1).normal(0, 0.1 * kernel.std(), kernel.shape)
    changed = dict(checkpoint) | {f"{layer}/weights": (kernel + noise).astype("f")}
    found = found_in(made / name, narrow_network.of(changed))
    assert found.relation == "fine-tuned"
    assert [(d.layer, d.what) for d in found.differences] == [(layer, "kernel")]
    assert found.differences[0].difference == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("name", ["tf2onnx.onnx", "int8.tflite", "applications.keras"])
def test_two_blocks_swapped(made, name):
    block, other = (f"InceptionResnetV2/Repeat_1/block17_{n}/" for n in (4, 9))
    swapped = {}
    for variable, values in foreign_files.checkpoint().items():
        for one, two in ((block, other), (other, block)):
            if variable.startswith(one):
                variable = two + variable.removeprefix(one)
                break
        swapped[variable] = values
    found = found_in(made / name, narrow_network.of(swapped))
    assert found.relation == "rearranged"
    assert {d.layer.split("/")[2] for d in found.differences} == {
        "block17_4",
        "block17_9",
    }
    assert {d.what for d in found.differences} == {"place"}


def test_own_classes(made):
    found = found_in(made / "own.weights.h5")
    assert found.classes == 3
    assert [d.layer for d in found.differences] == ["InceptionResnetV2/Logits/Logits"]


@pytest.mark.consumers
def test_a_step_of_training(made_elsewhere):
    """The optimizer's slots lie beside the weights, and have their shapes."""
    found = found_in(made_elsewhere / "trained.pth")
    assert found.network == networks.THIS
    assert found.relation == "fine-tuned"
    assert found.matched == 245
    assert {d.what for d in found.differences} <= {"kernel", "vectors"}


@pytest.mark.consumers
def test_another_network_of_the_same_library(made_elsewhere):
    found = found_in(made_elsewhere / "other.pt")
    assert (found.network, found.confidence) == ("another network", "none")
