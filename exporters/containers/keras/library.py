"""Keras 3 itself, which is loaded only to run what was written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.scratch import temporary
from exporters.artifact import first_line
from exporters.errors import MissingLibraryError


def keras() -> Any:
    """Returns the library, with the backend that it is configured for.

    Raises:
      MissingLibraryError: it cannot be imported, or is another Keras.
    """
    try:
        import keras
    except Exception as error:  # Each backend fails in its own way where it is missing.
        raise MissingLibraryError(
            f"Keras cannot be imported ({first_line(error)})"
        ) from error
    if int(keras.__version__.partition(".")[0]) < 3:
        raise MissingLibraryError(f"Keras is of version {keras.__version__}, not 3")
    return keras


@contextlib.contextmanager
def named(path: Path, suffix: str) -> Iterator[str]:
    """Gives a file a name by which Keras knows what it is, whatever it is called."""
    with temporary() as directory:
        link = directory / f"model{suffix}"
        link.symlink_to(path.absolute())
        yield str(link)
