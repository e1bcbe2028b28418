"""Gives the weights to Keras Applications of Keras 2: tf-keras, or TensorFlow's own."""

import os

import checks

try:
    import tf_keras as keras
except ImportError:
    from tensorflow import keras


def path_of(task):
    name = f"inception_resnet_v2-{task}-keras-weights-stand-in.weights.h5"
    return os.path.join(os.environ["TWINS"], name)


def check_keras_applications(reference):
    checks.assert_applications_agree(
        keras.applications.InceptionResNetV2,
        path_of("classification"),
        path_of("feature_vector"),
        reference,
    )


if __name__ == "__main__":
    checks.main(globals())
