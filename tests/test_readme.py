"""README and docs, by somebody who types what they say."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from consumers import environments

from exporters import exporting
from exporters.build import ExportOptions
from exporters.command import verbs
from exporters.command.arguments import parse
from exporters.errors import ExportError, UnknownFormatError
from exporters.exporting import export
from exporters.formats import FORMATS, select, select_tasks
from exporters.labels import imagenet_labels
from exporters.parity import ToleranceWithExceptions
from exporters.tfhub.cache import install

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
DOCUMENTS = sorted(path.name for path in ROOT.glob("*.md")) + list(PAGES[1:])
ARTIFACTS = "build/artifacts"
TENSORFLOW_1 = "tensorflow 1"
TIMM = "timm"
"""Comments above the snippets that need these. `tests/consumers` has timm's."""
QUICK = ("inspect", "install", "list", "uninstall")
"""Commands of `irv2` that are run, and not only looked at."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Lines that a page asks its readers to type.

    Attributes:
      page: the page.
      line: number of the first line.
      language: "bash" for commands, also for those that are only indented.
      text: the lines.
      comment: what a comment in the line above says.
    """

    page: str
    line: int
    language: str
    text: str
    comment: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, those in $( ) first, whose output counts as "x"."""
        text = self.text.replace("\\\n", " ")
        lines = [*re.findall(r"\$\((.*?)\)", text), *text.splitlines()]
        lines = [re.sub(r"\$\(.*?\)", "x", line) for line in lines]
        lines = [line.partition(" > ")[0] for line in lines if line.strip()]
        return [shlex.split(line, comments=True) for line in lines]


_BLOCK = re.compile(
    r"(?:^<!-- (?P<comment>.+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$"
    r"|(?<=\n\n)(?P<commands>(?: {4}[^\n]*\n|\n(?= {4}))+)",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: str) -> Iterator[Block]:
    """What a page asks its readers to type, from top to bottom."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if commands := found["commands"]:
            yield Block(
                page, line, "bash", re.sub("^    ", "", commands, flags=re.M), ""
            )
        else:
            comment = found["comment"] or ""
            yield Block(page, line, found["language"], found["text"], comment)


BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [block for block in BLOCKS if block.language == "bash"]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def test_every_page_has_something_to_type():
    for page in PAGES:
        assert [block for block in COMMANDS if block.page == page], page
    for words in ("hub.Module", "hub.KerasLayer", "onnxruntime", "Interpreter"):
        assert [block for block in PYTHON if words in block.text], words
    assert [block for block in PYTHON if block.comment == TENSORFLOW_1]


# Commands


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_commands_can_be_typed(block):
    """Programs, subcommands, options and the names of formats are as they are typed."""
    for words in block.commands:
        check(words)


def check(words: list[str]) -> None:
    """Raises if a command cannot be understood by its program."""
    match words:
        case ["make", *_]:
            for line in made(words):
                check(line)
        case [".venv/bin/irv2", *arguments]:
            check_irv2(arguments)
        case [".venv/bin/python", "-m", "pytest" | "pip" | "ruff" | "mypy", *_]:
            pass
        case [".venv/bin/python", "-m", module, *arguments]:
            check_module(module, arguments)
        case ["cp", source, _]:
            inside = source.replace(".venv/lib/python3*/site-packages/skimage/", "")
            skimage = importlib.util.find_spec("skimage")
            assert inside != source and skimage and skimage.origin
            assert (Path(skimage.origin).parent / inside).is_file(), source
        case ["openssl", "ecparam" | "ec", *_]:
            pass
        case ["python3", "-m", "http.server", *_] | ["python3.7", "-m", "venv", _]:
            pass
        case ["build/tf1/bin/pip", "install", "-r", requirements]:
            assert (ROOT / requirements).is_file()
        case _:
            pytest.fail(f"unknown program: {shlex.join(words)}")


