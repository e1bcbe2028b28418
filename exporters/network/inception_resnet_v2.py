"""Inception-ResNet-v2 in TF-Slim, as the published checkpoint was trained.

Szegedy, Ioffe, Vanhoucke, Alemi: "Inception-v4, Inception-ResNet and the Impact of
Residual Connections on Learning", 2016, https://arxiv.org/abs/1602.07261. The published
checkpoint belongs to TF-Slim's definition, which departs from the paper's figures in
the stem (that of Inception-v3) and in filter counts; scope names here are the
checkpoint's variable names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.network.tf_slim_compat import import_tf_slim

if TYPE_CHECKING:
    import tensorflow as tf

NUM_CLASSES = 1001
NUM_FEATURES = 1536
DEFAULT_IMAGE_SIZE = 299
MINIMUM_IMAGE_SIZE = 75
DROPOUT_KEEP_PROBABILITY = 0.8
TRAINING_MOMENTUM = 0.9997
"""Batch norm momentum that the published checkpoint was trained with."""
BATCH_NORM_EPSILON = 0.001
WEIGHT_DECAY = 4e-5
RESIDUAL_SCALES = {"block35": 0.17, "block17": 0.10, "block8": 0.20}


def inception_resnet_v2(
    inputs: tf.Tensor,
    *,
    num_classes: int | None = NUM_CLASSES,
    is_training: bool = False,
    batch_norm_momentum: float | tf.Tensor = TRAINING_MOMENTUM,
    auxiliary_head: bool = True,
    updates_collection: str | None = "update_ops",
) -> dict[str, tf.Tensor]:
    """Builds the network in the current TF1 graph.

    Variables are created below `InceptionResnetV2/`, with the checkpoint's names, and
    join TensorFlow's collections (GLOBAL_VARIABLES, MODEL_VARIABLES,
    TRAINABLE_VARIABLES); L2 regularizers of 4e-5 for all weights and biases join
    REGULARIZATION_LOSSES.

    Args:
      inputs: float32 [batch, height, width, 3], RGB, scaled to [-1, 1]. Height and
        width may be unknown; both must be at least 75.
      num_classes: width of the logits, or None for no classifier: neither its
        variables nor the endpoints after `global_pool` are made.
      is_training: normalize by batch statistics, update the moving averages, drop
        features out before the logits.
      batch_norm_momentum: float or float32 scalar tensor in [0, 1]; a moving average
        becomes `momentum * average + (1 - momentum) * batch statistic`.
      auxiliary_head: build the auxiliary classifier of the training loss. It exists
        only for a known input size of at least 299 x 299 or so, and with classes.
      updates_collection: name of the graph collection that receives the updates of the
        moving averages. None makes them part of the output's computation.

    Returns:
      Endpoint name -> tensor, in network order. `global_pool` is
      [batch, 1, 1, 1536], `PreLogitsFlatten` [batch, 1536] (after dropout), `Logits`,
      `AuxLogits` and `Predictions` [batch, num_classes].
    """
    slim = import_tf_slim()
    import tensorflow.compat.v1 as tf

    batch_norm_params = {
        "decay": batch_norm_momentum,
        "epsilon": BATCH_NORM_EPSILON,
        "scale": False,
        "fused": True,
        "is_training": is_training,
        "updates_collections": updates_collection,
    }
    l2 = slim.l2_regularizer(WEIGHT_DECAY)
    with (
        tf.variable_scope("InceptionResnetV2") as scope,
        slim.arg_scope(
            [slim.conv2d, slim.fully_connected],
            weights_regularizer=l2,
            biases_regularizer=l2,
        ),
        slim.arg_scope(
            [slim.conv2d],
            activation_fn=tf.nn.relu,
            normalizer_fn=slim.batch_norm,
            normalizer_params=batch_norm_params,
        ),
        slim.arg_scope(
            [slim.conv2d, slim.max_pool2d, slim.avg_pool2d], stride=1, padding="SAME"
        ),
    ):
        with tf.variable_scope(scope):  # A second InceptionResnetV2/ in op names.
            out = _convolutions(inputs)
        if auxiliary_head and num_classes:
            out["AuxLogits"] = _auxiliary_logits(out["PreAuxLogits"], num_classes)
        out.update(_head(out["Conv2d_7b_1x1"], num_classes, is_training))
    return out


def _convolutions(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """All convolutions, in blocks; 299 x 299 x 3 becomes 8 x 8 x 1536."""
    slim = import_tf_slim()
    import tensorflow.compat.v1 as tf

    conv, max_pool = slim.conv2d, slim.max_pool2d
    out = {}

    name = "Conv2d_1a_3x3"  # 149 x 149 x 32
    out[name] = x = conv(x, 32, 3, stride=2, padding="VALID", scope=name)
    name = "Conv2d_2a_3x3"  # 147 x 147 x 32
    out[name] = x = conv(x, 32, 3, padding="VALID", scope=name)
    name = "Conv2d_2b_3x3"  # 147 x 147 x 64
    out[name] = x = conv(x, 64, 3, scope=name)
    name = "MaxPool_3a_3x3"  # 73 x 73 x 64
    out[name] = x = max_pool(x, 3, stride=2, padding="VALID", scope=name)
    name = "Conv2d_3b_1x1"  # 73 x 73 x 80
    out[name] = x = conv(x, 80, 1, padding="VALID", scope=name)
    name = "Conv2d_4a_3x3"  # 71 x 71 x 192
    out[name] = x = conv(x, 192, 3, padding="VALID", scope=name)
    name = "MaxPool_5a_3x3"  # 35 x 35 x 192
    out[name] = x = max_pool(x, 3, stride=2, padding="VALID", scope=name)

    with tf.variable_scope("Mixed_5b"):  # 35 x 35 x 320
        with tf.variable_scope("Branch_0"):
            b0 = conv(x, 96, 1, scope="Conv2d_1x1")
        with tf.variable_scope("Branch_1"):
            b1 = conv(x, 48, 1, scope="Conv2d_0a_1x1")
            b1 = conv(b1, 64, 5, scope="Conv2d_0b_5x5")
        with tf.variable_scope("Branch_2"):
            b2 = conv(x, 64, 1, scope="Conv2d_0a_1x1")
            b2 = conv(b2, 96, 3, scope="Conv2d_0b_3x3")
            b2 = conv(b2, 96, 3, scope="Conv2d_0c_3x3")
        with tf.variable_scope("Branch_3"):
            b3 = slim.avg_pool2d(x, 3, scope="AvgPool_0a_3x3")
            b3 = conv(b3, 64, 1, scope="Conv2d_0b_1x1")
        out["Mixed_5b"] = x = tf.concat([b0, b1, b2, b3], axis=3)

    x = slim.repeat(x, 10, block35, scale=RESIDUAL_SCALES["block35"])

    with tf.variable_scope("Mixed_6a"):  # 17 x 17 x 1088
        with tf.variable_scope("Branch_0"):
            b0 = conv(x, 384, 3, stride=2, padding="VALID", scope="Conv2d_1a_3x3")
        with tf.variable_scope("Branch_1"):
            b1 = conv(x, 256, 1, scope="Conv2d_0a_1x1")
            b1 = conv(b1, 256, 3, scope="Conv2d_0b_3x3")
            b1 = conv(b1, 384, 3, stride=2, padding="VALID", scope="Conv2d_1a_3x3")
        with tf.variable_scope("Branch_2"):
            b2 = max_pool(x, 3, stride=2, padding="VALID", scope="MaxPool_1a_3x3")
        out["Mixed_6a"] = x = tf.concat([b0, b1, b2], axis=3)

    out["PreAuxLogits"] = x = slim.repeat(
        x, 20, block17, scale=RESIDUAL_SCALES["block17"]
    )

    with tf.variable_scope("Mixed_7a"):  # 8 x 8 x 2080
        with tf.variable_scope("Branch_0"):
            b0 = conv(x, 256, 1, scope="Conv2d_0a_1x1")
            b0 = conv(b0, 384, 3, stride=2, padding="VALID", scope="Conv2d_1a_3x3")
        with tf.variable_scope("Branch_1"):
            b1 = conv(x, 256, 1, scope="Conv2d_0a_1x1")
            b1 = conv(b1, 288, 3, stride=2, padding="VALID", scope="Conv2d_1a_3x3")
        with tf.variable_scope("Branch_2"):
            b2 = conv(x, 256, 1, scope="Conv2d_0a_1x1")
            b2 = conv(b2, 288, 3, scope="Conv2d_0b_3x3")
            b2 = conv(b2, 320, 3, stride=2, padding="VALID", scope="Conv2d_1a_3x3")
        with tf.variable_scope("Branch_3"):
            b3 = max_pool(x, 3, stride=2, padding="VALID", scope="MaxPool_1a_3x3")
        out["Mixed_7a"] = x = tf.concat([b0, b1, b2, b3], axis=3)

    x = slim.repeat(x, 9, block8, scale=RESIDUAL_SCALES["block8"])
    x = block8(x, scale=1.0, activate=False, scope="Block8")

    name = "Conv2d_7b_1x1"  # 8 x 8 x 1536
    out[name] = conv(x, NUM_FEATURES, 1, scope=name)
    return out


def block35(x: tf.Tensor, scale: float, scope: str) -> tf.Tensor:
    """Inception-ResNet-A, the residual block of the 35 x 35 grid."""
    slim = import_tf_slim()
    import tensorflow.compat.v1 as tf

    conv = slim.conv2d
    with tf.variable_scope(scope):
        with tf.variable_scope("Branch_0"):
            b0 = conv(x, 32, 1, scope="Conv2d_1x1")
        with tf.variable_scope("Branch_1"):
            b1 = conv(x, 32, 1, scope="Conv2d_0a_1x1")
            b1 = conv(b1, 32, 3, scope="Conv2d_0b_3x3")
        with tf.variable_scope("Branch_2"):
            b2 = conv(x, 32, 1, scope="Conv2d_0a_1x1")
            b2 = conv(b2, 48, 3, scope="Conv2d_0b_3x3")
            b2 = conv(b2, 64, 3, scope="Conv2d_0c_3x3")
        return _add_residual(x, [b0, b1, b2], scale)


def block17(x: tf.Tensor, scale: float, scope: str) -> tf.Tensor:
    """Inception-ResNet-B, the residual block of the 17 x 17 grid."""
    slim = import_tf_slim()
    import tensorflow.compat.v1 as tf

    conv = slim.conv2d
    with tf.variable_scope(scope):
        with tf.variable_scope("Branch_0"):
            b0 = conv(x, 192, 1, scope="Conv2d_1x1")
        with tf.variable_scope("Branch_1"):
            b1 = conv(x, 128, 1, scope="Conv2d_0a_1x1")
            b1 = conv(b1, 160, [1, 7], scope="Conv2d_0b_1x7")
            b1 = conv(b1, 192, [7, 1], scope="Conv2d_0c_7x1")
        return _add_residual(x, [b0, b1], scale)


def block8(x: tf.Tensor, scale: float, scope: str, activate: bool = True) -> tf.Tensor:
    """Inception-ResNet-C, the residual block of the 8 x 8 grid."""
    slim = import_tf_slim()
    import tensorflow.compat.v1 as tf

    conv = slim.conv2d
    with tf.variable_scope(scope):
        with tf.variable_scope("Branch_0"):
            b0 = conv(x, 192, 1, scope="Conv2d_1x1")
        with tf.variable_scope("Branch_1"):
            b1 = conv(x, 192, 1, scope="Conv2d_0a_1x1")
            b1 = conv(b1, 224, [1, 3], scope="Conv2d_0b_1x3")
            b1 = conv(b1, 256, [3, 1], scope="Conv2d_0c_3x1")
        return _add_residual(x, [b0, b1], scale, activate)


def _add_residual(
    x: tf.Tensor, branches: list[tf.Tensor], scale: float, activate: bool = True
) -> tf.Tensor:
    """Projects the branches to x's depth and adds a fraction of them to x."""
    slim = import_tf_slim()
    import tensorflow.compat.v1 as tf

    residual = slim.conv2d(
        tf.concat(branches, axis=3),
        x.shape[3],
        1,
        normalizer_fn=None,
        activation_fn=None,
        scope="Conv2d_1x1",
    )
    x = x + residual * scale
    return tf.nn.relu(x) if activate else x


