"""The machine, as the kernel describes it."""

import pytest

from benchmarks import machines

CPUINFO = """\
processor\t: 0
model name\t: A processor
flags\t\t: fpu avx2 avx512f avx512_vnni amx_tile amx_int8 avx512_bf16

processor\t: 1
model name\t: A processor
flags\t\t: fpu
"""


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "stat").write_text("cpu  10 0 5 80 5 0 0 0 0 0\ncpu0 1 1 1 1\n")
    return tmp_path


def test_name_and_instructions(proc):
    found = machines.this_machine(proc, seconds=0)
    assert found.processor == "A processor"
    assert found.flags == ("avx2", "avx512", "vnni", "bfloat16", "amx")


def test_instructions_that_are_missing_are_not_named(proc):
    (proc / "cpuinfo").write_text("flags\t: fpu avx2 avx_vnni\n")
    found = machines.this_machine(proc, seconds=0)
    assert found.flags == ("avx2", "vnni")
    assert found.processor  # That it has no name is no reason to say nothing.


@pytest.mark.parametrize(
    "later, busy, is_busy",
    [
        ("cpu  10 0 5 170 15 0 0 0 0 0", 0, False),
        ("cpu  30 0 15 140 10 0 0 5 0 0", 0.35, True),
    ],
)
def test_how_busy_it_is(proc, monkeypatch, later, busy, is_busy):
    monkeypatch.setattr(
        machines.time, "sleep", lambda _: (proc / "stat").write_text(later)
    )
    found = machines.this_machine(proc)
    assert found.busy == pytest.approx(busy)
    assert found.is_busy is is_busy


def test_this_machine():
    found = machines.this_machine(seconds=0.1)
    assert found.cores >= 1
    assert 0 <= found.busy <= 1
