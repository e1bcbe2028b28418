"""Small checkpoints of TensorFlow's, in every container a checkpoint comes in."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def variables(seed: int = 0) -> dict[str, np.ndarray]:
    """Three layers as somebody might train them: their kernels have a mean."""
    random = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for number in range(3):
        kernel = random.normal(0.01, 0.1, (3, 3, 4, 8))
        made[f"layer_{number}/weights"] = kernel.astype(np.float32)
        made[f"layer_{number}/biases"] = random.normal(size=8).astype(np.float32)
    return made


def write_v1(variables: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes one file in TensorFlow's V1 format, by TensorFlow itself."""
    import tensorflow as tf

    tf.raw_ops.Save(
        filename=str(path),
        tensor_names=list(variables),
        data=list(variables.values()),
    )


def write_v2(
    variables: Mapping[str, np.ndarray], prefix: Path, shards: int = 1
) -> None:
    """Writes `prefix`.index and as many data files as there are shards."""
    import tensorflow as tf

    names = sorted(variables)
    parts = [str(prefix) + f"-part{number}" for number in range(shards)]
    for number, part in enumerate(parts):
        mine = names[number::shards]
        tf.raw_ops.SaveV2(
            prefix=part,
            tensor_names=mine,
            shape_and_slices=[""] * len(mine),
            tensors=[variables[name] for name in mine],
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(prefix)
    )


def pack(archive: Path, *files: Path, folder: str = ".") -> None:
    """Packs files into a .tar.gz, whatever its name."""
    with tarfile.open(archive, "w:gz") as tar:
        for file in files:
            tar.add(file, f"{folder}/{file.name}")
