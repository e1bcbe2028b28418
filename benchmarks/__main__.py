"""`make bench`: every format, beside the stock tool in the same run.

Prints a table and writes it as JSON. Every artifact is made in a process of its own, whose
time and memory are those of a user's command; what of them goes to writing, once the
network's graph is built, is shown beside. Artifacts that are compared run in turn in one
process, on 2 threads. Stock tools: the tf2onnx command and TensorFlow's TFLite converter,
both on our v5; float32 ONNX as the baseline of int8. For Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from exporters.console import size, table

from benchmarks.exporting import STOCK_ONNX, STOCK_TFLITE, run_apart
from benchmarks.running import THREADS
from exporters.formats import FORMATS, UnknownFormatError, select
from exporters.manifest import versions

TASK = "classification"


def main() -> int:
    """Measures, prints and writes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks.json"))
    parser.add_argument(
        "--formats", default=",".join(FORMATS), help="comma-separated; default: all"
    )
    parser.add_argument("--no-stock", dest="stock", action="store_false")
    parser.add_argument(
        "--no-everything",
        dest="everything",
        action="store_false",
        help="leave out the export of every format of both tasks in one command",
    )
    arguments = parser.parse_args()
    try:
        names = [row.name for row in select(arguments.formats.split(","))]
    except UnknownFormatError as error:
        parser.error(str(error))

    with tempfile.TemporaryDirectory(prefix="irv2-bench-") as directory:
        figures = _export_ours(arguments.checkpoint, Path(directory), names)
        if arguments.stock:
            _export_stock(figures, arguments.checkpoint, Path(directory))
        _run(figures, Path(directory))
    results = {
        "machine": {"processor": _processor(), "cores": os.cpu_count()},
        "versions": versions(),
        "task": TASK,
        "threads": THREADS,
        "artifacts": figures,
    }
    if arguments.everything:
        results["export everything"] = _export_everything(arguments.checkpoint)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    _print(results)
    print(f"\nWritten to {arguments.output}")
    return int(any("failed" in figure for figure in figures.values()))


def _export_ours(checkpoint: str, directory: Path, names: list[str]) -> dict:
    figures = {}
    for name in names:
        path = directory / FORMATS[name].artifact_name(TASK, is_stand_in=False)
        result = directory / "figures.json"
        command = ("ours", checkpoint, TASK, name, str(path), str(result))
        figure = _make(name, path, "benchmarks.exporting", *command)
        if "failed" not in figure:
            figure |= json.loads(result.read_text())
        figures[name] = figure
    return figures


def _export_stock(figures: dict, checkpoint: str, directory: Path) -> None:
    """Runs the stock tools on our v5."""
    source = figures.get("v5")
    if source is None:
        (directory / "for-stock").mkdir()
        source = _export_ours(checkpoint, directory / "for-stock", ["v5"])["v5"]
    saved_model = source["path"]
    if any(name.startswith("onnx") for name in figures):
        path = directory / f"{STOCK_ONNX}.onnx"
        command = ("--saved-model", saved_model, "--output", str(path), "--opset", "17")
        figures[STOCK_ONNX] = _make(STOCK_ONNX, path, "tf2onnx.convert", *command)
    for name, stock in STOCK_TFLITE.items():
        if name in figures:
            path = directory / f"{stock}.tflite"
            command = ("tflite", saved_model, name, str(path))
            figures[stock] = _make(stock, path, "benchmarks.exporting", *command)


def _make(name: str, path: Path, *command: str) -> dict:
    """Runs a module that makes an artifact; its whole process counts."""
    _say(f"making {name}")
    try:
        seconds, memory = run_apart(*command)
    except RuntimeError as error:
        _say(f"  failed: {error}")
        return {"failed": str(error)}
    return {"seconds": seconds, "memory": memory, "path": str(path)}


