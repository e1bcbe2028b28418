"""Unpacking archives that are as they should be, hostile, or damaged."""

from __future__ import annotations

import gzip
import random
import tarfile
from pathlib import Path

import pytest
from local_server import ARCHIVE, CHECKPOINT, HTML, NAME, archive_bytes, tar_bytes

from checkpoints import archive
from checkpoints.archive import ArchiveError, extract_checkpoint


def unpack(tmp_path: Path, content: bytes, **options: int) -> dict[str, bytes]:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(content)
    files = extract_checkpoint(path, tmp_path / "to", **options)
    assert files == sorted((tmp_path / "to").iterdir())
    return {file.name: file.read_bytes() for file in files}


def assert_refused(
    tmp_path: Path, content: bytes, message: str, **options: int
) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        unpack(tmp_path, content, **options)
    assert str(tmp_path / "model.tar.gz") in str(caught.value)
    assert list((tmp_path / "to").iterdir()) == []


def special(
    name: str, kind: bytes, *, target: str = "", size: int = 0
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member


def small_tar() -> bytes:
    noise = random.Random(1)
    names = ("m.index", "m.meta", "m.data-00000-of-00001")
    return tar_bytes({name: noise.randbytes(700) for name in names})


# Archives to unpack


def test_unpack_v1(tmp_path: Path) -> None:
    assert unpack(tmp_path, ARCHIVE) == {NAME: CHECKPOINT}


def test_unpack_v2_in_a_folder(tmp_path: Path) -> None:
    files = {
        "model.ckpt-7.data-00000-of-00002": CHECKPOINT,
        "model.ckpt-7.data-00001-of-00002": b"",
        "model.ckpt-7.index": b"index",
    }
    ignored = {"checkpoint": b"text", "model.ckpt-7.meta": b"m" * 9999, "._x": b"x"}
    content = archive_bytes(
        {f"./run 1/{name}": data for name, data in (ignored | files).items()},
        special("./run 1", tarfile.DIRTYPE),
    )
    assert unpack(tmp_path, content) == files


# Archives to refuse


@pytest.mark.parametrize(
    "name", ["/etc/x.ckpt", "../x.ckpt", "a/../../x", "..", "a/..\\x", "C:x", "\\x"]
)
def test_unsafe_name(tmp_path: Path, name: str) -> None:
    content = archive_bytes({"good.ckpt": b"good", name: b"bad"})
    assert_refused(tmp_path, content, "relative paths")


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        b"Z",
    ],
)
def test_unsafe_kind(tmp_path: Path, kind: bytes) -> None:
    member = special("bad.ckpt", kind, target="/etc/passwd")
    content = archive_bytes({"good.ckpt": b"good"}, member)
    assert_refused(tmp_path, content, "link or device 'bad.ckpt'")


def test_same_name_twice(tmp_path: Path) -> None:
    content = archive_bytes({"a/x.ckpt": b"1", "b/x.ckpt": b"2"})
    assert_refused(tmp_path, content, "would overwrite")


def test_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="would overwrite"):
        unpack(tmp_path, ARCHIVE)
    assert not (tmp_path / "elsewhere").exists()


def test_too_large_content(tmp_path: Path) -> None:
    content = archive_bytes({"a.ckpt": b"12345", "a.meta": b"67890"})
    message = "at least 2 members of 10 bytes; expected"
    assert_refused(tmp_path, content, message, max_bytes=9)
    assert unpack(tmp_path, content, max_bytes=10) == {"a.ckpt": b"12345"}


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MAX_MEMBERS", 20)
    content = archive_bytes({f"{number}.ckpt": b"" for number in range(21)})
    assert_refused(tmp_path, content, "at most 20")


def test_nothing_to_unpack(tmp_path: Path) -> None:
    assert_refused(tmp_path, archive_bytes({"a.meta": b"1"}), "no checkpoint file")


# Damage


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (tarfile.XHDTYPE, 1 << 40),
        (tarfile.XHDTYPE, -512),
        (tarfile.GNUTYPE_LONGNAME, 1 << 40),
        (tarfile.GNUTYPE_LONGNAME, -512),
        (tarfile.REGTYPE, -512),
    ],
)
def test_forged_size(tmp_path: Path, kind: bytes, size: int) -> None:
    header = special("a.ckpt", kind, size=size).tobuf(tarfile.GNU_FORMAT)
    assert_refused(tmp_path, gzip.compress(header + bytes(4096)), "damaged")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        HTML,
        b"\x1f\x8b",
        gzip.compress(HTML),
        gzip.compress(b""),
        ARCHIVE[:-1],
        ARCHIVE + b"?",
        tar_bytes({NAME: b"not compressed"}),
    ],
    ids=range(8),
)
def test_not_an_archive(tmp_path: Path, content: bytes) -> None:
    assert_refused(tmp_path, content, "damaged or truncated")


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        extract_checkpoint(tmp_path / "missing.tar.gz", tmp_path / "to")


def test_truncated_anywhere(tmp_path: Path) -> None:
    content = gzip.compress(small_tar())
    for length in range(0, len(content), 37):
        assert_refused(tmp_path, content[:length], "damaged or truncated")


def test_damaged_header_after_the_first_member(tmp_path: Path) -> None:
    plain = bytearray(small_tar())
    plain[plain.index(b"m.data")] ^= 1  # the checksum of this header fails
    assert_refused(tmp_path, gzip.compress(plain), "last members cannot be read")


@pytest.mark.parametrize("layer", ["gzip", "tar"])
def test_damage_raises_nothing_else(tmp_path: Path, layer: str) -> None:
    noise = random.Random(2)
    intact = small_tar() if layer == "tar" else gzip.compress(small_tar())
    for _ in range(150):
        content = bytearray(intact)
        content[noise.randrange(len(content))] ^= 1 << noise.randrange(8)
        if layer == "tar":
            content = bytearray(gzip.compress(content, 1))
        try:
            unpack(tmp_path, bytes(content))
        except ArchiveError:
            assert list((tmp_path / "to").iterdir()) == []
        for path in (tmp_path / "to").iterdir():
            path.unlink()
