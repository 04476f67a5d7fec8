from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.color import lab2rgb

from annotator.errors import ImageError, ImageFault
from annotator.images import pixels
from annotator.images.decode import decode as decode_file
from annotator.images.pixels import stretch
from tests.images import raster_cases as cases

# A picture without symmetry: every orientation differs from every other.
GREY = np.add.outer(np.arange(24) * 3, np.arange(32) * 5).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
GIF_FRAME = b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"  # 1 x 1 pixel

# pytest puts its own filters in the place of the module's; the last test here is about those.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")


def decode(data: bytes, **options: Any) -> list[Image.Image]:
    return decode_file(data, **{"allow_blank": True} | options).frames


def encode(image: Image.Image | np.ndarray, format: str, **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decode_one(data: bytes, **options: Any) -> np.ndarray:
    (image,) = decode(data, **options)
    assert image.mode in ("L", "RGB")
    return np.asarray(image)


def png(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    parts = [chunk(b"IHDR", header), *(chunk(*c) for c in chunks), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_header(width: int, height: int) -> bytes:
    return struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8-bit grey


def tiff_directory(data: bytes | bytearray) -> dict[int, int]:
    """Offsets of the entries of a little-endian TIFF's first directory by tag; 0 ends it."""
    (offset,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, offset)
    offsets = [offset + 2 + 12 * entry for entry in range(count + 1)]
    tags = [struct.unpack_from("<H", data, offset)[0] for offset in offsets[:-1]]
    return dict(zip([*tags, 0], offsets, strict=True))


# Formats and modes


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"big_tiff": True}),
        ("WebP", {"lossless": True}),
    ],
)
def test_lossless_formats_keep_each_pixel(
    pixels: np.ndarray, format: str, options: dict[str, Any]
) -> None:
    decoded = decode_one(encode(pixels, format, **options))
    if format == "WebP" and pixels.ndim == 2:  # which has no grey
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    np.testing.assert_array_equal(decoded, pixels)  # the shape tells "L" from "RGB"


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("format", ["JPEG", "MPO"])
def test_jpeg_is_close_and_keeps_its_mode(pixels: np.ndarray, format: str) -> None:
    decoded = decode_one(encode(pixels, format, quality=95))
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).mean() < 3


def test_mpo_gives_its_primary_picture() -> None:
    primary, gain_map = Image.fromarray(GREY), Image.new("L", (8, 6), 200)
    data = encode(primary, "MPO", save_all=True, append_images=[gain_map])
    assert decode_one(data, frames="all").shape == GREY.shape


def test_bilevel_becomes_black_and_white() -> None:
    bits = GREY > 100
    for format in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(decode_one(encode(bits, format)), bits * np.uint8(255))


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_is_resolved(format: str) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    expected = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]])
    np.testing.assert_array_equal(decode_one(encode(image, format)), expected)
    if format in ("PNG", "GIF"):
        expected[0, 0] = 0
        transparent = encode(image, format, transparency=0)
        np.testing.assert_array_equal(decode_one(transparent), expected)


RGBA = [[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]]
RGBA_ON_BLACK = [[[200, 100, 50], [0, 0, 0], [100, 50, 25]]]
LA, LA_ON_BLACK = [[[200, 255], [200, 0], [200, 128]]], [[200, 0, 100]]


@pytest.mark.parametrize(
    ("format", "pixels", "options", "expected"),
    [
        ("PNG", RGBA, {}, RGBA_ON_BLACK),
        ("TIFF", RGBA, {}, RGBA_ON_BLACK),
        ("WebP", RGBA, {"lossless": True, "exact": True}, RGBA_ON_BLACK),
        ("PNG", LA, {}, LA_ON_BLACK),
        ("TIFF", LA, {}, LA_ON_BLACK),
        ("PNG", [[7, 9]], {"transparency": 7}, [[0, 9]]),
        ("PNG", [[[7, 8, 9], [1, 52, 3]]], {"transparency": (7, 8, 9)}, [[[0, 0, 0], [1, 52, 3]]]),
    ],
)
def test_transparency_is_composited_on_black(
    format: str, pixels: list[Any], options: dict[str, Any], expected: list[Any]
) -> None:
    decoded = decode_one(encode(np.array(pixels, np.uint8), format, **options))
    np.testing.assert_allclose(decoded, expected, atol=1)


