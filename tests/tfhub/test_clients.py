"""What clients of 2018 to today make of the names, with no network."""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from consumers import environments
from file_server import served
from published_directories import PUBLISHED, content, make

from exporters.network.tasks import TASKS
from exporters.tfhub.cache import install
from exporters.tfhub.packing import pack

pytestmark = pytest.mark.consumers

PROGRAM = environments.DIRECTORY / "resolving_consumer.py"
KAGGLE_URL = "https://www.kaggle.com/models/google/inception-resnet-v2"
WITH_TENSORFLOW_HUB = [name for name in environments.NAMES if "-hub" in name]
WITHOUT_VERSION = (
    f"{PUBLISHED}/feature_vector",
    f"{KAGGLE_URL}/TensorFlow2/feature-vector",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with a cache of TF Hub's and one of kagglehub's, and all names in them."""
    folder = tmp_path_factory.mktemp("installed")
    for task in TASKS:
        for name in ("v1", "v3", "v4", "v5"):
            make(folder / "artifacts", name, task)
    placed = install([folder / "artifacts"], folder / "hub", folder / "kaggle")
    assert not any(item.kept for item in placed)
    names = {name: str(path) for item in placed for name, path in item.names.items()}
    return folder, names


@pytest.fixture
def resolve(tmp_path):
    """Lets a client resolve names."""

    def run(environment, client, names, **caches):
        """Returns each name's path, or what the client said, as the program does."""
        try:
            python = environments.python_of(environment)
        except environments.NoInterpreterError as reason:
            pytest.skip(f"{environment} {reason}")
        names_file, results = tmp_path / "names.json", tmp_path / "results.json"
        names_file.write_text(json.dumps(names))
        settings = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "TF_", "KAGGLE"))
        }
        done = subprocess.run(
            [python, PROGRAM, client, names_file, results],
            env=settings | {name: str(path) for name, path in caches.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return json.loads(results.read_text())

    return run


@pytest.mark.parametrize("environment", WITH_TENSORFLOW_HUB)
def test_tensorflow_hub_resolves_every_url(environment, installed, resolve):
    folder, names = installed
    urls = {name: path for name, path in names.items() if "://" in name}
    found = resolve(
        environment,
        "tensorflow_hub",
        [*urls, *WITHOUT_VERSION],
        TFHUB_CACHE_DIR=folder / "hub",
    )
    for name in WITHOUT_VERSION:
        assert "no network" in found.pop(name).get("error", ""), name
    assert found == {url: {"path": path} for url, path in urls.items()}


@pytest.mark.parametrize("environment", WITH_TENSORFLOW_HUB)
def test_tensorflow_hub_downloads_what_was_packed(environment, tmp_path, resolve):
    artifact = make(tmp_path, "v3", content=random.Random(0).randbytes(3_000_000))
    (packed,) = pack([artifact], tmp_path / "served")
    name = packed.path.relative_to(tmp_path / "served").as_posix()
    with served(tmp_path / "served") as address:
        url = f"{address}/{name}"
        found = resolve(
            environment, "tensorflow_hub", [url], TFHUB_CACHE_DIR=tmp_path / "hub"
        )
    assert content(Path(found[url]["path"])) == content(artifact)


def test_kagglehub_resolves_every_name(installed, resolve):
    folder, names = installed
    models = {name: path for name, path in names.items() if "://" not in name}
    without_version = "google/inception-resnet-v2/tensorFlow2/feature-vector"
    found = resolve(
        "kagglehub1.0-py3.11",
        "kagglehub",
        [*models, without_version],
        KAGGLEHUB_CACHE=folder / "kaggle",
    )
    assert "no network" in found.pop(without_version).get("error", "")
    assert found == {name: {"path": path} for name, path in models.items()}
