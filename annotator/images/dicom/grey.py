"""Grey DICOM frames: stored values to an 8-bit picture, as a viewer would show it.

Follows DICOM PS3.3: modality LUT (C.11.1), VOI LUT (C.11.2) and presentation LUT shape (C.11.6),
also where an enhanced object keeps them in its functional groups (C.7.6.16).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.images.dicom.attributes import code, frame_group, number, numbers
from annotator.images.dicom.luts import LookUpTable, read_lut
from annotator.images.dicom.stored import Stored
from annotator.images.frames import Frame, View
from annotator.images.notes import Note
from annotator.images.pixels import (
    Levels,
    Window,
    extremes,
    is_washed_out,
    map_values,
    robust_range,
    stretch,
    to_uint8,
)

#: Brings values, after the rescale, to 8 bits.
_View = Callable[[NDArray[np.float64]], NDArray[np.uint8]]
# VOI LUTs and windows that are tried, of a file that has more.
_MAX_VIEWS = 8


def grey_frame(ds: Any, index: int, stored: Stored, view: View | None = None) -> Frame:
    """Bring a frame to 8 bits.

    A rescale or modality LUT, and a window or VOI LUT, that leaves a (nearly) constant picture of
    values that are not is not applied. Of several windows the first that shows something is.

    Args:
        ds: The data set (`pydicom.Dataset`).
        index: Of the frame, for the functional groups of an enhanced object.
        stored: The frame, with values of [rows, columns].
        view: As for `FrameReader.read`; the values are those after the rescale.

    Returns:
        A picture in mode "L", and what was not applied.
    """
    padding = _padding(ds, stored)
    values, slope, intercept, notes = _modality(ds, index, stored, padding)
    wanted = None if view is None else view.window
    applied: Window | None = None
    grey = None
    for shows, window in islice(
        _views(ds, index, wanted, may_be_negative=values.dtype.kind == "i" or intercept < 0),
        _MAX_VIEWS,
    ):
        shown = map_values(_after_rescale(shows, slope, intercept), values)
        if wanted is not None or not is_washed_out(shown, values, padding):
            grey, applied = shown, window
            break
        if "window_ignored" not in notes:
            notes.append("window_ignored")
    levels = None
    if view is not None:
        levels = _levels(values, slope, intercept, padding, applied, seen=grey is None)
    if grey is None:
        is_plain = values is stored.values and slope == 1 and intercept == 0 and stored.bits == 8
        if is_plain and values.dtype == np.uint8 and "window_ignored" not in notes:
            grey = values.copy()
        else:
            grey, padding = _stretched(values, padding)
            if slope < 0:
                np.subtract(255, grey, out=grey)
    if _is_inverted(ds, stored.photometric):
        np.subtract(255, grey, out=grey)
    if padding is not None:
        grey[padding] = 0
    return Frame(Image.fromarray(grey), tuple(notes), levels)


def _levels(
    values: NDArray[Any],
    slope: float,
    intercept: float,
    padding: NDArray[np.bool_] | None,
    window: Window | None,
    *,
    seen: bool,
) -> Levels:
    """The values of a frame after the rescale, and the window that is shown.

    Args:
        values: Before the rescale.
        slope: Of the rescale, as `intercept`.
        intercept: See `slope`.
        padding: Pixels that do not count.
        window: The one that is shown; None where it is a VOI LUT, or none.
        seen: Whether there is neither a window nor a LUT, so that percentiles are shown.
    """

    def rescaled(ends: tuple[float, float]) -> list[float]:
        return sorted(end * slope + intercept for end in ends)

    low, high = rescaled(extremes(values if padding is None else values[~padding]))
    if window is None:
        whole = (low, high)
        window = Window.between(*(rescaled(robust_range(values, padding)) if seen else whole))
    return Levels(low, high, window)


def _modality(
    ds: Any, index: int, stored: Stored, padding: NDArray[np.bool_] | None
) -> tuple[NDArray[Any], float, float, list[Note]]:
    """The modality transformation (C.11.1): values, slope, intercept and what is not applied."""
    values = stored.values
    for item in (ds.get("ModalityLUTSequence") or [])[:1]:
        lut = _read_lut(ds, item, may_be_negative=values.dtype.kind == "i")
        if lut is not None:
            looked_up = np.empty(values.shape, np.uint16)
            for row, line in zip(looked_up, values, strict=True):
                row[:] = lut(line)
            if is_washed_out(stretch(looked_up, padding), values, padding):
                return values, 1.0, 0.0, ["rescale_ignored"]
            return looked_up, 1.0, 0.0, []
    group = frame_group(ds, index, "PixelValueTransformationSequence", "RescaleSlope")
    slope, intercept = number(group, "RescaleSlope"), number(group, "RescaleIntercept")
    if slope == 0:
        return values, 1.0, 0.0, ["rescale_ignored"]
    return values, 1.0 if slope is None else slope, intercept or 0.0, []


def _views(
    ds: Any, index: int, wanted: Window | None, *, may_be_negative: bool
) -> Iterator[tuple[_View, Window | None]]:
    """The VOI transformations of a frame (C.11.2): its LUTs, then its windows.

    Only the wanted window, if there is one, by the file's function.
    """
    group = frame_group(ds, index, "FrameVOILUTSequence", "VOILUTSequence")
    for item in group.get("VOILUTSequence") or [] if wanted is None else []:
        lut = _read_lut(ds, item, may_be_negative=may_be_negative)
        if lut is not None:
            yield _through(lut), None
    group = frame_group(ds, index, "FrameVOILUTSequence", "WindowCenter")
    function = code(group, "VOILUTFunction") or "LINEAR"
    windows = zip(numbers(group, "WindowCenter"), numbers(group, "WindowWidth"), strict=False)
    for center, width in windows if wanted is None else [wanted]:
        view = None if math.isnan(center) else _window(center, width, function)
        if view is None and wanted is not None:  # too narrow for the file's function
            view = _window(center, width, "LINEAR_EXACT")
        if view is not None:
            yield view, Window(center, width)


def _read_lut(ds: Any, item: Any, *, may_be_negative: bool) -> LookUpTable | None:
    _, is_little_endian = ds.original_encoding
    order = {"is_little_endian": is_little_endian, "is_signed": may_be_negative}
    return read_lut(item, "LUTDescriptor", "LUTData", **order)


def _after_rescale(
    view: _View, slope: float, intercept: float
) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    return lambda values: view(values.astype(np.float64) * slope + intercept)


def _through(lut: LookUpTable) -> _View:
    # Not the bits that are declared: many tables do not use them all.
    scale = 255 / max(1, (1 << lut.used_bits) - 1)
    return lambda values: to_uint8(lut(values) * scale)


def _window(center: float, width: float, function: str) -> _View | None:
    """A window (C.11.2.1.2 and C.11.2.1.3); None where there is no such one."""
    if function == "LINEAR" and width >= 1:
        center, width = center - 0.5, width - 1
    elif function not in ("LINEAR_EXACT", "SIGMOID") or not width > 0:
        return None

    def view(values: NDArray[np.float64]) -> NDArray[np.uint8]:
        values = values - center
        if function == "SIGMOID":
            values = 255 / (1 + np.exp(-4 / width * values))
        elif width == 0:
            values = np.where(values > 0, 255.0, 0.0)
        else:
            values = (values / width + 0.5) * 255
        return to_uint8(np.nan_to_num(values, copy=False, nan=0, posinf=255, neginf=0))

    return view


def _stretched(
    values: NDArray[Any], padding: NDArray[np.bool_] | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """The values between their percentiles, padding left out unless nothing is left then."""
    grey = stretch(values, padding)
    if padding is not None and is_washed_out(grey, values):
        return stretch(values), None
    return grey, padding


def _is_inverted(ds: Any, photometric: str) -> bool:
    """Whether the least value is white.

    Presentation LUT Shape (C.11.6) decides if it is there, so that MONOCHROME1 with INVERSE, as
    radiographs have it (C.8.11.3), is one inversion and not two.
    """
    shape = code(ds, "PresentationLUTShape")
    return shape == "INVERSE" if shape in ("IDENTITY", "INVERSE") else photometric == "MONOCHROME1"


def _padding(ds: Any, stored: Stored) -> NDArray[np.bool_] | None:
    """Mask of the pixels around the picture (C.7.5.1.1.2); None where there are none.

    Padding values may occur in the picture as well: only pixels that are reached from an edge, in a
    straight line through others with such values, are padding.
    """
    values = stored.values
    kinds = {"f4": "Float", "f8": "DoubleFloat"}
    prefix = kinds.get(values.dtype.str[1:], "")
    value = number(ds, f"{prefix}PixelPaddingValue")
    if value is None:
        return None
    limit = number(ds, f"{prefix}PixelPaddingRangeLimit")
    low, high = value, value if limit is None else limit
    if not prefix:
        low, high = _wrapped(int(low), stored), _wrapped(int(high), stored)
    low, high = min(low, high), max(low, high)
    mask = values == low if low == high else (values >= low) & (values <= high)
    if not mask.any():
        return None
    reached = _reached_from_edges(mask)
    return reached if reached.any() and not reached.all() else None


def _wrapped(value: int, stored: Stored) -> int:
    """A value as the pixels would hold it: it may be written with the other signedness."""
    value &= (1 << stored.bits) - 1
    is_negative = stored.values.dtype.kind == "i" and value >> (stored.bits - 1)
    return value - (1 << stored.bits) if is_negative else value


def _reached_from_edges(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask with none outside of it between them and an edge, in a straight line."""
    reached = _reached_from_sides(mask)
    if np.count_nonzero(reached) < np.count_nonzero(mask):
        reached |= _reached_from_sides(mask.T).T
    return reached


def _reached_from_sides(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The same from the left and the right edge."""
    columns = np.arange(mask.shape[1], dtype=np.uint16)
    left = mask.argmin(axis=1).astype(np.uint16)  # the first pixel outside
    right = mask.shape[1] - mask[:, ::-1].argmin(axis=1).astype(np.uint16)
    reached: NDArray[np.bool_] = columns < left[:, None]
    reached |= columns >= right[:, None]
    reached[mask.all(axis=1)] = True
    return reached
