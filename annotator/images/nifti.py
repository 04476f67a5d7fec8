"""NIfTI volumes, of which axial slices are frames: NIfTI-1 and NIfTI-2, also compressed by gzip.

nibabel reads the header and the orientation. Field names are those of nifti1.h.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.errors import ImageError
from annotator.images.frames import Frame, View
from annotator.images.notes import Note
from annotator.images.pixels import (
    MAX_NIFTI_BYTES,
    Levels,
    Window,
    check_size,
    check_total,
    extremes,
    is_washed_out,
    map_values,
    robust_range,
    stretch,
    to_uint8,
)
from annotator.images.samples import frame_of
from index.distribution import pip_install

# Matrices of brain regions in the guise of NIfTI-2 (CIFTI-2, table of intent codes).
_CIFTI_INTENTS = range(3000, 3100)
_SAMPLE = 1 << 20
_HEADER = 540 + 4  # bytes of the longer header, NIfTI-2, and of its flag of extensions
_HINT = "Convert it to NIfTI-1 of integers or floats (.nii.gz), or leave it out."


class NiftiReader:
    """A NIfTI volume, opened; see `annotator.images.frames.FrameReader`.

    Frames are the axial slices, from the feet to the head, of the first volume where there are
    several. The axes are those nearest to the patient's ("closest canonical" in nibabel's terms);
    nothing is resampled. A slice is shown as radiologists look at it: from the feet, so that the
    patient's right is on the picture's left, and the front is up.

    Args:
        data: The whole file.
        max_pixels: Largest width x height of a slice.

    Raises:
        ImageError: nibabel is missing; the file is the header of a pair, has a data type that is
            not supported, is truncated, or too large.
        Exception: nibabel's own, on a corrupt header.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        compressed = data.startswith(b"\x1f\x8b")
        head = _inflated(data, _HEADER) if compressed else data[:_HEADER]
        header = _header(head)
        # Further dimensions are time, echoes, vectors, ...: the first of each is taken.
        shape = ([int(n) for n in header.get_data_shape()] + [1, 1, 1])[:3]
        axes = _axes(header)
        x, y, self.n_frames = (shape[axis] for axis, _ in axes)
        self.needs_process = False
        check_size(x, y, max_pixels)
        if self.n_frames < 1:
            raise ImageError("NIfTI volume without slices", _HINT, "broken")
        self.pixels = x * y
        self._dtype = _dtype(header)
        offset = max(int(header["vox_offset"]), header.single_vox_offset)
        end = offset + math.prod(shape) * self._dtype.itemsize
        if end > MAX_NIFTI_BYTES:
            message = f"NIfTI volume of more than {MAX_NIFTI_BYTES} bytes"
            raise ImageError(message, "Scale it down, or leave it out.", "too_large")
        if compressed:
            data = _inflated(data, end)
        if len(data) < end:
            raise EOFError
        stored = np.frombuffer(data, self._dtype, math.prod(shape), offset)
        # Axes of the volume: to the patient's right, front and head.
        volume = stored.reshape(shape, order="F").transpose([axis for axis, _ in axes])
        self._volume = volume[tuple(slice(None, None, sign) for _, sign in axes)]
        self._slope, self._intercept = _scaling(header)
        self._is_inverted, self._window = self._slope < 0, _display(header)
        self._notes: tuple[Note, ...] = ()
        if self._window is not None and _loses(self._window, self._volume):
            self._window, self._notes = None, ("window_ignored",)

    def read(self, indices: Sequence[int], view: View | None = None) -> Iterator[Frame]:
        check_total(self.pixels * len(indices), len(indices))
        for index in indices:
            # Rows from the front to the back, columns from the patient's right to the left.
            yield self._frame(self._volume[::-1, ::-1, index].T, view)

    def _frame(self, stored: NDArray[Any], view: View | None) -> Frame:
        if self._dtype.names:
            colours = np.stack([stored[name] for name in "RGB"], axis=-1)
            return frame_of(colours, stored["A"] if "A" in self._dtype.names else None)
        levels = None if view is None else self._levels(stored, view.window)
        if levels is not None and view is not None and view.window is not None:
            grey = map_values(lambda part: levels.window(self._scaled(part)), stored)
        elif self._window is not None:
            grey = _windowed(stored, *self._window)
        else:
            grey = stretch(stored)
            grey = 255 - grey if self._is_inverted else grey
        return Frame(Image.fromarray(grey), () if self._window else self._notes, levels)

    def _levels(self, stored: NDArray[Any], window: Window | None) -> Levels:
        """The values of a slice, and the window that is shown."""
        shown = self._window if self._window is not None else robust_range(stored)
        low, high = sorted(self._scaled(np.array(extremes(stored))).tolist())
        own = Window.between(*sorted(self._scaled(np.array(shown)).tolist()))
        return Levels(low, high, window or own)

    def _scaled(self, stored: NDArray[Any]) -> NDArray[np.float64]:
        return stored.astype(np.float64) * self._slope + self._intercept


