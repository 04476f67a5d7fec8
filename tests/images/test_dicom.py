from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from annotator.errors import ImageError, ImageFault
from annotator.images.decode import decode as decode_file
from annotator.images.dicom import plugins, reader, stored
from annotator.images.kinds import looks_like_dicom
from tests.images.dicom_cases import new_dataset as dataset
from tests.images.dicom_cases import save, save_lossless_jpeg

GREY = np.add.outer(np.arange(24) * 3, np.arange(32) * 5).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
DEEP = GREY.astype(np.int16) * 10 - 1000

# pytest puts its own filters in the place of the module's; the last test here is about those.
pytestmark = pytest.mark.filterwarnings(r"ignore:::pydicom\.", r"ignore:::PIL\.")


def decode(data: bytes, **options: Any) -> list[Image.Image]:
    return decode_file(data, **{"allow_blank": True} | options).frames


def decode_one(data: bytes, **options: Any) -> np.ndarray:
    (image,) = decode(data, **options)
    assert image.mode in ("L", "RGB")
    return np.asarray(image)


def refusal(data: bytes, code: ImageFault, **options: Any) -> str:
    """The message with which a file is refused, for the kind of fault that `code` names."""
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert caught.value.hint
    assert caught.value.code == code
    assert "Secret" not in str(caught.value)
    return caught.value.message


def linear(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values.astype(float) - low) * 255 / (high - low), 0, 255)


# Grey values


def test_8_bits_are_shown_as_they_are_and_deeper_ones_between_percentiles() -> None:
    np.testing.assert_array_equal(decode_one(save(dataset(GREY))), GREY)
    expected = linear(DEEP, *np.percentile(DEEP, (0.5, 99.5)))
    np.testing.assert_allclose(decode_one(save(dataset(DEEP))), expected, atol=1)
    rescaled = dataset(DEEP, RescaleSlope="2.5", RescaleIntercept="-1024")
    np.testing.assert_allclose(decode_one(save(rescaled)), expected, atol=1)


