"""How much of what is wrong `annotator audit` finds: faults are planted, and looked for.

    python -m benchmarks.features.audit --images IMAGES --concepts CSV --groups CSV:group

Two plantings of each seed:

- near duplicates, 20 each of images that were rescaled, recompressed, cropped by 5 %, made brighter
  or darker, and mirrored. They are counted among the first 150 pairs that are proposed: once in the
  collection as it is, whose own duplicates compete for these places, and once after those were left
  out (one image of each pair that the audit found in the collection itself);
- swapped labels: 25 pairs of images exchange their concepts, which differ. They are counted among
  the first 150 proposals.

Everything else that is proposed counts as false; of the pairs it is said how many are of one group.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.images.sources import find_images
from annotator.tables.labels import read_labels
from benchmarks.features.cli import annotator
from benchmarks.records import save

CHANGES = ("rescaled", "recompressed", "cropped", "brightness", "mirrored")
COPIES, SWAPPED, FIRST = 100, 50, 150
PAIR_KINDS = ("leak", "exact", "near")
BICUBIC = Image.Resampling.BICUBIC

Finding = dict[str, str]


def main(arguments: list[str] | None = None) -> None:
    """Plant, audit, count, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", required=True)
    parser.add_argument("--concepts", required=True)
    parser.add_argument("--groups", metavar="FILE:COLUMN")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(arguments)
    images = find_images(options.images).images
    with tempfile.TemporaryDirectory() as temporary:
        audit = Audit(Path(temporary), options.groups)
        pairs = [f for f in audit(images) if f["kind"] in PAIR_KINDS]
        second = {pair["other_id"] for pair in pairs}
        clean = [ref for ref in images if ref.id not in second]
        for seed in options.seeds:
            records = [labels(images, read_labels(options.concepts).concepts, seed, audit)]
            for name, base in (("without its own duplicates", clean), ("as it is", images)):
                folder = Path(temporary) / f"{name} {seed}"
                records.append({"collection": name, **duplicates(base, seed, folder, audit)})
            records = [{"own_pairs": len(pairs), **record} for record in records]
            save("audit", records)
            print(*records, sep="\n", flush=True)


class Audit:
    """`annotator audit`, whose cache is kept; called with images and, for labels, concepts."""

    def __init__(self, folder: Path, groups: str | None) -> None:
        self._folder, self._groups = folder, ["--groups", groups] if groups else []

    def __call__(
        self, images: Sequence[ImageRef], concepts: dict[str, tuple[str, ...]] | None = None
    ) -> list[Finding]:
        """Everything that it finds, in its order."""
        files = self._folder / "images.txt"
        files.write_text("".join(f"{Path(ref.where).resolve()}\n" for ref in images))
        given = [files]
        if concepts is not None:
            given.append(self._folder / "concepts.csv")
            rows = "".join(f"{id_},{';'.join(cuis)}\n" for id_, cuis in concepts.items())
            given[1].write_text(f"ID,CUIs\n{rows}")
        cache = ["--cache", str(self._folder / "cache.sqlite")]
        said = annotator(
            "audit", *given, *self._groups, *cache, "--limit", "100000", "--fail-on", "none"
        )
        return list(csv.DictReader(io.StringIO(said)))


def duplicates(images: Sequence[ImageRef], seed: int, folder: Path, audit: Audit) -> dict[str, Any]:
    """Plant changed copies of images that have no group in common with each other, and count."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    of: dict[str, tuple[str, str]] = {}
    for n, i in enumerate(rng.choice(len(images), COPIES, replace=False).tolist()):
        change = CHANGES[n % len(CHANGES)]
        id_ = f"planted_{n:03d}"
        of[id_] = (images[i].id, change)
        (picture,) = decode(images[i].read()).frames
        (folder / f"{id_}.jpg").write_bytes(changed(picture, change, rng))
    start = time.perf_counter()
    findings = audit([*images, *find_images(folder).images])
    pairs = [f for f in findings if f["kind"] in PAIR_KINDS]
    # As they are listed: kinds one after the other, so by score across them.
    ranked = sorted(pairs, key=lambda f: ("both of group" in f["detail"], -float(f["score"])))
    found: dict[str, str] = {}
    false = same = twins = 0
    for finding in ranked[:FIRST]:
        ends = {finding["id"], finding["other_id"]}
        copies = [id_ for id_ in ends if id_ in of]
        if any(of[id_][0] in ends for id_ in copies):
            found |= {id_: of[id_][1] for id_ in copies if of[id_][0] in ends}
        elif copies:
            twins += 1
        else:
            false += 1
            same += "both of group" in finding["detail"]
    anywhere = {id_ for f in pairs for id_ in (f["id"], f["other_id"]) if id_ in of}
    return {
        "what": "near duplicates",
        "seed": seed,
        "images": len(images) + COPIES,
        "planted": COPIES,
        "found_in_first_150": len(found),
        "found_at_all": len(anywhere),
        "by_change": {c: sum(change == c for change in found.values()) for c in CHANGES},
        "proposed": len(pairs),
        "others_in_first_150": false,
        "of_these_one_group": same,
        "copies_of_a_twin": twins,
        "seconds": round(time.perf_counter() - start, 1),
    }


def changed(picture: Image.Image, change: str, rng: np.random.Generator) -> bytes:
    """A JPEG of a picture after one of `CHANGES`."""
    quality = 90
    width, height = picture.size
    if change == "rescaled":
        factor = rng.uniform(0.4, 0.9) if rng.random() < 0.7 else rng.uniform(1.1, 1.6)
        size = max(32, round(width * factor)), max(32, round(height * factor))
        picture = picture.resize(size, BICUBIC)
    elif change == "recompressed":
        quality = int(rng.integers(20, 60))
    elif change == "cropped":
        across, down = round(width * 0.05), round(height * 0.05)
        x, y = int(rng.integers(0, across + 1)), int(rng.integers(0, down + 1))
        picture = picture.crop((x, y, x + width - across, y + height - down))
    elif change == "brightness":
        factor = rng.uniform(0.6, 0.85) if rng.random() < 0.5 else rng.uniform(1.15, 1.5)
        picture = ImageEnhance.Brightness(picture).enhance(factor)
    else:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def labels(
    images: Sequence[ImageRef], concepts: Mapping[str, tuple[str, ...]], seed: int, audit: Audit
) -> dict[str, Any]:
    """Let pairs of images exchange their concepts, and count."""
    rng = np.random.default_rng(seed)
    left = rng.permutation(sorted(concepts)).tolist()
    swapped = dict(concepts)
    wrong: set[str] = set()
    while len(wrong) < SWAPPED:
        a = left.pop()
        b = next(id_ for id_ in left if set(concepts[id_]) != set(concepts[a]))
        left.remove(b)
        swapped[a], swapped[b] = concepts[b], concepts[a]
        wrong |= {a, b}
    start = time.perf_counter()
    proposed = [f["id"] for f in audit(images, swapped) if f["kind"] == "label"]
    return {
        "what": "swapped labels",
        "seed": seed,
        "images": len(images),
        "planted": SWAPPED,
        "found_in_first_50": len(wrong & set(proposed[:SWAPPED])),
        "found_in_first_150": len(wrong & set(proposed[:FIRST])),
        "found_at_all": len(wrong & set(proposed)),
        "proposed": len(proposed),
        "others_in_first_150": len(set(proposed[:FIRST]) - wrong),
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    main()
