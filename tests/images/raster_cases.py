"""Awkward PNG, TIFF, NIfTI, ... files of our own making, and what they are to look like.

The writers follow the specifications and share no code with the decoders. Expected pictures come
from the stored values, by numpy alone.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]


class Case(NamedTuple):
    """A file, and the picture that it holds."""

    data: bytes
    expected: Array
    notes: tuple[str, ...] = ()


class Refused(NamedTuple):
    """A file that is refused, with a message and a hint that contain these words."""

    data: bytes
    message: str
    hint: str = ""


def _phantom() -> Array:
    """Grey levels 0 to 200 of a disc on black, without symmetry, uint8[96, 120]."""
    y, x = np.mgrid[:96, :120]
    disc = (x - 55) ** 2 / 48**2 + (y - 45) ** 2 / 40**2 < 1
    grey = np.where(disc, 40 + x + y // 3 + 12 * ((x // 12 + y // 9) % 2), 0)
    grey[70:80, 10:40] = 200
    return grey.astype(np.uint8)


GREY = _phantom()
COLOUR = np.stack([GREY, GREY[::-1] // 2, np.roll(GREY, 17, axis=1) // 3], axis=-1)
DEEP = GREY.astype(np.uint16) * 16 + 5  # 12 bits
DEEP_COLOUR = COLOUR.astype(np.uint16) * 16 + 5
# A half is hidden: the composite is the left half on black.
HALF = np.where(np.arange(120) < 60, 255, 0).astype(np.uint8)[None].repeat(96, axis=0)


def stretched(values: Array) -> Array:
    """uint8: between the 0.5th and the 99.5th percentile of all values, of all colours."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = np.percentile(finite, (0.5, 99.5))
    scaled = (values.astype(np.float64) - low) * 255 / (high - low)
    scaled = np.nan_to_num(scaled, nan=0, posinf=255, neginf=0)
    return np.clip(scaled, 0, 255).round().astype(np.uint8)


def saved(pixels: Array | Image.Image, format: str, **options: Any) -> bytes:
    """An image that Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


# PNG

_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def png(values: Array, *chunks: tuple[bytes, bytes], interlaced: bool = False) -> bytes:
    """A PNG of uint8 or uint16[rows, columns] or [rows, columns, 2 to 4]."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    n = 1 if values.ndim == 2 else values.shape[2]
    big_endian = values.astype(f">u{values.dtype.itemsize}")
    # Adam7 (PNG, 8.2): first row and column of each pass, and the steps.
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
    passes = [*passes, (1, 0, 2, 1)] if interlaced else [(0, 0, 1, 1)]
    rows = b"".join(
        b"\0" + np.ascontiguousarray(row).tobytes()
        for top, left, down, across in passes
        for row in big_endian[top::down, left::across]
    )
    height, width = values.shape[:2]
    bits = 8 * values.dtype.itemsize
    header = struct.pack(">II5B", width, height, bits, _PNG_COLOUR_TYPES[n], 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), *(chunk(*c) for c in chunks)]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_alpha(values: Array, alpha: Array) -> Array:
    """Values with alpha as a last sample, 0 to 255 widened to the depth of the values."""
    colours = values if values.ndim == 3 else values[..., None]
    wide = alpha.astype(values.dtype) * (1 if values.dtype == np.uint8 else 257)
    return np.concatenate([colours, wide[..., None]], axis=-1)


# TIFF

NONE, LZW, DEFLATE, PACKBITS, ZSTD, LZMA = 1, 5, 8, 32773, 50000, 34925
_COMPRESSORS = {LZW: "tiff_lzw", PACKBITS: "packbits", LZMA: "lzma"}


class Page(NamedTuple):
    """A page of a TIFF: its values, [rows, columns] or [rows, columns, samples], and its layout."""

    values: Array
    photometric: int = 1
    bits: int = 0  # 0: those of the values' type
    compression: int = NONE
    predictor: int = 1
    planar: bool = False
    tile: tuple[int, int] = (0, 0)  # rows and columns; 0, 0 for strips
    rows_per_strip: int = 20
    fill_order: int = 1
    stored: tuple[bytes, ...] = ()  # strips, where they are not made from the values
    tags: dict[int, tuple[int, Sequence[int]]] = {}  # noqa: RUF012 - never changed


def tiff(*pages: Page, order: str = "<", big: bool = False) -> bytes:
    """A TIFF, or with `big` a BigTIFF, of these pages."""
    mark = b"II" if order == "<" else b"MM"
    head, entry, pointer = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    wide = struct.calcsize(pointer)
    version = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    data = bytearray(mark + version + bytes(wide))
    place = len(data) - wide  # of the offset of the next directory
    for page in pages:
        parts = _segments(page, order)
        offsets = []
        for part in parts:
            offsets.append(len(data))
            data += part
        tags = _tags(page, offsets, [len(part) for part in parts])
        entries = b""
        for tag, (kind, values) in sorted(tags.items()):
            letter = {1: "B", 3: "H", 4: "I"}[kind]
            body = struct.pack(f"{order}{len(values)}{letter}", *values)
            if len(body) > wide:
                offset = len(data)
                data += body
                body = struct.pack(order + pointer, offset)
            entries += struct.pack(order + entry, tag, kind, len(values)) + body.ljust(wide, b"\0")
        struct.pack_into(order + pointer, data, place, len(data))
        data += struct.pack(order + head, len(tags)) + entries
        place = len(data)
        data += bytes(wide)
    return bytes(data)


