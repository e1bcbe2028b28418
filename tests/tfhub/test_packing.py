"""What is packed, who can read it, and what is left when it fails."""

import gzip
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import small_graph_model
from file_server import served
from published_directories import PUBLISHED, content, make, write_manifest
from small_networks import BLOCK

from checkpoints import files
from exporters import manifest
from exporters.errors import ArtifactError
from exporters.network import layers
from exporters.tfhub import cache
from exporters.tfhub.artifacts import InstallError
from exporters.tfhub.packing import pack

DATA = "variables/variables.data-00000-of-00001"


@pytest.fixture
def artifact(tmp_path):
    """An artifact of a few parts: weights and a graph, neither a whole number of them."""
    path = make(tmp_path)
    weights = np.random.default_rng(0).normal(size=700_000).astype(np.float32)
    (path / DATA).write_bytes(weights.tobytes()[:-1])
    (path / "saved_model.pb").write_bytes(b"node { op: 'Conv2D' } " * 100_001)
    write_manifest(path)
    return path


def test_pack_by_path_of_the_handle(tmp_path):
    make(tmp_path / "all", "v1")
    make(tmp_path / "all", "v5", "classification", is_stand_in=True)
    output = tmp_path / "served"
    packed = pack([tmp_path / "all"], output)
    models = output / "google/imagenet/inception_resnet_v2"
    assert {(item.handle, item.path) for item in packed} == {
        (
            f"{PUBLISHED}/classification/5",
            models / "classification/5-stand-in.tar.gz",
        ),
        (f"{PUBLISHED}/feature_vector/1", models / "feature_vector/1.tar.gz"),
    }
    assert {path for path in output.rglob("*") if path.is_file()} == {
        item.path for item in packed
    }
    assert all(item.bytes == item.path.stat().st_size for item in packed)


@pytest.mark.parametrize("ending", ["", "/", ".tar.gz"])
def test_handle_of_one_s_own(tmp_path, ending):
    own = f"https://example.org/models/flowers/1{ending}"
    (packed,) = pack([make(tmp_path)], tmp_path / "served", handle=own)
    assert packed.handle == own
    assert packed.path == tmp_path / "served/models/flowers/1.tar.gz"


# TF.js


@pytest.fixture
def graph_models(tmp_path, monkeypatch):
    """A directory with models of TF.js, two of which had handles, and a SavedModel."""
    monkeypatch.setattr(layers, "inception_resnet_v2", lambda classes: BLOCK)
    directory = tmp_path / "models"
    make(directory)
    for name, is_stand_in in (
        ("tfjs-v1", False),
        ("tfjs-v3", True),
        ("tfjs-v3-uint8", False),
    ):
        path = small_graph_model.write(
            directory / name, name, is_stand_in=is_stand_in, num_classes=1001
        )
        add_manifest(path)
    return directory


def add_manifest(path):
    described = {"files": files.digests(path), "handle": "some"}
    manifest.path_of(path).write_text(json.dumps(described))


def test_tfjs_by_path_of_the_handle(graph_models, tmp_path):
    output = tmp_path / "served"
    packed = pack([graph_models], output)
    url = "google/tfjs-model/imagenet/inception_resnet_v2/classification"
    found = {
        item.handle.removeprefix("https://tfhub.dev/"): item.path.relative_to(output)
        for item in packed
        if "tfjs" in item.handle
    }
    assert found == {
        f"{url}/1/default/1": Path(f"{url}/1/default/1"),
        f"{url}/3/default/1": Path(f"{url}/3/default/1-stand-in"),
    }
    for item, name in zip(packed[1:], ("tfjs-v1", "tfjs-v3")):
        assert content(item.path) == content(graph_models / name)
        assert item.bytes == sum(len(value) for value in content(item.path).values())
        assert item.warning is None


