"""A network that tells eight colours apart, and images of them: for evaluations.

It is the network of `fake_format`, whose logits are linear in an image's mean colour.
"""

from __future__ import annotations

import io
from pathlib import Path

import fake_format
import numpy as np
from PIL import Image

from checkpoints.reader import Checkpoint
from exporters import record as records
from exporters.build import Build
from exporters.network.tasks import TASKS

NAMES = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
COLOURS = np.array([[n >> 2 & 1, n >> 1 & 1, n & 1] for n in range(8)], np.float32)


def variables(**changed: np.ndarray) -> dict[str, np.ndarray]:
    """Weights by which the logit of a class is largest for images of its colour."""
    weights = 2 * COLOURS.T
    biases = -(COLOURS**2).sum(axis=1)
    return {"layer/weights": weights, "layer/biases": biases} | changed


def checkpoint(**changed: np.ndarray) -> Checkpoint:
    made = Checkpoint(variables(**changed), path=Path("folder/colours.ckpt"))
    made.num_classes = len(NAMES)
    return made


def blind_to_red(**changed: np.ndarray) -> Checkpoint:
    """One to which red is black."""
    weights = variables()
    weights["layer/biases"][4] = -10
    return checkpoint(**weights)


def artifact(path: Path, of: Checkpoint | None = None, task: str = "classification"):
    of = of or checkpoint()
    record = records.make(
        "fake", task, of, {"image_size": list(fake_format.IMAGE_SIZE)}
    )
    fake_format.write(Build(of), "a variant", TASKS[task], record, path)
    return path


def image(number: int, size: tuple[int, int] = (90, 100)) -> Image.Image:
    pixels = np.full((*size, 3), COLOURS[number] * 255, np.uint8)
    return Image.fromarray(pixels)


def encoded(number: int) -> bytes:
    stream = io.BytesIO()
    image(number).save(stream, "PNG")
    return stream.getvalue()


def save(directory: Path, label: str, name: str, number: int) -> Path:
    """Saves an image of one colour among those of a label."""
    folder = directory / label
    folder.mkdir(parents=True, exist_ok=True)
    image(number).save(folder / name)
    return folder / name


def folders(directory: Path, count: int = 3) -> Path:
    """A folder for each colour, by its number, with so many images."""
    for number in range(8):
        for each in range(count):
            save(directory, str(number), f"{each}.png", number)
    return directory
