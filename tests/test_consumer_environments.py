"""The maker of consumers' environments, with environments that need no downloads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from consumers import environments

NAME = "small-py3.6"


@pytest.fixture
def requirements(tmp_path, monkeypatch):
    """Pins of an environment called NAME; the cache is empty, pip has no network."""
    monkeypatch.setattr(environments, "DIRECTORY", tmp_path)
    monkeypatch.setattr(environments, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(environments, "_BOOTSTRAP", {})
    path = tmp_path / f"{NAME}.txt"
    path.write_text("# nothing\n")
    return path


@pytest.fixture
def this_interpreter(monkeypatch):
    monkeypatch.setattr(
        environments, "_find_interpreter", lambda version: Path(sys.executable)
    )


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_names():
    assert environments.NAMES == [
        "kagglehub1.0-py3.11",
        "keras3.15-jax0.10-py3.11",
        "keras3.15-torch2.13-py3.11",
        "onnxruntime1.12-py3.7",
        "onnxruntime1.16-py3.11",
        "openvino2026.4-py3.11",
        "tf1.12-hub0.2-py3.6",
        "tf1.15-hub0.7-py3.7",
        "tf2.15-hub0.15-py3.11",
        "tf2.21-hub0.16-py3.11",
        "tf2.4-hub0.9-py3.8",
        "tflite2.14-py3.11",
        "tflite2.7-py3.7",
    ]


def test_missing_interpreter_is_named(requirements, monkeypatch):
    monkeypatch.setattr(environments, "_candidates", lambda version: iter(()))
    with pytest.raises(environments.NoInterpreterError, match=r"needs Python 3\.6"):
        environments.python_of(NAME)


def test_interpreters_that_do_not_run_are_passed_over(tmp_path, monkeypatch):
    candidates = [
        tmp_path / "missing",
        script(tmp_path / "shim", "exit 127"),
        script(tmp_path / "other", "echo 3.7"),
        script(tmp_path / "right", "echo 3.6"),
    ]
    monkeypatch.setattr(environments, "_candidates", lambda version: iter(candidates))
    assert environments._find_interpreter("3.6") == candidates[3]


def test_path_comes_first_and_then_the_newest_of_pyenv(tmp_path, monkeypatch):
    on_path = script(tmp_path / "bin/python3.6", "")
    script(tmp_path / "bin/pyenv", f"echo {tmp_path}/pyenv")
    installed = [
        script(tmp_path / f"pyenv/versions/{version}/bin/python", "")
        for version in ("3.6.15", "3.6.9")
    ]
    script(tmp_path / "pyenv/versions/3.7.1/bin/python", "")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert list(environments._candidates("3.6")) == [on_path, *installed]


@pytest.mark.slow
def test_environment_is_made_once(requirements, this_interpreter, monkeypatch):
    python = environments.python_of(NAME)
    done = subprocess.run(
        [python, "-c", "import sys; print(sys.prefix)"],
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == str(python.parents[1])
    assert [path.name for path in python.parents[2].iterdir()] == [python.parts[-3]]

    monkeypatch.setattr(environments, "_make", None)
    assert environments.python_of(NAME) == python
    requirements.write_text("# other pins\n")
    with pytest.raises(TypeError):
        environments.python_of(NAME)


@pytest.mark.parametrize("line", ["# --no-deps", "# nothing"])
def test_pins_may_leave_out_what_a_package_asks_for(
    requirements, this_interpreter, monkeypatch, line
):
    commands = []
    monkeypatch.setattr(environments, "_run", lambda *command: commands.append(command))
    requirements.write_text(f"{line}\n")
    environments.python_of(NAME)
    assert ("--no-deps" in commands[-1]) == (line == "# --no-deps")


@pytest.mark.slow
def test_half_made_environment_is_not_kept(requirements, this_interpreter, tmp_path):
    requirements.write_text("no-such-package==1.0\n")
    with pytest.raises(environments.InstallationError, match="no-such-package"):
        environments.python_of(NAME)
    assert list((tmp_path / "cache").iterdir()) == []


# Node and browsers


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A directory that is all of PATH, with programs of Node's names."""
    script(tmp_path / "bin/node", "exit 1")
    # Makes node_modules in the directory that its last argument names.
    script(tmp_path / "bin/npm", '/bin/mkdir "$(eval echo \\${$#})/node_modules"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


@pytest.fixture
def pins(requirements):
    for kind in ("", "-lock"):
        path = requirements.parent / "node" / f"package{kind}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    return path


@pytest.mark.parametrize("program", ["node", "npm"])
def test_missing_programs_are_named(programs, pins, program):
    (programs / program).unlink()
    with pytest.raises(
        environments.NoInterpreterError, match=f"needs {program}, which"
    ):
        environments.node_modules()


def test_node_modules_are_installed_once_for_each_set_of_pins(programs, pins):
    first = environments.node_modules()
    assert first.name == "node_modules" and first.is_dir()
    assert (first.parent / "package-lock.json").read_text() == "{}"
    script(programs / "npm", "exit 1")
    assert environments.node_modules() == first
    pins.write_text('{"other": "pins"}')
    with pytest.raises(environments.InstallationError, match="npm ci"):
        environments.node_modules()
    assert [path.name for path in first.parents[1].iterdir()] == [first.parent.name]


def test_browsers(programs):
    with pytest.raises(environments.NoInterpreterError, match="needs chromium, which"):
        environments.browser()
    chrome = script(programs / "google-chrome", "exit 1")
    assert environments.browser() == chrome
    assert environments.browser() != script(programs / "chromium", "exit 1")
