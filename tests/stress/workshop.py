"""What sections start from: two checkpoints, and what is exported from each."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import NoReturn

import thin_network

from checkpoints import files
from exporters import manifest
from exporters.containers.keras import library
from exporters.errors import MissingLibraryError
from exporters.formats import FORMATS
from exporters.network.tasks import TASKS
from stress import commands
from stress.commands import Outcome


class _NoKeras:
    """A module `library` that says that Keras is not there."""

    named = staticmethod(library.named)

    @staticmethod
    def keras() -> NoReturn:
        raise MissingLibraryError("Keras has no thin network")


def install() -> None:
    """Puts the thin network in the real one's place, for good, and loads libraries.

    They are only loaded: what runs in threads would not survive that processes are
    forked from this one.
    """
    import ai_edge_litert.interpreter
    import h5py
    import onnxruntime
    import PIL.Image
    import pyarrow.parquet
    import tensorflow as tf

    assert tf and onnxruntime and ai_edge_litert and h5py and PIL and pyarrow
    for row in FORMATS.values():
        __import__(row.container.module)
    for module in ("exporting", "verification", "identification", "inspection"):
        __import__(f"exporters.{module}")
    thin_network.install_for_good()
    from exporters.containers.keras import application

    # Keras's own network is none but the whole one: numbers alone are compared.
    application.library = _NoKeras  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Workshop:
    """A directory with an old and a new checkpoint, and artifacts of each.

    Attributes:
      folder: where all is; others put their own beside it.
    """

    folder: Path

    def checkpoint(self, name: str) -> Path:
        """Path of the "old" or the "new" checkpoint, a V1 file."""
        path = self.folder / f"{name}.ckpt"
        if not path.exists():
            thin_network.write(path, seed={"old": 0, "new": 1}[name])
        return path

    def prepare(self) -> None:
        """Exports everything, which takes half as long as one by one."""
        started = [
            commands.Process(
                [
                    *("export", "--checkpoint", self.checkpoint(name)),
                    *("--no-verify", "--output", self.folder / name),
                ]
            )
            for name in ("old", "new")
        ]
        for process in started:
            _check(process.wait())

    def exported(self, name: str, format: str, task: str) -> Path:
        """An artifact of a checkpoint, with its manifest beside it; to be read only."""
        directory = self.folder / name
        path = directory / artifact_name(format, task)
        if not manifest.path_of(path).exists():
            done = commands.run(
                *("export", "--checkpoint", self.checkpoint(name), "--no-verify"),
                *("--output", directory, "--formats", format, "--tasks", task),
            )
            _check(done)
        return path

    def copy(self, name: str, format: str, task: str, directory: Path) -> Path:
        """A copy of an artifact and its manifest, to be changed."""
        source = self.exported(name, format, task)
        path = directory / source.name
        directory.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, path)
        else:
            shutil.copyfile(source, path)
        shutil.copyfile(manifest.path_of(source), manifest.path_of(path))
        return path

    def digests(self, name: str, format: str, task: str) -> dict[str, str]:
        """SHA-256 of each file of an artifact."""
        return files.digests(self.exported(name, format, task))


def _check(done: Outcome) -> None:
    if done.code:
        raise RuntimeError(f"nothing can be tried: {done.err}")


def artifact_name(format: str, task: str) -> str:
    """What an artifact of the thin network is called."""
    return FORMATS[format].artifact_name(TASKS[task], is_stand_in=False)


def jobs() -> list[tuple[str, str]]:
    """Every format with every task that it has."""
    return [(row.name, task.name) for row in FORMATS.values() for task in row.tasks]
