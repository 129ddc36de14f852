"""Errors of lineproof. Each says what was seen, what was expected and what to do, and knows its exit status."""


class LineproofError(Exception):
    """Base of every error that lineproof raises on purpose.

    Attributes:
        exit_status: process exit status that a command ends with when this error reaches it.
    """

    exit_status = 1


class BadInputError(LineproofError):
    """A file, image, mask or array is missing, damaged, or not of the kind that is expected."""


class BundleError(LineproofError):
    """A bundle on disk is missing a file, was altered, or has a version this release cannot read."""


class BusyError(LineproofError):
    """Another process or thread holds what the request needs alone."""


class ExportError(LineproofError):
    """A detector could not be turned into the requested graph or engine plan."""


class UsageError(LineproofError):
    """The request cannot be met by any machine: a name, a value or a combination that does not exist."""

    exit_status = 2


class EnvironmentMissingError(LineproofError):
    """A package, a driver, a GPU or a hub that the request needs is not here."""

    exit_status = 3


class ParityError(LineproofError):
    """An engine does not give the reference's verdicts, or not within tolerance."""

    exit_status = 4


class StoppedError(LineproofError):
    """Somebody stopped the work (Ctrl-C) before its end; the message says what is kept and how to go on."""

    exit_status = 130


class BudgetError(LineproofError):
    """A deadline or budget was missed."""

    exit_status = 5
