"""Writes constraints.txt: the newest versions that go together, with every extra.

To be run by the oldest Python that is supported: what has wheels for it has them for
newer ones. With `--keep`, the versions stay that the file has, and only the hashes are
written anew.
"""

import configparser
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PINS = Path("constraints.txt")
HEADER = """\
# Every version that an installation gets, whatever its extras and its Python, with the
# SHA-256 of its files for 64-bit Linux, macOS and Windows.
# Made by `make pins`.
"""
INDEX = "https://pypi.org/simple/{}/"
JSON = "application/vnd.pypi.simple.v1+json"
PYTHONS = re.compile(r"py3|py2\.py3|cp311|cp312|cp313|cp3[0-9]+(?=-abi3)")
PLATFORMS = re.compile(
    r"any|(manylinux|linux).*(x86_64|aarch64)|macosx.*(x86_64|arm64|universal2)"
    r"|win_(amd64|arm64)"
)


def main() -> None:
    """Asks pip what it would install, the index for its files, and writes that down."""
    pins = written() if "--keep" in sys.argv[1:] else resolved()
    names = sorted(pins, key=str.lower)
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(hashes, names, [pins[name] for name in names]))
    lines = [
        f"{name}=={pins[name]}"
        + "".join(f" \\\n    --hash=sha256:{digest}" for digest in digests)
        + "\n"
        for name, digests in zip(names, files)
    ]
    PINS.write_text(HEADER + "".join(lines), encoding="utf-8")


def written() -> dict[str, str]:
    """Returns name -> version as the file has them."""
    found = re.findall(r"(?m)^([\w.-]+)==(\S+)", PINS.read_text(encoding="utf-8"))
    return dict(found)


def resolved() -> dict[str, str]:
    """Returns name -> version of all that pip would install for all extras."""
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
    return pins


def hashes(name: str, version: str) -> list[str]:
    """Returns the SHA-256 of a version's wheels that a supported Python may take."""
    request = urllib.request.Request(INDEX.format(name), headers={"Accept": JSON})
    with urllib.request.urlopen(request) as answer:
        files = json.load(answer)["files"]
    digests = {
        file["hashes"]["sha256"]
        for file in files
        if is_taken(file["filename"], version)
    }
    if not digests:
        raise SystemExit(f"{name} {version} has no wheel for a supported Python")
    return sorted(digests)


def is_taken(filename: str, version: str) -> bool:
    """Whether a file is a wheel of a version for a Python and a machine of ours."""
    if not filename.endswith(".whl"):
        return False
    _, of, *_, python, abi, platform = filename.removesuffix(".whl").split("-")
    if of != version or abi.endswith("t"):
        return False
    return bool(PYTHONS.match(f"{python}-{abi}") and PLATFORMS.search(platform))


if __name__ == "__main__":
    main()
