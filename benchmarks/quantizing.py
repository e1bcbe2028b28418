"""`make bench-quantization`: what int8 costs in quality, by us and by other tools.

Each tool quantizes the same float32 network, on the same calibration images, in a process
of its own; then its file is run by the runtime that it is for, and compared with our
float32 file, image by image. Of a stand-in, on images of three kinds; with `--digits`, of
a network that was trained on digits (`make trained`), on digits that it never saw. Prints
tables, and keeps the figures as JSON. For Linux.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import exporting, figures, machines, processes, report
from benchmarks.arguments import add_output, count, names
from benchmarks.engines import IMAGE_SIZE, version
from benchmarks.figures import IRV2, Machine
from benchmarks.report import Table
from checkpoints import files
from exporters import calibration, images, manifest
from exporters.command import interruption
from exporters.command.console import Console
from exporters.command.show import Steps
from exporters.command.tables import Cell, Column, Verdict
from exporters.formats import FORMATS
from exporters.network.tasks import CLASSIFICATION
from exporters.parity import cosine
from exporters.progress import Note, Progress, Step

PREFIX = "quantizing-"
"""Begins the names of files of these figures."""
STAND_IN, DIGITS = "stand-in", "digits"
_DIGITS_SIZE = (75, 75)
_COUNT = 16
_PHOTOGRAPHS = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"),
    *("hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg"),
)
"""Those of scikit-image's files that are in colour."""
_OTHERS = ("onnxruntime", "nncf", "ai-edge-quantizer", "tensorflow", "ai-edge-litert")
"""Distributions that have a part in it."""


@dataclasses.dataclass(frozen=True)
class Closeness:
    """How near outputs are to those of the float32 file.

    Attributes:
      images: of what kind.
      count: how many.
      mean: cosine of an image's output with the float32 file's.
      worst: the smallest of these.
    """

    images: str
    count: int
    mean: float
    worst: float


@dataclasses.dataclass(frozen=True)
class Quality:
    """What came of quantizing a network with a tool.

    Attributes:
      network: "stand-in" or "digits".
      format: name of our format that has the same container and numbers.
      tool: that made it, and how.
      closeness: on images of each kind.
      top_1: share of the images with the right class first; None if they have none.
      failed: why there are no figures, None if there are.
    """

    network: str
    format: str
    tool: str
    closeness: tuple[Closeness, ...] = ()
    top_1: float | None = None
    failed: str | None = None


@dataclasses.dataclass(frozen=True)
class Figures:
    """All that one run found.

    Attributes:
      date: when it began, in UTC, as 2026-11-23T14:05:00Z.
      machine: what it ran on.
      versions: of what has a part in it.
      calibrated_on: network -> the images that ranges were taken from.
      qualities: of each network, that of the float32 file first.
      image_sizes: network -> height and width of all images, in pixels.
    """

    date: str
    machine: Machine
    versions: Mapping[str, str]
    calibrated_on: Mapping[str, str]
    qualities: tuple[Quality, ...]
    image_sizes: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)


def joined(found: Figures, earlier: Figures) -> Figures:
    """Returns figures with what an earlier run found of other networks."""
    return dataclasses.replace(
        found,
        calibrated_on={**earlier.calibrated_on, **found.calibrated_on},
        image_sizes={**earlier.image_sizes, **found.image_sizes},
        qualities=(
            *found.qualities,
            *(q for q in earlier.qualities if q.network not in found.calibrated_on),
        ),
    )


