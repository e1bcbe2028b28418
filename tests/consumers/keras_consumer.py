"""Uses the Keras models and weights as people do, with Keras 3 on the backend there is."""

import functools
import importlib.util
import os

BACKENDS = ("tensorflow", "jax", "torch")
os.environ["KERAS_BACKEND"] = next(filter(importlib.util.find_spec, BACKENDS))

import checks  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

SIZES = {"classification": "299x299", "feature_vector": "224x320"}


def path_of(task, format, suffix):
    name = f"inception_resnet_v2-{task}-{format}-stand-in{suffix}"
    return os.path.join(os.environ["TWINS"], name)


def load(task):
    return keras.models.load_model(path_of(task, "keras", ".keras"))


loaded = functools.lru_cache(maxsize=None)(load)
"""Shared by checks; what one of them trains, no later one compares."""


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def check_models_compute_what_tf_slim_does(reference):
    for task, size in SIZES.items():
        found = loaded(task).predict(reference[size + "/images"], verbose=0)
        checks.assert_close(found, reference[f"{size}/{checks.OUTPUTS[task]}"])


def check_training_normalizes_by_the_batch(reference):
    found = array(loaded("feature_vector")(reference["139x139/images"], training=True))
    checks.assert_close(found, reference["139x139/train/feature_vector"], 2e-4)


def check_fit_moves_averages_and_kernels(reference):
    model = load("feature_vector")
    kernel = model.get_layer("Conv2d_1a_3x3").kernel
    norm = model.get_layer("Conv2d_1a_3x3-BatchNorm")
    batch = reference["139x139/images"]
    first = keras.Model(model.input, model.get_layer("Conv2d_1a_3x3").output)
    mean = array(first(batch)).mean(axis=(0, 1, 2))
    average, before = array(norm.moving_mean), array(kernel)
    model.compile(keras.optimizers.SGD(1e-3), loss="mse", run_eagerly=True)
    target = np.zeros((len(batch), model.output_shape[-1]), np.float32)
    model.fit(batch, target, batch_size=len(batch), epochs=1, verbose=0)
    moved = array(norm.moving_mean) - average
    assert np.abs(moved - 0.01 * (mean - average)).max() < 1e-6
    assert np.abs(array(kernel) - before).max() > 0


def check_own_classes_on_top(reference):
    features = loaded("feature_vector")
    features.trainable = False
    model = keras.Sequential([features, keras.layers.Dense(3)])
    found = array(model(reference["139x139/images"]))
    assert found.shape == (len(reference["139x139/images"]), 3)


def check_keras_applications(reference):
    checks.assert_applications_agree(
        keras.applications.InceptionResNetV2,
        path_of("classification", "keras-weights", ".weights.h5"),
        path_of("feature_vector", "keras-weights", ".weights.h5"),
        reference,
    )


if __name__ == "__main__":
    checks.main(globals())
