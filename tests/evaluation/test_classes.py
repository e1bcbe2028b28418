"""From labels to classes: nothing is guessed."""

import numpy as np
import pytest

from exporters.errors import EvaluationError
from exporters.evaluation.classes import assign
from exporters.labels import imagenet_labels

DIGITS = tuple("zero one two three four five six seven eight nine".split())


def imagenet(labels, **options):
    return assign(labels, 1001, imagenet_labels(), **options)


def digits(labels, **options):
    return assign(labels, 10, DIGITS, **options)


# Synsets and names


def test_synsets():
    found = imagenet(["n01440764", "n15075141", "n99999999", "n01440764"])
    assert found.classes.tolist() == [1, 1000, -1, 1]
    assert found.unknown == {"n99999999": 1}
    assert found.offset is None
    assert found.how == "Labels are synsets of ImageNet."


def test_names():
    found = imagenet(
        ["tench", "Goldfish", "great_white_shark", "kit fox, Vulpes macrotis"]
    )
    assert found.classes.tolist() == [1, 2, 3, 279]
    assert found.how == "Labels are names of classes."


def test_a_name_that_two_classes_have_is_none():
    found = imagenet(["tench", "crane"])
    assert found.classes.tolist() == [1, -1]
    assert found.unknown == {"crane": 1}


def test_own_names_also_behind_numbers():
    assert digits(["seven", "zero"]).classes.tolist() == [7, 0]
    found = digits(["3_three", "8_eight"])
    assert found.classes.tolist() == [3, 8]
    assert found.offset is None


def test_names_that_look_like_numbers():
    found = assign(["3", "1"], 3, ["1", "3", "5"])
    assert found.classes.tolist() == [1, 0]


# Numbers


@pytest.mark.parametrize(
    ("labels", "offset"),
    [
        (range(1000), 1),  # TFDS, Caffe: no image is of the background.
        (range(1, 1001), 0),  # TF-Slim.
        ([0, 17], 1),
        ([17, 1000], 0),
        (["0", "999"], 1),
    ],
)
def test_numbers_of_imagenet(labels, offset):
    found = imagenet(list(labels))
    assert found.offset == offset
    assert found.classes.tolist() == [int(label) + offset for label in labels]
    assert found.unknown == {}


def test_the_reason_is_said():
    assert imagenet([0, 999]).how == (
        "A label + 1 is the number of the network's class (labels are 0 to 999, and no "
        "image is of the network's class 0, background)."
    )
    assert imagenet([1, 1000]).how == (
        "Labels are the numbers of the network's classes (labels are 1 to 1000, and the "
        "network's last class is 1000)."
    )


@pytest.mark.parametrize(
    ("labels", "offset"),
    [
        (range(10), 0),
        (range(1, 11), -1),
        ([0, 4], 0),
        ([3, 10], -1),
        (["0_a", "9_b"], 0),
        ([0, 5, 77], 0),
    ],
)
def test_numbers_of_own_classes(labels, offset):
    assert assign(list(labels), 10, None).offset == offset


@pytest.mark.parametrize(
    ("labels", "classes"), [([1, 500], 1001), ([1, 500], 1000), ([1, 9], 10)]
)
def test_what_is_ambiguous_is_asked_for(labels, classes):
    names = imagenet_labels() if classes == 1001 else None
    with pytest.raises(EvaluationError, match=r"cannot be told.*--label-offset: 0 if"):
        assign(labels, classes, names)
    found = assign(labels, classes, names, offset=0)
    assert found.classes.tolist() == labels
    assert found.how.endswith("(as was asked).")


def test_an_empty_class_shows_how_classes_are_numbered():
    assert assign(["3", "5"], 10, None, empty=["0"]).offset == 0


def test_an_offset_that_was_asked_for():
    found = imagenet([5, 1000], offset=1)
    assert found.classes.tolist() == [6, -1]
    assert found.unknown == {"1000": 1}
    with pytest.raises(
        EvaluationError, match="no effect on labels that are no numbers"
    ):
        imagenet(["n01440764"], offset=1)


def test_one_class_too_many():
    with pytest.raises(EvaluationError, match="11 classes; the network has 10"):
        assign(list(range(11)), 10, None)


def test_numbers_beyond_all_numberings_have_no_class():
    found = imagenet([0, 999, 1005, -3])
    assert found.classes.tolist() == [1, 1000, -1, -1]
    assert found.unknown == {"1005": 1, "-3": 1}


def test_labels_of_two_kinds_are_of_the_kind_that_most_have():
    found = imagenet(["n01440764", "n15075141", "7"])
    assert found.classes.tolist() == [1, 1000, -1]


def test_no_label_at_all():
    found = imagenet(["tench", None])
    assert found.unknown == {"no label": 1}
    with pytest.raises(EvaluationError, match=r"No label is a class.*Found: a, b"):
        imagenet(["a", "b"])
    with pytest.raises(EvaluationError, match="No label is the number of a class"):
        imagenet([5000])
    assert imagenet(["tench"]).classes.dtype == np.int64
