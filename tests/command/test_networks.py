"""Export and verify, by the options of every format: of the thin network."""

import json
import shutil

import numpy as np
import pytest

from exporters import formats, verification

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("are_chosen", "options"),
    [
        (lambda row: "image_size" in row.options, ()),
        (lambda row: "int8" in row.name, ("--image-size", "224", "--softmax")),
        (
            lambda row: row.name in ("onnx-int8", "tflite-int8"),
            (
                *("--image-size", "128", "--endpoints"),
                *("--softmax", "--integer-type", "uint8"),
            ),
        ),
    ],
    ids=["all", "224", "128"],
)
def test_export_and_verify_deployable_formats(
    thin, irv2, tmp_path, are_chosen, options
):
    names = [row.name for row in formats.FORMATS.values() if are_chosen(row)]
    given = ("--checkpoint", thin.build.checkpoint.path)
    made = ("--output", tmp_path, "--formats", ",".join(names))
    made += ("--tasks", "classification", *options)
    done = irv2("export", *given, *made, "--json")
    assert done.code == 0
    assert len(json.loads(done.out)["artifacts"]) == len(names)
    done = irv2("verify", *given, tmp_path, "--json")
    assert done.code == 0
    assert len(json.loads(done.out)["artifacts"]) == len(names)


def test_verify_finds_one_percent_of_one_weight(thin, thin_exported, tmp_path):
    """Of the numbers of a SavedModel, on disk."""
    source = thin_exported / "inception_resnet_v2-feature_vector-v4-stand-in"
    path = shutil.copytree(source, tmp_path / "model")
    change_a_weight(path / "variables" / "variables")
    done = verification.verify(
        path, thin.build.checkpoint, images=thin.images, reference=thin.reference
    )
    (item,) = done.artifacts
    assert not done.passed
    assert item.report.problems == ()
    (line,) = item.report.weights.wrong
    assert "weights: 1 of " in line
    assert f"weight {line}" in item.report.failures()


def change_a_weight(prefix):
    """Changes the middle number of a kernel in the middle by one percent."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    values = {
        name: reader.get_tensor(name)  # Bytes, for the record of objects.
        for name in reader.get_variable_to_shape_map()
    }
    kernels = sorted(name for name, value in values.items() if np.ndim(value) == 4)
    kernel = values[kernels[len(kernels) // 2]]
    kernel.flat[np.argsort(np.abs(kernel), axis=None)[kernel.size // 2]] *= 1.01
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
