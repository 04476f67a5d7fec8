"""Description of the pixels of a DICOM file: the Image Pixel module (PS3.3, C.7.6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from annotator.errors import ImageError
from annotator.images.dicom.attributes import EXPORT_HINT, code, integer, required
from annotator.images.pixels import check_size

_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GREYS = ("MONOCHROME1", "MONOCHROME2", "PALETTE_COLOR")
_UNREADABLE = ("HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")
_DEPTHS = (1, 8, 16, 32, 64)


@dataclass(frozen=True)
class PixelHeader:
    """How the pixels are stored.

    Attributes:
        rows: Of a frame.
        columns: Of a frame.
        samples: Per pixel: 1 or 3.
        photometric: Photometric interpretation (C.7.6.3.1.2), in capitals with underscores.
        by_plane: Whether each sample has a plane of its own (Planar Configuration 1).
        bits_allocated: 1, 8, 16, 32 or 64.
        bits_stored: At most `bits_allocated`.
        high_bit: Most significant of the bits stored.
        kind: "u", "i" or "f": the kind of numpy's types.
        n_frames: None where the file does not say.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    by_plane: bool
    bits_allocated: int
    bits_stored: int
    high_bit: int
    kind: str
    n_frames: int | None

    @property
    def frame_bits(self) -> int:
        """Bits of an uncompressed frame."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated


def read_header(ds: Any, keyword: str, length: int | None, max_pixels: int) -> PixelHeader:
    """Describe the pixels of a data set, with the usual value of what is missing.

    Args:
        ds: The data set (`pydicom.Dataset`).
        keyword: Of the attribute with the pixels.
        length: Of that attribute in bytes; None where frames are encapsulated.
        max_pixels: Largest width x height of a frame.

    Raises:
        ImageError: An attribute without a usual value is missing, a value is not supported or
            the frame is too large.
    """
    rows, columns = required(ds, "Rows"), required(ds, "Columns")
    check_size(columns, rows, max_pixels)
    n_frames = integer(ds, "NumberOfFrames")
    count = rows * columns * max(1, n_frames or 1)
    if keyword == "PixelData":
        allocated = _bits_allocated(ds, length, count)
        kind = "i" if integer(ds, "PixelRepresentation") == 1 and allocated > 1 else "u"
    else:
        allocated, kind = 32 if keyword == "FloatPixelData" else 64, "f"
    stored = integer(ds, "BitsStored")
    if stored is None or not 1 <= stored <= allocated:
        stored = allocated
    high_bit = integer(ds, "HighBit")
    if high_bit is None or not stored - 1 <= high_bit < allocated:
        high_bit = stored - 1
    holds_three = length is not None and 8 * length >= 3 * count * allocated
    samples, photometric = _colour_model(ds, holds_three, encapsulated=length is None)
    if samples == 3 and kind == "i":
        kind = "u"  # colours have no signs
    if holds_three and photometric == "YBR_FULL_422":
        photometric = "YBR_FULL"  # whatever it says, no sample is left out
    return PixelHeader(
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=photometric,
        by_plane=integer(ds, "PlanarConfiguration") == 1,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        kind=kind,
        n_frames=n_frames,
    )


def _bits_allocated(ds: Any, length: int | None, count: int) -> int:
    """Bits Allocated; where it is missing or impossible, what the length and Bits Stored say."""
    allocated = integer(ds, "BitsAllocated")
    if allocated in _DEPTHS:
        return allocated
    if length is not None:
        count *= integer(ds, "SamplesPerPixel") or 1
        for depth in _DEPTHS[1:]:
            if length - depth // 8 * count in (0, 1):
                return depth
    elif allocated is None and (stored := integer(ds, "BitsStored")):
        return next((depth for depth in _DEPTHS[1:] if stored <= depth), 64)
    if allocated is None:
        raise ImageError("DICOM without BitsAllocated", EXPORT_HINT, "broken")
    message = "DICOM with an unsupported value of BitsAllocated"
    raise ImageError(message, EXPORT_HINT, "unsupported")


def _colour_model(ds: Any, holds_three: bool, *, encapsulated: bool) -> tuple[int, str]:
    """Samples per pixel and photometric interpretation, brought to agree.

    Args:
        ds: The data set.
        holds_three: Whether the pixel data is long enough for three samples a pixel.
        encapsulated: Whether that is unknown.
    """
    photometric = code(ds, "PhotometricInterpretation").replace(" ", "_")
    if photometric not in (*_COLOURS, *_GREYS, "MONOCHROME", ""):
        name = f" {photometric}" if photometric in _UNREADABLE else ""
        message = f"DICOM with an unsupported photometric interpretation{name}"
        raise ImageError(message, EXPORT_HINT, "unsupported")
    samples = integer(ds, "SamplesPerPixel")
    if samples in (None, 0, 1) and photometric in _COLOURS:
        samples = 3 if holds_three or encapsulated else 1
    elif samples in (None, 0):
        samples = 3 if holds_three and photometric == "" else 1
    if samples == 3:
        return 3, photometric if photometric in _COLOURS else "RGB"
    if samples != 1:
        message = "DICOM with an unsupported value of SamplesPerPixel"
        raise ImageError(message, EXPORT_HINT, "unsupported")
    if photometric in _GREYS:
        return 1, photometric
    has_palette = photometric == "" and "RedPaletteColorLookupTableDescriptor" in ds
    return 1, "PALETTE_COLOR" if has_palette else "MONOCHROME2"
