"""The base of all errors that a user meets, and those of an index."""

from __future__ import annotations


class AnnotatorError(Exception):
    """Something the user can put right: a wrong path, a malformed file, a foreign index.

    Args:
        message: What was wrong and where, in one sentence.
        hint: What to do about it, in one sentence; shown on a line of its own.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class IndexProblem(AnnotatorError):
    """An index that is missing, damaged, of another format, or asked for something impossible."""


class IndexUnreachable(IndexProblem):
    """The server that holds the index is away, busy or full; later it may not be."""
