"""Picture files, byte for byte reproducible: JPEG, PNG of 8 or 16 bits, DICOM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.phantoms.canvas import Array, clamp
from annotator.phantoms.cases import Case, Study

_JPEG_QUALITY = 90
_SUFFIXES = {"jpg": ".jpg", "png": ".png", "png16": ".png", "dcm": ".dcm"}

# Of each study's DICOM files: SOP class, Modality, and how stored values become display values:
# rescale slope and intercept, window centre and width. CT is in Hounsfield units, brain window.
_DICOM: dict[Study, tuple[str, str, tuple[float, float, float, float]]] = {
    "chest": ("1.2.840.10008.5.1.4.1.1.1", "CR", (1, 0, 2048, 4096)),
    "head-ct": ("1.2.840.10008.5.1.4.1.1.2", "CT", (1, -1024, 40, 80)),
    "brain-mr": ("1.2.840.10008.5.1.4.1.1.4", "MR", (1, 0, 600, 1200)),
    "breast-us": ("1.2.840.10008.5.1.4.1.1.6.1", "US", (1, 0, 128, 256)),
    "hand": ("1.2.840.10008.5.1.4.1.1.1", "CR", (0.5, 0, 1024, 2048)),
}


def write_image(folder: Path, case: Case, picture: Array) -> Path:
    """Write one picture as ``folder/ID.ext`` in the case's format.

    Args:
        folder: An existing folder.
        case: What the picture shows; gives the id, the format and the DICOM attributes.
        picture: float32 ``[h, w]`` in [0, 1], 1 is white.

    Returns:
        The path of the file.
    """
    path = folder / f"{case.id}{_SUFFIXES[case.format]}"
    if case.format == "jpg":
        Image.fromarray(_levels(picture, 255).astype(np.uint8)).save(path, quality=_JPEG_QUALITY)
    elif case.format == "png":
        Image.fromarray(_levels(picture, 255).astype(np.uint8)).save(path)
    elif case.format == "png16":
        Image.fromarray(_levels(picture, 65535)).save(path)
    else:
        _dataset(case, picture).save_as(path, enforce_file_format=True)
    return path


def _levels(picture: Array, white: int) -> NDArray[np.uint16]:
    return np.rint(clamp(picture) * white).astype(np.uint16)


def _dataset(case: Case, picture: Array) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    sop_class, modality, (slope, intercept, center, width) = _DICOM[case.study]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID(sop_class)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = _uid(case, 3, case.index)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.StudyInstanceUID = _uid(case, 1, case.patient)
    ds.SeriesInstanceUID = _uid(case, 2, case.index)
    ds.Modality = modality
    ds.PatientID, ds.PatientName = case.patient_id, "Phantom^Generated"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ImageComments = "Generated phantom, not a patient"
    ds.InstanceNumber = case.shot + 1

    values = center + (picture - 0.5) * width
    # Half of the radiographs are stored as a detector counts: more radiation, a larger number.
    inverted = modality == "CR" and case.index % 2 == 0
    if inverted:
        values = 2 * center - values
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    bits = 8 if modality == "US" else 16
    stored = np.clip(np.rint((values - intercept) / slope), 0, 2**bits - 1)
    ds.Rows, ds.Columns = picture.shape
    ds.SamplesPerPixel = 1
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0
    ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
    ds.WindowCenter, ds.WindowWidth = str(center), str(width)
    pixels = stored.astype(np.uint8 if bits == 8 else "<u2").tobytes()
    ds.PixelData = pixels + b"\0" * (len(pixels) % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    return ds


def _uid(case: Case, level: int, number: int) -> Any:
    """A unique identifier under the root for numbers made locally, fixed by seed and position."""
    from pydicom.uid import UID

    return UID(f"2.25.{(case.seed + 1) << 64 | level << 32 | number}")
