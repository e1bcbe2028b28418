"""Requests to end, by Ctrl-C or by SIGTERM: both interrupt, and none is lost."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

_AT_ONCE = 0.5
"""Seconds in which a request that is told again is the same: to a process and its group."""
_is_requested = False
_last = 0.0


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Turns requests into KeyboardInterrupt, and puts the handlers back in the end.

    What the process was started to ignore, as by nohup, is still ignored.
    """
    global _is_requested
    _is_requested = False
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }
    try:
        for number in before:
            signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _is_requested, _last
    is_same = _is_requested and time.monotonic() - _last < _AT_ONCE
    _is_requested, _last = True, time.monotonic()
    if not is_same:
        raise KeyboardInterrupt


def is_requested() -> bool:
    """Whether there was a request since `heeded` began last."""
    return _is_requested


def check() -> None:
    """Interrupts again where there was a request that did not end the work.

    Some extension modules drop every exception while they are imported; NumPy's random
    numbers are one.

    Raises:
      KeyboardInterrupt: there was one.
    """
    if _is_requested:
        raise KeyboardInterrupt
