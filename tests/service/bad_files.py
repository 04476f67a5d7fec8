"""Image files that are broken, hostile or none at all; every one is made here."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from bad_dicom import good_dicoms
from PIL import Image

UNUSABLE = frozenset({413, 415, 422})
ANY = UNUSABLE | {200}


@dataclass(frozen=True)
class BadFile:
    """A file to upload, and the statuses that are right for it alone in a request."""

    name: str
    make: Callable[[], bytes]
    statuses: frozenset[int] = UNUSABLE


def _save(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@cache
def good_files() -> dict[str, bytes]:
    """One sound file of each kind, 48 x 64 pixels; the same bytes every time."""
    rng = np.random.default_rng(0)
    waves = np.sin(np.add.outer(np.arange(64) / 5, np.arange(48) / 7)) * 90 + 128
    pixels = (waves + rng.normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8)
    grey = Image.fromarray(pixels)
    colour = Image.merge("RGB", (grey, grey.rotate(180), grey.transpose(Image.Transpose(0))))
    moving = {"save_all": True, "append_images": [colour.rotate(a) for a in (90, 180)]}
    files = {
        "jpeg": _save(grey, "JPEG"),
        "progressive": _save(colour, "JPEG", progressive=True),
        "png": _save(grey, "PNG"),
        "png16": _save(Image.fromarray(pixels.astype(np.uint16) * 200), "PNG"),
        "apng": _save(colour, "PNG", **moving),
        "tiff": _save(colour, "TIFF"),
        "tiff-deflate": _save(grey, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-lzw": _save(colour, "TIFF", compression="tiff_lzw", **moving),
        "bmp": _save(colour, "BMP"),
        "gif": _save(grey, "GIF"),
        "gif-animated": _save(colour, "GIF", **moving),
        "webp": _save(colour, "WEBP"),
        "webp-lossless": _save(colour, "WEBP", lossless=True),
        "webp-animated": _save(colour, "WEBP", **moving),
    }
    return files | good_dicoms(pixels)


def truncations() -> Iterator[BadFile]:
    """Each format, cut at seven places."""
    for name, data in good_files().items():
        # Cut in what follows the pixels (a trailer, a last page) some can be used.
        for part in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
            cut = data[: max(1, int(len(data) * part))]
            statuses = UNUSABLE if part < 0.3 or "dicom" in name else ANY
            yield BadFile(f"{name} cut at {part:.0%}", partial(bytes, cut), statuses)


def other_types() -> Iterator[BadFile]:
    """Files that hold no image of a format that is read."""
    grey = Image.new("L", (16, 16), 77)
    kinds = {
        "nothing but a line": b"hello\n",
        "html": b"<!doctype html><html><body onload=alert(1)><img src=x></body></html>",
        "svg that includes a file": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM '
        b'"file:///etc/passwd">]><svg><text>&x;</text></svg>',
        "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(id) run\nshowpage\n",
        "zip": _zip({"a.png": good_files()["png"]}),
        "url": b"http://127.0.0.1:1/image.png",
        "path": b"/etc/passwd",
        "pickle": b"\x80\x04cposix\nsystem\n(S'id'\ntR.",
        "mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        "riff that is a wave": b"RIFF\x24\0\0\0WAVEfmt " + bytes(24),
        "ppm": _save(grey, "PPM"),
        "ico": _save(grey, "ICO"),
        "tga": _save(grey, "TGA"),
    }
    for name, data in kinds.items():
        yield BadFile(name, partial(bytes, data), frozenset({415}))


def _zip(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def noise() -> Iterator[BadFile]:
    """Zeros, repeated and random bytes, alone and behind each format's first bytes."""
    rng = np.random.default_rng(1)
    for size in (1, 4, 132, 1000, 1 << 20):
        for name, byte in (("zeros", b"\0"), ("times ff", b"\xff")):
            yield BadFile(f"{size} {name}", partial(bytes, byte * size), frozenset({415, 422}))
    magics = (
        b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*",
        b"II+\0", b"MM\0+", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBPVP8 ",
        b"RIFF\xff\xff\xff\xffWEBPVP8X", bytes(128) + b"DICM",
        b"\x08\0\x05\0CS\n\0", b"\x02\0\0\0UL\x04\0",
    )  # fmt: skip
    for number, magic in enumerate(magics):
        random = rng.integers(0, 256, 3000, np.uint8).tobytes()
        yield BadFile(f"magic {number} and noise", partial(bytes, magic + random), ANY - {200})
        yield BadFile(f"magic {number} alone", partial(bytes, magic), ANY - {200})


