"""TIFF files (TIFF 6.0, BigTIFF, Adobe's supplements): pages, samples of any depth, colour spaces.

The directories are parsed here; Pillow's libtiff decompresses. Samples are taken as stored bytes
wherever the compression keeps those, since Pillow knows few layouts of more than 8 bits. What
remains (JPEG, fax, and colour spaces other than grey, RGB and palette) is given to Pillow as a
file of one page.

Input is not trusted: sizes and counts are checked before pixels are decoded.
"""

from __future__ import annotations

import ctypes
import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, _imaging

from annotator.errors import ImageError
from annotator.images.frames import Frame, View
from annotator.images.pixels import check_size, check_total, stripes
from annotator.images.raster import RasterReader, upright
from annotator.images.samples import frame_of, frame_of_image

_MAX_PAGES = 10_000
# As libtiff; real directories hold fewer than a hundred. Those of hostile files may overlap.
_MAX_ENTRIES, _MAX_ALL_ENTRIES = 4096, 1_000_000
# One strip or tile is held in memory at a time, of all samples: bytes for each allowed pixel.
_MAX_SEGMENT_BYTES = 16
_MAX_SAMPLES = 64
_MAX_SEGMENTS = 1 << 20  # strips or tiles; 80 million pixels of RGB in planes hold as many
# Strips and tiles are decompressed together up to about this many bytes: opening takes its time.
_BATCH = 1 << 22
_HINT = "Export it again as an uncompressed 8-bit or 16-bit TIFF, or as PNG."

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP = 266, 273, 274, 277, 278
_STRIP_COUNTS, _PLANAR, _PREDICTOR, _COLOUR_MAP, _TILE_WIDTH = 279, 284, 317, 320, 322
_TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _FORMAT = 323, 324, 325, 338, 339
_NEW_SUBFILE, _SUBFILE, _JPEG_STREAM = 254, 255, 513
# What Pillow needs of a page besides its size and its strips or tiles: JPEG and fax options,
# InkSet, YCbCr coefficients and the like.
_CARRIED = (
    *(_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PLANAR, _PREDICTOR),
    *(292, 293, 332, _EXTRA, _FORMAT, 347, 529, 530, 531, 532),
)
_TAGS = {
    *(*_CARRIED, _WIDTH, _LENGTH, _STRIP_OFFSETS, _ORIENTATION, _ROWS_PER_STRIP, _STRIP_COUNTS),
    *(
        _COLOUR_MAP,
        _TILE_WIDTH,
        _TILE_LENGTH,
        _TILE_OFFSETS,
        _TILE_COUNTS,
        _NEW_SUBFILE,
        _SUBFILE,
        _JPEG_STREAM,
    ),
}
# Field types (TIFF 6.0, section 2; 13 of Adobe's supplement 1; 16 to 18 of BigTIFF).
_TYPES = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u8", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "u8",
    11: "f4", 12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip

