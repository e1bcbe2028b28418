"""Exports a thin network's artifacts and prints the SHA-256 of every file, as JSON.

python thin_export.py OUTPUT FORMAT...
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import thin_network

from checkpoints import files
from exporters import manifest
from exporters.exporting import export

if __name__ == "__main__":
    output, *formats = sys.argv[1:]
    thin_network.install_for_good()
    # They differ from one Python to another.
    names = ("irv2", "python", *manifest._LIBRARIES)
    manifest.versions = lambda: dict.fromkeys(names, "0")
    folder = Path(output)
    folder.mkdir(parents=True)
    checkpoint = thin_network.write(folder / "model.ckpt")
    done = export(
        checkpoint,
        folder / "out",
        formats=formats,
        tasks=["classification"],
        verify=False,
    )
    assert done.passed, [item.failures for item in done.artifacts]
    print(json.dumps(files.digests(folder / "out")))
