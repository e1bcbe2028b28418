"""The `irv2` command: what errors become, and with what it ends.

Nothing slow to import is imported before a subcommand needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import sys
import traceback
from typing import NoReturn

from exporters.command import exit_codes, interruption, supervision
from exporters.command.arguments import ONLY_READS, parse
from exporters.command.console import Console

_ENVIRONMENT_TROUBLES = {
    errno.EACCES,
    errno.EBUSY,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.ENXIO,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
    errno.ETXTBSY,
}
"""What a file system says when it is not our fault."""


def main() -> NoReturn:
    """Entry point of the console script."""
    with interruption.heeded():
        arguments = parse(sys.argv[1:])
    if not arguments.opens_files:
        sys.exit(_heeding(arguments))
    sys.exit(
        supervision.run(
            lambda: _heeding(arguments),
            again=arguments.opens_files == ONLY_READS,
            crash_code=exit_codes.BAD_INPUT,
            as_json=getattr(arguments, "json", False),
        )
    )


def _heeding(arguments: argparse.Namespace) -> int:
    with interruption.heeded():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    console = Console()
    try:
        with console.alone():
            code: int = arguments.command(arguments, console)
            return code
    except BrokenPipeError:  # As of `irv2 list | head`.
        return exit_codes.BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        code, message = _told(error)
    with contextlib.suppress(BrokenPipeError):
        console.error(message)
        if getattr(arguments, "json", False):
            console.result(exit_codes.error_as_json(message, code))
    return code


def _told(error: BaseException) -> tuple[int, str]:
    """Returns the exit code of an error, and what people are told."""
    from checkpoints.errors import CheckpointError
    from checkpoints.http_transfer import DownloadError
    from exporters.errors import (
        ArtifactError,
        EvaluationError,
        ExportError,
        MissingLibraryError,
        PipelineError,
        SigningError,
        StorageError,
        UnknownFormatError,
        is_out_of_memory,
    )
    from exporters.images import ImageError

    match error:
        case KeyboardInterrupt():
            return exit_codes.INTERRUPTED, "interrupted"
        case DownloadError():
            return exit_codes.DOWNLOAD, str(error)
        case (
            ArtifactError()
            | CheckpointError()
            | EvaluationError()
            | ExportError()
            | MissingLibraryError()
            | ImageError()
            | PipelineError()
            | SigningError()
            | StorageError()
            | UnknownFormatError()
        ):
            return exit_codes.BAD_INPUT, str(error)
        case OSError() if error.errno in _ENVIRONMENT_TROUBLES:
            names = [str(name) for name in (error.filename, error.filename2) if name]
            file = " and ".join(names) or "a file"
            return exit_codes.BAD_INPUT, f"{file}: {error.strerror}"
        case _ if is_out_of_memory(error):
            return exit_codes.BAD_INPUT, f"not enough memory, or room: {error}"
    lines = traceback.format_exception(error)
    return exit_codes.FAULT, "a fault of irv2's own:\n" + "".join(lines).rstrip()


if __name__ == "__main__":
    main()
