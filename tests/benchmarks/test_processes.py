"""Commands in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import processes

ROOT = Path(__file__).parents[2]


def python(script):
    return [sys.executable, "-c", script]


def test_seconds_and_output():
    ended = processes.run(python("import time; time.sleep(0.3); print('done')"))
    assert 0.3 < ended.seconds < 10
    assert ended.output == "done\n"


def test_memory_is_the_largest_and_in_bytes():
    large = python("data = b'x' * 400_000_000; del data")
    # This process may be larger, and would be what is counted.
    script = f"from benchmarks import processes; print(processes.run({large!r}).memory)"
    memory = int(subprocess.check_output(python(script), cwd=ROOT))
    assert 400_000_000 < memory < 450_000_000


def test_much_output_does_not_stop_it():
    script = "import sys\nfor file in (sys.stdout, sys.stderr): file.write('x' * 10**6)"
    assert len(processes.run(python(script)).output) == 10**6


@pytest.mark.parametrize(
    "script, said",
    [
        ("import sys; print('before'); sys.exit('the reason')", "the reason"),
        ("print('the reason'); raise SystemExit(3)", "the reason"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_failures_say_why(script, said):
    with pytest.raises(processes.ProcessError, match=said):
        processes.run(python(script))


def test_it_ends_with_whoever_is_interrupted(tmp_path):
    path = tmp_path / "pid"
    child = (
        f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); "
        "time.sleep(60)"
    )
    script = f"from benchmarks import processes; processes.run({python(child)!r})"
    with subprocess.Popen(python(script), cwd=ROOT, stderr=subprocess.PIPE) as parent:
        deadline = time.monotonic() + 30
        while not (path.is_file() and path.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        parent.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in parent.communicate(timeout=30)[1]
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)
