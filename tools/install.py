"""Has pip install something, in the pinned versions and from files with the known hashes.

Shows what pip is at where there is a terminal, then how long it took, and all that pip
said if it failed.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
OPTIONS = ["--no-compile", "--no-build-isolation", "--progress-bar", "off"]
PINS = Path("constraints.txt")


def main() -> int:
    """Installs what this program's arguments name to pip; returns an exit code."""
    start = time.monotonic()
    pins = read_pins(PINS)
    with tempfile.TemporaryDirectory() as scratch:
        code = install(sys.argv[1:], pins, Path(scratch))
    if not code:
        print(f"  {sys.argv[-1]} installed in {time.monotonic() - start:.0f} s")
    return code


def read_pins(file: Path) -> dict[str, list[str]]:
    """Returns normalized name -> its version and hashes, as pip's files have them."""
    pins: dict[str, list[str]] = {}
    words: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            if not line.startswith(" "):
                words = pins[normalized(line.partition("==")[0])] = []
            words.append(line.strip().removesuffix(" \\"))
    return pins


def install(arguments: list[str], pins: dict[str, list[str]], scratch: Path) -> int:
    """Installs what `arguments` need, by hash, and then themselves.

    pip wants a hash of everything or of nothing, a folder has none, and a constraint's
    does not count. So pip is asked first what is missing.
    """
    constraints, report = scratch / "constraints.txt", scratch / "report.json"
    versions = [words[0] for words in pins.values()]
    constraints.write_text("\n".join(versions), encoding="utf-8")
    code = pip(
        "--dry-run", f"--report={report}", f"--constraint={constraints}", *arguments
    )
    if code:
        return code
    found = json.loads(report.read_text(encoding="utf-8"))["install"]
    missing = [
        normalized(item["metadata"]["name"])
        for item in found
        if "dir_info" not in item["download_info"]
    ]
    unpinned = sorted(set(missing) - set(pins))
    if unpinned:
        print(f"{PINS} has no pin of {', '.join(unpinned)}", file=sys.stderr)
        return 1
    if missing:
        requirements = scratch / "requirements.txt"
        lines = [" ".join(pins[name]) for name in missing]
        requirements.write_text("\n".join(lines), encoding="utf-8")
        code = pip("--no-deps", "--require-hashes", f"--requirement={requirements}")
    return code or pip("--no-deps", *arguments)


def pip(*arguments: str) -> int:
    """Runs pip; returns its exit code. What it said is shown if it failed."""
    said = []
    with subprocess.Popen(
        [*PIP, *OPTIONS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        for line in running.stdout:
            said.append(line)
            show(line.strip())
    show("")
    if running.returncode:
        print("".join(said), end="", file=sys.stderr)
    return running.returncode


def normalized(name: str) -> str:
    """Returns a distribution's name as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def show(text: str) -> None:
    """Puts a text in place of the last one that was shown."""
    if sys.stdout.isatty():
        print(f"\r\033[K  {text:.70}", end="\r", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
