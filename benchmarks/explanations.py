"""Are explanations right? Do the parts add up, does what they point at matter, is it the lesion?

    python benchmarks/explanations.py                     on phantoms, whose lesions are known
    python benchmarks/explanations.py IMAGES --index DIR  on any images and index

An index is built of the sample collection's training side; the phantoms that are explained are of
another seed. Of each concept that was chosen (of phantoms: of each lesion that was found):

- additivity: how far the sum of the parts is from the similarities that the search reported;
- occlusion: by how much the concept's score falls when the tenth of the picture with the highest
  heat is covered, against a random tenth (the same shape elsewhere, or scattered cells);
- on the lesion (phantoms): whether the hottest cell touches it, and how often a random one would.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from numpy.typing import NDArray

from annotator.collection import Collection
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.explain.attribution import AttributionMap, highest
from annotator.explain.explain import ConceptExplanation, Explanation, explain
from annotator.explain.occlusion import cover
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.images.sources import find_images
from annotator.indexing.build import build_index
from annotator.phantoms.cases import FINDINGS, NAMES, Case, draw_cases
from annotator.phantoms.encode import write_image
from annotator.phantoms.render import drawn_by, render
from annotator.pipeline import Annotator
from index.progress import track

SEED = 2026  # of the sample collection
SHARE = 0.1  # of the picture that is covered
RANDOM = 4  # random tenths of either kind
# What is added to the anatomy at one place; the others (a large heart) are the anatomy.
LESIONS = (
    "effusion",
    "consolidation",
    "nodule",
    "pneumothorax",
    "pacemaker",
    "hemorrhage",
    "infarction",
    "tumor",
    "benign mass",
    "malignant mass",
    "cyst",
    "fracture",
)
MAPS = ("contrast", "vote")

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Subject:
    """An image to explain, and what is known of it: where its lesions are, by name."""

    ref: ImageRef
    lesions: dict[str, Mask]


def main() -> None:
    """Parse, explain, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", nargs="?")
    parser.add_argument("--index", type=Path)
    parser.add_argument("--n", type=int, default=300, help="images")
    parser.add_argument("--seed", type=int, default=7, help="of the phantoms that are explained")
    parser.add_argument("--embedder", default=DEFAULT, help="for the phantoms' index")
    options = parser.parse_args()
    if (options.images is None) != (options.index is None):
        parser.error("IMAGES and --index go together.")
    with tempfile.TemporaryDirectory() as folder:
        if options.images is None:
            annotator = sample_index(Path(folder), options.embedder)
            subjects = phantoms(Path(folder) / "more", options.n, options.seed)
        else:
            annotator = Annotator.open(options.index)
            found = find_images(options.images).images
            step = max(1, len(found) // options.n)
            subjects = [Subject(ref, {}) for ref in found[::step][: options.n]]
        rows = [
            row
            for subject in track(subjects, total=len(subjects), label="Explaining")
            for row in measure(annotator, subject)
        ]
    of = "phantoms" if options.images is None else "images"
    record: dict[str, Any] = {"of": of, "encoder": annotator.embedder.name, "images": len(subjects)}
    if options.images is None:
        record["seed"] = options.seed
    for name, value in (record | summary(rows)).items():
        print(f"{name}: {value}")
    save("explanations", [record | summary(rows)])


def sample_index(folder: Path, embedder: str = DEFAULT, n: int = 600) -> Annotator:
    """An index of the sample collection's training side, in `folder`."""
    cases = [case for case in draw_cases(n, SEED) if case.split == "train"]
    train = Collection(
        images=drawn(folder / "train", cases),
        concepts={case.id: case.cuis for case in cases},
        names=NAMES,
        captions={},
        groups={case.id: case.patient_id for case in cases},
        without_image=(),
        without_concepts=(),
        duplicates={},
        ignored=(),
    )
    build_index(train, folder / "index", make_embedder(embedder))
    return Annotator.open(folder / "index")


def phantoms(folder: Path, n: int, seed: int, every: int = 1) -> list[Subject]:
    """Every so many of the phantoms with a lesion, among the first n of a seed."""
    found = [case for case in draw_cases(n, seed) if set(case.findings) & set(LESIONS)][::every]
    return [
        Subject(ref, {name: drawn_by(case, name) for name in case.findings if name in LESIONS})
        for ref, case in zip(drawn(folder, found), found, strict=True)
    ]


def drawn(folder: Path, cases: Sequence[Case]) -> list[ImageRef]:
    """The images of cases, sorted by id as they are."""
    folder.mkdir(parents=True)
    for case in track(cases, total=len(cases), label="Drawing"):
        write_image(folder, case, render(case))
    return find_images(folder).images


def measure(annotator: Annotator, subject: Subject) -> Iterator[dict[str, Any]]:
    """One row for each concept that is looked at."""
    explanation = explain(annotator, subject.ref)
    (frame,) = decode(subject.ref.read(), at_least=annotator.embedder.image_size)
    rng = np.random.default_rng(0)
    for concept, name in _looked_at(explanation, subject):
        shape = concept.contrast.grid.shape
        masks = [highest(heat.grid, SHARE) for heat in _heats(concept)]
        moved = [np.roll(masks[0], rng.integers(0, shape, 2), (0, 1)) for _ in range(RANDOM)]
        scattered = [highest(rng.random(shape), SHARE) for _ in range(RANDOM)]
        pictures = [cover(frame, mask) for mask in (*masks, *moved, *scattered)]
        scores = scores_of(annotator, [frame, *pictures], concept.cui)
        drops = scores[0] - scores[1:]
        row: dict[str, Any] = {
            "cui": concept.cui,
            "lesion": name,
            "error": error(concept),
            "method": explanation.method,
            "drop moved": drops[2 : 2 + RANDOM].mean(),
            "drop scattered": drops[2 + RANDOM :].mean(),
        }
        for key, heat, drop in zip(MAPS, _heats(concept), drops[:2], strict=True):
            row[f"drop {key}"] = drop
            if name:
                touched = cells(subject.lesions[name], shape)
                row[f"on {key}"] = bool(touched.flat[np.argmax(heat.grid)])
                row["chance"] = float(touched.mean())
        yield row


def error(concept: ConceptExplanation) -> float:
    """How far the parts of the vote are from what the search and the kernel said."""
    reported = sum(neighbor.weight * neighbor.similarity for neighbor in concept.voters)
    heat = concept.vote
    return abs(float(heat.grid.sum()) + heat.elsewhere + heat.constant - reported)


def scores_of(annotator: Annotator, frames: Sequence[Any], cui: str) -> NDArray[np.float64]:
    """float64[n]: the share of the vote that a concept has for each picture."""
    pixels = np.concatenate([annotator.embedder.prepare([frame]) for frame in frames])
    found = annotator.search(annotator.embedder.embed(pixels))
    annotations = annotator.decide([""] * len(frames), found)
    return np.array([sum(n.weight for n in a.neighbors if cui in n.cuis) for a in annotations])


def cells(mask: Mask, shape: tuple[int, int]) -> Mask:
    """bool[shape]: which cells of a grid on a picture hold a pixel of a mask on it."""
    rows, columns = (
        np.arange(count) * size // count for count, size in zip(shape, mask.shape, strict=True)
    )
    counts = np.add.reduceat(np.add.reduceat(mask.astype(int), rows, axis=0), columns, axis=1)
    return counts > 0


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over all rows, and by lesion."""
    result: dict[str, Any] = {
        "concepts": len(rows),
        "methods": sorted({row["method"] for row in rows}),
        "largest error": max(row["error"] for row in rows),
    }
    for key in ("contrast", "vote", "moved", "scattered"):
        result[f"drop {key}"] = round(float(np.mean([row[f"drop {key}"] for row in rows])), 4)
    known = [row for row in rows if row["lesion"]]
    if known:
        for key in MAPS:
            on = float(np.mean([row[f"on {key}"] for row in known]))
            result[f"on the lesion, {key}"] = round(on, 4)
        result["chance"] = round(float(np.mean([row["chance"] for row in known])), 4)
        result["by lesion"] = {
            name: [
                round(float(np.mean([r["on contrast"] for r in known if r["lesion"] == name])), 2),
                sum(r["lesion"] == name for r in known),
            ]
            for name in sorted({row["lesion"] for row in known})
        }
    return result


def _looked_at(
    explanation: Explanation, subject: Subject
) -> Iterator[tuple[ConceptExplanation, str]]:
    for concept in explanation.concepts:
        if not subject.lesions:
            yield concept, ""
        for name, mask in subject.lesions.items():
            if concept.cui in FINDINGS[name].cuis and mask.any():
                yield concept, name


def _heats(concept: ConceptExplanation) -> tuple[AttributionMap, AttributionMap]:
    return concept.contrast, concept.vote


if __name__ == "__main__":
    main()
