"""What a user may see when something goes wrong. The command line prints the message, never a traceback.

Every message says what was given, what is allowed, and what to do.
"""

__all__ = ["DataError", "FourfoldError", "UsageError"]


class FourfoldError(Exception):
    """Something failed while running. Exit code 1."""

    exit_code = 1


class UsageError(FourfoldError):
    """The command or configuration asks for something that cannot be done. Exit code 2."""

    exit_code = 2


class DataError(FourfoldError):
    """Shards, images or clips are missing, damaged or unfit. Exit code 1."""
