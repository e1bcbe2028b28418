"""The two tasks that the network is exported for, as data."""

from __future__ import annotations

import dataclasses

_FEATURE_ENDPOINTS = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "MaxPool_3a_3x3",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "MaxPool_5a_3x3",
    "Mixed_5b",
    "Mixed_6a",
    "PreAuxLogits",
    "Mixed_7a",
    "Conv2d_7b_1x1",
    "global_pool",
)
_SCOPE = "InceptionResnetV2/"


@dataclasses.dataclass(frozen=True)
class Task:
    """What an artifact is for.

    Attributes:
      name: as users type it.
      output: name of the task's own output.
      endpoint: the endpoint of `exporters.network.layers` that this output is.
      endpoints: TF-Slim's endpoints that the published artifacts show, in network order.
      needs_classifier: whether the classifier's variables are part of it.
    """

    name: str
    output: str
    endpoint: str
    endpoints: tuple[str, ...]
    needs_classifier: bool

    @property
    def published(self) -> dict[str, str]:
        """Name of a published output, beside "default" -> TF-Slim's endpoint."""
        return {published_name(endpoint): endpoint for endpoint in self.endpoints}


def published_name(endpoint: str) -> str:
    """Returns what the published artifacts call an endpoint of TF-Slim's."""
    return _SCOPE + endpoint


FEATURE_VECTOR = Task(
    name="feature_vector",
    output="feature_vector",
    endpoint="PreLogitsFlatten",
    endpoints=_FEATURE_ENDPOINTS,
    needs_classifier=False,
)
CLASSIFICATION = Task(
    name="classification",
    output="logits",
    endpoint="Logits",
    endpoints=(*_FEATURE_ENDPOINTS, "PreLogitsFlatten", "Logits", "Predictions"),
    needs_classifier=True,
)
AUXILIARY_CLASSIFICATION = dataclasses.replace(CLASSIFICATION, endpoint="AuxLogits")
"""The same, by the auxiliary head, as it was published in TFLite."""
TASKS = {task.name: task for task in (FEATURE_VECTOR, CLASSIFICATION)}
