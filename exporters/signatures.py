"""Signatures of manifests, in the form that model-signing writes.

A manifest holds the SHA-256 of each of an artifact's files and of what lies beside it. The
signature is a Sigstore bundle, as the OpenSSF's model signing has it, whose own command
`model_signing verify` takes the manifest for the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from exporters import manifest
from exporters.artifact import first_line
from exporters.errors import ArtifactError, MissingLibraryError, SigningError


@dataclasses.dataclass(frozen=True)
class TrustedKey:
    """A key whose signatures count.

    Attributes:
      public_key: PEM file of an elliptic curve's public key.
    """

    public_key: Path


@dataclasses.dataclass(frozen=True)
class TrustedIdentity:
    """Somebody whose signatures count, as a provider of identities vouches for them.

    Attributes:
      identity: mostly an address, as "me@example.org".
      provider: URL of who vouches, as "https://accounts.google.com".
    """

    identity: str
    provider: str


Trust = TrustedKey | TrustedIdentity


def problems(artifacts: Iterable[Path], trust: Trust) -> dict[Path, str]:
    """Says in words why artifacts do not count as signed; leaves out those that do.

    Raises:
      SigningError: the key cannot be used.
      MissingLibraryError: model-signing is not installed.
    """
    config = _verifier(trust)
    found = {path: _problem(path, config) for path in artifacts}
    return {path: problem for path, problem in found.items() if problem}


def _problem(artifact: Path, config: Any) -> str | None:
    place, signature = manifest.path_of(artifact), manifest.signature_of(artifact)
    if not signature.is_file():
        return f"not signed: there is no {signature.name}"
    try:
        with reasons("its signature does not hold"):
            config.verify(place, signature)
        changed = manifest.changed_companions(artifact)
    except (SigningError, ArtifactError) as error:
        return str(error)
    return f"not as it was signed: {', '.join(changed)}" if changed else None


def _verifier(trust: Trust) -> Any:
    verifying = library().verifying
    if isinstance(trust, TrustedIdentity):
        return verifying.Config().use_sigstore_verifier(
            identity=trust.identity, oidc_issuer=trust.provider
        )
    with reading_key(trust.public_key):
        return verifying.Config().use_elliptic_key_verifier(public_key=trust.public_key)


def library() -> Any:
    """The package model_signing; slow to import.

    Raises:
      MissingLibraryError: it is not installed.
    """
    try:
        import model_signing
        from model_signing import signing, verifying  # noqa: F401
    except ImportError as error:
        raise MissingLibraryError(
            f"Signatures need model-signing ({error}): pip install 'irv2[sign]'."
        ) from error
    return model_signing


@contextlib.contextmanager
def reading_key(key: Path) -> Iterator[None]:
    """Names the file of a key that cannot be used."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise SigningError(
            f"{key} cannot be used as a key: {first_line(error)}"
        ) from error


@contextlib.contextmanager
def reasons(what: str) -> Iterator[None]:
    """Says what failed; the library's exceptions have nothing in common."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise SigningError(f"{what}: {first_line(error)}") from error
    except Exception as error:
        raise SigningError(f"{what}: {_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    words = first_line(error)
    if words.startswith("Signature mismatch"):
        return "the manifest is not the one that was signed"
    return words
