"""Writes how often an artifact is right into its manifest, and into its model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoints import files
from checkpoints.scratch import locked, scratch_beside
from exporters import cards, manifest
from exporters.errors import ArtifactError
from exporters.evaluation import models
from exporters.formats import Format


def record(
    artifact: Path,
    digest: str | None,
    facts: Mapping[str, Any],
    formats: Mapping[str, Format],
) -> None:
    """Replaces the manifest and the model card beside an artifact.

    The card is made of the manifest again, which gets `facts` as "evaluation". Figures of
    an earlier evaluation are replaced.

    Args:
      artifact: what was evaluated.
      digest: of its files when it was opened, by `models.digest`.
      facts: what came of it, as JSON values; see `cards.text`.
      formats: the table of formats.

    Raises:
      ArtifactError: there is no manifest, the artifact is not as it says or was replaced
        since, it is signed, or the card was edited since.
      OSError: they cannot be read or written.
    """
    place, card = manifest.path_of(artifact), manifest.card_of(artifact)
    if not place.is_file():
        raise ArtifactError(f"{artifact} has no manifest beside it to make a card of.")
    with scratch_beside(artifact) as scratch, locked(place.parent):
        described, companions = _checked(artifact, digest)
        described = {**described, "evaluation": dict(facts)}
        new_card, new_place = scratch / card.name, scratch / place.name
        try:
            text = cards.text(
                card.name.removesuffix(manifest.CARD_SUFFIX),
                formats[described["format"]],
                described,
                has_vectors=manifest.vectors_of(artifact).exists(),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{place} is not a manifest of this irv2.") from error
        new_card.write_text(text, encoding="utf-8")
        described["companions"] = {**companions, card.name: files.digest(new_card)}
        files.write_json(new_place, described)
        for path in (new_card, new_place):
            files.sync(path)
        files.replace({new_card: card, new_place: place}, scratch)


def _checked(
    artifact: Path, digest: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the manifest, and the digests of what lies beside an artifact."""
    place, card = manifest.path_of(artifact), manifest.card_of(artifact)
    if manifest.signature_of(artifact).exists():
        raise ArtifactError(
            f"{artifact} is signed, and its manifest and card with it: they are left as "
            "they are. Sign artifacts after they are evaluated, or remove the signature."
        )
    digests = files.digests(artifact)
    if changed := manifest.changed_files(artifact, digests):
        raise ArtifactError(
            f"{artifact} is not as its manifest says: {', '.join(changed)}. Its card is "
            "left as it is."
        )
    described = files.read_json(place)
    if models.digest(digests) != digest:
        raise ArtifactError(
            f"{artifact} was replaced since it was evaluated. Its card is left as it is."
        )
    companions = described.get("companions")
    if not isinstance(companions, dict):
        raise ArtifactError(f"{place} is not a manifest of this irv2.")
    if card.exists() and files.digest(card) != companions.get(card.name):
        raise ArtifactError(
            f"{card} was edited since it was made, and is left as it is. Remove it to "
            "have it made again."
        )
    return described, companions
