"""The forms in which programs name this model's artifacts.

tensorflow-hub keeps each URL apart, by the SHA-1 of what was typed; so an artifact has
to be found under every URL that means it. Since 2024 tfhub.dev redirects to Kaggle,
where kagglehub names models by paths. A name without a version meant the newest one,
which only the network can tell: it is none of these forms.

That Kaggle's TensorFlow2/classification/2 is version 5 is known from programs that use
it. The other versions are inferred: the publisher's other models were moved in the
order of their versions, those of `hub.Module` to TensorFlow1, those of
`hub.KerasLayer` to TensorFlow2.
"""

from __future__ import annotations

import hashlib
import urllib.parse
from collections.abc import Iterator

_TF_HUB_MODEL = "google/imagenet/inception_resnet_v2"
_TFJS_MODEL = "google/tfjs-model/imagenet/inception_resnet_v2"
_TF_HUB_SITES = tuple(
    f"{scheme}://{host}"
    for host in ("tfhub.dev", "hub.tensorflow.google.cn")
    for scheme in ("https", "http")
)
_TF_HUB_ENDINGS = ("", "/", "?tf-hub-format=compressed")
"""The library adds the last one itself where it downloads, and some programs do."""

_KAGGLE_MODEL = "google/inception-resnet-v2"
_KAGGLE_SITES = ("https://www.kaggle.com/models", "https://kaggle.com/models")
_KAGGLE_VERSIONS = {
    1: ("TensorFlow1", 1),
    3: ("TensorFlow1", 2),
    4: ("TensorFlow2", 1),
    5: ("TensorFlow2", 2),
}
"""Version on TF Hub -> framework and version on Kaggle."""


def urls(task: str, version: int) -> tuple[str, ...]:
    """Returns the URLs of an artifact, the one it was published under first.

    Args:
      task: "feature_vector" or "classification".
      version: 1, 3, 4 or 5, as in the published URL.
    """
    tf_hub = [
        f"{site}/{_TF_HUB_MODEL}/{task}/{version}{ending}"
        for site in _TF_HUB_SITES
        for ending in _TF_HUB_ENDINGS
    ]
    kaggle = [
        f"{site}/{_KAGGLE_MODEL}/{path}{ending}"
        for site in _KAGGLE_SITES
        for framework, variation, number in _kaggle_parts(task, version)
        for path in (
            f"{framework}/{variation}/{number}",
            f"frameworks/{framework}/variations/{variation}/versions/{number}",
        )
        for ending in ("", "/")
    ]
    return (*tf_hub, *kaggle)


def kaggle_models(task: str, version: int) -> tuple[str, ...]:
    """Returns the names of an artifact in kagglehub, and its paths in kagglehub's cache.

    Args:
      task: "feature_vector" or "classification".
      version: 1, 3, 4 or 5, as in the published URL.
    """
    return tuple(
        f"{_KAGGLE_MODEL}/{framework}/{variation}/{number}"
        for framework, variation, number in _kaggle_parts(task, version)
    )


def _kaggle_parts(task: str, version: int) -> Iterator[tuple[str, str, int]]:
    framework, number = _KAGGLE_VERSIONS[version]
    # Addresses of pages have the large letter, kagglehub's names the small one; both
    # are taken for either.
    for spelling in (framework, f"t{framework[1:]}"):
        yield spelling, task.replace("_", "-"), number


def cached_name(url: str) -> str:
    """Returns the name of the directory that tensorflow-hub keeps a URL's module in."""
    return hashlib.sha1(url.encode("utf-8"), usedforsecurity=False).hexdigest()


def is_published(url: str) -> bool:
    """Whether a URL is one of the published model, of whatever version or form."""
    parts = urllib.parse.urlsplit(url.lower())
    path = f"{parts.path.rstrip('/')}/"
    host = (parts.hostname or "").removeprefix("www.")
    if host == "kaggle.com":
        return path.startswith(f"/models/{_KAGGLE_MODEL}/")
    hosts = {urllib.parse.urlsplit(site).hostname for site in _TF_HUB_SITES}
    return host in hosts and path.startswith((f"/{_TF_HUB_MODEL}/", f"/{_TFJS_MODEL}/"))
