"""What zipfile, and NumPy with it, raise for damaged archives."""

from __future__ import annotations

import contextlib
import errno
import tokenize
import zipfile
import zlib
from collections.abc import Iterator

ZIP_DAMAGE = (
    *(EOFError, NotImplementedError, RuntimeError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)
"""Of archives that cannot be read, if `within` is around it."""
NPZ_DAMAGE = (*ZIP_DAMAGE, SyntaxError, SystemError, tokenize.TokenError)
"""Of .npz files: headers of arrays are read as Python, and characters as they are."""


@contextlib.contextmanager
def within() -> Iterator[None]:
    """Has members that begin before their archive be damage, not the file system's."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise zipfile.BadZipFile("a member begins before the file") from error
