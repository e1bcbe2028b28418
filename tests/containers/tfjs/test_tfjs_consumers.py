"""TF.js models in the hands of TF.js: in Node, from files and a server, and in a browser.

The packages and their versions are in tests/consumers/node/.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_graph_model
from consumers import environments
from file_server import served
from PIL import Image

from exporters import images
from exporters.containers.tfjs import container
from exporters.exporting import export
from exporters.formats import FORMATS
from exporters.labels import imagenet_labels
from exporters.network.tasks import CLASSIFICATION, TASKS
from exporters.tfhub.packing import pack

pytestmark = pytest.mark.consumers

APPLIED = "module_apply_default"
INNER = f"{APPLIED}/InceptionResnetV2/InceptionResnetV2/Mixed_5b/concat"
PUBLISHED = ("tfjs-v1", "tfjs-v3")
ERROR = 2e-5
"""Relative to the largest magnitude, as for all float32 formats."""


@pytest.fixture(scope="module")
def node_modules():
    try:
        return environments.node_modules()
    except environments.NoInterpreterError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def browser():
    try:
        return environments.browser()
    except environments.NoInterpreterError as reason:
        pytest.skip(str(reason))


# In Node


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What TF.js says of a model, and what came of images."""

    facts: dict[str, Any]
    outputs: dict[str, np.ndarray]


def load(
    node_modules: Path, directory: Path, jobs: Sequence[dict[str, Any]]
) -> list[Loaded]:
    """Lets TF.js load models and run them on images.

    Args:
      directory: an empty place.
      jobs: as graph_model_consumer.js has them, but with the images as arrays.
    """
    described = []
    for number, job in enumerate(jobs):
        file = directory / f"images-{number}.bin"
        job["images"].tofile(file)
        shape = list(job["images"].shape)
        described.append(job | {"images": str(file), "shape": shape})
    (directory / "jobs.json").write_text(json.dumps(described))
    results = directory / "results.json"
    environments.run_in_node(
        node_modules, "graph_model_consumer.js", directory / "jobs.json", results
    )
    numbers = np.fromfile(f"{results}.bin", np.float32)
    loaded = []
    for facts in json.loads(results.read_text()):
        outputs = {}
        for way, tensor in facts["tensors"].items():
            assert tensor["dtype"] == "float32"
            size = int(np.prod(tensor["shape"]))
            outputs[way], numbers = (
                numbers[:size].reshape(tensor["shape"]),
                numbers[size:],
            )
        loaded.append(Loaded(facts, outputs))
    return loaded


def error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_small_models(node_modules, tmp_path):
    """Every format, and every way in which people ask for the output."""
    batch = images.generate(2, 299, 299, seed=3)
    asked = [
        (name, task)
        for name in (row.name for row in FORMATS.values() if "tfjs" in row.name)
        for task in TASKS.values()
    ]
    jobs = [
        {
            "model": str(small_graph_model.write(tmp_path / f"{n}-{t.name}", n, t)),
            "images": batch,
        }
        for n, t in asked
    ]
    tolerances = {"tfjs-v3-float16": 2e-3, "tfjs-v3-uint8": 5e-2}
    for (name, task), loaded in zip(asked, load(node_modules, tmp_path, jobs)):
        expected = small_graph_model.outputs(batch, task)
        assert len(loaded.outputs) == 4
        for found in loaded.outputs.values():
            assert error(found, expected) <= tolerances.get(name, ERROR)
        (images_,) = loaded.facts["inputs"]
        size = [299, 299] if name == "tfjs-v1" else [-1, -1]
        assert images_ == {
            "name": "images",
            "shape": [-1, *size, 3],
            "dtype": "float32",
        }
        assert loaded.facts["metadata"]["irv2"]["format"] == name
        assert loaded.facts["backend"] == "wasm"


@pytest.fixture(scope="module")
def models(tmp_path_factory, build, reference):
    """A directory with the published models, of both tasks, and the smallest one."""
    directory = tmp_path_factory.mktemp("models")
    export(
        build.checkpoint,
        directory,
        formats=[*PUBLISHED, "tfjs-v3-uint8"],
        verify=False,
        reference=reference,
    )
    return directory


def model(models: Path, name: str, task: str) -> Path:
    return models / FORMATS[name].artifact_name(TASKS[task], is_stand_in=True)


@pytest.fixture(scope="module")
def website(models, tmp_path_factory):
    """The address of a server of files that has the packed models."""
    directory = tmp_path_factory.mktemp("www")
    published = [model(models, name, task) for name in PUBLISHED for task in TASKS]
    pack(published, directory)
    with served(directory) as address:
        yield address


SIZES = ((299, 299), (224, 320))
CASES = [
    ("files", "tfjs-v1", SIZES[0]),
    *(("files", "tfjs-v3", size) for size in SIZES),
    *(("fromTFHub", name, SIZES[0]) for name in PUBLISHED),
    ("files", "tfjs-v3-uint8", SIZES[0]),
]


@pytest.fixture(scope="module")
def loaded(node_modules, models, website, tmp_path_factory):
    """(way to load, format, size, task) -> (images, what TF.js made of them)."""
    path = "google/tfjs-model/imagenet/inception_resnet_v2"
    jobs = {}
    for way, name, size in CASES:
        for task in TASKS:
            version = name.removeprefix("tfjs-v")
            url = f"{website}/{path}/{task}/{version}/default/1-stand-in"
            jobs[way, name, size, task] = {
                "model": url if way == "fromTFHub" else str(model(models, name, task)),
                "images": images.generate(2, *size, seed=3),
                "nodes": [INNER],
                "ways": ["predict", INNER] if way == "files" else ["predict"],
            }
    directory = tmp_path_factory.mktemp("loaded")
    found = load(node_modules, directory, list(jobs.values()))
    return {key: (job["images"], one) for (key, job), one in zip(jobs.items(), found)}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize(("way", "name", "size"), CASES)
