"""Tables, as a log and as terminals of several widths show them."""

import pytest
from terminals import run, run_on_terminal, without_colours

NAME = "inception_resnet_v2-classification-tflite-dynamic-int8-stand-in.tflite"
EXPORTED = f"""
columns = [
    Column("artifact", folds=True),
    Column("size", "right"),
    Column("error / limit"),
    Column("top-1", "right", optional=1),
    Column("seconds", "right", optional=2),
    Column("result"),
]
console.table(columns, [
    ["{NAME}", "57.1 MB", "1.6e-01 / 3e-01", "100 %", "5.0", Verdict("agrees", True)],
    ["v3", "230.6 MB", "0.0e+00 / 2e-05", "", "37.6", Verdict("DIFFERS", False)],
])
"""


def log(script, **environment):
    done = run(script, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().splitlines()


def terminal(script, columns, **environment):
    """What a terminal is sent, by lines, which all fit."""
    sent, done = run_on_terminal(script, columns, **environment)
    assert done.returncode == 0
    lines = [line.rstrip() for line in without_colours(sent).splitlines()]
    assert all(len(line) <= columns for line in lines)
    return lines


def test_a_log_has_a_line_for_every_row():
    assert log(EXPORTED) == [
        f"{'artifact':70}      size  error / limit    top-1  seconds  result",
        "-" * 122,
        f"{NAME}   57.1 MB  1.6e-01 / 3e-01  100 %      5.0  agrees",
        f"{'v3':70}  230.6 MB  0.0e+00 / 2e-05            37.6  DIFFERS",
    ]


def test_a_wide_terminal_shows_the_same():
    assert terminal(EXPORTED, 122) == log(EXPORTED)


def test_on_80_columns_names_fold_and_what_is_optional_makes_room():
    assert terminal(EXPORTED, 80) == [
        "artifact                                   size  error / limit    top-1  result",
        "-" * 80,
        "inception_resnet_v2-classification-     57.1 MB  1.6e-01 / 3e-01  100 %  agrees",
        "tflite-dynamic-int8-stand-in.tflite",
        "v3                                     230.6 MB  0.0e+00 / 2e-05         DIFFERS",
        "(no room for: seconds)",
    ]


def test_what_is_optional_goes_in_its_order():
    wide, middle, narrow = (terminal(EXPORTED, width)[-1] for width in (122, 80, 72))
    assert "no room" not in wide
    assert middle == "(no room for: seconds)"
    assert narrow == "(no room for: top-1, seconds)"


def test_what_is_left_out_is_named_literally():
    script = """
columns = [Column("a"), Column("[b] 12", optional=1)]
console.table(columns, [["x" * 20, "y" * 20]])
"""
    sent, _ = run_on_terminal(script, 40)
    assert sent.endswith("\n(no room for: [b] 12)\n")


def test_a_terminal_too_narrow_for_rows_gets_lists():
    assert terminal(EXPORTED, 40) == [
        "artifact       inception_resnet_v2-",
        "               classification-tflite-",
        "               dynamic-int8-stand-",
        "               in.tflite",
        "size           57.1 MB",
        "error / limit  1.6e-01 / 3e-01",
        "top-1          100 %",
        "seconds        5.0",
        "result         agrees",
        "",
        "artifact       v3",
        "size           230.6 MB",
        "error / limit  0.0e+00 / 2e-05",
        "seconds        37.6",
        "result         DIFFERS",
    ]


@pytest.mark.parametrize("width", [36, 40, 65, 80, 100])
def test_no_word_is_ever_broken(width):
    words = {"57.1", "230.6", "MB", "1.6e-01", "3e-01", "2e-05", "agrees", "DIFFERS"}
    parts = {"inception_resnet_v2-", "classification-", "tflite-", "int8-", "in.tflite"}
    lines = terminal(EXPORTED, width)
    assert words <= {word for line in lines for word in line.split()}
    assert all(any(part in line for line in lines) for part in parts)


def test_headers_fold_before_cells():
    script = """
console.table(
    [Column("file", folds=True), Column("relative error")], [["some-long-name", "0.1"]]
)
"""
    assert terminal(script, 24) == [
        "                relative",
        "file            error",
        "------------------------",
        "some-long-name  0.1",
    ]


def test_names_are_parted_where_they_have_parts():
    script = """
cells = ["https://host/models/some-name", "option 2.4e-07", "--option-name x", "/a/directory/file"]
console.table([Column("x", folds=True)], [[cell] for cell in cells])
"""
    assert terminal(script, 13) == [
        "x",
        "-" * 13,
        "https://host/",
        "models/some-",
        "name",
        "option",
        "2.4e-07",
        "--option-name",
        "x",
        "/a/directory/",
        "file",
    ]


def test_columns_without_content_are_left_out():
    script = """
columns = [Column("a"), Column("nothing"), Column("b")]
console.table(columns, [["1", "", "2"], ["3", "", ""]])
"""
    assert log(script) == ["a  b", "----", "1  2", "3"]


def test_without_rows_there_is_a_header():
    assert log('console.table([Column("a"), Column("long")], [])') == [
        "a  long",
        "-------",
    ]


def test_cells_are_shown_literally():
    script = """
cells = ["[red]x", "a[0].onnx", ":smile:", "[/]", "\\x1b[31m", "tab\\there"]
console.table([Column("[b]")], [[cell] for cell in cells])
"""
    expected = ["[b]", "-" * 12, "[red]x", "a[0].onnx", ":smile:", "[/]", "\\x1b[31m"]
    expected.append("tab     here")
    assert log(script) == expected
    assert terminal(script, 80) == expected


def test_wide_characters_take_two_columns():
    script = 'console.table([Column("a"), Column("b")], [["漢字", "1"], ["x", "2"]])'
    assert log(script) == ["a     b", "-------", "漢字  1", "x     2"]


def test_verdicts_have_colours_on_terminals_only():
    sent, _ = run_on_terminal(EXPORTED, 122)
    assert "\x1b[32magrees" in sent
    assert "\x1b[1;31mDIFFERS" in sent
    assert b"\x1b" not in run(EXPORTED, FORCE_COLOR="1").stdout


def test_no_colours_where_they_are_not_wanted():
    sent, _ = run_on_terminal(EXPORTED, 122, NO_COLOR="1")
    assert "\x1b[3" not in sent and ";3" not in sent
    sent, _ = run_on_terminal(EXPORTED, 122, TERM="dumb")
    assert "\x1b" not in sent


# Fields


DIGEST = "0123456789abcdef" * 4
FIELDS = f"""
console.fields([
    ("kind", "checkpoint"),
    ("variables", "898, in several words that take much room"),
    ("empty", ""),
    ("identity", "{DIGEST}"),
    ("layout", Verdict("wrong\\ntwo lines", False)),
])
"""


def test_fields_of_a_log_are_whole():
    assert log(FIELDS) == [
        "kind       checkpoint",
        "variables  898, in several words that take much room",
        f"identity   {DIGEST}",
        "layout     wrong",
        "           two lines",
    ]


def test_fields_fold_on_terminals_but_a_digest_stays_whole():
    sent, _ = run_on_terminal(FIELDS, 40)
    assert without_colours(sent).splitlines() == [
        "kind       checkpoint",
        "variables  898, in several words that",
        "           take much room",
        f"identity   {DIGEST}",
        "layout     wrong",
        "           two lines",
    ]


def test_no_fields_are_nothing():
    assert log("console.fields([])") == [""]
