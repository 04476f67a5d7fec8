"""Compressed DICOM frames of every kind and depth, and the memory that large pictures take."""

from __future__ import annotations

import base64
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from annotator.images.decode import decode
from tests.images.dicom_cases import new_dataset, save, save_lossless_jpeg, with_palette

pytestmark = pytest.mark.filterwarnings(r"ignore:::pydicom\.")

# High-throughput JPEG 2000 (by OpenJPH) of the picture in its test.
HTJ2K = (
    "|4;u>04YEK0000G0000G00000000000000G0000G0000000000009R90sl|{2mk^A00092QUDA90ssL31q1{@0smY86Cg"
    "-XP*6}%P*6}%P*6}vNJ#%=02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000X8-~JlfWbZhjah{z!Ja`fT95hbO71_h"
    "jakI6F?IH5cB|obO0>-00UG2z!eY$K*kvJs&E2z0F;RS!O85k0Kh9C6@UN$008H}r>CdFcmN0h0RH`wd-h4}xB&mz"
)


def picture(bits: int, *, signed: bool = False) -> np.ndarray:
    """[40, 48] of all depths up to 16 bits, sign-extended."""
    size = "1" if bits <= 8 else "2"
    y, x = np.ogrid[0:1:40j, 0:1:48j]
    values = np.rint((x + y) / 2 * ((1 << bits) - 1)).astype(int) - (signed << (bits - 1))
    return values.astype(("i" if signed else "u") + size)


def shown(data: bytes) -> np.ndarray:
    (frame,) = decode(data).frames
    return np.asarray(frame)


def compressed(ds: Dataset, syntax: str) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(syntax, generate_instance_uid=False)
    return save(ds, syntax)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 6, 7, 8, 12, 16])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1])
def test_depths(syntax: str, bits: int, signed: bool, tmp_path: Path) -> None:
    ds = new_dataset(picture(bits, signed=signed), BitsStored=bits)
    expected = shown(save(ds))
    by_gdcm = syntax == JPEGLosslessSV1
    data = save_lossless_jpeg(ds, tmp_path) if by_gdcm else compressed(ds, syntax)
    np.testing.assert_array_equal(shown(data), expected)


@pytest.mark.parametrize("depth", [8, 12])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_colours(syntax: str, depth: int) -> None:
    grey = picture(depth)
    rgb = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    ds = new_dataset(rgb, SamplesPerPixel=3, BitsStored=depth)
    expected = shown(save(ds)).astype(int)
    assert np.abs(shown(compressed(ds, syntax)) - expected).max() <= 1


def test_high_throughput_jpeg_2000() -> None:
    pixels = np.add.outer(np.arange(16) * 5, np.arange(16) * 9).astype(np.uint8)
    ds = new_dataset(pixels, PixelData=encapsulate([base64.b85decode(HTJ2K)]))
    np.testing.assert_array_equal(shown(save(ds, HTJ2KLossless)), pixels)


def test_frames_are_told_by_their_content() -> None:
    pixels = picture(8)
    ds = new_dataset(pixels)
    expected = shown(save(ds))
    data = compressed(ds, JPEGLSLossless)
    for syntax in (JPEGLSLossless, JPEG2000Lossless, ExplicitVRLittleEndian):
        uid = syntax.encode().ljust(len(JPEGLSLossless), b"\0")
        claimed = data.replace(JPEGLSLossless.encode(), uid)
        np.testing.assert_array_equal(shown(claimed), expected)


SIDE = 2000


def large_pictures() -> dict[str, tuple[Dataset, int]]:
    """Data sets of `SIDE` x `SIDE` pixels, and the bytes per pixel of their decoded values."""
    y, x = np.ogrid[0:SIDE, 0:SIDE]
    deep = (x + y).astype(np.uint16)
    grey = (deep >> 4).astype(np.uint8)
    padded = deep.astype(np.int16)
    padded[(x - SIDE // 2) ** 2 + (y - SIDE // 2) ** 2 > (SIDE // 2) ** 2] = -2000
    rgb = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    window = {"WindowCenter": 2000, "WindowWidth": 4000}
    rescale = {"RescaleSlope": 2, "RescaleIntercept": 1}
    colour = {"SamplesPerPixel": 3}
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0)).tobytes()
    floats = new_dataset(deep, BitsAllocated=32)
    del floats.PixelData, floats.BitsStored, floats.HighBit, floats.PixelRepresentation
    floats.FloatPixelData = deep.astype(np.float32).tobytes()
    tables = [np.arange(256, dtype="<u2") * 257] * 3
    return {
        "no window": (new_dataset(deep, BitsStored=12), 2),
        "window": (new_dataset(deep, BitsStored=12, **rescale, **window), 2),
        "MONOCHROME1": (new_dataset(deep, PhotometricInterpretation="MONOCHROME1", **window), 2),
        "lost window": (new_dataset(deep, WindowCenter=60000, WindowWidth=9), 2),
        "padding": (new_dataset(padded, PixelPaddingValue=-2000), 2),
        "padding and window": (new_dataset(padded, PixelPaddingValue=-2000, **window), 2),
        "unused bits": (new_dataset(deep | np.uint16(0x8000), BitsStored=12), 2),
        "32 bits": (new_dataset(deep.astype(np.uint32) * 999, **window), 4),
        "float": (floats, 4),
        "8 bits": (new_dataset(grey), 1),
        "RGB": (new_dataset(rgb, **colour), 3),
        "RGB by plane": (new_dataset(rgb, PlanarConfiguration=1, PixelData=planes, **colour), 3),
        "RGB of 16 bits": (new_dataset(rgb.astype(np.uint16) * 257, **colour), 6),
        "YBR_FULL": (new_dataset(rgb, PhotometricInterpretation="YBR_FULL", **colour), 3),
        "palette": (with_palette(new_dataset(grey), tables, [16] * 3), 1),
    }


@pytest.mark.parametrize("name", large_pictures())
def test_memory(name: str) -> None:
    """At most 6 bytes a pixel beyond the decoded values, with the file and the picture."""
    ds, decoded = large_pictures()[name]
    data = save(ds)
    decode(data)  # imports
    tracemalloc.start()
    try:
        (frame,) = decode(data).frames
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    untraced = 4 * SIDE**2 if frame.mode == "RGB" else 0  # of Pillow
    room = 1 << 22  # stripes
    assert peak + len(data) + untraced <= (6 + decoded) * SIDE**2 + room
