"""The built-in sample collection: generated phantoms that look like their modality.

About 600 grey-scale pictures of five studies (chest radiographs, CT of the head, MR of the brain,
ultrasound of the breast, radiographs of the hand) with true concepts, captions, patients and a
split by patient. Nothing is shipped: :func:`write_sample` draws everything from a seed.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from annotator.errors import AnnotatorError
from index.progress import track

if TYPE_CHECKING:
    from annotator.phantoms.render import Renderer

__all__ = ["SamplePaths", "write_sample"]

# Raise when the same seed gives other pictures or labels than before.
_GENERATION = 1

_TABLES = ("concepts", "captions", "concept_names", "hierarchy", "split", "patients")

_README = """\
Generated phantoms
==================

The {n} images in this folder were drawn by a program from the seed {seed}. They show no patient:
every organ, finding, patient id and caption is invented. They exist to try out software. Draw no
clinical and no scientific conclusion from them or from scores measured on them.

images/            the pictures: JPEG, PNG (8 and 16 bits) and DICOM
concepts.csv       ID,CUIs: the UMLS concepts that each picture shows, joined by ";"
captions.csv       ID,Caption: one sentence that says what was drawn
concept_names.csv  CUI,Name
hierarchy.csv      concept,parent: what is broader than a concept, for partial credit
split.csv          ID,split: train or test; all images of a patient are on one side
patients.csv       ID,patient
sample.json        what the collection was drawn from

Licence: Apache-2.0.
"""


@dataclass(frozen=True)
class SamplePaths:
    """Paths of the parts of a sample collection."""

    directory: Path
    images: Path
    concepts: Path
    captions: Path
    concept_names: Path
    hierarchy: Path
    split: Path
    patients: Path
    readme: Path

    @classmethod
    def of(cls, directory: Path) -> SamplePaths:
        """The paths of a collection in ``directory``, whether or not they exist."""
        return cls(
            directory=directory,
            images=directory / "images",
            readme=directory / "README.txt",
            **{table: directory / f"{table}.csv" for table in _TABLES},
        )


def write_sample(
    directory: Path | str, *, n: int = 600, seed: int = 2026, renderer: Renderer = "plain"
) -> SamplePaths:
    """Draw the sample collection into ``directory``.

    The folder appears complete or not at all. Images depend on the seed and their own position,
    so the first images of a larger collection are those of a smaller one. A folder that already
    holds the collection asked for is left as it is.

    Args:
        directory: The folder to make; its parents are made too.
        n: Number of images, at least 1.
        seed: Seed of all randomness, 0 or more; the same seed gives the same bytes.
        renderer: See `annotator.phantoms.render.render`.

    Returns:
        The paths of the collection's parts.

    Raises:
        AnnotatorError: ``directory`` holds something else, or ``n`` or ``seed`` is out of range.
    """
    if n < 1 or seed < 0:
        raise AnnotatorError(
            f"No sample collection of n={n} images with seed={seed}.",
            "Choose n of at least 1 and a seed of at least 0.",
        )
    made_of: dict[str, object] = {"generation": _GENERATION, "n": n, "seed": seed}
    if renderer != "plain":
        made_of["renderer"] = renderer
    directory = Path(directory).resolve()
    paths = SamplePaths.of(directory)
    if directory.exists():
        if _holds(paths, made_of):
            return paths
        if not directory.is_dir() or any(directory.iterdir()):
            raise AnnotatorError(
                f"{directory} holds something other than the whole sample of n={n}, seed={seed}.",
                "Delete it or choose another folder.",
            )
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(SamplePaths.of(partial), n, seed, renderer)
        (partial / "sample.json").write_text(json.dumps(made_of) + "\n", encoding="utf-8")
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return paths


def _holds(paths: SamplePaths, made_of: dict[str, object]) -> bool:
    """Whether the folder holds a complete collection of the same n, seed and generation."""
    try:
        recorded = json.loads((paths.directory / "sample.json").read_text(encoding="utf-8"))
        images = sum(1 for _ in paths.images.iterdir())
    except (OSError, ValueError):
        return False
    tables = all((paths.directory / f"{table}.csv").is_file() for table in _TABLES)
    return bool(recorded == made_of and images == made_of["n"] and tables)


def _write(paths: SamplePaths, n: int, seed: int, renderer: Renderer) -> None:
    from annotator.phantoms.cases import NAMES, PARENTS, draw_cases
    from annotator.phantoms.encode import write_image
    from annotator.phantoms.render import render

    cases = list(draw_cases(n, seed))
    paths.images.mkdir(parents=True)
    for case in track(cases, total=n, label="Drawing"):
        write_image(paths.images, case, render(case, renderer))
    _table(paths.concepts, ("ID", "CUIs"), ((c.id, ";".join(c.cuis)) for c in cases))
    _table(paths.captions, ("ID", "Caption"), ((c.id, c.caption) for c in cases))
    _table(paths.concept_names, ("CUI", "Name"), sorted(NAMES.items()))
    pairs = ((concept, parent) for concept, above in PARENTS.items() for parent in above)
    _table(paths.hierarchy, ("concept", "parent"), pairs)
    _table(paths.split, ("ID", "split"), ((c.id, c.split) for c in cases))
    _table(paths.patients, ("ID", "patient"), ((c.id, c.patient_id) for c in cases))
    paths.readme.write_text(_README.format(n=n, seed=seed), encoding="utf-8")


def _table(path: Path, header: tuple[str, str], rows: Iterable[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
