"""Tests of tools/find_python.sh, which picks the interpreter for `make`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "find_python.sh"


@pytest.fixture
def find(tmp_path):
    """Runs the script with nothing on PATH but what is in `tmp_path / "bin"`."""
    (tmp_path / "bin").mkdir()

    def run(**environment):
        return subprocess.run(
            ["/bin/sh", SCRIPT],
            env={"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
        )

    return run


def make_python(path, fits):
    path.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.realpath(sys.executable) if fits else "/bin/false"
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["python3", "python3.12", "python"])
def test_python_on_the_path(find, tmp_path, name):
    make_python(tmp_path / "bin" / name, fits=True)
    assert find().stdout == f"{name}\n"


def test_python3_that_does_not_fit_is_passed_over(find, tmp_path):
    make_python(tmp_path / "bin" / "python3", fits=False)
    make_python(tmp_path / "bin" / "python3.11", fits=True)
    assert find().stdout == "python3.11\n"


def test_python_of_pyenv(find, tmp_path):
    path = tmp_path / ".pyenv" / "versions" / "3.12.1" / "bin" / "python"
    make_python(path, fits=True)
    assert find().stdout == f"{path}\n"


def test_python_by_name(find, tmp_path):
    make_python(tmp_path / "mine", fits=True)
    assert find(PYTHON=str(tmp_path / "mine")).stdout == f"{tmp_path / 'mine'}\n"


def test_name_with_a_space(find, tmp_path):
    make_python(tmp_path / "my own" / "python", fits=True)
    path = str(tmp_path / "my own" / "python")
    assert find(PYTHON=path).stdout == f"{path}\n"


def test_no_python_that_fits(find, tmp_path):
    make_python(tmp_path / "bin" / "python3", fits=False)
    done = find()
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Expected Python 3.11, 3.12 or 3.13" in done.stderr
    assert "python3: " in done.stderr
    assert "python3.13: not found" in done.stderr
    assert "TensorFlow" not in done.stderr
    assert "make PYTHON=/path/to/python" in done.stderr


@pytest.mark.parametrize(
    "place", ["bin/python3", "bin/python3.14", ".pyenv/versions/3.14.2/bin/python"]
)
def test_only_python_3_14(find, tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\ntest "$1" = --version && echo Python 3.14.2\n')
    path.chmod(0o755)
    done = find()
    assert done.returncode == 1
    assert "has no wheels for Python 3.14" in done.stderr