_NONE, _DEFLATE = 1, 8
# Compressions of bytes, which keep every layout of samples.
_OF_BYTES = {_NONE, 5, _DEFLATE, 32946, 32773, 34925, 50000}
_WITH_PREDICTOR = _OF_BYTES - {_NONE, 32773}
_FAX = {2, 3, 4, 32771}
_OLD_JPEG, _JPEG = 6, 7
_COMPRESSIONS = {
    _OLD_JPEG: "old-style JPEG", 22610: "JPEG XR", 32766: "NeXT RLE", 32809: "ThunderScan",
    32909: "PixarLog", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000",
    33007: "lossy JPEG", 34661: "JBIG", 34676: "SGI LogLuv", 34677: "SGI LogLuv",
    34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34934: "JPEG XR", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _MASK = range(5)
_YCBCR = 6
_COLOUR_SPACES = {5: "CMYK", _YCBCR: "YCbCr", 8: "CIELab"}  # that Pillow reads
_ASSOCIATED, _UNASSOCIATED, _COREL = 1, 2, 999
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4


class TiffReader:
    """A TIFF file, opened; see `annotator.images.frames.FrameReader`.

    Frames are its pages, but for reduced pictures and masks of others where they are marked as
    such (NewSubfileType, SubfileType) or the first page is the tiled base of a pyramid.

    Args:
        data: The whole file.
        max_pixels: Largest width x height of one page.

    Raises:
        ImageError: There is no page, there are too many, or the first is too large.
    """

    def __init__(self, data: bytes, max_pixels: int) -> None:
        _silence_libtiff()
        self._data, self._max_pixels = data, max_pixels
        self._pages = _real_pages(list(_directories(data)))
        self.n_frames = len(self._pages)
        self.needs_process = False
        width, height = self._pages[0].size
        check_size(width, height, max_pixels)
        self.pixels = width * height

    def read(self, indices: Sequence[int], view: View | None = None) -> Iterator[Frame]:
        total = 0
        for index in indices:
            page = self._pages[index]
            check_size(*page.size, self._max_pixels)
            total += math.prod(page.size)
            check_total(total, len(indices))
            frame = _frame(page, self._max_pixels, view)
            picture = upright(frame.picture, page.number(_ORIENTATION, 1))
            yield replace(frame, picture=picture)


@cache
def _silence_libtiff() -> None:
    """Stop libtiff from printing: what it says of bytes that may be hostile is of no use.

    Once for the process, as its handlers are. The copy of libtiff is Pillow's own in the wheels of
    PyPI; where it is linked in another way there may be no such names.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


# Directories


@dataclass(frozen=True)
class _Directory:
    """An image file directory: type, count and place of each field; values are read on demand."""

    data: bytes
    order: str  # "<" or ">"
    fields: dict[int, tuple[int, int, int]]

    def raw(self, tag: int) -> bytes:
        """The stored bytes of a field; none where it is missing.

        Raises:
            EOFError: The file ends before the field does.
        """
        if tag not in self.fields:
            return b""
        kind, count, position = self.fields[tag]
        end = position + count * _size_of(kind)
        if end > len(self.data):
            raise EOFError
        return self.data[position:end]

    def array(self, tag: int) -> NDArray[Any]:
        """The values of a field; none where it is missing."""
        if tag not in self.fields:
            return np.empty(0, np.int64)
        return np.frombuffer(self.raw(tag), self.order + _TYPES[self.fields[tag][0]])

    def number(self, tag: int, default: int) -> int:
        """The first value of a field."""
        values = self.array(tag)
        return int(values[0]) if values.size else default

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as stored; 0 where they are missing."""
        return self.number(_WIDTH, 0), self.number(_LENGTH, 0)

    @property
    def is_reduced_or_mask(self) -> bool:
        """Whether it is marked as a smaller version or a transparency mask of another page."""
        flags = self.number(_NEW_SUBFILE, 0)  # bit 0: reduced, 2: mask
        is_reduced = self.number(_SUBFILE, 1) == 2
        return bool(flags & 5) or is_reduced or self.number(_PHOTOMETRIC, _RGB) == _MASK


class _Numbers(NamedTuple):
    """How a file writes numbers, in the letters of `struct`.

    Attributes:
        order: Of the bytes, "<" or ">".
        length: The number of entries of a directory.
        entry: Tag, type and number of values of an entry; the values or their offset follow.
        offset: An offset.
    """

    order: str
    length: str
    entry: str
    offset: str


def _directories(data: bytes) -> Iterator[_Directory]:
    """The main directories of a file; one that cannot be read ends the chain.

    Raises:
        ImageError: There are too many.
        EOFError: The first cannot be read.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in data[2:4]
    numbers = _Numbers(order, "Q", "HHQ", "Q") if is_big else _Numbers(order, "H", "HHI", "I")
    (offset,) = struct.unpack_from(order + numbers.offset, data, 8 if is_big else 4)
    seen: set[int] = set()
    n_entries = 0
    while offset and offset not in seen:
        if len(seen) == _MAX_PAGES or n_entries > _MAX_ALL_ENTRIES:
            message = f"TIFF of more than {_MAX_PAGES} pages"
            raise ImageError(message, "Split it into smaller files.", "too_many_frames")
        seen.add(offset)
        try:
            (count,) = struct.unpack_from(order + numbers.length, data, offset)
            directory, offset = _directory(data, offset, count, numbers)
        except (struct.error, OverflowError):
            if len(seen) == 1:
                raise EOFError from None
            return
        n_entries += count
        yield directory


def _directory(data: bytes, offset: int, count: int, numbers: _Numbers) -> tuple[_Directory, int]:
    """The directory of `count` entries at an offset, and the offset of the next one; 0 for none.

    Raises:
        struct.error: It goes beyond the end of the file, or is no directory.
    """
    order, inline = numbers.order, struct.calcsize(numbers.offset)
    head = order + numbers.entry
    start, size = offset + struct.calcsize(order + numbers.length), struct.calcsize(head) + inline
    end = start + count * size
    if not 0 < count <= _MAX_ENTRIES or end > len(data):
        raise struct.error
    fields: dict[int, tuple[int, int, int]] = {}
    for position in range(start, end, size):
        tag, kind, n = struct.unpack_from(head, data, position)
        if tag in _TAGS and kind in _TYPES and n and tag not in fields:
            place = position + size - inline
            if n * _size_of(kind) > inline:
                (place,) = struct.unpack_from(order + numbers.offset, data, place)
            fields[tag] = kind, n, place
    following = data[end : end + inline].ljust(inline, b"\0")  # some writers leave the last out
    return _Directory(data, order, fields), struct.unpack(order + numbers.offset, following)[0]


def _size_of(kind: int) -> int:
    """Bytes of a value of a field type."""
    return int(_TYPES[kind][1])


def _real_pages(pages: list[_Directory]) -> list[_Directory]:
    """The pages that are pictures of their own, or all of them if none says so."""
    pages = [page for page in pages if _WIDTH in page.fields and _LENGTH in page.fields]
    if not pages:
        raise ImageError("TIFF without pages", _HINT, "broken")
    real = [page for page in pages if not page.is_reduced_or_mask] or pages
    first, *others = real
    # Slides of Aperio and others do not mark the levels of their pyramid, but the base comes first
    # and is tiled. No stack is a tiled page and smaller ones.
    (width, height), tiled = first.size, _TILE_OFFSETS in first.fields
    if tiled and all(w < width and h < height for w, h in (page.size for page in others)):
        return [first]
    return real


# Samples


@dataclass(frozen=True)
class _Layout:
    """How the samples of a page are stored.

    Attributes:
        width: In pixels, as height.
        height: See `width`.
        bits: Of each sample.
        format: SampleFormat.
        n_samples: Of each pixel.
        planar: Whether each sample has strips or tiles of its own.
        across: Width of a strip or tile, in pixels.
        down: Rows of a strip or tile.
    """

    width: int
    height: int
    bits: int
    format: int
    n_samples: int
    planar: bool
    across: int
    down: int

    @property
    def row_samples(self) -> int:
        """Samples in a row of a strip or tile."""
        return self.across * (1 if self.planar else self.n_samples)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a strip or tile; each row begins with a byte of its own."""
        return -(-self.row_samples * self.bits // 8)

    @property
    def n_segments(self) -> int:
        """Strips or tiles of all planes."""
        n = -(-self.height // self.down) * -(-self.width // self.across)
        return n * (self.n_samples if self.planar else 1)


def _layout(page: _Directory, max_pixels: int) -> _Layout:
    """The layout of a page.

    Raises:
        ImageError: It is not supported, or a strip or tile would fill the memory.
    """
    width, height = page.size
    n_samples = page.number(_SAMPLES, 1)
    # Some writers give more values than there are samples, or one for all of them.
    bits, formats = page.array(_BITS)[:n_samples], page.array(_FORMAT)[:n_samples]
    if len({*bits.tolist()}) > 1 or len({*formats.tolist()}) > 1:
        message = "TIFF whose samples differ in depth or type"
        raise ImageError(message, _HINT, "unsupported")
    if not 1 <= n_samples <= _MAX_SAMPLES:
        raise ImageError(f"TIFF of {n_samples} samples a pixel", _HINT, "unsupported")
    tiled = _TILE_OFFSETS in page.fields
    across = page.number(_TILE_WIDTH, 0) if tiled else width
    if tiled:
        down = page.number(_TILE_LENGTH, 0)
    else:
        down = min(page.number(_ROWS_PER_STRIP, 0) or height, height)
    check_size(across, down, max_pixels)
    layout = _Layout(
        width, height, int(bits[0]) if bits.size else 1, int(formats[0]) if formats.size else 1,
        n_samples, page.number(_PLANAR, 1) == 2 and n_samples > 1, across, down,
    )  # fmt: skip
    if layout.row_bytes * down > _MAX_SEGMENT_BYTES * max_pixels:
        message = f"TIFF strip or tile of {layout.row_bytes * down} bytes"
        raise ImageError(message, "Export it again with smaller strips.", "too_large")
    if layout.n_segments > _MAX_SEGMENTS:
        message = f"TIFF of {layout.n_segments} strips or tiles"
        raise ImageError(message, "Export it again with larger strips.", "too_large")
    return layout


def _dtype(layout: _Layout, order: str) -> np.dtype[Any]:
    """Type of the samples as they are stored, or once they are unpacked.

    Raises:
        ImageError: It is not supported.
    """
    kind = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f", _UNDEFINED: "u"}.get(layout.format, "")
    name = {"u": "unsigned", "i": "signed", "f": "floating-point"}.get(kind, "complex")
    bits = layout.bits
    if kind == "u" and 1 <= bits <= 16 and bits != 8:
        return np.dtype(order + "u2") if bits > 8 else np.dtype("u1")
    if bits in {"u": (8, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}.get(kind, ()):
        return np.dtype(f"{order}{kind}{bits // 8}")
    message = f"TIFF of {bits}-bit {name} samples"
    raise ImageError(message, _HINT, "unsupported")


def _frame(page: _Directory, max_pixels: int, view: View | None) -> Frame:
    """Decode a page, which is not turned upright yet."""
    layout = _layout(page, max_pixels)
    compression, photometric = page.number(_COMPRESSION, _NONE), _photometric(page, layout)
    if compression == _OLD_JPEG and _JPEG_STREAM in page.fields:
        stream = page.data[page.number(_JPEG_STREAM, 0) :]  # JPEGInterchangeFormat: a whole file
        return next(RasterReader(stream, "JPEG", None, max_pixels).read([0]))
    if compression in (*_FAX, _JPEG) or (
        compression in _OF_BYTES and photometric in _COLOUR_SPACES
    ):
        return _frame_of_pillow(page, layout)
    if compression not in _OF_BYTES:
        name = _COMPRESSIONS.get(compression, f"method {compression}")
        raise ImageError(f"TIFF compressed with {name}", _HINT, "unsupported")
    if photometric > _MASK:
        message = f"TIFF of an unsupported photometric interpretation ({photometric})"
        raise ImageError(message, _HINT, "unsupported")
    n_colours = 3 if photometric == _RGB else 1
    if layout.n_samples < n_colours:
        raise ImageError("RGB TIFF of fewer than 3 samples a pixel", _HINT, "broken")
    alpha_at, associated = _alpha(page, layout, n_colours)
    wanted = [*range(n_colours), *([] if alpha_at is None else [alpha_at])]
    values = _values(page, layout, wanted)
    alpha = None if alpha_at is None else values[..., -1]
    values = values[..., :n_colours] if n_colours > 1 else values[..., 0]
    if photometric == _PALETTE:
        values = _looked_up(page, layout, values)
    if alpha is not None:
        alpha = _opacity(alpha, layout)
    if associated and alpha is not None and alpha.any():
        alpha = None  # the colours hold it already, as if on black
    return frame_of(values, alpha, inverted=photometric == _WHITE_IS_ZERO, view=view)


def _photometric(page: _Directory, layout: _Layout) -> int:
    """PhotometricInterpretation; where it is missing, what libtiff's own viewer assumes."""
    if _PHOTOMETRIC in page.fields:
        return page.number(_PHOTOMETRIC, 0)
    return _RGB if layout.n_samples >= 3 else _BLACK_IS_ZERO


def _alpha(page: _Directory, layout: _Layout, n_colours: int) -> tuple[int | None, bool]:
    """Index of the sample that is alpha, and whether the colours are multiplied by it."""
    if layout.format not in (_UNSIGNED, _UNDEFINED) or layout.bits < 8:
        return None, False
    for index, kind in enumerate(page.array(_EXTRA).tolist(), start=n_colours):
        if kind in (_ASSOCIATED, _UNASSOCIATED, _COREL) and index < layout.n_samples:
            return index, kind == _ASSOCIATED
    # Many writers leave ExtraSamples out.
    missing = n_colours == 3 and layout.n_samples == 4 and _EXTRA not in page.fields
    return (3, False) if missing else (None, False)


def _opacity(alpha: NDArray[Any], layout: _Layout) -> NDArray[Any]:
    """Alpha with its type's maximum for opaque."""
    spare = 8 * alpha.dtype.itemsize - layout.bits
    return alpha << spare | alpha >> (layout.bits - spare) if spare else alpha


def _looked_up(page: _Directory, layout: _Layout, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Palette indices [rows, columns] to uint8[rows, columns, 3]."""
    table = page.array(_COLOUR_MAP).astype(np.uint16)
    n = 1 << layout.bits
    if table.size < 3 * n or layout.format == _FLOAT or layout.bits > 16:
        raise ImageError("TIFF without the colour map that it needs", _HINT, "broken")
    if table.max() > 255:  # some writers store 8 bits where the standard says 16
        table >>= 8
    colours = np.ascontiguousarray(table[: 3 * n].reshape(3, n).T, np.uint8)
    looked_up = np.empty((*values.shape, 3), np.uint8)
    for rows in stripes(*values.shape):
        looked_up[rows] = colours[values[rows].astype(np.uint16)]
    return looked_up


def _values(page: _Directory, layout: _Layout, wanted: list[int]) -> NDArray[Any]:
    """The stored values of these samples, [rows, columns, samples]; may be a view of the file."""
    dtype = _dtype(layout, page.order)
    offsets, counts = _segments(page, layout)
    whole = _view(page, layout, dtype, offsets)
    # A slice, where it is one, is a view and quick.
    is_first = wanted == [*range(len(wanted))]
    chosen = slice(len(wanted)) if is_first else wanted
    if whole is not None:
        return whole[..., chosen]
    values = np.empty((layout.height, layout.width, len(wanted)), dtype.newbyteorder("="))
    columns = -(-layout.width // layout.across)
    n = columns * -(-layout.height // layout.down)  # strips or tiles of a plane, or of all
    planes = wanted if layout.planar else [0]
    selected = slice(1) if layout.planar else chosen
    for place, plane in enumerate(planes):
        target = values[..., place : place + 1] if layout.planar else values
        own = slice(n * plane, n * (plane + 1))
        for index, first_row, block in _blocks(page, layout, offsets[own], counts[own]):
            row, column = divmod(index, columns)
            top, left = row * layout.down + first_row, column * layout.across
            part = target[top : top + len(block), left : left + layout.across]
            samples = _samples(page, layout, block, dtype)
            part[:] = samples[: part.shape[0], : part.shape[1], selected]
    return values


def _segments(page: _Directory, layout: _Layout) -> tuple[list[int], list[int]]:
    """Offsets and byte counts of the strips or tiles, as many as the picture needs.

    Raises:
        EOFError: There are fewer.
    """
    tiled = _TILE_OFFSETS in page.fields
    n, full = layout.n_segments, layout.row_bytes * layout.down
    offsets = page.array(_TILE_OFFSETS if tiled else _STRIP_OFFSETS)[:n].tolist()
    counts = page.array(_TILE_COUNTS if tiled else _STRIP_COUNTS)[:n].tolist()
    if len(offsets) < n:
        raise EOFError
    if page.number(_COMPRESSION, _NONE) == _NONE and page.number(_PHOTOMETRIC, 0) != _YCBCR:
        # Known without StripByteCounts, which old writers get wrong. The last strip may be short.
        rows = -(-layout.height // layout.down)
        short = full if tiled else layout.row_bytes * (layout.height - layout.down * (rows - 1))
        counts = [full if (i + 1) % rows else short for i in range(n)]
    else:
        # No strip takes more, and hostile ones could all claim the rest of the file.
        most = 2 * full + 4096
        if len(counts) < n:
            counts = [len(page.data) - offset for offset in offsets]
        counts = [min(count, most) for count in counts]
    if any(offset + count > len(page.data) for offset, count in zip(offsets, counts, strict=True)):
        raise EOFError
    return offsets, counts


def _view(
    page: _Directory, layout: _Layout, dtype: np.dtype[Any], offsets: list[int]
) -> NDArray[Any] | None:
    """The stored values where the file holds them as one array, which takes no memory."""
    size = layout.row_bytes * layout.down
    if (
        page.number(_COMPRESSION, _NONE) != _NONE
        or page.number(_FILL_ORDER, 1) != 1
        or layout.bits != 8 * dtype.itemsize
        or layout.across != layout.width
        or (_TILE_OFFSETS in page.fields and layout.height % layout.down)
        or (layout.planar and layout.height % layout.down)
        or any(offset != offsets[0] + i * size for i, offset in enumerate(offsets))
    ):
        return None
    n = layout.height * layout.width * layout.n_samples
    values = np.frombuffer(page.data, dtype, n, offsets[0])
    if layout.planar:
        return np.moveaxis(values.reshape(layout.n_samples, layout.height, layout.width), 0, 2)
    return values.reshape(layout.height, layout.width, layout.n_samples)


def _blocks(
    page: _Directory, layout: _Layout, offsets: list[int], counts: list[int]
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Rows of strips or tiles, decompressed: index of the segment, first row and bytes[rows, ...].

    Several segments are decompressed together, since opening a file takes its time.
    """
    compression, fill_order = page.number(_COMPRESSION, _NONE), page.number(_FILL_ORDER, 1)
    tiled = _TILE_OFFSETS in page.fields
    step = max(1, _BATCH // (layout.row_bytes * layout.down))
    for start in range(0, len(offsets), step):
        batch = range(start, min(start + step, len(offsets)))
        parts = [page.data[offsets[i] : offsets[i] + counts[i]] for i in batch]
        rows = [layout.down if tiled else layout.height - i * layout.down for i in batch]
        rows = [min(n, layout.down) for n in rows]
        image = None
        if compression != _NONE:
            # Their bytes are the pixels of a grey 8-bit TIFF.
            fields = {_WIDTH: layout.row_bytes, _LENGTH: sum(rows), _ROWS_PER_STRIP: layout.down}
            fields |= {_BITS: 8, _PHOTOMETRIC: _BLACK_IS_ZERO, _COMPRESSION: compression}
            fields |= {_FILL_ORDER: fill_order}
            packed = {tag: (4, struct.pack("<I", value)) for tag, value in fields.items()}
            image = _load(packed, parts, "<", tiled=False)
        for place, (index, n) in enumerate(zip(batch, rows, strict=True)):
            for some in stripes(n, layout.row_bytes):
                if image is None:
                    stored = np.frombuffer(parts[place], np.uint8).reshape(n, -1)[some]
                    yield index, some.start, stored if fill_order == 1 else _REVERSED[stored]
                else:
                    top = place * layout.down
                    box = (0, top + some.start, layout.row_bytes, top + some.stop)
                    yield index, some.start, np.asarray(image.crop(box))


# Each byte with its bits in the opposite order, for FillOrder 2.
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)), bitorder="little")


def _samples(
    page: _Directory, layout: _Layout, block: NDArray[np.uint8], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Bytes [rows, bytes of a row] to the samples that they hold, [rows, columns, samples].

    Undoes the predictor (TIFF 6.0, section 14; 3 of Adobe's technical note 3). Grey levels and
    colours of fewer than 8 bits are scaled to 8.
    """
    n = 1 if layout.planar else layout.n_samples
    shape = (len(block), layout.across, n)
    compression, predictor = page.number(_COMPRESSION, _NONE), page.number(_PREDICTOR, 1)
    if compression not in _WITH_PREDICTOR or predictor == 1:
        if layout.bits == 8 * dtype.itemsize:
            return block.view(dtype).reshape(shape)
        unpacked = _unpacked(block, layout)
        if layout.bits < 8 and page.number(_PHOTOMETRIC, _BLACK_IS_ZERO) != _PALETTE:
            unpacked = unpacked * 255 // ((1 << layout.bits) - 1)
        return unpacked.astype(dtype).reshape(shape)
    known = predictor == 2 or (predictor == 3 and dtype.kind == "f")
    if layout.bits != 8 * dtype.itemsize or not known:
        message = f"TIFF of {layout.bits}-bit samples with predictor {predictor}"
        raise ImageError(message, _HINT, "unsupported")
    if predictor == 2:  # differences of integers, also of floats
        integers = f"u{dtype.itemsize}"
        stored = block.view(page.order + integers).reshape(shape)
        values = np.cumsum(stored, axis=1, dtype=integers)
        return values.view(dtype.newbyteorder("="))
    # Differences of bytes; all first bytes of a row, then all second ones, and so on.
    differences = block.reshape(len(block), -1, n)
    planes = np.cumsum(differences, axis=1, dtype=np.uint8)
    planes = planes.reshape(len(block), dtype.itemsize, layout.row_samples)
    joined = np.ascontiguousarray(planes.transpose(0, 2, 1))
    return joined.view(dtype.newbyteorder(">")).reshape(shape)


def _unpacked(block: NDArray[np.uint8], layout: _Layout) -> NDArray[np.uint32]:
    """Samples of 1 to 16 bits, [rows, samples], which are stored without gaps."""
    positions = np.arange(layout.row_samples) * layout.bits
    byte, shift = positions >> 3, (24 - layout.bits - (positions & 7)).astype(np.uint32)
    padded = np.pad(block, ((0, 0), (0, 2))).astype(np.uint32)
    # Three bytes hold every sample, wherever it begins in the first of them.
    three = padded[:, byte] << 16 | padded[:, byte + 1] << 8 | padded[:, byte + 2]
    return np.asarray(three >> shift & ((1 << layout.bits) - 1), np.uint32)


# Pages that Pillow decodes


def _frame_of_pillow(page: _Directory, layout: _Layout) -> Frame:
    """Decode a page as Pillow does, from a file that holds nothing else."""
    if page.number(_COMPRESSION, _NONE) == _JPEG and layout.bits > 8:
        message = f"TIFF compressed with JPEG of {layout.bits} bits a sample"
        raise ImageError(message, _HINT, "unsupported")
    tiled = _TILE_OFFSETS in page.fields
    offsets, counts = _segments(page, layout)
    parts = [page.data[o : o + n] for o, n in zip(offsets, counts, strict=True)]
    sizes = {_WIDTH: layout.width, _LENGTH: layout.height}
    if tiled:
        sizes |= {_TILE_WIDTH: layout.across, _TILE_LENGTH: layout.down}
    else:
        sizes |= {_ROWS_PER_STRIP: layout.down}
    fields = {tag: (4, struct.pack(page.order + "I", value)) for tag, value in sizes.items()}
    for tag in _CARRIED:
        if tag in page.fields:
            fields[tag] = page.fields[tag][0], page.raw(tag)
    if page.number(_PHOTOMETRIC, 0) == _YCBCR and page.number(_COMPRESSION, _NONE) == _NONE:
        # Pillow asks libtiff, which knows subsampled chroma, about compressed strips alone.
        parts = [zlib.compress(part, 0) for part in parts]
        fields[_COMPRESSION] = 3, struct.pack(page.order + "H", _DEFLATE)
    try:
        return frame_of_image(_load(fields, parts, page.order, tiled=tiled))
    except SyntaxError:  # Pillow's word for a layout that it does not know
        name = _COLOUR_SPACES.get(page.number(_PHOTOMETRIC, 0), "other")
        message = f"TIFF of {layout.n_samples} x {layout.bits}-bit {name} samples"
        raise ImageError(message, _HINT, "unsupported") from None


def _load(
    fields: dict[int, tuple[int, bytes]], parts: list[bytes], order: str, *, tiled: bool
) -> Image.Image:
    """Decode a classic TIFF of one page.

    Args:
        fields: Type and stored value of each field but those about strips or tiles.
        parts: The strips or tiles.
        order: Of the bytes, "<" or ">".
        tiled: Whether `parts` are tiles.
    """
    offsets_tag, counts_tag = (
        (_TILE_OFFSETS, _TILE_COUNTS) if tiled else (_STRIP_OFFSETS, _STRIP_COUNTS)
    )
    counts = [len(part) for part in parts]
    fields = {**fields, counts_tag: (4, struct.pack(f"{order}{len(counts)}I", *counts))}
    heap = 8 + 2 + 12 * (len(fields) + 1) + 4
    start = (
        heap + 4 * len(parts) + sum(len(value) for _, value in fields.values() if len(value) > 4)
    )
    offsets = [start + before for before in accumulate(counts[:-1], initial=0)]
    fields[offsets_tag] = 4, struct.pack(f"{order}{len(offsets)}I", *offsets)
    entries, values = b"", b""
    for tag, (kind, value) in sorted(fields.items()):
        count = len(value) // _size_of(kind)
        if len(value) > 4:
            place = struct.pack(order + "I", heap + len(values))
            values += value
        else:
            place = value.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, count) + place
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(fields))
    body = [header, entries, bytes(4), values.ljust(start - heap, b"\0"), *parts]
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(b"".join(body)))
    # Without it Pillow makes its own, and takes the many bytes of a deep picture for pixels.
    image.im = Image.new(image.mode, image.size).im
    image.load()
    return image
