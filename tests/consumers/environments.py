"""Makes the environments in which the consumers run.

Each `<name>.txt` beside this file pins one of them completely; its name ends with the
version of Python, as in `tf1.12-hub0.2-py3.6`. What runs in Node and in a browser is pinned
in node/package-lock.json. They are made once and kept in the cache directory of `irv2`.
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
CACHE = cache_directory().absolute() / "consumers"
"""Where they are, whatever home tests have later."""
NAMES = sorted(path.stem for path in DIRECTORY.glob("*-py*.txt"))

_BOOTSTRAP = {"3.6": ("pip==21.3.1", "setuptools==59.6.0", "wheel==0.37.1")}
"""What pip needs before it can read the pins, by version of Python."""
_WITHOUT_OTHERS = "# --no-deps"
"""A line of pins that leave out what a package asks for and does not need."""
_TIMEOUT = 1200
_VERSION = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"


class NoInterpreterError(Exception):
    """A version of Python, or another program, that this machine does not have."""


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
    environment = CACHE / f"{name}-{digest}"
    if not environment.exists():
        _make(environment, requirements, name.rpartition("-py")[2])
    return environment / "bin" / "python"


def _make(environment: Path, requirements: Path, version: str) -> None:
    interpreter = _find_interpreter(version)
    with _in_the_making(environment) as unfinished:
        _run(interpreter, "-m", "venv", unfinished)
        pip = [unfinished / "bin" / "python", "-m", "pip", "install", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-compile"]
        if _WITHOUT_OTHERS in requirements.read_text().splitlines():
            pip.append("--no-deps")
        if version in _BOOTSTRAP:
            _run(*pip, *_BOOTSTRAP[version])
        _run(*pip, "--requirement", requirements)


def node_modules() -> Path:
    """Returns the directory of Node's packages, which are installed if need be.

    Raises:
      NoInterpreterError: the machine lacks Node, or npm.
      InstallationError: the packages cannot be installed.
    """
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise NoInterpreterError(f"needs {program}, which is not on PATH")
    sources = [DIRECTORY / "node" / f"package{kind}.json" for kind in ("", "-lock")]
    content = b"".join(source.read_bytes() for source in sources)
    name = f"node-{hashlib.sha256(content).hexdigest()[:12]}"
    environment = CACHE / name
    if not environment.exists():
        with _in_the_making(environment) as unfinished:
            unfinished.mkdir()
            for source in sources:
                shutil.copy(source, unfinished)
            options = ["--ignore-scripts", "--no-audit", "--no-fund"]
            _run("npm", "ci", *options, "--prefix", unfinished)
    return environment / "node_modules"


def browser() -> Path:
    """Returns the program Chromium, or a browser that is made of it.

    Raises:
      NoInterpreterError: the machine has none.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise NoInterpreterError(f"needs {names[0]}, which is not on PATH")
    return Path(found)


def run_in_node(node_modules: Path, program: str, *arguments: object) -> None:
    """Runs one of the programs in node/, which has to end well."""
    done = subprocess.run(
        ["node", str(DIRECTORY / "node" / program), *map(str, arguments)],
        env=os.environ | {"NODE_PATH": str(node_modules)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@contextlib.contextmanager
def _in_the_making(environment: Path) -> Iterator[Path]:
    """A place to make an environment, which comes to its own once it is whole."""
    environment.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{environment.name}.", suffix=".tmp", dir=environment.parent
    ) as scratch:
        unfinished = Path(scratch) / "environment"
        yield unfinished
        # Python and Node find packages from where they lie, so the whole can be renamed.
        # If another process was faster, its environment is as good.
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
