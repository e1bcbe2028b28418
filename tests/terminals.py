"""Runs Python code with its output in pipes or on a terminal, and reads the screen."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN = """
import os, sys, time
from exporters.command.console import Column, Console, Verdict
console = Console()
"""
_CODES = re.compile(r"\x1b\[(\?\d+[hl]|[\d;]*[A-Za-z])|[^\x1b]")


def run(script, *, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **environment):
    """Runs code that has a console, with environment variables added.

    Returns:
      The finished process, with its output in bytes.
    """
    defaults = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED")
    }
    return subprocess.run(
        [sys.executable, "-c", BEGIN + script],
        cwd=ROOT,
        env={**defaults, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        timeout=60,
    )


def run_on_terminal(script, columns=80, streams=("stdout", "stderr"), **environment):
    """The same on a terminal.

    Returns:
      What the terminal was sent, with "\\n" for the line ends, and the finished process.
    """
    screen, terminal = os.openpty()
    size = struct.pack("HHHH", 40, columns, 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
    received = []

    def receive():
        try:
            while block := os.read(screen, 1 << 16):
                received.append(block)
        except OSError:  # The other end is closed.
            pass

    reader = threading.Thread(target=receive)
    reader.start()
    try:
        done = run(script, **dict.fromkeys(streams, terminal), **environment)
    finally:
        os.close(terminal)
        reader.join()
        os.close(screen)
    sent = b"".join(received).decode()
    return sent.replace("\r\n", "\n"), done


def shown(sent, columns=80):
    """What is on a terminal in the end, as lines without the empty ones at the end.

    It knows the codes that move the cursor and those that erase, and lines that are too
    long go on in the next one. All codes for colours are passed over.
    """
    lines, row, column = [[]], 0, 0
    for match in _CODES.finditer(sent):
        code = match[1]
        if code is None:
            character = match[0]
            if character == "\r":
                column = 0
                continue
            if character == "\n" or column == columns:
                row, column = row + 1, 0
                lines += [[] for _ in range(row + 1 - len(lines))]
            if character != "\n":
                lines[row] += [" "] * (column + 1 - len(lines[row]))
                lines[row][column] = character
                column += 1
        elif code == "2K":
            lines[row] = []
        elif code.endswith("A"):
            row -= int(code[:-1])
            assert row >= 0, "the cursor went above the first line"
        else:
            assert code.endswith("m"), f"unexpected code {code!r}"
    return "\n".join("".join(line).rstrip() for line in lines).rstrip("\n").split("\n")


def without_colours(sent):
    """Text without the codes that colour it."""
    return re.sub(r"\x1b\[[\d;]*m", "", sent)