def read(path: Path) -> Figures:
    """Reads figures that were kept.

    Raises:
      ValueError: the file holds no figures.
      OSError: it cannot be read.
    """
    return figures.read(path, Figures)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to quantize.

    Attributes:
      name: "stand-in" or "digits".
      checkpoint: its weights.
      options: of `irv2 export`, for it.
      calibration: images that ranges are taken from, by every tool.
      sets: kind -> images that it is judged on, float32 [count, height, width, 3].
      classes: int64 [count], the right classes of those of the only set, if they have any.
    """

    name: str
    checkpoint: Path
    options: tuple[str, ...]
    calibration: calibration.CalibrationImages
    sets: Mapping[str, np.ndarray]
    classes: np.ndarray | None = None


def stand_in(checkpoint: Path, size: tuple[int, int] = IMAGE_SIZE) -> Network:
    """A network that was not trained, and images of three kinds, of a size in pixels."""
    return Network(
        STAND_IN,
        checkpoint,
        ("--image-size", "x".join(map(str, size))),
        calibration.calibration_images(None, size),
        {
            "generated": images.generate(_COUNT, *size, seed=11),
            "photographs": photographs(size),
            "digits": digits(size),
        },
    )


def trained(directory: Path) -> Network:
    """What `make trained` leaves: a network, and digits that it never saw."""
    shown = sorted((directory / "images" / "validation").rglob("*.png"))
    training = directory / "images" / "training"
    size = "x".join(map(str, _DIGITS_SIZE))
    options = ["--moving-averages", "use", "--labels", str(directory / "labels.txt")]
    options += ["--image-size", size, "--calibration-images", str(training)]
    return Network(
        DIGITS,
        directory / "train_dir",
        tuple(options),
        calibration.calibration_images(training, _DIGITS_SIZE),
        {"held-out digits": images.read(shown, *_DIGITS_SIZE)},
        np.array([int(file.parent.name.partition("_")[0]) for file in shown]),
    )


def photographs(size: tuple[int, int]) -> np.ndarray:
    """Photographs in colour, float32 [count, height, width, 3] in [0, 1]."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return images.read([folder / name for name in _PHOTOGRAPHS], *size)


def digits(size: tuple[int, int]) -> np.ndarray:
    """Handwritten digits, white on black, float32 [count, height, width, 3] in [0, 1]."""
    from PIL import Image
    from sklearn.datasets import load_digits

    height, width = size
    return np.stack(
        [
            np.asarray(
                Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
                .resize((width, height), Image.Resampling.BILINEAR)
                .convert("RGB"),
                np.float32,
            )
            / 255
            for pixels in load_digits().images[:_COUNT]
        ]
    )


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to a file in int8.

    Attributes:
      format: name of our format that has the same container and numbers.
      tool: that makes it, and how.
      make: makes it of a network, below a directory, and returns its path; raises
        `processes.ProcessError`.
    """

    format: str
    tool: str
    make: Callable[[Network, Path], Path]


def ways() -> list[Way]:
    """All ways to int8."""
    return [
        _ours("onnx-int8"),
        _ours("onnx-int8", "symmetric", "--int8-activations", "symmetric"),
        _ours("onnx-int8", "7 bits", "--reduce-range"),
        _other("onnx-int8", "ONNX Runtime, MinMax", "onnxruntime-minmax"),
        _other("onnx-int8", "ONNX Runtime, Percentile", "onnxruntime-percentile"),
        _other("onnx-int8", "NNCF", "nncf"),
        _ours("tflite-int8"),
        _ours("tflite-int8", "all in integers", "--full-integer"),
        _ours("tflite-int8", "symmetric", "--int8-activations", "symmetric"),
        Way("tflite-int8", exporting.CONVERTER, _converted),
        _other("tflite-int8", "ai-edge-quantizer", "ai-edge-quantizer"),
    ]


def _ours(format: str, variant: str = "", *options: str) -> Way:
    def make(network: Network, directory: Path) -> Path:
        return _export(network, directory / "ours", format, *options)

    return Way(format, f"{IRV2}, {variant}" if variant else IRV2, make)


def _export(network: Network, directory: Path, format: str, *options: str) -> Path:
    given = ["--formats", format, "--tasks", CLASSIFICATION.name, "--no-verify"]
    given += _heeded(network.options, format)
    return exporting.export(network.checkpoint, directory, *given, *options).path


def _heeded(options: Sequence[str], format: str) -> list[str]:
    """Leaves out of pairs of an option and its value those that a format refuses."""
    row = FORMATS[format]
    refused = set()
    if not row.is_calibrated:
        refused.add("--calibration-images")
    if "image_size" not in row.options:
        refused.add("--image-size")
    pairs = zip(options[::2], options[1::2])
    return [word for pair in pairs if pair[0] not in refused for word in pair]


def _source(network: Network, directory: Path, format: str) -> Path:
    """Our file that another tool starts from, made when it is first asked for."""
    row = FORMATS[format]
    place = directory / "sources"
    found = sorted(place.glob(f"*-{format}*{row.container.suffix}"))
    found = [path for path in found if row.container.holds(path)]
    return found[0] if found else _export(network, place, format)


def _other(format: str, title: str, name: str) -> Way:
    def make(network: Network, directory: Path) -> Path:
        container = FORMATS[format].container
        float32 = format.replace("int8", "float32")
        output = directory / f"{name}{container.suffix}"
        command = ["--way", name, "--output", str(output)]
        command += ["--source", str(_source(network, directory, float32))]
        _run("benchmarks.stock_files", network, directory, command)
        return output

    return Way(format, title, make)


def _converted(network: Network, directory: Path) -> Path:
    output = directory / "converted.tflite"
    command = ["--format", "tflite-int8", "--output", str(output)]
    command += ["--saved-model", str(_source(network, directory, "v5"))]
    _run("benchmarks.stock_tflite", network, directory, command)
    return output


def _run(
    module: str, network: Network, directory: Path, command: Sequence[str]
) -> None:
    path = directory / "calibration.npy"
    if not path.exists():
        np.save(path, network.calibration.images)
    given = ["--calibration", str(path), *command]
    processes.run([sys.executable, "-m", module, *given])


def measure(
    network: Network, chosen: Sequence[Way], directory: Path, progress: Progress
) -> Iterator[Quality]:
    """Quantizes a network in all ways, and yields what came of each.

    Args:
      network: what to quantize.
      chosen: ways to int8.
      directory: for files.
      progress: told what is done.
    """
    directory.mkdir(parents=True, exist_ok=True)
    progress(Step(f"{network.name}: run the float32 file"))
    float32 = _source(network, directory, "onnx-float32")
    expected = {kind: _outputs(float32, given) for kind, given in network.sets.items()}
    yield _quality(network, "onnx-float32", IRV2, expected, expected)
    for way in chosen:
        progress(Step(f"{network.name}: quantize to {way.format} with {way.tool}"))
        try:
            path = way.make(network, directory)
            progress(Step(f"{network.name}: run {way.format} by {way.tool}"))
            found = {kind: _outputs(path, x) for kind, x in network.sets.items()}
        except (processes.ProcessError, ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())
            yield Quality(network.name, way.format, way.tool, failed=why)
        else:
            yield _quality(network, way.format, way.tool, expected, found)


def _outputs(path: Path, given: np.ndarray) -> np.ndarray:
    """Runs a file of any tool's on images one by one; returns float32 [count, classes]."""
    if path.suffix == ".onnx":
        from exporters.engines import onnx_session

        session = onnx_session(path)
        name = session.get_inputs()[0].name
        rows = [session.run(None, {name: image[np.newaxis]})[0] for image in given]
        return np.concatenate(rows)
    from ai_edge_litert.interpreter import Interpreter

    from exporters.containers.tflite.sections import quantization_of

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    (output,) = interpreter.get_output_details()
    rows = []
    for image in given:
        rounding = quantization_of(source)
        row = image[np.newaxis]
        if rounding:
            row = rounding.quantize(row, source["dtype"])
        interpreter.set_tensor(source["index"], row)
        interpreter.invoke()
        found = interpreter.get_tensor(output["index"])
        rounding = quantization_of(output)
        rows.append(rounding.dequantize(found) if rounding else found)
    return np.concatenate(rows).astype(np.float32)


