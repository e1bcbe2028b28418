"""Uses v1 and v3 as TensorFlow 1 programs do, through hub.Module and their handles.

Runs unchanged with TensorFlow 1.12 to 2.15 and tensorflow-hub 0.2 to 0.15. Snippets are
those of the documentation published with the model.
"""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import numpy as np
import tensorflow

if tensorflow.__version__.startswith("1.12."):
    tf = tensorflow
else:
    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
import tensorflow_hub as hub

tf.logging.set_verbosity(tf.logging.ERROR)

HANDLE = "https://tfhub.dev/google/imagenet/inception_resnet_v2/{}/{}"
WITH_MOMENTUM = "_with_bn_hparams"
ENDPOINTS = {  # Name -> height and width for 299 x 299, depth.
    "Conv2d_1a_3x3": (149, 32),
    "Conv2d_2a_3x3": (147, 32),
    "Conv2d_2b_3x3": (147, 64),
    "MaxPool_3a_3x3": (73, 64),
    "Conv2d_3b_1x1": (73, 80),
    "Conv2d_4a_3x3": (71, 192),
    "MaxPool_5a_3x3": (35, 192),
    "Mixed_5b": (35, 320),
    "Mixed_6a": (17, 1088),
    "PreAuxLogits": (17, 1088),
    "Mixed_7a": (8, 2080),
    "Conv2d_7b_1x1": (8, 1536),
    "global_pool": (1, 1536),
}
CLASSIFIER_ENDPOINTS = {"PreLogitsFlatten": 1536, "Logits": 1001, "Predictions": 1001}
TENSORS = {  # Output -> the name that programs look it up by.
    "feature_vector": "hub_output/feature_vector/SpatialSqueeze:0",
    "InceptionResnetV2/global_pool": "InceptionResnetV2/Logits/global_pool:0",
    "InceptionResnetV2/Mixed_5b": "InceptionResnetV2/InceptionResnetV2/Mixed_5b/concat:0",
    "InceptionResnetV2/Conv2d_7b_1x1": "InceptionResnetV2/InceptionResnetV2/Conv2d_7b_1x1/Relu:0",
}


def start_session(optimize=False):
    """Initializes all variables; optimizing graphs only pays where they run long."""
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = not optimize
    session = tf.Session(config=config)
    session.run(tf.global_variables_initializer())
    return session


def images_placeholder():
    return tf.placeholder(tf.float32, [None, None, None, 3])


def expected_outputs(task, version):
    """Returns key -> shape of all outputs of a named signature."""
    shapes = {}
    for name, (size, depth) in ENDPOINTS.items():
        if version == 3 and name != "global_pool":
            size = None
        shapes["InceptionResnetV2/" + name] = [None, size, size, depth]
    if task == "classification":
        for name, depth in CLASSIFIER_ENDPOINTS.items():
            shapes["InceptionResnetV2/" + name] = [None, depth]
    return shapes


def check_specs(reference):
    """Tags, signatures, inputs and outputs of all four modules."""
    for task in ("feature_vector", "classification"):
        for version in (1, 3):
            spec = hub.load_module_spec(HANDLE.format(task, version))
            assert hub.get_expected_image_size(spec) == [299, 299]
            assert hub.get_num_image_channels(spec) == 3
            assert sorted(map(sorted, spec.get_tags())) == [[], ["train"]]
            for tags in (set(), {"train"}):
                assert_spec(spec, tags, task, version)


