"""The project's rules for its own code, as far as a program can check them."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "checkpoints", "exporters", "irv2")
SOURCES = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
CONTAINERS = ROOT / "exporters" / "containers"
PIPELINES = ROOT / "exporters" / "evaluation" / "pipelines.py"
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]
LIBRARIES = {
    "tensorflow",
    "tf_slim",
    "tf_keras",
    "onnx",
    "onnxruntime",
    "ai_edge_litert",
    "apache_beam",
    "rich",
    "matplotlib",
    "jinja2",
}


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]],
    ids=" ".join,
)
def test_tools_find_nothing(command):
    run(sys.executable, "-m", *command)


@pytest.fixture(scope="module")
def tracked_files():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git's")
    names = run("git", "ls-files", "-z").split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_path_of_a_machine_in_tracked_files(tracked_files):
    places = [
        str(ROOT),
        str(Path.home()),
        "../" + "shared",
        "/home" + "/",
        "/Users" + "/",
    ]
    pattern = re.compile(rf"(?<![\w./-])({'|'.join(map(re.escape, places))})".encode())
    found = [
        f"{path}: {match[0].decode()}"
        for path in tracked_files
        if (match := pattern.search(path.read_bytes()))
    ]
    assert found == []


# Who imports whom


def imports(path):
    """Names of the modules that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_checkpoints_do_not_know_of_exporters():
    for path in (ROOT / "checkpoints").rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith("exporters")]


def folder_imports():
    """(container's folder, file, what it imports of exporters.containers)."""
    for folder in sorted(path for path in CONTAINERS.iterdir() if path.is_dir()):
        for path in folder.rglob("*.py"):
            for name in imports(path):
                if name.startswith("exporters.containers."):
                    yield folder.name, path, name


def test_containers_do_not_import_each_other():
    found = list(folder_imports())
    assert found
    for folder, path, name in found:
        assert name.split(".")[2] == folder, f"{path} imports {name}"


def test_the_network_knows_nothing_of_containers():
    for path in (ROOT / "exporters" / "network").rglob("*.py"):
        others = [name for name in imports(path) if name.startswith("exporters.")]
        assert all(name.startswith("exporters.network") for name in others), path


def test_importing_everything_imports_no_library():
    """Containers and pipelines are loaded when they are used, and their libraries."""
    modules = ", ".join(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if path.stem not in ("__init__", "__main__")
        and path != PIPELINES
        and (CONTAINERS not in path.parents or path.stem == "versions")
    )
    script = (
        f"import sys, irv2, {modules}\nprint(sorted({LIBRARIES} & sys.modules.keys()))"
    )
    assert run(sys.executable, "-c", script) == "[]\n"


def test_the_table_of_formats_loads_no_container():
    script = "import sys, exporters.formats\nprint(*sys.modules)"
    loaded = run(sys.executable, "-c", script).split()
    assert "exporters.formats" in loaded
    assert not [name for name in loaded if name.endswith(".container")]


def test_importing_irv2_imports_nothing_heavy():
    script = "import sys, irv2\nprint(*sys.modules)"
    loaded = set(run(sys.executable, "-c", script).split())
    assert "irv2" in loaded
    assert not (LIBRARIES | {"numpy", "exporters", "checkpoints"}) & loaded


# What only some files do


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_only_the_command_prints(path):
    if path.parent == ROOT / "exporters" / "command":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            written = f"{node.value.id}.{node.attr}"
            assert written not in ("sys.stdout", "sys.stderr"), f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_everything_public_has_a_docstring(path):
    module = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(module)
    public = [
        node
        for node in module.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []
