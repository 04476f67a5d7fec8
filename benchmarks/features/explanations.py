"""Are explanations right? Do the parts add up, does what they point at matter, is it the lesion?

    python -m benchmarks.features.explanations          on phantoms, whose lesions are known

An index is built of the sample collection's training side; the phantoms that are explained are of
another seed. Of each lesion whose concept was chosen:

- additivity: how far the sum of the parts is from the product of the vectors;
- occlusion: by how much the concept's score falls when the tenth of the picture with the highest
  heat is covered, against a random tenth (the same shape elsewhere, or scattered cells);
- on the lesion: whether the hottest cell touches it, and how often a random one would.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.registry import DEFAULT
from annotator.explain.attribution import highest
from annotator.explain.explain import explain
from annotator.explain.occlusion import cover
from annotator.images.decode import decode
from annotator.images.sources import find_images
from annotator.phantoms import write_sample
from annotator.phantoms.cases import FINDINGS, Case, draw_cases
from annotator.phantoms.encode import write_image
from annotator.phantoms.render import drawn_by, render
from annotator.pipeline import Annotator
from benchmarks.features.cli import annotator as run
from benchmarks.records import save
from index.progress import track

SHARE = 0.1  # of the picture that is covered
RANDOM = 4  # random tenths of either kind
# What is added to the anatomy at one place; the others (a large heart) are the anatomy.
LESIONS = {
    *("effusion", "consolidation", "nodule", "pneumothorax", "pacemaker", "hemorrhage"),
    *("infarction", "tumor", "benign mass", "malignant mass", "cyst", "fracture"),
}

Mask = NDArray[np.bool_]


def main(arguments: list[str] | None = None) -> None:
    """Explain, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=300, help="phantoms")
    parser.add_argument("--every", type=int, default=1, help="explain every so many of them")
    parser.add_argument("--indexed", type=int, default=600, help="phantoms of the index")
    parser.add_argument("--seed", type=int, default=7, help="of the phantoms that are explained")
    parser.add_argument("--embedder", default=DEFAULT, help="for the index")
    options = parser.parse_args(arguments)
    cases = [case for case in draw_cases(options.n, options.seed) if LESIONS & set(case.findings)]
    cases = cases[:: options.every]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sample = write_sample(folder / "sample", n=options.indexed)
        given: list[str | Path] = [sample.images, sample.concepts, "--index", folder / "index"]
        given += ["--split", sample.split, "--only", "train", "--groups", sample.patients]
        run("build-index", *given, "--embedder", options.embedder)
        annotator = Annotator.open(folder / "index")
        rows = [
            row
            for case in track(cases, total=len(cases), label="Explaining")
            for row in measure(annotator, case, folder / case.id)
        ]
    record = {"of": "phantoms", "encoder": annotator.embedder.name, "images": len(cases)}
    record |= {"seed": options.seed, **summary(rows)}
    print(*(f"{name}: {value}" for name, value in record.items()), sep="\n")
    save("explanations", [record])


def measure(annotator: Annotator, case: Case, folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each lesion whose concept was chosen."""
    folder.mkdir()
    write_image(folder, case, render(case))
    (ref,) = find_images(folder).images
    (frame,) = decode(ref.read(), at_least=annotator.embedder.image_size).frames
    lesions = {name: drawn_by(case, name) for name in case.findings if name in LESIONS}
    rng = np.random.default_rng(0)
    explained = explain(annotator, ref)
    for concept in explained.concepts:
        for name, lesion in lesions.items():
            if concept.cui not in FINDINGS[name].cuis or not lesion.any():
                continue
            grid = concept.contrast.grid
            shape = grid.shape
            hottest = highest(grid, SHARE)
            moved = [np.roll(hottest, rng.integers(0, shape, 2), (0, 1)) for _ in range(RANDOM)]
            scattered = [highest(rng.random(shape), SHARE) for _ in range(RANDOM)]
            pictures = [cover(frame, mask) for mask in (hottest, *moved, *scattered)]
            scores = scores_of(annotator, [frame, *pictures], concept.cui)
            drops = scores[0] - scores[1:]
            touched = cells(lesion, shape)
            yield {
                "lesion": name,
                "method": explained.method,
                "error": abs(concept.contrast.rest),
                "drop": drops[0],
                "drop moved": drops[1 : 1 + RANDOM].mean(),
                "drop scattered": drops[1 + RANDOM :].mean(),
                "on the lesion": bool(touched.flat[np.argmax(grid)]),
                "chance": float(touched.mean()),
            }


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

    def mean(key: str, some: Sequence[dict[str, Any]] = rows) -> float:
        return round(float(np.mean([row[key] for row in some])), 4)

    by: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["lesion"]):
        by.setdefault(row["lesion"], []).append(row)
    return {
        "concepts": len(rows),
        "methods": sorted({row["method"] for row in rows}),
        "largest error": max(row["error"] for row in rows),
        **{key: mean(key) for key in ("drop", "drop moved", "drop scattered")},
        **{key: mean(key) for key in ("on the lesion", "chance")},
        "by lesion": {name: [mean("on the lesion", some), len(some)] for name, some in by.items()},
    }


if __name__ == "__main__":
    main()
