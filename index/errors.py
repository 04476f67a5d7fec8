"""What can be wrong with an index on disk or with a call to it."""

from __future__ import annotations


class IndexProblem(Exception):
    """An index that is missing, damaged, from another format, or asked for something impossible.

    Args:
        message: What is wrong and where, in one sentence.
        hint: What to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class IndexUnreachable(IndexProblem):
    """The server that holds the index is away, busy or full; later it may not be."""
