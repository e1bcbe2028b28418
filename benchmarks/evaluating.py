"""`python -m benchmarks.evaluating`: what `irv2 evaluate` costs beside the bare runtime.

For each artifact, in turn: its own engine on images that are decoded and in memory, and
`evaluate` on the same images as JPEG files, both in batches of 8 and from the first batch
on. Then the memory of one evaluation of many images. Prints tables, and keeps the figures
as JSON. For Linux.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import engines, machines
from benchmarks.arguments import add_output, count
from benchmarks.engines import Engine
from benchmarks.figures import Machine, Spread
from checkpoints import files
from exporters import images
from exporters.command import interruption
from exporters.command.console import Console
from exporters.command.show import Steps
from exporters.command.tables import Cell, Column
from exporters.command.units import counted, size
from exporters.engines import cores
from exporters.errors import ArtifactError
from exporters.evaluation.evaluating import evaluate
from exporters.formats import open_artifact
from exporters.progress import Note, Progress, Step

_BATCH = 8
_PHOTOGRAPH = (375, 500)
"""Height and width, in pixels, of most of ImageNet's images."""
_QUALITY = 95
_TENTH = 0.1
_COLUMNS = (
    *("bare, images/s", "evaluate", "lost"),
    *("bare, of a processor", "evaluate", "added"),
)


@dataclasses.dataclass(frozen=True)
class Throughput:
    """How many images a second, and what an image takes of the processors.

    Attributes:
      artifact: its name.
      engine: its own.
      bare: images per second of the engine, on decoded images.
      evaluated: the same of `evaluate`, on JPEG files.
      bare_processor: seconds of a processor for an image, by the engine alone; other
        programs, which make all slower, have no part in it.
      evaluated_processor: the same by `evaluate`.
    """

    artifact: str
    engine: str
    bare: Spread
    evaluated: Spread
    bare_processor: Spread
    evaluated_processor: Spread

    @property
    def lost(self) -> float:
        """Share of the bare runtime's images a second that is lost, by the best of both."""
        return 1 - self.evaluated.maximum / self.bare.maximum

    @property
    def added(self) -> float:
        """What an image takes of the processors beside the network, by what that takes.

        So much is lost where all processors are the runtime's, and less where some are
        idle.
        """
        return self.evaluated_processor.minimum / self.bare_processor.minimum - 1


@dataclasses.dataclass(frozen=True)
class Memory:
    """Resident memory of an evaluation, in bytes.

    Attributes:
      artifact: its name.
      images: how many there were.
      early: the largest while the first tenth of the images was run.
      late: the largest while the last tenth was.
    """

    artifact: str
    images: int
    early: int
    late: int


@dataclasses.dataclass(frozen=True)
class Figures:
    """All that one run found.

    Attributes:
      date: when it began, in UTC, as 2026-11-23T14:05:00Z.
      machine: what it ran on.
      command: that measured it.
      throughputs: of each artifact.
      memory: None if that was not asked for.
    """

    date: str
    machine: Machine
    command: str
    throughputs: tuple[Throughput, ...]
    memory: Memory | None


def photographs(directory: Path, count: int, height: int, width: int) -> Path:
    """Writes JPEG files of generated images, below a directory of one class.

    Args:
      directory: made if needed.
      count: number of files.
      height: in pixels.
      width: in pixels.

    Returns:
      The directory.
    """
    folder = directory / "1"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (pixels,) = images.generate(1, height, width, seed=number)
        image = Image.fromarray((pixels * 255).astype(np.uint8))
        image.save(folder / f"{number:05}.jpg", quality=_QUALITY)
    return directory


def many(directory: Path, count: int, side: int) -> Path:
    """The same, but of a few files with many names."""
    few = min(count, 64)
    folder = photographs(directory, few, side, side) / "1"
    for number in range(few, count):
        os.link(folder / f"{number % few:05}.jpg", folder / f"{number:05}.jpg")
    return directory


def throughput(path: Path, directory: Path, repeats: int) -> Throughput:
    """Measures the bare runtime and `evaluate` in turn.

    Args:
      path: a classifier, of a container that has an engine of its own.
      directory: of images, as `photographs` writes them.
      repeats: how often each is measured.

    Raises:
      ArtifactError: no engine is its own, or it cannot be read.
    """
    engine = _own_engine(path)
    artifact, _ = open_artifact(path)
    with artifact:
        height, width = artifact.image_size or engines.IMAGE_SIZE
    found = sorted(directory.rglob("*.jpg"))
    decoded = images.read(found, height, width)
    bare, evaluated = [], []
    for _ in range(repeats):
        bare.append(_bare(engine, path, decoded))
        evaluated.append(_evaluated(path, directory))
    count = len(found)
    return Throughput(
        path.name,
        engine.name,
        Spread.of([count / taken.seconds for taken in bare]),
        Spread.of([count / taken.seconds for taken in evaluated]),
        Spread.of([taken.processor / count for taken in bare]),
        Spread.of([taken.processor / count for taken in evaluated]),
    )


