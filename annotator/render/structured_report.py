"""The concepts of an image as a DICOM structured report: template TID 1500, by highdicom."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from annotator.concept_ids import is_cui
from annotator.errors import AnnotatorError, ImageError
from index.distribution import pip_install

if TYPE_CHECKING:
    from pydicom import Dataset

NOTICE = "Not for clinical use. Concepts of similar images, found by software; nobody has read it."

_UMLS = "UMLS"  # the coding scheme's designator, DICOM PS3.16, table 8-1
_OWN = "99ANNOTATOR"  # of codes that nobody else has begins with 99 (PS3.3, section 8.2)
_LONGEST_MEANING = 64  # characters of a value of LO
_SERIES_NUMBER = 9900  # far from those of modalities
_NOT_IN_TEXT = re.compile(r"[\\\x00-\x1f\x7f]")
# Attributes that a report has, empty where the image has none.
_TAKEN = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime",
)  # fmt: skip
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


class Finding(NamedTuple):
    """A concept of an image.

    Attributes:
        concept: A CUI, or a local id.
        name: Its name, or "".
        score: Its share of the neighbours' votes, 0..1.
        probability: How often such a concept is right, 0..1; None where that is not known.
    """

    concept: str
    name: str
    score: float
    probability: float | None


def check_package() -> None:
    """Check that reports can be made.

    Raises:
        AnnotatorError: The package is not installed.
    """
    try:
        import highdicom.sr  # noqa: F401
    except ModuleNotFoundError as error:
        raise AnnotatorError(
            f"Structured reports need the package {error.name}, which is not installed.",
            pip_install("dicomweb"),
        ) from error


def structured_report(
    header: Dataset, findings: Sequence[Finding], *, model: str, version: str
) -> Dataset:
    """The report on an image: a Comprehensive SR in its study, in a series of its own.

    Each concept is a measurement group of its own, with the concept as its finding, its share of
    votes, and its probability as the certainty of the finding. The report is unverified and
    partial, and says that it is not for clinical use. The same findings of the same image by the
    same model have the same UIDs.

    Args:
        header: Attributes of the image.
        findings: At least one.
        model: Name and version of the index.
        version: Of this software.

    Raises:
        ImageError: The header says not which image it is.
    """
    from highdicom import sr
    from pydicom.sr.codedict import codes

    missing = [keyword for keyword in _NEEDED if not header.get(keyword)]
    if missing:
        raise ImageError(f"its header has no {missing[0]}, so no report can name it")
    for keyword in _TAKEN:
        if header.get(keyword) is None:
            setattr(header, keyword, "")
    image = str(header.SOPInstanceUID)
    facts = [f"{one.concept} {one.score:.4f} {one.probability}" for one in findings]
    report_uid = _uid("report", image, model, version, *facts)
    device = _uid("device", model, version)
    algorithm = sr.AlgorithmIdentification("annotator", version, parameters=[f"index {model}"])
    source = sr.SourceImageForMeasurementGroup(str(header.SOPClassUID), image)
    groups = [
        sr.MeasurementsAndQualitativeEvaluations(
            sr.TrackingIdentifier(_uid("finding", report_uid, one.concept), one.concept[:64]),
            finding_type=_coded(sr, one),
            algorithm_id=algorithm,
            measurements=_measurements(sr, codes, one),
            source_images=[source],
        )
        for one in findings
    ]
    observer = sr.ObserverContext(
        codes.DCM.Device,
        sr.DeviceObserverIdentifyingAttributes(
            device, "annotator", manufacturer_name="annotator", model_name=_text(model)
        ),
    )
    content = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=observer),
        codes.SCT.ImagingProcedure,
        groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    content[0].ContentSequence.append(
        sr.TextContentItem(codes.DCM.Comment, NOTICE, sr.RelationshipTypeValues.CONTAINS)
    )
    report = sr.ComprehensiveSR(
        [header],
        content,
        series_instance_uid=_uid("series", str(header.StudyInstanceUID), model, version),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=report_uid,
        instance_number=1,
        manufacturer="annotator",
        manufacturer_model_name=_text(model),
        software_versions=version,
        device_serial_number=hashlib.sha256(model.encode()).hexdigest()[:16],
        is_complete=False,
        is_verified=False,
        specific_character_set="ISO_IR 192",
    )
    report.SeriesDescription = "Concepts by retrieval, NOT FOR CLINICAL USE"
    return report


def _measurements(sr: Any, codes: Any, one: Finding) -> list[Any]:
    share = sr.CodedConcept("VOTES", _OWN, "Share of votes")
    found = [sr.Measurement(share, round(one.score, 4), codes.UCUM.NoUnits)]
    if one.probability is not None:
        percent = round(100 * one.probability, 1)
        found.append(sr.Measurement(codes.DCM.CertaintyOfFinding, percent, codes.UCUM.Percent))
    return found


def _coded(sr: Any, one: Finding) -> Any:
    scheme = _UMLS if is_cui(one.concept) else _OWN
    return sr.CodedConcept(_text(one.concept), scheme, _text(one.name or one.concept))


def _text(value: str) -> str:
    """A text as a value of LO: short, and without what would separate values."""
    return _NOT_IN_TEXT.sub(" ", value).strip()[:_LONGEST_MEANING]


def _uid(*facts: str) -> str:
    """A UID that the same facts always have (PS3.5, section B.2)."""
    name = "\0".join(("annotator", *facts))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, name).int}"
