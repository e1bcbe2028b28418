"""The artifacts in the hands of their consumers, those of old and those of today.

Each consumer program of `tests/consumers` runs once per environment: on the published
formats, installed under their published handles, or on a directory of the deployable
ones. What it checks becomes a test here. The programs run beside all other tests: the
first test starts them, and the last ones read what came of them (see
`pytest_collection_modifyitems` in conftest.py).
"""

from __future__ import annotations

import ast
import concurrent.futures
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from consumers import environments

from exporters import images
from exporters.network.tasks import CLASSIFICATION
from exporters.tfhub.cache import install

pytestmark = pytest.mark.consumers

PROGRAMS = {
    "hub_module_consumer": (
        "tf1.12-hub0.2-py3.6",
        "tf1.15-hub0.7-py3.7",
        "tf2.15-hub0.15-py3.11",
    ),
    "keras_layer_consumer": (
        "tf1.15-hub0.7-py3.7",
        "tf2.4-hub0.9-py3.8",
        "tf2.15-hub0.15-py3.11",
        "tf2.21-hub0.16-py3.11",
    ),
    "onnx_runtime_consumer": ("onnxruntime1.12-py3.7", "onnxruntime1.16-py3.11"),
    "tflite_runtime_consumer": ("tflite2.7-py3.7", "tflite2.14-py3.11"),
    "openvino_consumer": ("openvino2026.4-py3.11",),
    "keras_consumer": (
        "tf2.21-hub0.16-py3.11",
        "keras3.15-jax0.10-py3.11",
        "keras3.15-torch2.13-py3.11",
    ),
    "keras2_consumer": (
        "tf2.4-hub0.9-py3.8",
        "tf2.15-hub0.15-py3.11",
        "tf2.21-hub0.16-py3.11",
    ),
    "timm_consumer": ("keras3.15-torch2.13-py3.11",),
}
ARTIFACTS = {
    "hub_module_consumer": ("handles", "TFHUB_CACHE_DIR"),
    "keras_layer_consumer": ("handles", "TFHUB_CACHE_DIR"),
    "onnx_runtime_consumer": ("deployable", "DEPLOYABLE"),
    "tflite_runtime_consumer": ("deployable", "DEPLOYABLE"),
    "openvino_consumer": ("deployable", "DEPLOYABLE"),
    "keras_consumer": ("twins", "TWINS"),
    "keras2_consumer": ("twins", "TWINS"),
    "timm_consumer": ("twins", "TWINS"),
}
"""Program -> the fixture whose directory it works on, and the environment variable that
tells it where that is."""
AT_ONCE = 2
MAKING_ENVIRONMENT = threading.Lock()
TIMEOUT = 1800
SIZES = {"299x299": 2, "224x320": 2, "139x139": 4, "75x75": 1}  # Number of images.


def checks_of(program: str) -> list[str]:
    """Names of the checks in a program, which cannot be imported here."""
    source = (environments.DIRECTORY / f"{program}.py").read_text(encoding="utf-8")
    return [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
    ]


CASES = [
    (environment, program, check)
    for program, names in PROGRAMS.items()
    for environment in names
    for check in checks_of(program)
]


@pytest.fixture(scope="session")
def handles(exported) -> Iterator[Path]:
    """A cache of TF Hub's with all published artifacts."""
    with tempfile.TemporaryDirectory(prefix="irv2-") as directory:
        cache = Path(directory) / "tfhub_modules"
        assert len(install([exported], cache, allow_stand_in=True)) == 8
        yield cache


@pytest.fixture(scope="session")
def reference_file(reference, tmp_path_factory) -> Path:
    """Images and what TF-Slim's own graph makes of them, as "<size>/<output>"."""
    values = {}
    for size, count in SIZES.items():
        height, width = map(int, size.split("x"))
        batch = images.generate(count, height, width, seed=3)
        values[f"{size}/images"] = batch
        names = {"feature_vector": "feature_vector", "logits": "logits"}
        if size == "299x299":
            names |= CLASSIFICATION.published
        outputs = reference.outputs(batch, names.values())
        values |= {f"{size}/{name}": outputs[value] for name, value in names.items()}
        if size == "139x139":
            trained = reference.outputs(batch, ["feature_vector"], is_training=True)
            values[f"{size}/train/feature_vector"] = trained["feature_vector"]
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    np.savez(path, **values)
    return path


@pytest.fixture(scope="session")
def runs(request, reference_file, tmp_path_factory):
    """Starts the programs that the selected tests ask for.

    Returns:
      (environment, program) -> the future of the results.
    """
    selected = {
        (item.callspec.params["environment"], item.callspec.params["program"])
        for item in request.session.items
        if item.function is test_consumer
    }
    artifacts = {}
    for _, program in selected:
        fixture, variable = ARTIFACTS[program]
        artifacts[program] = {variable: str(request.getfixturevalue(fixture))}
    directory = tmp_path_factory.mktemp("results")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (environment, program): pool.submit(
                run, environment, program, artifacts[program], reference_file, directory
            )
            for environment, program in sorted(selected)
        }
        pool.shutdown(cancel_futures=True)


def run(
    environment: str,
    program: str,
    artifacts: dict[str, str],
    reference_file: Path,
    directory: Path,
) -> dict:
    """Runs a program in an environment and returns the results of its checks."""
    with MAKING_ENVIRONMENT:
        python = environments.python_of(environment)
    results = directory / f"{program}-{environment}.json"
    settings = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TF_"))
    }
    done = subprocess.run(
        [python, environments.DIRECTORY / f"{program}.py", reference_file, results],
        env=settings | artifacts,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{program} ended with {done.returncode}: {done.stdout[-3000:]}")
    return json.loads(results.read_text())


def test_programs_start(runs):
    assert runs


@pytest.mark.parametrize(("environment", "program", "check"), CASES)
def test_consumer(runs, environment, program, check):
    try:
        results = runs[environment, program].result()
    except environments.NoInterpreterError as reason:
        pytest.skip(f"{environment} {reason}")
    outcome, detail = results[check]["outcome"], results[check]["detail"]
    if outcome == "not applicable":
        pytest.skip(detail)
    assert outcome == "passed", detail
