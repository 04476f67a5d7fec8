"""Small files that want much memory or time: decompression bombs, endless animations and pages."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import partial

from bad_files import ANY, BadFile, good_files, ihdr, png, tiff, tiff_tags, vp8x, webp

_SIDE = 7900  # 62 megapixels, just within the limit


def _deflated(size: int) -> bytes:
    """`size` zeros, about a thousandth as long."""
    packer, block = zlib.compressobj(1), bytes(1 << 20)
    pieces = [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*pieces, packer.flush()])


def png_bombs() -> Iterator[BadFile]:
    """PNG and APNG."""
    rest = ((b"IDAT", zlib.compress(bytes(9 * 8))), (b"IEND", b""))
    small = (b"IHDR", ihdr(8, 8))
    bomb = _deflated(300 << 20)
    profile = (b"iCCP", b"p\0\0" + bomb)
    still = struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 1, 0, 0)
    kinds = {
        "pixels without end": png(small, (b"IDAT", bomb), (b"IEND", b"")),
        "a profile of 300 MiB": png(small, profile, *rest),
        "a text of 300 MiB": png(small, (b"zTXt", b"t\0\0" + bomb), *rest),
        "an international text": png(small, (b"iTXt", b"t\0\1\0\0\0" + bomb), *rest),
        "forty texts": png(small, *[(b"zTXt", b"t\0\0" + _deflated(4 << 20))] * 40, *rest),
        "200,000 chunks": png(small, *[(b"tEXt", b"a\0")] * 200_000, *rest),
        "a chunk of 2 GiB": png(small)[:-4] + b"\x7f\xff\xff\xffIDAT" + bytes(100),
        "a negative chunk": png(small) + b"\xff\xff\xff\xffIDAT" + bytes(100),
        "a billion frames": png(
            small, (b"acTL", struct.pack(">II", 10**9, 0)), (b"fcTL", still), *rest
        ),
        "animation of 60 megapixels": png(
            (b"IHDR", ihdr(_SIDE, _SIDE)), (b"acTL", struct.pack(">II", 500, 0)),
            *[(b"fcTL", still), (b"fdAT", b"\0\0\0\1" + zlib.compress(bytes(72)))] * 500, *rest,
        ),
        "16 bits, colour, transparent, as large as allowed": png(
            (b"IHDR", ihdr(_SIDE, _SIDE, 16, 6)),
            (b"IDAT", _deflated(_SIDE * (_SIDE * 8 + 1) + (1 << 20))), (b"IEND", b""),
        ),
        "interlaced, as large as allowed": png(
            (b"IHDR", ihdr(_SIDE, _SIDE, 8, 6, 1)),
            (b"IDAT", _deflated(_SIDE * _SIDE * 4 + (1 << 20))), (b"IEND", b""),
        ),
    }  # fmt: skip
    for name, data in kinds.items():
        yield BadFile(f"png: {name}", partial(bytes, data), ANY)


def other_bombs() -> Iterator[BadFile]:
    """GIF, WebP, JPEG and BMP."""
    gif, progressive, bmp = (good_files()[name] for name in ("gif", "progressive", "bmp"))
    first = gif.index(b"\x2c", 13 + 3 * 256)  # behind the palette
    tiny = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"  # one pixel
    still = struct.pack("<HHHHBBB", 10, 10, 8, 8, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    large = struct.pack("<HHHHBBB", _SIDE, _SIDE, 8, 8, 0x80, 0, 0)[:2]
    screen = b"GIF89a" + large * 2 + b"\x80\0\0\0\0\0\xff\xff\xff"
    dot = (b"VP8L", good_files()["webp-lossless"][20:])
    # At 0, 0; of 48 x 64 pixels; for 10 ms.
    frame = bytes(6) + b"\x2f\0\0\x3f\0\0\x0a\0\0\0" + webp(dot)[12:]
    scan = progressive.index(b"\xff\xda")
    scans = progressive[scan : progressive.index(b"\xff", scan + 20)] + bytes(20)
    kinds = {
        "gif: 300,000 frames": b"GIF89a" + still + tiny * 300_000 + b";",
        "gif: 30 frames of 60 megapixels": screen + tiny * 30 + b";",
        "gif: 5000 frames of 60 megapixels": screen + tiny * 5000 + b";",
        "gif: a frame outside": gif[:6] + still + b"\x2c\xff\xff\xff\xff\xff\xff\xff\xff\0\2\0;",
        "gif: endless blocks": gif[:first] + b"\x21\xfe" + b"\x01a" * 500_000,
        "gif: compressed rubbish": gif[:first] + gif[first : first + 12] + b"\xff" * 5000,
        "webp: 5000 frames of 60 megapixels": webp(
            (b"VP8X", vp8x(_SIDE, _SIDE, 2)), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * 5000
        ),
        "webp: 30 frames of 60 megapixels": webp(
            (b"VP8X", vp8x(_SIDE, _SIDE, 2)), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * 30
        ),
        "webp: a canvas of 268 megapixels": webp(
            (b"VP8X", vp8x(16383, 16383, 2)), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * 3
        ),
        "webp: 100,000 unknown chunks": webp(
            (b"VP8X", vp8x(48, 64)), *[(b"XXXX", b"")] * 100_000, dot
        ),
        "jpeg: 5000 scans": progressive[:scan] + scans * 5000 + b"\xff\xd9",
        "jpeg: 20,000 comments": progressive[:2] + b"\xff\xfe\0\4ab" * 20_000 + progressive[2:],
        "jpeg: large, 99 scans": _resized(progressive[:scan]) + scans * 99 + b"\xff\xd9",
        "bmp: pixels begin behind the end": bmp[:10] + b"\xff\xff\xff\x7f" + bytes(99),
    }  # fmt: skip
    for name, data in kinds.items():
        yield BadFile(name, partial(bytes, data), ANY)


def _resized(jpeg: bytes) -> bytes:
    frame = jpeg.index(b"\xff\xc2") + 5
    return jpeg[:frame] + struct.pack(">HH", _SIDE, _SIDE) + jpeg[frame + 4 :]


def tiff_bombs() -> Iterator[BadFile]:
    """Chains and loops of pages, and compressed strips."""
    deflated = _deflated(200 << 20)

    def stored(data: bytes, **tags: int) -> bytes:
        page = tiff_tags(t279=len(data), **tags)
        return tiff(page | {273: len(tiff(page))}) + data

    def tag(number: int, kind: int, count: int, value: int) -> bytes:
        """One page with one more tag, of any type."""
        page = tiff(tiff_tags() | {number: value})
        entry = struct.pack("<HHII", number, 4, 1, value)
        return page.replace(entry, struct.pack("<HHII", number, kind, count, value))

    kinds = {
        "a page that follows itself": tiff(tiff_tags(), next_page=8),
        "pages in a circle": tiff(tiff_tags(), tiff_tags(), next_page=8),
        "12,000 pages": tiff(*[tiff_tags()] * 12_000),
        "12,000 big pages": tiff(*[tiff_tags()] * 12_000, big=True),
        "a next page behind the end": tiff(tiff_tags(), next_page=2**32 - 1),
        "a page within the header": tiff(tiff_tags(), next_page=2),
        "a subpage that is the page": tiff(tiff_tags(t330=8)),
        "exif that is the page": tiff(tiff_tags(t34665=8)),
        "no tags": tiff({}),
        "65535 tags": b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65535),
        "a strip of 200 MiB in 64 pixels": stored(deflated, t259=8),
        "a strip as large as allowed": stored(deflated, t256=_SIDE, t257=_SIDE, t259=8, t278=_SIDE),
        "lzw rubbish": stored(b"\xff" * 5000, t259=5),
        "fax rubbish": stored(b"\x55" * 5000, t256=5000, t257=5000, t258=1, t259=4, t278=5000),
        "jpeg rubbish": stored(b"\xff\xd8\xff" * 500, t259=7),
        "4 billion strips": tag(273, 4, 2**32 - 1, 8),
        "4 billion bits": tag(258, 3, 2**32 - 1, 8),
        "a description of 4 GiB": tag(270, 2, 2**32 - 1, 8),
        "rationals without end": tag(282, 5, 2**29, 0),
        "65535 samples": tiff(tiff_tags(t277=65535)),
        "rows per strip of zero": tiff(tiff_tags(t278=0)),
    }
    for name, data in kinds.items():
        yield BadFile(f"tiff: {name}", partial(bytes, data), ANY)
