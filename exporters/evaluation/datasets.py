"""Images to measure artifacts with, and their labels, in the layouts that people have.

- A folder of one subfolder per class; the subfolder's name is the label.
- ImageNet's validation set: one folder of images, and a ground-truth file.
- TFRecords of tf.train.Example, as TF-Slim's converters write them (`image/encoded`,
  `image/class/label`, `image/class/synset`) or TFDS (`image`, `label`, `file_name`).
- A folder of images without labels, for features.

Only names and labels are read here. Whatever cannot be used is named, with the reason.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from exporters import images as image_files
from exporters.errors import EvaluationError
from exporters.evaluation import tfrecords
from exporters.evaluation.locations import Location, RemotePath
from exporters.evaluation.tfrecords import Place, RecordError
from exporters.images import ImageError

Label = str | int

_DEVKIT = (490, 361, 171, 822, 297, 482, 13, 704, 599, 164)
"""How ILSVRC2012_validation_ground_truth.txt of ImageNet's devkit begins."""
_LAYOUTS = (
    "a directory with one subdirectory of images per class, a directory of images with a "
    "ground-truth file (--ground-truth), or TFRecord files"
)
_HEADERS = ("imageid", "image", "filename", "file", "name")
"""What the first column may be called, in lower case."""
_FEW = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """An image that was not read yet.

    Attributes:
      name: by which people find it, not the same as another's.
      label: as it is written: text, or a number of somebody's numbering; None if there
        is none.
      source: where the file or the record lies.
    """

    name: str
    label: Label | None
    source: Location | Place

    def content(self) -> bytes:
        """Returns the file of the image, as it is encoded.

        Raises:
          ImageError: it cannot be read.
          StorageError: another file system cannot be reached.
        """
        try:
            if not isinstance(self.source, Place):
                return self.source.read_bytes()
            features = tfrecords.parse_example(self.source.read())
            encoded = _encoded(features)
        except OSError as error:
            raise ImageError(f"{self.name} cannot be read: {error.strerror}") from error
        except RecordError as error:
            raise ImageError(f"{self.name} cannot be read: {error}.") from error
        if encoded is None:
            raise ImageError(
                f"{self.name} has no image. Expected a feature image/encoded or image; "
                f"found {', '.join(sorted(features)) or 'none'}."
            )
        return encoded


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images in a fixed order.

    Attributes:
      path: where they are.
      layout: in which form, in words.
      examples: the images.
      empty: labels of which there is no image.
      problems: what else was found, and cannot be used -> why.
    """

    path: Location
    layout: str
    examples: Sequence[Example]
    empty: tuple[str, ...] = ()
    problems: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Records:
    """What a TFRecord file holds.

    Attributes:
      rows: of each record, its name and its label, where it has some, and its place.
      problem: why there are no more, None if the file is whole.
    """

    rows: Sequence[tuple[str | None, Label | None, Place]]
    problem: str | None = None


Scan = Callable[[Sequence[Location]], Iterable[Records]]
"""Looks into TFRecord files."""


def scan(files: Iterable[Location]) -> Iterator[Records]:
    """Looks into TFRecord files, one after the other; damage is a result.

    Raises:
      OSError, StorageError: one cannot be read.
    """
    for file in files:
        rows: list[tuple[str | None, Label | None, Place]] = []
        problem = None
        try:
            for place, content in tfrecords.scan(file):
                try:
                    name, label = _name_and_label(content)
                except RecordError:
                    # Told when the image is read, and counted as one that cannot be.
                    name, label = None, None
                rows.append((name, label, place))
        except RecordError as error:
            problem = f"{error}; {len(rows)} records before it are read"
        yield Records(rows, problem)


def open_dataset(
    path: Location,
    ground_truth: Location | None = None,
    *,
    needs_labels: bool = True,
    scan: Scan = scan,
) -> Dataset:
    """Finds the images at a path, and their labels.

    Args:
      path: a directory, or a TFRecord file.
      ground_truth: labels of the images of a directory: one a line in the order of their
        names, or "name label" in each line, with a space, tab or comma between.
      needs_labels: whether images without labels are of no use. If they are, images in
        subdirectories are found as well, and have none.
      scan: looks into TFRecord files.

    Raises:
      EvaluationError: there are no images, or they have no labels.
      OSError, StorageError: the files cannot be read.
    """
    if not path.exists():
        raise EvaluationError(f"{path} does not exist. Expected {_LAYOUTS}.")
    if path.is_file():
        if not tfrecords.is_one(path):
            raise EvaluationError(f"{path} is no TFRecord file. Expected {_LAYOUTS}.")
        found = _tfrecords(path, [path], scan)
    else:
        found = _directory(path, ground_truth, needs_labels, scan)
    if not found.examples:
        told = [f"{name} ({why})" for name, why in found.problems.items()]
        raise EvaluationError(
            f"{path} holds no images. Found: {', '.join(told[:_FEW]) or 'nothing'}. "
            f"Expected {_LAYOUTS}."
        )
    if ground_truth and found.layout != _IMAGENET:
        raise EvaluationError(
            f"--ground-truth has no effect on {path}, which is {found.layout}."
        )
    return found


_CLASS_FOLDERS = "a directory with one subdirectory per class"
_IMAGENET = "a directory of images with a ground-truth file"
_FLAT = "a directory of images"
_TFRECORDS = "TFRecord files"


def _directory(
    path: Location, ground_truth: Location | None, needs_labels: bool, scan: Scan
) -> Dataset:
    children = _sorted(child for child in path.iterdir() if child.name[0] != ".")
    folders = [child for child in children if child.is_dir()]
    images = [child for child in children if _is_image(child)]
    usable = {*folders, *images}
    others = [child for child in children if child not in usable]
    records = [child for child in others if tfrecords.is_one(child)]
    usable.update(records)
    problems = {
        child.name: "not called like an image"
        for child in others
        if child not in usable
    }
    if records and not images:
        found = _tfrecords(path, records, scan)
        problems |= {folder.name: "a directory beside records" for folder in folders}
    elif not needs_labels:
        found, problems = _any_images(path), {}
    elif images and ground_truth:
        problems |= {folder.name: "a directory beside images" for folder in folders}
        found = _with_ground_truth(path, images, ground_truth)
    elif folders:
        problems |= {
            child.name: "it lies beside the directories of classes"
            for child in images + records
        }
        found = _class_folders(path, folders)
    elif images:
        raise EvaluationError(
            f"{path} holds images without labels. Expected {_LAYOUTS}."
        )
    else:
        found = Dataset(path, _FLAT, [])
    return dataclasses.replace(found, problems=found.problems | problems)


def _sorted(paths: Iterable[Location]) -> list[Location]:
    return sorted(paths, key=lambda path: path.parts)


def _is_image(path: Location) -> bool:
    return path.suffix.lower() in image_files.SUFFIXES and not path.is_dir()


def _class_folders(path: Location, folders: Iterable[Location]) -> Dataset:
    examples: list[Example] = []
    empty: list[str] = []
    problems: dict[str, str] = {}
    for folder in folders:
        before = len(examples)
        examples += _below(folder, path, folder.name, problems)
        if len(examples) == before:
            empty.append(folder.name)
    return Dataset(path, _CLASS_FOLDERS, examples, tuple(empty), problems)


def _any_images(path: Location) -> Dataset:
    problems: dict[str, str] = {}
    examples = list(_below(path, path, None, problems))
    return Dataset(path, _FLAT, examples, problems=problems)


def _below(
    folder: Location, path: Location, label: str | None, problems: dict[str, str]
) -> Iterator[Example]:
    """Yields the images in a folder and in those in it; notes what else is there."""
    for file in _sorted(folder.rglob("*")):
        name = _name_below(path, file)
        if file.is_dir() or file.name.startswith("."):
            continue
        if _is_image(file):
            yield Example(name, label, file)
        else:
            problems[name] = "not called like an image"


def _name_below(folder: Location, file: Location) -> str:
    if isinstance(file, RemotePath):
        return file.url.removeprefix(f"{folder}/")
    return file.relative_to(str(folder)).as_posix()


def _with_ground_truth(
    path: Location, images: Sequence[Location], file: Location
) -> Dataset:
    """Reads labels of a file, one a line, or names and labels."""
    lines = _lines(file)
    rows = [re.split(r"[,\s]+", line, maxsplit=1) for line in lines]
    if all(len(row) == 1 for row in rows):
        _refuse_devkit(file, lines)
        if len(lines) != len(images):
            raise EvaluationError(
                f"{file} has {len(lines)} labels, and {path} {len(images)} images. "
                "Expected one line for each image, in the order of their names."
            )
        examples = [
            Example(image.name, _label(line), image)
            for image, line in zip(images, lines)
        ]
        return Dataset(path, _IMAGENET, examples)
    if short := [line for line, row in zip(lines, rows) if len(row) == 1]:
        raise EvaluationError(
            f"{file} has the line {short[0]!r}; expected the name of an image and its "
            "label, as in the others."
        )
    if rows[0][0].lower() in _HEADERS:
        rows = rows[1:]
    labels = {PurePosixPath(name).name: label for name, label in rows}
    examples, problems = [], {}
    for image in images:
        label = labels.pop(image.name, None) or labels.pop(image.stem, None)
        if label is None:
            problems[image.name] = f"{file.name} has no label of it"
        else:
            examples.append(Example(image.name, _first_word(label), image))
    problems |= {name: "listed, and not there" for name in labels}
    return Dataset(path, _IMAGENET, examples, problems=problems)


def _first_word(label: str) -> Label:
    """Of "n01751748 111 108 380 320", as Kaggle's list has it, the synset alone."""
    synset = re.match(r"n\d{8}\b", label)
    return synset[0] if synset else _label(label)


