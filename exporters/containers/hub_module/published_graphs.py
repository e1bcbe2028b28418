"""The graphs in a TF1 Hub module: MetaGraphs with the published names and signatures.

Sources: tensorflow-hub 0.2.0 (native_module.py, saved_model_lib.py, the .proto files),
the documentation published with the model, and dumps of published modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from exporters.containers.hub_module import tensorflow_1_12
from exporters.containers.hub_module.versions import DEFAULT_IMAGE_SIZE, ModuleVersion
from exporters.network.graphs import NetworkGraph
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR, Task

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

    Signature = tuple[Mapping[str, str], Mapping[str, str]]
    """Inputs and outputs of a signature, as key -> tensor name."""

DEFAULT = "default"
"""Key of the signature used when none is named, and of every signature's main output."""
NAMED_SIGNATURES = {
    FEATURE_VECTOR: "image_feature_vector",
    CLASSIFICATION: "image_classification",
}
WITH_MOMENTUM = "_with_bn_hparams"
"""Ends the names of the signatures in which the consumer gives the momentum."""
MOMENTUM_INPUT = "batch_norm_momentum"
"""The input of these signatures, and the op behind it in every graph."""

_CLASSIFIER_SCOPE = "InceptionResnetV2/Logits/"
_GLOBAL_POOL = "InceptionResnetV2/Logits/global_pool"
_FIXED_GLOBAL_POOL = "InceptionResnetV2/Logits/AvgPool_1a_8x8/AvgPool"
_FIXED_GLOBAL_POOL_SIZE = 8


def build(
    graph: NetworkGraph, version: ModuleVersion, task: Task, tags: Iterable[str]
) -> tf.MetaGraphDef:
    """Builds a MetaGraph as TensorFlow 1.12 and hub.Module's publisher would.

    It holds what the task needs, and no ops to save or restore variables: the consumer
    makes its own.

    Args:
      graph: evaluation graph or training graph, of variable image size.
      version: the published version to follow.
      task: what the module is for.
      tags: of the MetaGraph.
    """
    import tensorflow.compat.v1 as tf

    with graph.graph.as_default():
        variables = [
            graph.variables[name].to_proto() for name in graph.variable_names(task)
        ]
    updates = [update.name for update in graph.updates]
    losses = [
        loss.name
        for loss in graph.graph.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
        if task.needs_classifier or not loss.name.startswith(_CLASSIFIER_SCOPE)
    ]
    images, momentum = graph.images, graph.batch_norm_momentum
    outputs = {key: tensor.name for key, tensor in graph.outputs(task).items()}
    needed = [images.name, momentum.name, graph.feature_vector.name, *outputs.values()]
    needed += updates + losses
    for variable in variables:
        needed += [variable.initializer_name, variable.snapshot_name]
    graph_def = graph.subgraph({name.partition(":")[0] for name in needed})

    _set_constant(graph_def, momentum.op.inputs[0].op.name, version.momentum)
    if version.image_size:
        _fix_image_size(graph_def, images.op.name, version.image_size)
        for key, name in outputs.items():
            outputs[key] = name.replace(_GLOBAL_POOL, _FIXED_GLOBAL_POOL)

    meta_graph = tf.MetaGraphDef(graph_def=tensorflow_1_12.rewrite(graph_def))
    meta_info = meta_graph.meta_info_def
    meta_info.tags.extend(tags)
    meta_info.tensorflow_version = tf.__version__
    meta_info.tensorflow_git_version = tf.__git_version__
    meta_info.stripped_default_attrs = True
    meta_info.stripped_op_list.CopyFrom(tensorflow_1_12.op_list(meta_graph.graph_def))
    _fill_collections(meta_graph, variables, updates, losses)
    _fill_signatures(
        meta_graph,
        _signatures(
            version,
            task,
            {"images": images.name, MOMENTUM_INPUT: momentum.name},
            outputs,
            graph.feature_vector.name,
        ),
    )
    return meta_graph


def _set_constant(graph_def: tf.GraphDef, name: str, value: float) -> None:
    import tensorflow.compat.v1 as tf

    (node,) = (node for node in graph_def.node if node.name == name)
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32))


