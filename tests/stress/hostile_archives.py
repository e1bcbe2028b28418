"""Archives that somebody made to do harm: nothing gets out, and nothing grows."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from random import Random

from checkpoints.errors import CheckpointError
from checkpoints.reader import open_checkpoint
from stress import commands, isolated
from stress.tally import Plan, Tally

_MARK = "escaped"
"""In the name of everything that must not be written."""
_ESCAPES = (
    *("../{}", "../../{}", "a/../../{}", "/tmp/{}", "//tmp/{}", "./../{}", "..\\{}"),
    *(
        "a\\..\\..\\{}",
        "C:\\{}",
        "C:{}",
        "\\\\host\\{}",
        "..",
        "a/..",
        "~/{}",
        "{}/../..",
    ),
    *("....//{}", "\N{FULLWIDTH FULL STOP}" * 2 + "/{}", "%2e%2e/{}", "\u202e{}"),
    *(
        "{}\0/../x",
        "\0{}",
        "a\n../{}",
        "\x1b[2J{}",
        "con/{}",
        "{}" * 60,
        "x/" * 120 + "{}",
    ),
)
_KINDS = (
    *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE),
    *(tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, tarfile.DIRTYPE, b"Z", b"\xff"),
)
_TARGETS = ("/etc/passwd", "../../..", "model.ckpt", ".", "/dev/zero", "/proc/self/mem")
_FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
_LONGEST = 30.0
"""Seconds that an archive may take."""


def archives(plan: Plan) -> Tally:
    """Escapes, links, devices, bombs and odd names, beside a checkpoint or without."""
    tally = Tally()
    checkpoint = plan.shop.checkpoint("new").read_bytes()
    identity = open_checkpoint(plan.shop.checkpoint("new")).identity
    watched = [plan.folder, Path.cwd(), Path("/tmp"), Path("/"), Path.home()]

    def one(tally: Tally, case: str, chance: Random) -> None:
        path = plan.folder / "hostile.tar.gz"
        path.write_bytes(_archive(checkpoint, chance))
        tally.tried["archives"] += 1
        try:
            found = open_checkpoint(path)
        except CheckpointError as error:
            tally.tried["archives refused"] += 1
            if str(path) not in str(error):
                tally.fault("wrong artifact", case, f"refused without a name: {error}")
        else:
            if found.identity != identity:
                tally.fault("wrong artifact", case, "other numbers, and no word")
        if not chance.randrange(20):
            tally.check(f"{case}, the command", commands.run("inspect", path), {0, 3})
        for directory in watched:
            if escaped := [f for f in directory.iterdir() if _MARK in f.name]:
                tally.fault("leftover", case, f"{escaped} outside of the archive")
        tally.check_left(case, plan.folder, {path.name})

    cases = list(plan.cases("archive", 250))
    isolated.run(tally, cases, one, deadline=plan.deadline, timeout=_LONGEST)
    return tally


def _archive(checkpoint: bytes, chance: Random) -> bytes:
    if chance.random() < 0.15:
        return _bomb(chance)
    buffer = io.BytesIO()
    form = chance.choice(_FORMATS)
    with tarfile.open(
        fileobj=buffer, mode="w", format=form, errors="surrogateescape"
    ) as tar:
        members = ["checkpoint"] * chance.randrange(3) + ["bad"] * chance.randrange(4)
        chance.shuffle(members)
        for member in members:
            name = f"{chance.choice(['', './', 'run/'])}model.ckpt"
            if member == "checkpoint":
                _add(tar, tarfile.TarInfo(name), checkpoint)
            else:
                _add_bad(tar, chance)
    content = bytearray(buffer.getvalue())
    for _ in range(chance.choice([0, 0, 1, 2])):  # In headers, mostly.
        place = 512 * chance.randrange(len(content) // 512) + chance.randrange(512)
        content[place] = chance.randrange(256)
    return gzip.compress(bytes(content), 1)


def _add(tar: tarfile.TarFile, member: tarfile.TarInfo, content: bytes) -> None:
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _add_bad(tar: tarfile.TarFile, chance: Random) -> None:
    name = _name(chance)
    member = tarfile.TarInfo(name)
    if chance.random() < 0.4:
        member.type = chance.choice(_KINDS)
        member.linkname = chance.choice(_TARGETS)
        member.devmajor, member.devminor = 1, 5
        member.mode = 0o6777
        if chance.random() < 0.3:
            member.name = "model.ckpt"
    try:
        _add(tar, member, b"bad" if member.isreg() else b"")
    except (ValueError, UnicodeError):  # This form has no place for it.
        _add(tar, tarfile.TarInfo(f"../{_MARK}"), b"bad")


def _name(chance: Random) -> str:
    pattern = chance.choice(_ESCAPES)
    name = pattern.replace("{}", _MARK)
    if chance.random() < 0.2:
        name += chance.choice(
            ["\udce4\udcff", "ä", "\u0308", "\ufeff", "é" * 90, " ", "."]
        )
    return name


def _bomb(chance: Random) -> bytes:
    """Little that unpacks to much."""
    kind = chance.randrange(4)
    if kind == 0:  # A file of zeros, larger than any checkpoint may be by its header.
        member = tarfile.TarInfo(f"{_MARK}.ckpt")
        member.size = chance.choice([3 << 30, 1 << 40, (8 << 30) - 1])
        return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20), 1)
    if kind == 1:  # Nothing but zeros.
        return gzip.compress(bytes(96 << 20), 1)
    if kind == 2:  # Thousands of members.
        one = tarfile.TarInfo(f"{_MARK}.meta").tobuf(tarfile.USTAR_FORMAT)
        return gzip.compress(one * 20_000, 1)
    header = tarfile.TarInfo("long")  # Headers without end.
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 256 * 1024
    return gzip.compress((header.tobuf(tarfile.GNU_FORMAT) + bytes(256 * 1024)) * 80, 1)
