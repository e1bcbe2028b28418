"""Unpacking archives that are as they should be, hostile, or damaged."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc
from collections.abc import Callable
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


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path: Path, form: int) -> None:
    buffer = io.BytesIO()
    name = f"{'folder/' * 40}{'größe' * 30}.ckpt"
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as tar:
        for member, content in ((name, CHECKPOINT), ("short.index", b"index")):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    files = {f"{'größe' * 30}.ckpt": CHECKPOINT, "short.index": b"index"}
    assert unpack(tmp_path, buffer.getvalue()) == files


# Archives to refuse


@pytest.mark.parametrize(
    "name", ["/etc/x.ckpt", "../x.ckpt", "a/../../x", "..", "a/..\\x", "C:x", "\\x"]
)
def test_unsafe_name(tmp_path: Path, name: str) -> None:
    content = archive_bytes({"good.ckpt": b"good", name: b"bad"})
    assert_refused(tmp_path, content, "relative paths")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    content = archive_bytes({"folder/" + "ä" * 128: b"bad"})
    assert_refused(tmp_path, content, "a name of 256 bytes")


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


def pax_records(*records: str) -> bytes:
    """A PAX header, and its records, each of less than 90 bytes."""
    content = b""
    for record in records:
        line = f" {record}\n".encode()
        content += f"{len(line) + 2:02}".encode() + line
    header = special("records", tarfile.XHDTYPE, size=len(content))
    padding = bytes(-len(content) % 512)
    return header.tobuf(tarfile.GNU_FORMAT) + content + padding


@pytest.mark.parametrize(
    "records",
    [
        ("GNU.sparse.size=9", "GNU.sparse.numblocks=1", "GNU.sparse.offset=0"),
        ("GNU.sparse.map=0,1", "GNU.sparse.size=9"),
        ("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=9"),
    ],
    ids=["0.0", "0.1", "1.0"],
)
def test_sparse_member_in_pax_form(tmp_path: Path, records: tuple[str, ...]) -> None:
    content = pax_records(*records) + tar_bytes({"bad.ckpt": b"x"})
    assert_refused(tmp_path, gzip.compress(content), "sparse member 'bad.ckpt'")


def test_sparse_member_in_gnu_form(tmp_path: Path) -> None:
    content = archive_bytes({}, special("bad.ckpt", tarfile.GNUTYPE_SPARSE))
    assert_refused(tmp_path, content, "sparse member 'bad.ckpt'")


def sparse_bomb() -> bytes:
    """A header that goes on for 30 MB."""
    header = bytearray(special("a", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # It goes on in the next block,
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    block = (b"%011o\0" % 1) * 42 + b"\1" + bytes(7)  # and that in the next, and so on.
    return bytes(header) + block * 60_000


def header_bomb() -> bytes:
    """Headers in front of no file, 18 MB of them."""
    return pax_records(*(f"{number:075}=" for number in range(2000))) * 100


@pytest.mark.parametrize(
    "content",
    [sparse_bomb, header_bomb, lambda: tar_bytes({"a.ckpt": b"1"}) + bytes(100 << 20)],
    ids=["sparse", "headers", "zeros"],
)
def test_small_archive_of_much(tmp_path: Path, content: Callable[[], bytes]) -> None:
    packed = gzip.compress(content(), 1)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError):
            unpack(tmp_path, packed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 << 20
    assert list((tmp_path / "to").iterdir()) == []


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


def test_name_with_a_zero(tmp_path: Path) -> None:
    content = pax_records("path=a\0b.ckpt") + tar_bytes({"a.ckpt": b"1"})
    assert_refused(tmp_path, gzip.compress(content), "relative paths")


@pytest.mark.parametrize("record", ["9", "0 path=x\n", "99 path=x\n", "-5 path=x\n"])
def test_damaged_pax_records(tmp_path: Path, record: str) -> None:
    header = special("records", tarfile.XHDTYPE, size=len(record))
    content = header.tobuf(tarfile.GNU_FORMAT) + record.encode().ljust(512, b"\0")
    content += tar_bytes({"a.ckpt": b"1"})
    assert_refused(tmp_path, gzip.compress(content), "damaged or truncated")


@pytest.mark.parametrize("length", [512, 1024, 1536, 2000])
def test_tar_truncated_before_it_was_compressed(tmp_path: Path, length: int) -> None:
    content = pax_records("path=x.ckpt") + tar_bytes({"a.ckpt": b"1" * 2000})
    content = gzip.compress(content[:length])
    assert_refused(tmp_path, content, "damaged or truncated")


def test_compared_with_a_directory(tmp_path: Path) -> None:
    files = {"m.index": b"index", "m.data-00000-of-00001": CHECKPOINT}
    content = archive_bytes({**files, "checkpoint": b"text"})
    unpack(tmp_path, content)
    path, directory = tmp_path / "model.tar.gz", tmp_path / "to"
    assert archive.unpacked_files(path, directory) == sorted(directory.iterdir())
    (directory / "another").write_bytes(b"file")
    assert len(archive.unpacked_files(path, directory)) == 2
    for damaged in (b"inde", b"Index", b"index+"):
        (directory / "m.index").write_bytes(damaged)
        assert archive.unpacked_files(path, directory) == []
    (directory / "m.index").unlink()
    assert archive.unpacked_files(path, directory) == []


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        extract_checkpoint(tmp_path / "missing.tar.gz", tmp_path / "to")


def test_truncated_anywhere(tmp_path: Path) -> None:
    content = gzip.compress(small_tar())
    for length in range(0, len(content), 37):
        assert_refused(tmp_path, content[:length], "damaged or truncated")


def test_damaged_header_after_the_first_member(tmp_path: Path) -> None:
    plain = bytearray(small_tar())
    plain[plain.index(b"m.data")] ^= 1
    assert_refused(tmp_path, gzip.compress(plain), "damaged or truncated .bad checksum")


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