def _tags(
    page: Page, offsets: list[int], counts: list[int]
) -> dict[int, tuple[int, Sequence[int]]]:
    height, width = page.values.shape[:2]
    n = 1 if page.values.ndim == 2 else page.values.shape[2]
    bits = page.bits or 8 * page.values.dtype.itemsize
    sample_format = {"u": 1, "i": 2, "f": 3, "c": 6, "b": 1}[page.values.dtype.kind]
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * n), 259: (3, [page.compression]),
        262: (3, [page.photometric]), 266: (3, [page.fill_order]), 277: (3, [n]),
        284: (3, [1 + page.planar]), 317: (3, [page.predictor]), 339: (3, [sample_format] * n),
    }  # fmt: skip
    if page.tile != (0, 0):
        tags |= {322: (4, [page.tile[1]]), 323: (4, [page.tile[0]])}
        tags |= {324: (4, offsets), 325: (4, counts)}
    else:
        tags |= {273: (4, offsets), 278: (4, [page.rows_per_strip]), 279: (4, counts)}
    return tags | page.tags


def _segments(page: Page, order: str) -> list[bytes]:
    """The compressed strips or tiles."""
    if page.stored:
        return list(page.stored)
    values = page.values if page.values.ndim == 3 else page.values[..., None]
    planes = np.split(values, values.shape[2], axis=2) if page.planar else [values]
    down, across = page.tile if page.tile != (0, 0) else (page.rows_per_strip, values.shape[1])
    segments = []
    for plane in planes:
        for top in range(0, len(plane), down):
            for left in range(0, plane.shape[1], across):
                part = plane[top : top + down, left : left + across]
                if page.tile != (0, 0):
                    missing = down - part.shape[0], across - part.shape[1]
                    part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)))
                segments.append(_segment(page, part, order))
    return segments


def _segment(page: Page, part: Array, order: str) -> bytes:
    rows, columns, n = part.shape
    if page.bits and page.bits != 8 * part.dtype.itemsize:
        shifts = np.arange(page.bits)[::-1]
        bits = (part.reshape(rows, -1, 1).astype(np.int64) >> shifts & 1).astype(np.uint8)
        stored = np.packbits(bits.reshape(rows, -1), axis=1)
    elif page.predictor == 3:
        # Adobe's technical note 3: first bytes of all values of a row, then second ones, ...
        values = part.astype(part.dtype.newbyteorder(">")).reshape(rows, columns * n)
        shuffled = values.view(np.uint8).reshape(rows, columns * n, -1).transpose(0, 2, 1)
        stored = _differences(np.ascontiguousarray(shuffled).reshape(rows, -1, n))
    else:
        values = part
        if page.predictor == 2:
            values = _differences(part.view(f"u{part.dtype.itemsize}"))
        stored = np.ascontiguousarray(values.astype(values.dtype.newbyteorder(order)))
    stored = np.ascontiguousarray(stored).reshape(rows, -1).view(np.uint8)
    if page.compression == DEFLATE:
        compressed = zlib.compress(stored.tobytes())
    elif page.compression == ZSTD:
        # A frame (RFC 8878, 3.1.1) of one raw block, with its size in 4 bytes.
        size = stored.size
        header = b"\x28\xb5\x2f\xfd" + struct.pack("<BI", 0xA0, size)
        compressed = header + struct.pack("<I", 1 | size << 3)[:3] + stored.tobytes()
    elif page.compression in _COMPRESSORS:
        compressed = _with_libtiff(stored, _COMPRESSORS[page.compression])
    else:
        compressed = stored.tobytes()
    if page.fill_order == 2:
        reversed_ = np.packbits(
            np.unpackbits(np.frombuffer(compressed, np.uint8)), bitorder="little"
        )
        compressed = reversed_.tobytes()
    return compressed


def _differences(values: Array) -> Array:
    """Of each value and the one of the pixel before, wrapping round."""
    differences = values.copy()
    differences[:, 1:] -= values[:, :-1]
    return differences


def _with_libtiff(stored: Array, compression: str) -> bytes:
    """Compressed bytes [rows, bytes of a row], of which Pillow's libtiff makes one strip."""
    options = {"compression": compression, "strip_size": stored.size}
    data = saved(np.ascontiguousarray(stored), "TIFF", **options)
    (offset,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, offset)
    entries = [struct.unpack_from("<HHII", data, offset + 2 + 12 * i) for i in range(count)]
    values = {tag: value for tag, _, _, value in entries}
    return data[values[273] : values[273] + values[279]]


def _extra(kind: int) -> dict[int, tuple[int, Sequence[int]]]:
    return {338: (3, [kind])}


REDUCED = {254: (4, [1])}


