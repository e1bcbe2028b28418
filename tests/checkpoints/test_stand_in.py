"""Stand-ins: how their numbers are made, and the file they are written to."""

import zlib

import numpy as np
import pytest
import small_checkpoints

from checkpoints import layout, saved_slices, stand_in
from checkpoints.reader import open_checkpoint

KERNEL = "InceptionResnetV2/Conv2d_2a_3x3/weights"
CLASSIFIER = "InceptionResnetV2/AuxLogits/Logits/weights"
BIASES = "InceptionResnetV2/Logits/Logits/biases"
BETA = "InceptionResnetV2/Conv2d_2a_3x3/BatchNorm/beta"
MEAN = "InceptionResnetV2/Conv2d_2a_3x3/BatchNorm/moving_mean"
VARIANCE = "InceptionResnetV2/Conv2d_2a_3x3/BatchNorm/moving_variance"


@pytest.fixture
def few_variables(monkeypatch):
    """One variable of each kind, and one that is a matrix."""
    names = (KERNEL, CLASSIFIER, BIASES, BETA, MEAN, VARIANCE)
    shapes = {name: layout.variable_shapes()[name] for name in names}
    monkeypatch.setattr(layout, "variable_shapes", lambda: shapes)
    return shapes


def random_of(seed, name):
    return np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))


@pytest.mark.parametrize("seed", [0, 12, -1])
def test_the_formula(few_variables, seed):
    found = stand_in.generate(seed)

    kernel = random_of(seed, KERNEL).standard_normal((3, 3, 32, 32))
    kernel -= kernel.mean(axis=(0, 1, 2))
    matrix = random_of(seed, CLASSIFIER).standard_normal((768, 1001))
    matrix -= matrix.mean(axis=0)
    expected = {
        KERNEL: kernel * (2 / 288) ** 0.5,
        CLASSIFIER: matrix * (2 / 768) ** 0.5,
        BIASES: 0.05 * random_of(seed, BIASES).standard_normal(1001),
        BETA: 0.1 * random_of(seed, BETA).standard_normal(32),
        MEAN: 0.1 * random_of(seed, MEAN).standard_normal(32),
        VARIANCE: 0.5 + random_of(seed, VARIANCE).random_sample(32),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-9)


def test_the_numbers_are_those_of_other_machines(few_variables):
    """Reference values of the network were computed elsewhere from these numbers."""
    found = stand_in.generate(0)
    expected = {
        KERNEL: [-0.017410839, -0.0014850509],
        CLASSIFIER: [-0.047443181, -0.062705196],
        BIASES: [0.019469583, 0.056169894],
        BETA: [-0.011740586, 0.1820972],
        MEAN: [-0.063317478, 0.13818678],
        VARIANCE: [1.1540742, 0.9876523],
    }
    for name, first in expected.items():
        np.testing.assert_allclose(found[name].flat[:2], first, rtol=1e-6)


def test_same_seed_same_bytes(few_variables):
    first, second = stand_in.generate(5), stand_in.generate(5)
    for name in few_variables:
        assert first[name].tobytes() == second[name].tobytes()


def test_another_seed_changes_every_variable(few_variables):
    first, second = stand_in.generate(5), stand_in.generate(6)
    for name in few_variables:
        assert not np.array_equal(first[name], second[name])


def test_progress_counts_variables(few_variables):
    seen = []
    stand_in.generate(0, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.slow
def test_the_whole_stand_in_has_the_published_layout(raw_variables):
    layout.check(raw_variables, "the stand-in")


# The file


@pytest.mark.parametrize("name", ["model.ckpt", "all [*]? of it.tar.gz", "x" * 250])
def test_one_file_in_v1_format(tmp_path, name):
    variables = small_checkpoints.variables()
    stand_in.write_v1(variables, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    checkpoint = open_checkpoint(tmp_path / name, check_layout=False)
    assert checkpoint.container == "V1"
    assert checkpoint.keys() == variables.keys()
    for key, value in variables.items():
        np.testing.assert_array_equal(checkpoint[key], value)


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_text("old")
    stand_in.write_v1(small_checkpoints.variables(), path)
    assert open_checkpoint(path, check_layout=False).container == "V1"


def test_a_missing_directory_is_made(tmp_path):
    path = tmp_path / "new" / "directory" / "model.ckpt"
    stand_in.write_v1(small_checkpoints.variables(), path)
    assert [file.name for file in path.parent.iterdir()] == ["model.ckpt"]


def test_a_directory_is_not_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(IsADirectoryError, match="photos"):
        stand_in.write_v1(small_checkpoints.variables(), tmp_path / "photos")
    assert (tmp_path / "photos").is_dir()


@pytest.mark.parametrize("error", [OSError("No space left"), KeyboardInterrupt()])
def test_a_file_that_cannot_be_finished_leaves_the_old_one(
    tmp_path, monkeypatch, error
):
    def write(variables, file):
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(saved_slices, "write", write)
    path = tmp_path / "model.ckpt"
    path.write_text("old")
    with pytest.raises(type(error)):
        stand_in.write_v1(small_checkpoints.variables(), path)
    with pytest.raises(type(error)):
        stand_in.write_v1(small_checkpoints.variables(), tmp_path / "new" / "x")
    assert [file.name for file in tmp_path.iterdir()] == ["model.ckpt"]
    assert path.read_text() == "old"
