"""The TF-Slim graph with a checkpoint's weights: what every artifact is compared with.

It never passes through a writer, nor through the list of layers: it is the network of
`exporters.network.inception_resnet_v2`, run by TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from checkpoints.reader import Checkpoint
from checkpoints.scratch import locked
from exporters.artifact import MOMENTUM, moving_averages
from exporters.errors import ArtifactError
from exporters.network import folding, layers
from exporters.network.graphs import NetworkGraph, NetworkGraphs
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.network.layers import Conv, Softmax
from exporters.network.tasks import AUXILIARY_CLASSIFICATION, CLASSIFICATION, Task

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

T = TypeVar("T")

_AUXILIARY = AUXILIARY_CLASSIFICATION.endpoint
_BEFORE_CLASSIFIER = "PreLogitsFlatten"
"""An endpoint of the features that there is only where a classifier follows."""
_VALUES = {"logits": "Logits", "probabilities": "Predictions"} | {
    endpoint: endpoint for endpoint in (*CLASSIFICATION.endpoints, _AUXILIARY)
}
"""Name of a value -> TF-Slim's endpoint. "feature_vector" is a tensor of its own."""
_MOVED = "moving_averages"
_MOST_KEPT_BYTES = 512 << 20


@dataclasses.dataclass(frozen=True)
class Activations:
    """What activations are like over the images that artifacts are compared on.

    Attributes:
      ranges: layer -> (smallest, largest) value, zero included.
      largest_means: layer -> [channels], the largest magnitude that the mean of each
        channel has in any image.
    """

    ranges: Mapping[str, tuple[float, float]]
    largest_means: Mapping[str, np.ndarray]


