"""The further names of an installed artifact: placed, found again, and taken away."""

import json
import os
import shutil
from pathlib import Path

import pytest
from published_directories import PUBLISHED, content, make

from exporters.tfhub import handles
from exporters.tfhub.cache import cached_directory, install, uninstall

HANDLE = f"{PUBLISHED}/feature_vector/5"
URLS = handles.urls("feature_vector", 5)
MODELS = handles.kaggle_models("feature_vector", 5)
DATA = "variables/variables.data-00000-of-00001"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def kaggle(tmp_path):
    return tmp_path / "kaggle"


@pytest.fixture
def artifact(tmp_path):
    return make(tmp_path, "v5")


def everything_in(*directories):
    """Every path below directories, links not followed."""
    return {path for directory in directories for path in directory.rglob("*")}


def test_every_name_leads_to_the_one_copy(artifact, cache, kaggle):
    (placed,) = install([artifact], cache, kaggle)
    assert set(placed.names) == {*URLS, *MODELS}
    for url in URLS:
        assert placed.names[url] == cached_directory(url, cache)
    for model in MODELS:
        assert placed.names[model] == kaggle / "models" / model
    for name, place in placed.names.items():
        assert (place / DATA).resolve() == placed.directory / DATA, name
        assert content(place) == content(artifact)
    links = [path for path in everything_in(cache, kaggle) if path.is_symlink()]
    assert len(links) >= len(placed.names) - 1
    assert not any(os.path.isabs(os.readlink(link)) for link in links)


def test_result_lists_everything_that_was_placed(artifact, cache, kaggle):
    (placed,) = install([artifact], cache, kaggle)
    listed = {*placed.names.values(), *placed.files}
    inside = everything_in(*placed.names.values())
    parents = {parent for path in listed for parent in path.parents}
    assert everything_in(cache, kaggle) - inside - parents == listed
    assert placed.kept == {}


def test_uninstall_removes_every_name_and_leaves_what_was_there(
    artifact, cache, kaggle
):
    other = kaggle / "models/google/inception-v3/tensorFlow2/classification/2"
    other.mkdir(parents=True)
    (cache / "mine").mkdir(parents=True)
    before = everything_in(cache, kaggle)
    install([artifact], cache, kaggle)
    assert everything_in(cache, kaggle) > before
    (found,) = uninstall(cache).removed
    assert found.left == ()
    assert everything_in(cache, kaggle) == before


