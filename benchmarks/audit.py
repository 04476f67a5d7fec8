"""How much of what is wrong `annotator audit` finds: faults are planted, and looked for.

    python benchmarks/audit.py --images IMAGES --concepts CSV --groups CSV:group --seeds 0 1 2

Two plantings of each seed, into copies in a temporary folder:

- near duplicates, 20 each of images that were rescaled, recompressed, cropped by 5 %, made brighter
  or darker, and mirrored. They are counted among the first 150 pairs that are proposed: once in the
  collection as it is, whose own duplicates compete for these places, and once after those were left
  out (one image of each pair that the audit found in the collection itself);
- swapped labels: 25 pairs of images exchange their concepts, which differ. They are counted among
  the first 150 proposals.

Everything else that is proposed counts as false; of the pairs it is said how many are of one group.

With `--limits` it is counted instead how large a crop and how strong a rotation may be for a copy
to be recognised, each laid over its own original.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from PIL import Image, ImageEnhance

from annotator.audit.align import SIDE, VERIFY_SIDE, fit_closely, fit_pairs
from annotator.audit.candidates import PROMISING
from annotator.audit.duplicates import MIN_CORRELATION
from annotator.audit.inputs import AuditLabels, AuditLoader
from annotator.audit.run import audit_images
from annotator.encoders.registry import make_embedder
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.images.sources import find_images
from annotator.images.thumbnails import grey_thumbnail
from annotator.tables.formats import read_column, read_concepts

CHANGES = ("rescaled", "recompressed", "cropped", "brightness", "mirrored")
COPIES, SWAPPED, FIRST = 100, 50, 150
CROPS, ROTATIONS, TRIED = (0.1, 0.15, 0.2, 0.25), (1, 2, 3, 5), 120
BICUBIC = Image.Resampling.BICUBIC
PAIR_KINDS = ("leak", "exact", "near")


def main() -> None:
    """Parse, plant, audit, count, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", required=True)
    parser.add_argument("--concepts")
    parser.add_argument("--groups", metavar="FILE:COLUMN")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, help="file that keeps computed vectors")
    parser.add_argument("--limits", action="store_true")
    options = parser.parse_args()
    images = find_images(options.images).images
    if options.limits:
        report(limits(images, options.seeds[0]))
        return
    if not options.concepts:
        parser.error("--concepts is required")
    concepts = read_concepts(options.concepts)
    groups = read_column(options.groups) if options.groups else {}
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or Path(folder) / "cache.sqlite"
        gathering = AuditLoader(make_embedder(), cache=cache)
        clean, own = without_duplicates(images, groups, gathering)
        print(f"{len(images)} images with {own} pairs of their own", flush=True)
        for seed in options.seeds:
            place = Path(folder) / f"seed{seed}"
            report({"own_pairs": own, **labels(images, concepts, groups, seed, gathering)})
            for name, base in (("without its own duplicates", clean), ("as it is", images)):
                record = duplicates(base, groups, seed, place / name, gathering)
                report({"own_pairs": own, "collection": name, **record})


def report(record: dict[str, Any]) -> None:
    """Print and keep one record."""
    save("audit", [record])
    print(record, flush=True)


def without_duplicates(
    images: Sequence[ImageRef], groups: dict[str, str], gathering: AuditLoader
) -> tuple[list[ImageRef], int]:
    """The images less one of each pair that is found among them, and how many pairs there are."""
    given = AuditLabels(None, {}, groups, {})
    found = audit_images(images, given, gathering).findings
    pairs = [f for f in found if f.kind in PAIR_KINDS]
    second = {f.other_id for f in pairs}
    return [ref for ref in images if ref.id not in second], len(pairs)


