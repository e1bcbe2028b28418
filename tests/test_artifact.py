"""Tests of `exporters.artifact`."""

import pytest

from exporters.artifact import ExportError, ExportOptions


@pytest.mark.parametrize("image_size", [None, (75, 75), (224, 320), (2048, 75)])
def test_image_sizes(image_size):
    assert ExportOptions(image_size=image_size).image_size == image_size


@pytest.mark.parametrize("image_size", [(74, 299), (299, 10), (0, 0), (299, 2049)])
def test_image_sizes_that_cannot_be(image_size):
    height, width = image_size
    with pytest.raises(ExportError, match=f"{height} x {width}.*75 x 75.*2048 x 2048"):
        ExportOptions(image_size=image_size)
