"""How the command ends, for programs that call it."""

from __future__ import annotations

import json

MISMATCH = 1
USAGE = 2
BAD_INPUT = 3
DOWNLOAD = 4
FAULT = 70
INTERRUPTED = 130
BROKEN_PIPE = 141

IN_WORDS = """\
exit codes:
  0    done, and everything that was compared agrees
  1    an artifact does not agree with its checkpoint, or features with others
  2    wrong usage, such as an unknown option
  3    a checkpoint, artifact, format, image or directory that cannot be used
  4    the download failed
  70   a fault of irv2's own, with a traceback
  130  interrupted
"""


def error_as_json(message: str, code: int) -> str:
    """Returns what a program is told of an error."""
    return json.dumps({"error": message, "exit_code": code})
