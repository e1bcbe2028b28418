"""Sizes, durations and counts as people read them."""

from __future__ import annotations


def size(count: int) -> str:
    """A number of bytes, in MB of a million bytes; exact below a tenth of that."""
    return counted(count, "byte") if count < 100_000 else f"{_megabytes(count)} MB"


def size_of(done: int, total: int) -> str:
    """How many bytes of how many, such as "34.1 of 237.2 MB"."""
    if total < 100_000:
        return f"{done:,} of {size(total)}"
    return f"{_megabytes(done)} of {_megabytes(total)} MB"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}"


def duration(seconds: float) -> str:
    """A time, such as "0.4 s", "3 min 05 s" or "1 h 02 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    return whole_duration(seconds)


def whole_duration(seconds: float) -> str:
    """A time without tenths of seconds, as long as it is running."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def counted(count: int, noun: str) -> str:
    """A number and what is counted, such as "1 artifact" or "22 artifacts"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
