"""Puts artifacts where TF Hub's clients look first, and takes them out again.

tensorflow-hub keeps a module that it downloaded in `<cache>/<SHA-1 of the handle>/`, and
does not ask the network for what is there already (resolver.py and
compressed_module_resolver.py, the same from 0.1 to 0.16.1). An artifact placed there is
what `hub.Module(handle)`, `hub.KerasLayer(handle)` and `hub.load(handle)` load.
kagglehub does the same with `<cache>/models/<name>/`, if the file `<name>.complete` is
beside it (cache.py, the same from 0.1 to 1.0). An artifact lies in the first place, and
all others are links to it.

Beside each directory that is placed lies a receipt, by which it can be told from what
a library or somebody else put into the same cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from checkpoints import files
from checkpoints.files import PathLike
from checkpoints.scratch import locked, remove_leftovers, scratch_beside
from exporters.progress import Progress, Step, silent, waiting_for
from exporters.tfhub import handles, links, receipts
from exporters.tfhub.artifacts import HubArtifact, InstallError, find


@dataclasses.dataclass(frozen=True)
class Installed:
    """An artifact that was placed in a cache.

    Attributes:
      handle: the URL that it was installed under.
      directory: where it lies.
      replaced: whether it replaced files that lay there.
      names: every name that it answers to, URLs and kagglehub's names -> the directory,
        or the link to it.
      files: what was placed beside these: descriptor, receipt, and kagglehub's markers.
      kept: places of further names that are left as they are -> why.
      warning: what could not be checked, None if nothing.
    """

    handle: str
    directory: Path
    replaced: bool
    names: Mapping[str, Path]
    files: tuple[Path, ...]
    kept: Mapping[Path, str]
    warning: str | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """An installed artifact as `uninstall` found it.

    Attributes:
      handle: the URL that it was installed under.
      directory: where it lay.
      changed: files that were changed or added since, by path below the directory.
      left: places of further names that hold something else by now.
    """

    handle: str
    directory: Path
    changed: tuple[str, ...]
    left: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Uninstalled:
    """What `uninstall` did.

    Attributes:
      removed: artifacts that are gone; with their changes, if it was forced.
      kept: artifacts that are left as they are, since they were changed.
    """

    removed: tuple[Found, ...]
    kept: tuple[Found, ...]


def default_cache_directory() -> Path:
    """Returns the directory that the library uses: TFHUB_CACHE_DIR or its default.

    Raises:
      InstallError: it is not on this machine's file system.
    """
    configured = os.environ.get("TFHUB_CACHE_DIR")
    if configured and "://" in configured:
        raise InstallError(
            f"TFHUB_CACHE_DIR is {configured}; expected a directory of this machine's"
        )
    return Path(configured or Path(tempfile.gettempdir()) / "tfhub_modules")


def cached_directory(handle: str, cache_directory: Path | None = None) -> Path:
    """Returns where the library looks for a handle, exactly as users type it."""
    return (cache_directory or default_cache_directory()) / handles.cached_name(handle)


def default_kaggle_directory() -> Path | None:
    """Returns kagglehub's cache: KAGGLEHUB_CACHE or its default; None without a home."""
    configured = os.environ.get("KAGGLEHUB_CACHE")
    default = Path(os.path.expanduser("~")) / ".cache" / "kagglehub"
    return (
        Path(configured) if configured else default if default.is_absolute() else None
    )


