"""Damaged checkpoints: refused by name, or the same numbers as before."""

from __future__ import annotations

import functools
import gzip
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import small_checkpoints
import thin_network
from local_server import tar_bytes

from checkpoints import table as tables
from checkpoints import wire
from checkpoints.errors import CheckpointError
from checkpoints.reader import open_checkpoint
from checkpoints.table import Table
from stress import commands, isolated
from stress.tally import Plan, Tally

_FORMS = ("V1", "V2", "V2 in parts", "archive of V1", "archive of V2")
_V1 = "model.ckpt"
_COMMAND_EVERY = 40
"""Of so many cases, one is shown to the command as well."""


def checkpoints(plan: Plan) -> Tally:
    """Bits, blocks and lengths that changed, and shapes that lie."""
    tally = Tally()
    forms = {form: _files(form, plan.folder / "whole") for form in _FORMS}
    whole = plan.folder / "whole" / "V1" / _V1
    identity = open_checkpoint(whole).identity_with_auxiliary_head

    def one(tally: Tally, case: str, chance: Random) -> None:
        form = chance.choice(_FORMS)
        folder = plan.folder / "damaged"
        folder.mkdir(exist_ok=True)
        names, path = _damage(forms[form], form, folder, chance)
        tally.tried["corruptions"] += 1
        case += f", {form}, {names}"
        try:
            found = open_checkpoint(path)
        except CheckpointError as error:
            tally.tried["corruptions refused"] += 1
            if str(folder) not in str(error):
                tally.fault("wrong artifact", case, f"refused without a name: {error}")
        else:
            is_same = found.identity_with_auxiliary_head == identity
            is_said = any("auxiliary head does not fit" in note for note in found.notes)
            if not is_same and not (not found.has_auxiliary_head and is_said):
                tally.fault("wrong artifact", case, "other numbers, and no word")
        if not chance.randrange(_COMMAND_EVERY):
            done = commands.run("inspect", path)
            tally.check(f"{case}, the command", done, {0, 3})
        for file in folder.iterdir():
            file.unlink()

    cases = list(plan.cases("corruption", 1000))
    isolated.run(tally, cases, one, deadline=plan.deadline)
    return tally


def _files(form: str, folder: Path) -> dict[str, bytes]:
    """The files of a form, by their names."""
    place = folder / form
    place.mkdir(parents=True)
    if form.startswith("archive"):
        inside = _files(form.removeprefix("archive of "), place / "inside")
        return {"model.tar.gz": gzip.compress(tar_bytes(dict(inside)), 1)}
    if form == "V1":
        thin_network.write(place / _V1)
    else:
        shards = 3 if form.endswith("parts") else 1

        def body() -> int:
            small_checkpoints.write_v2(thin_network.variables(), place / _V1, shards)
            return 0

        commands.run(body=body)
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def _damage(
    files: Mapping[str, bytes], form: str, folder: Path, chance: Random
) -> tuple[str, Path]:
    """Writes files of which one is damaged; returns what was done, and which to name."""
    name = chance.choice(list(files))
    kinds: list[Callable[[bytes, Random], bytes]] = list(_CHANGES)
    if form.startswith("archive"):
        kinds += [functools.partial(_inside, change) for change in _CHANGES]
    elif form == "V1" or name.endswith(".index"):
        kinds += [_lie] * 4
    kind = chance.choice(kinds)
    changed = {**files, name: kind(files[name], chance)}
    for file, content in changed.items():
        (folder / file).write_bytes(content)
    if form.startswith("archive"):
        path = folder / name
    else:
        path = folder / _V1
    words = getattr(kind, "__name__", "inside").strip("_").replace("_", " ")
    return f"{words} of {name}", path


def _flipped_bit(content: bytes, chance: Random) -> bytes:
    changed = bytearray(content)
    changed[_place(content, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _other_byte(content: bytes, chance: Random) -> bytes:
    changed = bytearray(content)
    changed[_place(content, chance)] = chance.randrange(256)
    return bytes(changed)


def _place(content: bytes, chance: Random) -> int:
    """Anywhere, and more often at the ends, where structure is."""
    if chance.random() < 0.3:
        return chance.randrange(min(len(content), 200))
    if chance.random() < 0.3:
        return len(content) - 1 - chance.randrange(min(len(content), 4000))
    return chance.randrange(len(content))


def _truncation(content: bytes, chance: Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _appended_bytes(content: bytes, chance: Random) -> bytes:
    return content + chance.randbytes(chance.randrange(1, 3000))


def _zeroed_block(content: bytes, chance: Random) -> bytes:
    size = 1 << chance.randrange(16)
    start = chance.randrange(len(content))
    end = min(len(content), start + size)
    return content[:start] + bytes(end - start) + content[end:]


def _swapped_blocks(content: bytes, chance: Random) -> bytes:
    size = min(1 << chance.randrange(4, 16), len(content) // 2)
    first = chance.randrange(len(content) - 2 * size + 1)
    second = chance.randrange(first + size, len(content) - size + 1)
    one, other = content[first : first + size], content[second : second + size]
    between = content[first + size : second]
    return content[:first] + other + between + one + content[second + size :]


def _lost_block(content: bytes, chance: Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + content[start + chance.randrange(1, 5000) :]


_CHANGES = (
    _flipped_bit,
    _other_byte,
    _truncation,
    _appended_bytes,
    _zeroed_block,
    _swapped_blocks,
    _lost_block,
)


def _inside(
    change: Callable[[bytes, Random], bytes], content: bytes, chance: Random
) -> bytes:
    """A change before the archive was compressed, of which gzip knows nothing."""
    return gzip.compress(change(gzip.decompress(content), chance), 1)


def _lie(content: bytes, chance: Random) -> bytes:
    """Another shape, dtype or number in a list of variables, with right checksums."""
    file = io.BufferedReader(io.BytesIO(content))  # type: ignore[arg-type]
    entries = [(key, value.tobytes()) for key, value in Table(file, "whole")]
    position = 0 if entries[1][0].startswith(b"\0") else chance.randrange(len(entries))
    key, message = entries[position]
    entries[position] = key, _other_number(message, chance)
    if chance.random() < 0.1:  # A variable that is another's.
        one, other = (chance.randrange(1, len(entries)) for _ in range(2))
        entries[one] = entries[one][0], entries[other][1]
    written = io.BytesIO()
    tables.write(((key, [message]) for key, message in entries), written)
    return written.getvalue()


def _other_number(message: bytes, chance: Random) -> bytes:
    """Changes a number somewhere in the messages of a message."""
    fields = list(wire.fields(message))
    if not fields:
        return message
    chosen = chance.randrange(len(fields))
    _, value = fields[chosen]
    changed: int | bytes
    if isinstance(value, int):
        changed = chance.choice([0, 1, 3, value + 1, value * 2, (1 << 63), 1 << 40])
        changed &= (1 << 64) - 1
    else:
        try:
            changed = _other_number(value.tobytes(), chance)
        except ValueError:
            changed = chance.randbytes(len(value))
    parts = [
        wire.field(n, changed if i == chosen else _content(v))
        for i, (n, v) in enumerate(fields)
    ]
    if chance.random() < 0.1:
        parts.append(parts[chosen])
    return b"".join(parts)


def _content(value: int | memoryview) -> int | bytes:
    return value if isinstance(value, int) else value.tobytes()
