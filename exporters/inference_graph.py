"""The network for deployment: constants for variables, batch norm folded away.

Formats that only run inference start from this graph. It has 13 op types, no variables,
no shape arithmetic; each convolution is Conv2D, BiasAdd and mostly Relu, and the
constants are named like the checkpoint's variables that they come from.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from exporters.network import inception_resnet_v2 as network
from exporters.network.graphs import CLASSIFICATION, NetworkGraph

if TYPE_CHECKING:
    import tensorflow as tf

_INPUT_CONVOLUTION = "InceptionResnetV2/Conv2d_1a_3x3"
_PASSED_OVER = frozenset({"Identity", "Mul"})
_KEPT = frozenset(
    "Placeholder Const Conv2D BiasAdd Relu MaxPool AvgPool Mean ConcatV2 AddV2 Squeeze "
    "MatMul Softmax".split()
)
_RESIDUAL_CONVOLUTION = re.compile(r".*/(block35|block17|block8)_\d+/Conv2d_1x1")


@dataclasses.dataclass(frozen=True)
class InferenceGraph:
    """A TensorFlow GraphDef without variables, in topological order.

    Attributes:
      graph_def: ops Placeholder, Const, Conv2D, BiasAdd, Relu, MaxPool, AvgPool, Mean,
        ConcatV2, AddV2, Squeeze, MatMul and Softmax, all float32 and NHWC.
      images: name of the input node: float32 [batch, height, width, 3] in [0, 1].
      outputs: published output name -> node name; "default" and the endpoints.
    """

    graph_def: tf.compat.v1.GraphDef
    images: str
    outputs: Mapping[str, str]


def folded_weights(
    checkpoint: Mapping[str, np.ndarray], task: str
) -> dict[str, np.ndarray]:
    """Folds everything linear into the kernels and biases, in float64.

    Batch norm, the scale of each residual, and the input's 2x - 1 (the first
    convolution has no padding, so this is exact).

    Returns:
      "<scope>/weights" and "<scope>/biases" -> float32 array for each of the 244
      convolutions, and for the classifier's matrix if the task has it. The checkpoint's
      auxiliary head is left out.
    """
    folded = {}
    for name in checkpoint:
        scope, _, kind = name.rpartition("/")
        if kind != "weights" or scope.startswith("InceptionResnetV2/AuxLogits"):
            continue
        if scope.startswith("InceptionResnetV2/Logits") and task != CLASSIFICATION:
            continue
        kernel = checkpoint[name].astype(np.float64)
        if f"{scope}/BatchNorm/beta" in checkpoint:
            beta, mean, variance = (
                checkpoint[f"{scope}/BatchNorm/{part}"].astype(np.float64)
                for part in ("beta", "moving_mean", "moving_variance")
            )
            factor = 1 / np.sqrt(variance + network.BATCH_NORM_EPSILON)
            kernel = kernel * factor
            bias = beta - mean * factor
        else:
            bias = checkpoint[f"{scope}/biases"].astype(np.float64)
        if block := _RESIDUAL_CONVOLUTION.fullmatch(scope):
            scale = network.RESIDUAL_SCALES[block[1]]
            kernel, bias = kernel * scale, bias * scale
        if scope == _INPUT_CONVOLUTION:
            kernel, bias = kernel * 2, bias - kernel.sum(axis=(0, 1, 2))
        folded[name] = kernel.astype(np.float32)
        folded[f"{scope}/biases"] = bias.astype(np.float32)
    return folded


def build(
    graph: NetworkGraph,
    checkpoint: Mapping[str, np.ndarray],
    task: str,
    outputs: tuple[str, ...] = ("default",),
) -> InferenceGraph:
    """Turns the network's evaluation graph into an inference graph with constants.

    Args:
      graph: an evaluation graph, of fixed or variable image size.
      checkpoint: the weights.
      task: "feature_vector" or "classification".
      outputs: the published output names wanted; only what they need is built.
    """
    import tensorflow.compat.v1 as tf

    tensors = graph.outputs(task)
    wanted = tf.graph_util.extract_sub_graph(
        graph.graph.as_graph_def(), [tensors[name].op.name for name in outputs]
    )
    wanted = {node.name for node in wanted.node}
    folded = folded_weights(checkpoint, task)
    result = tf.GraphDef()
    result.versions.CopyFrom(graph.graph.graph_def_versions)
    renamed: dict[str, str] = {}  # Op of the network -> node that stands for it.

    def add_node(name: str, op_type: str, inputs: list[str], **attributes) -> None:
        node = result.node.add(name=name, op=op_type, input=inputs)
        node.attr["T"].type = tf.float32.as_datatype_enum
        for key, value in attributes.items():
            node.attr[key].list.i.extend(value)

    def add_constant(name: str) -> None:
        node = result.node.add(name=name, op="Const")
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(folded[name]))

    for op in graph.graph.get_operations():  # Each after its inputs.
        if op.name not in wanted:
            continue
        inputs = [renamed.get(tensor.op.name, "") for tensor in op.inputs]
        renamed[op.name] = op.name
        if op.type in _PASSED_OVER or op.name == "hub_input/Sub":
            # Scales of residuals and input are the Muls: their tensor comes first.
            renamed[op.name] = inputs[0]
        elif op.type == "ReadVariableOp":
            name = op.inputs[0].op.name
            renamed[op.name] = name
            if name in folded:
                add_constant(name)
        elif op.type == "FusedBatchNormV3":
            kernel = renamed[op.inputs[0].op.inputs[1].op.name]
            bias = kernel.removesuffix("/weights") + "/biases"
            add_constant(bias)
            add_node(op.name, "BiasAdd", [inputs[0], bias])
        elif op.type == "Reshape":  # slim.flatten of [batch, 1, 1, depth].
            add_node(op.name, "Squeeze", [inputs[0]], squeeze_dims=[1, 2])
        elif op.type in _KEPT:
            node = result.node.add()
            node.CopyFrom(op.node_def)
            node.input[:] = inputs
            for key in [key for key in node.attr if key.startswith("_")]:
                del node.attr[key]

    used = [renamed[tensors[name].op.name] for name in outputs]
    result = tf.graph_util.extract_sub_graph(result, used)
    return InferenceGraph(result, graph.images.op.name, dict(zip(outputs, used)))
