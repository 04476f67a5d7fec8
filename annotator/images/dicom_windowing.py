"""Windowing of DICOM frames: stored values to an 8-bit picture, as a viewer would show it.

Follows DICOM PS3.3: modality LUT (C.11.1) and VOI LUT (C.11.2), also where an enhanced object keeps
them in its functional groups (C.7.6.16).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.errors import ImageError
from annotator.images.pixels import stretch, to_uint8

EXPORT_HINT = "Export it again from its archive, or leave it out."
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}


def render(ds: Any, index: int, stored: NDArray[Any]) -> Image.Image:
    """Bring the stored values of one frame to 8 bits.

    Args:
        ds: The data set (`pydicom.Dataset`).
        index: Of the frame, for the functional groups of an enhanced object.
        stored: The frame's values, [rows, columns] or [rows, columns, 3].

    Raises:
        ImageError: The photometric interpretation is not supported.
    """
    from pydicom.pixels.processing import apply_color_lut

    photometric = ds.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, ds)
        # Some writers keep 8-bit entries in 16-bit words; the descriptor tells.
        return _colour(colours, ds.RedPaletteColorLookupTableDescriptor[2])
    if stored.ndim == 3:
        if photometric not in _COLOUR:
            message = "DICOM with an unsupported photometric interpretation"
            raise ImageError(message, EXPORT_HINT, "unsupported")
        return _colour(stored, ds.BitsStored)
    return Image.fromarray(_grey(ds, index, stored))


def _colour(values: NDArray[Any], bits: int) -> Image.Image:
    """uint8 or uint16[rows, columns, 3 or 4], of which `bits` are used, to a picture."""
    if bits > 8:
        values = values >> (bits - 8)
    return Image.fromarray(np.ascontiguousarray(values[..., :3], dtype=np.uint8))


def _grey(ds: Any, index: int, stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Stored values [rows, columns] through modality and VOI transformations, to uint8."""
    values = _modality(ds, index, stored)
    padding = _padding(ds, stored)
    grey = _voi(ds, index, values)
    if grey is None:
        plain = values is stored and stored.dtype == np.uint8 and ds.BitsStored == 8
        grey = stored.copy() if plain else stretch(values, ignore=padding)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    if padding is not None:
        grey[padding] = 0
    return grey


def _modality(ds: Any, index: int, stored: NDArray[Any]) -> NDArray[Any]:
    """Apply the modality LUT or rescale (C.11.1); `stored` itself where there is none."""
    if ds.get("ModalityLUTSequence"):
        looked_up = _look_up(ds, ds.ModalityLUTSequence[0], stored)
        if looked_up is not None:
            return looked_up
    group = _group(ds, index, "PixelValueTransformationSequence", "RescaleSlope")
    slope, intercept = _number(group, "RescaleSlope"), _number(group, "RescaleIntercept")
    if (slope is None or slope == 1) and not intercept:
        return stored
    values: NDArray[np.floating[Any]]
    values = stored.astype(np.float32 if stored.dtype.itemsize <= 2 else np.float64)
    values *= 1.0 if slope is None else slope
    values += intercept or 0.0
    return values


def _voi(ds: Any, index: int, values: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Apply the VOI LUT or the first window (C.11.2); None where there is no usable one."""
    if ds.get("VOILUTSequence"):
        looked_up = _look_up(ds, ds.VOILUTSequence[0], values)
        if looked_up is not None and (top := looked_up.max(initial=0)) > 0:
            # The table's own maximum: many do not use all the bits that they declare.
            return to_uint8(looked_up * np.float32(255 / top))
    group = _group(ds, index, "FrameVOILUTSequence", "WindowCenter")
    center, width = _number(group, "WindowCenter"), _number(group, "WindowWidth")
    function = str(group.get("VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or width < (1 if function == "LINEAR" else 1e-6):
        return None
    return _window(values, center, width, function)


def _window(
    values: NDArray[Any], center: float, width: float, function: str
) -> NDArray[np.uint8] | None:
    from pydicom import Dataset
    from pydicom.pixels.processing import apply_windowing

    # A data set of its own makes pydicom's output range 0..255 rather than that of the pixels.
    view = Dataset()
    view.PhotometricInterpretation = "MONOCHROME2"
    view.BitsStored, view.PixelRepresentation = 8, 0
    view.WindowCenter, view.WindowWidth = center, width
    view.VOILUTFunction = function
    try:
        return to_uint8(np.nan_to_num(apply_windowing(values, view)))
    except ValueError:  # an unknown function
        return None


def _look_up(ds: Any, item: Any, values: NDArray[Any]) -> NDArray[np.float32] | None:
    """Map values through a LUT item (C.11.1.1.1); None where the item is unusable.

    pydicom's own functions refuse modality LUTs of 10 to 15 bits and wrap round in 8-bit ones.
    """
    descriptor, table = item.get("LUTDescriptor"), item.get("LUTData")
    if not table or descriptor is None or len(descriptor) != 3:
        return None
    entries, first, _ = (int(value) for value in descriptor)
    entries = entries or 1 << 16  # 0 stands for 65536, which its 16 bits cannot hold
    if first > 0x7FFF and ds.PixelRepresentation == 1:
        first -= 1 << 16  # a negative value that was written as unsigned
    if isinstance(table, bytes):
        little = ds.file_meta.TransferSyntaxUID.is_little_endian
        words = "<u2" if little else ">u2"
        lut = np.frombuffer(table, np.uint8 if len(table) < 2 * entries else words)
    else:
        lut = np.atleast_1d(np.asarray(table))
    lut = lut[:entries].astype(np.float32)
    places = np.clip(np.nan_to_num(values.astype(np.float64)) - first, 0, lut.size - 1)
    return lut[np.rint(places).astype(np.int32)]


def _padding(ds: Any, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Mask of the pixels outside the picture (C.7.5.1.1.2); None where there are none."""
    value, limit = ds.get("PixelPaddingValue"), ds.get("PixelPaddingRangeLimit")
    if not isinstance(value, int) or stored.dtype.kind not in "iu":
        return None
    # The wrap turns values that were written with the other signedness into the pixels' own.
    ends = np.array([value, limit if isinstance(limit, int) else value], np.int64)
    low, high = sorted(ends.astype(stored.dtype))
    mask = (stored >= low) & (stored <= high)
    return mask if mask.any() and not mask.all() else None


def _group(ds: Any, index: int, sequence: str, keyword: str) -> Any:
    """The item that holds a frame's attribute: data set, the frame's groups or the shared ones."""
    if keyword in ds:
        return ds
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    shared = ds.get("SharedFunctionalGroupsSequence") or []
    for groups in (*per_frame[index : index + 1], *shared[:1]):
        for item in groups.get(sequence) or []:
            if keyword in item:
                return item
    return ds


def _number(ds: Any, keyword: str) -> float | None:
    """The first value of an attribute; None where it is absent or not a finite number."""
    try:
        element = ds.get(keyword)
        value = float(element if isinstance(element, (str, int, float)) else element[0])
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return value if math.isfinite(value) else None
