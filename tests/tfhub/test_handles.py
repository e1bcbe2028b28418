"""The names of this model: which there are, and which stand for nothing else."""

import hashlib

import pytest

from exporters import formats
from exporters.network.tasks import TASKS
from exporters.tfhub import handles

VERSIONS = (1, 3, 4, 5)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("version", VERSIONS)
def test_first_is_the_one_it_was_published_under(task, version):
    published = formats.FORMATS[f"v{version}"].handle(task)
    assert handles.urls(task, version)[0] == published


@pytest.mark.parametrize(
    "url",
    [
        "http://tfhub.dev/google/imagenet/inception_resnet_v2/classification/5",
        "https://tfhub.dev/google/imagenet/inception_resnet_v2/classification/5/",
        "https://tfhub.dev/google/imagenet/inception_resnet_v2/classification/5"
        "?tf-hub-format=compressed",
        "https://hub.tensorflow.google.cn/google/imagenet/inception_resnet_v2/"
        "classification/5",
        "https://www.kaggle.com/models/google/inception-resnet-v2/TensorFlow2/"
        "classification/2",
        "https://kaggle.com/models/google/inception-resnet-v2/tensorFlow2/"
        "classification/2",
        "https://www.kaggle.com/models/google/inception-resnet-v2/frameworks/"
        "TensorFlow2/variations/classification/versions/2",
    ],
)
def test_forms_seen_in_programs(url):
    assert url in handles.urls("classification", 5)


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (1, "google/inception-resnet-v2/tensorFlow1/feature-vector/1"),
        (3, "google/inception-resnet-v2/tensorFlow1/feature-vector/2"),
        (4, "google/inception-resnet-v2/tensorFlow2/feature-vector/1"),
        (5, "google/inception-resnet-v2/tensorFlow2/feature-vector/2"),
    ],
)
def test_names_in_kagglehub(version, name):
    names = handles.kaggle_models("feature_vector", version)
    assert name in names
    assert name.replace("tensorFlow", "TensorFlow") in names


def test_no_name_stands_for_two_artifacts():
    names = [
        name
        for task in TASKS
        for version in VERSIONS
        for name in (
            *handles.urls(task, version),
            *handles.kaggle_models(task, version),
        )
    ]
    assert len(set(names)) == len(names)


def test_every_url_is_one_of_the_published_model():
    for task in TASKS:
        for version in VERSIONS:
            assert all(map(handles.is_published, handles.urls(task, version)))


@pytest.mark.parametrize(
    "url",
    [
        "https://TFHUB.dev/google/imagenet/inception_resnet_v2/feature_vector/2",
        "https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector",
        "https://tfhub.dev/google/imagenet/inception_resnet_v2",
        "https://www.kaggle.com/models/google/inception-resnet-v2/",
    ],
)
def test_url_of_another_version_is_one_of_the_published_model(url):
    assert handles.is_published(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/google/imagenet/inception_resnet_v2/feature_vector/3",
        "https://tfhub.dev/google/imagenet/inception_resnet_v2_finetuned/1",
        "https://www.kaggle.com/models/somebody/inception-resnet-v2/",
    ],
)
def test_other_urls_are_free(url):
    assert not handles.is_published(url)


def test_name_in_the_cache_is_the_sha_1_of_what_was_typed():
    url = "https://tfhub.dev/x/1"
    assert handles.cached_name(url) == hashlib.sha1(url.encode()).hexdigest()
