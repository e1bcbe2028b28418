"""Opening checkpoints in every container, under every name, whole and damaged."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_checkpoints
from PIL import Image

from checkpoints import files, layout, published, stand_in
from checkpoints.archive import ArchiveError
from checkpoints.bundle import Bundle
from checkpoints.reader import (
    Checkpoint,
    CheckpointError,
    Provenance,
    open_checkpoint,
)
from checkpoints.saved_slices import SavedSlices

GLOB = "all [*]? of it"  # A folder and file name; also a pattern that finds neither.
DATA = ".data-00000-of-00001"


def open_any(path):
    return open_checkpoint(path, check_layout=False)


def open_error(path):
    """The message for a path that holds no readable checkpoint."""
    with pytest.raises(CheckpointError) as caught:
        open_any(path)
    return str(caught.value)


@pytest.fixture(scope="module")
def variables():
    return small_checkpoints.variables()


@pytest.fixture(scope="module")
def written(tmp_path_factory, variables):
    """A folder with the same variables as v1.ckpt, as v2.*, and as sharded.*."""
    folder = tmp_path_factory.mktemp("written")
    stand_in.write_v1(variables, folder / "v1.ckpt")
    small_checkpoints.write_v2(variables, folder / "v2")
    small_checkpoints.write_v2(variables, folder / "sharded", shards=2)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory, written):
    """A folder with the same variables in every container, under many names."""
    folder = tmp_path_factory.mktemp("places")
    v1, v2 = written / "v1.ckpt", sorted(written.glob("v2.*"))
    sharded = sorted(written.glob("sharded.*"))
    notes = folder / "checkpoint"
    notes.write_text('model_checkpoint_path: "/where/it/was/trained/model.ckpt-1"')
    glob = folder / GLOB
    for directory in (folder / "with v1", folder / "with v2", glob, folder / "names"):
        directory.mkdir()
    for file in (v1, *v2, *sharded):
        shutil.copy(file, folder)
    for file in (v1, notes):
        shutil.copy(file, folder / "with v1")
    for file in (*sharded, notes):
        shutil.copy(file, folder / "with v2")
    small_checkpoints.pack(folder / "v1.tar.gz", v1)
    small_checkpoints.pack(folder / "v2.tgz", notes, *sharded, folder="model/run 1")
    shutil.copy(v1, glob / f"{GLOB}.ckpt")
    for file in v2:
        shutil.copy(file, glob / f"{GLOB}{file.suffix}")
    for name in ("x.tar.gz", "x.index", f"y{DATA}", "x", "größe 1.png"):
        shutil.copy(v1, folder / "names" / name)
    shutil.copy(folder / "v1.tar.gz", folder / "names" / "archive.ckpt")
    shutil.copy(folder / "v2.tgz", folder / "names" / "archive.index")
    (folder / "names" / "link.ckpt").symlink_to(v1)
    return folder


@pytest.mark.parametrize(
    ("place", "container"),
    [
        ("v1.ckpt", "V1"),
        ("v2", "V2"),
        ("v2.index", "V2"),
        (f"v2{DATA}", "V2"),
        ("sharded", "V2"),
        ("sharded.data-00001-of-00002", "V2"),
        ("with v1", "V1"),
        ("with v2", "V2"),
        ("v1.tar.gz", "V1 in .tar.gz"),
        ("v2.tgz", "V2 in .tar.gz"),
        (f"{GLOB}/{GLOB}.ckpt", "V1"),
        (f"{GLOB}/{GLOB}", "V2"),
        ("names/x.tar.gz", "V1"),
        ("names/x.index", "V1"),
        (f"names/y{DATA}", "V1"),
        ("names/x", "V1"),
        ("names/größe 1.png", "V1"),
        ("names/link.ckpt", "V1"),
        ("names/archive.ckpt", "V1 in .tar.gz"),
        ("names/archive.index", "V2 in .tar.gz"),
    ],
)
def test_content_decides_and_not_the_name(places, variables, place, container):
    checkpoint = open_any(places / place)
    assert checkpoint.container == container
    assert checkpoint.path == places / place
    assert checkpoint.identity == Checkpoint(variables, path=places).identity
    assert list(checkpoint) == sorted(variables)
    for name, value in variables.items():
        np.testing.assert_array_equal(checkpoint[name], value)


def test_a_path_may_be_a_string(written, variables):
    assert len(open_any(str(written / "v1.ckpt"))) == len(variables)


def test_nothing_is_written_beside_the_checkpoint(places):
    before = sorted(places.rglob("*"))
    for place in ("v1.ckpt", "v1.tar.gz", "with v2"):
        open_any(places / place)
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize("place", ["v1.ckpt", "v2", "v2.tgz"])
def test_arrays_are_read_only(places, place):
    checkpoint = open_any(places / place)
    with pytest.raises(ValueError, match="read-only"):
        checkpoint["layer_0/biases"][0] = 1


def test_the_arrays_given_stay_as_they_are(variables):
    given = {name: value.copy() for name, value in variables.items()}
    checkpoint = Checkpoint(given, path="memory")
    assert all(value.flags.writeable for value in given.values())
    assert not any(value.flags.writeable for value in checkpoint.values())


# What the identity depends on


def identity(variables):
    return Checkpoint(variables, path="memory").identity


def test_identity_depends_on_names_shapes_dtypes_and_values(variables):
    value = variables["layer_0/biases"]
    changed = value.copy()
    changed[0] = np.nextafter(changed[0], 9)
    others = [
        variables | {"layer_0/biases": changed},
        variables | {"layer_0/biases": value.reshape(2, 4)},
        variables | {"layer_0/biases": value.view(np.int32)},
        variables | {"layer_9/biases": value},
        {name: v for name, v in variables.items() if name != "layer_0/biases"},
    ]
    identities = {identity(variables), *map(identity, others)}
    assert len(identities) == 1 + len(others)


def test_identity_does_not_depend_on_order(variables):
    backwards = dict(reversed(variables.items()))
    assert identity(backwards) == identity(variables)


def test_identity_is_the_one_that_it_always_was(variables):
    """Artifacts that were made of a checkpoint years ago are verified with it."""
    ones = {name: np.ones_like(value) for name, value in variables.items()}
    assert identity(ones) == (
        "6bd11b97982ae54cb3862d25ca2bfa81e61470b93b3a4f97a7f05bd008c199ee"
    )


# What is no checkpoint


def test_a_missing_path(tmp_path):
    message = open_error(tmp_path / "nowhere.ckpt")
    assert message.startswith(f"{tmp_path / 'nowhere.ckpt'} does not exist. Expected a")


def test_another_kind_of_file(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.ckpt").write_text("a checkpoint, or so they say\n" * 20)
    Image.new("RGB", (20, 20)).save(tmp_path / "image.png")
    for file in sorted(tmp_path.iterdir()):
        message = open_error(file)
        assert message.startswith(f"{file} is not a checkpoint")
        assert f"found {file.stat().st_size} bytes" in message
        assert "Expected a V1 checkpoint file" in message


def special_file(kind, path):
    """Something that can be opened, or not even that, and never ends."""
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
            made.bind(path.name)  # A whole path may be too long for a socket.
    return path


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a socket"])
@pytest.mark.parametrize("name", ["model.ckpt", "v2.index", f"v2{DATA}", "x.tar.gz"])
def test_what_is_not_a_regular_file_is_not_read(tmp_path, written, kind, name):
    path = special_file(kind, tmp_path / name)
    assert open_error(path).startswith(f"{path} is {kind}; expected a file")


def test_a_data_file_that_is_not_a_regular_file(tmp_path, written):
    shutil.copy(written / "v2.index", tmp_path)
    data = special_file("a named pipe", tmp_path / f"v2{DATA}")
    assert open_error(tmp_path / "v2").startswith(f"{data} is a named pipe; expected")


def test_a_directory_without_a_checkpoint(tmp_path, written):
    assert "Found: no files." in open_error(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    shutil.copy(written / f"v2{DATA}", tmp_path)
    message = open_error(tmp_path)
    assert message.startswith(f"{tmp_path} holds no checkpoint")
    assert f"Found: notes.txt, v2{DATA}. Expected a V1 checkpoint" in message


def test_a_directory_with_two_checkpoints(written):
    message = open_error(written)
    assert message.startswith(f"{written} holds 3 checkpoints: sharded, v1.ckpt, v2.")
    assert "Name the one you mean" in message


def test_an_archive_without_a_checkpoint(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    archive = tmp_path / "model.tar.gz"
    small_checkpoints.pack(archive, tmp_path / "notes.txt")
    message = open_error(archive)
    assert message.startswith(f"{archive} holds no checkpoint. Found: notes.txt")


def test_an_archive_with_two_checkpoints(tmp_path, written):
    archive = tmp_path / "model.tar.gz"
    small_checkpoints.pack(archive, *written.iterdir())
    assert open_error(archive).startswith(f"{archive} holds 3 checkpoints")


def test_a_data_file_without_its_index(tmp_path, written):
    path = shutil.copy(written / f"v2{DATA}", tmp_path)
    assert open_error(path) == (
        f"{path} is the data of a V2 checkpoint, but its index, "
        f"{tmp_path / 'v2.index'}, is missing."
    )


def test_an_index_under_another_name(tmp_path, written):
    path = shutil.copy(written / "v2.index", tmp_path / "v2.ckpt")
    message = open_error(path)
    assert message.startswith(f"{path} is the index of a V2 checkpoint under another")


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_shard(tmp_path, written, missing):
    for file in written.glob("sharded.*"):
        shutil.copy(file, tmp_path)
    (tmp_path / f"sharded.data-0000{missing}-of-00002").unlink()
    assert open_error(tmp_path / "sharded") == (
        f"{tmp_path / 'sharded'} is incomplete: its data file "
        f"{tmp_path / 'sharded'}.data-0000{missing}-of-00002 is missing."
    )


@pytest.mark.parametrize("name", ["v1.ckpt", "v2"])
def test_the_layout_is_checked_before_values_are_read(written, monkeypatch, name):
    monkeypatch.setattr(SavedSlices, "read", None)
    monkeypatch.setattr(Bundle, "read", None)
    with pytest.raises(layout.CheckpointLayoutError, match=rf"{name} is not a check"):
        open_checkpoint(written / name)


def test_tensorflow_is_not_needed(places, tmp_path):
    """Not by what opens a checkpoint in any container, nor by what writes a stand-in."""
    code = f"""
