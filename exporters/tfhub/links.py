"""Links to an installed artifact from the places of its further names.

In the library's cache, a link leads to the directory. In kagglehub's there is a directory
of links to its files, since kagglehub may delete what is in it and write it anew, and
beside it an empty file that says that it is complete. Links are relative, so that a cache
can be moved. Where none can be made, there are copies, of hard links if possible.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from checkpoints import files
from checkpoints.scratch import scratch_beside
from exporters.tfhub.receipts import beside, changed_files

_MARKER_SUFFIX = ".complete"
_KAGGLE_DEPTH = 5
"""Directories from kagglehub's cache down to a version: models/OWNER/MODEL/FRAMEWORK/
VARIATION."""


def marker_of(place: Path, directory: Path) -> Path | None:
    """Returns the file that marks a place as complete; None in the library's cache."""
    if place.parent == directory.parent:
        return None
    return beside(place, _MARKER_SUFFIX)


def make(place: Path, directory: Path) -> None:
    """Makes links or copies at a place, and replaces what is there.

    Args:
      place: where a client looks.
      directory: where the artifact lies.

    Raises:
      OSError: neither can be made. The place is as it was before.
    """
    marker = marker_of(place, directory)
    with scratch_beside(place) as scratch:
        made = scratch / "made"
        final = place.parent.resolve() / place.name
        try:
            if marker is None:
                _link(directory, made, final)
            else:
                _link_files(directory, made, final)
        except (OSError, ValueError):  # ValueError: it is on another drive.
            shutil.rmtree(made, ignore_errors=True)
            shutil.copytree(directory, made, copy_function=_link_or_copy)
        moves = {made: place}
        if marker:
            (scratch / "marker").touch()
            moves[scratch / "marker"] = marker
        files.replace(moves, scratch)


def _link(target: Path, link: Path, final: Path) -> None:
    """Makes a link that leads to a target once it is moved to its final path."""
    relative = os.path.relpath(target.resolve(), final.parent)
    link.symlink_to(relative, target_is_directory=target.is_dir())


def _link_files(directory: Path, made: Path, final: Path) -> None:
    """Makes a directory of links to the files of another."""
    made.mkdir()
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if path.is_dir():
            (made / name).mkdir()
        else:
            _link(path, made / name, final / name)


def _link_or_copy(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:
        shutil.copyfile(source, destination)


def is_free(place: Path, directory: Path, known: Iterable[Mapping[str, str]]) -> bool:
    """Whether a place is empty, or holds only what an earlier call made there.

    Args:
      place: where a client looks.
      directory: where the artifact is to lie, in this cache or, before, in another.
      known: what the directory is to hold, or has held; each path -> SHA-256.
    """

    def leads_to_an_installation(path: Path) -> bool:
        return path.is_symlink() and directory.name in Path(os.readlink(path)).parts

    return any(_holds_only(place, one, leads_to_an_installation) for one in known)


def remove(place: Path, directory: Path, known: Mapping[str, str]) -> bool:
    """Removes what `make` made at a place, if it is still there.

    Args:
      place: where a client looks.
      directory: where the artifact lies.
      known: what the directory held; path -> SHA-256.

    Returns:
      False if the place holds something else by now, which is left.
    """

    def leads_to_it(path: Path) -> bool:
        return path.is_symlink() and path.resolve().is_relative_to(directory.resolve())

    if not _holds_only(place, known, leads_to_it):
        return False
    remove_whole(place)
    marker = marker_of(place, directory)
    if marker:
        remove_whole(marker)
        with contextlib.suppress(OSError):  # One is not empty.
            for parent in place.parents[:_KAGGLE_DEPTH]:
                parent.rmdir()
    return True


def _holds_only(
    place: Path, known: Mapping[str, str], is_link: Callable[[Path], bool]
) -> bool:
    """Whether there is nothing at a place but known files and certain links."""
    return is_link(place) or all(
        is_link(place / name) for name in changed_files(place, known)
    )


def remove_whole(path: Path) -> None:
    """Removes what is at a path, if anything, so that nobody sees half of it."""
    if os.path.lexists(path):
        with scratch_beside(path) as scratch:
            path.rename(scratch / "removed")
