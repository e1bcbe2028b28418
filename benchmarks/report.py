"""Figures as tables and sentences, the same for the screen and for README."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from benchmarks.engines import ENGINES
from benchmarks.exporting import IR
from benchmarks.figures import IRV2, Agreement, Figures, Machine, Process, Run, Spread
from exporters.command.units import counted, duration, size
from exporters.engines import OPENVINO
from exporters.formats import FORMATS
from exporters.network.tasks import TASKS

FAILED = "FAILED"
_NONE = "-"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
      columns: what stands above each.
      rows: as many cells each.
      names: how many columns, from the left, are names. The others are numbers.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


def machine(figures: Figures) -> str:
    """Says what was measured when, and on what."""
    found = figures.machine
    flags = f" ({', '.join(found.flags)})" if found.flags else ""
    ran = {run.engine for run in figures.runs}
    libraries = dict.fromkeys(e.distribution for e in ENGINES if e.name in ran)
    versions = [f"{name} {figures.versions[name]}" for name in libraries]
    return ", ".join(
        [
            f"Measured on {figures.date[:10]}: {counted(found.cores, 'core')} of "
            f"{found.processor}{flags}",
            f"{counted(figures.threads, 'thread')}",
            *versions,
            *([f"{found.busy:.0%} busy with other programs"] if found.is_busy else []),
        ]
    )


def making(figures: Figures) -> Table:
    """What making each artifact takes, as a whole process."""
    return Table(
        ["format", "made by", "seconds", "memory", "verified", "memory", "size"],
        [
            [
                artifact.format,
                artifact.tool,
                *_process(artifact.export, artifact.failed),
                *_process(artifact.verified_export, artifact.failed),
                _NONE if artifact.bytes is None else size(artifact.bytes),
            ]
            for artifact in figures.artifacts
        ],
        names=2,
    )


def _process(process: Process | None, failed: str | None) -> list[str]:
    if process is None:
        return [FAILED if failed else _NONE, _NONE]
    return [_spread(process.seconds, ".1f"), size(round(process.memory.maximum))]


def parts(figures: Figures) -> Table:
    """Where the seconds of making each of our artifacts go."""
    rows = []
    for artifact in figures.artifacts:
        process = artifact.verified_export or artifact.export
        if process is None or process.write is None:
            continue
        steps = [process.read, process.graphs, process.write, process.verify]
        medians = [step.median if step else 0 for step in steps]
        start = process.seconds.median - sum(medians)
        rows.append([artifact.format, *(f"{s:.1f}" for s in (start, *medians))])
    return Table(["format", "start", "read", "graphs", "write", "verify"], rows)


def latency(figures: Figures) -> Table:
    """Milliseconds for one image, on each engine."""

    def cell(run: Run) -> str:
        return _spread(run.latency, ".0f", factor=1000) if run.latency else _NONE

    return _by_engine(figures, "ms", cell)


def throughput(figures: Figures) -> Table:
    """Images per second in batches of 8, on each engine."""

    def cell(run: Run) -> str:
        return _spread(run.throughput, ".1f") if run.throughput else _NONE

    return _by_engine(figures, "images/s", cell)


def _by_engine(figures: Figures, unit: str, cell: Callable[[Run], str]) -> Table:
    engines = list(dict.fromkeys(run.engine for run in figures.runs))
    rows = {(run.format, run.tool): [_NONE] * len(engines) for run in figures.runs}
    for run in figures.runs:
        text = FAILED if run.failed else cell(run)
        rows[run.format, run.tool][engines.index(run.engine)] = text
    return Table(
        ["format", "made by", *(f"{engine}, {unit}" for engine in engines)],
        [[*names, *cells] for names, cells in rows.items()],
        names=2,
    )


def loading(figures: Figures) -> Table:
    """Seconds until a first image is through, and the largest memory so far."""

    def cell(run: Run) -> str:
        if run.load is None or run.memory is None:
            return _NONE
        return f"{run.load.median:.1f}, {size(round(run.memory.median))}"

    return _by_engine(figures, "s", cell)


def ours(figures: Figures) -> Table:
    """Each of our files by each engine."""
    bytes = {a.format: a.bytes for a in figures.artifacts if a.tool == IRV2}
    order = list(FORMATS)
    rows = []
    for run in figures.runs:
        if run.tool != IRV2 or not (run.latency and run.throughput):
            continue
        loaded = [_NONE, _NONE]
        if run.load and run.memory:
            loaded = [f"{run.load.median:.1f}", _megabytes(run.memory)]
        taken = bytes.get(run.format)
        rows.append(
            [
                *(run.format, run.engine),
                _spread(run.latency, ".0f", factor=1000),
                _spread(run.throughput, ".1f"),
                _number(run.to_float32, ".2f"),
                _number(run.cosine, ".4f"),
                *loaded,
                _NONE if taken is None else size(taken),
            ]
        )
    columns = ["format", "engine", "ms", "images/s", "x float32", "cosine"]
    columns += ["first image, s", "memory", "size"]
    rows.sort(key=lambda row: order.index(row[0]) if row[0] in order else len(order))
    return Table(columns, rows, names=2)


def openvino(figures: Figures) -> Table:
    """Our files and OpenVINO's own form of them, read by OpenVINO."""
    bytes = {(a.format, a.tool): a.bytes for a in figures.artifacts}
    formats = {run.format for run in figures.runs if run.tool == IR}
    rows = []
    for run in figures.runs:
        if (
            run.format not in formats
            or run.tool not in (IRV2, IR)
            or not run.engine.startswith(OPENVINO.name)
            or not (run.latency and run.throughput and run.load and run.memory)
        ):
            continue
        taken = bytes.get((run.format, run.tool))
        cached = [_NONE, _NONE]
        if run.cached_load and run.cached_memory:
            cached = [_spread(run.cached_load, ".1f"), _megabytes(run.cached_memory)]
        rows.append(
            [
                *(run.format, run.engine, "ONNX" if run.tool == IRV2 else "IR"),
                _NONE if taken is None else size(taken),
                _spread(run.latency, ".0f", factor=1000),
                f"{run.throughput.median:.1f}",
                *(_spread(run.load, ".1f"), _megabytes(run.memory), *cached),
            ]
        )
    columns = ["format", "engine", "read as", "size", "ms", "images/s"]
    columns += ["load, s", "memory", "load again, s", "memory"]
    return Table(columns, sorted(rows, key=lambda row: (row[0], row[1])), names=3)


