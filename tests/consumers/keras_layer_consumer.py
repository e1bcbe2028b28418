"""Uses v4 and v5 as TensorFlow 2 programs do, and v3 as far as those can.

Runs unchanged with TensorFlow 1.15 to 2.21 and tensorflow-hub 0.7 to 0.16. Snippets are
those of the documentation published with the model.
"""

import importlib.util
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if importlib.util.find_spec("tf_keras"):
    # What hub.KerasLayer and the snippets mean by Keras, since TensorFlow 2.16.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import checks
import numpy as np
import tensorflow as tf

tf.compat.v1.enable_v2_behavior()
import tensorflow_hub as hub  # noqa: E402

tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)

TENSORFLOW = tuple(int(number) for number in tf.__version__.split(".")[:2])
HANDLE = "https://tfhub.dev/google/imagenet/inception_resnet_v2/{}/{}"
DEFAULT_OUTPUTS = {"feature_vector": "feature_vector", "classification": "logits"}
ENDPOINTS = {"feature_vector": 13, "classification": 16}


def check_feature_vector_4(reference):
    """Usage as documented: a frozen layer, any image size."""
    num_classes = 5
    # fmt: off
    m = tf.keras.Sequential([
        hub.KerasLayer("https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/4",
                       trainable=False),  # Can be True, see below.
        tf.keras.layers.Dense(num_classes, activation='softmax')
    ])
    m.build([None, 299, 299, 3])  # Batch input shape.
    # fmt: on

    layer = m.layers[0]
    assert len(m.trainable_weights) == 2
    assert len(layer.non_trainable_weights) == 896
    images = reference["299x299/images"]
    probabilities = m(tf.constant(images))
    do_not_optimize()
    assert probabilities.shape.as_list() == [len(images), num_classes]
    for size in ("299x299", "224x320", "75x75"):
        found = layer(tf.constant(reference[size + "/images"]))
        checks.assert_close(found.numpy(), reference[size + "/feature_vector"])

    before = values(layer.weights)
    layer(tf.constant(reference["75x75/images"]), training=True)
    assert_equal(values(layer.weights), before)
    assert_endpoints(layer.resolved_object, "feature_vector", reference)


def do_not_optimize():
    """Optimizing graphs, which only pays where they run long, is enough once."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def check_feature_vector_4_fine_tuning(reference):
    """Fine-tuning as documented."""
    # fmt: off
    layer = hub.KerasLayer("https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/4",
                   trainable=True, arguments=dict(batch_norm_momentum=0.997))
    # fmt: on

    images = tf.constant(reference["139x139/images"])
    assert len(layer.trainable_weights) == reference["trained"]
    assert len(layer.non_trainable_weights) == reference["averages"]
    found = layer(images, training=True)
    checks.assert_close(
        found.numpy(), reference["139x139/train/feature_vector"], tolerance=2e-4
    )
    assert len(layer.losses) == reference["losses"]

    weights = first(layer.weights, "Conv2d_1a_3x3/weights")
    averages = [
        first(layer.weights, "Conv2d_1a_3x3/BatchNorm/moving_" + name)
        for name in ("mean", "variance")
    ]
    # The statistics of the first convolution, computed without the layer.
    statistics = tf.nn.moments(
        tf.nn.conv2d(2 * images - 1, weights, strides=2, padding="VALID"), [0, 1, 2]
    )
    before = values(averages)
    layer(images, training=True)
    fraction = checks.moved_fraction(before, values(averages), values(statistics))
    assert abs(fraction - 0.003) < 3e-5, fraction

    before = values(layer.weights)
    layer(images, training=False)
    assert_equal(values(layer.weights), before)
    before = values(averages)
    assert_loss_falls(layer, images)
    assert all((v != b).any() for v, b in zip(values(averages), before))


def assert_loss_falls(layer, images):
    """Three steps of training, each lowering the loss."""
    losses = [train(layer, images) for _ in range(3)]
    losses.append(float(loss_of(layer, images)))
    assert losses == sorted(losses, reverse=True), losses


def train(layer, images):
    """One step of gradient descent; returns the loss before it."""
    with tf.GradientTape() as tape:
        loss = loss_of(layer, images)
    gradients = tape.gradient(loss, layer.trainable_weights)
    assert not any(gradient is None for gradient in gradients)
    optimizer = tf.keras.optimizers.SGD(0.002)
    optimizer.apply_gradients(zip(gradients, layer.trainable_weights))
    return float(loss)


def loss_of(layer, images):
    outputs = layer(images, training=True)
    return tf.reduce_mean(tf.square(outputs - 1)) + tf.add_n(layer.losses)


def assert_endpoints(model, task, reference):
    """All endpoints at once, with a momentum beside, as people write it."""
    layer = hub.KerasLayer(
        model, arguments=dict(return_endpoints=True, batch_norm_momentum=0.9)
    )
    outputs = layer(tf.constant(reference["299x299/images"]))
    assert len(outputs) == 1 + ENDPOINTS[task]
    for key, value in outputs.items():
        key = DEFAULT_OUTPUTS[task] if key == "default" else key
        checks.assert_close(value.numpy(), reference["299x299/" + key])


def check_classification_4(reference):
    """Logits and endpoints."""
    model = hub.load(HANDLE.format("classification", 4))
    assert_endpoints(model, "classification", reference)


def check_classification_4_fine_tuning(reference):
    """Logits, dropout and training."""
    layer = hub.KerasLayer(HANDLE.format("classification", 4), trainable=True)
    assert len(layer.trainable_weights) == reference["trained"] + 2
    images = tf.constant(reference["139x139/images"])
    checks.assert_close(layer(images).numpy(), reference["139x139/logits"])
    logits = [layer(images, training=True).numpy() for _ in range(2)]
    assert np.isfinite(logits).all() and not np.allclose(*logits)
    train(layer, images)


def check_feature_vector_5(reference):
    """The signature, with hub.load alone."""
    model = hub.load(HANDLE.format("feature_vector", 5))
    images = tf.constant(reference["139x139/images"])
    checks.assert_close(model(images).numpy(), reference["139x139/feature_vector"])
    served = model.signatures["serving_default"](images)
    assert list(served) == ["feature_vector"]
    checks.assert_close(
        served["feature_vector"].numpy(), reference["139x139/feature_vector"]
    )


def check_feature_vector_5_fine_tuning(reference):
    """Momentum and regularization losses, with hub.load alone."""
    model = hub.load(HANDLE.format("feature_vector", 5))
    images = tf.constant(reference["139x139/images"])
    averages = [v for v in model.variables if "/moving_" in v.name]
    assert len(averages) == reference["averages"]
    history = [values(averages)]
    for arguments in ({}, {"batch_norm_momentum": 0.5}, {"batch_norm_momentum": 0.0}):
        model(images, training=True, **arguments)
        history.append(values(averages))
    before, after_default, after_half, statistics = history
    assert abs(checks.moved_fraction(before, after_default, statistics) - 0.01) < 1e-6
    for found, start, end in zip(after_half, after_default, statistics):
        checks.assert_close(found, (start + end) / 2, tolerance=1e-5)

    regularization = float(tf.add_n([loss() for loss in model.regularization_losses]))
    expected = 4e-5 * sum(
        float(tf.nn.l2_loss(variable))
        for variable in model.trainable_variables
        if "BatchNorm" not in variable.name
    )
    assert abs(regularization / expected - 1) < 1e-4
    assert_loss_falls(hub.KerasLayer(model, trainable=True), images)


def check_serving(reference):
    """Programs that find the tensors of v5 by name, as those in Go and C++ do."""
    path = hub.resolve(HANDLE.format("classification", 5))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], path)
        signature = meta_graph.signature_def["serving_default"]
        assert signature.inputs["inputs"].name == "serving_default_inputs:0"
        assert signature.outputs["logits"].name == "StatefulPartitionedCall:0"
        found = session.run(
            "StatefulPartitionedCall:0",
            {"serving_default_inputs:0": reference["299x299/images"]},
        )
    checks.assert_close(found, reference["299x299/logits"])


def check_conversion_to_tflite(reference):
    """TensorFlow's own converter, which once stumbled over v5 from 2.16 on."""
    if TENSORFLOW < (2, 16):
        raise checks.NotApplicable("converting takes minutes; the newest does")
    converter = tf.lite.TFLiteConverter.from_saved_model(
        hub.resolve(HANDLE.format("feature_vector", 5))
    )
    images = reference["139x139/images"]
    expected = reference["139x139/feature_vector"]
    checks.assert_close(run_tflite(converter.convert(), images), expected, 1e-4)


