"""The ops by which TensorFlow 1, servers and other languages restore a SavedModel.

TensorFlow 2 itself does without. What it writes for the others are two functions of all
variables, which everyone who loads the SavedModel has to import. As ops of the graph
only those need them who run them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.network import tensorflow_internals

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef


def add(meta_graph: MetaGraphDef) -> None:
    """Adds ops that save and restore all variables, and names them in `saver_def`.

    Args:
      meta_graph: as TensorFlow saves it with `experimental_skip_saver`.
    """
    import tensorflow.compat.v1 as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    nodes = {node.name: node for node in meta_graph.graph_def.node}
    description = tensorflow_internals.checkpoint_description(meta_graph)
    objects = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        tf.make_ndarray(description.attr["value"].tensor).item()
    )
    keys = {
        value.full_name: value.checkpoint_key
        for node in objects.nodes
        for value in node.attributes
    }
    with tf.Graph().as_default() as graph:
        needed = tf.GraphDef(
            node=[description, *(nodes[name] for name in keys)],
            versions=meta_graph.graph_def.versions,
        )
        description_tensor, *handles = tf.import_graph_def(
            needed, return_elements=[f"{node.name}:0" for node in needed.node], name=""
        )
        types = [tf.as_dtype(nodes[name].attr["dtype"].type) for name in keys]
        file = tf.placeholder(tf.string, [], name="save/file")
        restored = tf.raw_ops.RestoreV2(
            prefix=file,
            tensor_names=list(keys.values()),
            shape_and_slices=[""] * len(keys),
            dtypes=types,
            name="save/RestoreV2",
        )
        assignments = [
            tf.raw_ops.AssignVariableOp(
                resource=handle, value=value, name="save/AssignVariableOp"
            )
            for handle, value in zip(handles, restored)
        ]
        restore = tf.group(*assignments, name="save/restore_all")
        values = [
            tf.raw_ops.ReadVariableOp(
                resource=handle, dtype=dtype, name="save/ReadVariableOp"
            )
            for handle, dtype in zip(handles, types)
        ]
        save = tf.raw_ops.SaveV2(
            prefix=file,
            tensor_names=[*keys.values(), "_CHECKPOINTABLE_OBJECT_GRAPH"],
            shape_and_slices=[""] * (len(keys) + 1),
            tensors=[*values, description_tensor],
            name="save/SaveV2",
        )
        with tf.control_dependencies([save]):
            saved = tf.identity(file, name="save/control_dependency")
        added = tf.train.export_meta_graph(graph=graph, strip_default_attrs=True)

    meta_graph.graph_def.node.extend(
        node for node in added.graph_def.node if node.name not in nodes
    )
    ops = meta_graph.meta_info_def.stripped_op_list
    listed = {op.name for op in ops.op}
    ops.op.extend(
        op for op in added.meta_info_def.stripped_op_list.op if op.name not in listed
    )
    meta_graph.saver_def.CopyFrom(
        tf.train.SaverDef(
            filename_tensor_name=file.name,
            save_tensor_name=saved.name,
            restore_op_name=restore.name,
            version=tf.train.SaverDef.V2,
        )
    )