def _fix_image_size(
    graph_def: tf.GraphDef, images: str, image_size: tuple[int, int]
) -> None:
    """Turns the graph into what TF-Slim builds for the default image size.

    There, global pooling is an AvgPool of the last convolution's size, not a Mean.
    """
    import tensorflow.compat.v1 as tf

    for node in graph_def.node:
        node.input[:] = [
            _FIXED_GLOBAL_POOL if name == _GLOBAL_POOL else name for name in node.input
        ]
        if node.name == images:
            shape = tf.TensorShape([None, *image_size, 3])
            node.attr["shape"].shape.CopyFrom(shape.as_proto())
        elif node.name == _GLOBAL_POOL:
            convolution, reduction_indices = node.input
            node.Clear()
            node.name, node.op = _FIXED_GLOBAL_POOL, "AvgPool"
            node.input.append(convolution)
            node.attr["T"].type = tf.float32.as_datatype_enum
            size = _FIXED_GLOBAL_POOL_SIZE
            node.attr["ksize"].list.i.extend([1, size, size, 1])
            node.attr["strides"].list.i.extend([1, 1, 1, 1])
            node.attr["padding"].s = b"VALID"
    kept = [node for node in graph_def.node if node.name != reduction_indices]
    del graph_def.node[:]
    graph_def.node.extend(kept)


def _fill_collections(
    meta_graph: tf.MetaGraphDef,
    variables: list,
    updates: list[str],
    losses: list[str],
) -> None:
    """Adds collections that hub.Module accepts; any other makes it refuse the module."""
    import tensorflow.compat.v1 as tf

    trainable = [variable for variable in variables if variable.trainable]
    for key, members in {
        tf.GraphKeys.GLOBAL_VARIABLES: variables,
        tf.GraphKeys.MODEL_VARIABLES: variables,
        tf.GraphKeys.TRAINABLE_VARIABLES: trainable,
    }.items():
        meta_graph.collection_def[key].bytes_list.value.extend(
            variable.SerializeToString(deterministic=True) for variable in members
        )
    for key, names in {
        tf.GraphKeys.UPDATE_OPS: updates,
        tf.GraphKeys.REGULARIZATION_LOSSES: losses,
    }.items():
        if names:
            meta_graph.collection_def[key].node_list.value.extend(
                tensorflow_1_12.old_name(name) for name in names
            )
    meta_graph.collection_def["hub_module_attachments"].bytes_list.value.append(
        _image_module_info_attachment()
    )


def _image_module_info_attachment() -> bytes:
    """The message behind hub.get_expected_image_size: the default image size.

    ModuleAttachment{key=1, value=2} holding an ImageModuleInfo{default_image_size=1}
    with fields height=1 and width=2.
    """
    size = b"".join(
        bytes([field << 3, pixels & 0x7F | 0x80, pixels >> 7])  # A two-byte varint.
        for field, pixels in enumerate(DEFAULT_IMAGE_SIZE, start=1)
    )
    return _message_field(1, b"image_module_info") + _message_field(
        2, _message_field(1, size)
    )


def _message_field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _signatures(
    version: ModuleVersion,
    task: Task,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    feature_vector: str,
) -> dict[str, Signature]:
    """Returns signature name -> its inputs and outputs."""
    only_images = {"images": inputs["images"]}
    signatures: dict[str, Signature] = {
        DEFAULT: (only_images, {DEFAULT: outputs[DEFAULT]}),
        NAMED_SIGNATURES[task]: (only_images, outputs),
        NAMED_SIGNATURES[FEATURE_VECTOR]: (
            only_images,
            {**outputs, DEFAULT: feature_vector},
        ),
    }
    if version.takes_momentum:
        for name in set(signatures) - {DEFAULT}:
            signatures[name + WITH_MOMENTUM] = (inputs, signatures[name][1])
    return signatures


def _fill_signatures(
    meta_graph: tf.MetaGraphDef,
    signatures: Mapping[str, Signature],
) -> None:
    """Adds signatures, with the shapes that TensorFlow infers from the graph."""
    import tensorflow.compat.v1 as tf

    names = {
        name
        for signature in signatures.values()
        for tensors in signature
        for name in tensors.values()
    }
    with tf.Graph().as_default() as graph:
        ops = [tensorflow_1_12.old_name(name).partition(":")[0] for name in names]
        tf.import_graph_def(
            tf.graph_util.extract_sub_graph(meta_graph.graph_def, ops), name=""
        )
        tensor_infos = {
            name: tf.saved_model.build_tensor_info(
                graph.get_tensor_by_name(tensorflow_1_12.old_name(name))
            )
            for name in names
        }
    for key, (inputs, outputs) in signatures.items():
        signature = meta_graph.signature_def[key]
        for tensors, infos in (
            (inputs, signature.inputs),
            (outputs, signature.outputs),
        ):
            for tensor_key, name in tensors.items():
                infos[tensor_key].CopyFrom(tensor_infos[name])