def assert_spec(spec, tags, task, version):
    main_depths = {"image_feature_vector": 1536}
    if task == "classification":
        main_depths["image_classification"] = 1001
    names = {"default"} | set(main_depths)
    if version == 3:
        names |= {name + WITH_MOMENTUM for name in main_depths}
    assert set(spec.get_signature_names(tags=tags)) == names
    main_depths["default"] = 1536 if task == "feature_vector" else 1001

    for name in names:
        inputs = spec.get_input_info_dict(name, tags=tags)
        outputs = spec.get_output_info_dict(name, tags=tags)
        for info in list(inputs.values()) + list(outputs.values()):
            assert info.dtype == tf.float32
        size = 299 if version == 1 else None
        expected = {"images": [None, size, size, 3]}
        if name.endswith(WITH_MOMENTUM):
            expected["batch_norm_momentum"] = []
        assert shapes_of(inputs) == expected
        main_depth = main_depths[name.replace(WITH_MOMENTUM, "")]
        expected = {"default": [None, main_depth]}
        if name != "default":
            expected.update(expected_outputs(task, version))
        assert shapes_of(outputs) == expected


def shapes_of(infos):
    return {key: info.get_shape().as_list() for key, info in infos.items()}


def check_feature_vector_3(reference):
    """Usage as documented, every endpoint, any image size, tensors by name."""
    with tf.Graph().as_default():
        # fmt: off
        module = hub.Module("https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/3")
        height, width = hub.get_expected_image_size(module)
        images = tf.placeholder(tf.float32, [None, height, width, 3], name="images")
        features = module(images)  # Features with shape [batch_size, num_features].
        # fmt: on

        assert features.shape.as_list() == [None, 1536]
        assert len(module.variable_map) == 896
        with start_session(optimize=True) as session:
            found = session.run(features, {images: reference["299x299/images"]})
            checks.assert_close(found, reference["299x299/feature_vector"])
            assert_saved_graph(session, reference)

            images = images_placeholder()
            outputs = module(images, signature="image_feature_vector", as_dict=True)
            assert_outputs(session, outputs, images, "feature_vector", reference)
            for size in ("224x320", "75x75"):
                feed = {images: reference[size + "/images"]}
                found = session.run(outputs["default"], feed)
                checks.assert_close(found, reference[size + "/feature_vector"])


def assert_outputs(session, outputs, images, default, reference):
    """Every output of a signature has its value."""
    found = session.run(outputs, {images: reference["299x299/images"]})
    for key, value in found.items():
        expected = reference["299x299/" + (default if key == "default" else key)]
        checks.assert_close(value, expected)


def assert_saved_graph(session, reference):
    """A consumer's graph can be saved, imported, and asked for tensors by name."""
    with tempfile.TemporaryDirectory() as directory:
        path = tf.train.Saver().save(session, os.path.join(directory, "model"))
        with tf.Graph().as_default(), tf.Session() as imported:
            tf.train.import_meta_graph(path + ".meta").restore(imported, path)
            for scope, images in (
                ("module_apply_default/", "images:0"),
                ("module/", "module/hub_input/images:0"),
            ):
                found = imported.run(
                    {key: scope + name for key, name in TENSORS.items()},
                    {images: reference["299x299/images"]},
                )
                for key, value in found.items():
                    checks.assert_close(value, reference["299x299/" + key])


def check_feature_vector_3_fine_tuning(reference):
    """Fine-tuning as documented, any momentum, and exporting what came of it."""
    with tf.Graph().as_default():
        images = images_placeholder()
        # fmt: off
        module = hub.Module("https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/3",
                            trainable=True, tags={"train"})
        features = module(inputs=dict(images=images, batch_norm_momentum=0.997),
                          signature="image_feature_vector_with_bn_hparams")
        # fmt: on

        train, loss = training_step(features, reference)
        momentum = tf.placeholder(tf.float32, [])
        given = updates_of(
            lambda: module(
                inputs=dict(images=images, batch_norm_momentum=momentum),
                signature="image_feature_vector_with_bn_hparams",
            ),
            reference,
        )
        default = updates_of(lambda: module(images), reference)
        average = tf.train.ExponentialMovingAverage(0.9)
        smooth = average.apply(tf.trainable_variables()[:2])

        feed = {images: reference["139x139/images"]}
        with start_session() as session:
            found = session.run(features, feed)
            expected = reference["139x139/train/feature_vector"]
            checks.assert_close(found, expected, tolerance=2e-4)

            assert_momentum(session, module, default, given, momentum, feed)
            session.run(smooth)
            for variable in tf.trainable_variables()[:2]:
                found, value = session.run([average.average(variable), variable])
                checks.assert_close(found, value)

            assert_loss_falls(session, train, loss, feed)
            assert_export(session, module, reference)


