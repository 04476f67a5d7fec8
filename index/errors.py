"""Base class of all errors shown to users, and errors of an index."""

from __future__ import annotations


class AnnotatorError(Exception):
    """Error that the user can correct: a wrong path, a malformed file, a foreign index.

    Args:
        message: Cause and location, in one sentence.
        hint: Remedy, in one sentence; shown on a line of its own.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class IndexProblem(AnnotatorError):
    """Missing, damaged or unsupported index, or invalid use of one."""


class IndexUnreachable(IndexProblem):
    """The server of the index is temporarily away, busy or full."""
