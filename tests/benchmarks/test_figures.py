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
    assert found["machine"]["flags"] == ["avx2", "vnni"]
    assert found["threads"] == 2
    assert found["runs"][2]["to_float32"] == 0.344
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
