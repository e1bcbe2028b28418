"""The artifacts in the hands of their consumers, those of old and those of today.

Each consumer program of `tests/consumers` runs once per environment: on the published
formats, installed under their published handles, or on a directory of the deployable
ones. What it checks becomes a test here. With `--dist loadfile`, each program goes to the
next worker that is free (see `pytest_xdist_make_scheduler` in conftest.py).
"""

from __future__ import annotations

import ast
import functools
import itertools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import thin_build
import thin_network
from consumers import environments

from exporters import images
from exporters.network.tasks import CLASSIFICATION
from exporters.reference import Reference
from exporters.tfhub.cache import install

pytestmark = pytest.mark.consumers

PROGRAMS = {
    "hub_module_consumer": (
        "tf1.12-hub0.2-py3.6",
        "tf1.15-hub0.7-py3.7",
        "tf2.15-hub0.15-py3.11",
    ),
    "keras_consumer": (
        "tf2.21-hub0.16-py3.11",
        "keras3.15-jax0.10-py3.11",
        "keras3.15-torch2.13-py3.11",
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
FINE_TUNED = {
    "hub_module_consumer": ("tf1.15-hub0.7-py3.7", "check_feature_vector_3"),
    "keras_layer_consumer": ("tf2.21-hub0.16-py3.11", "check_feature_vector_4"),
}
"""Program -> where it trains the real network, and in which check. Else it trains the thin
one, whose graphs consist of the same ops, and has the outputs of the real one alone."""
TRAINING = "_fine_tuning"
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
    for environments_ in itertools.zip_longest(*PROGRAMS.values())
    for program, environment in zip(PROGRAMS, environments_)
    if environment
    for check in checks_of(program)
]
"""One program after the other, so that workers make what these need side by side."""


@pytest.fixture(scope="session")
def handles(made_once, exported) -> Path:
    """A cache of TF Hub's with all published artifacts."""

    def write(directory: Path) -> None:
        assert len(install([exported], directory, allow_stand_in=True)) == 8

    return made_once("tfhub_modules", write)


@pytest.fixture(scope="session")
def thin_handles(made_once, thin_exported) -> Path:
    """A cache of TF Hub's with all of the thin network."""

    def write(directory: Path) -> None:
        with thin_network.installed():
            install([thin_exported], directory, allow_stand_in=True)

    return made_once("thin_tfhub_modules", write)


FILE = "reference.npz"


@pytest.fixture(scope="session")
def reference_file(made_once, request) -> Path:
    def write(directory: Path) -> None:
        write_reference(directory / FILE, request.getfixturevalue("reference"))

    return made_once("reference", write) / FILE


@pytest.fixture(scope="session")
def thin_reference_file(made_once) -> Path:
    def write(directory: Path) -> None:
        with thin_build.installed(made_once) as thin:
            write_reference(directory / FILE, thin.reference)

    return made_once("thin_reference", write) / FILE


def write_reference(path: Path, reference: Reference) -> None:
    """Writes images and what TF-Slim's own graph makes of them, as "<size>/<output>".

    And numbers of a feature vector's variables, and of what there is one for each of.
    """
    values: dict[str, Any] = {}
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
    ends = [
        name.rpartition("/")[2]
        for name in reference.checkpoint
        if "/AuxLogits/" not in name and "/Logits/" not in name
    ]
    values["averages"] = sum(end.startswith("moving_") for end in ends)
    values["trained"] = len(ends) - values["averages"]
    values["losses"] = sum(end in ("weights", "biases") for end in ends)
    np.savez(path, **values)


@pytest.fixture(scope="session")
def results(request, reference_file, tmp_path_factory) -> Callable[[str, str], Any]:
    """Returns (environment, program) -> results of its checks; it runs once."""
    directory = tmp_path_factory.mktemp("results")

    @functools.cache
    def of(environment: str, program: str) -> dict | Exception:
        fixture, variable = ARTIFACTS[program]
        ways = [(fixture, reference_file, [])]
        if program in FINE_TUNED:
            thin = request.getfixturevalue("thin_reference_file")
            ways = [
                (fixture, reference_file, ["--without", TRAINING]),
                (f"thin_{fixture}", thin, ["--only", TRAINING]),
            ]
            where, check = FINE_TUNED[program]
            if where == environment:
                ways += [(fixture, reference_file, ["--only", f"{check}{TRAINING}"])]
        try:
            found = {}
            for number, (artifacts, reference, options) in enumerate(ways):
                file = directory / f"{program}-{environment}-{number}.json"
                given = {variable: str(request.getfixturevalue(artifacts))}
                run(environment, program, given, [reference, file, *options])
                found |= json.loads(file.read_text())
            return found
        except Exception as reason:  # Of each of its checks.
            return reason

    return of


def run(
    environment: str, program: str, settings: dict[str, str], arguments: list[Any]
) -> None:
    """Runs a program in an environment."""
    python = environments.python_of(environment)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TF_"))
    }
    done = subprocess.run(
        [python, environments.DIRECTORY / f"{program}.py", *arguments],
        env=kept | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert not done.returncode, done.stdout[-3000:]


@pytest.mark.parametrize(("environment", "program", "check"), CASES)
def test_consumer(results, environment, program, check):
    found = results(environment, program)
    if isinstance(found, environments.NoInterpreterError):
        pytest.skip(f"{environment} {found}")
    if isinstance(found, Exception):
        raise found
    outcome, detail = found[check]["outcome"], found[check]["detail"]
    if outcome == "not applicable":
        pytest.skip(detail)
    assert outcome == "passed", detail