def test_padding_is_left_out_of_the_percentiles_and_black() -> None:
    padded = DEEP.copy()
    padded[:, :8] = -2000
    expected = linear(DEEP, *np.percentile(DEEP[:, 8:], (0.5, 99.5)))
    expected[:, :8] = 0
    data = save(dataset(padded, PixelPaddingValue=-2000))
    np.testing.assert_allclose(decode_one(data), expected, atol=1)
    inverted = save(
        dataset(padded, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    )
    expected[:, 8:] = 255 - expected[:, 8:]
    np.testing.assert_allclose(decode_one(inverted), expected, atol=1)


@pytest.mark.parametrize("slope", ["1", "2", "-1"])
def test_linear_window(slope: str) -> None:
    # PS3.3 C.11.2.1.2.1, on values after the rescale.
    center, width = 40, 400
    ds = dataset(DEEP, WindowCenter=center, WindowWidth=width)
    ds.RescaleSlope, ds.RescaleIntercept = slope, "100"
    values = DEEP * float(slope) + 100
    expected = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    np.testing.assert_allclose(decode_one(save(ds)), np.clip(expected, 0, 255), atol=0.51)


def test_other_window_functions() -> None:
    ds = dataset(DEEP, WindowCenter=0, WindowWidth=500, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(decode_one(save(ds)), linear(DEEP, -250, 250), atol=0.51)
    ds.VOILUTFunction = "SIGMOID"
    expected = 255 / (1 + np.exp(-4 * DEEP.astype(float) / 500))
    np.testing.assert_allclose(decode_one(save(ds)), expected, atol=0.51)


@pytest.mark.parametrize(
    ("center", "width", "function"),
    [("0", "0", "LINEAR"), ("0", "0.5", "LINEAR"), ("", "", "LINEAR"), ("0", "500", "CUSTOM")],
)
def test_an_unusable_window_is_left_out(center: str, width: str, function: str) -> None:
    ds = dataset(DEEP, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    np.testing.assert_array_equal(decode_one(save(ds)), decode_one(save(dataset(DEEP))))


def lut(first: int, bits: int, values: list[int], vr: str = "US") -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(values), first, bits])
    content: Any = np.array(values, "<u2").tobytes() if vr == "OW" else values
    item.add_new(0x00283006, vr, content)
    return Sequence([item])


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_voi_lut(vr: str, bits: int) -> None:
    top = 2**bits - 1
    values = [top * (99 - i) // 99 for i in range(100)]
    ds = dataset(GREY.astype(np.uint16), VOILUTSequence=lut(50, bits, values, vr))
    expected = np.array(values)[np.clip(GREY.astype(int) - 50, 0, 99)] * 255 / top
    np.testing.assert_allclose(decode_one(save(ds)), expected, atol=1)


def test_voi_lut_over_negative_rescaled_values_wins_over_a_window() -> None:
    ds = dataset(DEEP, WindowCenter=0, WindowWidth=1)
    ds.RescaleSlope, ds.RescaleIntercept = "0.5", "0"
    ds.VOILUTSequence = lut(-500, 8, list(range(256)))
    expected = np.clip(np.rint(DEEP * 0.5) + 500, 0, 255)
    np.testing.assert_allclose(decode_one(save(ds)), expected, atol=1)


def test_modality_lut() -> None:
    # 12 bits per entry, which is then what the window applies to.
    ds = dataset(GREY.astype(np.uint16), WindowCenter=2000, WindowWidth=4000)
    ds.VOILUTFunction = "LINEAR_EXACT"
    ds.ModalityLUTSequence = lut(0, 12, [16 * i for i in range(256)])
    np.testing.assert_allclose(decode_one(save(ds)), linear(GREY * 16.0, 0, 4000), atol=0.51)


def test_enhanced_objects_keep_them_in_functional_groups() -> None:
    def groups(slope: str, center: int) -> Dataset:
        item, rescale, window = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, "0"
        window.WindowCenter, window.WindowWidth = center, 400
        item.PixelValueTransformationSequence = Sequence([rescale])
        item.FrameVOILUTSequence = Sequence([window])
        return item

    frames = np.stack([DEEP, DEEP, DEEP])
    ds = dataset(frames, NumberOfFrames=3)
    ds.PerFrameFunctionalGroupsSequence = Sequence([groups("1", c) for c in (-200, 0, 200)])
    expected = [
        decode_one(save(dataset(DEEP, WindowCenter=center, WindowWidth=400)))
        for center in (-200, 0, 200)
    ]
    decoded = decode(save(ds), frames="all")
    np.testing.assert_array_equal(np.stack([np.asarray(i) for i in decoded]), expected)
    del ds.PerFrameFunctionalGroupsSequence
    ds.SharedFunctionalGroupsSequence = Sequence([groups("1", 200)])
    np.testing.assert_array_equal(decode_one(save(ds)), expected[2])


def test_float_pixels() -> None:
    ds = dataset(GREY, BitsAllocated=32)
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    values = GREY.astype(np.float32)
    values[0, 0] = np.nan
    ds.FloatPixelData = (values / 1000).tobytes()
    expected = linear(GREY, *np.percentile(GREY.ravel()[1:], (0.5, 99.5)))
    expected[0, 0] = 0
    np.testing.assert_allclose(decode_one(save(ds)), expected, atol=1)


# Encodings


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
    ],
)
def test_transfer_syntaxes_give_the_same_pixels(syntax: str) -> None:
    ds = dataset(DEEP, WindowCenter=0, WindowWidth=800)
    expected = decode_one(save(ds))
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = DEEP.astype(">i2").tobytes()
    np.testing.assert_array_equal(decode_one(save(ds, syntax)), expected)


