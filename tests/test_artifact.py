"""What a library raises about a file, and what is no file's fault."""

import errno
from pathlib import Path

import numpy as np
import pytest

from exporters.artifact import moving_averages, reading
from exporters.errors import ArtifactError

PATH = Path("folder/model")


class ResourceExhaustedError(Exception):
    """As TensorFlow calls its own."""


def read(error):
    with reading(PATH, "a TF1 Hub module", "TensorFlow"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad\nmore"),
        KeyError("bad"),
        OSError("bad"),  # As TensorFlow says it of a file that cannot be parsed.
        FileNotFoundError(errno.ENOENT, "bad"),
        NotADirectoryError(errno.ENOTDIR, "bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_damage_becomes_an_error_that_names_the_artifact(error):
    with pytest.raises(ArtifactError) as caught:
        read(error)
    message = str(caught.value)
    assert message.startswith(f"{PATH} cannot be read as a TF1 Hub module; it is")
    assert "TensorFlow says: " in message and "bad" in message
    assert "\n" not in message and "more" not in message
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ResourceExhaustedError("OOM when allocating tensor"),
        PermissionError(errno.EACCES, "no"),
        OSError(errno.ENOSPC, "full"),
        KeyboardInterrupt(),
        ArtifactError("said already"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_damage_passes_as_it_is(error):
    with pytest.raises(type(error)) as caught:
        read(error)
    assert caught.value is error


def test_moving_averages_come_in_the_order_of_their_names():
    found = moving_averages(
        {
            "b/moving_mean": np.array([3.0]),
            "b/weights": np.ones((2, 2)),
            "a/moving_variance": np.array([1.0, 2.0]),
        }
    )
    np.testing.assert_array_equal(found, [[1, 2, 3]])