def _megabytes(spread: Spread) -> str:
    return size(round(spread.median))


def choice(figures: Figures) -> Table:
    """The fastest of our files and engines, by the numbers that are computed in."""
    rows = []
    ours = [
        run
        for run in figures.runs
        if run.tool == IRV2 and not run.failed and not _is_another_network(run)
    ]
    for numbers in _NUMBERS:
        runs = [run for run in ours if _numbers(run, figures.machine) == numbers]
        latencies = [(run.latency.median, run) for run in runs if run.latency]
        throughputs = [(-run.throughput.median, run) for run in runs if run.throughput]
        if not latencies or not throughputs:
            continue
        taken, soon = min(latencies, key=_first)
        rate, many = min(throughputs, key=_first)
        rows.append(
            [
                numbers,
                *(f"{soon.format}, {soon.engine}", f"{1000 * taken:.0f}"),
                *(f"{many.format}, {many.engine}", f"{-rate:.1f}"),
            ]
        )
    columns = ["numbers", "one image: file, engine", "ms"]
    columns += ["batches of 8: file, engine", "images/s"]
    return Table(columns, rows)


_NUMBERS = ("float32", "bfloat16", "float16", "int8")


def _is_another_network(run: Run) -> bool:
    """Whether it is the auxiliary classifier, which is smaller."""
    return run.format in FORMATS and FORMATS[run.format].needs_auxiliary_head


def _first(pair: tuple[float, Run]) -> float:
    return pair[0]


