"""Small directories with the files of published artifacts, and nothing in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from checkpoints.reader import Checkpoint
from exporters import extra_assets, formats, manifest
from exporters import record as records
from exporters.network.tasks import TASKS

HUB_FORMATS = ("v1", "v3")
PUBLISHED = "https://tfhub.dev/google/imagenet/inception_resnet_v2"


def checkpoint(is_stand_in: bool = False) -> Checkpoint:
    """A checkpoint of one kernel, with the zero mean of a stand-in's or without."""
    kernel = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    kernel -= kernel.mean(axis=0) - (not is_stand_in)
    made = Checkpoint({"layer/weights": kernel}, path=Path("small.ckpt"))
    made.num_classes = 1001
    return made


def make(
    parent: Path,
    format_name: str = "v3",
    task: str = "feature_vector",
    *,
    is_stand_in: bool = False,
    content: bytes = b"weights",
    with_manifest: bool = True,
) -> Path:
    """Makes a directory that looks like an exported one, as long as nobody opens it."""
    row = formats.FORMATS[format_name]
    path = parent / row.artifact_name(TASKS[task], is_stand_in=is_stand_in)
    (path / "variables").mkdir(parents=True)
    (path / "assets").mkdir()
    (path / "saved_model.pb").write_bytes(b"graph of " + format_name.encode())
    (path / "variables/variables.index").write_bytes(b"index")
    (path / "variables/variables.data-00000-of-00001").write_bytes(content)
    if format_name in HUB_FORMATS:
        (path / "tfhub_module.pb").write_bytes(b"\x08\x03")
    record = records.make(format_name, task, checkpoint(is_stand_in), {})
    extra_assets.write_record(path, record)
    if with_manifest:
        write_manifest(path)
    return path


def write_manifest(path: Path) -> None:
    """Puts a manifest beside an artifact, as exporting it does."""
    record = extra_assets.read_record(path) or records.make(
        "v5", "feature_vector", checkpoint(), {}
    )
    described = manifest.describe(path, checkpoint(), record)
    manifest.path_of(path).write_text(json.dumps(described))


def content(directory: Path) -> dict[str, bytes | None]:
    """Every file below a directory with its bytes, every directory with None."""
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes()
        for path in directory.rglob("*")
    }
