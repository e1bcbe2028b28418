"""TF-Slim on a current TensorFlow.

tf-slim 1.1.0 (2020, the last release) expects two names that TensorFlow has moved
since: `tensorflow.python.framework.ops.Tensor`, and the package
`tf_keras.legacy_tf_layers`, which now lives under `tf_keras.src`. `import_tf_slim` puts
both back before tf_slim is first imported. Nothing else of TensorFlow is touched.
"""

import importlib
import os
import sys
from types import ModuleType

from exporters.network import tensorflow_internals


def import_tf_slim() -> ModuleType:
    """Imports tf_slim, and TensorFlow if this is its first use in the process.

    Returns:
      The module `tf_slim`.

    Raises:
      RuntimeError: TensorFlow was imported before, without `TF_USE_LEGACY_KERAS=1`, and
        has already bound itself to Keras 3, in which TF-Slim's layers do not exist.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if os.environ["TF_USE_LEGACY_KERAS"] not in ("1", "true", "True"):
        raise RuntimeError(
            "TF-Slim needs tf-keras, but the environment has "
            f"TF_USE_LEGACY_KERAS={os.environ['TF_USE_LEGACY_KERAS']!r}: unset it or "
            "set it to 1."
        )
    import tensorflow as tf

    ops = tensorflow_internals.framework_ops()
    if not hasattr(ops, "Tensor"):
        ops.Tensor = tf.Tensor
    for name, module in tensorflow_internals.legacy_layers().items():
        sys.modules.setdefault(name, module)
    return importlib.import_module("tf_slim")