def test_outputs_are_the_networks(loaded, reference, way, name, size, task):
    batch, found = loaded[way, name, size, task.name]
    expected = reference.outputs(batch, [task.output, "Mixed_5b"])
    tolerance = FORMATS[name].tolerance.max_error
    assert tolerance == (0.25 if name == "tfjs-v3-uint8" else ERROR)
    assert error(found.outputs["predict"], expected[task.output]) <= tolerance
    if INNER in found.outputs:
        assert error(found.outputs[INNER], expected["Mixed_5b"]) <= tolerance


# In a browser


@dataclasses.dataclass(frozen=True)
class Visit:
    """What a page is asked for."""

    url: str
    image: Path
    how: str = "chosen"
    width: int = 1100
    scheme: str = "light"
    screenshot: str = ""


def visit(
    node_modules: Path, browser: Path, directory: Path, visits: Sequence[Visit]
) -> list[dict[str, Any]]:
    """Opens pages in a browser; screenshots stay in the directory."""
    jobs = [
        dataclasses.asdict(one)
        | {"image": str(one.image), "screenshot": str(directory / f"{number}.png")}
        for number, one in enumerate(visits)
    ]
    (directory / "jobs.json").write_text(json.dumps(jobs))
    results = directory / "results.json"
    environments.run_in_node(
        node_modules, "page_consumer.js", browser, directory / "jobs.json", results
    )
    found = json.loads(results.read_text())
    for one in found:
        assert one["complaints"] == []
        assert not one["isTooWide"]
    return found


LIBRARIES = (
    "@tensorflow/tfjs/dist/tf.min.js",
    "@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.min.js",
    "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm",
)


def add_libraries(node_modules: Path, model: Path) -> None:
    """Puts TF.js beside a page, where it looks before it asks the network."""
    for name in LIBRARIES:
        (model / Path(name).name).symlink_to(node_modules / name)


@pytest.fixture
def photograph(tmp_path):
    """An image of which the page and TF-Slim's evaluation see the same part."""
    path = tmp_path / "photograph.png"
    pixels = images.generate(1, 300, 451, seed=4)[0]
    Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(path)
    return path


def test_libraries_of_the_page_are_the_pinned_ones(node_modules):
    page = importlib.resources.files(container.__package__) / "data/index.html"
    text = page.read_text(encoding="utf-8")
    found = set(re.findall(r'integrity: "sha384-(.*?)"', text))
    digests = (
        hashlib.sha384((node_modules / name).read_bytes()).digest()
        for name in LIBRARIES
    )
    assert found == {base64.b64encode(digest).decode() for digest in digests}
    pins = json.loads((environments.DIRECTORY / "node/package.json").read_text())
    for name in LIBRARIES:
        package, _, path = name.removeprefix("@tensorflow/").partition("/")
        version = pins["dependencies"][f"@tensorflow/{package}"]
        assert f"{package}@{version}/{path}" in text


def test_page_of_a_small_model(node_modules, browser, tmp_path, photograph):
    site = tmp_path / "site"
    model = small_graph_model.write(site / "own", is_stand_in=False)
    add_libraries(node_modules, model)
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    with served(site) as address:
        visits = [Visit(f"{address}/own/", image) for image in (photograph, broken)]
        shown, failed = visit(node_modules, browser, tmp_path, visits)
    logits = small_graph_model.outputs(images.read([photograph]), CLASSIFICATION)[0]
    names = small_graph_model.LABELS
    best = [names[index] for index in np.argsort(-logits)[:5]]
    # Names are text, whatever is in them.
    assert [name for name, _ in shown["classes"]] == best
    assert not shown["isStandIn"]
    assert "STAND-IN" not in shown["title"] + shown["text"]
    assert failed["state"] == "failed"
    assert "broken.png is no image that this browser can read" in failed["text"]


@pytest.mark.slow
def test_pages_of_both_tasks(
    node_modules, browser, models, reference, tmp_path, photograph
):
    site = tmp_path / "site"
    for task in TASKS:
        source = model(models, "tfjs-v3", task)
        (site / task).mkdir(parents=True)
        for path in source.iterdir():
            (site / task / path.name).symlink_to(path)
        add_libraries(node_modules, site / task)
    with served(site) as address:
        visits = [
            Visit(f"{address}/classification/", photograph),
            Visit(f"{address}/classification/", photograph, "dropped", 360, "dark"),
            Visit(f"{address}/feature_vector/", photograph, "dropped", 360),
        ]
        *classified, embedded = visit(node_modules, browser, tmp_path, visits)
    expected = reference.outputs(
        images.read([photograph]), ["feature_vector", "probabilities"]
    )
    probabilities = expected["probabilities"][0]
    for shown in classified:
        found = {
            name: float(part.removesuffix(" %")) for name, part in shown["classes"]
        }
        labels = imagenet_labels()
        best = [labels[index] for index in np.argsort(-probabilities)[:5]]
        assert list(found) == best
        wanted = [100 * probabilities[labels.index(name)] for name in found]
        np.testing.assert_allclose(list(found.values()), wanted, atol=0.051)
    count, norm, first = embedded["features"]
    features = expected["feature_vector"][0]
    assert count == "1536"
    assert float(norm) == pytest.approx(np.linalg.norm(features), rel=1e-4)
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", first)]
    np.testing.assert_allclose(numbers, features[:8], atol=1.1e-4)
    for shown in (*classified, embedded):
        assert shown["isStandIn"]
        assert shown["title"].startswith("STAND-IN")
        assert "STAND-IN. The weights of this model are generated." in shown["text"]
