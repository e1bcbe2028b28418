"""Scratch directories: gone when their work is done, and when their process is."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints import files
from checkpoints import scratch as scratches
from checkpoints.scratch import locked, remove_leftovers, scratch_beside, temporary

ROOT = Path(__file__).parents[2]


def test_scratch_leaves_nothing_behind(tmp_path):
    destination = tmp_path / "new/deep/file"
    with scratch_beside(destination) as scratch:
        assert scratch.parent == destination.parent
        (scratch / "part").write_text("unfinished")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_while_it_is_made_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scratches.fcntl, "flock", interrupted)
    with pytest.raises(KeyboardInterrupt), scratch_beside(tmp_path / "new" / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_scratch_keeps_the_directory_that_got_something(tmp_path):
    destination = tmp_path / "new/file"
    with scratch_beside(destination) as scratch:
        (scratch / "part").write_text("whole")
        files.replace({scratch / "part": destination}, scratch)
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "file"]


def test_scratch_that_cannot_be_made_is_named_by_its_directory(tmp_path, monkeypatch):
    def refuse(prefix, dir):
        raise PermissionError(13, "Permission denied", f"{dir}/{prefix}x3h2")

    monkeypatch.setattr(scratches.tempfile, "mkdtemp", refuse)
    place = tmp_path / "new" / "folder"
    with pytest.raises(PermissionError) as caught, scratch_beside(place / "x"):
        pass
    assert caught.value.filename == str(place)
    assert list(tmp_path.iterdir()) == []


FULL = "No space left on device"


def test_another_process_may_remove_the_directory_meanwhile(tmp_path, monkeypatch):
    make = scratches.tempfile.mkdtemp

    def make_late(prefix, dir):
        monkeypatch.undo()
        dir.rmdir()
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(scratches.tempfile, "mkdtemp", make_late)
    with scratch_beside(tmp_path / "new" / "x") as scratch:
        assert scratch.is_dir()


def test_another_process_may_remove_the_directory_that_was_found(tmp_path, monkeypatch):
    def found_and_gone(path, **_):
        monkeypatch.undo()
        raise FileExistsError(errno.EEXIST, "File exists", str(path))

    monkeypatch.setattr(Path, "mkdir", found_and_gone)
    with scratch_beside(tmp_path / "new" / "x") as scratch:
        assert scratch.is_dir()


def test_no_scratch_beside_what_is_in_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError), scratch_beside(tmp_path / "file" / "x"):
        pass


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, FULL),
        OSError(errno.ENOSPC, FULL, ".irv2-x3h2/part"),
        shutil.Error([("source", "copy", f"[Errno 28] {FULL}: 'source' -> 'copy'")]),
        RuntimeError(f"{{{{node SaveV2}}}} .irv2-x3h2/variables; {FULL} [Op:SaveV2]"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_named_whoever_tells_of_it(tmp_path, error):
    with pytest.raises(OSError) as caught, scratch_beside(tmp_path / "x/y"):
        raise error
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_as_they_are(tmp_path):
    for error in (OSError(errno.EIO, "Input/output error"), ValueError("no")):
        with pytest.raises(type(error)) as caught, scratch_beside(tmp_path / "x"):
            raise error
        assert caught.value is error


# Killed processes

MAKE_ONE_AND_WAIT = """
import pathlib, sys, time
from checkpoints.scratch import scratch_beside
with scratch_beside(pathlib.Path(sys.argv[1])) as scratch:
    (scratch / "part").write_text("unfinished")
    print(scratch, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def process(tmp_path):
    """Another process that has a scratch directory; and that directory."""
    started = subprocess.Popen(
        [sys.executable, "-c", MAKE_ONE_AND_WAIT, str(tmp_path / "x")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield started, Path(started.stdout.readline().strip())
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path, process):
    started, left = process
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert (left / "part").exists()
    with scratch_beside(tmp_path / "y") as scratch:
        assert list(tmp_path.iterdir()) == [scratch]
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_owns_is_not_touched(tmp_path, process):
    _, owned = process
    with scratch_beside(tmp_path / "y"):
        assert (owned / "part").exists()
    assert remove_leftovers(tmp_path) == []
    assert (owned / "part").exists()


def test_only_our_own_is_ever_removed(tmp_path):
    """A name alone proves nothing."""
    for name in (".irv2-abcdefgh", ".irv2-def", "irv2-features"):
        (tmp_path / name).mkdir()
    (tmp_path / ".irv2-def" / "notes").write_text("mine")
    (tmp_path / ".irv2-file").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".owner").write_text("")
    (tmp_path / ".irv2-link").symlink_to(elsewhere)
    before = sorted(tmp_path.rglob("*"))
    assert remove_leftovers(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_killed_process_had_moved_away_is_put_back(tmp_path):
    left = tmp_path / ".irv2-abc"
    left.mkdir()
    (left / ".owner").write_text("")
    (left / "replaced-0").write_text("old")
    files.write_json(left / "journal.json", {"replaced-0": str(tmp_path / "model")})
    assert remove_leftovers(tmp_path) == [left]
    assert (tmp_path / "model").read_text() == "old"


@pytest.mark.parametrize("marks", [[], [".owner-"]], ids=["empty", "not yet marked"])
def test_what_a_kill_left_of_one_in_the_making_is_removed(tmp_path, marks):
    left = tmp_path / ".irv2-scratch-abcdef12"
    left.mkdir()
    for name in marks:
        (left / name).touch()
    assert remove_leftovers(tmp_path) == [left]
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_one_is_removed_leaves_what_the_next_removes(tmp_path):
    made = scratches.Scratch(tmp_path, ".irv2-")
    for name in "a", "b":
        (made.path / name).mkdir()
        (made.path / name / "file").write_text("large")
    order = []

    class Killed(BaseException):
        pass

    def killed(path, *_, **__):
        order.append(path)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratches.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            scratches._remove(made.path, None)
    assert order[0] != made.path  # What it holds goes first,
    assert (made.path / ".owner").exists()  # and the mark last.
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_one_in_the_making_that_another_took_for_a_leftover_is_made_again(
    tmp_path, monkeypatch
):
    make = scratches.tempfile.mkdtemp

    def make_and_lose(prefix, dir):
        monkeypatch.undo()
        path = make(prefix=prefix, dir=dir)
        assert remove_leftovers(tmp_path) == [Path(path)]
        return path

    monkeypatch.setattr(scratches.tempfile, "mkdtemp", make_and_lose)
    with scratch_beside(tmp_path / "x") as scratch:
        (scratch / "part").write_text("unfinished")
        assert remove_leftovers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_temporary_ones_are_removed_by_the_next_too(tmp_path, monkeypatch):
    monkeypatch.setattr(scratches.tempfile, "gettempdir", lambda: str(tmp_path))
    left = tmp_path / "irv2-abc"
    left.mkdir()
    (left / ".owner").write_text("")
    with temporary() as made:
        assert list(tmp_path.iterdir()) == [made]
    kept = temporary()
    kept.close()
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_closed_is_removed_when_the_process_ends(tmp_path):
    script = "from checkpoints.scratch import temporary; kept = temporary()"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=ROOT, env=environment
    )
    assert list(tmp_path.iterdir()) == []


# Two processes in one place

TAKE_A_LOCK = """
import pathlib, sys
from checkpoints.scratch import locked
with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_one_waits_for_the_other(tmp_path):
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", TAKE_A_LOCK, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(2)
    )
    ready = {first: first.stdout, second: second.stdout}
    import select

    (got,), _, _ = select.select(list(ready.values()), [], [], 30)
    assert got.readline() == "locked\n"
    holder = first if got is first.stdout else second
    waiting = second if holder is first else first
    assert select.select([waiting.stdout], [], [], 0.3)[0] == []
    holder.communicate("")
    assert waiting.stdout.readline() == "locked\n"
    waiting.communicate("")


def test_a_lock_leaves_nothing_behind(tmp_path):
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