def tiff_cases() -> dict[str, Case]:
    """TIFFs of every layout of samples."""
    cases: dict[str, Case] = {}
    signed = GREY.astype(np.int16) - 100
    white = 200 - GREY
    # Depths and types of grey samples
    depths: dict[str, tuple[Page, Array]] = {
        "1-bit": (Page((GREY > 90).astype(np.uint8), bits=1), (GREY > 90) * np.uint8(255)),
        "2-bit": (Page(GREY // 64, bits=2), GREY // 64 * np.uint8(85)),
        "4-bit": (Page(GREY // 16, bits=4), GREY // 16 * np.uint8(17)),
        "6-bit": (Page(GREY // 4, bits=6), (GREY // 4 * (255 / 63)).astype(np.uint8)),
        "int8": (Page(signed.astype(np.int8)), stretched(signed)),
        "10-bit packed": (Page(DEEP // 4, bits=10), stretched(DEEP)),
        "12-bit packed": (Page(DEEP, bits=12), stretched(DEEP)),
        "14-bit packed": (Page(DEEP * 4, bits=14), stretched(DEEP)),
        "12-bit in 16": (Page(DEEP), stretched(DEEP)),
        "full 16-bit": (Page(DEEP * 16), stretched(DEEP)),
        "int16": (Page(signed * 20), stretched(signed)),
        "uint32": (Page(GREY.astype(np.uint32) * 10_000_000), stretched(GREY)),
        "int32": (Page(signed.astype(np.int32) * 1_000_000), stretched(signed)),
        "uint64": (Page(GREY.astype(np.uint64) << 40), stretched(GREY)),
        "float16": (Page((GREY / 100).astype(np.float16)), stretched(GREY)),
        "float32": (Page((GREY / 100).astype(np.float32)), stretched(GREY)),
        "float64": (Page(GREY / 100 - 3), stretched(GREY)),
        "white is zero, 4-bit": (Page(15 - GREY // 16, 0, bits=4), GREY // 16 * np.uint8(17)),
        "white is zero, 8-bit": (Page(white + 55, 0), GREY),
        "white is zero, 12-bit": (Page(4000 - DEEP, 0, bits=12), stretched(DEEP)),
        "white is zero, 16-bit": (Page(4000 - DEEP, 0), stretched(DEEP)),
        "white is zero, float32": (Page(-GREY.astype(np.float32), 0), stretched(GREY)),
    }
    for name, (page, expected) in depths.items():
        cases[name] = Case(tiff(page), expected)
        cases[f"{name}, big-endian"] = Case(tiff(page, order=">"), expected)
    holes = (GREY / 100).astype(np.float32)
    holes[0, 0], holes[1, 1], holes[2, 2] = np.nan, np.inf, -np.inf
    cases["float32 with NaN"] = Case(tiff(Page(holes)), stretched(holes))
    # Colours
    floats = (COLOUR / 300).astype(np.float32)
    indices = GREY // 13
    palette = np.random.default_rng(3).integers(0, 256, (256, 3))
    colour_map = {320: (3, (palette.T * 257).reshape(-1).tolist())}
    narrow_map = {320: (3, palette.T.reshape(-1).tolist())}  # 8 bits where 16 are the standard
    small_map = {320: (3, (palette[:16].T * 257).reshape(-1).tolist())}
    colours: dict[str, tuple[Page, Array]] = {
        "RGB 8": (Page(COLOUR, 2), COLOUR),
        "RGB 16": (Page(DEEP_COLOUR, 2), stretched(DEEP_COLOUR)),
        "RGB full 16": (Page(DEEP_COLOUR * 16, 2), stretched(DEEP_COLOUR)),
        "RGB 10 packed": (Page(DEEP_COLOUR // 4, 2, bits=10), stretched(DEEP_COLOUR)),
        "RGB int16": (Page(DEEP_COLOUR.astype(np.int16) - 999, 2), stretched(DEEP_COLOUR)),
        "RGB float16": (Page(floats.astype(np.float16), 2), stretched(COLOUR)),
        "RGB float32": (Page(floats, 2), stretched(COLOUR)),
        "RGB float64": (Page(floats.astype(np.float64), 2), stretched(COLOUR)),
        "palette": (Page(indices, 3, tags=colour_map), palette[indices]),
        "palette of 8-bit entries": (Page(indices, 3, tags=narrow_map), palette[indices]),
        "palette, 4-bit": (Page(indices, 3, bits=4, tags=small_map), palette[indices]),
        "grey and another sample": (Page(np.stack([GREY, 255 - GREY], -1), tags=_extra(0)), GREY),
        "grey of 5 samples": (Page(np.stack([GREY] * 5, -1), tags={338: (3, [0] * 4)}), GREY),
        "RGB of 5 samples": (
            Page(np.dstack([COLOUR, GREY, GREY]), 2, tags={338: (3, [0, 0])}), COLOUR
        ),
        "RGB 16 of 5 samples": (
            Page(np.dstack([DEEP_COLOUR, DEEP, DEEP]), 2, tags={338: (3, [0, 0])}),
            stretched(DEEP_COLOUR),
        ),
    }  # fmt: skip
    for name, (page, expected) in colours.items():
        cases[name] = Case(tiff(page), expected)
        cases[f"{name}, big-endian"] = Case(tiff(page, order=">"), expected)
        if page.values.ndim == 3:
            cases[f"{name}, planar"] = Case(tiff(page._replace(planar=True)), expected)
    # Compressions, predictors, strips, tiles and orders of bits
    for name, compression in {
        "LZW": LZW, "deflate": DEFLATE, "PackBits": PACKBITS, "zstd": ZSTD, "LZMA": LZMA
    }.items():  # fmt: skip
        deep = Page(DEEP_COLOUR, 2, compression=compression)
        cases[f"RGB 16, {name}"] = Case(tiff(deep), stretched(DEEP_COLOUR))
        tiled = deep._replace(tile=(32, 48))
        cases[f"RGB 16, {name}, tiled"] = Case(tiff(tiled, order=">"), stretched(DEEP_COLOUR))
        grey = Page(GREY, compression=compression, rows_per_strip=96)
        cases[f"grey, {name}"] = Case(tiff(grey), GREY)
        if compression == PACKBITS:
            continue
        for kind, page in {
            "grey 8": Page(GREY), "RGB 8": Page(COLOUR, 2), "grey 16": Page(DEEP),
            "RGB 16": Page(DEEP_COLOUR, 2), "int32": Page(signed.astype(np.int32) * 99),
        }.items():  # fmt: skip
            page = page._replace(compression=compression, predictor=2)
            expected = page.values if page.values.dtype == np.uint8 else stretched(page.values)
            for order in "<>":
                cases[f"{kind}, {name}, predictor 2, {order}"] = Case(
                    tiff(page, order=order), expected
                )
        for dtype in (np.float16, np.float32, np.float64):
            page = Page(floats.astype(dtype), 2, compression=compression, predictor=3)
            name_ = f"RGB {dtype.__name__}, {name}, predictor 3"
            for order in "<>":
                cases[f"{name_}, {order}"] = Case(tiff(page, order=order), stretched(COLOUR))
            page = page._replace(tile=(16, 64), planar=True)
            cases[f"{name_}, planar tiles"] = Case(tiff(page), stretched(COLOUR))
    cases["tiles"] = Case(tiff(Page(DEEP, tile=(32, 48))), stretched(DEEP))
    cases["tiles, planar"] = Case(tiff(Page(COLOUR, 2, tile=(32, 48), planar=True)), COLOUR)
    for name, page in {
        "1-bit": Page((GREY > 90).astype(np.uint8), bits=1), "8-bit": Page(GREY),
        "LZW": Page(GREY, compression=LZW),
    }.items():  # fmt: skip
        expected = page.values * np.uint8(255) if page.bits == 1 else GREY
        cases[f"FillOrder 2, {name}"] = Case(tiff(page._replace(fill_order=2)), expected)
    cases["BigTIFF"] = Case(tiff(Page(DEEP_COLOUR, 2), big=True), stretched(DEEP_COLOUR))
    cases["BigTIFF, big-endian"] = Case(tiff(Page(DEEP), order=">", big=True), stretched(DEEP))
    turned = Page(np.ascontiguousarray(np.rot90(DEEP)), tags={274: (3, [6])})
    cases["turned"] = Case(tiff(turned), stretched(DEEP))
    lines = tiff(Page(GREY, tags={279: (4, [0] * 5)}))
    cases["wrong StripByteCounts"] = Case(lines, GREY)
    # Alpha
    hidden, half = GREY * 0, HALF
    for name, values, photometric in (("RGB", COLOUR, 2), ("grey", GREY, 1)):
        for depth, scale in ((8, 1), (16, 16)):
            stored = values if depth == 8 else values.astype(np.uint16) * scale
            shown = values if depth == 8 else stretched(values)
            on_black = values * (half[..., None] > 0 if values.ndim == 3 else half > 0)
            on_black = on_black if depth == 8 else stretched(on_black)
            for kind, extra in (("associated", 1), ("unassociated", 2)):
                key = f"{name} {depth}, {kind} alpha"
                page = Page(with_alpha(stored, hidden), photometric, tags=_extra(extra))
                cases[f"{key} of 0"] = Case(tiff(page), shown, ("alpha_ignored",))
                if kind == "unassociated":
                    page = page._replace(values=with_alpha(stored, half))
                    cases[f"{key} of a half"] = Case(tiff(page), on_black)
                    cases[f"{key} of a half, planar"] = Case(
                        tiff(page._replace(planar=True)), on_black
                    )
    cases["RGBA without ExtraSamples"] = Case(
        tiff(Page(with_alpha(COLOUR, HALF), 2)), COLOUR * (HALF[..., None] > 0)
    )
    return cases


def page_cases() -> dict[str, Case]:
    """TIFFs of pages of which one is the picture."""
    main, small = Page(GREY), Page(np.ascontiguousarray(GREY[::4, ::4]))
    mask = Page((GREY > 0).astype(np.uint8) * 255)
    reduced = small._replace(tags=REDUCED)
    levels = [Page(np.ascontiguousarray(GREY[::k, ::k]), tile=(16, 16)) for k in (1, 2, 4, 8)]
    pages = {
        "thumbnail last": [main, reduced],
        "thumbnail first": [reduced, main],
        "thumbnail by SubfileType": [main, small._replace(tags={255: (3, [2])})],
        "mask": [main, mask._replace(tags={254: (4, [4])})],
        "mask of a reduced page": [main, reduced, mask._replace(tags={254: (4, [5])})],
        "mask by its photometric": [main, mask._replace(photometric=4)],
        "marked pyramid": [main, *(level._replace(tags=REDUCED) for level in levels[1:])],
        "pyramid that is not marked": levels,
        "pages of a fax": [page._replace(tags={254: (4, [2])}) for page in (small, main)],
    }
    cases = {name: Case(tiff(*chosen), GREY) for name, chosen in pages.items()}
    both = tiff(reduced, reduced)  # a writer that marks all
    return cases | {"all are marked": Case(both, small.values)}


def png_cases() -> dict[str, Case]:
    """PNGs of 16 bits, and with alpha."""
    nothing, faint, opaque = GREY * 0, GREY * 0 + 1, GREY * 0 + 255
    few = nothing.copy()
    few[3, 5:9] = 255
    visible = HALF > 0
    key = {"g": struct.pack(">H", 65535), "0": struct.pack(">H", 5)}
    corner = DEEP.copy()
    corner[:, 100:] = 65535  # transparent, and far above the picture
    blue = DEEP_COLOUR.copy()
    blue[:, 100:] = (0, 0, 65535)
    flat = Image.fromarray(GREY, "L").convert("P")
    clear = {"transparency": bytes(256)}
    half_clear = {"transparency": bytes([255] * 100 + [0] * 156)}
    ignored = ("alpha_ignored",)
    grey_rgb = np.dstack([GREY] * 3)
    cases = {
        "grey 16": Case(png(DEEP), stretched(DEEP)),
        "grey 16, interlaced": Case(png(DEEP, interlaced=True), stretched(DEEP)),
        "RGB 16": Case(png(DEEP_COLOUR), stretched(DEEP_COLOUR)),
        "RGB 16, interlaced": Case(png(DEEP_COLOUR, interlaced=True), stretched(DEEP_COLOUR)),
        "RGB full 16": Case(png(DEEP_COLOUR * 16), stretched(DEEP_COLOUR)),
        "RGB of 9 bits in 16": Case(png(DEEP_COLOUR // 8), stretched(DEEP_COLOUR)),
        "opaque RGBA 16": Case(png(with_alpha(DEEP_COLOUR, opaque)), stretched(DEEP_COLOUR)),
        "RGBA 16, half": Case(
            png(with_alpha(DEEP_COLOUR, HALF)), stretched(DEEP_COLOUR * visible[..., None])
        ),
        "opaque LA 16": Case(png(with_alpha(DEEP, opaque)), stretched(DEEP)),
        "LA 16, half": Case(png(with_alpha(DEEP, HALF)), stretched(DEEP * visible)),
        "grey 16 with tRNS": Case(png(DEEP, (b"tRNS", key["0"])), stretched(DEEP * (DEEP != 5))),
        "grey 16 with tRNS of white": Case(
            png(corner, (b"tRNS", key["g"])), stretched(np.where(corner > 9999, 0, corner))
        ),
        "RGB 16 with tRNS": Case(
            png(blue, (b"tRNS", struct.pack(">HHH", 0, 0, 65535))),
            stretched(np.where(blue[..., 2:] == 65535, 0, blue)),
        ),
        "RGBA, half": Case(png(with_alpha(COLOUR, HALF)), COLOUR * visible[..., None]),
        "LA, half": Case(png(with_alpha(GREY, HALF)), GREY * visible),
        "palette, all transparent": Case(saved(flat, "PNG", **clear), grey_rgb, ignored),
        "palette, half": Case(
            saved(flat, "PNG", **half_clear), np.dstack([np.where(GREY < 100, GREY, 0)] * 3)
        ),
    }  # fmt: skip
    for name, alpha in {"0": nothing, "1 of 255": faint, "0 but for 4 pixels": few}.items():
        cases |= {
            f"RGBA, alpha {name}": Case(png(with_alpha(COLOUR, alpha)), COLOUR, ignored),
            f"LA, alpha {name}": Case(png(with_alpha(GREY, alpha)), GREY, ignored),
            f"RGBA 16, alpha {name}": Case(
                png(with_alpha(DEEP_COLOUR, alpha)), stretched(DEEP_COLOUR), ignored
            ),
            f"LA 16, alpha {name}": Case(png(with_alpha(DEEP, alpha)), stretched(DEEP), ignored),
        }
    return cases


def _subsampled() -> Case:
    """A YCbCr TIFF whose chroma are halved: four Y, a Cb and a Cr for each 2 x 2 pixels."""
    image = Image.fromarray(COLOUR).convert("YCbCr")
    y, *chroma = (np.asarray(band) for band in image.split())
    chroma = [band[::2, ::2] for band in chroma]
    blocks = y.reshape(48, 2, 60, 2).transpose(0, 2, 1, 3).reshape(48, 60, 4)
    stored = np.dstack([blocks, *chroma]).tobytes()
    bands = [y, *(band.repeat(2, axis=0).repeat(2, axis=1) for band in chroma)]
    expected = Image.merge("YCbCr", [Image.fromarray(band) for band in bands]).convert("RGB")
    page = Page(COLOUR, 6, rows_per_strip=96, stored=(stored,), tags={530: (3, [2, 2])})
    return Case(tiff(page), np.asarray(expected))


def _animated() -> Case:
    """An animation of 16-bit colours, of which Pillow composes the high bytes."""
    frame = png(DEEP_COLOUR * 16)
    header, _, end = frame[:33], frame[33:-12], frame[-12:]

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    pixels = frame[41:-16]  # of the only IDAT, without its length, kind and checksum
    control = [struct.pack(">IIIIIHHBB", n, 120, 96, 0, 0, 1, 10, 0, 0) for n in (0, 1)]
    parts = [
        chunk(b"acTL", struct.pack(">II", 2, 0)),
        chunk(b"fcTL", control[0]),
        chunk(b"IDAT", pixels),
        chunk(b"fcTL", control[1]),
        chunk(b"fdAT", struct.pack(">I", 2) + pixels),
    ]
    return Case(header + b"".join(parts) + end, stretched(DEEP_COLOUR))


def other_cases() -> dict[str, Case]:
    """Formats that Pillow writes, and what it alone reads of TIFF."""
    rgba = Image.fromarray(with_alpha(COLOUR, GREY * 0))
    half = Image.fromarray(with_alpha(COLOUR, HALF))
    on_black = COLOUR * (HALF[..., None] > 0)
    jpeg = saved(GREY, "JPEG", quality=95)
    ignored = ("alpha_ignored",)
    lossless = {"irreversible": False}
    bits = GREY > 90
    cmyk = Image.fromarray(COLOUR).convert("CMYK")
    lab = Image.fromarray(COLOUR).convert("LAB")
    stream = saved(COLOUR, "JPEG", quality=95, subsampling=0)
    old = Page(COLOUR, 6, compression=6, stored=(stream,))
    return {
        "TIFF, JPEG, grey": Case(saved(GREY, "TIFF", compression="jpeg", quality=95), GREY),
        "TIFF, JPEG, RGB": Case(saved(COLOUR, "TIFF", compression="jpeg", quality=95), COLOUR),
        "TIFF, old-style JPEG": Case(tiff(old._replace(tags={513: (4, [8])})), COLOUR),
        "TIFF, fax": Case(saved(bits, "TIFF", compression="group4"), bits * np.uint8(255)),
        "TIFF, CMYK": Case(saved(cmyk, "TIFF"), np.asarray(cmyk.convert("RGB"))),
        "TIFF, CMYK, LZW": Case(
            saved(cmyk, "TIFF", compression="tiff_lzw"), np.asarray(cmyk.convert("RGB"))
        ),
        "TIFF, CIELab": Case(saved(lab, "TIFF"), COLOUR),
        "TIFF, YCbCr, subsampled": _subsampled(),
        "animated PNG of 16 bits": _animated(),
        "AVIF, grey": Case(saved(GREY, "AVIF", quality=95), GREY),
        "AVIF, RGB": Case(saved(COLOUR, "AVIF", quality=95, subsampling="4:4:4"), COLOUR),
        "AVIF, alpha 0": Case(
            saved(rgba, "AVIF", quality=95, subsampling="4:4:4"), COLOUR, ignored
        ),
        "AVIF, half": Case(saved(half, "AVIF", quality=95, subsampling="4:4:4"), on_black),
        "WebP, alpha 0": Case(saved(rgba, "WebP", lossless=True, exact=True), COLOUR, ignored),
        "WebP, half": Case(saved(half, "WebP", lossless=True), on_black),
        "JP2, grey": Case(saved(GREY, "JPEG2000", **lossless), GREY),
        "JP2, grey 16": Case(saved(DEEP, "JPEG2000", **lossless), stretched(DEEP)),
        "JP2, RGB": Case(saved(COLOUR, "JPEG2000", **lossless), COLOUR),
        "JP2, alpha 0": Case(saved(rgba, "JPEG2000", **lossless), COLOUR, ignored),
        "JP2, half": Case(saved(half, "JPEG2000", **lossless), on_black),
        "JPEG 2000 codestream": Case(saved(GREY, "JPEG2000", no_jp2=True), GREY),
        "JPEG after a newline": Case(b"\r\n" + jpeg, GREY),
        "PNG after a byte order mark": Case(b"\xef\xbb\xbf" + png(GREY), GREY),
        "JPEG and more": Case(jpeg + bytes(5000), GREY),
    }


# NIfTI


def nifti(
    values: Array,
    *,
    affine: Array | None = None,
    slope: float = 1,
    intercept: float = 0,
    window: tuple[float, float] = (0, 0),
    order: str = "<",
    version: int = 1,
    code: int = 0,
    magic: bytes = b"",
) -> bytes:
    """A NIfTI file of values [x, y, ...], with a header by nifti1.h or nifti2.h.

    Args:
        values: Of a type with a code, or with `code` of any.
        affine: Of the sform, 3 x 4; none without.
        slope: scl_slope.
        intercept: scl_inter.
        window: cal_min and cal_max.
        order: Of the bytes.
        version: 1 or 2.
        code: Data type, if it is not that of the values.
        magic: If it is not that of one file.
    """
    codes = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768}
    code = code or codes[values.dtype.str[1:]]
    rgb = code in (128, 2304)
    shape = values.shape[:-1] if rgb else values.shape
    dim = [len(shape), *shape, *[1] * (7 - len(shape))]
    bits = 8 * values.dtype.itemsize * (values.shape[-1] if rgb else 1)
    srow = np.zeros(12) if affine is None else np.asarray(affine, float).reshape(-1)
    sform = int(affine is not None)
    pixdim = [1.0, 2, 2, 3, *[0] * 4]
    if version == 1:
        head = struct.pack(
            order + "i36x8h3f4h8f3f",
            348,
            *dim,
            0,
            0,
            0,
            0,
            code,
            bits,
            0,
            *pixdim,
            352,
            slope,
            intercept,
        )
        head += struct.pack(
            order + "hBB2f2f2i80x24x2h6f12f16x4s",
            0,
            0,
            0,
            *window[::-1],
            0,
            0,
            0,
            0,
            0,
            sform,
            *[0] * 6,
            *srow,
            magic or b"n+1\0",
        )
        head += bytes(4)
    else:
        head = struct.pack(
            order + "i8s2h8q3d8dq4d2d2q80x24x2i6d12d",
            540,
            magic or b"n+2\0\r\n\x1a\n",
            code,
            bits,
            *dim,
            0,
            0,
            0,
            *pixdim,
            544,
            slope,
            intercept,
            *window[::-1],
            0,
            0,
            0,
            0,
            0,
            sform,
            *[0] * 6,
            *srow,
        )
        head += bytes(540 - len(head)) + bytes(4)
    if rgb:  # the samples of a pixel lie together
        body = np.moveaxis(values, -1, 0).tobytes(order="F")
    else:
        body = values.astype(values.dtype.newbyteorder(order)).tobytes(order="F")
    return head + body


def volume_of(slices: Sequence[Array]) -> Array:
    """Values [x, y, z], axes to the patient's right, front and head, of axial pictures."""
    return np.stack([np.flip(picture, (0, 1)).T for picture in slices], axis=2)


RAS = np.eye(3, 4)
SLICES = [GREY[::-1], GREY // 2, GREY, GREY[:, ::-1]]


def nifti_cases() -> dict[str, Case]:
    """Volumes whose middle slice is `GREY`."""
    volume = volume_of(SLICES).astype(np.int16) * 10 - 1000
    grey = stretched(GREY)
    flipped = np.diag([-1.0, -1, 1, 1])[:3]
    sagittal = np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0]])  # axes front, head, right
    oblique = np.array([[0.9, 0.3, 0, 5], [-0.3, 0.9, 0.1, 5], [0, -0.1, 0.95, 5]])
    series = np.stack([volume, volume * 0], axis=-1)
    rgb = np.stack([volume_of([c] * 3) for c in np.moveaxis(COLOUR, -1, 0)], axis=-1)
    windowed = np.clip((GREY - 20.0) * 255 / 100, 0, 255).round().astype(np.uint8)
    shallow = (volume + 1000) // 10
    cases = {
        "int16": Case(nifti(volume, affine=RAS), grey),
        "int16, big-endian": Case(nifti(volume, affine=RAS, order=">"), grey),
        "NIfTI-2": Case(nifti(volume, affine=RAS, version=2), grey),
        "gzip": Case(gzip.compress(nifti(volume, affine=RAS)), grey),
        "NIfTI-2, gzip": Case(gzip.compress(nifti(volume, affine=RAS, version=2)), grey),
        "two members of gzip": Case(
            b"".join(gzip.compress(p) for p in _halves(nifti(volume, affine=RAS))), grey
        ),
        "float32": Case(nifti(volume.astype(np.float32) / 7, affine=RAS), grey),
        "uint8": Case(nifti(shallow.astype(np.uint8), affine=RAS), grey),
        "left, back, head": Case(nifti(volume[::-1, ::-1], affine=flipped), grey),
        "without a form, x to the left": Case(nifti(volume[::-1]), grey),
        "sagittal": Case(nifti(np.moveaxis(volume, 0, 2), affine=sagittal), grey),
        "oblique": Case(nifti(volume, affine=oblique), grey),
        "4D": Case(nifti(series, affine=RAS), grey),
        "2D": Case(nifti(volume[..., 2], affine=RAS), grey),
        "slope": Case(nifti(volume, affine=RAS, slope=0.01, intercept=7), grey),
        "negative slope": Case(nifti(-volume, affine=RAS, slope=-2), grey),
        "slope 0": Case(nifti(volume, affine=RAS, slope=0), grey),
        "slope NaN": Case(nifti(volume, affine=RAS, slope=np.nan, intercept=np.nan), grey),
        "window": Case(nifti(volume, affine=RAS, window=(-800, 200)), windowed),
        "window and slope": Case(
            nifti(volume, affine=RAS, slope=0.5, intercept=500, window=(100, 600)), windowed
        ),
        "window of a volume, slice of low contrast": Case(
            nifti(volume_of([GREY, GREY, GREY // 20, GREY]), affine=RAS, window=(0, 200)),
            (GREY // 20 * (255 / 200)).round().astype(np.uint8),
        ),
        "window above the values": Case(
            nifti(volume, affine=RAS, window=(9000, 9999)), grey, ("window_ignored",)
        ),
        "RGB": Case(nifti(rgb, affine=RAS, code=128), COLOUR),
    }
    return cases


def _halves(data: bytes) -> tuple[bytes, bytes]:
    return data[: len(data) // 2], data[len(data) // 2 :]


# Refusals


def refusals() -> dict[str, Refused]:
    """Files that are no image that is read, with what is said of them."""
    jpeg, deep = saved(COLOUR, "JPEG"), bytearray(saved(GREY, "JPEG"))
    deep[deep.index(b"\xff\xc0") + 4] = 12  # precision
    png_, volume = png(COLOUR), nifti(volume_of(SLICES).astype(np.int16), affine=RAS)
    cifti = bytearray(nifti(GREY.T, version=2))
    struct.pack_into("<i", cifti, 504, 3001)  # intent_code
    jp2 = saved(GREY, "JPEG2000")
    larger = jp2.replace(struct.pack(">II", 120, 96), struct.pack(">II", 120, 97))
    mixed = Page(COLOUR, 2, tags={258: (3, [5, 6, 5])})
    complex_ = Page(GREY.astype(np.complex64))
    return {
        "zip": Refused(b"PK\x03\x04" + bytes(99), "zip archive", "Unpack"),
        "gzip": Refused(gzip.compress(png_), "gzip file", "gunzip"),
        "7z": Refused(b"7z\xbc\xaf\x27\x1c" + bytes(9), "7z archive", "Unpack"),
        "tar": Refused(b"x".ljust(257, b"\0") + b"ustar\0", "tar archive", "Unpack"),
        "git-lfs": Refused(b"version https://git-lfs.github.com/spec/v1\n", "git-lfs", "lfs pull"),
        "HTML": Refused(b"\n <!DOCTYPE html><html>404</html>", "HTML page", "download"),
        "HTML in UTF-16": Refused("<html>é</html>".encode("utf-16"), "HTML page", "download"),
        "XML": Refused(b"<?xml version='1.0'?><Error/>", "XML document", "download"),
        "SVG": Refused(b"<?xml version='1.0'?><svg/>", "SVG drawing", "PNG"),
        "JSON": Refused(json.dumps({"error": 1}).encode(), "JSON document", "download"),
        "text": Refused("Accès refusé\n".encode(), "plain text", "download"),
        "base64": Refused(b"/9j/4AAQSkZJRgABAQ", "base64 text", "Decode"),
        "PDF": Refused(b"%PDF-1.7\n", "PDF document", "pdfimages"),
        "zero bytes": Refused(bytes(1000), "zero bytes", "Fetch"),
        "AppleDouble": Refused(b"\0\x05\x16\x07\0\x02\0\0", "macOS", "Leave it out"),
        "HEIC": Refused(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC image", "PNG"),
        "video": Refused(b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "MP4", "PNG"),
        "JPEG XL": Refused(b"\xff\x0a\xfa\x7f", "JPEG XL image", "PNG"),
        "JPEG-LS": Refused(b"\xff\xd8\xff\xf7\0\x0b", "JPEG-LS image", "PNG"),
        "PGM": Refused(b"P5 1 1 255 \0", "Netpbm image", "PNG"),
        "Analyze": Refused(struct.pack("<i", 348) + bytes(344), "Analyze 7.5 image"),
        "NIfTI pair": Refused(nifti(GREY.T, magic=b"ni1\0")[:352], "NIfTI pair", ".nii.gz"),
        "CIFTI-2": Refused(bytes(cifti), "CIFTI-2 data without an image"),
        "16-bit CIELab TIFF": Refused(
            tiff(Page(DEEP_COLOUR, 8)), "TIFF of 3 x 16-bit CIELab samples"
        ),
        "complex NIfTI": Refused(nifti(GREY.T, code=32), "NIfTI of data type 32"),
        "short NIfTI": Refused(volume[:-1], "truncated NIfTI"),
        "short NIfTI, gzip": Refused(gzip.compress(volume)[:-99], "truncated NIfTI"),
        "short JPEG": Refused(jpeg[:-300], "truncated JPEG"),
        "12-bit JPEG": Refused(bytes(deep), "JPEG of 12 bits a sample", "PNG"),
        "JPEG 2000 of another size": Refused(larger, "another size"),
        "TIFF of mixed depths": Refused(tiff(mixed), "differ in depth"),
        "complex TIFF": Refused(tiff(complex_), "64-bit complex samples"),
        "TIFF with JPEG XL": Refused(tiff(Page(GREY, compression=50002)), "JPEG XL"),
        "TIFF with JPEG 2000": Refused(tiff(Page(GREY, compression=33005)), "JPEG 2000"),
        "TIFF of a sensor": Refused(tiff(Page(DEEP, 32803)), "photometric interpretation (32803)"),
        "TIFF without a colour map": Refused(tiff(Page(GREY, 3)), "colour map"),
        "short TIFF": Refused(tiff(Page(GREY, tags={273: (4, [8, 8, 8, 8, 10**8])})), "truncated"),
    }  # fmt: skip