def made(words: list[str]) -> list[list[str]]:
    """Returns the commands of `irv2` that make would run."""
    done = subprocess.run(
        [words[0], "--dry-run", *words[1:]],
        cwd=ROOT,
        # Not what a make that runs the tests was told.
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    commands = (shlex.split(line.partition(" > ")[0]) for line in lines)
    return [command for command in commands if command[:1] == [".venv/bin/irv2"]]


def check_irv2(arguments: list[str]) -> None:
    """The same for `irv2`, whose errors end the test."""
    try:
        parsed = parse(arguments)
    except SystemExit as done:
        assert not done.code, shlex.join(arguments)  # After --help.
        return
    if arguments[0] == "export":
        rows, tasks = select(parsed.formats), select_tasks(parsed.tasks)
        exporting._check_tasks(rows, tasks)
        exporting._check_options(verbs.options(parsed), rows, tasks, False)


def check_module(module: str, arguments: list[str]) -> None:
    """The same for a module that is run."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for option in re.findall(r"--[\w-]+", shlex.join(arguments)):
        assert option in done.stdout, f"{module} has no {option}"


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("make exports", AssertionError),
        ("make export FORMATS=v2", UnknownFormatError),
        (".venv/bin/irv2 verify --all", AssertionError),
        (
            ".venv/bin/irv2 export --checkpoint x --output y --formats v4 --nchw",
            ExportError,
        ),
        (".venv/bin/python -m examples.digits --epochs 3", AssertionError),
        ("irv2 export", pytest.fail.Exception),
    ],
)
def test_commands_that_cannot_be_typed_are_found(command, error):
    with pytest.raises(error):
        check(command.split())


# What pages say of each other, and of formats


def test_links_lead_somewhere():
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            page = (ROOT / document).parent / path if path else ROOT / document
            assert page.exists(), f"{document}: {target}"
            if anchor:
                assert anchor in anchors(page), f"{document}: {target}"


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def test_readme_names_every_format():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| `--formats`.*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert set(FORMATS) <= set(re.findall(r"`([\w-]+)`", table))


def test_readme_says_what_make_exports():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    *names, last = formats_of(["make", "export"])
    assert f"{', '.join(f'`{name}`' for name in names)} and `{last}`" in text


def formats_of(words: list[str]) -> list[str]:
    """Returns the formats that `make export` makes."""
    (command,) = (words for words in made(words) if words[1] == "export")
    return parse(command[1:]).formats


def test_limits_are_those_that_are_asked():
    text = (ROOT / "docs/verify.md").read_text(encoding="utf-8")
    quantized = FORMATS["onnx-int8"].tolerance
    assert isinstance(quantized, ToleranceWithExceptions)
    assert isinstance(quantized.of_small, ToleranceWithExceptions)
    for limit in (
        FORMATS["v4"].tolerance,
        FORMATS["tflite-float16"].tolerance,
        quantized,
        quantized.outputs["Logits"],
        quantized.of_small.outputs["Logits"],
    ):
        row = f"| at most {limit.max_error:g} | at least {limit.min_cosine:g} |"
        assert row in text


@pytest.mark.parametrize("page", PAGES)
def test_artifacts_are_made_before_they_are_used(page):
    there = names_of(formats_of(["make", "export"]))
    for block in blocks(page):
        if block.language == "bash":
            for words in block.commands:
                if words[:2] == ["make", "export"]:
                    there |= names_of(formats_of(words))
        for name in re.findall(rf"{ARTIFACTS}/([^\s\"]+)", block.text):
            assert name.removesuffix(".manifest.json") in there, f"{block}: {name}"


def names_of(formats: list[str]) -> set[str]:
    """What the artifacts of a stand-in are called."""
    return {
        row.artifact_name(task, is_stand_in=True)
        for row in select(formats)
        for task in row.tasks
    }


# Python


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_snippets_are_python(block):
    ast.parse(block.text)
    assert max(map(len, block.text.splitlines())) <= 88


@pytest.fixture(scope="module")
def place(
    tmp_path_factory, exported, twins, stand_in_file, stand_in_checkpoint, reference
) -> Path:
    """A directory as it is after `make export`, with other formats too."""
    directory = tmp_path_factory.mktemp("typed")
    programs = directory / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, words in {"python": "", "irv2": "-m exporters.command.main"}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        program.chmod(0o755)
    packages = directory / ".venv" / "lib" / "python3.0" / "site-packages"
    packages.mkdir(parents=True)
    skimage = importlib.util.find_spec("skimage")
    assert skimage and skimage.origin
    (packages / "skimage").symlink_to(Path(skimage.origin).parent)
    artifacts = directory / ARTIFACTS
    for made in (exported, twins):
        shutil.copytree(made, artifacts, copy_function=os.link, dirs_exist_ok=True)
    (directory / "build" / "inception_resnet_v2_stand_in.ckpt").symlink_to(
        stand_in_file
    )
    export(
        stand_in_checkpoint,
        artifacts,
        formats=["onnx-int8", "tflite-int8"],
        tasks=["classification"],
        options=ExportOptions(),
        verify=False,
        reference=reference,
    )
    return directory


def run(command: list[str], directory: Path) -> str:
    """Runs a command there, and returns what it printed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TF"))
    }
    done = subprocess.run(
        command,
        cwd=directory,
        env={**kept, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command[:3]}: {done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


def is_quick(words: list[str]) -> bool:
    """Whether a command is one of `irv2` that is run."""
    return words[0] == ".venv/bin/irv2" and words[1] in QUICK


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_pages_as_they_are_typed(place, page):
    """From top to bottom, but for commands that take long."""
    for block in blocks(page):
        if block.comment in (TENSORFLOW_1, TIMM):
            continue
        if block.language == "python":
            shown = run([str(place / ".venv/bin/python"), "-c", block.text], place)
            if "labels[" in block.text:
                assert shown.splitlines()[-1] in imagenet_labels(), block
        elif block.language == "bash":
            for words in block.commands:
                if words[0] == "cp" or is_quick(words):
                    run(["sh", "-c", " ".join(words)], place)


@pytest.mark.consumers
def test_tensorflow_1(exported, tmp_path):
    """In TensorFlow 1.15, after what the page says above it."""
    (block,) = (block for block in PYTHON if block.comment == TENSORFLOW_1)
    names = re.findall(rf"{ARTIFACTS}/([\w-]+)", block.text)
    (tmp_path / ARTIFACTS).mkdir(parents=True)
    for path in exported.iterdir():
        if path.name.startswith(names[0]):
            (tmp_path / ARTIFACTS / path.name).symlink_to(path)
    install(
        [exported / names[0]], tmp_path / "build/tfhub_modules", allow_stand_in=True
    )
    skimage = importlib.util.find_spec("skimage")
    assert skimage and skimage.origin
    photo = Path(skimage.origin).parent / "data" / "rocket.jpg"
    shutil.copy(photo, tmp_path / "photo.jpg")
    try:
        python = environments.python_of("tf1.15-hub0.7-py3.7")
    except environments.NoInterpreterError as reason:
        pytest.skip(str(reason))
    shown = run([str(python), "-c", block.text], tmp_path)
    assert shown.splitlines()[-1] in imagenet_labels()


# Promises


def test_every_promise_names_tests_that_are_there():
    promises = (ROOT / "RELIABILITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promises)
    assert len(named) > 20
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8"), test
