"""Images are read ahead: in order, so many at a time and no more."""

import time

import colours
import numpy as np
import pytest

from exporters.evaluation import batches
from exporters.evaluation.datasets import Example

SIZE = (75, 80)


class CountedExample(Example):
    """An example that notes when it is read."""

    read: list = []  # noqa: RUF012

    def content(self):
        self.read.append(self.name)
        if self.name == "5":
            time.sleep(0.05)  # Those behind it are ready before it is.
        return colours.encoded(int(self.name) % 8)


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.setattr(CountedExample, "read", [])
    return [CountedExample(str(number), None, None) for number in range(50)]


def test_batches_are_in_order(examples):
    found = list(batches.read(examples, range(1, 50), [SIZE], 8))
    assert [len(batch.positions) for batch in found] == [8] * 6 + [1]
    assert [position for batch in found for position in batch.positions] == [
        *range(1, 50)
    ]
    assert [batch.end for batch in found][-1] == 50
    means = np.concatenate([batch.images[SIZE].mean((1, 2)) for batch in found])
    np.testing.assert_allclose(means, colours.COLOURS[np.arange(1, 50) % 8], atol=1e-6)


def test_no_more_are_in_memory_than_are_read_ahead(examples):
    """So memory does not grow with the number of images."""
    reading = batches.read(examples, range(50), [SIZE], 4)
    for number in range(1, 6):
        next(reading)
        time.sleep(0.05)
        assert len(CountedExample.read) <= 4 * (number + batches._BATCHES_AHEAD)
    reading.close()
    time.sleep(0.05)
    assert len(CountedExample.read) < 50
