"""Sizes, durations and counts as people read them."""

import pytest

from exporters.command.units import counted, duration, size, size_of, whole_duration


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (99_999, "99,999 bytes"),
        (100_000, "0.1 MB"),
        (1_250_000, "1.2 MB"),
        (237_215_757, "237.2 MB"),
    ],
)
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (0, 237_215_757, "0.0 of 237.2 MB"),
        (34_049_999, 237_215_757, "34.0 of 237.2 MB"),
        (10, 2_000, "10 of 2,000 bytes"),
    ],
)
def test_parts_of_sizes(done, total, text):
    assert size_of(done, total) == text


@pytest.mark.parametrize(
    ("seconds", "text", "whole"),
    [
        (0, "0.0 s", "0 s"),
        (0.04, "0.0 s", "0 s"),
        (12.34, "12.3 s", "12 s"),
        (59.94, "59.9 s", "1 min 00 s"),
        (59.96, "1 min 00 s", "1 min 00 s"),
        (65.4, "1 min 05 s", "1 min 05 s"),
        (3_599.6, "1 h 00 min", "1 h 00 min"),
        (7_325, "2 h 02 min", "2 h 02 min"),
    ],
)
def test_durations(seconds, text, whole):
    assert duration(seconds) == text
    assert whole_duration(seconds) == whole


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 artifacts"),
        (1, "1 artifact"),
        (22, "22 artifacts"),
        (1_500, "1,500 artifacts"),
    ],
)
def test_counts(count, text):
    assert counted(count, "artifact") == text
