"""A library that crashes on a file takes down a process of its own, and is named."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
MODEL = b"\x08\x08\x3a\x00"
"""What is recognized as ONNX."""

LIBRARY = """
import os, signal, sys, time
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

class SessionOptions:
    def __getattr__(self, name):
        return lambda *_: None

class InferenceSession:
    def __init__(self, path, *_, **__):
        content = open(path, "rb").read()
        if b"crash" in content:
            os.kill(os.getpid(), signal.SIGSEGV)
        if b"memory" in content:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"wait" in content:
            print("waiting", file=open(os.environ["TOLD"], "w"), flush=True)
            time.sleep(60)
        raise Fail("no model")
"""
"""In the place of ONNX Runtime."""
ERRORS = """
class Fail(Exception):
    pass

def __getattr__(name):
    return Fail
"""


@pytest.fixture
def irv2(tmp_path):
    """Starts the command with such a library."""
    capi = tmp_path / "library" / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi / "__init__.py").touch()
    (capi / "onnxruntime_pybind11_state.py").write_text(ERRORS)
    (capi.parent / "__init__.py").write_text(f"__version__ = '1'\n{LIBRARY}")
    path = os.pathsep.join([str(tmp_path / "library"), str(ROOT)])

    def start(*arguments, **options):
        return subprocess.Popen(
            [sys.executable, "-m", "exporters.command.main", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "TOLD": str(tmp_path / "told")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return start


def ended(process):
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err and "most recent call first" not in err
    return process.returncode, out, err


def test_a_file_that_crashes_its_library_is_named(irv2, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(MODEL + b"crash")
    code, out, err = ended(irv2("inspect", "bad.onnx", "--json"))
    assert code == 3
    said = "bad.onnx crashed the library that opened it (signal 11, Segmentation fault)"
    assert err.splitlines()[-1] == f"irv2: {said}. It is damaged, or made to do harm."
    assert f"irv2: {said}\n" in err
    assert json.loads(out)["exit_code"] == 3


def test_one_such_file_among_many_is_a_result(irv2, tmp_path):
    for name, content in {"a": b"", "b": b"crash", "c": b"crash"}.items():
        (tmp_path / f"{name}.onnx").write_bytes(MODEL + content)
    (tmp_path / "images" / "3").mkdir(parents=True)
    Image.new("RGB", (80, 80)).save(tmp_path / "images" / "3" / "0.png")
    process = irv2("evaluate", "a.onnx", "b.onnx", "c.onnx", "--images", "images")
    code, _, err = ended(process)
    assert code == 3
    for name in ("b.onnx", "c.onnx"):
        assert f"{name} crashed the library that opened it" in err


@pytest.mark.parametrize(("again", "times"), [(False, 1), (True, 2)])
def test_what_writes_is_not_begun_again(tmp_path, again, times):
    program = f"""
import os, signal, sys
from pathlib import Path
from checkpoints import crashes
from exporters.command import supervision

def work():
    with open("begun", "a") as file:
        file.write("begun\\n")
    with crashes.blamed(Path("bad.onnx"), ValueError):
        os.kill(os.getpid(), signal.SIGSEGV)

try:
    sys.exit(supervision.run(work, again={again}, crash_code=3, as_json=True))
except ValueError:
    sys.exit(4)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "begun").read_text() == "begun\n" * times
    assert "bad.onnx crashed the library that opened it" in done.stderr
    # The second time, the file is refused: an error that nobody here catches.
    assert done.returncode == (70 if again else 3)
    if not again:
        told = json.loads(done.stdout)
        assert told["exit_code"] == 3
        assert done.stderr == f"irv2: {told['error']}\n"


def test_where_no_file_is_to_blame_pythons_stack_is_shown(tmp_path):
    program = """
import os, signal, sys
from exporters.command import supervision
from exporters.command.console import Console

def work():
    with Console().alone():
        os.kill(os.getpid(), signal.SIGSEGV)

sys.exit(supervision.run(work, again=True, crash_code=5))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5
    assert done.stderr.startswith("Fatal Python error: Segmentation fault")
    assert "in work" in done.stderr
    assert "irv2: a file crashed the library that opened it" in done.stderr


def test_it_works_where_no_temporary_file_can_be_made():
    program = """
import sys, tempfile
from exporters.command import supervision

tempfile.tempdir = "/missing"
sys.exit(supervision.run(lambda: 7, again=True, crash_code=5))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (7, "")


def test_a_file_of_another_tool_that_crashes_is_named(tmp_path):
    """Also where it is only run, after it was read."""
    program = """
import os, signal, sys, types
from pathlib import Path
from exporters.command import supervision

def work():
    from exporters.errors import ArtifactError
    from exporters.identifying import running

    crashing = types.ModuleType("crashing")
    crashing.run = lambda path, classes: running.ForeignModel(
        "it", None, "NHWC", lambda images: os.kill(os.getpid(), signal.SIGSEGV)
    )
    sys.modules["crashing"] = crashing
    running._MODULES["ONNX"] = "crashing"
    try:
        running.run(Path("bad.onnx"), "ONNX", None).run(None)
    except ArtifactError as error:
        print(error)
        return 3

sys.exit(supervision.run(work, again=True, crash_code=5))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("bad.onnx crashed the library that opened it")


def test_what_ends_it_otherwise_is_told(irv2, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(MODEL + b"memory")
    code, _, err = ended(irv2("inspect", "bad.onnx"))
    assert code == 128 + signal.SIGKILL
    assert err.endswith("irv2: ended by signal 9, Killed\n")


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def waiting(irv2, tmp_path):
    """A command at work."""
    (tmp_path / "slow.onnx").write_bytes(MODEL + b"wait")
    process = irv2("inspect", "slow.onnx")
    wait_for(lambda: (tmp_path / "told").exists())
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_requests_to_end_come_through(waiting, number):
    waiting.send_signal(number)
    code, _, err = ended(waiting)
    assert code == 130
    assert err.endswith("irv2: interrupted\n")


def test_a_request_to_the_whole_group_is_one_request(irv2, tmp_path):
    """As `timeout` and service managers send it: to this process, and to its child."""
    (tmp_path / "slow.onnx").write_bytes(MODEL + b"wait")
    process = irv2("inspect", "slow.onnx", start_new_session=True)
    wait_for(lambda: (tmp_path / "told").exists())
    os.killpg(process.pid, signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 130
    assert err.endswith("irv2: interrupted\n")


def test_children_that_nobody_is_told_of(irv2, tmp_path):
    """As where `trap '' CHLD` was said before."""
    (tmp_path / "bad.onnx").write_bytes(MODEL)
    ignored = lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # noqa: E731
    code, _, _ = ended(irv2("inspect", "bad.onnx", preexec_fn=ignored))
    assert code == 3


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_nothing_goes_on_when_it_is_killed(waiting):
    (child,) = children(waiting.pid)
    waiting.kill()
    waiting.wait()

    def is_gone():
        status = Path(f"/proc/{child}/stat")
        return not status.exists() or status.read_text().split()[2] == "Z"

    wait_for(is_gone)
