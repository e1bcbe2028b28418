"""Runs the checks of a consumer script; for every Python from 3.6 on.

A script defines functions called `check_...` and ends with `checks.main(globals())`. It
is called with the file of reference values, and the file to write the results to.
"""

import argparse
import json
import time
import traceback

import numpy as np


class NotApplicable(Exception):
    """A check that means nothing in this environment, with the reason."""


def main(namespace):
    """Runs every check of a script and writes what came of each as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("reference", help=".npz file of images and expected values")
    parser.add_argument("results", help="JSON file to write")
    parser.add_argument("--only", default="", help="part of the name of the checks")
    arguments = parser.parse_args()

    reference = np.load(arguments.reference)
    results = {}
    for name, check in namespace.items():
        if not name.startswith("check_") or arguments.only not in name:
            continue
        start = time.time()
        try:
            check(reference)
            outcome, detail = "passed", ""
        except NotApplicable as reason:
            outcome, detail = "not applicable", str(reason)
        except Exception:
            outcome, detail = "failed", traceback.format_exc()
        seconds = round(time.time() - start, 1)
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


def moved_fraction(before, after, statistics):
    """How far moving averages went towards the statistics of the batch, on the whole.

    Args: lists of arrays, in the same order.
    """
    distance = np.concatenate([(s - b).ravel() for b, s in zip(before, statistics)])
    movement = np.concatenate([(a - b).ravel() for b, a in zip(before, after)])
    return float(np.dot(movement, distance) / np.dot(distance, distance))
