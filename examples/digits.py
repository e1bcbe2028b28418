"""Trains TF-Slim's network on handwritten digits, as people train it on their images.

The digits are those that scikit-learn ships (Alpaydin and Kaynak, "Optical Recognition of
Handwritten Digits", UCI, 1998): 1797 images of 8 x 8 pixels in ten classes. 1500 of them,
drawn by chance, train a network from scratch at 75 x 75 pixels, the smallest that it
takes; the others say how good it is. All writers are in both: how well the digits of
people are read that it never saw is another question. Nothing is downloaded. It takes
some minutes on two cores.

    python -m examples.digits --output build/digits

writes

    train_dir/              as TF-Slim's trainer leaves it: checkpoint, model.ckpt-N with
                            optimizer slots and moving averages
    images/training/        the images, as PNG files, one folder a class
    images/validation/
    labels.txt              the names of the classes
    validation_logits.npy   what the training graph gives for images/validation/

and `irv2 export --checkpoint build/digits/train_dir --moving-averages use` takes it from
there. `make trained` does both, and scores what comes out.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters import images as image_files
from exporters.network import inception_resnet_v2 as network
from exporters.network.tf_slim_compat import import_tf_slim

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

LABELS = tuple("zero one two three four five six seven eight nine".split())
IMAGE_SIZE = 75
TRAINING_COUNT = 1500
LOGITS_FILE = "validation_logits.npy"

_FILE_SIZE = 86
"""Pixels of the image files: the central 87.5 % of them are 75."""
_DIGIT_SIZE = 64
"""Pixels of the digit in the middle of its file: 8 for each pixel of its own."""
_BATCH_SIZE = 32
_EVALUATED_AT_ONCE = 33
_LEARNING_RATE = 8e-4
_WARM_UP_STEPS = 20
_BATCH_NORM_MOMENTUM = 0.9
_AVERAGE_DECAY = 0.98


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images and their classes.

    Attributes:
      images: float32 [count, 75, 75, 3] in [0, 1].
      classes: int64 [count], 0 to 9.
    """

    images: np.ndarray
    classes: np.ndarray


def write_images(directory: Path) -> None:
    """Writes all digits as PNG files: `training/<class>/` and `validation/<class>/`."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    training = set(order[:TRAINING_COUNT].tolist())
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target)):
        part = "training" if number in training else "validation"
        folder = directory / part / f"{label}_{LABELS[label]}"
        folder.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
        size = (_DIGIT_SIZE, _DIGIT_SIZE)
        canvas = Image.new("RGB", (_FILE_SIZE, _FILE_SIZE))
        margin = (_FILE_SIZE - _DIGIT_SIZE) // 2
        canvas.paste(grey.resize(size, Image.Resampling.BILINEAR), (margin, margin))
        canvas.save(folder / f"{number:04}.png")


def read_images(directory: Path) -> Digits:
    """Reads images from one folder a class, as artifacts are given them later."""
    files = sorted(directory.glob("*/*.png"), key=lambda file: file.name)
    return Digits(
        image_files.read(files, IMAGE_SIZE, IMAGE_SIZE),
        np.array([int(file.parent.name.partition("_")[0]) for file in files]),
    )


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training came to.

    Attributes:
      checkpoint: prefix of the checkpoint.
      loss: of the last batch.
      logits: float32 [count, 10], what the training graph, told to evaluate, gives for
        the held-out digits: by the moving averages of the variables.
      raw_logits: the same, by the variables themselves.
    """

    checkpoint: Path
    loss: float
    logits: np.ndarray
    raw_logits: np.ndarray

    def accuracy(self, held_out: Digits) -> float:
        """Returns the share of the held-out digits that the averages get right."""
        return float(np.mean(self.logits.argmax(axis=1) == held_out.classes))


