"""Errors for the user. The command line prints their message, never a traceback.

Every message says what was given, what is allowed, and what to do.
"""

__all__ = ["DataError", "FourfoldError", "UsageError"]


class FourfoldError(Exception):
    """Base class: something failed while running. Exit code 1."""

    exit_code = 1


class UsageError(FourfoldError):
    """Raised when a command or configuration cannot work as given. Exit code 2."""

    exit_code = 2


class DataError(FourfoldError):
    """Raised when shards, images or clips are missing, damaged or unusable. Exit code 1."""
