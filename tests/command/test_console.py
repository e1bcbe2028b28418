"""The screen: our messages and nothing of the libraries', in pipes and on terminals."""

import os
import re
import subprocess
import sys

import pytest
from terminals import BEGIN, ROOT, run, run_on_terminal, shown, without_colours

LONG = "https://host/" + "0123456789abcdef" * 16 + "/[red]x/a[0].onnx"
PROSE = "A message of many words, which has to be parted somewhere on a terminal."


def lines(data):
    return data.decode().splitlines()


# Libraries


NOISE = """
    print("noise")
    sys.stdout.write("noise")
    sys.stderr.write("noise")
    os.write(1, b"noise")
    os.write(2, b"noise")
    os.system("echo noise; echo noise >&2")
"""
ALONE = f"""
with console.alone():
    {NOISE}
    console.say("a message")
    console.result("a result")
    with console.step("a step") as step:
        {NOISE.replace(chr(10), chr(10) + "    ")}
    {NOISE}
console.say("the last message")
"""


def test_libraries_are_not_heard_and_we_are():
    done = run(ALONE)
    assert done.returncode == 0
    assert lines(done.stdout) == ["a result"]
    first, step, last = lines(done.stderr)
    assert (first, last) == ("a message", "the last message")
    assert step.startswith("  a step ... ")


def test_libraries_are_not_heard_on_a_terminal():
    sent, _ = run_on_terminal(ALONE)
    assert "noise" not in sent
    first, result, step, last = shown(sent)
    assert (first, result, last) == ("a message", "a result", "the last message")
    assert step.startswith("  a step ... ")


def test_what_was_written_before_and_after_is_shown():
    done = run(
        """
print("before")
sys.stderr.write("before\\n")
with console.alone():
    print("noise")
print("after")
sys.stderr.write("after\\n")
"""
    )
    assert done.stdout == done.stderr == b"before\nafter\n"


def test_an_error_of_ours_is_shown_with_its_traceback():
    done = run('with console.alone():\n    raise RuntimeError("a bug of ours")')
    assert done.returncode == 1
    assert done.stderr.startswith(b"Traceback")
    assert done.stderr.endswith(b"RuntimeError: a bug of ours\n")


DEATH = """
def library():
    os.abort()
with console.alone(), console.step("a step"):
    library()
"""


def test_where_a_library_ends_the_process_is_shown():
    done = run(DEATH)
    assert done.returncode < 0
    assert b"Fatal Python error: Aborted" in done.stderr
    assert b"in library" in done.stderr


def test_a_terminal_is_left_in_order_where_a_library_ends_the_process():
    sent, done = run_on_terminal(DEATH)
    assert done.returncode < 0
    assert "Fatal Python error: Aborted" in shown(sent)
    assert "\x1b[?25l" not in sent  # The cursor is not hidden.


# Messages and results


def test_messages_and_results_are_literal():
    script = f"""
for show in (console.say, console.result):
    show({LONG!r})
    show(":smile: [/] [bold]x[/bold]")
    show()
""".replace("show()", 'show("")')
    expected = [LONG, ":smile: [/] [bold]x[/bold]", ""]
    done = run(script)
    assert lines(done.stdout) == lines(done.stderr) == expected
    sent, _ = run_on_terminal(script, 40)
    assert sent.splitlines() == [*expected, *expected]


def test_a_path_in_a_message_stays_whole():
    sent, _ = run_on_terminal(f"console.say('It is at {LONG} now.')", 40)
    assert sent.splitlines() == [f"It is at {LONG}", "now."]
    sent, _ = run_on_terminal(f"console.error({LONG!r})", 40)
    assert without_colours(sent) == f"irv2: {LONG}\n"


def test_messages_are_parted_between_words_on_terminals_only():
    script = f"console.say({PROSE!r})"
    assert lines(run(script).stderr) == [PROSE]
    sent, _ = run_on_terminal(script, 40)
    assert sent.splitlines() == [
        "A message of many words, which has to be",
        "parted somewhere on a terminal.",
    ]


