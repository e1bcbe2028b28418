"""The command in the process of the tests."""

import sys
from typing import NamedTuple

import pytest

from exporters.command import interruption, main


class Done(NamedTuple):
    """How the command ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def irv2(monkeypatch, capfd):
    """Runs the command in this process, which has TensorFlow already."""

    def run(*arguments, is_asked_to_end=False):
        monkeypatch.setattr(sys, "argv", ["irv2", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main.main()
        if interruption.is_requested() and not is_asked_to_end:
            raise KeyboardInterrupt  # Somebody asked the tests to end, not the command.
        return Done(caught.value.code or 0, *capfd.readouterr())

    return run