def _run(figures: dict, directory: Path) -> None:
    """Adds size, load time, latency and throughput, compared ones in one process."""
    groups = [
        [name for name in names if "path" in figures.get(name, {})]
        for names in (
            ("onnx-float32", STOCK_ONNX, "onnx-float16", "onnx-int8"),
            ("tflite-float32", STOCK_TFLITE["tflite-float32"], "tflite-int8"),
            ("tflite-int8", STOCK_TFLITE["tflite-int8"]),
            ("tflite-float16", STOCK_TFLITE["tflite-float16"]),
            ("tflite-dynamic-int8", STOCK_TFLITE["tflite-dynamic-int8"]),
            ("v4", "v5"),
            ("v1",),
            ("v3",),
        )
    ]
    for group in filter(None, groups):
        _say(f"running {', '.join(group)}")
        result = directory / "result.json"
        paths = [figures[name]["path"] for name in group]
        try:
            run_apart("benchmarks.running", str(result), *paths)
        except RuntimeError as error:
            _say(f"  failed: {error}")
            for name in group:
                figures[name].setdefault("failed", str(error))
            continue
        found = json.loads(result.read_text())
        for name, figure in zip(group, found):
            for key, value in figure.items():
                figures[name].setdefault(key, value)
            if name != group[0]:
                ratio = figure["latency"] / found[0]["latency"]
                figures[name][f"latency relative to {group[0]}"] = ratio
    for figure in figures.values():
        if "path" in figure:
            figure["bytes"] = _bytes(Path(figure.pop("path")))


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _export_everything(checkpoint: str) -> dict:
    """`irv2 export` of every format and both tasks in one command."""
    _say("exporting every format of both tasks with one command")
    with tempfile.TemporaryDirectory(prefix="irv2-bench-") as directory:
        command = [sys.executable, "-m", "exporters.cli", "export", "--json"]
        command += ["--checkpoint", checkpoint, "--output", directory]
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
    if status:
        raise RuntimeError(f"{' '.join(command)} failed")
    found = json.loads(output)
    return {
        "seconds": seconds,
        "memory": usage.ru_maxrss * 1024,
        "graph_seconds": found["graph_seconds"],
        "breakdown": {
            Path(item["path"]).name: item["seconds"] for item in found["artifacts"]
        },
    }


def _print(results: dict) -> None:
    header = ["artifact", "export s", "memory", "of it write s", "memory", "size"]
    header += ["load s", "latency ms", "images/s", "latency relative to"]
    rows = []
    for name, figure in results["artifacts"].items():
        relative = [
            f"{value:.2f} x {key.removeprefix('latency relative to ')}"
            for key, value in figure.items()
            if key.startswith("latency relative to ")
        ]
        rows.append(
            [
                name,
                _cell(figure, "seconds", "{:.1f}"),
                _cell(figure, "memory", size),
                _cell(figure, "write_seconds", "{:.1f}"),
                _cell(figure, "write_memory", size),
                _cell(figure, "bytes", size),
                _cell(figure, "load", "{:.1f}"),
                _cell(figure, "latency", lambda seconds: f"{seconds * 1000:.0f}"),
                _cell(figure, "throughput", "{:.1f}"),
                "failed" if "failed" in figure else ", ".join(relative),
            ]
        )
    print(table(header, rows))
    everything = results.get("export everything")
    if everything:
        parts = everything["breakdown"].values()
        print(
            f"\nEvery format of both tasks, one command: {everything['seconds']:.0f} s, "
            f"{size(everything['memory'])}; of it graphs "
            f"{everything['graph_seconds']:.0f} s, writing "
            f"{sum(part['write'] for part in parts):.0f} s, verifying "
            f"{sum(part['verify'] for part in parts):.0f} s."
        )


def _cell(figure: dict, key: str, form: str | Callable[[int], str]) -> str:
    if key not in figure:
        return "-"
    return form.format(figure[key]) if isinstance(form, str) else form(figure[key])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
