"""Names of classes."""

import pytest

from exporters.errors import ExportError
from exporters.labels import imagenet_labels, labels_for, read_labels


def test_names_of_the_published_classes():
    assert len(imagenet_labels()) == 1001
    assert imagenet_labels()[:2] == ("background", "tench, Tinca tinca")


def test_names_are_known_for_1001_classes_only():
    assert labels_for(1001, None) == imagenet_labels()
    assert labels_for(10, None) is None
    assert labels_for(None, None) is None
    assert labels_for(2, ("rose", "tulip")) == ("rose", "tulip")


@pytest.mark.parametrize("num_classes", [None, 1, 3, 1001])
def test_another_number_of_names_than_of_classes(num_classes):
    with pytest.raises(ExportError, match=r"flowers\.txt: "):
        labels_for(num_classes, ("rose", "tulip"), "flowers.txt")


def test_a_file_of_names(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffMüller\r\n  tulip \r\n".encode())
    assert read_labels(file) == ("Müller", "tulip")


def test_a_huge_file(tmp_path):
    file = tmp_path / "labels.txt"
    with file.open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(ExportError, match="bytes; expected a list"):
        read_labels(file)
