"""Figures: as data, and as the file that is kept."""

import dataclasses
import json

import pytest

from benchmarks import figures as figures_
from benchmarks.figures import Spread


def test_spread_of_several_values():
    assert Spread.of([3, 1, 2.5]) == Spread(minimum=1, median=2.5, maximum=3, count=3)


def test_what_was_written_is_read_again(figures, tmp_path):
    path = tmp_path / "new" / "figures.json"
    figures_.write(figures, path)
    assert figures_.read(path) == figures


def test_figures_without_the_export_of_everything_are_read_again(figures, tmp_path):
    path = tmp_path / "figures.json"
    less = dataclasses.replace(figures, everything=None)
    figures_.write(less, path)
    assert figures_.read(path) == less


def test_ratios_and_machine_are_fields_of_the_file(figures, tmp_path):
    path = tmp_path / "figures.json"
    figures_.write(figures, path)
    found = json.loads(path.read_text())
    assert found["date"] == "2026-11-23T14:05:00Z"
    assert found["machine"]["flags"] == ["avx2", "vnni", "bfloat16"]
    assert found["threads"] == 2
    assert found["runs"][4]["to_float32"] == 0.344
    assert found["runs"][0]["latency"] == {
        "minimum": 0.09,
        "median": 0.093,
        "maximum": 0.11,
        "count": 3,
    }


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"date": 1}', '{"other": 1}'])
def test_other_files_are_named(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json holds no figures"):
        figures_.read(path)


def test_all_that_failed_is_told(figures):
    assert figures.failures == [
        "onnx-int8 by irv2: it does not agree",
        "onnx-int8 by irv2, run by openvino: it has an op that is unknown",
    ]


def test_what_newer_figures_lack_is_taken_from_older_ones(figures):
    newer = dataclasses.replace(
        figures,
        date="2026-11-23T15:00:00Z",
        artifacts=(dataclasses.replace(figures.artifacts[0], bytes=1),),
        runs=(dataclasses.replace(figures.runs[0], to_float32=7),),
        everything=None,
        versions={"irv2": "0.1.0", "onnxruntime": "1.32.0"},
    )
    found = figures_.completed(newer, figures)
    assert (found.date, found.versions) == (newer.date, figures.versions)
    assert found.artifacts == (newer.artifacts[0], *figures.artifacts[1:])
    assert found.runs == (newer.runs[0], *figures.runs[1:])
    assert found.everything == figures.everything


@pytest.mark.parametrize(
    "other",
    [
        {"date": "2026-11-22T14:05:00Z"},
        {"threads": 1},
        {"machine": figures_.Machine("Another", ("avx2",), 2, 0.01)},
        {"versions": {"onnxruntime": "1.31.0"}},
    ],
    ids=str,
)
def test_figures_that_do_not_go_together_stay_apart(other, figures):
    older = dataclasses.replace(figures, **other)
    newer = dataclasses.replace(figures, runs=figures.runs[:1])
    assert figures_.completed(newer, older) == newer
