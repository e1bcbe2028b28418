"""The record in an exported directory."""

import json

import pytest
from published_directories import checkpoint

from exporters import provenance
from exporters.artifact import ArtifactError


def write(directory, is_stand_in):
    provenance.write_record(
        directory,
        format="v3",
        task="classification",
        checkpoint=checkpoint(is_stand_in),
    )


@pytest.mark.parametrize("is_stand_in", [True, False])
def test_what_is_written_is_read(tmp_path, is_stand_in):
    write(tmp_path, is_stand_in)
    assert provenance.read_record(tmp_path) == provenance.Record(
        format="v3",
        task="classification",
        checkpoint_identity=checkpoint(is_stand_in).identity,
        stand_in=is_stand_in,
        provenance="stand-in" if is_stand_in else "unverified",
    )


def test_no_record(tmp_path):
    assert provenance.read_record(tmp_path) is None
    assert provenance.read_record(tmp_path / "missing") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"v3"', "\udc80"])
def test_damaged_record(tmp_path, text):
    write(tmp_path, False)
    path = tmp_path / provenance.RECORD
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ArtifactError, match="export it again"):
        provenance.read_record(tmp_path)


@pytest.mark.parametrize(
    "change", [{"stand_in": "no"}, {"format": 3}, {"more": "fields"}]
)
def test_record_of_another_version(tmp_path, change):
    write(tmp_path, False)
    path = tmp_path / provenance.RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match="another version"):
        provenance.read_record(tmp_path)
