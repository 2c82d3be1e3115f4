"""The one kind of error that is the user's to fix."""


class UsageError(ValueError):
    """Wrong input: the message is one line that names the argument, its value and the remedy (exit code 2)."""
