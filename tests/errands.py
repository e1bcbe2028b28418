"""What a second process is asked to do in tests."""

from __future__ import annotations

import os
import signal
import time


def identity(reference, images):
    return reference.checkpoint.identity


def outputs(reference, images):
    batch = images.batches(None)[0]
    return reference.outputs(batch, ["feature_vector"])["feature_vector"]


def fail(reference, images):
    raise ValueError("a bad value")


def crash(reference, images):
    os.kill(os.getpid(), signal.SIGSEGV)


def slow(reference, images):
    time.sleep(3600)
