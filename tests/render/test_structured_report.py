"""Structured reports, read back and checked by dciodvfy where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from annotator.errors import ImageError
from annotator.render.structured_report import NOTICE, Finding, structured_report

pytest.importorskip("highdicom", reason="the extra `dicomweb` is not installed")

FINDINGS = (
    Finding("C0032285", "Pneumonia", 0.8123, 0.712),
    Finding("LARGE_NODULE_OF_THE_LUNG", "Größerer Rundherd", 0.5, None),
)


def header(**attributes: object) -> Any:
    from pydicom import Dataset

    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2", "1.2.3"
    ds.PatientName, ds.PatientID = "Doe^Jane", "P1"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def report(*findings: Finding, model: str = "index v000001", **attributes: object) -> Any:
    return structured_report(header(**attributes), findings, model=model, version="0.1.0")


def written(document: Any, path: Path) -> Any:
    from pydicom import dcmread, dcmwrite

    dcmwrite(path, document, enforce_file_format=True)
    return dcmread(path)


def test_a_report_says_what_was_found_and_of_which_image(tmp_path: Path) -> None:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    ds = written(report(*FINDINGS), tmp_path / "sr.dcm")
    assert (ds.PatientID, str(ds.PatientName), ds.StudyInstanceUID) == ("P1", "Doe^Jane", "1.2")
    assert ds.Modality == "SR" and ds.SeriesInstanceUID != "1.2.3"
    assert (ds.CompletionFlag, ds.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    content = sr.ComprehensiveSR.from_dataset(ds).content
    assert content[0].ContentTemplateSequence[0].TemplateIdentifier == "1500"
    groups = content.get_image_measurement_groups()
    found = [(g.finding_type.value, g.finding_type.scheme_designator) for g in groups]
    assert found == [("C0032285", "UMLS"), ("LARGE_NODULE_OF_THE_LUNG", "99ANNOTATOR")]
    assert [g.finding_type.meaning for g in groups] == ["Pneumonia", "Größerer Rundherd"]
    for group in groups:
        assert group.source_images[0].referenced_sop_instance_uid == "1.2.3.4"
    (certainty,) = groups[0].get_measurements(name=codes.DCM.CertaintyOfFinding)
    assert (certainty.value, certainty.unit.value) == (71.2, "%")
    assert groups[1].get_measurements(name=codes.DCM.CertaintyOfFinding) == []


def test_a_report_is_not_for_clinical_use(tmp_path: Path) -> None:
    ds = written(report(*FINDINGS), tmp_path / "sr.dcm")
    texts = [item.TextValue for item in ds.ContentSequence if item.ValueType == "TEXT"]
    assert NOTICE in texts and NOTICE.startswith("Not for clinical use")
    assert "NOT FOR CLINICAL USE" in ds.SeriesDescription


def test_the_same_findings_have_the_same_uid() -> None:
    uid = report(*FINDINGS).SOPInstanceUID
    assert uid == report(*FINDINGS).SOPInstanceUID
    others = [
        report(FINDINGS[0]),
        report(FINDINGS[0]._replace(score=0.9), FINDINGS[1]),
        report(*FINDINGS, model="index v000002"),
        report(*FINDINGS, SOPInstanceUID="1.2.3.5"),
    ]
    assert len({uid, *(other.SOPInstanceUID for other in others)}) == 5
    series = {report(*FINDINGS, SOPInstanceUID=f"1.{i}").SeriesInstanceUID for i in range(3)}
    assert len(series) == 1  # one of the study


def test_names_of_any_kind(tmp_path: Path) -> None:
    """A value of LO has 64 characters and no backslash."""
    names = ["x" * 200, "a\\b\n", "日本語", ""]
    findings = [Finding(f"C000000{i}", name, 1.0, 1.0) for i, name in enumerate(names)]
    ds = written(report(*findings), tmp_path / "sr.dcm")
    groups = ds.ContentSequence[-2].ContentSequence
    meanings = [
        item.ConceptCodeSequence[0].CodeMeaning
        for group in groups
        for item in group.ContentSequence
        if item.ValueType == "CODE"
    ]
    assert meanings == ["x" * 64, "a b", "日本語", "C0000003"]


def test_a_patient_keeps_the_name(tmp_path: Path, write_dicom: Any) -> None:
    """Also of a file in another character set."""
    from pydicom import dcmread

    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    write_dicom(
        tmp_path / "x.dcm", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg", **uids
    )
    ds = dcmread(tmp_path / "x.dcm", stop_before_pixels=True)
    document = structured_report(ds, FINDINGS, model="m", version="1")
    assert str(written(document, tmp_path / "sr.dcm").PatientName) == "Müller^Jörg"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_an_image_without_a_name(keyword: str) -> None:
    with pytest.raises(ImageError, match=f"has no {keyword}"):
        report(*FINDINGS, **{keyword: ""})


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (dicom3tools)")
@pytest.mark.parametrize("n", [1, 2])
def test_a_report_is_valid(tmp_path: Path, n: int) -> None:
    written(report(*FINDINGS[:n]), tmp_path / "sr.dcm")
    checked = subprocess.run(
        ["dciodvfy", "-new", tmp_path / "sr.dcm"], capture_output=True, text=True, check=False
    )
    said = (checked.stdout + checked.stderr).splitlines()
    assert "ComprehensiveSR" in said
    assert not [line for line in said if line.startswith("Error")]