@pytest.mark.parametrize(
    ("mode", "format"), [("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "TIFF"), ("LAB", "TIFF")]
)
def test_other_colour_spaces_become_rgb(mode: str, format: str) -> None:
    if mode == "LAB":
        image = Image.new("LAB", (16, 16), (120, 180, 170))
        expected = lab2rgb([120 / 2.55, 180 - 128, 170 - 128]) * 255
    else:
        image, expected = Image.new("RGB", (16, 16), (200, 40, 40)).convert(mode), [200, 40, 40]
    decoded = decode_one(encode(image, format))
    assert decoded.shape == (16, 16, 3)
    np.testing.assert_allclose(decoded[8, 8], expected, atol=6)


# Greys of more than 8 bits


def deep_images() -> dict[str, bytes]:
    deep = GREY.astype(np.uint16) * 16 + 1000  # 12-bit data with an offset
    big_endian = Image.frombytes("I;16B", (32, 24), deep.astype(">u2").tobytes())
    return {
        "PNG 16": encode(deep, "PNG"),
        "TIFF I;16": encode(deep, "TIFF"),
        "TIFF I;16B": encode(big_endian, "TIFF"),
        "TIFF I;16 deflate": encode(deep, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF int32": encode(deep.astype(np.int32) - 5000, "TIFF"),
        "TIFF float": encode(deep.astype(np.float32) / 1e4, "TIFF"),
    }


@pytest.mark.parametrize("name", deep_images())
def test_deep_grey_is_scaled_by_percentiles(name: str) -> None:
    low, high = np.percentile(GREY, (0.5, 99.5))
    expected = np.clip((GREY - low) * 255 / (high - low), 0, 255)
    np.testing.assert_allclose(decode_one(deep_images()[name]), expected, atol=1)


def test_16_bit_white_is_zero_tiff_is_inverted() -> None:
    deep = Image.fromarray(GREY.astype(np.uint16) * 16)
    plain = decode_one(encode(deep, "TIFF"))
    data = bytearray(encode(deep, "TIFF"))
    struct.pack_into("<H", data, tiff_directory(data)[262] + 8, 0)  # PhotometricInterpretation
    np.testing.assert_array_equal(decode_one(bytes(data)), 255 - plain)


@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=50),
)
def test_stretch_takes_any_float(values: list[float]) -> None:
    with np.errstate(all="ignore"):
        scaled = stretch(np.array(values, np.float32))
    assert scaled.dtype == np.uint8
    order = np.argsort(np.nan_to_num(values, nan=-np.inf, neginf=-np.inf, posinf=np.inf))
    finite = [i for i in order if np.isfinite(values[i])]
    assert (np.diff(scaled[finite].astype(int)) >= 0).all()  # it is monotone


def test_stretch_of_special_cases() -> None:
    assert not stretch(np.full((4, 4), 777, np.uint16)).any()
    assert not stretch(np.full((4, 4), np.nan, np.float32)).any()
    sparse = np.zeros((100, 100), np.uint16)
    sparse[5, 5] = 900  # both percentiles are 0
    assert stretch(sparse)[5, 5] == 255
    padded = np.array([[-2000, 0, 50, 100]], np.int16)
    np.testing.assert_allclose(stretch(padded, padded == -2000), [[0, 0, 128, 255]], atol=2)


# Orientation


@pytest.mark.parametrize(
    ("orientation", "stored"),
    # What a camera stores for an upright GREY (Exif 2.3: the place of the picture's top left).
    [
        (1, GREY),
        (2, GREY[:, ::-1]),
        (3, GREY[::-1, ::-1]),
        (4, GREY[::-1]),
        (5, GREY.T),
        (6, np.rot90(GREY, 1)),
        (7, GREY[::-1, ::-1].T),
        (8, np.rot90(GREY, -1)),
    ],
)
def test_exif_orientation_is_applied(orientation: int, stored: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    formats: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100}}
    if orientation == 6:
        formats |= {"PNG": {}, "TIFF": {}, "WebP": {"lossless": True}}
    for format, options in formats.items():
        data = encode(np.ascontiguousarray(stored), format, exif=exif, **options)
        decoded = decode_one(data).reshape(*GREY.shape, -1)[..., 0]
        np.testing.assert_allclose(decoded, GREY, atol=3)


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encode(GREY, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert decode_one(data).shape == GREY.shape


# Frames


def animation(format: str, n: int = 5) -> bytes:
    images = [Image.new("RGB", (12, 8), (40 * i, 10, 10)) for i in range(n)]
    options = {"lossless": True} if format == "WebP" else {}
    return encode(
        images[0], format, save_all=True, append_images=images[1:], duration=100, **options
    )


@pytest.mark.parametrize("format", ["GIF", "WebP", "PNG", "TIFF"])
def test_frames_middle_and_all(format: str) -> None:
    data = animation(format)
    assert decode_one(data)[0, 0].tolist() == [80, 10, 10]
    reds = [np.asarray(image)[0, 0, 0] for image in decode(data, frames="all")]
    assert reds == [0, 40, 80, 120, 160]
    reds = [np.asarray(image)[0, 0, 0] for image in decode(data, frames="all", max_frames=2)]
    assert reds == [40, 120]


def test_frames_of_a_grey_gif() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 40, 40), np.uint8)
    pictures = [Image.fromarray(frame) for frame in noise]
    data = encode(pictures[0], "GIF", save_all=True, append_images=pictures[1:])
    found = [np.asarray(picture.convert("L"), int) for picture in decode(data, frames="all")]
    np.testing.assert_allclose(found, noise, atol=2)


