"""What irv2 needs of TensorFlow beyond its public interface, in one place.

A release may move any of it. Each function here says so as soon as it does not find
what it expects, instead of leaving it to whoever loads the artifact.
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
    from tensorflow.core.protobuf.saved_object_graph_pb2 import SavedObjectGraph

CAPTURE_LABEL = "_user_specified_name"
"""Attribute of a function's argument; of a captured value, a number of the process's."""
CALL_SETTINGS = "config_proto"
"""Attribute of a call: devices of the machine and options of the process."""

_NUMBERED = re.compile(r".*_(\d+)")
_LEGACY_LAYERS = ("", ".base", ".convolutional", ".core", ".normalization", ".pooling")


class TensorFlowInternalsError(RuntimeError):
    """A release of TensorFlow in which something irv2 relies on has moved."""

    def __init__(self, what: str):
        import tensorflow as tf

        super().__init__(
            f"TensorFlow {tf.__version__} is not as irv2 knows it: {what}. Use "
            "TensorFlow 2.21, for which irv2 is made."
        )


def legacy_layers() -> dict[str, ModuleType]:
    """Returns the modules of TF1's layers, by the names TF-Slim imports them by."""
    try:
        return {
            f"tf_keras.legacy_tf_layers{name}": importlib.import_module(
                f"tf_keras.src.legacy_tf_layers{name}"
            )
            for name in _LEGACY_LAYERS
        }
    except ImportError as error:
        what = f"tf-keras has no layers of TensorFlow 1 ({error})"
        raise TensorFlowInternalsError(what) from error


def framework_ops() -> Any:
    """Returns the module that TF-Slim takes `Tensor` from."""
    try:
        return importlib.import_module("tensorflow.python.framework.ops")
    except ImportError as error:
        what = f"it has no module of ops ({error})"
        raise TensorFlowInternalsError(what) from error


def is_stateful(op: str) -> bool:
    """Returns whether an op reads or changes something beyond its inputs.

    Raises:
      KeyError: there is no such op, as where a function is called by its name.
    """
    try:
        registry = importlib.import_module(
            "tensorflow.python.framework.op_def_registry"
        )
        definition = registry.get(op)
    except (ImportError, AttributeError) as error:
        what = f"it does not say what ops are like ({error})"
        raise TensorFlowInternalsError(what) from error
    if definition is None:
        raise KeyError(op)
    return definition.is_stateful


def has_tensor_equality() -> bool:
    """Returns whether `==` compares the numbers of tensors, as TF2 does."""
    import tensorflow as tf

    found = getattr(tf.Tensor, "_USE_EQUALITY", None)
    if not isinstance(found, bool):
        raise TensorFlowInternalsError("tensors do not say how they compare")
    return found


def capture(tensor: tf.Tensor) -> tf.Tensor:
    """Returns what stands for an outside tensor in the function being traced."""
    import tensorflow as tf

    graph = tf.compat.v1.get_default_graph()
    if not hasattr(graph, "capture"):
        raise TensorFlowInternalsError("functions being traced capture no tensors")
    return graph.capture(tensor)


def function_number(name: str) -> int:
    """Returns the count of functions made before, which ends a function's name."""
    match = _NUMBERED.fullmatch(name)
    if not match:
        raise TensorFlowInternalsError(f"it saves a function as {name}, not numbered")
    return int(match[1])


def signature_node(objects: SavedObjectGraph) -> int:
    """Returns the number of the node of the only signature's function."""
    maps = [
        node for node in objects.nodes if node.user_object.identifier == "signature_map"
    ]
    found = [child.node_id for node in maps for child in node.children]
    if len(found) != 1 or not objects.nodes[found[0]].HasField(
        "bare_concrete_function"
    ):
        raise TensorFlowInternalsError("it saves a signature in another place")
    return found[0]


def checkpoint_description(meta_graph: MetaGraphDef) -> NodeDef:
    """Returns the constant that describes the checkpoint of a graph without saver.

    Its value is a TrackableObjectGraph, serialized.
    """
    constants = [node for node in meta_graph.graph_def.node if node.op == "Const"]
    if len(constants) != 1:
        raise TensorFlowInternalsError(
            f"it saves {len(constants)} constants, not one that describes the checkpoint"
        )
    return constants[0]
