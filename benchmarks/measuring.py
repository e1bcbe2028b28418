"""Measuring: makes every artifact, several times in turn, and runs it on every engine."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import exporting, machines
from benchmarks.engines import Engine, version
from benchmarks.exporting import Made, Recipe
from benchmarks.figures import IRV2, Artifact, Everything, Figures, Run
from benchmarks.processes import ProcessError
from benchmarks.running import Job, measure_apart
from exporters import manifest
from exporters.network.quantization import Precision
from exporters.network.tasks import Task
from exporters.progress import Note, Progress, Step, silent

_FLOAT32 = Precision()


def measure(
    recipes: Sequence[Recipe],
    task: Task,
    engines: Sequence[Engine],
    *,
    everything: Callable[[], Made] | None = None,
    repeats: int = 3,
    threads: int = 2,
    seconds: float = 6,
    run: Callable[[Sequence[Job], int, float, int], Sequence[Run]] = measure_apart,
    progress: Progress = silent,
) -> Figures:
    """Measures making artifacts, and running them.

    Args:
      recipes: ways to artifacts; an artifact may have one that verifies it too.
      task: what all of them are for.
      engines: to run them with, as far as they read them.
      everything: exports all formats of all tasks; None to leave that out.
      repeats: how often each artifact is made, and loaded.
      threads: that each engine may use.
      seconds: to spend on each artifact, engine and size of batch.
      run: measures artifacts that are compared with each other.
      progress: told what is done.

    Returns:
      The figures. What failed is among them.
    """
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    machine = machines.this_machine()
    if machine.is_busy:
        progress(
            Note(
                f"Other programs take {machine.busy:.0%} of the processors' time: the "
                "figures will say so, and little else."
            )
        )
    whole = None
    if everything:
        progress(Step("export all formats of both tasks with one command"))
        whole = _everything(everything)
    made, failed = _make(recipes, repeats, progress)
    artifacts = [
        _artifact([r for r in recipes if (r.row.name, r.tool) == key], made, failed)
        for key in dict.fromkeys((r.row.name, r.tool) for r in recipes)
    ]
    runs: list[Run] = []
    for jobs in _groups({r: m[-1].path for r, m in made.items() if m}, engines):
        names = ", ".join(dict.fromkeys(job.format for job in jobs))
        progress(Step(f"run {names}"))
        runs += run(jobs, threads, seconds, repeats)
    return Figures(
        date=date,
        machine=machine,
        versions=_versions(recipes, engines),
        threads=threads,
        task=task.name,
        artifacts=tuple(artifacts),
        runs=tuple(runs),
        everything=whole,
    )


def _make(
    recipes: Sequence[Recipe], repeats: int, progress: Progress
) -> tuple[dict[Recipe, list[Made]], dict[Recipe, str]]:
    """Makes all artifacts in turn, again and again, those that fail only once."""
    made: dict[Recipe, list[Made]] = {recipe: [] for recipe in recipes}
    failed: dict[Recipe, str] = {}
    for turn in range(1, repeats + 1):
        for recipe in recipes:
            before = made[recipe]
            if recipe in failed or (before and before[-1].seconds is None):
                continue
            verb = "make and verify" if recipe.is_verified else "make"
            name = f"{verb} {recipe.row.name} by {recipe.tool}"
            progress(Step(f"[{turn}/{repeats}] {name}"))
            try:
                made[recipe].append(recipe.make())
            except ProcessError as error:
                failed[recipe] = str(error)
    return made, failed


def _artifact(
    ways: Sequence[Recipe],
    made: Mapping[Recipe, Sequence[Made]],
    failed: Mapping[Recipe, str],
) -> Artifact:
    """Returns what is known of one artifact, from all ways to it."""
    taken = {way.is_verified: made[way] for way in ways if made[way]}
    export, verified_export = (
        exporting.process(taken[key]) if key in taken else None for key in (False, True)
    )
    return Artifact(
        ways[0].row.name,
        ways[0].tool,
        bytes=next((found[-1].bytes for found in taken.values()), None),
        export=export,
        verified_export=verified_export,
        failed=next((failed[way] for way in ways if way in failed), None),
    )


def _groups(paths: Mapping[Recipe, Path], engines: Sequence[Engine]) -> list[list[Job]]:
    """Groups what is to be run by containers, in each of which all is compared."""
    groups: dict[str, dict[Path, Recipe]] = {}
    for recipe, path in paths.items():
        groups.setdefault(recipe.row.container.module, {})[path] = recipe
    return [list(_jobs(group, engines)) for group in groups.values()]


def _jobs(group: Mapping[Path, Recipe], engines: Sequence[Engine]) -> Iterator[Job]:
    float32 = next(
        (
            r.row.name
            for r in group.values()
            if r.row.precision == _FLOAT32 and not r.row.needs_auxiliary_head
        ),
        None,
    )
    own = next(
        (e.name for e in engines if e.is_own and any(e.reads(path) for path in group)),
        None,
    )
    for path, recipe in group.items():
        for engine in [engine for engine in engines if engine.reads(path)]:
            yield Job(
                path=str(path),
                format=recipe.row.name,
                tool=recipe.tool,
                engine=engine.name,
                # The auxiliary classifier is another network.
                float32=None if recipe.row.needs_auxiliary_head else float32,
                own_engine=own,
            )


def _everything(export: Callable[[], Made]) -> Everything:
    try:
        made = export()
    except ProcessError as error:
        return Everything(failed=str(error))
    return Everything(exporting.process([made]), made.agreements)


def _versions(recipes: Sequence[Recipe], engines: Sequence[Engine]) -> dict[str, str]:
    """Versions of all that has a part in it; tools that are none of ours by their name."""
    others = [engine.distribution for engine in engines]
    others += [recipe.tool for recipe in recipes if recipe.tool != IRV2]
    found = {name: version(name) for name in others}
    return manifest.versions() | {name: v for name, v in found.items() if v}
