"""Values of DICOM attributes as they are met in practice: empty, ill-formed, or with a comma."""

from __future__ import annotations

import math
from typing import Any

from annotator.errors import ImageError

EXPORT_HINT = "Export it again from its archive, or leave it out."


def numbers(ds: Any, keyword: str) -> list[float]:
    """The values of a numeric attribute, NaN for those that are no finite number.

    A decimal comma is taken for a point. Empty where the attribute is absent or empty.
    """
    value = _value(ds, keyword)
    if value is None:
        return []
    return [_number(one) for one in ([value] if isinstance(value, (str, int, float)) else value)]


def _value(ds: Any, keyword: str) -> Any:
    """The value of an attribute; a list of texts if pydicom cannot convert it."""
    try:
        return ds.get(keyword)
    except Exception:
        raw = ds.get_item(keyword).value
        return raw.decode("ascii", "replace").split("\\") if isinstance(raw, bytes) else None


def _number(value: Any) -> float:
    try:
        text = value.strip(" \0").replace(",", ".") if isinstance(value, str) else value
        number = float(text)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def number(ds: Any, keyword: str) -> float | None:
    """The first value of a numeric attribute; None where it is absent or no finite number."""
    values = numbers(ds, keyword)
    return None if not values or math.isnan(values[0]) else values[0]


def integer(ds: Any, keyword: str) -> int | None:
    """The first value of a numeric attribute, as an integer."""
    value = number(ds, keyword)
    return None if value is None else int(value)


def required(ds: Any, keyword: str) -> int:
    """As `integer`.

    Raises:
        ImageError: It is absent; the message names it.
    """
    value = integer(ds, keyword)
    if value is None:
        raise ImageError(f"DICOM without {keyword}", EXPORT_HINT, "broken")
    return value


def code(ds: Any, keyword: str) -> str:
    """A code string in upper case; empty where it is absent."""
    value = _value(ds, keyword) or ""
    return str(value[0] if isinstance(value, list) else value).strip(" \0").upper()


def uid_name(uid: Any) -> str:
    """The standard's name for a UID, or nothing: another value must not get into a message."""
    name = str(getattr(uid, "name", ""))
    return "" if name == uid else name


def frame_group(ds: Any, index: int, sequence: str, keyword: str) -> Any:
    """The item that holds an attribute of a frame (PS3.3, C.7.6.16).

    That is the data set itself, else the functional groups of the frame or those that all share;
    the data set where there is none.
    """
    if keyword in ds:
        return ds
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    shared = ds.get("SharedFunctionalGroupsSequence") or []
    for groups in (*per_frame[index : index + 1], *shared[:1]):
        for item in groups.get(sequence) or []:
            if keyword in item:
                return item
    return ds
