"""Comparing vectors: figures against those of plain loops, and the verdict."""

import json

import numpy as np
import pytest

from exporters.errors import EvaluationError
from exporters.evaluation.comparing import compare_features
from exporters.evaluation.vectors import Vectors, write_part

SOURCE = {"value": "feature_vector", "checkpoint_identity": "0", "image_size": [75, 75]}


def write(path, values, names=None, **source):
    names = names or [f"{number}.png" for number in range(len(values))]
    made = Vectors(names, np.asarray(values, np.float32), SOURCE | source)
    write_part(path, "npz", made)
    return path


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(150, 20))


def noisy(values, by):
    return values + by * np.random.default_rng(1).normal(size=values.shape)


def test_the_same_vectors_may_join(tmp_path, values):
    done = compare_features(
        write(tmp_path / "a", values), write(tmp_path / "b", 3 * values)
    )
    assert done.may_join
    assert done.common == {1: 1, 10: 1, 100: 1}
    assert done.rank_correlation == 1 and done.found_itself == 1
    assert done.mean_cosine == pytest.approx(1) and done.min_cosine == pytest.approx(1)
    assert (done.count, done.only_first, done.only_second) == (150, 0, 0)


def test_figures(tmp_path, values):
    """Against definitions, written out."""
    from scipy.stats import spearmanr

    other = noisy(values, 0.3)
    done = compare_features(write(tmp_path / "a", values), write(tmp_path / "b", other))
    a = values / np.linalg.norm(values, axis=1, keepdims=True)
    b = other / np.linalg.norm(other, axis=1, keepdims=True)
    cosines = [float(x @ y) for x, y in zip(a, b)]
    assert done.mean_cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    assert done.min_cosine == pytest.approx(min(cosines), abs=1e-6)
    assert next(iter(done.worst)) == f"{np.argmin(cosines)}.png"
    assert len(done.worst) == 20
    shares, correlations, itself = {1: [], 10: [], 100: []}, [], []
    for query in range(len(a)):
        rest = [place for place in range(len(a)) if place != query]
        own = {place: a[query] @ a[place] for place in rest}
        new = {place: b[query] @ a[place] for place in rest}
        itself.append(b[query] @ a[query] > max(new.values()))
        for k, found in shares.items():
            first = set(sorted(rest, key=own.get)[-k:])
            found.append(len(first & set(sorted(rest, key=new.get)[-k:])) / k)
        correlations.append(spearmanr(list(own.values()), list(new.values())).statistic)
    assert done.common == pytest.approx({k: np.mean(x) for k, x in shares.items()})
    assert done.rank_correlation == pytest.approx(np.mean(correlations), abs=1e-6)
    assert done.found_itself == np.mean(itself)
    assert 0.3 < done.common[10] < 0.9
    assert not done.may_join


def test_the_verdict_asks_for_neighbours_and_for_cosines(tmp_path, values):
    one = write(tmp_path / "a", values)
    assert compare_features(one, write(tmp_path / "b", noisy(values, 0.01))).may_join
    assert not compare_features(one, write(tmp_path / "c", noisy(values, 0.5))).may_join
    # All the same neighbours, in other directions: a turned space.
    turned = values @ np.linalg.qr(np.random.default_rng(2).normal(size=(20, 20)))[0]
    done = compare_features(one, write(tmp_path / "d", turned))
    assert not done.may_join and done.found_itself < 0.2


def test_images_are_matched_by_their_names(tmp_path, values):
    names = [f"{number}.png" for number in range(150)]
    one = write(tmp_path / "a", values[:100], names[:100])
    order = np.random.default_rng(3).permutation(120) + 30
    other = write(tmp_path / "b", values[order], [names[x] for x in order])
    done = compare_features(one, other)
    assert (done.count, done.only_first, done.only_second) == (70, 30, 50)
    assert done.may_join and list(done.common) == [1, 10]


def test_many_queries_are_spread(tmp_path):
    values = np.random.default_rng(4).normal(size=(1203, 8))
    done = compare_features(
        write(tmp_path / "a", values), write(tmp_path / "b", noisy(values, 0.01))
    )
    assert (done.count, done.queries) == (1203, 1000)


def test_all_is_json(tmp_path, values):
    one = write(tmp_path / "a", values)
    found = json.loads(json.dumps(compare_features(one, one).as_dict()))
    assert found["may_join"] is True
    assert found["common"] == {"1": 1, "10": 1, "100": 1}


def test_notes(tmp_path, values):
    one = write(tmp_path / "a", values)
    other = write(
        tmp_path / "b",
        values,
        checkpoint_identity="1",
        image_size=[9, 9],
        stand_in=True,
    )
    checkpoint, size, stand_in = compare_features(one, other).notes
    assert "different checkpoints" in checkpoint
    assert "different sizes" in size
    assert "STAND-IN" in stand_in


def test_vectors_that_cannot_be_compared(tmp_path, values):
    one = write(tmp_path / "a", values)
    for name, other, expected in (
        (
            "b",
            {"values": values, "value": "logits"},
            "of feature_vector, and .* logits",
        ),
        ("c", {"values": values[:, :7]}, "20 numbers, and .* 7"),
        ("d", {"values": values[:2]}, "2 images in common; expected 12"),
        ("e", {"values": values * np.nan}, "not finite"),
    ):
        with pytest.raises(EvaluationError, match=expected):
            compare_features(one, write(tmp_path / name, **other))
