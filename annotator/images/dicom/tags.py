"""Attributes of DICOM files, read without their pixels: ids, groups and selection by header."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, Literal

from annotator.errors import AnnotatorError
from annotator.images.dicom.reader import load_pydicom, read_meta
from annotator.images.kinds import looks_like_dicom
from annotator.images.ordered_map import ordered_map
from index.progress import track

_THREADS = 16  # reading mostly waits for the disk
_HEAD = 1024  # bytes, with the file meta information
_MAX_VALUE = 1 << 16  # bytes of a value; a longer one counts as absent
_MAX_INFLATED = 1 << 24  # bytes of a deflated header
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double and integer pixel data
_NO_TEXT = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN"})  # value representations


@dataclass(frozen=True)
class Tags:
    """What the beginning of a file says.

    Attributes:
        kind: "unreadable" if the file cannot be read at all.
        has_pixels: Whether a DICOM file holds an image, or claims to; a DICOMDIR or SR does not.
        values: Values by keyword, as text; no entry for an attribute that is absent or empty.
    """

    kind: Literal["dicom", "other", "unreadable"]
    has_pixels: bool = True
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def check_keyword(keyword: str) -> None:
    """Check that a keyword is of an attribute whose values can be compared (DICOM PS3.6).

    Raises:
        AnnotatorError: It is not, or there is no such keyword.
    """
    from difflib import get_close_matches

    from pydicom.datadict import dictionary_VR, keyword_dict

    keywords = [known for known in keyword_dict if known]  # retired attributes have none
    if keyword not in keywords:
        near = get_close_matches(keyword, keywords, 3)
        hint = f"Similar: {', '.join(near)}." if near else "Give one such as Modality."
        raise AnnotatorError(f"DICOM has no attribute with the keyword {keyword!r}.", hint)
    if not _NO_TEXT.isdisjoint(dictionary_VR(keyword_dict[keyword]).split(" or ")):
        raise AnnotatorError(
            f"The DICOM attribute {keyword} holds no text or number.", "Give one such as Modality."
        )


def read_tags(openers: Sequence[Callable[[], BinaryIO]], keywords: Sequence[str]) -> list[Tags]:
    """Read the headers of files in threads, in their order.

    Args:
        openers: Open each of the files; they may raise OSError.
        keywords: Attributes to read.
    """
    load_pydicom()
    work = partial(_read_tags, keywords=keywords)
    with closing(ordered_map(work, openers, workers=_THREADS)) as headers:
        return list(track(headers, total=len(openers), label="Reading headers", unit="files"))


def _read_tags(opener: Callable[[], BinaryIO], keywords: Sequence[str]) -> Tags:
    try:
        with opener() as file:
            head = file.read(_HEAD)
            if not looks_like_dicom(head[:132]):
                return Tags("other")
            file.seek(0)
            try:
                return _parse(file, keywords, deflated=_DEFLATED in head)
            except OSError:
                raise
            except Exception:  # pydicom's, of many kinds; decoding will name the fault
                return Tags("dicom")
    except OSError:
        return Tags("unreadable")


def _parse(file: BinaryIO, keywords: Sequence[str], *, deflated: bool) -> Tags:
    from pydicom.datadict import keyword_dict
    from pydicom.filereader import read_dataset, read_partial

    has_pixels = False

    def at_pixels(tag: Any, _vr: str | None, _length: int) -> bool:
        nonlocal has_pixels
        has_pixels = has_pixels or tag in _PIXELS
        return tag in _PIXELS

    options: dict[str, Any] = {
        "stop_when": at_pixels,
        "specific_tags": [keyword_dict[keyword] for keyword in (*keywords, "Rows")],
        "defer_size": _MAX_VALUE,
    }
    ds: Any
    if deflated:
        ds = read_dataset(io.BytesIO(_inflated(file)), False, True, **options)
    else:
        ds = read_partial(file, force=True, **options)
    values = {keyword: _texts(ds, keyword) for keyword in keywords}
    return Tags(
        "dicom",
        has_pixels or "Rows" in ds,
        {keyword: texts for keyword, texts in values.items() if texts},
    )


def _inflated(file: BinaryIO) -> bytes:
    """The beginning of a deflated data set (PS3.5, A.5): it may fill the memory as a whole."""
    read_meta(file)
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(_MAX_INFLATED), _MAX_INFLATED)


def _texts(ds: Any, keyword: str) -> tuple[str, ...]:
    """The values of an attribute as text, each in one line."""
    try:
        element = ds.get_item(keyword, keep_deferred=True)
        too_long = element is not None and element.value is None
        value = None if too_long else ds.get(keyword)
    except Exception:  # pydicom's, on a value that is none of its kind
        return ()
    if value is None:
        return ()
    several = value if isinstance(value, MutableSequence) else [value]
    texts = (" ".join(str(one).replace("\0", " ").split()) for one in several)
    return tuple(text for text in texts if text)
