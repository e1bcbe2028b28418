"""What `make dist` builds, what an installation of it does, and what is pinned."""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("checkpoints", "exporters", "irv2")
INSTALL = [sys.executable, ROOT / "tools" / "install.py"]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# What is built


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The wheel and the source distribution that it was built from."""
    copy = tmp_path_factory.mktemp("copy") / "irv2"
    # What earlier builds left is taken for part of the source.
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=ignored)
    run(sys.executable, "-m", "build", "--no-isolation", copy)
    (wheel,) = copy.glob("dist/*.whl")
    (source,) = copy.glob("dist/*.tar.gz")
    return wheel, source


def test_wheel_holds_every_file_of_the_packages(distributions):
    with zipfile.ZipFile(distributions[0]) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_source_distribution_holds_the_source(distributions):
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git's")
    with tarfile.open(distributions[1]) as source:
        found = {name.partition("/")[2] for name in source.getnames()}
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    expected = {
        name
        for name in tracked
        if name and not name.startswith(".") and (ROOT / name).is_file()
    }
    assert expected - found == set()


# What an installation does


def requirements_of(name, extras=frozenset()):
    """Yields what an installed distribution asks for on this Python."""
    for text in importlib.metadata.distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras}
        ):
            yield requirement


def closure_of(requirements):
    """Names of the distributions that some requirements bring, directly or not."""
    found = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        asked = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if asked not in found:
            found.add(asked)
            waiting += requirements_of(requirement.name, requirement.extras)
    return {name for name, _ in found}


@pytest.fixture
def installation(distributions, tmp_path):
    """The directory with the commands of an environment that has the wheel.

    Besides, it has what the wheel asks for and nothing else. These packages are links to
    those of the running environment, which spares downloads; that their versions fit,
    pip says.
    """
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--quiet"]
    run(*pip, "install", "--no-index", "--no-deps", distributions[0])
    (packages,) = environment.glob("lib/python*/site-packages")
    (metadata,) = packages.glob("irv2-*.dist-info")
    asked = importlib.metadata.Distribution.at(metadata).requires
    wanted = [Requirement(text) for text in asked if "extra ==" not in text]
    for name in closure_of(wanted):
        distribution = importlib.metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files}:
            if part not in ("..", "__pycache__") and not (packages / part).exists():
                (packages / part).symlink_to(distribution.locate_file(part))
    run(*pip, "check")
    return environment / "bin"


@pytest.mark.slow
def test_commands_of_an_installation(installation, tmp_path):
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }

    def irv2(*arguments):
        command = installation / "irv2"
        return run(command, *arguments, cwd=directory, env=environment)

    where = "import exporters, checkpoints; print(exporters, checkpoints)"
    python = installation / "python"
    modules = run(python, "-c", where, cwd=directory, env=environment)
    assert modules.count(str(installation.parent)) == 2

    assert "stand-in" in irv2("--help")
    assert "onnx-float32" in irv2("list")
    irv2("stand-in", "--raw", "--output", "network.ckpt")
    checkpoint = ["--checkpoint", "network.ckpt"]
    formats = ["--formats", "onnx-float32,v5", "--tasks", "feature_vector"]
    irv2("export", *checkpoint, *formats, "--no-verify", "--output", "artifacts")
    assert irv2("verify", *checkpoint, "artifacts").count("agrees") == 2


# What `make` does


def test_a_failed_installation_says_why():
    done = subprocess.run(
        [*INSTALL, "--no-index", "no-such-package"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "No matching distribution found for no-such-package" in done.stderr


@pytest.mark.slow
def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path):
    """As it is where somebody replaced it on its way."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    changed = re.sub("sha256:[0-9a-f]{8}", "sha256:00000000", pins)
    (tmp_path / "constraints.txt").write_text(changed, encoding="utf-8")
    python = tmp_path / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", python.parents[1])
    done = subprocess.run(
        [python, *INSTALL[1:], "six"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr


def test_an_installation_says_one_line_where_there_is_no_terminal():
    said = run(*INSTALL, "--no-index", "--dry-run", "packaging", cwd=ROOT)
    assert re.fullmatch(r"  packaging installed in \d+ s\n", said)


def test_formats_may_be_listed_with_spaces():
    said = run("make", "-n", "export", "FORMATS=v4, v5", cwd=ROOT)
    assert '--formats "v4, v5"' in said


# What is pinned


@pytest.fixture(scope="module")
def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line[0] not in "# "]
    return {
        canonicalize_name(name): version.removesuffix(" \\") for name, version in pairs
    }


def test_every_requirement_has_a_pin_that_fits(pins):
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = [
        settings["options"]["install_requires"],
        *settings["options.extras_require"].values(),
    ]
    requirements = [
        Requirement(line) for text in listed for line in text.split("\n")[1:]
    ]
    assert requirements
    for requirement in requirements:
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_everything_that_comes_with_them_is_pinned(pins):
    asked = requirements_of("irv2", {"test"})
    assert closure_of(asked) - {"pip"} <= pins.keys()
