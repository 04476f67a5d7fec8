"""Cases: patient, study, view and findings of each phantom, drawn from one seed.

A :class:`Case` is the single description from which the labels, the caption and the pixels are
made, so a label cannot disagree with its picture.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

NAMES = {
    "C0001675": "Adult",
    "C0006104": "Brain",
    "C0006118": "Brain Neoplasms",
    "C0006141": "Breast",
    "C0008059": "Child",
    "C0010709": "Cyst",
    "C0013604": "Edema",
    "C0016658": "Fracture",
    "C0018563": "Hand",
    "C0018670": "Head",
    "C0018800": "Cardiomegaly",
    "C0019080": "Hemorrhage",
    "C0020255": "Hydrocephalus",
    "C0021308": "Infarction",
    "C0024103": "Mass in breast",
    "C0024485": "Magnetic Resonance Imaging",
    "C0030163": "Pacemaker, Artificial",
    "C0032227": "Pleural effusion",
    "C0032326": "Pneumothorax",
    "C0034079": "Lung nodule",
    "C0036439": "Scoliosis",
    "C0040405": "X-Ray Computed Tomography",
    "C0041618": "Ultrasonography",
    "C0205093": "Lateral",
    "C0205123": "Coronal (qualifier value)",
    "C0205129": "Sagittal",
    "C0205131": "Axial",
    "C0205183": "Benign",
    "C0205282": "Malignant",
    "C0205307": "Normal",
    "C0521530": "Lung consolidation",
    "C0817096": "Chest",
    "C1140618": "Upper Extremity",
    "C1306645": "Plain x-ray",
    "C1996865": "Postero-Anterior",
}
NORMAL = "C0205307"

# What is broader than a concept, for partial credit; groups that are no labels are in words.
PARENTS: dict[str, tuple[str, ...]] = {
    "C1306645": ("X-ray imaging",),
    "C0040405": ("X-ray imaging",),
    "X-ray imaging": ("Modality",),
    "C0024485": ("Modality",),
    "C0041618": ("Modality",),
    "C0006104": ("C0018670",),  # the brain is in the head
    "C0018670": ("Body part",),
    "C0018563": ("C1140618",),  # the hand is of the upper extremity
    "C1140618": ("Body part",),
    "C0817096": ("Trunk",),
    "C0006141": ("Trunk",),
    "Trunk": ("Body part",),
    "C0205131": ("Section plane",),
    "C0205123": ("Section plane",),
    "C0205129": ("Section plane",),
    "Section plane": ("View",),
    "C1996865": ("Projection",),
    "C0205093": ("Projection",),
    "Projection": ("View",),
    "C0001675": ("Age group",),
    "C0008059": ("Age group",),
    "C0205183": ("Dignity",),
    "C0205282": ("Dignity",),
    NORMAL: ("Finding",),
    "C0030163": ("Finding",),
    "C0032227": ("Pleural abnormality",),
    "C0032326": ("Pleural abnormality",),
    "Pleural abnormality": ("Chest abnormality",),
    "C0034079": ("Lung abnormality", "Mass"),
    "C0521530": ("Lung abnormality",),
    "Lung abnormality": ("Chest abnormality",),
    "C0018800": ("Chest abnormality",),
    "Chest abnormality": ("Abnormality",),
    "C0019080": ("Vascular brain abnormality",),
    "C0021308": ("Vascular brain abnormality",),
    "Vascular brain abnormality": ("Brain abnormality",),
    "C0006118": ("Brain abnormality", "Mass"),
    "C0013604": ("Brain abnormality",),
    "C0020255": ("Brain abnormality",),
    "Brain abnormality": ("Abnormality",),
    "C0024103": ("Breast abnormality", "Mass"),
    "C0010709": ("Breast abnormality", "Mass"),
    "Breast abnormality": ("Abnormality",),
    "C0016658": ("Bone abnormality",),
    "C0036439": ("Bone abnormality",),
    "Bone abnormality": ("Abnormality",),
    "Mass": ("Abnormality",),
    "Abnormality": ("Finding",),
}

Study = Literal["chest", "head-ct", "brain-mr", "breast-us", "hand"]
Format = Literal["jpg", "png", "png16", "dcm"]
_Key = TypeVar("_Key", bound=str)


class Term(NamedTuple):
    """The CUIs of something that a picture may show, and its words in a caption."""

    cuis: tuple[str, ...]
    words: str


STUDIES: dict[Study, Term] = {
    "chest": Term(("C1306645", "C0817096"), "chest radiograph"),
    "head-ct": Term(("C0040405", "C0018670"), "computed tomography of the head"),
    "brain-mr": Term(("C0024485", "C0006104"), "magnetic resonance image of the brain"),
    "breast-us": Term(("C0041618", "C0006141"), "ultrasound image of the breast"),
    "hand": Term(("C1306645", "C1140618", "C0018563"), "radiograph of the hand"),
}
VIEWS = {
    "": Term((), ""),
    "postero-anterior": Term(("C1996865",), "postero-anterior"),
    "lateral": Term(("C0205093",), "lateral"),
    "axial": Term(("C0205131",), "axial"),
    "sagittal": Term(("C0205129",), "sagittal"),
    "coronal": Term(("C0205123",), "coronal"),
}
VARIANTS = {
    "": Term((), ""),
    "ventricles": Term((), "at the level of the lateral ventricles"),
    "convexity": Term((), "near the convexity"),
    "T1": Term((), "with T1 weighting"),
    "T2": Term((), "with T2 weighting"),
    "child": Term(("C0008059",), "of a child"),
    "adult": Term(("C0001675",), "of an adult"),
}
FINDINGS = {
    "effusion": Term(("C0032227",), "a pleural effusion"),
    "cardiomegaly": Term(("C0018800",), "an enlarged heart"),
    "consolidation": Term(("C0521530",), "a consolidation of the lung"),
    "nodule": Term(("C0034079",), "a lung nodule"),
    "pneumothorax": Term(("C0032326",), "a pneumothorax"),
    "pacemaker": Term(("C0030163",), "a cardiac pacemaker"),
    "scoliosis": Term(("C0036439",), "a scoliosis"),
    "hemorrhage": Term(("C0019080",), "a hemorrhage"),
    "infarction": Term(("C0021308",), "an infarction"),
    "hydrocephalus": Term(("C0020255",), "a hydrocephalus"),
    "tumor": Term(("C0006118",), "a brain tumour"),
    "edema": Term(("C0013604",), "an edema around it"),
    "benign mass": Term(("C0024103", "C0205183"), "a smooth, benign mass"),
    "cyst": Term(("C0010709", "C0205183"), "a simple cyst"),
    "malignant mass": Term(("C0024103", "C0205282"), "an irregular, malignant mass"),
    "fracture": Term(("C0016658",), "a fracture"),
}

# Which chest findings a patient may have, how often, and whether the lateral view shows them.
_CHEST = {
    "effusion": (0.24, True),
    "cardiomegaly": (0.22, True),
    "consolidation": (0.18, True),
    "nodule": (0.15, True),
    "pneumothorax": (0.09, False),
    "pacemaker": (0.07, True),
    "scoliosis": (0.04, False),
}
_STUDY_SHARES: dict[Study, float] = {
    "chest": 0.34,
    "head-ct": 0.18,
    "brain-mr": 0.20,
    "breast-us": 0.17,
    "hand": 0.11,
}
_FORMAT_SHARES: dict[Format, float] = {"jpg": 0.77, "png": 0.15, "png16": 0.05, "dcm": 0.03}


@dataclass(frozen=True)
class Case:
    """One phantom: everything that its labels, caption and pixels depend on.

    Attributes:
        seed: The collection's seed.
        index: Position in the collection, from 0.
        patient: The patient's number, from 0.
        shot: Which of the patient's images this is, from 0.
        study: Modality and body part; a key of ``STUDIES``.
        view: Projection or plane; a key of ``VIEWS``.
        variant: Slice level, contrast or age; a key of ``VARIANTS``.
        findings: Keys of ``FINDINGS``; none means normal.
        format: How the file is written.
    """

    seed: int
    index: int
    patient: int
    shot: int
    study: Study
    view: str
    variant: str
    findings: tuple[str, ...]
    format: Format

    @property
    def id(self) -> str:
        """The image's id, without extension."""
        return f"phantom_{self.index + 1:04d}"

    @property
    def patient_id(self) -> str:
        """The patient's id."""
        return f"patient_{self.patient + 1:04d}"

    @property
    def split(self) -> str:
        """``train`` or ``test``; three patients in ten, with all their images, are for testing."""
        return "test" if self.patient % 10 in (1, 4, 8) else "train"

    @property
    def cuis(self) -> tuple[str, ...]:
        """The concepts that the picture shows, sorted, without repeats."""
        terms = [STUDIES[self.study], VIEWS[self.view], VARIANTS[self.variant]]
        terms += [FINDINGS[name] for name in self.findings]
        found = {cui for term in terms for cui in term.cuis}
        return tuple(sorted(found if self.findings else found | {NORMAL}))

    @property
    def caption(self) -> str:
        """One sentence that says what was drawn."""
        study = " ".join(filter(None, (VIEWS[self.view].words, STUDIES[self.study].words)))
        study = " ".join(filter(None, (study, VARIANTS[self.variant].words)))
        found = [FINDINGS[name].words for name in self.findings] or ["no abnormal finding"]
        listed = " and ".join(filter(None, (", ".join(found[:-1]), found[-1])))
        link = ", " if " with " in study else " "
        return f"Phantom: {study}{link}with {listed}."

    def anatomy(self) -> np.random.Generator:
        """Randomness of the patient's anatomy, the same for all images of the patient."""
        return self._stream(0)

    def finding(self, name: str) -> np.random.Generator:
        """Randomness of one finding, the same for all images of the patient."""
        return self._stream(1, zlib.crc32(name.encode()))

    def acquisition(self) -> np.random.Generator:
        """Randomness of this image alone: pose, exposure, noise."""
        return self._stream(2, self.shot)

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(
            np.random.SeedSequence(self.seed, spawn_key=(self.patient, *key))
        )


