"""Writes constraints.txt: the newest versions that go together, with every extra.

To be run by the oldest Python that is supported: what has wheels for it has them for
newer ones.
"""

import configparser
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HEADER = """\
# Every version that an installation gets, whatever its extras and its Python.
# Made by `make pins`.
"""


def main() -> None:
    """Asks pip what it would install, and writes that down."""
    settings = configparser.ConfigParser()
    settings.read("setup.cfg")
    extras = ",".join(settings["options.extras_require"])
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--only-binary=:all:"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--report", report]
        subprocess.run([*pip, *options, f".[{extras}]"], check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    pins = {item["metadata"]["name"]: item["metadata"]["version"] for item in found}
    # pip is there before any pin is read; irv2 is what they are for.
    del pins["irv2"], pins["pip"]
    lines = [f"{name}=={pins[name]}\n" for name in sorted(pins, key=str.lower)]
    Path("constraints.txt").write_text(HEADER + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
