"""DICOM files that are met in practice, legal ones and others, with what each should give.

Expected pictures are computed from the stored values with numpy alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

WINDOW = ("window_ignored",)
RESCALE = ("rescale_ignored",)
HU = {"RescaleSlope": 1, "RescaleIntercept": -1024}
COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True)
class Case:
    """A file and what is expected of it.

    Attributes:
        data: The file.
        expected: The picture as floats, or a pattern of the message of its refusal.
        notes: Of the decoded picture.
    """

    data: bytes
    expected: np.ndarray | str
    notes: tuple[str, ...] = ()


def new_dataset(pixels: np.ndarray, **attributes: Any) -> Dataset:
    """A CT image of [rows, columns], or [.., 3] with SamplesPerPixel=3, or [frames, ..]."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=["test"])
    ds.PatientName = "Secret^Name"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = attributes.get("SamplesPerPixel", 1)
    ds.PhotometricInterpretation = "RGB" if ds.SamplesPerPixel == 3 else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit = attributes.get("BitsStored", ds.BitsStored) - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    if "NumberOfFrames" in ds:
        ds.Rows, ds.Columns = pixels.shape[1:3]
    if "PixelData" not in ds:
        ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    return ds


def save(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Write a file; with RLE, compress its pixels as well."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == RLELossless:
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.compress(RLELossless, generate_instance_uid=False)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    file = io.BytesIO()
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def save_big_endian(ds: Dataset) -> bytes:
    """Write a big endian file of a data set whose pixels are in this machine's order."""
    if ds.BitsAllocated > 8:
        size = ds.BitsAllocated // 8
        ds.PixelData = np.frombuffer(ds.PixelData, f"<u{size}").astype(f">u{size}").tobytes()
    return save(ds, ExplicitVRBigEndian)


def save_lossless_jpeg(ds: Dataset, folder: Path) -> bytes:
    """Write a file with frames in lossless JPEG, by GDCM."""
    gdcm = pytest.importorskip("gdcm")
    (folder / "native.dcm").write_bytes(save(ds))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(folder / "native.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (folder / "lossless.dcm").read_bytes()


def lut_item(entries: np.ndarray, bits: int, first: int = 0, vr: str = "OW") -> Sequence:
    """A sequence with one modality or VOI LUT, of entries in the order of their type."""
    item = Dataset()
    n_entries = 0 if len(entries) == 1 << 16 else len(entries)
    item.add_new(0x00283002, "SS" if first < 0 else "US", [n_entries, first, bits])
    item.add_new(0x00283006, vr, entries.tolist() if vr == "US" else entries.tobytes())
    item.ModalityLUTType = "US"
    return Sequence([item])


def with_palette(
    ds: Dataset, tables: list[np.ndarray], bits: list[int], first: int = 0, n_entries: int = 0
) -> Dataset:
    """Add a palette: tables of red, green and blue, in the order of their type."""
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for colour, table, depth in zip(COLOURS, tables, bits, strict=True):
        name = f"{colour}PaletteColorLookupTable"
        setattr(ds, f"{name}Descriptor", [n_entries or len(table), first, depth])
        ds[f"{name}Descriptor"].VR = "SS" if first < 0 else "US"
        setattr(ds, f"{name}Data", table.tobytes())
    return ds


def stretched(values: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """Values between the 0.5th and 99.5th percentiles of those that count."""
    low, high = np.percentile(values if counted is None else values[counted], (0.5, 99.5))
    return np.clip((values.astype(float) - low) * 255 / (high - low), 0, 255)


def windowed(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """A linear window (PS3.3, C.11.2.1.2.1)."""
    shown = ((values.astype(float) - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.clip(shown, 0, 255)


@dataclass
class Pictures:
    """Stored values that the cases have in common.

    Attributes:
        disc: The body, which is round; around it is nothing.
        core: A round part in the middle.
        ct: 0 around, 1000 to about 2300 in the body, 12 bits.
        grey: 8 bits: 0 around, 60 to 160 in the body, 255 in the core.
        rgb: In colour.
    """

    side: int
    disc: np.ndarray = field(init=False)
    core: np.ndarray = field(init=False)
    ct: np.ndarray = field(init=False)
    grey: np.ndarray = field(init=False)
    rgb: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        y, x = np.ogrid[-1 : 1 : self.side * 1j, -1 : 1 : self.side * 1j]
        self.disc = x**2 + y**2 < 0.64
        self.core = x**2 + y**2 < 0.09
        slope = (x + 2 * y + 3) / 6
        self.ct = np.where(self.disc, 1000 + slope * 1300, 0).astype(np.uint16)
        self.grey = np.where(self.disc, 60 + slope * 100, 0).astype(np.uint8)
        self.grey[self.core] = 255
        self.rgb = np.stack([self.grey, self.grey // 2, self.grey[::-1]], axis=-1)

    def new(self, **attributes: Any) -> Dataset:
        """A data set with `ct`."""
        return new_dataset(self.ct, **{"BitsStored": 12} | attributes)


def cases(side: int) -> dict[str, Case]:
    """All cases, with pictures of this width and height."""
    pictures = Pictures(side)
    found: dict[str, Case] = {}
    for group in (
        _transformations,
        _luts,
        _layouts,
        _padding,
        _polarity,
        _palettes,
        _colours,
        _attributes,
        _frames,
        _files,
    ):
        found |= dict(group(pictures))
    return found


Cases = Iterator[tuple[str, Case]]


def _transformations(p: Pictures) -> Cases:
    plain = stretched(p.ct)

    def lost(name: str, values: np.ndarray = p.ct, **attributes: Any) -> tuple[str, Case]:
        ds = new_dataset(values, **attributes)
        return name, Case(save(ds), stretched(values), WINDOW)

    low = np.where(p.disc, p.ct - 900, 0).astype(np.uint16)
    yield (
        "window",
        Case(
            save(p.new(WindowCenter=200, WindowWidth=1000, **HU)),
            windowed(p.ct - 1024.0, 200, 1000),
        ),
    )
    yield lost("window above the values", WindowCenter=10000, WindowWidth=400, **HU)
    yield lost("window below the values", WindowCenter=-30000, WindowWidth=1)
    yield lost(
        "window below values that begin high",
        p.ct + np.uint16(12000),
        WindowCenter=3174,
        WindowWidth=2426,
    )
    yield lost("window far too wide", low, WindowCenter=32768, WindowWidth=65536)
    yield lost(
        "window without its rescale", p.ct.astype(np.int16), WindowCenter=-5000, WindowWidth=2000
    )
    tiny = {"RescaleSlope": "0.0001", "RescaleIntercept": "0"}
    yield lost("window beside a tiny slope", WindowCenter=1500, WindowWidth=2000, **tiny)
    yield lost(
        "sigmoid above the values", WindowCenter=60000, WindowWidth=100, VOILUTFunction="SIGMOID"
    )
    inverse = Case(
        save(p.new(WindowCenter=90000, WindowWidth=10, RescaleSlope=-1, RescaleIntercept=0)),
        255 - plain,
        WINDOW,
    )
    yield "window above a negative slope", inverse
    yield lost("window above 8 bits", p.grey // 2, WindowCenter=2000, WindowWidth=400)
    ds = p.new(WindowCenter=[9000, 1600, 10], WindowWidth=[100, 2000, 10])
    yield "second window", Case(save(ds), windowed(p.ct, 1600, 2000), WINDOW)
    ds = p.new(WindowCenter=[1600, 9000], WindowWidth=[2000, 100])
    yield "first window", Case(save(ds), windowed(p.ct, 1600, 2000))
    yield "window of no width", Case(save(p.new(WindowCenter=200, WindowWidth=0)), plain)
    yield "no window", Case(save(p.new(**HU)), plain)
    yield "slope 0", Case(save(p.new(RescaleSlope=0, RescaleIntercept=0)), plain, RESCALE)
    ds = p.new(RescaleSlope=0, RescaleIntercept=7, WindowCenter=1500, WindowWidth=2000)
    yield "slope 0 with a window", Case(save(ds), windowed(p.ct, 1500, 2000), RESCALE)
    ds = p.new(RescaleSlope=0, RescaleIntercept=0, WindowCenter=-9000, WindowWidth=20)
    yield "slope 0 with a lost window", Case(save(ds), plain, RESCALE + WINDOW)
    ds = p.new(
        RescaleSlope=1, RescaleIntercept="1e12", WindowCenter="1000000001500", WindowWidth=2000
    )
    yield "large intercept", Case(save(ds), windowed(p.ct, 1500, 2000))
    ds = p.new()
    ds.add_new(0x00281050, "DS", "1500")
    ds.add_new(0x00281051, "DS", "2000")
    comma = save(ds).replace(b"1500", b"1,50").replace(b"2000", b"2e3 ")
    assert b"1,50" in comma
    yield "window with a decimal comma", Case(comma, windowed(p.ct, 1.5, 2000))
    no_number = save(ds).replace(b"1500", b"none")
    yield "window that is no number", Case(no_number, plain)
    yield "constant", Case(save(new_dataset(np.full((64, 64), 900, np.uint16))), "blank: .*")


def _luts(p: Pictures) -> Cases:
    indices = np.arange(4096, dtype=np.uint16)
    falling = 65535 - indices * 16
    shown = falling[p.ct]
    yield (
        "modality LUT",
        Case(save(p.new(ModalityLUTSequence=lut_item(falling, 16))), stretched(shown)),
    )
    constant = np.full(4096, 100, np.uint16)
    ds = p.new(ModalityLUTSequence=lut_item(constant, 8))
    yield "modality LUT of one value", Case(save(ds), stretched(p.ct), RESCALE)
    ds = p.new(VOILUTSequence=lut_item(indices[::-1].copy(), 12))
    yield "VOI LUT", Case(save(ds), (4095.0 - p.ct) / 4095 * 255)
    ds = p.new(VOILUTSequence=lut_item(constant, 12))
    yield "VOI LUT of one value", Case(save(ds), stretched(p.ct), WINDOW)
    ds.VOILUTSequence.extend(lut_item(indices, 12))
    yield "second VOI LUT", Case(save(ds), p.ct / 4095 * 255, WINDOW)
    ds = p.new(VOILUTSequence=lut_item(indices, 16))
    yield "VOI LUT with unused bits", Case(save(ds), p.ct / 4095 * 255)
    big = lut_item(indices.astype(">u2"), 12)
    yield "VOI LUT, big endian", Case(save_big_endian(p.new(VOILUTSequence=big)), p.ct / 4095 * 255)
    ds = p.new(ModalityLUTSequence=lut_item(falling.astype(">u2"), 16))
    yield "modality LUT, big endian", Case(save_big_endian(ds), stretched(shown))
    bytes_of = (indices // 16).astype(np.uint8)
    ds = p.new(VOILUTSequence=lut_item(bytes_of, 8))
    yield "VOI LUT of bytes", Case(save(ds), bytes_of[p.ct].astype(float))
    ds = p.new(VOILUTSequence=lut_item(bytes_of, 16))
    yield "VOI LUT of bytes that says 16 bits", Case(save(ds), bytes_of[p.ct].astype(float))
    swapped = np.frombuffer(bytes_of.tobytes(), "<u2").astype(">u2")
    ds = p.new(VOILUTSequence=lut_item(swapped, 8))
    ds.VOILUTSequence[0].LUTDescriptor = [4096, 0, 8]
    yield "VOI LUT of bytes, big endian", Case(save_big_endian(ds), bytes_of[p.ct].astype(float))
    entries = np.linspace(0, 1023, 1400).astype(np.uint16)
    hounsfield = p.ct.astype(int) - 1024
    ds = p.new(VOILUTSequence=lut_item(entries, 10, first=-100), **HU)
    expected = entries[np.clip(hounsfield + 100, 0, 1399)] / 1023 * 255
    yield "VOI LUT from a negative value on", Case(save(ds), expected)
    unsigned = p.new(VOILUTSequence=lut_item(entries, 10), **HU)
    unsigned.VOILUTSequence[0].LUTDescriptor = [1400, 65536 - 100, 10]
    yield "VOI LUT from a negative value on, as unsigned", Case(save(unsigned), expected)
    yield "VOI LUT, implicit VR", Case(save(ds, ImplicitVRLittleEndian), expected)


def _layouts(p: Pictures) -> Cases:
    plain = stretched(p.ct)
    window = {"WindowCenter": 1600, "WindowWidth": 2000}
    shown = windowed(p.ct, 1600, 2000)
    overlay = np.zeros_like(p.ct)
    overlay[5:12, 5:-5] = 1
    ds = new_dataset((p.ct << 4) | overlay, BitsStored=12, HighBit=15, **window)
    yield "high bit 15, overlay below", Case(save(ds), shown)
    ds = new_dataset((p.ct << 2) | (overlay << 15), BitsStored=12, HighBit=13, **window)
    yield "high bit 13, overlay above", Case(save(ds), shown)
    ds = p.new(HighBit=15, **window)
    yield "high bit 15 of values that end at 11", Case(save(ds), shown)
    ds = new_dataset(p.ct | overlay << 15, BitsStored=12)
    yield "overlay in bit 15", Case(save(ds), plain)
    ds = new_dataset((p.ct << 4) | overlay, BitsStored=12, HighBit=15)
    yield "high bit 15, RLE", Case(save(ds, RLELossless), plain)
    six = (p.grey >> 2).astype(np.uint8)
    ds = new_dataset(six << 2 | 3, BitsStored=6, HighBit=7, WindowCenter=31.5, WindowWidth=64)
    yield "6 bits in 8", Case(save(ds), windowed(six, 31.5, 64))
    signed = np.where(p.disc, p.ct.astype(np.int16) - 1800, -1500).astype(np.int16)
    unextended = signed.view(np.uint16) & 0x0FFF
    view = {"WindowCenter": -200, "WindowWidth": 1500}
    shown = windowed(signed, -200, 1500)
    kind = {"BitsStored": 12, "PixelRepresentation": 1}
    yield "signed 12 bits", Case(save(new_dataset(signed, **kind, **view)), shown)
    yield (
        "signed 12 bits, sign not extended",
        Case(save(new_dataset(unextended, **kind, **view)), shown),
    )
    yield (
        "signed 12 bits, sign not extended, no window",
        Case(save(new_dataset(unextended, **kind)), stretched(signed)),
    )
    yield (
        "signed 12 bits, sign not extended, RLE",
        Case(save(new_dataset(unextended, **kind), RLELossless), stretched(signed)),
    )
    ds = new_dataset(unextended << 4, BitsStored=12, HighBit=15, PixelRepresentation=1, **view)
    yield "signed 12 bits, high bit 15", Case(save(ds), shown)
    yield "signed, big endian", Case(save_big_endian(new_dataset(signed, **view)), shown)
    small = (p.grey.astype(np.int16) - 100).astype(np.int8)
    yield "signed 8 bits", Case(save(new_dataset(small)), stretched(small))
    wide = p.ct.astype(np.uint32) * 100_000
    yield "32 bits", Case(save(new_dataset(wide)), plain)
    yield (
        "signed 32 bits, big endian",
        Case(save_big_endian(new_dataset(wide.astype(np.int32) - 10**8)), plain),
    )
    for keyword, kind in (("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")):
        ds = p.new(BitsAllocated=32 if kind == "f4" else 64)
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
        setattr(ds, keyword, (p.ct / 7).astype(kind).tobytes())
        yield keyword, Case(save(ds), plain)
    packed = np.packbits(p.disc, bitorder="little").tobytes()
    ds = new_dataset(p.grey, BitsAllocated=1, BitsStored=1, PixelData=packed)
    yield "1 bit", Case(save(ds), p.disc * 255.0)
    stack = np.stack([p.disc, ~p.disc, p.core])[:, 1:, 1:]  # frames that begin within a byte
    ds = new_dataset(stack.astype(np.uint8), NumberOfFrames=3, BitsAllocated=1, BitsStored=1)
    ds.PixelData = np.packbits(stack, bitorder="little").tobytes() + b"\0"
    yield "1 bit, frames", Case(save(ds), stack[1] * 255.0)
    yield (
        "12 bits allocated",
        Case(save(p.new(BitsAllocated=12, PixelData=bytes(3))), ".* BitsAllocated"),
    )


def _padding(p: Pictures) -> Cases:
    outside, inside = ~p.disc, p.disc
    white = np.where(inside, p.grey, 255)
    black_outside = np.where(inside, white, 0)
    yield (
        "white padding, white core",
        Case(save(new_dataset(white.astype(np.uint8), PixelPaddingValue=255)), black_outside),
    )
    negative = 255 - p.grey
    negative[p.core] = 255
    ds = new_dataset(negative, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=255)
    expected = np.where(inside, 255 - negative, 0)
    yield "MONOCHROME1, white padding, white core", Case(save(ds), expected)
    deep = np.where(p.core, 4095, np.where(inside, p.ct, 4095)).astype(np.uint16)
    shown = np.where(inside, stretched(deep, inside), 0)
    yield "padding 4095, core 4095", Case(save(new_dataset(deep, PixelPaddingValue=4095)), shown)
    ds = new_dataset(deep, PixelPaddingValue=4095, WindowCenter=1600, WindowWidth=2000)
    yield (
        "padding 4095, core 4095, window",
        Case(save(ds), np.where(inside, windowed(deep, 1600, 2000), 0)),
    )
    signed = np.where(inside, p.ct.astype(np.int16) - 1024, -2000).astype(np.int16)
    expected = np.where(inside, stretched(signed, inside), 0)
    ds = new_dataset(signed, PixelPaddingValue=-2000)
    yield "negative padding", Case(save(ds), expected)
    ds.add_new(0x00280120, "US", 65536 - 2000)
    yield "negative padding, as unsigned", Case(save(ds), expected)
    ranged = signed.copy()
    ranged[outside] = np.resize([-2000, -1990, -1980], outside.sum())
    ds = new_dataset(ranged, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1980)
    yield "range of padding", Case(save(ds), expected)
    ds = new_dataset(ranged, PixelPaddingValue=-1980, PixelPaddingRangeLimit=-2000)
    yield "range of padding, the other way round", Case(save(ds), expected)
    unsigned = np.where(inside, p.ct, 63536).astype(np.uint16)
    ds = new_dataset(unsigned)
    ds.add_new(0x00280120, "SS", -2000)
    yield (
        "padding of unsigned pixels, as signed",
        Case(save(ds), np.where(inside, stretched(p.ct, inside), 0)),
    )
    only = np.where(p.core, 1000, 0).astype(np.uint16)
    yield (
        "padding around one value",
        Case(save(new_dataset(only, PixelPaddingValue=0)), p.core * 255.0),
    )
    ds = new_dataset(p.grey, PixelPaddingValue=60, PixelPaddingRangeLimit=0)
    yield "padding that touches the picture", Case(save(ds), p.grey)
    ds = new_dataset(np.zeros((64, 64), np.uint16), PixelPaddingValue=0)
    yield "nothing but padding", Case(save(ds), "blank: .*")


def _polarity(p: Pictures) -> Cases:
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        for shape in (None, "IDENTITY", "INVERSE"):
            inverted = shape == "INVERSE" if shape else photometric == "MONOCHROME1"
            ds = new_dataset(p.grey, PhotometricInterpretation=photometric)
            if shape:
                ds.PresentationLUTShape = shape
            yield f"{photometric} {shape}", Case(save(ds), 255.0 - p.grey if inverted else p.grey)
    ds = p.new(PhotometricInterpretation="MONOCHROME1", WindowCenter=1600, WindowWidth=2000)
    yield "MONOCHROME1, window", Case(save(ds), 255 - windowed(p.ct, 1600, 2000))
    ds = p.new(PhotometricInterpretation="MONOCHROME1", WindowCenter=60000, WindowWidth=20)
    yield "MONOCHROME1, lost window", Case(save(ds), 255 - stretched(p.ct), WINDOW)


def _palettes(p: Pictures) -> Cases:
    places = np.arange(256)
    tables = [places, 255 - places, places * 7 % 256]
    colours = np.stack([table[p.grey] for table in tables], axis=-1).astype(float)

    def of(entries: Callable[[np.ndarray], np.ndarray], *bits: int, **options: Any) -> Dataset:
        depths = list(bits) * (3 // len(bits))
        return with_palette(new_dataset(p.grey), [entries(t) for t in tables], depths, **options)

    little, big = (lambda factor, kind: lambda table: (table * factor).astype(kind)), ">u2"
    yield "palette", Case(save(of(little(257, "<u2"), 16)), colours)
    yield "palette, entries in the high byte", Case(save(of(little(256, "<u2"), 16)), colours)
    yield "palette, entries in the low byte", Case(save(of(little(1, "<u2"), 8)), colours)
    yield "palette, low byte that says 16 bits", Case(save(of(little(1, "<u2"), 16)), colours)
    yield "palette, 16 bits that say 8", Case(save(of(little(257, "<u2"), 8)), colours)
    yield "palette of bytes", Case(save(of(little(1, "u1"), 8)), colours)
    yield "palette of bytes that says 16 bits", Case(save(of(little(1, "u1"), 16)), colours)
    yield "palette, descriptors that differ", Case(save(of(little(257, "<u2"), 16, 8, 16)), colours)
    yield (
        "palette, implicit VR",
        Case(save(of(little(257, "<u2"), 16), ImplicitVRLittleEndian), colours),
    )
    yield "palette, RLE", Case(save(of(little(257, "<u2"), 16), RLELossless), colours)
    yield "palette, big endian", Case(save_big_endian(of(little(257, big), 16)), colours)
    yield "palette, big endian, low byte", Case(save_big_endian(of(little(1, big), 8)), colours)
    yield "palette, big endian, high byte", Case(save_big_endian(of(little(256, big), 16)), colours)
    yield "palette, big endian, 12 bits", Case(save_big_endian(of(little(16, big), 12)), colours)

    def swapped(table: np.ndarray) -> np.ndarray:
        return table.astype(np.uint8).reshape(-1, 2)[:, ::-1]

    ds = of(swapped, 8, n_entries=256)
    yield "palette of bytes, big endian", Case(save_big_endian(ds), colours)
    ds = of(little(257, big), 16)
    ds["PixelData"].VR = "OW"  # without swapping the pixels, as some writers do
    yield "palette, big endian, pixels in words", Case(save_big_endian(ds), colours)
    ds = of(little(257, big), 16)
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds["PixelData"].VR = "OW"
    yield "palette, big endian, pixels in words, swapped", Case(save_big_endian(ds), colours)
    deep = p.grey.astype(np.uint16) + 1000
    ds = with_palette(new_dataset(deep), [(t * 257).astype("<u2") for t in tables], [16] * 3, 1000)
    yield "palette from 1000 on", Case(save(ds), colours)
    signed = (p.grey.astype(np.int16) - 128).astype(np.int8)
    ds = with_palette(
        new_dataset(signed), [(t * 257).astype("<u2") for t in tables], [16] * 3, -128
    )
    yield "palette from a negative value on", Case(save(ds), colours)
    ds = with_palette(new_dataset(p.grey), [t[:100].astype("<u2") for t in tables], [8] * 3)
    yield (
        "palette that is short",
        Case(save(ds), np.stack([t[np.minimum(p.grey, 99)] for t in tables], -1)),
    )
    ds = new_dataset(p.grey, PhotometricInterpretation="PALETTE COLOR")
    for colour in COLOURS:  # five entries of 0, a line up to 65535 at the 150th, the line again
        name = f"{colour}PaletteColorLookupTable"
        setattr(ds, f"{name}Descriptor", [256, 0, 16])
        segments = [0, 5, 0, 0, 0, 0, 0, 1, 145, 65535, 0, 1, 0, 2, 1, 14, 0, 0, 91, *[30000] * 91]
        setattr(ds, f"Segmented{name}Data", np.array(segments, "<u2").tobytes())
    line = np.r_[np.zeros(5), np.arange(1, 146) * 65535 / 145, 0, np.arange(1, 146) * 65535 / 145]
    expected = np.repeat((line[:256] / 257)[p.grey][..., None], 3, axis=-1)
    yield "palette of segments", Case(save(ds), expected)
    ds = of(little(257, "<u2"), 16)
    del ds.GreenPaletteColorLookupTableData
    yield "palette without green", Case(save(ds), "DICOM without a usable palette")


def _colours(p: Pictures) -> Cases:
    rgb = p.rgb.astype(float)

    def new(values: np.ndarray = p.rgb, **attributes: Any) -> Dataset:
        return new_dataset(values, SamplesPerPixel=3, **attributes)

    planes = np.ascontiguousarray(np.moveaxis(p.rgb, -1, 0)).tobytes()
    yield "RGB", Case(save(new()), rgb)
    yield "RGB by plane", Case(save(new(PlanarConfiguration=1, PixelData=planes)), rgb)
    yield "RGB, RLE", Case(save(new(), RLELossless), rgb)
    deep = p.rgb.astype(np.uint16) << 4
    yield "RGB of 12 bits", Case(save(new(deep, BitsStored=12)), rgb)
    yield "RGB of 4 bits", Case(save(new(p.rgb >> 4, BitsStored=4)), (p.rgb >> 4) * 17.0)
    yield "RGB of 16 bits, 12 used", Case(save(new(deep)), stretched(deep))
    yield (
        "RGB of 16 bits, big endian",
        Case(save_big_endian(new(p.rgb.astype(np.uint16) * 257)), rgb),
    )
    yield "RGB called MONOCHROME2", Case(save(new(PhotometricInterpretation="MONOCHROME2")), rgb)
    r, g, b = np.moveaxis(rgb, -1, 0)  # PS3.3, C.7.6.3.1.2
    y = 0.299 * r + 0.587 * g + 0.114 * b
    ybr = np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], -1)
    ybr = np.clip(np.rint(ybr), 0, 255).astype(np.uint8)
    yield "YBR_FULL", Case(save(new(ybr, PhotometricInterpretation="YBR_FULL")), rgb)
    ds = new(ybr, PhotometricInterpretation="YBR_FULL")
    data = save(ds, RLELossless).replace(b"\x08\0YBR_FULL", b"\x0c\0YBR_FULL_422")
    yield "YBR_FULL_422, RLE", Case(data, rgb)
    planes = np.ascontiguousarray(np.moveaxis(ybr, -1, 0)).tobytes()
    ds = new(ybr, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=1, PixelData=planes)
    yield "YBR_FULL by plane", Case(save(ds), rgb)
    yield (
        "YBR_FULL called YBR_FULL_422",
        Case(save(new(ybr, PhotometricInterpretation="YBR_FULL_422")), rgb),
    )
    blocks = ybr.reshape(p.side, -1, 2, 3)
    half = np.concatenate([blocks[..., 0], blocks[:, :, :1, 1], blocks[:, :, :1, 2]], axis=-1)
    ds = new(ybr, PhotometricInterpretation="YBR_FULL_422", PixelData=half.tobytes())
    yield "YBR_FULL_422", Case(save(ds), rgb)
    for retired in ("HSV", "ARGB", "CMYK", "YBR_PARTIAL_422"):
        yield retired, Case(save(new(PhotometricInterpretation=retired)), f".* {retired}")
    yield (
        "unknown colours",
        Case(save(new(PhotometricInterpretation="SECRET")), ".* interpretation"),
    )
    four = np.concatenate([p.rgb, p.rgb[..., :1]], axis=-1)
    ds = new_dataset(four, SamplesPerPixel=4, PhotometricInterpretation="RGB")
    yield "four samples", Case(save(ds), ".* SamplesPerPixel")


def _attributes(p: Pictures) -> Cases:
    plain = stretched(p.ct)

    def without(ds: Dataset, *keywords: str) -> bytes:
        for keyword in keywords:
            delattr(ds, keyword)
        return save(ds)

    rgb = {"SamplesPerPixel": 3}
    for keyword in (
        "PixelRepresentation",
        "SamplesPerPixel",
        "BitsStored",
        "HighBit",
        "PhotometricInterpretation",
        "BitsAllocated",
    ):
        yield f"without {keyword}", Case(without(p.new(), keyword), plain)
    for keyword in ("SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation"):
        yield f"RGB without {keyword}", Case(without(new_dataset(p.rgb, **rgb), keyword), p.rgb)
    both = ("SamplesPerPixel", "PhotometricInterpretation")
    yield "RGB without both", Case(without(new_dataset(p.rgb, **rgb), *both), p.rgb)
    yield (
        "RGB of one sample",
        Case(save(new_dataset(p.rgb, PhotometricInterpretation="RGB", SamplesPerPixel=1)), p.rgb),
    )
    yield "grey called RGB", Case(save(p.new(PhotometricInterpretation="RGB")), plain)
    for keyword in ("Rows", "Columns"):
        yield f"without {keyword}", Case(without(p.new(), keyword), f"DICOM without {keyword}")
    ds = p.new(PixelData=p.ct.tobytes() + bytes(100))
    yield (
        "without any bits",
        Case(without(ds, "BitsAllocated", "BitsStored", "HighBit"), "DICOM without BitsAllocated"),
    )
    yield "without pixels", Case(without(p.new(), "PixelData"), ".* pixel data is missing .*")
    for text in ("", "monochrome2", "MONOCHROME", "MONOCHROME2 ", "Monochrome2\0"):
        yield f"photometric {text!r}", Case(save(p.new(PhotometricInterpretation=text)), plain)
    for text in ("palette color", "PALETTE_COLOR"):
        table = np.arange(256, dtype="<u2")
        ds = with_palette(new_dataset(p.grey), [table] * 3, [8] * 3)
        ds.PhotometricInterpretation = text
        yield f"photometric {text!r}", Case(save(ds), np.repeat(p.grey[..., None], 3, axis=-1))
    yield "more bits stored than allocated", Case(save(p.new(BitsStored=24)), plain)
    yield "high bit above all", Case(save(p.new(HighBit=31)), plain)


def _frames(p: Pictures) -> Cases:
    plain = stretched(p.ct)
    stack = np.stack([p.ct, p.ct[::-1], p.ct[:, ::-1]])
    cut = p.ct.tobytes()
    yield "NumberOfFrames 0", Case(save(_framed(p, 0)), plain)
    yield "NumberOfFrames empty", Case(save(_framed(p, None)), plain)
    yield "NumberOfFrames -3", Case(save(_framed(p, -3)), plain)
    yield "more frames than there are", Case(save(_framed(p, 2)), plain)
    ds = new_dataset(stack, NumberOfFrames=5, BitsStored=12)
    yield "three frames of five", Case(save(ds), stretched(stack[1]))
    ds = new_dataset(stack, NumberOfFrames=0, BitsStored=12)
    yield "three frames, NumberOfFrames 0", Case(save(ds), stretched(stack[1]))
    ds = new_dataset(stack, NumberOfFrames=5, PixelData=stack.tobytes()[:-100])
    yield "frames that are cut off", Case(save(ds), "truncated .*")
    yield "two bytes short", Case(save(p.new(PixelData=cut[:-2])), "truncated .*")
    yield "a row short", Case(save(p.new(PixelData=cut[: -2 * p.side])), "truncated .*")
    yield "file cut off", Case(save(p.new())[:-2], "truncated .*")
    yield "too long", Case(save(p.new(PixelData=cut + bytes(1000))), plain)
    blank = np.zeros_like(p.ct)
    cine = np.stack([p.ct, p.ct[::-1], blank, p.ct.T, p.ct])
    ds = new_dataset(cine, NumberOfFrames=5)
    yield "blank middle", Case(save(ds), stretched(p.ct.T), ("frame_replaced",))
    ds = new_dataset(cine, NumberOfFrames=5)
    yield "blank middle, RLE", Case(save(ds, RLELossless), stretched(p.ct.T), ("frame_replaced",))


def _framed(p: Pictures, n_frames: int | None) -> Dataset:
    ds = p.new()
    ds.NumberOfFrames = n_frames
    return ds


def _files(p: Pictures) -> Cases:
    shown = windowed(p.ct.astype(float) - 1024, 200, 1000)
    view = HU | {"WindowCenter": 200, "WindowWidth": 1000}
    for syntax in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless):
        yield syntax.keyword, Case(save(p.new(**view), syntax), shown)
    yield "ExplicitVRBigEndian", Case(save_big_endian(p.new(**view)), shown)
    data = save(p.new(**view))
    yield "without preamble", Case(data[132:], shown)
    yield "without magic word", Case(bytes(128) + data[132:], "not a .*")
    acr = p.new()
    acr.RecognitionCode = "ACR-NEMA 2.0"
    del acr.SOPClassUID, acr.SOPInstanceUID, acr.SamplesPerPixel, acr.PhotometricInterpretation
    file = io.BytesIO()
    acr.save_as(file, implicit_vr=True, little_endian=True, enforce_file_format=False)
    yield "ACR-NEMA", Case(file.getvalue(), stretched(p.ct))
    small = save(p.new(BitsStored=12), ExplicitVRLittleEndian)
    claimed = small.replace(b"1.2.840.10008.1.2.1\0", b"1.2.999.10008.1.2.1\0")
    yield "unknown transfer syntax", Case(claimed, "unsupported DICOM transfer syntax.*")