def draw_cases(n: int, seed: int) -> Iterator[Case]:
    """The first ``n`` phantoms of the collection with this seed.

    A patient's cases depend on the seed and the patient's number alone, so the first images of a
    larger collection are those of a smaller one.

    Args:
        n: How many images.
        seed: The collection's seed, 0 or more.

    Yields:
        The cases, patient by patient.
    """
    index = patient = 0
    while index < n:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(patient, 3)))
        study = _pick(rng, _STUDY_SHARES)
        for shot, (view, variant, findings) in enumerate(_images(study, rng)):
            form = _pick(rng, _FORMAT_SHARES)
            if index < n:
                yield Case(seed, index, patient, shot, study, view, variant, findings, form)
            index += 1
        patient += 1


def _images(study: Study, rng: np.random.Generator) -> list[tuple[str, str, tuple[str, ...]]]:
    """View, variant and findings of each of one patient's images."""
    count = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    if study == "chest":
        present = [name for name, (share, _) in _CHEST.items() if rng.random() < share]
        images = []
        for view in rng.permutation(["postero-anterior", "postero-anterior", "lateral"])[:count]:
            shown = tuple(f for f in present if view == "postero-anterior" or _CHEST[f][1])
            images.append((str(view), "", shown))
        return images
    if study == "head-ct":
        name = _pick(rng, {"": 0.4, "hemorrhage": 0.25, "infarction": 0.22, "hydrocephalus": 0.13})
        levels = rng.choice(["ventricles", "convexity"], count, p=[0.65, 0.35]).tolist()
        # Hydrocephalus is a matter of the ventricles, which a high slice does not meet.
        levels = ["ventricles"] * count if name == "hydrocephalus" else levels
        return [("axial", level, (name,) if name else ()) for level in levels]
    if study == "brain-mr":
        tumor, edema = rng.random() < 0.5, rng.random() < 0.6
        planes = rng.permutation(["axial", "sagittal", "coronal"])[:count]
        images = []
        for plane in planes:
            contrast = _pick(rng, {"T1": 0.5, "T2": 0.5})
            # Water is what T2 weighting shows; on T1 the edema would be a label without pixels.
            shown = ("tumor", "edema") if edema and contrast == "T2" else ("tumor",)
            images.append((str(plane), contrast, shown if tumor else ()))
        return images
    if study == "breast-us":
        shares = {"": 0.34, "benign mass": 0.28, "malignant mass": 0.28, "cyst": 0.10}
        name = _pick(rng, shares)
        return [("", "", (name,) if name else ())] * count
    age = _pick(rng, {"child": 0.35, "adult": 0.65})
    broken = ("fracture",) if rng.random() < 0.5 else ()
    return [("", age, broken)] * min(count, 2)


def _pick(rng: np.random.Generator, shares: dict[_Key, float]) -> _Key:
    """One key, drawn with the given probabilities."""
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
