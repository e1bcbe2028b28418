"""Tables in Markdown files are what the kept figures say, and nobody types them."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks import figures as figures_
from benchmarks import tables

ROOT = Path(__file__).parents[2]
SAMPLE = Path(__file__).parent / "sample.md"
LATENCY = "<!-- benchmarks: latency, a-machine -->\n<!-- /benchmarks -->\n"


@pytest.fixture
def history(tmp_path, figures):
    figures_.write(figures, tmp_path / "history" / "a-machine" / "2026-11-23.json")
    return tmp_path / "history"


@pytest.fixture
def run(history):
    return lambda *arguments: tables.main(
        ["--history", str(history), *map(str, arguments)]
    )


def test_the_sample_has_every_table_as_it_should_be(history):
    text = SAMPLE.read_text()
    assert tables.with_tables(text, history) == text


def test_check_finds_a_number_that_was_typed(run, tmp_path, capfd):
    path = tmp_path / "page.md"
    path.write_text(SAMPLE.read_text())
    assert run("--check", path) == 0
    path.write_text(SAMPLE.read_text().replace("93 (90 to 110)", "83 (80 to 110)"))
    assert run("--check", path) == 1
    assert "--write" in capfd.readouterr().err


def test_write_mends_it_and_leaves_the_rest_alone(run, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(
        "# Title\n\n" + SAMPLE.read_text().replace("93 (90", "83 (80") + "\nEnd"
    )
    assert run("--write", path) == 0
    assert path.read_text() == "# Title\n\n" + SAMPLE.read_text() + "\nEnd"


def test_one_file_of_several(run, tmp_path, capfd):
    right, wrong = tmp_path / "right.md", tmp_path / "wrong.md"
    right.write_text(SAMPLE.read_text())
    wrong.write_text(LATENCY)
    assert run("--check", wrong, right) == 1
    told = capfd.readouterr().err
    assert "wrong.md: its tables" in told and "right.md" not in told
    assert run("--write", right, wrong) == 0
    assert run("--check", right, wrong) == 0


def test_the_newest_figures_count(history, figures):
    newer = dataclasses.replace(
        figures, date="2027-01-02T00:00:00Z", runs=figures.runs[:1]
    )
    figures_.write(newer, history / "a-machine" / "2027-01-02.json")
    assert "openvino" not in tables.with_tables(LATENCY, history)


def test_figures_of_one_day_complete_each_other(history, figures):
    run = dataclasses.replace(figures.runs[0], latency=figures_.Spread.of([0.2]))
    newer = dataclasses.replace(figures, date="2026-11-23T15:00:00Z", runs=(run,))
    figures_.write(newer, history / "a-machine" / "2026-11-23T15.json")
    text = tables.with_tables(LATENCY, history)
    assert "| onnx-float32 | irv2 | 200 | 23 |" in text


def test_the_auxiliary_classifier_is_no_choice(history, figures):
    run = dataclasses.replace(
        figures.runs[0],
        format="tflite-published",
        latency=figures_.Spread.of([0.001]),
        throughput=figures_.Spread.of([1000]),
    )
    newer = dataclasses.replace(figures, runs=(run, *figures.runs))
    figures_.write(newer, history / "a-machine" / "2026-11-24.json")
    block = LATENCY.replace("latency", "choice")
    assert "| float32 | onnx-float32" in tables.with_tables(block, history)


def test_text_without_tables_stays(history):
    assert tables.with_tables("| a | b |\n", history) == "| a | b |\n"


@pytest.mark.parametrize(
    "text, said",
    [
        (LATENCY.replace("latency", "speed"), "unknown table 'speed'"),
        (LATENCY.replace("a-machine", "no-machine"), "no figures in .*no-machine"),
        (LATENCY.replace("<!-- /benchmarks -->", ""), "begins or ends"),
        ("<!-- /benchmarks -->\n", "begins or ends"),
        ("<!-- benchmarks: latency -->\n<!-- /benchmarks -->\n", "begins or ends"),
    ],
)
def test_comments_that_cannot_be_followed(text, said, history, run, tmp_path, capfd):
    with pytest.raises(tables.TablesError, match=said):
        tables.with_tables(text, history)
    path = tmp_path / "page.md"
    path.write_text(text)
    for verb in ("--check", "--write"):
        assert run(verb, path) == 1
        assert str(path) in capfd.readouterr().err
    assert path.read_text() == text


def test_damaged_figures_are_named(history):
    (history / "a-machine" / "2027-01-02.json").write_text("{")
    with pytest.raises(tables.TablesError, match=r"2027-01-02\.json holds no figures"):
        tables.with_tables(LATENCY, history)


def test_readme_and_docs_say_what_was_measured():
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    texts = {path: path.read_text() for path in paths}
    if not tables.HISTORY.is_dir():
        pytest.skip("there are no figures yet")
    assert {path: tables.with_tables(text) for path, text in texts.items()} == texts
