"""The screen: our messages and nothing of the libraries'."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.console import size, table

ROOT = Path(__file__).parents[1]


def run(script, stderr=subprocess.PIPE):
    """Runs Python code that has a console."""
    environment = dict(os.environ)
    environment.pop("PYTHONUNBUFFERED", None)
    begin = "import ctypes, os, sys\nfrom exporters.console import Console\n"
    return subprocess.run(
        [sys.executable, "-c", f"{begin}console = Console()\n{script}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=60,
    )


def run_on_terminal(script):
    """The same; returns what a terminal was sent as standard error."""
    screen, terminal = os.openpty()
    try:
        done = run(script, stderr=terminal)
        return os.read(screen, 100_000).decode(), done
    finally:
        os.close(screen)
        os.close(terminal)


NOISE = """
    print("noise")
    sys.stdout.write("noise")
    sys.stderr.write("noise")
    os.write(1, b"noise")
    os.write(2, b"noise")
    os.system("echo noise; echo noise >&2")
"""


def test_libraries_are_not_heard_and_we_are():
    done = run(
        f"""
with console.alone():
    {NOISE}
    console.say("a message")
    console.result("a result")
    {NOISE}
console.say("the last message")
"""
    )
    assert done.returncode == 0
    assert done.stdout == "a result\n"
    assert done.stderr == "a message\nthe last message\n"


def test_what_was_written_before_and_after_is_shown():
    done = run(
        """
print("before")
sys.stderr.write("before\\n")
with console.alone():
    print("noise")
print("after")
sys.stderr.write("after\\n")
"""
    )
    assert done.stdout == done.stderr == "before\nafter\n"


def test_an_error_of_ours_is_shown_with_its_traceback():
    done = run('with console.alone():\n    raise RuntimeError("a bug of ours")')
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RuntimeError: a bug of ours\n")


def test_where_a_library_ends_the_process_is_shown():
    done = run("def library():\n    os.abort()\nwith console.alone():\n    library()")
    assert done.returncode < 0
    assert "Fatal Python error: Aborted" in done.stderr
    assert "in library" in done.stderr


# Steps


STEPS = """
with console.alone(), console.step("read") as show:
    show("1 of 2")
    print("noise")
    show("2 of 2")
with console.step("fail") as show:
    show("1 of 2")
    console.say("a message")
    raise KeyboardInterrupt
"""


def test_steps_without_a_terminal_are_shown_when_done():
    done = run(STEPS)
    lines = done.stderr.splitlines()
    assert re.fullmatch(r"  read \.\.\. \d+\.\d s", lines[0])
    assert lines[1:3] == ["a message", "Traceback (most recent call last):"]


def test_steps_on_a_terminal_are_shown_at_once():
    shown, _ = run_on_terminal(STEPS)
    lines = [line.split("\r\x1b[K") for line in shown.split("\r\n")]
    *states, done = lines[0]
    assert states == ["", "  read ...", "  read ... 1 of 2", "  read ... 2 of 2"]
    assert re.fullmatch(r"  read \.\.\. \d+\.\d s", done)
    assert lines[1:3] == [["", "  fail ...", "  fail ... 1 of 2"], ["a message"]]
    assert lines[3] == ["Traceback (most recent call last):"]


def test_a_long_line_does_not_wrap_on_a_terminal():
    shown, _ = run_on_terminal(
        """
import fcntl, struct, termios
fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
with console.step("a step with a long name"):
    pass
"""
    )
    assert shown.count("\r\x1b[K  a step with a lon") == 2
    assert "long" not in shown


# Tables


def test_words_are_set_left_and_numbers_right():
    rows = [["model.onnx", "9.5 MB", "-", "1/2"], ["a", "10.5 MB", "7", "none"]]
    assert table(["artifact", "size", "n", "weights"], rows).splitlines() == [
        "artifact       size  n  weights",
        "----------  -------  -  -------",
        "model.onnx   9.5 MB  -  1/2",
        "a           10.5 MB  7  none",
    ]


def test_a_table_without_rows():
    assert table(["a", "long"], []).splitlines() == ["a  long", "-  ----"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 MB"), (1_250_000, "1.2 MB"), (237_215_757, "237.2 MB")],
)
def test_sizes(count, text):
    assert size(count) == text
