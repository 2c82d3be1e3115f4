"""The errors that are the user's to fix."""


class UsageError(ValueError):
    """Wrong input: the message names the argument, its value and the remedy."""

    exit_code = 2


class BusyError(UsageError):
    """Another process works on the run."""

    exit_code = 3
