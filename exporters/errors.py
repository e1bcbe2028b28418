"""Troubles that a user can act on, a type for each kind."""


class ExportError(Exception):
    """An option or input that no artifact can be made of."""


class ArtifactError(Exception):
    """A path that holds no readable artifact of a known format."""


class EvaluationError(Exception):
    """Images, labels or results of an earlier run that nothing can be measured by."""


class UnknownFormatError(Exception):
    """A format or task name that is not in the table."""


class MissingLibraryError(Exception):
    """A library that an artifact would be run with, and that cannot be imported."""