def _quality(
    network: Network,
    format: str,
    tool: str,
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
) -> Quality:
    closeness = []
    for kind, rows in found.items():
        cosines = [cosine(*pair) for pair in zip(expected[kind], rows, strict=True)]
        closeness.append(
            Closeness(kind, len(rows), float(np.mean(cosines)), min(cosines))
        )
    top_1 = None
    if network.classes is not None:
        (rows,) = found.values()
        top_1 = float(np.mean(rows.argmax(axis=1) == network.classes))
    return Quality(network.name, format, tool, tuple(closeness), top_1)


def untrained(found: Figures) -> Table:
    """Mean cosine of the logits of a stand-in in int8 with those in float32, and worst."""
    return _table(found, STAND_IN)


def on_digits(found: Figures) -> Table:
    """The same of a network trained on digits, and how often it is right."""
    return _table(found, DIGITS)


def _table(found: Figures, network: str) -> Table:
    chosen = [one for one in found.qualities if one.network == network]
    kinds = dict.fromkeys(each.images for one in chosen for each in one.closeness)
    has_classes = any(one.top_1 is not None for one in chosen)
    rows = []
    for one in chosen:
        cells = {each.images: each for each in one.closeness}
        row = [one.format, one.tool]
        if has_classes:
            row.append("-" if one.top_1 is None else f"{100 * one.top_1:.1f} %")
        for kind in kinds:
            each = cells.get(kind)
            row += [f"{each.mean:.5f}", f"{each.worst:.5f}"] if each else ["-", "-"]
        if one.failed:
            row[2:] = [report.FAILED] * (len(row) - 2)
        rows.append(row)
    columns = ["format", "made by", *(["top-1"] if has_classes else [])]
    for kind in kinds:
        columns += [f"{kind}: mean", "worst"]
    return Table(columns, rows, names=2)