def training_step(outputs, reference, classifier=0, rate=0.002):
    """Checks what a program needs for training, and returns its step and its loss."""
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    assert len(updates) == reference["averages"]
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    assert len(losses) == reference["losses"] + classifier
    trained = tf.trainable_variables()
    assert len(trained) == reference["trained"] + classifier

    loss = tf.reduce_mean(tf.square(outputs - 1.0)) + tf.add_n(losses)
    gradients = tf.gradients(loss, trained)
    assert not any(gradient is None for gradient in gradients)
    optimizer = tf.train.GradientDescentOptimizer(rate)
    with tf.control_dependencies(updates):
        return optimizer.apply_gradients(zip(gradients, trained)), loss


def assert_loss_falls(session, train, loss, feed):
    """Three steps of training, each lowering the loss."""
    losses = [session.run([loss, train], feed)[0] for _ in range(3)]
    losses.append(session.run(loss, feed))
    assert losses == sorted(losses, reverse=True), losses


def updates_of(apply_module, reference):
    """Returns the update ops that applying a module once more adds."""
    earlier = len(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    apply_module()
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)[earlier:]
    assert len(updates) == reference["averages"]
    return updates


def assert_momentum(session, module, default, given, momentum, feed):
    """Moving averages go 1 % of the way by default, and as far as momentum says."""
    averages = [
        variable
        for name, variable in sorted(module.variable_map.items())
        if "/moving_" in name
    ]
    assert len(averages) == len(default)
    history = [session.run(averages)]
    for updates, value in ((default, None), (given, 0.5), (given, 0.0)):
        session.run(updates, feed if value is None else {momentum: value, **feed})
        history.append(session.run(averages))
    before, after_default, after_half, statistics = history
    assert abs(checks.moved_fraction(before, after_default, statistics) - 0.01) < 1e-6
    for found, start, end in zip(after_half, after_default, statistics):
        checks.assert_close(found, (start + end) / 2, tolerance=1e-5)


def assert_export(session, module, reference):
    """A module exported by its consumer is a module with the consumer's weights."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "module")
        module.export(path, session)
        trained = session.run(module.variable_map)
        with tf.Graph().as_default():
            images = images_placeholder()
            exported = hub.Module(path)
            features = exported(images)
            with start_session() as other:
                found = other.run(exported.variable_map)
                assert set(found) == set(trained)
                for name, value in found.items():
                    assert (value == trained[name]).all(), name
                feed = {images: reference["75x75/images"]}
                difference = (
                    other.run(features, feed) - reference["75x75/feature_vector"]
                )
                assert np.isfinite(difference).all() and difference.any()


def check_feature_vector_1(reference):
    """Usage as documented, every endpoint; and no other image size."""
    with tf.Graph().as_default():
        # fmt: off
        module = hub.Module("https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/1")
        height, width = hub.get_expected_image_size(module)
        images = tf.placeholder(tf.float32, [None, height, width, 3])
        features = module(images)  # Features with shape [batch_size, num_features].
        # fmt: on

        outputs = module(images, signature="image_feature_vector", as_dict=True)
        with start_session() as session:
            feed = {images: reference["299x299/images"]}
            checks.assert_close(
                session.run(features, feed), reference["299x299/feature_vector"]
            )
            assert_outputs(session, outputs, images, "feature_vector", reference)
        try:
            module(tf.placeholder(tf.float32, [None, 224, 320, 3]))
        except (TypeError, ValueError) as error:
            assert "299" in str(error)
        else:
            raise AssertionError("224 x 320 was accepted")


def check_feature_vector_1_fine_tuning(reference):
    """The training graph of v1 has TF-Slim's momentum, 0.9997."""
    with tf.Graph().as_default():
        # fmt: off
        module = hub.Module("https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/1",
                            trainable=True, tags={"train"})
        images = tf.placeholder(tf.float32, [None, 299, 299, 3])
        features = module(images)
        # fmt: on

        train, loss = training_step(features, reference)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        feed = {images: reference["299x299/images"]}
        with start_session() as session:
            # The first convolution's batch statistics, computed without the module.
            first = "InceptionResnetV2/Conv2d_1a_3x3/"
            kernel = module.variable_map[first + "weights"]
            values = tf.nn.conv2d(2 * images - 1, kernel, [1, 2, 2, 1], "VALID")
            statistics = session.run(tf.nn.moments(values, [0, 1, 2]), feed)
            averages = [
                module.variable_map[first + "BatchNorm/moving_" + name]
                for name in ("mean", "variance")
            ]
            before = session.run(averages)
            session.run(updates, feed)
            fraction = checks.moved_fraction(before, session.run(averages), statistics)
            assert abs(fraction - 0.0003) < 3e-6, fraction
            assert_loss_falls(session, train, loss, feed)