def compressed(pixels: np.ndarray, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def test_jpeg_and_jpeg_2000_frames() -> None:
    ds = dataset(COLOUR, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL_422")
    ds.PixelData = encapsulate([compressed(COLOUR, "JPEG", quality=95)])
    decoded = decode_one(save(ds, JPEGBaseline8Bit))
    assert np.abs(decoded.astype(int) - COLOUR).mean() < 4
    ds = dataset(GREY, PixelData=encapsulate([compressed(GREY, "JPEG2000", no_jp2=True)]))
    np.testing.assert_array_equal(decode_one(save(ds, JPEG2000Lossless)), GREY)


def test_frames_that_a_plug_in_reads(tmp_path: Path) -> None:
    frames = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
    ds = dataset(frames, NumberOfFrames=3, WindowCenter=0, WindowWidth=800)
    expected = [np.asarray(image) for image in decode(save(ds), frames="all")]
    data = save_lossless_jpeg(ds, tmp_path)
    assert pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    decoded = [np.asarray(image) for image in decode(data, frames="all")]
    np.testing.assert_array_equal(decoded, expected)
    np.testing.assert_array_equal(decode_one(data), expected[1])


def test_a_plug_in_that_fails_or_crashes_gives_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save_lossless_jpeg(dataset(DEEP), tmp_path)
    expected = decode_one(save(dataset(DEEP)))
    monkeypatch.setattr(stored, "available_plugins", lambda _: ["missing", "gdcm"])
    np.testing.assert_array_equal(decode_one(data), expected)
    crashing = bytearray(data)
    crashing[data.index(b"\xff\xd8") + 15] = 0  # a segmentation fault of GDCM
    assert "cannot be decoded as JPEG Lossless" in refusal(bytes(crashing), "broken")


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_files_without_preamble(syntax: str) -> None:
    expected = decode_one(save(dataset(DEEP)))
    ds = dataset(DEEP)
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = DEEP.astype(">i2").tobytes()
    data = save(ds, syntax)
    np.testing.assert_array_equal(decode_one(data[132:]), expected)  # from group 0002
    (length,) = struct.unpack_from("<I", data, 140)
    np.testing.assert_array_equal(decode_one(data[144 + length :]), expected)  # from group 0008


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_frames_of_a_multi_frame_image(syntax: str) -> None:
    frames = np.stack([GREY + np.uint8(i) for i in range(5)])
    ds = dataset(frames, NumberOfFrames=5)
    data = save(ds, syntax)
    np.testing.assert_array_equal(decode_one(data), frames[2])
    decoded = [np.asarray(image) for image in decode(data, frames="all")]
    np.testing.assert_array_equal(decoded, frames)
    decoded = [np.asarray(image) for image in decode(data, frames="all", max_frames=2)]
    np.testing.assert_array_equal(decoded, frames[[1, 3]])


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (bytes(128) + b"DICM", True),
        (bytes(132), False),
        (b"", False),
        (b"\x08\0\x05\0CS\x0a\0", True),
        (b"\x08\0\x05\0\x0a\0\0\0", True),
        (b"\x02\0\0\0UL\x04\0", True),
        (b"\0\x08\0\x05CS\0\x0a", True),
        (b"\x08\0\x05\0\x0b\0\0\0", False),  # an odd length
        (b"\x08\0\x05\0ZZ\xff\xff", False),
        (b"\x09\0\x05\0CS\x0a\0", False),
        (b"RIFF....WAVE", False),
    ],
)
def test_looks_like_dicom(head: bytes, expected: bool) -> None:
    assert looks_like_dicom(head) is expected


# Refusals


def without(*keywords: str, **attributes: Any) -> bytes:
    ds = dataset(GREY, **attributes)
    for keyword in keywords:
        delattr(ds, keyword)
    return save(ds)


