"""Makes the environments in which the consumers run.

Each `<name>.txt` beside this file pins one of them completely; its name ends with the
version of Python, as in `tf1.12-hub0.2-py3.6`. They are made once and kept in the cache
directory of `irv2`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from checkpoints.download import cache_directory

DIRECTORY = Path(__file__).parent
NAMES = sorted(path.stem for path in DIRECTORY.glob("*-py*.txt"))

_BOOTSTRAP = {"3.6": ("pip==21.3.1", "setuptools==59.6.0", "wheel==0.37.1")}
"""What pip needs before it can read the pins, by version of Python."""
_VERSION = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"


class NoInterpreterError(Exception):
    """A version of Python that this machine does not have."""


class InstallationError(Exception):
    """Packages that cannot be installed, with what was said about it."""


def python_of(name: str) -> Path:
    """Returns the interpreter of an environment, which is made if need be.

    Raises:
      NoInterpreterError: the machine lacks the version of Python.
      InstallationError: the packages cannot be installed.
    """
    requirements = DIRECTORY / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    environment = cache_directory().absolute() / "consumers" / f"{name}-{digest}"
    if not environment.exists():
        _make(environment, requirements, name.rpartition("-py")[2])
    return environment / "bin" / "python"


def _make(environment: Path, requirements: Path, version: str) -> None:
    interpreter = _find_interpreter(version)
    environment.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{environment.name}.", suffix=".tmp", dir=environment.parent
    ) as scratch:
        unfinished = Path(scratch) / "environment"
        _run(interpreter, "-m", "venv", unfinished)
        pip = [unfinished / "bin" / "python", "-m", "pip", "install", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-compile"]
        if version in _BOOTSTRAP:
            _run(*pip, *_BOOTSTRAP[version])
        _run(*pip, "--requirement", requirements)
        # Python finds its packages from where it lies, so the whole can be renamed. If
        # another process was faster, its environment is as good.
        with contextlib.suppress(OSError):
            unfinished.rename(environment)


def _find_interpreter(version: str) -> Path:
    for candidate in _candidates(version):
        # One of pyenv's commands may be on PATH and yet not run.
        with contextlib.suppress(InstallationError, OSError):
            if _run(candidate, "-c", _VERSION).strip() == version:
                return candidate
    raise NoInterpreterError(
        f"needs Python {version}: there is no python{version} that runs, neither on "
        "PATH nor among pyenv's versions"
    )


def _candidates(version: str) -> Iterator[Path]:
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield Path(on_path)
    if shutil.which("pyenv"):
        root = Path(_run("pyenv", "root").strip())
    else:
        root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = root.glob(f"versions/{version}.*/bin/python")
    yield from sorted(
        installed,
        key=lambda path: [int(n) for n in re.findall(r"\d+", path.parts[-3])],
        reverse=True,
    )


def _run(*command: str | Path) -> str:
    """Runs a command and returns what it says."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        words = " ".join(map(str, command))
        raise InstallationError(f"{words} failed:\n{done.stdout[-2000:]}")
    return done.stdout
