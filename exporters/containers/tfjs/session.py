"""Runs a TF.js graph with TensorFlow, whose graph it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporters.containers.tfjs.graph import INPUT


class GraphSession:
    """A graph in the hands of TensorFlow, which crashes on some that are not sound."""

    def __init__(
        self,
        topology: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        output: str,
    ):
        """Loads a graph.

        Args:
          topology: GraphDef as JSON value, of a graph that is sound.
          weights: name -> values, of all constants.
          output: name of the node that gives the output.
        """
        import tensorflow.compat.v1 as tf
        from google.protobuf import json_format

        graph_def = json_format.ParseDict(topology, tf.GraphDef())
        for node in graph_def.node:
            if node.op == "Const":
                # Its values come with each run: they need not become part of a graph.
                del node.attr["value"]
                node.op = "Placeholder"
            elif node.op == "_FusedConv2D":
                # Newer than the format: the types of the inputs after the kernel.
                node.attr["TArgs"].list.type.append(node.attr["T"].type)
        self._weights = {f"{name}:0": values for name, values in weights.items()}
        self._output = f"{output}:0"
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
            self._session = tf.Session(graph=graph)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Returns the output for images, float32 [batch, height, width, 3]."""
        return self._session.run(self._output, {f"{INPUT}:0": images, **self._weights})

    def close(self) -> None:
        """Frees what TensorFlow holds."""
        self._session.close()