class Reference(contextlib.AbstractContextManager):
    """The network as TF-Slim defines it, holding a checkpoint's weights.

    Attributes:
      checkpoint: the weights.
      network: the list of layers, with auxiliary head if there is one, for names and
        shapes.
      graphs: TF-Slim's graphs.
      compared: how outputs of artifacts agreed, by what they are computed of;
        `exporters.parity` notes it, and compares none of them twice.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        graphs: NetworkGraphs | None = None,
        shared: Path | None = None,
        prepared: futures.Future[None] | None = None,
    ) -> None:
        """Takes a checkpoint.

        Args:
          checkpoint: the weights.
          graphs: those that there are already.
          shared: directory where the references of several processes, of the same
            checkpoint, keep what they computed; None for a single process.
          prepared: done when another process has computed what it is to; what is not in
            `shared` then is computed here.
        """
        self.checkpoint = checkpoint
        self.network = layers.inception_resnet_v2(
            checkpoint.num_classes, auxiliary_head=checkpoint.has_auxiliary_head
        )
        self.graphs = graphs or NetworkGraphs()
        self.compared: dict[Any, Any] = {}
        self._sessions: dict[tuple[bool, bool], tf.Session] = {}
        self._kept: dict[tuple[int, bool], dict[str, np.ndarray]] = {}
        self._activations: dict[int, Activations] = {}
        self._batches: dict[int, np.ndarray] = {}
        self._shared = shared
        self._prepared = prepared

    def __exit__(self, *exception: object) -> None:
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def graph(
        self, *, is_training: bool = False, auxiliary_head: bool = False
    ) -> NetworkGraph:
        """TF-Slim's graph of the network; with auxiliary head, for one size of images."""
        size = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE) if auxiliary_head else None
        return self.graphs.get(
            num_classes=self.checkpoint.num_classes,
            is_training=is_training,
            image_size=size,
            auxiliary_head=auxiliary_head,
        )

    def outputs(
        self, batch: np.ndarray, values: Collection[str], *, is_training: bool = False
    ) -> dict[str, np.ndarray]:
        """Runs the network; what it gave for a batch is remembered, unless it is large.

        Args:
          batch: float32 [count, height, width, 3] in [0, 1].
          values: "feature_vector" and, in training, "moving_averages" after the batch
            has moved them; else "logits", "probabilities" and TF-Slim's names of
            endpoints.
          is_training: normalize by the batch's statistics.

        Returns:
          Value -> array.

        Raises:
          ArtifactError: the checkpoint has no weights for a value.
        """
        self.check_has(values)
        if _AUXILIARY in values:
            return self.run(batch, values, is_training=is_training)
        key = (id(batch), is_training)
        kept = self._kept.get(key)
        if kept is None:
            wanted = {"feature_vector"}
            if is_training:
                wanted.add(_MOVED)
            else:
                wanted |= {name for name, of in _VALUES.items() if self._has(of)}
                wanted.discard(_AUXILIARY)
            if not self.has_room_for(batch):
                return self.run(batch, values, is_training=is_training)
            kept = self._kept[key] = self._once(
                "training" if is_training else "evaluation",
                batch,
                lambda: self.run(batch, wanted, is_training=is_training),
            )
            self._batches[id(batch)] = batch  # So that no other batch gets its id.
        return {value: kept[value] for value in values}

    def check_has(self, values: Collection[str]) -> None:
        """Raises if the checkpoint has no weights for a value, which `outputs` takes."""
        missing = {of for v in values if (of := _VALUES.get(v)) and not self._has(of)}
        if missing:
            raise ArtifactError(
                f"The checkpoint {self.checkpoint.path} has no weights to compare "
                f"{', '.join(sorted(missing))} with."
            )

    def _has(self, endpoint: str) -> bool:
        if endpoint == _BEFORE_CLASSIFIER:
            return self.checkpoint.num_classes is not None
        return endpoint in self.network.endpoints

    def _once(self, name: str, batch: np.ndarray, compute: Callable[[], T]) -> T:
        """Computes something of a batch, unless another process did."""
        if self._shared is None:
            return compute()
        if self._prepared:
            futures.wait([self._prepared])
        digest = hashlib.sha256(batch.tobytes()).hexdigest()
        file = self._shared / f"{name}-{digest}"
        lock = file.with_suffix(".lock")
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                lock.touch()
                stack.enter_context(locked(lock))
            with contextlib.suppress(FileNotFoundError), file.open("rb") as kept:
                found: T = pickle.load(kept)
                return found
            found = compute()
            with contextlib.suppress(OSError):  # Others then compute it again.
                unfinished = file.with_suffix(".unfinished")
                with unfinished.open("wb") as kept:
                    pickle.dump(found, kept, pickle.HIGHEST_PROTOCOL)
                unfinished.rename(file)
        return found

    def has_room_for(self, batch: np.ndarray) -> bool:
        """Whether what `outputs` gives for one more batch will be remembered."""
        kept = sum(
            array.nbytes for kept in self._kept.values() for array in kept.values()
        )
        return kept + self._bytes_of(batch) <= _MOST_KEPT_BYTES

    def _bytes_of(self, batch: np.ndarray) -> int:
        """Size of all endpoints, in float32."""
        shapes = self.network.shapes((batch.shape[1], batch.shape[2]))
        numbers = (np.prod(shapes[name]) for name in self.network.endpoints.values())
        return 4 * len(batch) * int(sum(numbers))

    def run(
        self, batch: np.ndarray, values: Collection[str], *, is_training: bool = False
    ) -> dict[str, np.ndarray]:
        """Runs the network as `outputs` does, and remembers nothing."""
        auxiliary_head = _AUXILIARY in values
        graph = self.graph(is_training=is_training, auxiliary_head=auxiliary_head)
        fetches = {
            value: graph.feature_vector
            if value == "feature_vector"
            else graph.endpoints[_VALUES[value]]
            for value in values
            if value != _MOVED
        }
        session = self._session(is_training, auxiliary_head)
        if _MOVED not in values:
            return session.run(fetches, {graph.images: batch})
        averages = {n: v for n, v in graph.variables.items() if "/moving_" in n}
        feeds = {graph.images: batch, graph.batch_norm_momentum: MOMENTUM}
        found, _ = session.run([fetches, graph.updates], feeds)
        found[_MOVED] = moving_averages(session.run(averages))
        with graph.graph.as_default():
            session.run(
                [average.initializer for average in averages.values()],
                {v.initial_value: self.checkpoint[n] for n, v in averages.items()},
            )
        return found

    def _session(self, is_training: bool, auxiliary_head: bool = False) -> tf.Session:
        key = is_training, auxiliary_head
        if key not in self._sessions:
            graph = self.graph(is_training=is_training, auxiliary_head=auxiliary_head)
            self._sessions[key] = graph.start_session(self.checkpoint)
        return self._sessions[key]

    def layers(
        self, batch: np.ndarray, names: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Runs the network up to some layers, and remembers nothing.

        Args:
          batch: float32 [count, height, width, 3] in [0, 1].
          names: of layers of `network`; not of residuals, which TF-Slim multiplies later.

        Returns:
          Layer -> its output.
        """
        tensors = {name: self._tensor(name) for name in names}
        return self._session(False).run(tensors, {self.graph().images: batch})

    def _tensor(self, layer: str) -> tf.Tensor:
        """TF-Slim's tensor of a layer; it flattens features only for a classifier."""
        graph = self.graph()
        is_features = layer == self.network.endpoints[_BEFORE_CLASSIFIER]
        if is_features and not self._has(_BEFORE_CLASSIFIER):
            return graph.feature_vector
        return graph.graph.get_tensor_by_name(f"{layer}:0")

    def activations(self, batch: np.ndarray) -> Activations:
        """Runs the network, image by image, and notes what its activations are like.

        Args:
          batch: float32 [count, height, width, 3] in [0, 1].
        """
        if id(batch) not in self._activations:
            self._activations[id(batch)] = self._once(
                "activations", batch, lambda: self._measure(batch)
            )
            self._batches[id(batch)] = batch
        return self._activations[id(batch)]

    def _measure(self, batch: np.ndarray) -> Activations:
        graph = self.graph()
        tensors, scales = {}, {}
        network = layers.inception_resnet_v2(self.checkpoint.num_classes)
        for layer in network.layers:
            if not isinstance(layer, Softmax):
                name = layer.name
                tensors[name] = self._tensor(name)
                # Of residuals, which TF-Slim multiplies later.
                scales[name] = layer.scale if isinstance(layer, Conv) else 1.0
        ranges = {name: (0.0, 0.0) for name in tensors}
        means = {name: np.zeros(1) for name in tensors}
        ranges[self.network.input] = (0.0, 1.0)
        means[self.network.input] = np.ones(3)
        for image in batch:
            found = self._session(False).run(tensors, {graph.images: image[None]})
            for name, values in found.items():
                values = values * np.float32(scales[name])
                low, high = ranges[name]
                ranges[name] = (
                    min(low, float(values.min())),
                    max(high, float(values.max())),
                )
                mean = np.abs(values.mean(axis=tuple(range(values.ndim - 1))))
                means[name] = np.maximum(means[name], mean)
        return Activations(ranges, means)

    def weights(
        self,
        task: Task,
        *,
        is_folded: bool,
        input_range: tuple[float, float] = (0.0, 1.0),
        first_class: int = 0,
    ) -> dict[str, np.ndarray]:
        """Returns the weights that an artifact of a task should hold.

        Args:
          task: what it is for.
          is_folded: whether batch norm is folded into the weights.
          input_range: values of black and white in the images that it takes.
          first_class: of the checkpoint's classes that it has.

        Returns:
          Name -> float32 array: the checkpoint's variables or, folded,
          "<scope>/weights" and "<scope>/biases" in the order of layers.
        """
        variables = layers.without_classes(self.checkpoint, first_class)
        part = self.network.up_to([task.endpoint])
        if not is_folded:
            return {name: variables[name] for name in part.variables}
        return dict(_named(folding.fold(part, variables, input_range)))


def _named(weights: Mapping[str, folding.Weights]) -> Iterator[tuple[str, np.ndarray]]:
    for scope, folded in weights.items():
        yield f"{scope}/weights", folded.kernel
        yield f"{scope}/biases", folded.bias