def check_conversion_after_fine_tuning(reference):
    """It once stumbled over v4 in 2.15, as TF Hub's own tools convert it."""
    if not (2, 15) <= TENSORFLOW < (2, 16):
        raise checks.NotApplicable("converting takes minutes; TensorFlow 2.15 does")
    images = reference["139x139/images"]
    model = tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer(images.shape[1:]),
            hub.KerasLayer(HANDLE.format("feature_vector", 4), trainable=True),
            tf.keras.layers.Dense(5, activation="softmax"),
        ]
    )
    untrained = model.predict(images, verbose=0)
    model.compile(tf.keras.optimizers.SGD(0.002), "sparse_categorical_crossentropy")
    for _ in range(2):
        model.train_on_batch(images, np.arange(len(images)))
    expected = model.predict(images, verbose=0)
    assert np.abs(expected - untrained).max() > 1e-2
    converted = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    checks.assert_close(run_tflite(converted, images), expected, 1e-4)


def run_tflite(content, images):
    """Runs a TFLite model of one input and one output."""
    interpreter = tf.lite.Interpreter(model_content=content)
    image_input = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(image_input, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(image_input, images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def check_older_format(reference):
    """TensorFlow 2 runs the signatures of v3, of its inference and training graphs."""
    if not (2, 5) < TENSORFLOW < (2, 16):
        raise checks.NotApplicable("one TensorFlow 2 that has hub.Module too is enough")
    images = tf.constant(reference["139x139/images"])
    layer = hub.KerasLayer(
        HANDLE.format("feature_vector", 3),
        signature="image_feature_vector",
        signature_outputs_as_dict=True,
    )
    outputs = layer(images)
    assert len(outputs) == 1 + ENDPOINTS["feature_vector"]
    expected = reference["139x139/feature_vector"]
    checks.assert_close(outputs["default"].numpy(), expected)
    model = hub.load(HANDLE.format("feature_vector", 3), tags=["train"])
    found = model.signatures["image_feature_vector"](images)["default"]
    expected = reference["139x139/train/feature_vector"]
    checks.assert_close(found.numpy(), expected, tolerance=2e-4)


def values(tensors):
    return [tensor.numpy() for tensor in tensors]


def first(variables, name):
    return next(variable for variable in variables if name in variable.name)


def assert_equal(found, expected):
    assert all((f == e).all() for f, e in zip(found, expected))


if __name__ == "__main__":
    checks.main(globals())
