"""The processor that artifacts are run on."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from pathlib import Path

from exporters.engines import cores

_INSTRUCTIONS = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx_vnni", "avx512_vnni"},
    "bfloat16": {"avx512_bf16", "amx_bf16"},
    "amx": {"amx_int8", "amx_bf16"},
}
"""What we call instructions -> what Linux does."""


@dataclasses.dataclass(frozen=True)
class Processor:
    """A processor, as far as it has a part in how fast artifacts are, and in last bits.

    Attributes:
      name: its model, or else its architecture.
      instructions: those that matter to networks, where Linux names them.
      cores: that this process may use.
    """

    name: str
    instructions: tuple[str, ...]
    cores: int


def this_processor(proc: Path = Path("/proc")) -> Processor:
    """Describes the processor.

    Args:
      proc: where Linux says what it knows.
    """
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (proc / "cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    known = set(facts.get("flags", "").split())
    return Processor(
        facts.get("model name") or platform.processor() or platform.machine(),
        tuple(name for name, flags in _INSTRUCTIONS.items() if flags & known),
        cores(),
    )