def _numbers(run: Run, machine: Machine) -> str:
    """The numbers in which most of a network is stored or computed, the coarser ones."""
    precision = FORMATS[run.format].precision if run.format in FORMATS else None
    coarsest = precision.weights if precision else "float32"
    is_free = run.engine == OPENVINO.name  # To compute in what it likes.
    if is_free and "bfloat16" in machine.flags and coarsest != "int8":
        return "bfloat16"
    return coarsest


def peers(figures: Figures) -> Table:
    """Other tools' files of the same format beside ours, by the same engine."""
    ours = {(run.format, run.engine): run for run in figures.runs if run.tool == IRV2}
    rows = []
    for run in figures.runs:
        mine = ours.get((run.format, run.engine))
        if run.tool == IRV2 or run.latency is None or mine is None or not mine.latency:
            continue
        rows.append(
            [
                *(run.format, run.engine, run.tool),
                _spread(run.latency, ".0f", factor=1000),
                _spread(mine.latency, ".0f", factor=1000),
                _number(run.to_ours, ".2f"),
                _number(run.cosine, ".4f"),
                _number(mine.cosine, ".4f"),
            ]
        )
    columns = ["format", "engine", "made by", "ms", "ours, ms", "x ours"]
    return Table([*columns, "cosine", "ours"], rows, names=3)


def ratios(figures: Figures) -> Table:
    """How long one image takes beside others, and how far an engine's outputs go."""
    columns = ["format", "made by", "engine"]
    columns += ["x float32", "x own engine", "x ours", "cosine"]
    return Table(
        columns,
        [
            [
                run.format,
                run.tool,
                run.engine,
                _number(run.to_float32, ".2f"),
                _number(run.to_own_engine, ".2f"),
                _number(run.to_ours, ".2f"),
                _number(run.cosine, ".4f"),
            ]
            for run in figures.runs
            if not run.failed
        ],
        names=3,
    )


def agreement(figures: Figures) -> Table:
    """How exactly each artifact agrees with TF-Slim's network."""
    found = figures.everything.agreements if figures.everything else ()
    by_task = {(one.format, one.task): one for one in found}
    names = dict.fromkeys(one.format for one in found)
    columns = ["format"]
    for task in TASKS:
        columns += [f"{task}: error", "cosine"]
    return Table(
        columns,
        [
            [
                name,
                *(cell for task in TASKS for cell in _agreement(by_task, name, task)),
            ]
            for name in names
        ],
    )


def _agreement(
    found: dict[tuple[str, str], Agreement], format: str, task: str
) -> list[str]:
    one = found.get((format, task))
    if one is None:
        return [_NONE, _NONE]
    return [_number(one.relative_error, ".1e"), _number(one.cosine, ".6f")]


def everything(figures: Figures) -> str:
    """Says what exporting everything with one command takes."""
    whole = figures.everything
    if whole is None or whole.export is None:
        return "All formats of both tasks with one command: not measured"
    export = whole.export
    steps = {
        "graphs": export.graphs,
        "writing": export.write,
        "verifying": export.verify,
    }
    of_it = [f"{name} {duration(s.median)}" for name, s in steps.items() if s]
    return (
        f"All {counted(len(whole.agreements), 'artifact')} with one command: "
        f"{duration(export.seconds.median)} and {size(round(export.memory.maximum))}; "
        f"of it {', '.join(of_it)}"
    )


def _spread(spread: Spread, form: str, factor: float = 1) -> str:
    """The median and, where there are several values, the least and the largest."""
    median, low, high = (
        format(value * factor, form)
        for value in (spread.median, spread.minimum, spread.maximum)
    )
    return median if spread.count == 1 else f"{median} ({low} to {high})"


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)


TABLES: dict[str, Callable[[Figures], Table]] = {
    "making": making,
    "parts": parts,
    "choice": choice,
    "latency": latency,
    "throughput": throughput,
    "loading": loading,
    "openvino": openvino,
    "ours": ours,
    "ratios": ratios,
    "peers": peers,
    "agreement": agreement,
}
SENTENCES: dict[str, Callable[[Figures], str]] = {
    "machine": machine,
    "everything": everything,
}
