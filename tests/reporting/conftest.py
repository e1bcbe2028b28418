"""A directory of artifacts of a small block, and what stands for TF-Slim's network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import small_build
from reporting import blocks


@pytest.fixture(scope="module")
def block():
    """Puts the block in the place of the real network, for all tests of a file."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_build.install(monkeypatch)
        yield


@pytest.fixture(scope="module")
def artifacts(block, tmp_path_factory) -> Path:
    """A directory of artifacts, compared; not to be changed."""
    return blocks.make(tmp_path_factory.mktemp("made"), blocks.checkpoint())


@pytest.fixture
def copied(artifacts, tmp_path):
    """Copies some of the artifacts, by a part of their names, to be changed."""

    def copy(part: str = "") -> Path:
        directory = tmp_path / "artifacts"
        directory.mkdir()
        for path in artifacts.iterdir():
            if part in path.name and path.is_file():
                shutil.copy(path, directory)
        return directory

    return copy