def train(
    training: Digits,
    held_out: Digits,
    directory: Path,
    *,
    steps: int,
    optimizer: str = "adam",
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> Trained:
    """Trains a network from scratch, and saves it as TF-Slim's trainer does.

    Args:
      training: what to train on.
      held_out: what to judge it on.
      directory: the training directory.
      steps: batches of 32.
      optimizer: "adam", or "rmsprop" as the published network was trained.
      seed: same seed, same network, on processors of the same kind.
      progress: called after each step with its number and the loss.
    """
    slim = import_tf_slim()
    import tensorflow.compat.v1 as tf

    random = np.random.default_rng(seed)
    with tf.Graph().as_default():
        tf.set_random_seed(seed)
        images = tf.placeholder(tf.float32, [None, IMAGE_SIZE, IMAGE_SIZE, 3])
        classes = tf.placeholder(tf.int64, [None])
        with tf.variable_scope(tf.get_variable_scope()):
            logits = _logits(images, is_training=True)
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            evaluated = _logits(images, is_training=False)
        loss = (
            tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=classes, logits=logits
                )
            )
            + tf.losses.get_regularization_loss()
        )
        step = tf.train.get_or_create_global_step()
        warm_up = tf.minimum(1.0, (tf.cast(step, tf.float32) + 1) / _WARM_UP_STEPS)
        decayed = tf.train.cosine_decay(_LEARNING_RATE, step, steps, alpha=0.02)
        rate = warm_up * decayed
        chosen = {
            "adam": lambda: tf.train.AdamOptimizer(rate),
            "rmsprop": lambda: tf.train.RMSPropOptimizer(
                rate, decay=0.9, momentum=0.9, epsilon=1.0
            ),
        }[optimizer]()
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            update = chosen.minimize(loss, global_step=step)
        # As TF-Slim's train_image_classifier.py: of weights and batch norm's averages.
        averages = tf.train.ExponentialMovingAverage(_AVERAGE_DECAY, step)
        with tf.control_dependencies([update]):
            train_op = averages.apply(slim.get_model_variables())

        saver = tf.train.Saver()
        with tf.Session() as session:

            def evaluate() -> np.ndarray:
                return np.concatenate(
                    [
                        session.run(evaluated, {images: part})
                        for part in in_batches(held_out.images)
                    ]
                )

            session.run(tf.global_variables_initializer())
            value = float("nan")
            for number, batch in enumerate(_batches(training, steps, random), start=1):
                feed = {images: batch.images, classes: batch.classes}
                _, value = session.run([train_op, loss], feed)
                progress(number, float(value))
            directory.mkdir(parents=True, exist_ok=True)
            prefix = saver.save(session, str(directory / "model.ckpt"), step)
            raw_logits = evaluate()
            tf.train.Saver(averages.variables_to_restore()).restore(session, prefix)
            return Trained(Path(prefix), float(value), evaluate(), raw_logits)


def in_batches(images: np.ndarray) -> list[np.ndarray]:
    """Parts images into batches that need little memory."""
    starts = range(0, len(images), _EVALUATED_AT_ONCE)
    return [images[start : start + _EVALUATED_AT_ONCE] for start in starts]


def _logits(images: tf.Tensor, *, is_training: bool) -> tf.Tensor:
    return network.inception_resnet_v2(
        2 * images - 1,
        num_classes=len(LABELS),
        is_training=is_training,
        batch_norm_momentum=_BATCH_NORM_MOMENTUM,
        auxiliary_head=False,
    )["Logits"]


def _batches(
    digits: Digits, steps: int, random: np.random.Generator
) -> Iterator[Digits]:
    """Yields batches, each image as often as the others, and never twice the same."""
    order: list[int] = []
    for _ in range(steps):
        if len(order) < _BATCH_SIZE:
            order += random.permutation(len(digits.classes)).tolist()
        chosen, order = order[:_BATCH_SIZE], order[_BATCH_SIZE:]
        written = np.stack([_as_by_others(digits.images[i], random) for i in chosen])
        yield Digits(written, digits.classes[chosen])


def _as_by_others(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Turns, slants, stretches and moves a digit, as handwriting differs."""
    from PIL import Image

    angle, slant = random.uniform(-0.2, 0.2, 2)
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    stretch = np.diag(random.uniform(0.85, 1.2, 2))
    matrix = turn @ np.array([[1, slant], [0, 1]]) @ stretch
    middle = np.full(2, IMAGE_SIZE / 2)
    offset = middle - matrix @ (middle + random.uniform(-5, 5, 2))
    pixels = Image.fromarray(np.rint(255 * image).astype(np.uint8))
    moved = pixels.transform(
        pixels.size,
        Image.Transform.AFFINE,
        np.column_stack([matrix, offset]).ravel().tolist(),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(moved, np.float32) / 255


def main() -> int:
    """Trains, and returns the exit code: 1 if the network is not good enough."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.digits",
        description="Trains the network on handwritten digits.",
    )
    parser.add_argument("--output", type=Path, required=True, help="directory to write")
    parser.add_argument("--steps", type=int, default=150, help="batches of 32")
    parser.add_argument("--optimizer", choices=("adam", "rmsprop"), default="adam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--at-least",
        type=float,
        default=0.0,
        help="share of the held-out digits that must be right",
    )
    arguments = parser.parse_args()

    from exporters.command.console import Console

    console = Console()
    with console.alone():
        with console.step("write images"):
            write_images(arguments.output / "images")
            (arguments.output / "labels.txt").write_text("\n".join(LABELS) + "\n")
            training = read_images(arguments.output / "images" / "training")
            held_out = read_images(arguments.output / "images" / "validation")
        with console.step("train") as shown:

            def progress(number: int, loss: float) -> None:
                shown(f"loss {loss:.3f}")
                shown.count(number, arguments.steps)

            trained = train(
                training,
                held_out,
                arguments.output / "train_dir",
                steps=arguments.steps,
                optimizer=arguments.optimizer,
                seed=arguments.seed,
                progress=progress,
            )
        np.save(arguments.output / LOGITS_FILE, trained.logits)
    accuracy = trained.accuracy(held_out)
    console.say(f"{accuracy:.1%} of {len(held_out.classes)} held-out digits are right.")
    console.result(str(trained.checkpoint))
    return int(accuracy < arguments.at_least)


if __name__ == "__main__":
    sys.exit(main())
