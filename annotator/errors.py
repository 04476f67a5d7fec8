"""The errors that a user meets. Each says what was wrong, where, and what to do."""

from __future__ import annotations

from typing import Literal

from index.errors import AnnotatorError, IndexProblem

__all__ = [
    "AnnotatorError",
    "FormatError",
    "ImageError",
    "ImageFault",
    "IndexProblem",
    "first_line",
]

#: What can be wrong with an image; stable, for programs.
ImageFault = Literal[
    "unreadable",  # its file is missing, not a file, or may not be read
    "empty",
    "unknown_format",
    "unsupported",  # of a known format, but stored in a way that cannot be read
    "broken",  # truncated or corrupt
    "no_pixels",  # a sound file without a picture in it
    "too_large",  # more pixels or bytes than allowed
    "too_many_frames",  # more frames, pages or scans than are read
]


class ImageError(AnnotatorError):
    """One image that cannot be used: unreadable, empty, truncated, too large, not an image.

    Args:
        message: As for `AnnotatorError`.
        hint: As for `AnnotatorError`.
        code: The kind of fault.
    """

    def __init__(self, message: str, hint: str = "", code: ImageFault = "unreadable") -> None:
        super().__init__(message, hint)
        self.code: ImageFault = code


class FormatError(AnnotatorError):
    """A table (concepts, run, names, captions, split) that cannot be read as what it should be."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
