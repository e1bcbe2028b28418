"""The programs of the model cards, in the environments that they are for.

Those for ONNX and TFLite are run by tests/test_cards.py.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import small_graph_model
from consumers import environments
from file_server import served
from PIL import Image

from exporters import cards, images, manifest
from exporters.formats import FORMATS
from exporters.labels import first_without_background, imagenet_labels
from exporters.network.tasks import TASKS

pytestmark = pytest.mark.consumers

TWINS = "twins", "keras3.15-torch2.13-py3.11"
PROGRAMS = {
    "v1": ("classification", "thin_exported", "tf1.15-hub0.7-py3.7"),
    "v3": ("feature_vector", "thin_exported", "tf1.15-hub0.7-py3.7"),
    "v4": ("classification", "thin_exported", "tf2.21-hub0.16-py3.11"),
    "v5": ("feature_vector", "thin_exported", "tf2.21-hub0.16-py3.11"),
    "keras": ("feature_vector", *TWINS),
    "keras-weights": ("classification", *TWINS),
    "timm": ("classification", *TWINS),
}
"""Format -> a task, the fixture whose directory has its artifacts, and an environment.

One task a format: the programs for both are made of the same lines. They are the same
lines for the thin network too, which libraries know nothing of but in twins."""
FEATURES = {"thin_exported": 192, "twins": 1536}
WITH_TORCHVISION = (
    "import sys; sys.path.insert(0, sys.argv[1]); import timm_consumer; "
    "exec(compile(open('program.py').read(), 'program.py', 'exec'))"
)
"""timm asks for torchvision, which it needs to read images, and not for a network."""
TIMEOUT = 900


def program_of(path: Path, language: str = "python") -> str:
    card = manifest.card_of(path).read_text(encoding="utf-8")
    (program,) = re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)
    return program


def write_photograph(directory: Path) -> np.ndarray:
    """Saves a JPEG; returns its pixels, float32 in [0, 1]."""
    (image,) = images.generate(1, 320, 400, seed=5)
    Image.fromarray((image * 255).astype(np.uint8)).save(directory / "photo.jpg")
    return image


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_run(request, tmp_path, name):
    """And print what the shape should be, and the largest of all numbers."""
    task, fixture, environment = PROGRAMS[name]
    row = FORMATS[name]
    try:
        python = environments.python_of(environment)
    except environments.NoInterpreterError as reason:
        pytest.skip(f"{environment} {reason}")
    directory = request.getfixturevalue(fixture)
    path = directory / row.artifact_name(TASKS[task], is_stand_in=True)
    (tmp_path / path.name).symlink_to(path)
    write_photograph(tmp_path)
    (tmp_path / "program.py").write_text(program_of(path))
    command = [python, "program.py"]
    if name == "timm":
        command = [python, "-c", WITH_TORCHVISION, environments.DIRECTORY]
    settings = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "TF_", "KERAS"))
    }
    if fixture == "twins":
        settings["KERAS_BACKEND"] = "torch"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    width = FEATURES[fixture]
    if task == "classification":
        width = len(imagenet_labels())
        if row.container.leaves_background_out:
            width -= first_without_background(width)
    shape, _, largest = done.stdout.splitlines()[-1].rpartition(" ")
    assert shape == f"(1, {width})"
    assert 0 <= int(largest) < width


IN_NODE = """
const fs = require("node:fs");
const tf = require("@tensorflow/tfjs");
const [program, site, pixels, height, width] = process.argv.slice(2);
const image = {data: new Uint8Array(fs.readFileSync(pixels)), height: +height, width: +width};
const library = {...tf, loadGraphModel: (name) => tf.loadGraphModel(`${site}/${name}`)};
const run = new Function(
    "tf", "image", `return (async () => {${fs.readFileSync(program)}})()`);
tf.setBackend("cpu").then(() => run(library, image)).catch((error) => {
  console.error(error);
  process.exit(1);
});
"""


@pytest.mark.parametrize("task", TASKS)
def test_the_program_for_tfjs_runs(tmp_path, task):
    """As in a page: the image's pixels come as a browser has them."""
    try:
        node_modules = environments.node_modules()
    except environments.NoInterpreterError as reason:
        pytest.skip(str(reason))
    path = small_graph_model.write(tmp_path / "model", "tfjs-v3", TASKS[task])
    row = FORMATS["tfjs-v3"]
    described = {
        "task": task,
        "options": {},
        "num_classes": len(small_graph_model.LABELS),
        "labels": small_graph_model.LABELS if task == "classification" else None,
    }
    (tmp_path / "program.js").write_text(cards.snippet(path.name, row, described))
    (tmp_path / "run.js").write_text(IN_NODE)
    (pixels,) = images.generate(1, 299, 299, seed=5)
    rgba = np.full((299, 299, 4), 255, np.uint8)
    rgba[..., :3] = np.rint(pixels * 255)
    rgba.tofile(tmp_path / "pixels")
    with served(tmp_path) as site:
        done = subprocess.run(
            ["node", "run.js", "program.js", site, "pixels", "299", "299"],
            cwd=tmp_path,
            env=os.environ | {"NODE_PATH": str(node_modules)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    (values,) = small_graph_model.outputs(pixels[np.newaxis], TASKS[task])
    printed = done.stdout.strip().splitlines()[-1]
    if task == "classification":
        assert printed == small_graph_model.LABELS[values.argmax()]
    else:
        assert printed == f"{len(values)} {values.argmax()}"
