"""Arguments that several benchmarks take."""

from __future__ import annotations

import argparse
from pathlib import Path


def count(text: str) -> int:
    """A number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1 on")
    return int(text)


def names(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds where figures are kept."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/benchmarks"),
        help="directory to keep figures in; default: build/benchmarks",
    )
