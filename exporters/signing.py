"""Signing: who stands behind an artifact?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from checkpoints import files
from checkpoints.files import PathLike, as_paths
from checkpoints.scratch import scratch_beside
from exporters import manifest
from exporters.errors import ArtifactError
from exporters.formats import FORMATS, Format
from exporters.progress import Progress, Step, silent
from exporters.signatures import library, reading_key, reasons
from exporters.verification import find_artifacts


def sign(
    artifacts: PathLike | Iterable[PathLike],
    private_key: PathLike | None = None,
    *,
    password: str | None = None,
    progress: Progress = silent,
    formats: Mapping[str, Format] = FORMATS,
) -> tuple[Path, ...]:
    """Signs the manifests of artifacts, and so the artifacts.

    Args:
      artifacts: artifacts, or directories of them.
      private_key: PEM file of an elliptic curve's private key. Without one, Sigstore
        asks who you are, in a browser or of the machine that it runs on, and keeps a
        public record.
      password: what the key is encrypted with, None for nothing.
      progress: told what is done.
      formats: the table of formats.

    Returns:
      The signatures, each beside its artifact. There is either one of each or none.

    Raises:
      ArtifactError: a path is no artifact, or is not as its manifest says.
      SigningError: the key cannot be used, or Sigstore does not answer.
      MissingLibraryError: model-signing is not installed.
      OSError: a file cannot be read or written.
    """
    paths, _ = find_artifacts(as_paths(artifacts), formats)
    for path in paths:
        _check_manifest(path)
    config = _signer(Path(private_key) if private_key else None, password)
    signatures = [manifest.signature_of(path) for path in paths]
    with contextlib.ExitStack() as scratches:
        moves = {}
        for number, (path, place) in enumerate(zip(paths, signatures), start=1):
            progress(Step(f"[{number}/{len(paths)}] sign {path.name}"))
            scratch = scratches.enter_context(scratch_beside(place))
            moves[scratch / place.name] = place
            with reasons("cannot sign"):
                config.sign(manifest.path_of(path), scratch / place.name)
        for made, place in moves.items():
            files.sync(made)
            made.replace(place)
    return tuple(signatures)


def _check_manifest(path: Path) -> None:
    place = manifest.path_of(path)
    if not place.is_file():
        raise ArtifactError(
            f"{path} has no {place.name} beside it, which would be signed. Export it "
            "with irv2."
        )
    changed = manifest.changed_files(path) + manifest.changed_companions(path)
    if changed:
        raise ArtifactError(
            f"{path} is not as its manifest says: {', '.join(changed)}. Nothing was "
            "signed."
        )


def _signer(private_key: Path | None, password: str | None) -> Any:
    signing = library().signing
    if private_key is None:
        return signing.Config().use_sigstore_signer()
    with reading_key(private_key):
        return signing.Config().use_elliptic_key_signer(
            # The library hands it on to one that wants bytes.
            private_key=private_key,
            password=password.encode() if password else None,
        )
