"""`make bench`: every format, beside the stock tool in the same run.

Prints a table and writes it as JSON. Every figure comes from a process of its own; what
is compared runs in turn in the same process. Stock tools: the tf2onnx command and
TensorFlow's TFLite converter, both on our v5; float32 ONNX as the baseline of int8.
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
from pathlib import Path

from benchmarks.exporting import STOCK_ONNX, STOCK_TFLITE, run_apart
from exporters.console import size, table
from exporters.formats import FORMATS
from exporters.manifest import versions

TASK = "classification"


def main() -> None:
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
    names = arguments.formats.split(",")

    with tempfile.TemporaryDirectory(prefix="irv2-bench-") as directory:
        figures = _export_ours(arguments.checkpoint, directory, names)
        if arguments.stock:
            figures |= _export_stock(figures, arguments.checkpoint, Path(directory))
        _run(figures, Path(directory))
    results = {
        "machine": {"processor": _processor(), "cores": os.cpu_count()},
        "versions": versions(),
        "task": TASK,
        "artifacts": figures,
    }
    if arguments.everything:
        results["export everything"] = _export_everything(arguments.checkpoint)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    _print(results)
    print(f"\nWritten to {arguments.output}")


def _export_ours(checkpoint: str, directory: str, names: list[str]) -> dict:
    _say(f"exporting {', '.join(names)}")
    run_apart(
        "benchmarks.exporting", "ours", checkpoint, directory, TASK, ",".join(names)
    )
    found = json.loads((Path(directory) / "figures.json").read_text())
    _say(f"  start {found.pop('start'):.1f} s, graphs {found.pop('graphs'):.1f} s")
    return found


def _export_stock(ours: dict, checkpoint: str, directory: Path) -> dict:
    """Runs the stock tools on our v5; the whole process counts, as users wait for it."""
    figures = {}
    if "v5" in ours:
        saved_model = ours["v5"]["path"]
    else:
        _say("exporting v5 for the stock tools")
        (directory / "for-stock").mkdir()
        saved_model = _export_ours(checkpoint, str(directory / "for-stock"), ["v5"])[
            "v5"
        ]["path"]

    def measure(name: str, path: Path, *command: str) -> None:
        _say(f"stock tool: {name}")
        try:
            seconds, memory = run_apart(*command)
        except RuntimeError as error:
            _say(f"  failed: {error}")
            return
        figures[name] = {"seconds": seconds, "memory": memory, "path": str(path)}

    if any(name.startswith("onnx") for name in ours):
        path = directory / f"{STOCK_ONNX}.onnx"
        command = ("--saved-model", saved_model, "--output", str(path), "--opset", "17")
        measure(STOCK_ONNX, path, "tf2onnx.convert", *command)
    for name, stock in STOCK_TFLITE.items():
        if name in ours:
            path = directory / f"{stock}.tflite"
            command = ("benchmarks.exporting", "tflite", saved_model, name, str(path))
            measure(stock, path, *command)
    return figures


def _run(figures: dict, directory: Path) -> None:
    """Adds size, load time, latency and throughput, compared ones in one process."""
    groups = [
        [name for name in names if name in figures]
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
        run_apart("benchmarks.running", str(result), *paths)
        found = json.loads(result.read_text())
        for name, figure in zip(group, found):
            for key, value in figure.items():
                figures[name].setdefault(key, value)
            if name != group[0]:
                ratio = figure["latency"] / found[0]["latency"]
                figures[name][f"latency relative to {group[0]}"] = ratio
    for figure in figures.values():
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
    artifacts = json.loads(output)
    return {
        "seconds": seconds,
        "memory": usage.ru_maxrss * 1024,
        "breakdown": {Path(item["path"]).name: item["seconds"] for item in artifacts},
    }


def _print(results: dict) -> None:
    header = ["artifact", "export s", "memory", "size", "load s", "latency ms"]
    header += ["images/s", "latency relative to"]
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
                f"{figure['seconds']:.1f}",
                size(figure["memory"]),
                size(figure["bytes"]),
                f"{figure['load']:.1f}",
                f"{figure['latency'] * 1000:.0f}",
                f"{figure['throughput']:.1f}",
                ", ".join(relative),
            ]
        )
    print(table(header, rows))
    everything = results.get("export everything")
    if everything:
        parts = everything["breakdown"].values()
        print(
            f"\nEvery format of both tasks, one command: {everything['seconds']:.0f} s, "
            f"{size(everything['memory'])}; writing "
            f"{sum(part['write'] for part in parts):.0f} s, verifying "
            f"{sum(part['verify'] for part in parts):.0f} s."
        )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