def check_classification_1(reference):
    """Usage as documented, every endpoint."""
    assert_classifier(1, reference)


def check_classification_3(reference):
    """Usage as documented, every endpoint, any image size."""
    with tf.Graph().as_default():
        # fmt: off
        module = hub.Module("https://tfhub.dev/google/imagenet/inception_resnet_v2/classification/3")
        height, width = hub.get_expected_image_size(module)
        images = tf.placeholder(tf.float32, [None, height, width, 3])
        logits = module(images)  # Logits with shape [batch_size, num_classes].
        # fmt: on

        assert logits.shape.as_list() == [None, 1001]
    assert_classifier(3, reference)


def assert_classifier(version, reference):
    """Logits, every endpoint, and feature vectors, from the same module."""
    sizes = ("299x299", "224x320", "75x75") if version == 3 else ("299x299",)
    with tf.Graph().as_default():
        module = hub.Module(HANDLE.format("classification", version))
        images = images_placeholder()
        if version == 1:
            images = tf.placeholder(tf.float32, [None, 299, 299, 3])
        outputs = module(images, signature="image_classification", as_dict=True)
        features = module(images, signature="image_feature_vector")
        with start_session() as session:
            for size in sizes:
                feed = {images: reference[size + "/images"]}
                found = session.run([outputs["default"], features], feed)
                checks.assert_close(found[0], reference[size + "/logits"])
                checks.assert_close(found[1], reference[size + "/feature_vector"])
            assert_outputs(session, outputs, images, "logits", reference)


def check_classification_3_fine_tuning(reference):
    """Fine-tuning as documented; dropout is active."""
    with tf.Graph().as_default():
        images = images_placeholder()
        # fmt: off
        module = hub.Module("https://tfhub.dev/google/imagenet/inception_resnet_v2/classification/3",
                            trainable=True, tags={"train"})
        logits = module(inputs=dict(images=images, batch_norm_momentum=0.997),
                        signature="image_classification_with_bn_hparams")
        # fmt: on

        train, loss = training_step(logits, reference, classifier=2, rate=0.01)
        feed = {images: reference["139x139/images"]}
        with start_session() as session:
            first, second = session.run(logits, feed), session.run(logits, feed)
            assert np.isfinite(first).all() and not np.allclose(first, second)
            losses = [session.run([loss, train], feed)[0] for _ in range(12)]
            # Single ones depend on what is dropped.
            assert np.mean(losses[-4:]) < np.mean(losses[:4]), losses


if __name__ == "__main__":
    checks.main(globals())
