"""Headers of DICOM files: hostile ones cost neither memory nor the rest of a run."""

from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
)

from annotator.errors import AnnotatorError
from annotator.images.dicom import tags as tags_module
from annotator.images.dicom.tags import Tags, check_keyword, read_tags

pytestmark = pytest.mark.filterwarnings(r"ignore:::pydicom\.")

KEYWORDS = ["PatientID", "ImageType", "Rows", "StudyDate"]


def read(data: bytes) -> Tags:
    (header,) = read_tags([lambda: io.BytesIO(data)], KEYWORDS)
    return header


@pytest.fixture
def dicom(tmp_path: Path, write_dicom: Callable[..., str]) -> Callable[..., bytes]:
    def dicom(**attributes: object) -> bytes:
        write_dicom(tmp_path / "file", **attributes)
        return (tmp_path / "file").read_bytes()

    return dicom


@pytest.mark.parametrize(
    "syntax", ["", ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_values_are_read_as_text(dicom: Callable[..., bytes], syntax: str) -> None:
    data = dicom(
        syntax=syntax, PatientID=" 7  a\n", ImageType=["ORIGINAL", "", "PRIMARY"], StudyDate=""
    )
    values = {"PatientID": ("7 a",), "ImageType": ("ORIGINAL", "PRIMARY"), "Rows": ("32",)}
    assert read(data) == Tags("dicom", True, values)


def test_text_has_the_characters_of_its_file(dicom: Callable[..., bytes]) -> None:
    data = dicom(SpecificCharacterSet="ISO_IR 192", PatientID="Żółć")
    assert read(data).values["PatientID"] == ("Żółć",)


def test_files_without_an_image(dicom: Callable[..., bytes]) -> None:
    for data in (dicom(seed=None), dicom(seed=None, SOPClassUID=RTStructureSetStorage)):
        assert read(data) == Tags("dicom", has_pixels=False)
    # An image that is damaged is one: decoding says what it lacks.
    assert read(dicom(Rows=None)).has_pixels
    assert read(dicom(PixelData=None)).has_pixels


def test_files_that_are_no_dicom(tmp_path: Path, dicom: Callable[..., bytes]) -> None:
    data = dicom(PatientID="1")

    def broken() -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    openers = [lambda: io.BytesIO(b"text"), broken, lambda: io.BytesIO(data)]
    assert [header.kind for header in read_tags(openers, [])] == ["other", "unreadable", "dicom"]


def test_a_corrupt_header_is_left_to_the_decoder(dicom: Callable[..., bytes]) -> None:
    data = dicom(PatientID="Secret")
    for end in range(132, len(data) - 1024, 7):
        assert read(data[:end]).kind == "dicom"
    start = data.index(b"Secret") - 8
    long = data[:start] + struct.pack("<HH2sH", 0x10, 0x20, b"LO", 0xFFFF) + data[start + 8 :]
    assert read(long).kind == "dicom"


def test_a_long_value_is_absent(dicom: Callable[..., bytes]) -> None:
    header = read(dicom(PatientID="1" * 70_000, syntax=ImplicitVRLittleEndian))
    assert header == Tags("dicom", True, {"Rows": ("32",)})


def test_a_deflated_header_is_inflated_no_further_than_needed(
    dicom: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dicom(syntax=DeflatedExplicitVRLittleEndian, PatientID="7")
    start = data.index(b"1.2.840.10008.1.2.1.99") + 22
    meta_end = 144 + int.from_bytes(data[140:144], "little")
    assert start <= meta_end
    whole = zlib.decompress(data[meta_end:], -zlib.MAX_WBITS)
    squeezer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = squeezer.compress(whole) + squeezer.compress(bytes(100 << 20)) + squeezer.flush()
    sizes: list[int] = []
    inflated = tags_module._inflated

    def measured(file: io.BytesIO) -> bytes:
        sizes.append(len(inflated(file)))
        file.seek(0)
        return inflated(file)

    monkeypatch.setattr(tags_module, "_inflated", measured)
    assert read(data[:meta_end] + bomb).values["PatientID"] == ("7",)
    assert sizes == [1 << 24]


def test_threads_do_not_load_pydicom_at_once(
    tmp_path: Path, write_dicom: Callable[..., str]
) -> None:
    write_dicom(tmp_path / "file", PatientID="7")
    code = (
        "from functools import partial\n"
        "from annotator.images.dicom.tags import read_tags\n"
        f"openers = [partial(open, {str(tmp_path / 'file')!r}, 'rb')] * 64\n"
        "print({header.values.get('PatientID') for header in read_tags(openers, ['PatientID'])})"
    )
    root = Path(tags_module.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "{('7',)}\n"


def test_nothing_of_a_header_is_logged(
    dicom: Callable[..., bytes], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    data = dicom(PatientID="Secret", StudyDate="Secret-date")
    with caplog.at_level(logging.DEBUG):
        read(data)
        read(data[: data.index(b"Secret") + 3])
    assert "Secret" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("keyword", ["PixelData", "SharedFunctionalGroupsSequence", "modality", ""])
def test_keywords_without_text(keyword: str) -> None:
    with pytest.raises(AnnotatorError) as caught:
        check_keyword(keyword)
    assert "Modality" in caught.value.hint