def test_tiff_pages_may_differ_in_size_and_mode() -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(COLOUR[:10]), Image.fromarray(GREY[:5])]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    decoded = decode(data, frames="all")
    assert [(image.mode, image.size) for image in decoded] == [
        ("L", (32, 24)),
        ("RGB", (32, 10)),
        ("L", (32, 5)),
    ]
    pages.reverse()
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert decode_one(data, max_pixels=320).shape == (10, 32, 3)
    with pytest.raises(ImageError, match="32 x 24 pixels is over the limit of 767"):
        decode(data, frames="all", max_pixels=767)


def test_a_broken_chain_of_pages_does_not_cost_the_first() -> None:
    data = bytearray(encode(GREY, "TIFF"))
    struct.pack_into("<I", data, tiff_directory(data)[0], len(data) - 1)
    np.testing.assert_array_equal(decode_one(bytes(data)), GREY)


# Decoding at a reduced scale


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_jpeg_is_close_to_the_full_one(mode: str, orientation: int) -> None:
    y, x = np.mgrid[:600, :900]
    smooth = (127 + 60 * np.sin(x / 70) + 60 * np.cos(y / 50)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(smooth).convert(mode), "JPEG", quality=95, exif=exif)
    (full,), (reduced,) = decode(data), decode(data, at_least=140)
    assert reduced.mode == full.mode == mode
    assert reduced.size == ((225, 150) if orientation == 1 else (150, 225))
    difference = np.asarray(full.resize((140, 140)), int) - np.asarray(reduced.resize((140, 140)))
    assert np.abs(difference).mean() < 2


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 500))
@settings(max_examples=60, deadline=None)
def test_reduced_jpeg_is_never_below_what_is_asked(width: int, height: int, at_least: int) -> None:
    (image,) = decode(encode(Image.new("L", (width, height)), "JPEG"), at_least=at_least)
    assert min(image.size) >= min(at_least, width, height)
    assert image.mode == "L"