def _own_engine(path: Path) -> Engine:
    for engine in engines.installed():
        if engine.is_own and engine.reads(path):
            return engine
    raise ArtifactError(f"{path} has no engine here that it was made for.")


@dataclasses.dataclass(frozen=True)
class _Taken:
    """What a pass over the images took, by the clock and of all processors."""

    seconds: float
    processor: float


def _bare(engine: Engine, path: Path, decoded: np.ndarray) -> _Taken:
    runner = engine.load(path, cores())
    start, processor = time.monotonic(), time.process_time()
    for first in range(0, len(decoded), _BATCH):
        runner(decoded[first : first + _BATCH])
    return _Taken(time.monotonic() - start, time.process_time() - processor)


def _evaluated(path: Path, directory: Path) -> _Taken:
    start = 0.0

    def progress(event: Step | Note) -> None:
        nonlocal start
        if isinstance(event, Note):  # The last one says how labels were understood.
            start = time.process_time()

    done = evaluate(
        path, directory, label_offset=0, batch_size=_BATCH, progress=progress
    )
    return _Taken(done.seconds, time.process_time() - start)


def memory(path: Path, directory: Path, progress: Progress) -> Memory:
    """Measures resident memory all along an evaluation."""
    sizes: list[int] = []

    def seen(event: Step | Note) -> None:
        progress(event)
        if isinstance(event, Step) and event.unit == "images":
            sizes.append(_resident())

    done = evaluate(path, directory, label_offset=0, progress=seen)
    tenth = max(1, round(len(sizes) * _TENTH))
    return Memory(path.name, done.count, max(sizes[:tenth]), max(sizes[-tenth:]))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def show(console: Console, found: Figures) -> None:
    """Prints figures."""
    rows: list[list[Cell]] = [
        [
            one.artifact,
            one.engine,
            _spread(one.bare),
            _spread(one.evaluated),
            f"{one.lost:.0%}",
            f"{1000 * one.bare_processor.minimum:.1f} ms",
            f"{1000 * one.evaluated_processor.minimum:.1f} ms",
            f"{one.added:.0%}",
        ]
        for one in found.throughputs
    ]
    columns = [Column("artifact", folds=True), Column("engine")]
    columns += [Column(x, "right") for x in _COLUMNS]
    if rows:
        console.table(columns, rows)
    if found.memory:
        one = found.memory
        console.result(
            f"{one.artifact} on {counted(one.images, 'image')}: {size(one.early)} "
            f"over the first tenth, {size(one.late)} over the last."
        )


def _spread(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.minimum:.1f} to {spread.maximum:.1f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and keeps; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluating",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("artifacts", type=Path, nargs="+", help="classifiers")
    parser.add_argument(
        "--images", type=count, default=64, help="photographs; default: 64"
    )
    parser.add_argument("--repeats", type=int, default=5, help="of each; default: 5")
    parser.add_argument(
        "--memory-images",
        type=int,
        default=10_000,
        help="for memory, of the first artifact; 0: leave out; default: 10000",
    )
    add_output(parser)
    given = parser.parse_args(arguments)
    try:
        given.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {given.output}: {error.strerror}")
    console = Console()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="irv2-bench-") as name,
            Steps(console) as progress,
        ):
            found = _measure(given, Path(name), progress)
    except ArtifactError as error:
        parser.error(str(error))
    show(console, found)
    path = given.output / f"evaluating-{found.date.replace(':', '')}.json"
    files.write_json(path, dataclasses.asdict(found))
    console.say(f"\nKept in {path}")
    return 0


def _measure(given: argparse.Namespace, directory: Path, progress: Progress) -> Figures:
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    machine = machines.this_machine()
    if machine.is_busy:
        progress(Note(f"Other programs take {machine.busy:.0%} of the processors."))
    progress(Step("write photographs"))
    few = photographs(directory / "few", given.images, *_PHOTOGRAPH)
    throughputs = []
    for path in given.artifacts if given.repeats else []:
        progress(Step(f"run {path.name}"))
        throughputs.append(throughput(path, few, given.repeats))
    kept = None
    if given.memory_images:
        side = min(_PHOTOGRAPH)
        progress(Step(f"write {given.memory_images} photographs"))
        lots = many(directory / "many", given.memory_images, side)
        kept = memory(given.artifacts[0], lots, progress)
    command = shlex.join(["python", "-m", "benchmarks.evaluating", *sys.argv[1:]])
    return Figures(date, machine, command, tuple(throughputs), kept)


if __name__ == "__main__":
    with interruption.heeded():
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            sys.exit(130)