def duplicates(
    images: Sequence[ImageRef],
    groups: dict[str, str],
    seed: int,
    folder: Path,
    gathering: AuditLoader,
) -> dict[str, Any]:
    """Plant changed copies of images that have no group in common with each other, and count."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    of: dict[str, tuple[str, str]] = {}
    for n, i in enumerate(rng.choice(len(images), COPIES, replace=False).tolist()):
        change = CHANGES[n % len(CHANGES)]
        id_ = f"planted_{n:03d}"
        of[id_] = (images[i].id, change)
        picture = decode(images[i].read())[0]
        (folder / f"{id_}.jpg").write_bytes(changed(picture, change, rng))
    planted = find_images(folder).images
    start = time.perf_counter()
    result = audit_images([*images, *planted], AuditLabels(None, {}, groups, {}), gathering)
    pairs = [f for f in result.findings if f.kind in PAIR_KINDS]
    # As they are listed: kinds one after the other, so by score across them.
    known = [f for f in pairs if "both of group" in f.detail]
    fresh = [f for f in pairs if "both of group" not in f.detail]
    ranked = [*sorted(fresh, key=lambda f: -f.score), *sorted(known, key=lambda f: -f.score)]
    found: dict[str, str] = {}
    false = same = twins = 0
    for finding in ranked[:FIRST]:
        ends = {finding.image_id, finding.other_id}
        copies = [id_ for id_ in ends if id_ in of]
        if any(of[id_][0] in ends for id_ in copies):
            found |= {id_: of[id_][1] for id_ in copies if of[id_][0] in ends}
        elif copies:
            twins += 1
        else:
            false += 1
            same += "both of group" in finding.detail
    anywhere = {id_ for f in pairs for id_ in (f.image_id, f.other_id) if id_ in of}
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
        picture = cropped(picture, 0.05, rng)
    elif change == "brightness":
        factor = rng.uniform(0.6, 0.85) if rng.random() < 0.5 else rng.uniform(1.15, 1.5)
        picture = ImageEnhance.Brightness(picture).enhance(factor)
    else:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return jpeg(picture, quality)


def cropped(picture: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A picture less a share of each side."""
    width, height = picture.size
    across, down = round(width * share), round(height * share)
    x, y = int(rng.integers(0, across + 1)), int(rng.integers(0, down + 1))
    return picture.crop((x, y, x + width - across, y + height - down))


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """A JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def limits(images: Sequence[ImageRef], seed: int) -> dict[str, Any]:
    """How many copies are recognised after a larger crop or a slight rotation."""
    rng = np.random.default_rng(seed)
    files = [images[i].read() for i in rng.choice(len(images), TRIED, replace=False).tolist()]
    pictures = [decode(file)[0] for file in files]
    crops = {
        share: recognised(files, [jpeg(cropped(p, share, rng), 90) for p in pictures])
        for share in CROPS
    }
    rotations = {
        angle: recognised(files, [jpeg(p.rotate(angle, BICUBIC), 90) for p in pictures])
        for angle in ROTATIONS
    }
    return {
        "what": "limits",
        "seed": seed,
        "tried": TRIED,
        "recognised_by_crop": crops,
        "recognised_by_degrees": rotations,
    }


def recognised(files: Sequence[bytes], copies: Sequence[bytes]) -> int:
    """How many copies are near duplicates of the file that they were made of."""
    rows, mirrored = np.arange(len(files)), np.zeros(len(files), bool)
    a, b = (np.stack([grey_thumbnail(file, SIDE) for file in of]) for of in (files, copies))
    promising = fit_pairs(a, b, rows, rows, mirrored) >= PROMISING
    a, b = (np.stack([grey_thumbnail(file, VERIFY_SIDE) for file in of]) for of in (files, copies))
    return int((promising & (fit_closely(a, b) >= MIN_CORRELATION)).sum())


def labels(
    images: Sequence[ImageRef],
    concepts: dict[str, tuple[str, ...]],
    groups: dict[str, str],
    seed: int,
    gathering: AuditLoader,
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
    result = audit_images(images, AuditLabels(swapped, {}, groups, {}), gathering)
    proposed = [f.image_id for f in result.findings if f.kind == "label"]
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