ERROR = f"""
console.error('''{PROSE}
  File "a/file/with/a/long/name.py", line 7, in a_function

The end
''')
"""


def test_an_error_of_several_lines_is_whole():
    assert lines(run(ERROR).stderr) == [
        f"irv2: {PROSE}",
        '    File "a/file/with/a/long/name.py", line 7, in a_function',
        "",
        "  The end",
    ]


def test_an_error_on_a_terminal_is_parted_except_for_what_is_indented():
    sent, _ = run_on_terminal(ERROR, 40)
    assert "\x1b[1;31mirv2:\x1b[0m A message" in sent
    assert without_colours(sent).splitlines() == [
        "irv2: A message of many words, which",
        "  has to be parted somewhere on a",
        "  terminal.",
        '    File "a/file/with/a/long/name.py", line 7, in a_function',
        "",
        "  The end",
    ]


def test_a_message_cannot_steer_the_terminal():
    script = """
name = "\\x1b]0;title\\x07 \\x1b[2J \\r \\x9b2J.onnx"
console.say(name)
console.error(name)
with console.step(name + "\\n") as step:
    step(name)
    step.outcome = Verdict(name, True)
console.table([Column("name")], [[name]])
console.fields([("name", name)])
"""
    name = r"\x1b]0;title\x07 \x1b[2J \x0d \x9b2J.onnx"
    sent, done = run_on_terminal(script, 200)
    assert done.returncode == 0
    found = "\n".join(shown(sent, 200))  # Fails on codes that are not expected.
    assert found.count(name) == 6
    assert run(script).stderr.count(name.encode()) == 4


def test_a_table_stands_apart_from_messages_on_a_terminal():
    script = """
for text in ("first", "again"):
    console.say(text)
    console.table([Column("name")], [[text]])
console.fields([("name", "third")])
"""
    sent, done = run_on_terminal(script)
    assert done.returncode == 0
    table = ["", "name", "-----"]
    assert [line.rstrip() for line in shown(sent)] == [
        *("first", *table, "first"),
        *("again", *table, "again"),
        "name  third",
    ]
    assert b"\n\n" not in run(script).stdout


def test_results_in_a_pipe_are_exact():
    script = "console.result(os.fsdecode(b'a \\xff\\ttab \\x1b[31m caf\\xc3\\xa9'))"
    assert run(script).stdout == b"a \xff\ttab \x1b[31m caf\xc3\xa9\n"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LANG": "C", "LC_ALL": ""},
    ],
    ids=str,
)
def test_characters_that_cannot_be_encoded_do_no_harm(environment):
    script = """
text = "caf\\u00e9 \\u6f22 \\udcff \\ud800"
with console.step(text) as step:
    step(text)
    step.count(1, 2)
    console.say(text)
    console.error(text)
    console.result(text)
    console.table([Column("x", folds=True), Column("y")], [[text, "1"]])
    console.fields([("x", Verdict(text, False))])
"""
    done = run(script, **environment)
    assert done.returncode == 0
    assert len(lines(done.stderr)) == 3
    assert len(lines(done.stdout)) == 5
    assert all(b"caf" in line for line in done.stderr.splitlines())
    sent, done = run_on_terminal(script, 120, **environment)
    assert done.returncode == 0
    assert len(shown(sent, 120)) == 9


def test_what_lives_is_drawn_with_what_can_be_encoded():
    sent, _ = run_on_terminal(
        """
with console.step("a long name of an artifact" * 9) as step:
    step.count(1, 2)
    time.sleep(0.5)
""",
        PYTHONIOENCODING="ascii",
    )
    assert "\\u" not in sent
    assert len(shown(sent)) == 4