def polyglots() -> Iterator[BadFile]:
    """Two formats in one file: they are images, or nothing, and never anything else."""
    good = good_files()
    archive = _zip({"evil.sh": b"#!/bin/sh\nid\n"})
    page = b"<html><script>alert(1)</script></html>"
    kinds = {
        "jpeg and zip": good["jpeg"] + archive,
        "png and html": good["png"] + page,
        "png with html in a comment": png(
            (b"IHDR", ihdr(8, 8)), (b"tEXt", b"Comment\0" + page),
            (b"IDAT", zlib.compress(bytes(9 * 8))), (b"IEND", b""),
        ),
        "gif and javascript": b"GIF89a/*" + good["gif"][8:] + b"*/=1;alert(1)",
        "pdf with a jpeg": b"%PDF-1.7\n" + good["jpeg"],
        "zip with a jpeg": archive + good["jpeg"],
        "dicom with a tiff for its preamble": good["tiff"][:128] + good["dicom"][128:],
        "png and dicom": good["png"] + good["dicom"],
        "two jpegs": good["jpeg"] * 2,
    }  # fmt: skip
    for name, data in kinds.items():
        yield BadFile(name, partial(bytes, data), ANY)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Signature and chunks, whatever they are."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def ihdr(width: int, height: int, bits: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    """The header of a PNG."""
    return struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    """A RIFF file of chunks, whatever they are."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    """An extended WebP header."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes([flags, 0, 0, 0]) + size


def tiff(*pages: dict[int, int], next_page: int | None = None, big: bool = False) -> bytes:
    """A little-endian TIFF: tags (all as one LONG) of each page, and where the last one leads."""
    entry, head = ("<HHQQ", "<Q") if big else ("<HHII", "<I")
    file = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    for number, tags in enumerate(pages):
        size = (8 if big else 2) + len(tags) * struct.calcsize(entry) + struct.calcsize(head)
        following = len(file) + size if number + 1 < len(pages) else (next_page or 0)
        file += struct.pack("<Q" if big else "<H", len(tags))
        file += b"".join(struct.pack(entry, tag, 4, 1, tags[tag]) for tag in sorted(tags))
        file += struct.pack(head, following)
    return file


def tiff_tags(width: int = 8, height: int = 8, **changes: int) -> dict[int, int]:
    """Of an uncompressed grey page whose strip begins with the file; changes as t256=8."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: height}
    tags[279] = width * height % 2**32
    return tags | {int(name[1:]): value for name, value in changes.items()}


def gigapixels() -> Iterator[BadFile]:
    """Small files whose headers claim more pixels than are allowed."""
    one = zlib.compress(bytes(100))
    jpeg, gif, bmp = (good_files()[name] for name in ("jpeg", "gif", "bmp"))
    frame = jpeg.index(b"\xff\xc0") + 5
    kinds = {
        "png 100000": png((b"IHDR", ihdr(100_000, 100_000)), (b"IDAT", one)),
        "png rgba16 30000": png((b"IHDR", ihdr(30_000, 30_000, 16, 6)), (b"IDAT", one)),
        "png interlaced": png((b"IHDR", ihdr(50_000, 50_000, 1, 0, 1)), (b"IDAT", one)),
        "png one endless row": png((b"IHDR", ihdr(2**31 - 1, 1)), (b"IDAT", one)),
        "jpeg 65535": jpeg[:frame] + b"\xff\xff\xff\xff" + jpeg[frame + 4 :],
        "gif 65535": gif[:6] + b"\xff\xff\xff\xff" + gif[10:],
        "bmp 2^31": bmp[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + bmp[26:],
        "bmp upside down": bmp[:18] + struct.pack("<ii", 60_000, -60_000) + bmp[26:],
        "tiff 2^32": tiff(tiff_tags(2**32 - 1, 2**32 - 1)),
        "tiff deflated": tiff(tiff_tags(40_000, 40_000, t259=8)),
        "tiff tiles": tiff(tiff_tags(64, 64, t322=60_000, t323=60_000, t324=8, t325=1)),
        "bigtiff": tiff(tiff_tags(2**32 - 1, 2**32 - 1), big=True),
        "tiff second page": tiff(tiff_tags(), tiff_tags(60_000, 60_000)),
        "webp extended": webp((b"VP8X", vp8x(1 << 24, 1 << 24)), (b"VP8L", bytes(20))),
        "webp lossless": webp((b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(20))),
        "webp lossy": webp((b"VP8 ", b"\x10\x02\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(20))),
        "webp animation": webp(
            (b"VP8X", vp8x(16383, 16383, 2)), (b"ANIM", bytes(6)), (b"ANMF", bytes(40))
        ),
    }  # fmt: skip
    for name, data in kinds.items():
        yield BadFile(name, partial(bytes, data))
