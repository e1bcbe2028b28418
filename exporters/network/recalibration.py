"""Moving averages from batch statistics, to make a stand-in tell images apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporters.network.graphs import NetworkGraphs


def with_batch_statistics(
    variables: Mapping[str, np.ndarray], images: np.ndarray, graphs: NetworkGraphs
) -> dict[str, np.ndarray]:
    """Sets every moving average of the network to its statistic over the images.

    Raw stand-ins normalize by statistics that are not those of their activations, and
    then see little difference between images. The auxiliary head stays as it is.

    Args:
      variables: the 908 variables.
      images: float32 [count, height, width, 3] in [0, 1], normalized as one batch.
      graphs: where the training graph is taken from.

    Returns:
      All variables, with new moving means and variances.
    """
    import tensorflow.compat.v1 as tf

    graph = graphs.get(is_training=True)
    updates = graph.graph.get_collection(tf.GraphKeys.UPDATE_OPS)
    averages = {n: v for n, v in graph.variables.items() if "/moving_" in n}
    with graph.start_session(variables) as session:
        session.run(updates, {graph.images: images, graph.batch_norm_momentum: 0.0})
        return {**variables, **session.run(averages)}