def test_nobody_reads_on():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(
            """
with console.alone():
    try:
        console.result("a result")
    except BrokenPipeError:
        console.result("another")
        console.say("gone")
""",
            stdout=writer,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"gone\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_told_with_the_stream():
    with open("/dev/full", "wb") as full:
        done = run(
            """
try:
    console.result("a result")
except OSError as error:
    console.say(str(error))
""",
            stdout=full,
        )
    assert (done.returncode, lines(done.stderr)) == (
        0,
        ["[Errno 28] No space left on device: 'standard output'"],
    )


# Steps in a log


STEPS = """
with console.step("read") as step:
    step.bytes(1_000_000, 2_000_000)
    step.bytes(2_000_000, 2_000_000)
with console.step("all") as all:
    all.count(0, 2)
    with console.step("[1/2] one") as step:
        step("write")
        console.say("a message")
        step("verify")
        step.outcome = Verdict("DIFFERS", False)
    all.count(1, 2)
    with console.step("[2/2] two") as step:
        console.result("a result")
        step.outcome = "not compared"
with console.step("fail") as step:
    step("write")
    step.count(3, 4)
    raise KeyboardInterrupt
"""
DONE = [
    r"  read \.\.\. \d+\.\d s",
    r"a message",
    r"  \[1/2\] one \.\.\. DIFFERS, \d+\.\d s",
    r"  \[2/2\] two \.\.\. not compared, \d+\.\d s",
    r"  all \.\.\. \d+\.\d s",
    r"  fail \.\.\. write, 3 of 4, stopped after \d+\.\d s",
    r"Traceback .*",
]


def assert_matches(found, expected):
    for line, pattern in zip(found, expected):
        assert re.fullmatch(pattern, line)
    assert len(found) >= len(expected)


def test_steps_in_a_log_are_lines_when_they_are_done():
    # Python's own traceback, at the end, would have colours too.
    done = run(STEPS, FORCE_COLOR="1", PYTHON_COLORS="0")
    assert_matches(lines(done.stderr), DONE)
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", done.stderr + done.stdout)


def test_a_terminal_that_can_do_nothing_gets_the_same():
    sent, _ = run_on_terminal(STEPS, TERM="dumb")
    assert_matches(sent.splitlines(), [*DONE[:3], "a result", *DONE[3:]])
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", sent)


@pytest.mark.slow  # It waits.
def test_a_log_is_told_now_and_then_what_still_runs():
    done = run(
        """
console = Console(silence=0.4)
with console.step("outer"):
    with console.step("inner") as step:
        step("write")
        step.count(3, 4)
        time.sleep(2)
    time.sleep(0.6)
"""
    )
    first, second, *_, inner, last, outer = lines(done.stderr)
    assert re.fullmatch(r"  inner \.\.\. write, 3 of 4, [01] s so far", first)
    assert re.fullmatch(r"  inner \.\.\. write, 3 of 4, [123] s so far", second)
    assert re.fullmatch(r"  inner \.\.\. \d\.\d s", inner)
    assert re.fullmatch(r"  outer \.\.\. \d s so far", last)
    assert re.fullmatch(r"  outer \.\.\. \d\.\d s", outer)
    # Less and less often: not every 0.4 s.
    assert done.stderr.count(b"inner ... write") <= 3


@pytest.mark.slow  # It waits.
def test_a_log_with_news_is_told_nothing_else():
    done = run(
        """
console = Console(silence=1)
with console.step("step"):
    for _ in range(8):
        time.sleep(0.2)
        console.say("news")
time.sleep(1.5)
"""
    )
    assert lines(done.stderr)[:-1] == ["news"] * 8


# Steps on a terminal


def test_steps_on_a_terminal_leave_a_line_each():
    sent, _ = run_on_terminal(STEPS)
    assert_matches(shown(sent), [*DONE[:3], "a result", *DONE[3:]])


@pytest.mark.slow  # It waits.
@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("progress", ["step.count", "step.bytes"])
def test_nothing_of_what_lives_stays_behind(columns, progress):
    name = "of a very long name/" * 6 + "[red]x.onnx"
    sent, _ = run_on_terminal(
        f"""
with console.step("outer") as step:
    {progress}(12345678, 237215757)
    with console.step({name!r}) as step:
        step("write")
        {progress}(0, 237215757)
        time.sleep(1.2)
        {progress}(12345678, 237215757)
        time.sleep(0.3)
        console.say("a message")
        {progress}(12345678)
        time.sleep(0.3)
""",
        columns,
    )
    found = "".join(line.ljust(columns) for line in shown(sent, columns))
    message, inner, outer = re.split(r"(?=  of a |  outer )", found)
    assert message.split() == ["a", "message"]
    assert re.fullmatch(re.escape(f"  {name} ... ") + r"\d\.\d s *", inner)
    assert re.fullmatch(r"  outer \.\.\. \d\.\d s *", outer)


def test_what_a_step_is_at_is_shown_at_once():
    sent, _ = run_on_terminal(
        """
with console.step("[3/22] feature_vector v3") as step:
    step("write")
    os._exit(0)
"""
    )
    (line,) = shown(sent)
    assert re.fullmatch(r"\S \[3/22\] feature_vector v3 \.\.\. write, \d s", line)


@pytest.mark.slow  # It waits.
def test_a_step_shows_that_it_lives():
    sent, _ = run_on_terminal(
        """
with console.step("step"):
    time.sleep(1.5)
"""
    )
    frames = re.findall(r"(\S) step \.\.\. (\d) s", sent)
    assert len({spinner for spinner, _ in frames}) > 2
    assert [seconds for _, seconds in frames] == sorted(second for _, second in frames)
    assert len({seconds for _, seconds in frames}) > 1


def test_a_terminal_may_become_narrower():
    sent, _ = run_on_terminal(
        """
import fcntl, struct, termios
with console.step("[3/22] a long name of an artifact") as step:
    fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    step("verify")
    os._exit(0)
"""
    )
    (line,) = shown(sent)
    assert re.fullmatch(r"\S \[3/22\] a lo.*… \.\.\. verify, \d s", line)
    assert len(line) <= 30


@pytest.mark.slow  # It waits.
def test_the_bar_of_bytes_has_figures():
    sent, _ = run_on_terminal(
        """
with console.step("fetch") as step:
    step.bytes(0, 200_000_000)
    time.sleep(1.1)
    step.bytes(50_000_000, 200_000_000)
    time.sleep(0.2)
    os._exit(0)
"""
    )
    line, bar = shown(sent)
    assert re.fullmatch(r". fetch \.\.\. \d s", line)
    found = re.fullmatch(
        r"  (━+)[╸╺]━+ 50.0 of 200.0 MB, (\d+\.\d) MB/s, (\d+) s left", bar
    )
    assert len(bar) == 80
    assert 10 < float(found[2]) < 46
    assert 3 <= int(found[3]) <= 15


def test_counts_have_a_bar_and_what_has_no_end_has_none():
    script = """
with console.step("outer") as outer, console.step("inner") as inner:
    outer.count(11, 22)
    inner("download")
    inner.bytes(34_000_000)
    time.sleep(0.3)
    os._exit(0)
"""
    inner, outer, bar = shown(run_on_terminal(script)[0])
    assert re.fullmatch(r"\S inner \.\.\. download, 34\.0 MB, \d s", inner)
    assert re.fullmatch(r"  outer \.\.\. \d s", outer)
    assert re.fullmatch(r"  (━+)[╸╺]━+ 11 of 22", bar)
    assert shown(run_on_terminal(script, 40)[0], 40)[-1] == "  11 of 22"


def test_only_the_name_of_a_step_is_cut():
    sent, _ = run_on_terminal(
        """
with console.step("[3/22] a long name of an artifact") as step:
    step("verify")
    os._exit(0)
""",
        40,
    )
    (line,) = shown(sent, 40)
    assert re.fullmatch(r"\S \[3/22\] a long name of… \.\.\. verify, \d s", line)


# What is imported


def modules_of(script):
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_rich_is_imported_only_to_draw():
    assert "rich" not in modules_of(
        f"""{BEGIN}
with console.alone(), console.step("step") as step:
    step("write")
    console.say("a message")
    console.error("an error")
    console.result("a result")
print(*sys.modules)
"""
    )


def test_help_does_not_import_rich():
    found = modules_of(
        """
import sys
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="irv2")
sys.argv = ["irv2", "--help"]
try:
    command.load()()
except SystemExit as done:
    assert not done.code
print()
print(*sys.modules)
"""
    )
    assert "argparse" in found
    assert "rich" not in found