import sys
from pathlib import Path
from checkpoints import stand_in
from checkpoints.reader import open_checkpoint
for place in ("v1.ckpt", "sharded", "v1.tar.gz", "v2.tgz"):
    opened = open_checkpoint(Path({str(places)!r}) / place, check_layout=False)
stand_in.write_v1(opened, Path({str(tmp_path)!r}) / "new.ckpt")
assert not {{"tensorflow", "google.protobuf"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert open_any(tmp_path / "new.ckpt").identity == open_any(places / "v2").identity


# Damage


@pytest.fixture
def damaged(tmp_path, written):
    """Returns a function that copies a checkpoint with one file changed."""

    def damage(name, change):
        for file in written.glob("v*"):
            shutil.copy(file, tmp_path)
        content = bytearray((written / name).read_bytes())
        (tmp_path / name).write_bytes(change(content))
        return tmp_path / name

    return damage


FILES = ["v1.ckpt", "v2.index", f"v2{DATA}"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 1, 0.1, 0.5, 0.9, 0.99, -1])
def test_a_truncated_file_is_named(damaged, name, kept):
    def truncate(content):
        return content[: int(kept * len(content)) if 0 < kept < 1 else kept]

    path = damaged(name, truncate)
    message = open_error(path)
    assert message.startswith(str(path))
    assert re.search("truncated|damaged", message)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", FILES)
def test_a_changed_bit_is_found_or_does_not_matter(damaged, name, variables):
    """The end of a table holds a few bytes that nothing depends on."""
    size = damaged(name, bytes).stat().st_size
    expected = Checkpoint(variables, path="memory").identity
    for position in range(0, size, max(1, size // 40)):

        def flip(content, position=position):
            content[position] ^= 1 << position % 8
            return content

        path = damaged(name, flip)
        try:
            found = open_any(path).identity
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert position > 0.7 * size and name != f"v2{DATA}"
            assert found == expected


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_archive_is_named(tmp_path, places, kept):
    content = (places / "v1.tar.gz").read_bytes()
    path = tmp_path / "model.tar.gz"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ArchiveError, match=rf"{re.escape(str(path))} is damaged or tr"):
        open_any(path)


def test_a_damaged_checkpoint_in_an_archive_names_the_archive(tmp_path, damaged):
    path = damaged(f"v2{DATA}", lambda content: content[:-1])
    archive = tmp_path / "model.tar.gz"
    small_checkpoints.pack(archive, path, path.with_name("v2.index"))
    message = open_error(archive)
    assert message.startswith(f"{archive}: v2{DATA} is truncated or damaged")


# Provenance


@pytest.fixture
def generated(monkeypatch):
    """A stand-in of the small checkpoint's layout."""
    shapes = {n: v.shape for n, v in small_checkpoints.variables().items()}
    monkeypatch.setattr(layout, "variable_shapes", lambda: shapes)
    return stand_in.generate(3)


def test_trained_kernels_are_unverified(written):
    checkpoint = open_any(written / "v1.ckpt")
    assert checkpoint.provenance is Provenance.UNVERIFIED
    assert not checkpoint.is_stand_in


def test_a_stand_in_is_recognized_in_every_container(tmp_path, generated):
    stand_in.write_v1(generated, tmp_path / "v1.ckpt")
    small_checkpoints.write_v2(generated, tmp_path / "v2")
    small_checkpoints.pack(tmp_path / "v1.tar.gz", tmp_path / "v1.ckpt")
    for name in ("v1.ckpt", "v2", "v1.tar.gz"):
        checkpoint = open_checkpoint(tmp_path / name)
        assert checkpoint.provenance is Provenance.STAND_IN
        assert checkpoint.is_stand_in


def test_a_stand_in_with_a_changed_weight_is_still_one(generated):
    generated["layer_1/weights"][1, 1, 1, 1] += 1
    assert Checkpoint(generated, path="memory").is_stand_in


def test_a_stand_in_with_other_moving_averages_is_still_one(generated):
    generated["layer_1/BatchNorm/moving_mean"] = np.ones(8, np.float32)
    assert Checkpoint(generated, path="memory").is_stand_in


def test_published_is_only_what_is_in_the_published_archive(
    tmp_path, written, monkeypatch
):
    """Records that anybody can write, right in every point, prove nothing."""
    path = Path(shutil.copy(written / "v1.ckpt", tmp_path))
    archive = tmp_path / "archive.tar.gz"
    small_checkpoints.pack(archive, path)
    record = {
        "url": published.URL,
        "archive_md5": published.MD5,
        "file": path.name,
        "sha256": files.digest(path),
        "bytes": path.stat().st_size,
    }
    files.write_json(tmp_path / "provenance.json", record)
    for opened in (path, tmp_path, archive):
        assert open_any(opened).provenance is Provenance.UNVERIFIED

    monkeypatch.setattr(published, "MD5", files.digest(archive, "md5"))
    for opened in (path, tmp_path, archive):
        assert open_any(opened).provenance is Provenance.PUBLISHED

    copy = shutil.copy(path, tmp_path / "copy.ckpt")
    assert open_any(copy).provenance is Provenance.UNVERIFIED
    stand_in.write_v1(small_checkpoints.variables(seed=1), path)
    assert open_any(path).provenance is Provenance.UNVERIFIED
