"""Errors shown to users, each with the cause, the location and a hint."""

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

#: Faults of images; a stable interface.
ImageFault = Literal[
    "unreadable",  # missing, not a file, or not permitted
    "empty",
    "unknown_format",
    "unsupported",  # known format in an unsupported encoding
    "broken",  # truncated or corrupt
    "no_pixels",  # valid file without an image
    "too_large",  # more pixels or bytes than allowed
    "blank",  # (nearly) the same value everywhere
    "too_many_frames",  # more frames, pages or scans than allowed
    "too_slow",  # takes more time to decode than allowed
    "unfamiliar",  # unlike the images of the index, if that is asked for
    "no_vector",  # a vector of zeros or with values that are not finite, or none
]


class ImageError(AnnotatorError):
    """Unusable image: unreadable, empty, truncated, too large or not an image.

    Args:
        message: See `AnnotatorError`.
        hint: See `AnnotatorError`.
        code: Kind of fault.
    """

    def __init__(self, message: str, hint: str = "", code: ImageFault = "unreadable") -> None:
        super().__init__(message, hint)
        self.code: ImageFault = code

    @property
    def is_no_image(self) -> bool:
        """Whether the file is sound but of a kind without an image, which is no failure."""
        return self.code == "no_pixels"


class FormatError(AnnotatorError):
    """Malformed table of concepts, names, captions or a split, or malformed run."""


def first_line(error: BaseException) -> str:
    """First line of an error's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