def machine(found: Figures) -> str:
    """Says when this was measured, on what, and with what."""
    versions = [f"{name} {found.versions[name]}" for name in _OTHERS]
    flags = f" ({', '.join(found.machine.flags)})" if found.machine.flags else ""
    sizes = [
        f"{name} at {height} x {width} pixels"
        for name, (height, width) in found.image_sizes.items()
    ]
    return ", ".join(
        [
            f"Measured on {found.date[:10]}: {found.machine.processor}{flags}",
            *sizes,
            *versions,
        ]
    )


TABLES: dict[str, Callable[[Figures], Table]] = {
    "quantizing": untrained,
    "quantizing digits": on_digits,
}
SENTENCES: dict[str, Callable[[Figures], str]] = {"quantizing machine": machine}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and keeps; returns the exit code: 1 if something failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantizing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, help="a stand-in; default: left out")
    parser.add_argument(
        "--image-size",
        type=count,
        default=IMAGE_SIZE[0],
        help="of the stand-in's images, in pixels; default: 299",
    )
    parser.add_argument(
        "--digits", type=Path, help="what `make trained` left; default: left out"
    )
    parser.add_argument(
        "--ways", type=names, help="parts of the names of tools; default: all"
    )
    parser.add_argument(
        "--earlier",
        type=Path,
        help="figures of this machine, from which those of other networks are taken",
    )
    add_output(parser)
    given = parser.parse_args(arguments)
    if not given.checkpoint and not given.digits:
        parser.error("nothing to quantize: give --checkpoint, or --digits")
    chosen = [
        way
        for way in ways()
        if given.ways is None or any(name in way.tool for name in given.ways)
    ]
    if not chosen:
        parser.error(f"--ways: there are {', '.join(way.tool for way in ways())}")
    earlier = None
    try:
        earlier = read(given.earlier) if given.earlier else None
        given.output.mkdir(parents=True, exist_ok=True)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="irv2-bench-") as name,
        Steps(console) as progress,
    ):
        networks = []
        if given.checkpoint:
            networks.append(stand_in(given.checkpoint, (given.image_size,) * 2))
        networks += [trained(given.digits)] if given.digits else []
        found = _measure(networks, chosen, Path(name), progress)
    if earlier:
        found = joined(found, earlier)
    return _finish(console, found, given.output)


def _measure(
    networks: Sequence[Network],
    chosen: Sequence[Way],
    directory: Path,
    progress: Progress,
) -> Figures:
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    versions = {name: version(name) for name in _OTHERS}
    for network in networks:
        progress(
            Note(f"{network.name}: calibrated on {network.calibration.description}.")
        )
    return Figures(
        date=date,
        machine=machines.this_machine(),
        versions=manifest.versions() | {n: v or "none" for n, v in versions.items()},
        calibrated_on={x.name: x.calibration.description for x in networks},
        image_sizes={x.name: list(x.calibration.images.shape[1:3]) for x in networks},
        qualities=tuple(
            quality
            for network in networks
            for quality in measure(network, chosen, directory / network.name, progress)
        ),
    )


def _finish(console: Console, found: Figures, directory: Path) -> int:
    for sentence in SENTENCES.values():
        console.result(f"{sentence(found)}.")
    for make in TABLES.values():
        table = make(found)
        if table.rows:
            console.result(f"\n{make.__doc__}")
            columns = [Column(name) for name in table.columns[: table.names]]
            columns += [Column(name, "right") for name in table.columns[table.names :]]
            console.table(columns, [_cells(row) for row in table.rows])
    failures = [
        f"{one.network}: {one.format} by {one.tool}: {one.failed}"
        for one in found.qualities
        if one.failed
    ]
    for line in failures:
        console.error(line)
    path = directory / f"{PREFIX}{found.date.replace(':', '')}.json"
    files.write_json(path, dataclasses.asdict(found))
    console.say(f"\nKept in {path}")
    return 1 if failures else 0


def _cells(row: Sequence[str]) -> list[Cell]:
    return [
        Verdict(cell, passed=False) if cell == report.FAILED else cell for cell in row
    ]


if __name__ == "__main__":
    with interruption.heeded():
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            sys.exit(130)
