"""Writes how often an artifact is right into its manifest, and into its model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoints import files
from checkpoints.scratch import locked, scratch_beside
from exporters import cards, manifest
from exporters.errors import ArtifactError
from exporters.formats import Format


def record(
    artifact: Path, facts: Mapping[str, Any], formats: Mapping[str, Format]
) -> None:
    """Replaces the manifest and the model card beside an artifact.

    The card is made of the manifest again, which gets `facts` as "evaluation". Figures of
    an earlier evaluation are replaced.

    Args:
      artifact: what was evaluated.
      facts: what came of it, as JSON values; see `cards.text`.
      formats: the table of formats.

    Raises:
      ArtifactError: there is no manifest, the artifact is not as it says, it is signed,
        or the card was edited since.
      OSError: they cannot be read or written.
    """
    place, card = manifest.path_of(artifact), manifest.card_of(artifact)
    if not place.is_file():
        raise ArtifactError(f"{artifact} has no manifest beside it to make a card of.")
    if manifest.signature_of(artifact).exists():
        raise ArtifactError(
            f"{artifact} is signed, and its manifest and card with it: they are left as "
            "they are. Sign artifacts after they are evaluated, or remove the signature."
        )
    if changed := manifest.changed_files(artifact):
        raise ArtifactError(
            f"{artifact} is not as its manifest says: {', '.join(changed)}. Its card is "
            "left as it is."
        )
    described = files.read_json(place)
    row = formats.get(described.get("format"))
    companions = described.get("companions")
    if row is None or not isinstance(companions, dict):
        raise ArtifactError(f"{place} is not a manifest of this irv2.")
    if card.exists() and files.digest(card) != companions.get(card.name):
        raise ArtifactError(
            f"{card} was edited since it was made, and is left as it is. Remove it to "
            "have it made again."
        )
    described = {**described, "evaluation": dict(facts)}
    with scratch_beside(artifact) as scratch:
        new_card, new_place = scratch / card.name, scratch / place.name
        text = cards.text(
            card.name.removesuffix(manifest.CARD_SUFFIX),
            row,
            described,
            has_vectors=manifest.vectors_of(artifact).exists(),
        )
        new_card.write_text(text, encoding="utf-8")
        described["companions"] = {**companions, card.name: files.digest(new_card)}
        files.write_json(new_place, described)
        for path in (new_card, new_place):
            files.sync(path)
        with locked(place.parent):
            files.replace({new_card: card, new_place: place}, scratch)
