"""Errors that a person reads: what was wrong, where, and what to do."""


class RecfoundError(Exception):
    """The work found a fault in what it was given; the command line exits with 1."""

    exit_code = 1


class UsageError(RecfoundError):
    """The command line or a recipe is wrong; the command line exits with 2."""

    exit_code = 2
