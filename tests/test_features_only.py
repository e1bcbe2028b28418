"""Checkpoints without a classifier, and every format of feature vectors that is made of them."""

import numpy as np
import pytest

from checkpoints.reader import Checkpoint
from exporters import images
from exporters.build import ExportOptions
from exporters.exporting import export
from exporters.formats import FORMATS
from exporters.network.tasks import FEATURE_VECTOR
from exporters.reference import Reference

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("thin")]


@pytest.fixture
def checkpoint(thin):
    whole = thin.build.checkpoint
    kept = {name: whole[name] for name in whole if "Logits/" not in name}
    return Checkpoint(kept, path=whole.path)


def test_every_format(checkpoint, thin, tmp_path):
    assert checkpoint.num_classes is None
    formats = [
        name
        for name, row in FORMATS.items()
        # Keras fills a network of its own, which is not thin.
        if FEATURE_VECTOR in row.tasks and name != "keras-weights"
    ]
    options = ExportOptions(image_size=(75, 75))
    done = export(
        checkpoint, tmp_path, formats=formats, images=thin.images, options=options
    )
    assert {a.format: a.failures for a in done.artifacts if not a.is_kept} == {}
    assert [(a.format, a.task) for a in done.artifacts] == [
        (name, "feature_vector") for name in formats
    ]


def test_layers_up_to_the_features(checkpoint):
    batch = images.generate(2, 75, 75, seed=3)
    with Reference(checkpoint) as reference:
        last = reference.network.layers[-1].name
        found = reference.layers(batch, [last])[last]
        expected = reference.outputs(batch, ["feature_vector"])["feature_vector"]
    np.testing.assert_array_equal(found, expected)