# Refusals


def refusal(data: bytes, code: ImageFault, **options: Any) -> str:
    """The message with which a file is refused, for the kind of fault that `code` names."""
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert caught.value.hint
    assert caught.value.code == code
    return caught.value.message


def gif(side: int, n_frames: int) -> bytes:
    header = struct.pack("<HHBBB", side, side, 0, 0, 0)
    return b"GIF89a" + header + GIF_FRAME * n_frames + b";"


def progressive_jpeg(more_scans: int) -> bytes:
    data = encode(GREY, "JPEG", progressive=True)
    return data[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * more_scans + data[-2:]


def tiff(n_pages: int, **changes: int) -> bytes:
    """Pages of one pixel each, which all share their one byte of data."""
    values = {"width": 1, "length": 1, "bits": 8, "compression": 1, "photometric": 1}
    tags = dict(zip(values, (256, 257, 258, 259, 262), strict=True))
    tags |= {"offset": 273, "rows": 278, "bytes": 279, "tile_width": 322, "tile_length": 323}
    tags |= {"tile_offset": 324}
    values |= {"offset": 0, "rows": 1, "bytes": 1} | changes
    entries = b"".join(struct.pack("<HHII", tags[name], 4, 1, values[name]) for name in values)
    size = 2 + len(entries) + 4
    pages = (
        struct.pack("<H", len(values)) + entries + struct.pack("<I", 8 + size * (page + 1))
        for page in range(n_pages)
    )
    return b"II*\0" + struct.pack("<I", 8) + b"".join(pages) + bytes(100)


def apng(n_frames: int) -> bytes:
    control = (b"acTL", struct.pack(">II", n_frames, 0))
    return png(png_header(1, 1), control, (b"IDAT", zlib.compress(b"\0\x05")))


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
UNKNOWN = "not a JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, JPEG 2000, NIfTI or DICOM image"
OVER = "pixels is over the limit of"
BMP = struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6)
REFUSALS: dict[str, tuple[bytes, ImageFault, str]] = {
    "nothing": (b"", "empty", "empty file"),
    "SVG": (
        b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unknown_format", "SVG drawing, not an image"
    ),
    "PGM": (  # Pillow could, but never may, read it
        b"P5 1 1 255 \0", "unknown_format", "Netpbm image, a format that is not read"
    ),
    "other bytes": (bytes(range(256)), "unknown_format", UNKNOWN),
    "short JPEG": (encode(COLOUR, "JPEG")[:-400], "broken", "truncated JPEG"),
    "short PNG": (encode(NOISE, "PNG")[:2000], "broken", "truncated PNG"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(50), "broken", "corrupt or unsupported PNG"),
    "JPEG": (b"\xff\xd8\xff" + bytes(50), "broken", "corrupt or unsupported JPEG"),
    "large PNG": (
        png(png_header(17000, 17000), (b"IDAT", b"")), "too_large",
        f"17000 x 17000 {OVER} 80000000",
    ),
    "large PNG, by a little": (
        png(png_header(10000, 8001), (b"IDAT", b"")), "too_large", f"10000 x 8001 {OVER} 80000000"
    ),
    "large GIF": (gif(50000, 1), "too_large", f"50000 x 50000 {OVER} 80000000"),
    "large BMP": (b"BM" + BMP, "too_large", f"60000 x 60000 {OVER} 80000000"),
    "long PNG": (
        png(png_header(65_536, 1), (b"IDAT", b"")), "too_large",
        f"65536 x 1 {OVER} 65535 for one side",
    ),
    "TIFF of huge tiles": (
        tiff(1, tile_width=1 << 15, tile_length=1 << 15, tile_offset=8), "too_large",
        f"32768 x 32768 {OVER} 80000000",
    ),
    "GIF animation": (gif(8000, 1000), "too_many_frames", "GIF animation of too many frames"),
    "tiny frames": (gif(1, 100_000), "too_many_frames", "GIF animation of too many frames"),
    "PNG animation": (apng(1 << 30), "too_many_frames", "PNG animation of too many frames"),
    "scans": (progressive_jpeg(101), "too_many_frames", "JPEG of more than 100 scans"),
    "pages": (tiff(10_001), "too_many_frames", "TIFF of more than 10000 pages"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    data, code, message = REFUSALS[name]
    assert refusal(data, code) == message


def test_frames_that_are_too_large_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the later pages were larger than the first, by which they are counted.
    monkeypatch.setattr(pixels, "MAX_TOTAL_PIXELS", 3 * 96 - 1)
    message = "5 frames are over the limit of 287 pixels"
    assert refusal(animation("TIFF"), "too_large", frames="all") == message


def test_limits_are_the_callers() -> None:
    data = encode(GREY, "PNG")
    assert decode_one(data, max_pixels=GREY.size).shape == GREY.shape
    expected = f"32 x 24 pixels is over the limit of {GREY.size - 1}"
    assert refusal(data, "too_large", max_pixels=GREY.size - 1) == expected
    reduced = refusal(encode(GREY, "JPEG"), "too_large", at_least=4, max_pixels=767)
    assert reduced.startswith("32 x 24")


@pytest.mark.parametrize(
    "options", [{"frames": "first"}, {"at_least": 0}, {"max_pixels": 0}, {"max_frames": 0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        decode(encode(GREY, "PNG"), **options)


def test_bombs_in_metadata_are_refused() -> None:
    bomb = zlib.compress(bytes(1 << 26))
    header = png_header(1, 1)
    pixel = (b"IDAT", zlib.compress(b"\0\x05"))
    for kind, body in (b"zTXt", b"a\0\0" + bomb), (b"iTXt", b"a\0\1\0\0\0" + bomb):
        refusal(png(header, (kind, body), pixel), "broken")
        refusal(png(header, pixel, (kind, body)), "broken")
    assert decode_one(png(header, pixel)).tolist() == [[5]]
    assert decode_one(tiff(1)).shape == (1, 1)


# Hostile input


@cache
def samples() -> dict[str, bytes]:
    deep = GREY.astype(np.uint16) * 100
    return {
        "JPEG": encode(COLOUR, "JPEG"),
        "progressive JPEG": encode(COLOUR, "JPEG", progressive=True),
        "MPO": encode(COLOUR, "MPO"),
        "PNG": encode(COLOUR, "PNG"),
        "palette PNG": encode(Image.fromarray(COLOUR).quantize(8), "PNG", transparency=1),
        "PNG 16": encode(deep, "PNG"),
        "APNG": animation("PNG"),
        "TIFF": encode(COLOUR, "TIFF"),
        "TIFF deflate": encode(deep, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF JPEG": encode(COLOUR, "TIFF", compression="jpeg"),
        "TIFF pages": animation("TIFF"),
        "BMP": encode(COLOUR, "BMP"),
        "WebP": encode(COLOUR, "WebP"),
        "WebP animation": animation("WebP"),
        "GIF": animation("GIF"),
        "AVIF": encode(COLOUR, "AVIF"),
        "JPEG 2000": encode(COLOUR, "JPEG2000"),
        "JPEG 2000 codestream": encode(deep, "JPEG2000", no_jp2=True),
        "PNG RGBA 16": cases.png(cases.with_alpha(cases.DEEP_COLOUR[:24, :32], GREY)),
        "TIFF RGB 16": cases.tiff(cases.Page(cases.DEEP_COLOUR[:24, :32], 2, tile=(16, 16))),
        "TIFF LZW float": cases.tiff(
            cases.Page(deep.astype(np.float32), compression=cases.LZW, predictor=3), big=True
        ),
        "TIFF 12-bit, planar": cases.tiff(
            cases.Page(cases.DEEP_COLOUR[:24, :32], 2, bits=12, planar=True), order=">"
        ),
        "TIFF palette": cases.tiff(cases.Page(GREY // 16, 3, bits=4, tags={320: (3, [9] * 48)})),
        "NIfTI": cases.nifti(deep[:, :, None], affine=cases.RAS),
        "NIfTI-2, gzip": gzip.compress(cases.nifti(deep[:, :, None], version=2), mtime=0),
    }


def check_image_or_refusal(data: bytes) -> None:
    try:
        images = decode(data, frames="all", at_least=8, max_pixels=1_000_000)
    except ImageError as error:
        assert error.message and error.hint
    else:
        assert images
        assert {image.mode for image in images} <= {"L", "RGB"}
        assert all(0 < image.width * image.height <= 1_000_000 for image in images)


@given(st.sampled_from([b"", *[data[:12] for data in samples().values()]]), st.binary())
@settings(deadline=None, max_examples=200)
def test_random_bytes_are_refused_or_decoded(head: bytes, rest: bytes) -> None:
    check_image_or_refusal(head + rest)


@pytest.mark.parametrize("name", samples())
@given(data=st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_truncation_and_changed_bytes(name: str, data: st.DataObject) -> None:
    good = samples()[name]
    check_image_or_refusal(good[: data.draw(st.integers(0, len(good)))])
    changed = bytearray(good)
    # Headers are where a changed byte does most.
    for position in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=3)):
        changed[position] = data.draw(st.integers(0, 255))
    check_image_or_refusal(bytes(changed))


@pytest.mark.parametrize("name", samples())
def test_changed_bytes_of_the_headers(name: str) -> None:
    good = samples()[name]
    ends = {*range(min(300, len(good))), *range(max(0, len(good) - 300), len(good))}
    for position in [p for p in sorted(ends) if p < 48 or p % 7 == 0]:
        for value in (0x00, 0x7F, 0xFF, good[position] ^ 1):
            changed = bytearray(good)
            changed[position] = value
            check_image_or_refusal(bytes(changed))


def test_threads_decode_the_same_as_one() -> None:
    files = [*samples().values(), *deep_images().values()] * 4
    expected = [[image.tobytes() for image in decode(data, frames="all")] for data in files]
    with ThreadPoolExecutor(8) as pool:
        decoded = pool.map(lambda data: [i.tobytes() for i in decode(data, frames="all")], files)
        assert list(decoded) == expected


def test_pillow_and_libtiff_stay_silent(tmp_path: Path) -> None:
    deflate = bytearray(encode(NOISE, "TIFF", compression="tiff_adobe_deflate"))
    deflate[500:600] = bytes(100)
    apng = animation("PNG").replace(struct.pack(">I", 5) + bytes(4), bytes(8))
    script = (
        "import pathlib, sys\n"
        "from annotator.errors import ImageError\n"
        "from annotator.images import decode, tiff\n"
        "if sys.argv[2:]:\n"
        "    __import__('warnings').resetwarnings()\n"
        "    tiff._silence_libtiff = lambda: None\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: decode.decode(path.read_bytes())\n"
        "    except ImageError: pass\n"
    )
    for number, data in enumerate((deflate, apng)):
        (tmp_path / str(number)).write_bytes(data)
    # In a process of its own, since pytest swaps the filters; and once more without the filters,
    # which shows that there is something to silence.
    command = [sys.executable, "-c", script, str(tmp_path)]
    silent = subprocess.run(command, capture_output=True, check=True)
    assert silent.stderr == b""
    loud = subprocess.run([*command, "loud"], capture_output=True, check=True)
    assert loud.stderr.count(b"UserWarning") == 1
    assert b"ZIPDecode" in loud.stderr
