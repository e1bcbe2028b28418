"""Has pip install something, in the pinned versions.

Shows what pip is at where there is a terminal, then how long it took, and all that pip
said if it failed.
"""

import subprocess
import sys
import time

PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
OPTIONS = ["--no-compile", "--no-build-isolation", "--progress-bar", "off"]
PINS = ["--constraint", "constraints.txt"]


def main() -> int:
    """Runs pip with the arguments of this program; returns its exit code."""
    start = time.monotonic()
    said = []
    with subprocess.Popen(
        [*PIP, *OPTIONS, *PINS, *sys.argv[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as pip:
        for line in pip.stdout:
            said.append(line)
            show(line.strip())
    show("")
    if pip.returncode:
        print("".join(said), end="", file=sys.stderr)
    else:
        print(f"  {sys.argv[-1]} installed in {time.monotonic() - start:.0f} s")
    return pip.returncode


def show(text: str) -> None:
    """Puts a text in place of the last one that was shown."""
    if sys.stdout.isatty():
        print(f"\r\033[K  {text:.70}", end="\r", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