def install(
    artifacts: PathLike | Iterable[PathLike],
    cache: PathLike | None = None,
    kaggle_cache: PathLike | None = None,
    *,
    handle: str | None = None,
    allow_stand_in: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> tuple[Installed, ...]:
    """Copies artifacts into the library's cache, under every name they are known by.

    An artifact lies under the URL that it was published under; for the other names of
    `exporters.tfhub.handles` there are links, or copies where no links can be made. A
    name whose place holds something else is left alone, and said.

    Each is checked first, as well as can be without its checkpoint: see
    `exporters.tfhub.artifacts`. All are placed, or none: if one is bad, nothing is
    installed, and the error names it.

    What an earlier call placed is replaced, also if files of it are missing. So is what
    holds nothing but files of the same artifact.

    Args:
      artifacts: directories exported as v1, v3, v4 or v5, or directories that hold
        such; other formats in the latter are passed over.
      cache: the library's cache, by default the one it will use.
      kaggle_cache: kagglehub's cache. By default the one it will use; but if
        `cache` is given, only where KAGGLEHUB_CACHE says so.
      handle: a URL to install one artifact under, instead of its published names. It
        must be given for one that has none, since its network has classes of its own.
      allow_stand_in: install generated weights, which classify nothing, under the
        handle of the trained ones.
      force: replace what is there, whoever put it there: changes of an installed
        artifact, and what a library downloaded or others put there, are deleted.
      progress: told what is done.

    Returns:
      What was installed, in the order found.

    Raises:
      ArtifactError: a path is no artifact with a handle, or is damaged.
      InstallError: an artifact is a stand-in, two have the same handle, one has none,
        or something is there already.
      OSError: the cache cannot be written. It is as it was before.
    """
    root = _checked_cache(cache)
    models = Path(kaggle_cache) if kaggle_cache else None
    if models is None and (cache is None or os.environ.get("KAGGLEHUB_CACHE")):
        models = default_kaggle_directory()
    # First of all, so that a cache that cannot be written is found at once.
    with (
        scratch_beside(root / "artifacts") as scratch,
        locked(root, waiting_for(root, progress)),
    ):
        chosen = find(artifacts, handle, progress)
        for url, artifact in chosen.items():
            if artifact.is_stand_in and not allow_stand_in:
                raise InstallError(
                    f"{artifact.path} is a stand-in: whoever loads {url} would get "
                    "weights that classify nothing. Export a trained checkpoint, or "
                    "insist with --allow-stand-in."
                )
        plans = []
        for url, artifact in chosen.items():
            progress(Step(f"copy {artifact.path.name}"))
            copy = scratch / cached_directory(url, root).name
            shutil.copytree(artifact.path, copy)
            places = {} if handle else _places(artifact, root, models)
            plan = _plan(copy, url, root, places, force=force)
            plans.append(dataclasses.replace(plan, warning=artifact.warning))
        moves: dict[Path, Path] = {}
        for plan in plans:
            directory = plan.directory
            copy = scratch / directory.name
            moves |= dict(zip(receipts.written(copy), receipts.written(directory)))
            moves[copy] = directory
        files.replace(moves, scratch)
        return tuple(map(_with_links, plans))


def uninstall(cache: PathLike | None = None, *, force: bool = False) -> Uninstalled:
    """Removes what `install` placed in a cache, and the links to it; nothing else.

    An artifact in which files were changed or added since is kept. One in which files
    are missing is removed.

    Args:
      cache: the library's cache, by default the one it will use.
      force: remove changed artifacts as well, with all that was added to them.

    Returns:
      What was removed and what was kept.

    Raises:
      ArtifactError: a newer version of irv2 installed something; nothing is removed.
      InstallError: the cache is no directory of this machine's.
      OSError: something cannot be removed. Its receipt stays, so it can be tried again.
    """
    root = _checked_cache(cache)
    if not root.exists():
        return Uninstalled((), ())
    with locked(root):
        with contextlib.suppress(OSError):
            remove_leftovers(root)
        return _uninstall(root, force=force)


def _uninstall(root: Path, *, force: bool) -> Uninstalled:
    removed, kept = [], []
    directories = [
        path.with_name(path.name.removesuffix(receipts.SUFFIX))
        for path in sorted(root.glob(f"*{receipts.SUFFIX}"))
    ]
    read = {directory: receipts.read(directory) for directory in directories}
    for directory, receipt in read.items():
        if receipt is None:
            continue
        changed = receipts.changed_files(directory, receipt.files)
        if changed and not force:
            kept.append(Found(receipt.handle, directory, changed))
            continue
        left = tuple(
            place
            for place in (root / link for link in receipt.links)
            if not links.remove(place, directory, receipt.files)
        )
        links.remove_whole(directory)
        receipts.remove(directory, receipt)
        removed.append(Found(receipt.handle, directory, changed, left))
    return Uninstalled(tuple(removed), tuple(kept))


def _checked_cache(directory: PathLike | None) -> Path:
    cache = Path(directory or default_cache_directory()).absolute()
    if cache.exists() and not cache.is_dir():
        raise InstallError(f"{cache} is a file; expected the library's cache directory")
    return cache


def _places(
    artifact: HubArtifact, cache: Path, kaggle_directory: Path | None
) -> dict[str, Path]:
    """Returns where clients look for an artifact by its further names."""
    places = {url: cached_directory(url, cache) for url in artifact.urls[1:]}
    if kaggle_directory:
        models = kaggle_directory.absolute() / "models"
        places |= {name: models / name for name in artifact.kaggle_models}
    return places


def _plan(
    copy: Path, handle: str, cache: Path, places: Mapping[str, Path], *, force: bool
) -> Installed:
    """Decides what will be where, and writes the receipt of a copied artifact.

    Raises:
      InstallError: something is there already.
    """
    directory = cached_directory(handle, cache)
    previous = receipts.read(directory)
    content = receipts.digests(copy)
    known = [content, previous.files] if previous else [content]
    is_replaced = bool(receipts.digests(directory))
    if is_replaced and not force:
        _check_replaceable(directory, handle, known)
    free = {
        name: place
        for name, place in places.items()
        if force or links.is_free(place, directory, known)
    }
    recorded = [
        place.name if place.parent == cache else str(place) for place in free.values()
    ]
    # Those of before may lie in another cache of kagglehub's.
    recorded += [
        link for link in (previous.links if previous else ()) if link not in recorded
    ]
    receipts.write(copy, handle, content, recorded)
    return Installed(
        handle,
        directory,
        replaced=is_replaced,
        names=free,
        files=receipts.written(directory),
        kept={
            place: "it holds what irv2 did not put there"
            for name, place in places.items()
            if name not in free
        },
    )


def _check_replaceable(
    directory: Path, handle: str, known: Sequence[Mapping[str, str]]
) -> None:
    """Raises if anything would be lost by replacing a directory of the cache.

    Args:
      directory: a place in the cache.
      handle: what is to be placed there.
      known: files of what is to be placed there and, if there was an installation
        before, of what it placed.
    """
    changed = [receipts.changed_files(directory, content) for content in known]
    if not all(changed):
        return
    if len(changed) == 1:
        raise InstallError(
            f"{directory} already holds {handle}, and irv2 did not put it there. Use "
            "another --cache, or replace it with --force, which deletes it."
        )
    raise InstallError(
        f"{directory} was changed since irv2 installed it: "
        f"{', '.join(changed[-1][:3])}. Use --force to replace it, which deletes the "
        "changes."
    )


def _with_links(plan: Installed) -> Installed:
    """Makes the links to an artifact; what cannot be made is said."""
    names, markers, failed = {plan.handle: plan.directory}, [], {}
    for name, place in plan.names.items():
        try:
            links.make(place, plan.directory)
        except OSError as error:
            failed[place] = str(error)
            continue
        names[name] = place
        if marker := links.marker_of(place, plan.directory):
            markers.append(marker)
    return dataclasses.replace(
        plan,
        names=names,
        files=(*plan.files, *markers),
        kept={**plan.kept, **failed},
    )
