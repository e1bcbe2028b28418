"""What artifacts say about themselves, in this version and in older ones."""

import json

import pytest
from published_directories import checkpoint

from exporters import extra_assets
from exporters import record as records
from exporters.errors import ArtifactError

VERSION_1 = {
    "format": "v3",
    "task": "classification",
    "checkpoint_identity": "abc",
    "stand_in": True,
    "provenance": "stand-in",
}


def make(is_stand_in=False):
    options = {"image_size": [299, 299]}
    return records.make("v3", "classification", checkpoint(is_stand_in), options)


@pytest.mark.parametrize("is_stand_in", [True, False])
def test_what_is_written_is_read(is_stand_in):
    record = make(is_stand_in)
    assert records.parse(record.to_text(), "here") == record
    assert record.stand_in is is_stand_in
    assert record.provenance == ("stand-in" if is_stand_in else "unverified")
    assert record.checkpoint_identity == checkpoint(is_stand_in).identity


def test_the_record_of_the_first_version_is_read():
    record = records.parse(json.dumps(VERSION_1), "here")
    assert record.schema_version == 1
    assert record.options == {}
    assert record.stand_in is True


def test_a_newer_version_is_refused_by_name():
    text = json.dumps(make().as_dict() | {"schema_version": 3, "more": "fields"})
    with pytest.raises(
        ArtifactError, match=r"here is a record of version 3.*newer irv2"
    ):
        records.parse(text, "here")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", b'"v3"', b"\x80", b"[" * 100_000], ids=repr
)
def test_damaged_record(text):
    with pytest.raises(ArtifactError, match=r"here holds no record.*export it again"):
        records.parse(text, "here")


@pytest.mark.parametrize(
    "change",
    [
        {"stand_in": "no"},
        {"stand_in": 1},
        {"format": 3},
        {"task": "detection"},
        {"provenance": "a friend"},
        {"options": None},
        {"more": "fields"},
        {"schema_version": "two"},
        {"schema_version": True},
    ],
    ids=str,
)
def test_changed_record(change):
    with pytest.raises(ArtifactError, match="holds no record"):
        records.parse(json.dumps(make().as_dict() | change), "here")


# In directories


def test_a_directory_keeps_it_where_loaders_do_not_look(tmp_path):
    extra_assets.write_record(tmp_path, make())
    assert extra_assets.read_record(tmp_path) == make()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")] == [
        "assets.extra/irv2.json"
    ]


def test_a_directory_without_one(tmp_path):
    assert extra_assets.read_record(tmp_path) is None
    assert extra_assets.read_record(tmp_path / "missing") is None


def test_a_directory_with_a_damaged_one_is_named(tmp_path):
    extra_assets.write_record(tmp_path, make())
    (tmp_path / extra_assets.RECORD).write_text("{")
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        extra_assets.read_record(tmp_path)
