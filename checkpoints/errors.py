"""What can be wrong with a checkpoint that somebody gives us."""

from __future__ import annotations


class CheckpointError(Exception):
    """A path that holds no readable checkpoint of inception_resnet_v2."""


def damage(name: str, what: str) -> CheckpointError:
    """Returns the error that says what is wrong with the bytes of a file."""
    return CheckpointError(
        f"{name} is truncated or damaged: {what}. Copy or download it again."
    )
