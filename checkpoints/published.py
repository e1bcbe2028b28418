"""What was published, and how to tell whether something is that."""

from __future__ import annotations

from pathlib import Path

from checkpoints import files
from checkpoints.archive import unpacked_files

URL = "http://download.tensorflow.org/models/inception_resnet_v2_2016_08_30.tar.gz"
MD5 = "9e0f18e1259acf943e30690460d96123"
ARCHIVE_NAME = "archive.tar.gz"
"""Of an archive that is kept beside what was unpacked from it."""


def has_md5(path: Path, md5: str) -> bool:
    """Returns whether there is a file with that MD5."""
    try:
        return path.is_file() and files.digest(path, "md5") == md5
    except OSError:
        return False


def is_archive(path: Path) -> bool:
    """Returns whether a file is the published archive."""
    return has_md5(path, MD5)


def is_checkpoint(path: Path) -> bool:
    """Returns whether a file is the published checkpoint.

    That is known of a file that has the published archive beside it, which holds a file
    of that name with the same bytes.
    """
    path = path.resolve()
    archive = path.parent / ARCHIVE_NAME
    return is_archive(archive) and path in unpacked_files(archive, path.parent)