def test_tfjs_under_a_handle_of_one_s_own(graph_models, tmp_path):
    """Of any format: there is none that only the published ones could have."""
    own = "https://example.org/models/flowers/1"
    for name in ("tfjs-v1", "tfjs-v3-uint8"):
        (packed,) = pack([graph_models / name], tmp_path / name, handle=own)
        assert packed.path == tmp_path / name / "models/flowers/1"
        assert (packed.path / "model.json").is_file()


def test_tfjs_of_own_classes_has_no_published_handle(graph_models, tmp_path):
    path = small_graph_model.write(tmp_path / "own", is_stand_in=False, num_classes=6)
    with pytest.raises(InstallError, match="classes of its own"):
        pack([path], tmp_path / "served")


def test_tfjs_without_a_manifest_comes_with_a_warning(graph_models, tmp_path):
    manifest.path_of(graph_models / "tfjs-v1").unlink()
    (packed,) = pack([graph_models / "tfjs-v1"], tmp_path / "served")
    assert "no manifest" in packed.warning


def test_tfjs_that_was_changed(graph_models, tmp_path):
    path = graph_models / "tfjs-v1"
    shard = path / "group1-shard1of1.bin"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    with pytest.raises(
        ArtifactError, match=r"not as its manifest says.*shard1of1\.bin"
    ):
        pack([path], tmp_path / "served")
    manifest.path_of(path).unlink()
    (path / "model.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"model\.json has the format"):
        pack([path], tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_tfjs_does_not_overwrite(graph_models, tmp_path):
    (packed,) = pack([graph_models / "tfjs-v1"], tmp_path / "served")
    (packed.path / "mine").write_text("mine")
    with pytest.raises(InstallError, match="exists already"):
        pack([graph_models / "tfjs-v1"], tmp_path / "served")
    assert (packed.path / "mine").exists()
    pack([graph_models / "tfjs-v1"], tmp_path / "served", force=True)
    assert content(packed.path) == content(graph_models / "tfjs-v1")


def test_several_are_packed_again(graph_models, tmp_path):
    """What each replaces is not in the way of the next, files or a directory."""
    first = pack([graph_models], tmp_path / "served")
    before = {item.path: content(item.path) for item in first if item.path.is_dir()}
    assert len(before) == 2 and len(first) == 3
    again = pack([graph_models], tmp_path / "served", force=True)
    assert again == first
    assert {path: content(path) for path in before} == before


def test_tfjs_is_not_installed(graph_models, tmp_path):
    """It has no place in the library's cache, nor in kagglehub's."""
    installed = cache.install([graph_models], tmp_path / "cache")
    assert [item.handle for item in installed] == [f"{PUBLISHED}/feature_vector/3"]
    with pytest.raises(ArtifactError, match="exported as v1, v3, v4 or v5"):
        cache.install([graph_models / "tfjs-v1"], tmp_path / "cache")


def test_what_can_be_packed_is_named(tmp_path):
    (tmp_path / "file.onnx").write_bytes(b"\x08\x08\x12\x04irv2\x3a\x02\x0a\x00")
    with pytest.raises(ArtifactError, match="v4, v5, tfjs-v1 or tfjs-v3"):
        pack([tmp_path / "file.onnx"], tmp_path / "served")


# What is in an archive


def test_packed_content_and_its_order(artifact, tmp_path):
    (packed,) = pack([artifact], tmp_path / "served")
    with tarfile.open(packed.path) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert content(tmp_path / "unpacked") == content(artifact)
    # Old versions of the library make no directories of their own.
    for name in names:
        parent = str(Path(name).parent)
        assert parent == "." or names.index(parent) < names.index(name)


def test_readers_that_stop_at_the_first_member_read_all(artifact, tmp_path):
    """As tarfile does where it reads a stream, which is how the library calls it."""
    (packed,) = pack([artifact], tmp_path / "served")
    with (
        packed.path.open("rb") as file,
        tarfile.open(mode="r|*", fileobj=file) as tar,
    ):
        found = {
            member.name: tar.extractfile(member).read() if member.isfile() else None
            for member in tar
        }
    assert found == content(artifact)


@pytest.mark.skipif(not shutil.which("tar"), reason="needs the program tar")
@pytest.mark.skipif(not shutil.which("gzip"), reason="needs the program gzip")
def test_programs_read_it(artifact, tmp_path):
    (packed,) = pack([artifact], tmp_path / "served")
    subprocess.run(["gzip", "--test", packed.path], check=True)
    (tmp_path / "unpacked").mkdir()
    subprocess.run(
        ["tar", "-xzf", packed.path, "-C", tmp_path / "unpacked"], check=True
    )
    assert content(tmp_path / "unpacked") == content(artifact)


def test_it_is_compressed(artifact, tmp_path):
    (packed,) = pack([artifact], tmp_path / "served")
    assert packed.bytes < 0.95 * (artifact / DATA).stat().st_size
    assert len(gzip.decompress(packed.path.read_bytes())) % tarfile.BLOCKSIZE == 0


def test_same_artifact_same_bytes_whatever_the_number_of_processors(
    artifact, tmp_path, monkeypatch
):
    found = set()
    for processors in (1, 2, 7, None):
        monkeypatch.setattr(os, "cpu_count", lambda: processors)  # noqa: B023
        copy = shutil.copytree(artifact, tmp_path / f"{processors}" / artifact.name)
        (copy / "saved_model.pb").touch()
        (copy / "saved_model.pb").chmod(0o600)
        write_manifest(copy)
        (packed,) = pack([copy], tmp_path / f"served-{processors}")
        found.add(packed.path.read_bytes())
    assert len(found) == 1


def test_progress_in_bytes(tmp_path, artifact):
    other = make(tmp_path, "v4")
    told = []
    pack([artifact, other], tmp_path / "served", progress=told.append)
    told = [(step.done, step.total) for step in told if step.name == "pack"]
    total = sum(
        file.stat().st_size
        for path in (artifact, other)
        for file in path.rglob("*")
        if file.is_file()
    )
    assert told[-1] == (total, total)
    assert {of for _, of in told} == {total}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({done for done, _ in told}) > 4


def test_pack_does_not_overwrite(artifact, tmp_path):
    (packed,) = pack([artifact], tmp_path)
    packed.path.write_bytes(b"mine")
    with pytest.raises(InstallError, match="exists already"):
        pack([artifact], tmp_path)
    assert packed.path.read_bytes() == b"mine"
    pack([artifact], tmp_path, force=True)
    assert packed.path.read_bytes() != b"mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_nothing_is_left_where_packing_ends_early(artifact, tmp_path, error):
    output = tmp_path / "www" / "models"

    def fail(step):
        if step.name == "pack":
            assert output.exists()
            raise error

    with pytest.raises(error):
        pack([artifact], output, progress=fail)
    assert not (tmp_path / "www").exists()


def test_output_is_a_file(artifact, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallError, match="is a file"):
        pack([artifact], tmp_path / "file")


def test_missing_manifest_is_said(tmp_path, monkeypatch):
    (item,) = cache.find([make(tmp_path)]).values()
    warned = type(item)(**(vars(item) | {"warning": "no manifest"}))
    monkeypatch.setattr(
        "exporters.tfhub.packing.find", lambda *_, **__: {warned.urls[0]: warned}
    )
    (packed,) = pack([tmp_path], tmp_path / "served")
    assert packed.warning == "no manifest"


@pytest.mark.slow
def test_library_downloads_what_was_packed(artifact, tmp_path, monkeypatch):
    hub = pytest.importorskip("tensorflow_hub")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    (packed,) = pack([artifact], tmp_path / "served")
    name = packed.path.relative_to(tmp_path / "served").as_posix()
    with served(tmp_path / "served") as address:
        downloaded = hub.resolve(f"{address}/{name}")
    assert content(Path(downloaded)) == content(artifact)
    assert cache.uninstall(tmp_path / "cache").removed == ()
