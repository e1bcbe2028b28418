"""Naming a checkpoint by any of its files, and files that are taken for one."""

import gzip
import shutil
import tarfile

import numpy as np
import pytest
import small_checkpoints

from checkpoints import stand_in
from checkpoints.errors import CheckpointError
from checkpoints.reader import open_checkpoint

DATA = ".data-00000-of-00001"


def open_any(path):
    return open_checkpoint(path, check_layout=False)


def opened(path):
    """Which of the checkpoints below a path opens, by the number in it."""
    return int(open_any(path)["number"][0])


def error_of(path):
    with pytest.raises(CheckpointError) as caught:
        open_any(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def save(path, number, form="v2"):
    """Writes a checkpoint as TensorFlow's Saver does, with its graph beside it."""
    variables = {"number": np.float32([number]), "others": np.ones(99, np.float32)}
    if form == "v1":
        stand_in.write_v1(variables, path)
    else:
        small_checkpoints.write_v2(variables, path)
    path.with_name(f"{path.name}.meta").write_bytes(b"\n\x02\x08\x01")


def write_state(directory, latest):
    older = 'all_model_checkpoint_paths: "model.ckpt-1000"\n'
    text = f'model_checkpoint_path: "{latest}"\n{older}'
    (directory / "checkpoint").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module", params=["v1", "v2"])
def trained(request, tmp_path_factory):
    """A directory as training leaves it, with checkpoints in either form."""
    directory = tmp_path_factory.mktemp("training of größe")
    for number in (1000, 2000):
        save(directory / f"model.ckpt-{number}", number, request.param)
    write_state(directory, "model.ckpt-2000")
    (directory / "events.out.tfevents.1").write_bytes(b"")
    (directory / "eval").mkdir()
    return directory


@pytest.mark.parametrize("name", ["model.ckpt-1000", "model.ckpt-1000.meta"])
def test_one_of_several_by_its_files(trained, name):
    assert opened(trained / name) == 1000
    assert open_any(trained / name).notes == ()


@pytest.mark.parametrize("name", ["", "checkpoint"])
def test_the_latest_and_which_that_is(trained, name):
    assert opened(trained / name) == 2000
    [note] = open_any(trained / name).notes
    assert note == f"The latest checkpoint of {trained} is model.ckpt-2000."


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.mark.parametrize(
    "latest",
    [
        "/where/it/was/trained/model.ckpt-1000",
        "gs://bucket/run/model.ckpt-1000",
        r"C:\\\\training\\\\model.ckpt-1000",
        "./model.ckpt-1000",
        r"model.c\153pt-1000",
    ],
)
def test_a_directory_that_was_moved(copy, latest):
    write_state(copy, latest)
    assert opened(copy) == 1000
    assert opened(copy / "checkpoint") == 1000


def test_the_latest_is_taken_from_the_directory_that_was_named(trained, copy):
    """And not from the one that it is a copy of."""
    original = trained / "model.ckpt-2000"
    write_state(copy, str(original))
    for file in copy.glob("model.ckpt-2000*"):
        file.unlink()
    assert opened(copy) == 2000
    [note] = open_any(copy).notes
    assert note == f"The latest checkpoint of {copy} is {original}."
    save(copy / "model.ckpt-2000", 1)
    assert opened(copy) == 1


def test_names_of_more_than_ascii(tmp_path):
    save(tmp_path / "größe.ckpt-1", 1)
    save(tmp_path / "größe.ckpt-2", 2)
    for latest in ("größe.ckpt-2", r"gr\303\266\303\237e.ckpt-2"):
        write_state(tmp_path, latest)
        assert opened(tmp_path) == 2


def test_the_latest_is_not_there(copy):
    write_state(copy, "model.ckpt-3000")
    message = error_of(copy)
    assert "holds 2 checkpoints: model.ckpt-1000, model.ckpt-2000. Name the" in message
    assert message.endswith(
        f"{copy / 'checkpoint'} names 'model.ckpt-3000', which is not there."
    )
    assert error_of(copy / "checkpoint") == (
        f"{copy / 'checkpoint'} names 'model.ckpt-3000' as the latest checkpoint, which "
        "is not there. Name the one you mean."
    )
    for file in copy.glob("model.ckpt-1000*"):
        file.unlink()
    assert opened(copy) == 2000


@pytest.mark.parametrize(
    "text", ["", "nothing", "model_checkpoint_path: ", 'model_checkpoint_path: "x']
)
def test_a_file_of_that_name_that_says_nothing(copy, text):
    (copy / "checkpoint").write_text(text)
    assert "holds 2 checkpoints" in error_of(copy)
    assert error_of(copy / "checkpoint").startswith(
        f"{copy / 'checkpoint'} is not a che"
    )


def test_a_latest_checkpoint_that_no_file_can_be(copy):
    write_state(copy, r"a\000b")
    assert "holds 2 checkpoints" in error_of(copy)
    write_state(copy, "checkpoint")  # Itself.
    assert "holds 2 checkpoints" in error_of(copy)
    write_state(copy, "eval")
    assert "holds 2 checkpoints" in error_of(copy)


def test_a_graph_without_values(tmp_path):
    path = tmp_path / "model.ckpt-7.meta"
    path.write_bytes(b"\n\x02\x08\x01")
    assert error_of(path) == (
        f"{path} is the graph of a checkpoint, whose values, "
        f"{tmp_path / 'model.ckpt-7'} or {tmp_path / 'model.ckpt-7'}.index, are missing."
    )


# What is taken for a checkpoint


@pytest.fixture
def data(tmp_path):
    """The values of a V2 checkpoint, with its index beside them."""
    variables = small_checkpoints.variables()
    small_checkpoints.write_v2(variables, tmp_path / "model.ckpt")
    return tmp_path / f"model.ckpt{DATA}"


def test_data_under_another_name(data):
    renamed = data.rename(data.with_name("renamed.ckpt"))
    assert error_of(renamed) == (
        f"{renamed} is not a checkpoint, but looks like the data of a V2 one under "
        "another name. Give it back its name, NAME.data-00000-of-00001, and put "
        "NAME.index beside it."
    )


def test_data_under_the_name_of_the_checkpoint(data):
    renamed = data.rename(data.with_name("model.ckpt"))
    assert error_of(renamed) == (
        f"{renamed} is incomplete: its data file {data} is missing."
    )


def tar_file(path):
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "model.ckpt")


OTHERS = {
    "a web page": lambda path: path.write_text("<!DOCTYPE html>\n<html>Not found"),
    "a .tar archive that is not compressed": tar_file,
    "a .zip archive": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
    "compressed by another": lambda path: path.write_bytes(b"\xfd7zXZ\0" + bytes(100)),
    "a pointer to a file": lambda path: path.write_text("version https://git-lfs.git"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_files_are_told_as_what_they_are(tmp_path, what):
    path = tmp_path / "model.tar.gz"
    OTHERS[what](path)
    assert error_of(path).startswith(f"{path} is not a checkpoint, but {what}")


@pytest.mark.parametrize(
    "content",
    [b"", b"text, and more of it\n" * 99, bytes(9999), gzip.compress(b"", mtime=0)[1:]],
)
def test_other_files_are_not_taken_for_values(tmp_path, content):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    message = error_of(path)
    assert message.startswith(f"{path} is not a checkpoint, or a truncated one: found")