def _lines(file: Location) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise EvaluationError(
            f"{file} is no text in UTF-8; expected the label of an image in each line."
        ) from error
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise EvaluationError(f"{file} is empty; expected a label in each line.")
    return lines


def _refuse_devkit(file: Location, lines: Sequence[str]) -> None:
    if lines[: len(_DEVKIT)] == [str(number) for number in _DEVKIT]:
        raise EvaluationError(
            f"{file} is that of ImageNet's devkit, which numbers the classes in an order "
            "of its own. Use a file with synsets (n01440764), such as TF-Slim's "
            "imagenet_2012_validation_synset_labels.txt or Kaggle's "
            "LOC_val_solution.csv."
        )


def _label(text: str) -> Label:
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else text


def _tfrecords(path: Location, files: Sequence[Location], scan: Scan) -> Dataset:
    rows: list[tuple[str, str | None, Label | None, Place]] = []
    problems = {}
    for file, found in zip(files, scan(files)):
        rows += [
            (f"{file.name}#{number}", *row) for number, row in enumerate(found.rows)
        ]
        if found.problem:
            problems[file.name] = found.problem
    names = [name for _, name, _, _ in rows]
    are_names = None not in names and len(set(names)) == len(names)
    examples = [
        Example(str(name) if are_names else position, label, place)
        for position, name, label, place in rows
    ]
    return Dataset(path, _TFRECORDS, examples, problems=problems)


def _name_and_label(content: memoryview) -> tuple[str | None, Label | None]:
    features = tfrecords.parse_example(content)
    name = tfrecords.one_bytes(
        features.get("image/filename") or features.get("file_name")
    )
    synset = tfrecords.one_bytes(features.get("image/class/synset"))
    label: Label | None = tfrecords.one_integer(
        features.get("image/class/label") or features.get("label")
    )
    if synset and re.fullmatch(rb"n\d{8}", synset):
        label = synset.decode()
    return name.decode("utf-8", "replace") if name else None, label


def _encoded(features: Mapping[str, memoryview]) -> bytes | None:
    return tfrecords.one_bytes(features.get("image/encoded") or features.get("image"))
