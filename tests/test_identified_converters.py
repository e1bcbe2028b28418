"""Whose weights are in files that other tools made? Keras's and TensorFlow's own writers.

They are given a network of all layers, with fewer channels.
"""

from __future__ import annotations

from pathlib import Path

import narrow_network
import numpy as np
import pytest
from test_identification import CHECKPOINT, _written, one

from exporters.identifying import networks

pytestmark = [
    pytest.mark.slow,
    # Of Keras, about NumPy.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    narrow_network.install(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A directory of files, of one Keras model, in the hands of other tools."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    directory: Path = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        narrow_network.install(patch)
        model = keras.models.load_model(_written(directory, "keras"), compile=False)
    model.save(directory / "again.keras")
    model.save(directory / "older.h5")
    model.save_weights(directory / "it.weights.h5")
    model.export(directory / "exported", verbose=False)
    own = keras.layers.Dense(3)(model.layers[-2].output)
    keras.Model(model.input, own).save(directory / "own.keras")

    function = tf.function(lambda images: model(images, training=False))
    images = tf.TensorSpec((1, 75, 75, 3), tf.float32)
    traced = function.get_concrete_function(images)
    frozen = convert_to_constants.convert_variables_to_constants_v2(traced)
    graph = frozen.graph.as_graph_def()
    (directory / "frozen.pb").write_bytes(graph.SerializeToString())

    def convert(name, **settings):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        for setting, value in settings.items():
            setattr(converter, setting, value)
        (directory / name).write_bytes(converter.convert())

    smaller = [tf.lite.Optimize.DEFAULT]
    half = tf.lite.TargetSpec(supported_types=[tf.float16])
    convert("float16.tflite", optimizations=smaller, target_spec=half)
    convert("dynamic.tflite", optimizations=smaller)
    return directory


@pytest.mark.parametrize(
    ("name", "form", "precision", "is_folded"),
    [
        ("again.keras", "Keras", "float32", False),
        ("older.h5", "HDF5", "float32", False),
        ("it.weights.h5", "HDF5", "float32", False),
        ("exported", "SavedModel", "float32", False),
        ("frozen.pb", "frozen graph", "float32", False),
        ("float16.tflite", "TFLite", "float16", True),
        ("dynamic.tflite", "TFLite", "int8", True),
    ],
)
def test_the_same_weights(made, name, form, precision, is_folded):
    found = one(made / name)
    assert (found.form, found.network) == (form, networks.THIS)
    assert found.confidence == "certain"
    assert found.relation == "same", found.differences[:5]
    assert found.matched == found.compared == 245
    assert found.precision[0] == precision
    assert found.is_folded is is_folded
    assert found.classes == narrow_network.CLASSES
    if form not in ("HDF5", "SavedModel"):  # Which do not say how images get in.
        assert found.input_range == (0, 1)


@pytest.mark.parametrize("name", ["frozen.pb", "dynamic.tflite", "older.h5"])
def test_another_seed(made, name):
    other = narrow_network.checkpoint(seed=1)
    found = one(made / name, other)
    assert found.network == networks.THIS
    assert found.relation == "unrelated"


def test_own_classes(made):
    found = one(made / "own.keras")
    assert found.classes == 3
    assert [d.layer for d in found.differences] == ["InceptionResnetV2/Logits/Logits"]


@pytest.mark.parametrize("name", ["frozen.pb", "float16.tflite", "dynamic.tflite"])
def test_one_layer_changed(made, name):
    layer = "InceptionResnetV2/Repeat_1/block17_7/Branch_0/Conv2d_1x1"
    kernel = CHECKPOINT[f"{layer}/weights"]
    noise = np.random.default_rng(1).normal(0, 0.1 * kernel.std(), kernel.shape)
    changed = dict(CHECKPOINT) | {f"{layer}/weights": (kernel + noise).astype("f")}
    found = one(made / name, narrow_network.of(changed))
    assert found.relation == "fine-tuned"
    assert [(d.layer, d.what) for d in found.differences] == [(layer, "kernel")]
    assert found.differences[0].difference == pytest.approx(0.1, rel=0.2)