def _auxiliary_logits(x: tf.Tensor, num_classes: int) -> tf.Tensor:
    """The auxiliary classifier, from 17 x 17 x 1088."""
    slim = import_tf_slim()
    import tensorflow.compat.v1 as tf

    with tf.variable_scope("AuxLogits"):
        x = slim.avg_pool2d(x, 5, stride=3, padding="VALID", scope="Conv2d_1a_3x3")
        x = slim.conv2d(x, 128, 1, scope="Conv2d_1b_1x1")
        x = slim.conv2d(x, 768, x.shape[1:3], padding="VALID", scope="Conv2d_2a_5x5")
        x = slim.flatten(x)
        return slim.fully_connected(x, num_classes, activation_fn=None, scope="Logits")


def _head(
    x: tf.Tensor, num_classes: int | None, is_training: bool
) -> dict[str, tf.Tensor]:
    """Global average pooling and, with classes, the classifier."""
    slim = import_tf_slim()
    import tensorflow.compat.v1 as tf

    out = {}
    with tf.variable_scope("Logits"):
        if x.shape[1:3].is_fully_defined():
            x = slim.avg_pool2d(
                x, x.shape[1:3], padding="VALID", scope="AvgPool_1a_8x8"
            )
        else:
            x = tf.reduce_mean(x, [1, 2], keepdims=True, name="global_pool")
        out["global_pool"] = x
        if not num_classes:
            return out
        x = slim.flatten(x)
        x = slim.dropout(
            x, DROPOUT_KEEP_PROBABILITY, is_training=is_training, scope="Dropout"
        )
        out["PreLogitsFlatten"] = x
        x = slim.fully_connected(x, num_classes, activation_fn=None, scope="Logits")
        out["Logits"] = x
        out["Predictions"] = tf.nn.softmax(x, name="Predictions")
    return out
