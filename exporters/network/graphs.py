"""The TF-Slim graphs that every format starts from, each built once per process.

The names of tensors in these graphs are part of the published TF1 Hub format:
`hub_input/images`, `hub_output/feature_vector/SpatialSqueeze` and TF-Slim's own.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from exporters.network import inception_resnet_v2 as network
from exporters.network import tensorflow_internals
from exporters.network.tasks import FEATURE_VECTOR, Task
from exporters.network.tf_slim_compat import import_tf_slim

if TYPE_CHECKING:
    import tensorflow as tf

HUB_MOMENTUM = 0.99
"""Batch norm momentum of the published modules since v3, unless the consumer gives one."""


@dataclasses.dataclass(frozen=True)
class NetworkGraph:
    """The whole network in a TF1 graph.

    Attributes:
      graph: resource variables, named as in the checkpoint, and TF1 collections. The
        updates of the moving averages are in UPDATE_OPS.
      images: float32 [batch, height, width, 3] in [0, 1].
      batch_norm_momentum: float32 scalar, a placeholder with default; used in training.
      feature_vector: float32 [batch, 1536].
      endpoints: TF-Slim's endpoint name -> tensor.
      variables: checkpoint name -> variable.
    """

    graph: tf.Graph
    images: tf.Tensor
    batch_norm_momentum: tf.Tensor
    feature_vector: tf.Tensor
    endpoints: Mapping[str, tf.Tensor]
    variables: Mapping[str, tf.Variable]

    @property
    def updates(self) -> list[tf.Operation]:
        """Ops that update the moving averages; none in an evaluation graph."""
        return self.graph.get_collection("update_ops")

    def variable_names(self, task: Task) -> list[str]:
        """Names of the task's variables: a feature vector needs no classifier."""
        return [
            name
            for name in self.variables
            if task.needs_classifier or not name.startswith("InceptionResnetV2/Logits/")
        ]

    def subgraph(self, op_names: Iterable[str]) -> tf.GraphDef:
        """The part of the graph that the named ops need.

        In a training graph, FusedBatchNormV3 gets empty constants for mean and
        variance, as TensorFlow 1 had it. Current TensorFlow passes the moving averages,
        which training does not use, and on which older TensorFlow's gradient fails.
        """
        import tensorflow.compat.v1 as tf

        graph_def = self.graph.as_graph_def()
        for node in list(graph_def.node):
            if node.op != "FusedBatchNormV3" or not node.attr["is_training"].b:
                continue
            empty = graph_def.node.add(name=f"{node.name}/empty", op="Const")
            empty.attr["dtype"].type = tf.float32.as_datatype_enum
            empty.attr["value"].tensor.CopyFrom(
                tf.make_tensor_proto(np.zeros(0, np.float32))
            )
            node.input[3:5] = [empty.name, empty.name]
        return tf.graph_util.extract_sub_graph(graph_def, list(op_names))

    def outputs(self, task: Task) -> dict[str, tf.Tensor]:
        """The published outputs of a task: "default" and all its endpoints."""
        is_features = task == FEATURE_VECTOR
        default = self.feature_vector if is_features else self.endpoints["Logits"]
        return {"default": default} | {
            name: self.endpoints[endpoint] for name, endpoint in task.published.items()
        }

    def start_session(self, weights: Mapping[str, np.ndarray]) -> tf.Session:
        """Returns a session in which the variables hold the checkpoint's weights.

        It runs the graph as it is: TensorFlow's optimizer takes longer than a few runs,
        and folds batch norm, with other rounding.
        """
        import tensorflow.compat.v1 as tf

        config = tf.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        session = tf.Session(graph=self.graph, config=config)
        with self.graph.as_default():
            session.run(
                [variable.initializer for variable in self.variables.values()],
                {v.initial_value: weights[name] for name, v in self.variables.items()},
            )
        return session


class NetworkGraphs:
    """Builds the network's graphs on demand and keeps them."""

    def __init__(self) -> None:
        self._graphs: dict[tuple, NetworkGraph] = {}

    def get(
        self,
        *,
        num_classes: int | None = network.NUM_CLASSES,
        is_training: bool = False,
        image_size: tuple[int, int] | None = None,
        auxiliary_head: bool = False,
    ) -> NetworkGraph:
        """Returns the network's graph, built at the first call with these arguments.

        Args:
          num_classes: width of the logits; None for no classifier.
          is_training: batch norm on batch statistics with updates, and dropout.
          image_size: (height, width) in pixels, each at least 75; None leaves both to
            be decided by each batch.
          auxiliary_head: with the classifier of the training loss, for 299 x 299.
        """
        key = (num_classes, is_training, image_size, auxiliary_head)
        if key not in self._graphs:
            self._graphs[key] = _build(*key)
        return self._graphs[key]


def _build(
    num_classes: int | None,
    is_training: bool,
    image_size: tuple[int, int] | None,
    auxiliary_head: bool,
) -> NetworkGraph:
    import_tf_slim()
    import tensorflow.compat.v1 as tf

    height, width = image_size or (None, None)
    with tf.Graph().as_default() as graph, _variables_hashed_by_identity():
        tf.get_variable_scope().set_use_resource(True)
        with tf.name_scope("hub_input"):
            images = tf.placeholder(tf.float32, [None, height, width, 3], name="images")
            inputs = tf.subtract(tf.multiply(images, 2.0, name="Mul"), 1.0, name="Sub")
        momentum = tf.placeholder_with_default(
            tf.constant(HUB_MOMENTUM), [], name="batch_norm_momentum"
        )
        endpoints = network.inception_resnet_v2(
            inputs,
            num_classes=num_classes,
            is_training=is_training,
            batch_norm_momentum=momentum,
            auxiliary_head=auxiliary_head,
        )
        with tf.name_scope("hub_output/feature_vector"):
            feature_vector = tf.squeeze(
                endpoints["global_pool"], [1, 2], name="SpatialSqueeze"
            )
        return NetworkGraph(
            graph=graph,
            images=images,
            batch_norm_momentum=momentum,
            feature_vector=feature_vector,
            endpoints=endpoints,
            variables={v.op.name: v for v in tf.global_variables()},
        )


@contextlib.contextmanager
def _variables_hashed_by_identity() -> Iterator[None]:
    """Halves the time to build the graph.

    Each layer collects all variables so far in a set. With TF2's tensor equality on,
    the hash of a variable asks for TensorFlow's current context, and 400,000 such
    questions take longer than the rest of the network.
    """
    import tensorflow.compat.v1 as tf

    was_enabled = tensorflow_internals.has_tensor_equality()
    tf.disable_tensor_equality()
    try:
        yield
    finally:
        if was_enabled:
            tf.enable_tensor_equality()
