"""Runs the checks of a consumer script; for every Python from 3.6 on.

A script defines functions called `check_...` and ends with `checks.main(globals())`. It
is called with the file of reference values, and the file to write the results to.
"""

import argparse
import json
import os
import time
import traceback

import numpy as np

OUTPUTS = {"feature_vector": "feature_vector", "classification": "logits"}
DEPLOYABLE_IMAGES = 2
LEAST_COSINE = {"float16": 0.998, "int8": 0.9}
"""Of rounded weights, on images smaller than those the stand-in was calibrated on. A
runtime that does not know what a file means gives zeros or noise."""


class NotApplicable(Exception):
    """A check that means nothing in this environment, with the reason."""


def main(namespace):
    """Runs every check of a script and writes what came of each as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("reference", help=".npz file of images and expected values")
    parser.add_argument("results", help="JSON file to write")
    parser.add_argument("--only", default="", help="part of the name of the checks")
    parser.add_argument("--without", help="part of the name of those that are left out")
    arguments = parser.parse_args()

    reference = np.load(arguments.reference)
    results = {}
    for name, check in namespace.items():
        if not name.startswith("check_") or arguments.only not in name:
            continue
        if arguments.without and arguments.without in name:
            continue
        start = time.process_time()
        try:
            check(reference)
            outcome, detail = "passed", ""
        except NotApplicable as reason:
            outcome, detail = "not applicable", str(reason)
        except Exception:
            outcome, detail = "failed", traceback.format_exc()
        seconds = round(time.process_time() - start, 1)
        results[name] = {"outcome": outcome, "detail": detail, "seconds": seconds}
        print(name, outcome, seconds, detail, flush=True)
        with open(arguments.results, "w") as file:
            json.dump(results, file, indent=2)


def assert_close(found, expected, tolerance=2e-5):
    """Asserts that arrays agree, relative to the expected one's largest magnitude."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert np.isfinite(found).all()
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"relative error {error:.3g}"


def assert_agrees(run, name, reference, option=""):
    """Asserts that a runtime computes the network from a format's file of each task.

    Args:
      run: function of a file's path, and images, that returns the output.
      name: of the format, such as "onnx-int8". Its files are in the directory that the
        environment variable DEPLOYABLE names.
      reference: images of 139 x 139 pixels, and the network's outputs for them.
      option: of the export, as it is in the files' names; "" for none.
    """
    container, weights = name.split("-")[0], name.split("-")[-1]
    images = reference["139x139/images"][:DEPLOYABLE_IMAGES]
    for task, output in OUTPUTS.items():
        file = f"inception_resnet_v2-{task}-{name}-139{option}-stand-in.{container}"
        found = run(os.path.join(os.environ["DEPLOYABLE"], file), images)
        expected = reference["139x139/" + output][:DEPLOYABLE_IMAGES]
        if weights == "float32":
            assert_close(found, expected)
        else:
            assert_similar(found, expected, LEAST_COSINE[weights])


def assert_applications_agree(network, with_top, without_top, reference):
    """Asserts that Keras Applications' network computes TF-Slim's with our weights.

    Args:
      network: the function that makes it.
      with_top: file of weights with a classifier, of 1000 classes.
      without_top: file of weights without one.
      reference: images, and the network's outputs for them.
    """
    top = {"classifier_activation": None}
    no_top = {"include_top": False, "pooling": "avg"}
    for weights, options, size, output, first in (
        (with_top, top, "299x299", "logits", 1),
        (without_top, no_top, "224x320", "feature_vector", 0),
    ):
        images = 2 * reference[size + "/images"] - 1
        model = network(weights=weights, input_shape=images.shape[1:], **options)
        found = model.predict(images, verbose=0)
        assert_close(found, reference[size + "/" + output][:, first:])


def assert_similar(found, expected, least_cosine):
    """Asserts that each row points in the direction of the expected one."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert np.isfinite(found).all()
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert norms.all(), "nothing but zeros"
    cosine = ((found * expected).sum(axis=1) / norms).min()
    assert cosine >= least_cosine, f"cosine {cosine:.4f}"


def moved_fraction(before, after, statistics):
    """How far moving averages went towards the statistics of the batch, on the whole.

    Args: lists of arrays, in the same order.
    """
    distance = np.concatenate([(s - b).ravel() for b, s in zip(before, statistics)])
    movement = np.concatenate([(a - b).ravel() for b, a in zip(before, after)])
    return float(np.dot(movement, distance) / np.dot(distance, distance))