def _header(head: bytes) -> Any:
    """nibabel's header of a file in one part.

    Raises:
        ImageError: nibabel is missing, this is the header of two files, or there is no image.
    """
    try:
        from nibabel import Nifti1Header, Nifti2Header
    except ImportError:
        hint = f"Install it with: {pip_install('nifti')}"
        raise ImageError("NIfTI is read by nibabel", hint, "unsupported") from None
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        message = "header of a NIfTI pair (.hdr and .img), without the image"
        raise ImageError(message, "Convert the pair to one .nii.gz file.", "unsupported")
    kind: Any = Nifti2Header if head[4:8] == b"n+2\0" else Nifti1Header
    header = kind(head[: kind.sizeof_hdr], check=False)
    if header["intent_code"] in _CIFTI_INTENTS:
        raise ImageError("CIFTI-2 data without an image", "Leave it out.", "no_pixels")
    return header


def _dtype(header: Any) -> np.dtype[Any]:
    """Type of the stored values: integers, floats or, with named fields, colours.

    Raises:
        ImageError: It is not supported.
    """
    with suppress(Exception):  # nibabel knows no type by this code
        dtype: np.dtype[Any] = header.get_data_dtype()
        if dtype.names or (dtype.kind in "iuf" and dtype.itemsize <= 8):
            return dtype
    message = f"NIfTI of data type {int(header['datatype'])}"
    raise ImageError(message, _HINT, "unsupported")


def _axes(header: Any) -> list[tuple[int, int]]:
    """The axis of the array, and its sign, that leads most nearly to right, front and head."""
    from nibabel import orientations

    nearest: Any = orientations.io_orientation
    directions = None
    with suppress(Exception):  # quaternions that are none, for example
        directions = nearest(header.get_best_affine())
    if directions is None or not np.isfinite(directions).all():
        directions = nearest(header.get_base_affine())
    order = np.argsort(directions[:, 0])
    return [(int(axis), int(directions[axis, 1])) for axis in order]


def _scaling(header: Any) -> tuple[float, float]:
    """The slope and intercept that make values of stored ones; a slope of 0 stands for none."""
    slope, intercept = _number(header, "scl_slope"), _number(header, "scl_inter")
    return (slope, intercept) if slope else (1.0, 0.0)


def _display(header: Any) -> tuple[float, float] | None:
    """Between which two stored values the picture is; None for percentiles."""
    slope, intercept = _scaling(header)
    low, high = _number(header, "cal_min"), _number(header, "cal_max")
    return ((low - intercept) / slope, (high - intercept) / slope) if low < high else None


def _number(header: Any, name: str) -> float:
    return float(header[name]) if math.isfinite(header[name]) else 0.0


def _windowed(stored: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """`low` becomes 0 and `high`, which may be less, 255."""

    def scale(part: NDArray[Any]) -> NDArray[np.uint8]:
        return to_uint8(np.nan_to_num((part.astype(np.float64) - low) * (255 / (high - low))))

    return map_values(scale, stored)


def _loses(window: tuple[float, float], volume: NDArray[Any]) -> bool:
    """Whether a window leaves no picture of a volume, by some of its values.

    Of all slices, since those at either end may well have no contrast of their own.
    """
    step = math.ceil((volume.size / _SAMPLE) ** (1 / 3))
    few = np.ascontiguousarray(volume[::step, ::step, ::step])
    return is_washed_out(_windowed(few, *window), few)


def _inflated(data: bytes, size: int) -> bytes:
    """The first bytes of a gzip file, at most `size`."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return file.read(size)