def test_copies_where_links_cannot_be_made(artifact, cache, kaggle, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(os, "link", refuse)
    (placed,) = install([artifact], cache, kaggle)
    for place in placed.names.values():
        assert not place.is_symlink()
        assert content(place) == content(artifact)
    uninstall(cache)
    assert everything_in(cache, kaggle) == set()


def test_copies_take_no_space_where_they_need_not(artifact, cache, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    (placed,) = install([artifact], cache)
    assert (placed.directory / DATA).stat().st_nlink == len(URLS)


def test_a_moved_cache_works_on(artifact, cache, tmp_path):
    install([artifact], cache)
    moved = cache.rename(tmp_path / "moved")
    for url in URLS:
        assert content(cached_directory(url, moved)) == content(artifact)
    uninstall(moved)
    assert everything_in(moved) == set()


# Where kagglehub's cache is


def test_only_the_cache_that_is_named_is_touched(artifact, cache, home):
    (placed,) = install([artifact], cache)
    assert set(placed.names) == set(URLS)
    assert not home.exists()


def test_by_default_both_caches(artifact, home, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    (placed,) = install([artifact])
    models = home / ".cache/kagglehub/models"
    assert {placed.names[model] for model in MODELS} == {models / m for m in MODELS}


def test_cache_of_kagglehub_s_in_the_environment(artifact, cache, kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(kaggle))
    (placed,) = install([artifact], cache)
    assert placed.names[MODELS[0]] == kaggle / "models" / MODELS[0]


def test_links_in_an_earlier_cache_of_kagglehub_s_are_not_forgotten(
    artifact, cache, kaggle, tmp_path
):
    install([artifact], cache, kaggle)
    install([artifact], cache, tmp_path / "other")
    for directory in (kaggle, tmp_path / "other"):
        assert content(directory / "models" / MODELS[0]) == content(artifact)
    uninstall(cache)
    assert everything_in(cache, kaggle, tmp_path / "other") == set()


def test_the_last_installation_has_the_links(artifact, cache, kaggle, tmp_path):
    install([artifact], cache, kaggle)
    install([artifact], tmp_path / "other", kaggle)
    (found,) = uninstall(cache).removed
    assert set(found.left) == {kaggle / "models" / model for model in MODELS}
    for model in MODELS:
        assert content(kaggle / "models" / model) == content(artifact)
    uninstall(tmp_path / "other")
    assert everything_in(kaggle) == set()


def test_cache_of_kagglehub_s_that_cannot_be_written_is_said(artifact, cache, tmp_path):
    (tmp_path / "file").write_text("")
    (placed,) = install([artifact], cache, tmp_path / "file")
    assert set(placed.names) == set(URLS)
    assert {place.name for place in placed.kept} == {"2"}
    assert all("file" in why for why in placed.kept.values())
    uninstall(cache)
    assert everything_in(cache) == set()


# What others put there


@pytest.mark.parametrize("name", [URLS[1], MODELS[0]])
def test_what_others_put_there_is_kept_and_said(artifact, cache, kaggle, name):
    place = (
        kaggle / "models" / name if name in MODELS else cached_directory(name, cache)
    )
    place.mkdir(parents=True)
    (place / "saved_model.pb").write_bytes(b"downloaded")
    (placed,) = install([artifact], cache, kaggle)
    assert list(placed.kept) == [place]
    assert name not in placed.names
    (found,) = uninstall(cache).removed
    assert found.left == ()
    assert content(place) == {"saved_model.pb": b"downloaded"}

    (placed,) = install([artifact], cache, kaggle, force=True)
    assert name in placed.names and placed.kept == {}
    uninstall(cache)
    assert not place.exists()


def test_a_foreign_link_is_kept(artifact, cache, tmp_path):
    place = cached_directory(URLS[1], cache)
    cache.mkdir()
    place.symlink_to(tmp_path)
    (placed,) = install([artifact], cache)
    assert list(placed.kept) == [place]
    uninstall(cache)
    assert place.resolve() == tmp_path


def test_what_took_the_place_of_a_link_is_left(artifact, cache, kaggle):
    (placed,) = install([artifact], cache, kaggle)
    place = placed.names[MODELS[0]]
    shutil.rmtree(place)  # As kagglehub does before it downloads again.
    place.mkdir()
    (place / "saved_model.pb").write_bytes(b"downloaded")
    (found,) = uninstall(cache).removed
    assert found.left == (place,)
    assert content(place) == {"saved_model.pb": b"downloaded"}
    assert place.with_name("2.complete").exists()


def test_what_was_added_among_links_is_left(artifact, cache, kaggle):
    (placed,) = install([artifact], cache, kaggle)
    place = placed.names[MODELS[0]]
    (place / "notes.txt").write_bytes(b"mine")
    (again,) = install([artifact], cache, kaggle)
    assert list(again.kept) == [place]
    (found,) = uninstall(cache).removed
    assert found.left == (place,)
    assert (place / "notes.txt").read_bytes() == b"mine"


def test_links_are_repaired(artifact, cache, kaggle):
    (placed,) = install([artifact], cache, kaggle)
    for place in list(placed.names.values())[::2]:
        place.unlink() if place.is_symlink() else shutil.rmtree(place)
    (placed.names[MODELS[1]] / DATA).unlink()
    (placed,) = install([artifact], cache, kaggle)
    assert set(placed.names) == {*URLS, *MODELS}
    assert all(content(p) == content(artifact) for p in placed.names.values())


def test_links_that_lead_nowhere_are_removed(artifact, cache, kaggle):
    (placed,) = install([artifact], cache, kaggle)
    shutil.rmtree(placed.directory)
    uninstall(cache)
    assert everything_in(cache, kaggle) == set()


def test_receipt_without_links(artifact, cache):
    """As the first version wrote it."""
    (placed,) = install([artifact], cache)
    file = Path(f"{placed.directory}.irv2.json")
    receipt = json.loads(file.read_text())
    for link in receipt.pop("links"):
        (cache / link).unlink()
    file.write_text(json.dumps(receipt))
    uninstall(cache)
    assert everything_in(cache) == set()
