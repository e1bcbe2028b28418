"""Evaluating takes the main output alone of formats whose `run` looks at much more."""

import numpy as np
import pytest

from exporters import images
from exporters.evaluation.evaluating import evaluate
from exporters.evaluation.models import open_model
from exporters.formats import FORMATS, open_artifact
from exporters.network.tasks import CLASSIFICATION


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1", "v4"])
def test_the_main_output_alone_is_the_networks(exported, reference, name):
    path = exported / FORMATS[name].artifact_name(CLASSIFICATION, is_stand_in=True)
    batch = images.generate(2, 299, 299, seed=3)
    artifact, _ = open_artifact(path)
    with artifact:
        assert artifact.main_only is not None
        found = artifact.predict(batch)
    expected = reference.run(batch, ["logits"])["logits"]
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_the_checkpoint_and_an_artifact_agree(exported, reference, tmp_path):
    """The whole way with the real network, which names random classes."""
    from PIL import Image

    for number in range(3):
        (image,) = images.generate(1, 240, 320, seed=number)
        folder = tmp_path / "images" / ("n01440764", "n15075141", "n02119789")[number]
        folder.mkdir(parents=True)
        Image.fromarray((image * 255).astype(np.uint8)).save(folder / "a.png")
    path = exported / FORMATS["v4"].artifact_name(CLASSIFICATION, is_stand_in=True)
    done = evaluate(
        path,
        tmp_path / "images",
        checkpoint=reference.checkpoint,
        reference=reference,
        image_size=(139, 139),
    )
    network, artifact = done.artifacts
    assert (network.count, artifact.count) == (3, 3)
    assert network.is_stand_in and artifact.is_stand_in
    assert done.agreements[0].share == 1
    assert [x.name for x in artifact.per_class] == [
        "tench, Tinca tinca",
        "kit fox, Vulpes macrotis",
        "toilet tissue, toilet paper, bathroom tissue",
    ]


@pytest.mark.slow
def test_an_endpoint_of_a_published_format(exported, reference):
    path = exported / FORMATS["v4"].artifact_name(CLASSIFICATION, is_stand_in=True)
    model = open_model(path, FORMATS, (139, 139), "Mixed_7a")
    batch = images.generate(2, 139, 139, seed=3)
    try:
        found = model.run(batch)
    finally:
        model.close()
    expected = reference.run(batch, ["Mixed_7a"])["Mixed_7a"].mean(axis=(1, 2))
    assert found.shape == expected.shape == (2, 2080)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
