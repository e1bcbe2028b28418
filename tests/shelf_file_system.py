"""A file system of Apache Beam's, like those of clouds: no directories, no replacing.

shelf://name is what is called so below the directory that SHELF names.
"""

from __future__ import annotations

import os
from pathlib import Path

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

SCHEME = "shelf://"


def place(url: str) -> Path:
    """Where the content of a URL lies."""
    return Path(os.environ["SHELF"], url.removeprefix(SCHEME))


class ShelfFileSystem(FileSystem):
    @classmethod
    def scheme(cls):
        return "shelf"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def mkdirs(self, path):
        pass

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        top = place("")
        for file in sorted(file for file in top.rglob("*") if file.is_file()):
            url = SCHEME + file.relative_to(top).as_posix()
            if url.startswith(dir_or_prefix):
                yield self.metadata(url)

    def create(self, path, mime_type="", compression_type="auto"):
        place(path).parent.mkdir(parents=True, exist_ok=True)
        return place(path).open("wb")

    def open(self, path, mime_type="", compression_type="auto"):
        return place(path).open("rb")

    def copy(self, source_file_names, destination_file_names):
        raise NotImplementedError

    def rename(self, source_file_names, destination_file_names):
        for one, other in zip(source_file_names, destination_file_names):
            if place(other).exists():
                raise BeamIOError("it is there", {(one, other): "it is there"})
            place(other).parent.mkdir(parents=True, exist_ok=True)
            place(one).rename(place(other))

    def exists(self, path):
        return place(path).is_file()

    def last_updated(self, path):
        return place(path).stat().st_mtime

    def size(self, path):
        return place(path).stat().st_size

    def checksum(self, path):
        raise NotImplementedError

    def metadata(self, path):
        return FileMetadata(path, self.size(path))

    def delete(self, paths):
        for path in paths:
            place(path).unlink()
