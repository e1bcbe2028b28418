"""Same checkpoint, same bytes: whatever process, directory, locale, and so on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORMATS = (
    *("v1", "v3", "v4", "v5", "tfjs-v1", "tfjs-v3-float16", "tfjs-v3-uint8"),
    *("onnx-float32", "onnx-float16", "onnx-int8", "tflite-published"),
    *("tflite-float16", "tflite-dynamic-int8", "tflite-int8"),
    *("keras", "keras-weights", "timm"),
)
ENVIRONMENTS = [
    {
        "PYTHONHASHSEED": "1",
        "LC_ALL": "C",
        "TZ": "UTC",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    },
    {
        "PYTHONHASHSEED": "2",
        "LC_ALL": "C.UTF-8",
        "TZ": "Asia/Kathmandu",
        "OMP_NUM_THREADS": "3",
        "TF_NUM_INTRAOP_THREADS": "3",
        "TF_NUM_INTEROP_THREADS": "2",
        "PYTHONUTF8": "1",
        "PYTHONOPTIMIZE": "1",
    },
]


def digests(output, environment, formats=FORMATS, python=sys.executable):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    output.parent.mkdir(parents=True)
    done = subprocess.run(
        [python, str(ROOT / "tests" / "thin_export.py"), str(output), *formats],
        cwd=output.parent,
        env={**os.environ, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_processes_directories_hash_seeds_locales_and_threads(tmp_path):
    """Of every format, with its manifest and its card."""
    first = digests(tmp_path / "one" / "place", ENVIRONMENTS[0])
    second = digests(tmp_path / "another" / "längerer ort", ENVIRONMENTS[1])
    assert {name for name in first if first[name] != second.get(name)} == set()
    assert first.keys() == second.keys()
    assert len(first) > 70


@pytest.mark.slow
@pytest.mark.skipif(
    "OTHER_PYTHON" not in os.environ,
    reason="needs OTHER_PYTHON, that of an environment by `make` with another Python",
)
def test_another_python(tmp_path):
    first = digests(tmp_path / "one" / "place", {})
    second = digests(tmp_path / "two" / "place", {}, python=os.environ["OTHER_PYTHON"])
    assert first == second