IMAGE = ("PixelData", "Rows", "Columns")
TRUNCATED = "truncated DICOM: the pixel data is shorter than its header says"
JUNK_JPEG = dataset(GREY, PixelData=encapsulate([b"\xff\xd8\xff\xd9"]))
REFUSALS: dict[str, tuple[bytes, ImageFault, str]] = {
    "report": (
        without(*IMAGE, SOPClassUID=BasicTextSRStorage), "no_pixels",
        r"DICOM without an image \(Basic Text SR Storage\)",
    ),
    "PDF": (
        without(*IMAGE, SOPClassUID=EncapsulatedPDFStorage), "no_pixels",
        r"DICOM without an image \(Encapsulated PDF Storage\)",
    ),
    "no pixel data": (
        without("PixelData"), "broken", "DICOM whose pixel data is missing or truncated"
    ),
    "cut off": (save(dataset(GREY))[:-100], "broken", TRUNCATED),
    "more rows": (save(dataset(GREY, Rows=25)), "broken", TRUNCATED),
    "no rows": (save(dataset(GREY, Rows=0)), "broken", "32 x 0 pixels is not an image"),
    "large": (
        save(dataset(GREY, Rows=60000, Columns=60000)), "too_large",
        "60000 x 60000 pixels is over the limit of 80000000",
    ),
    "video": (
        save(JUNK_JPEG, MPEG2MPML), "unsupported", "unsupported DICOM transfer syntax MPEG2.*"
    ),
    "private syntax": (
        save(dataset(GREY)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.999.10008.1.2.1\0"),
        "unsupported", "unsupported DICOM transfer syntax",
    ),
    "no JPEG": (
        save(JUNK_JPEG, JPEGBaseline8Bit), "broken", r".*JPEG Baseline \(Process 1\).*"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    data, code, message = REFUSALS[name]
    assert re.fullmatch(message, refusal(data, code))


def test_a_limit_of_the_callers_and_pixel_data_that_is_too_long() -> None:
    assert refusal(save(dataset(GREY)), "too_large", max_pixels=767).startswith("32 x 24 pixels")
    longer = dataset(GREY, PixelData=GREY.tobytes() + bytes(10))
    np.testing.assert_array_equal(decode_one(save(longer)), GREY)


@pytest.mark.parametrize(
    ("syntax", "package"),
    [
        ("JPEGExtended12Bit", "pylibjpeg-libjpeg"),
        ("JPEGLossless", "python-gdcm"),
        ("JPEGLSLossless", "pyjpegls"),
        ("HTJ2K", "pylibjpeg-openjpeg"),
    ],
)
def test_the_package_that_helps_is_named(
    syntax: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = {
        "JPEGExtended12Bit": b"\xff\xc1\0\x0b\x0c\0\x18\0\x20\1\1\x11\0",
        "JPEGLossless": b"\xff\xc3\0\x0b\x0c\0\x18\0\x20\1\1\x11\0",
        "JPEGLSLossless": b"\xff\xf7\0\x0b\x0c\0\x18\0\x20\1\1\x11\0",
    }
    frame = b"\xff\xd8" + frames.get(syntax, b"") + b"\xff\xda\xff\xd9"
    if syntax == "HTJ2K":
        size = struct.pack(">HH8IHBBB", 41, 1 << 14, 32, 24, 0, 0, 32, 24, 0, 0, 1, 11, 1, 1)
        frame = b"\xff\x4f\xff\x51" + size + b"\xff\xd9"
    uid = getattr(pydicom.uid, syntax)
    data = save(dataset(GREY, PixelData=encapsulate([frame])), uid)
    assert "pip install" not in hint_of(data)  # which would not help
    hint = f'Install {package} with: pip install "cui-annotator[dicom]"'
    monkeypatch.setattr(get_decoder(uid), "_available", {})
    assert hint_of(data) == hint
    monkeypatch.setattr(get_decoder(uid), "_available", {"other": None})  # which cannot do all
    assert plugins.install_hint(syntax) == hint


def hint_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value.hint


def test_deflated_bombs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(dataset(np.zeros((2000, 2000), np.uint16)), DeflatedExplicitVRLittleEndian)
    assert decode_one(data).shape == (2000, 2000)
    monkeypatch.setattr(reader, "MAX_DEFLATED_BYTES", 8_000_000)
    for bomb in (data, data[132:]):
        assert refusal(bomb, "too_large") == "deflated DICOM of more than 8000000 bytes"


def test_frames_that_decode_to_more_than_the_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.zeros((2000, 2000), np.uint8)
    frames = {
        RLELossless: np.array([1, 64, *[0] * 14], "<u4").tobytes()
        + b"\x81\0" * (large.size // 128),
        JPEGBaseline8Bit: compressed(large, "JPEG"),
        JPEG2000Lossless: compressed(large, "JPEG2000"),
    }

    def file(syntax: str, side: int) -> bytes:
        ds = dataset(GREY, Rows=side, Columns=side, PixelData=encapsulate([frames[syntax]]))
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        ds["PixelData"].VR = "OB"
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
        return buffer.getvalue()

    for syntax in frames:
        assert not decode_one(file(syntax, 2000)).any()
    monkeypatch.setattr(stored, "decode_with_pillow", lambda *_, **__: pytest.fail("decoded"))
    for syntax in frames:
        message = refusal(file(syntax, 24), "broken")
        if syntax == RLELossless:
            assert message == "DICOM pixel data that cannot be decoded as RLE Lossless"
        else:
            assert message == "DICOM frame of another size than its header says"


# Hostile input


@cache
def samples() -> dict[str, bytes]:
    deep = dataset(DEEP, WindowCenter=0, WindowWidth=800, RescaleSlope="1", RescaleIntercept="5")
    deep.VOILUTSequence = lut(0, 8, list(range(100)))
    rle = dataset(np.stack([DEEP, DEEP + 1]), NumberOfFrames=2)
    jpeg = dataset(GREY, PixelData=encapsulate([compressed(GREY, "JPEG")]))
    return {
        "explicit": save(deep),
        "implicit": save(deep, ImplicitVRLittleEndian),
        "no preamble": save(deep)[132:],
        "deflated": save(deep, DeflatedExplicitVRLittleEndian),
        "colour": save(dataset(COLOUR, SamplesPerPixel=3)),
        "RLE": save(rle, RLELossless),
        "JPEG": save(jpeg, JPEGBaseline8Bit),
    }


def check_image_or_refusal(data: bytes) -> None:
    try:
        images = decode(data, frames="all", max_frames=4, max_pixels=100_000)
    except ImageError as error:
        assert error.message and error.hint
        assert "Secret" not in str(error)
    else:
        assert images
        assert {image.mode for image in images} <= {"L", "RGB"}
        assert all(0 < image.width * image.height <= 100_000 for image in images)


@given(st.sampled_from([data[:n] for data in samples().values() for n in (132, 200)]), st.binary())
@settings(deadline=None, max_examples=100)
def test_random_bytes_are_refused_or_decoded(head: bytes, rest: bytes) -> None:
    check_image_or_refusal(head + rest)


@pytest.mark.parametrize("name", samples())
@given(data=st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_truncation_and_changed_bytes(name: str, data: st.DataObject) -> None:
    good = samples()[name]
    check_image_or_refusal(good[: data.draw(st.integers(0, len(good)))])
    changed = bytearray(good)
    for position in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=3)):
        changed[position] = data.draw(st.integers(0, 255))
    check_image_or_refusal(bytes(changed))


@pytest.mark.parametrize("name", samples())
def test_changed_bytes_of_the_header(name: str) -> None:
    """Each sample at other offsets, since their headers have most elements in common."""
    good = samples()[name]
    start = (0 if name == "no preamble" else 128) + list(samples()).index(name)
    for position in range(start, min(len(good), start + 1000), len(samples())):
        for value in (0x00, 0xFF, good[position] ^ 1):
            changed = bytearray(good)
            changed[position] = value
            check_image_or_refusal(bytes(changed))


def test_deep_nesting_is_refused_or_decoded() -> None:
    item = b"\x08\0\x40\x11\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"  # implicit VR sequence
    check_image_or_refusal(b"\x08\0\x05\0\0\0\0\0" + item * 20_000)


def test_threads_decode_the_same_as_one() -> None:
    files = list(samples().values()) * 4
    expected = [[image.tobytes() for image in decode(data, frames="all")] for data in files]
    with ThreadPoolExecutor(8) as pool:
        decoded = pool.map(lambda data: [i.tobytes() for i in decode(data, frames="all")], files)
        assert list(decoded) == expected


def test_nothing_is_printed_or_logged(tmp_path: Path) -> None:
    # Something that pydicom reports: an unknown character set.
    path = tmp_path / "image"
    data = save(dataset(GREY, SpecificCharacterSet="ISO_IR 100"))
    path.write_bytes(data.replace(b"ISO_IR 100", b"ISO_IR 999"))
    script = (
        "import logging, pathlib, sys, warnings\n"
        "logging.basicConfig(level=logging.WARNING)\n"
        "from annotator.images.decode import decode\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "decode(data)\n"
        "if sys.argv[2:]:\n"
        "    warnings.resetwarnings()\n"
        "    logging.getLogger('pydicom').setLevel(logging.NOTSET)\n"
        "    decode(data)\n"
    )
    # In a process of its own, since pytest swaps the filters; and once more without the filters,
    # which shows that there is something to silence.
    command = [sys.executable, "-c", script, str(path)]
    silent = subprocess.run(command, capture_output=True, check=True)
    assert silent.stderr == b""
    loud = subprocess.run([*command, "loud"], capture_output=True, check=True)
    assert b"WARNING:pydicom" in loud.stderr and b"UserWarning" in loud.stderr
