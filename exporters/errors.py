"""Troubles that a user can act on, a type for each kind."""

_ABOUT_FILES = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class ExportError(Exception):
    """An option or input that no artifact can be made of."""


class ArtifactError(Exception):
    """A path that holds no readable artifact of a known format."""


class ForeignFileError(ArtifactError):
    """A file that another tool made, where one of ours was expected."""


class EvaluationError(Exception):
    """Images, labels or results of an earlier run that nothing can be measured by."""


class SigningError(Exception):
    """A key or an identity that nothing can be signed or checked with."""


class UnknownFormatError(Exception):
    """A format or task name that is not in the table."""


class StorageError(Exception):
    """A file system, not this machine's, that cannot be reached or refuses."""


class PipelineError(Exception):
    """A pipeline of Apache Beam that its runner could not finish."""


class MissingLibraryError(Exception):
    """A library that an artifact would be run with, and that cannot be imported."""


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error tells of this machine, and not of the file being read.

    Libraries raise a dozen types for damaged files, so whoever reads a file with one
    takes all that it raises for damage, but for these: no memory, no room, no permission.
    """
    if isinstance(error, OSError):
        return error.errno is not None and not isinstance(error, _ABOUT_FILES)
    return is_out_of_memory(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory, or room for a file, in Python or TensorFlow."""
    # By name, since its module takes seconds to import.
    is_exhausted = type(error).__name__ == "ResourceExhaustedError"
    return isinstance(error, MemoryError) or is_exhausted
