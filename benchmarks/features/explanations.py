"""Are explanations right? Do the parts add up, does what they point at matter, is it the lesion?

    python -m benchmarks.features.explanations phantoms    lesions as those of the index
    python -m benchmarks.features.explanations moved       elsewhere, weaker or stronger
    python -m benchmarks.features.explanations films --collection RADIOLOGY
    python -m benchmarks.features.explanations images --collection RADIOLOGY

`phantoms` and `moved` explain phantoms of another seed than those of the index. `films` pastes
lesions of phantoms into the normal chest films of a collection's training side; four fifths of its
groups are the index, where every other film has a lesion, and all others are explained. Of each
lesion whose concept was chosen:

- additivity: how far the sum of the parts is from the product of the vectors;
- deletion: by how much the contrast falls when the heatmap's highest tenth is covered, and when
  random ones are, and whether the heatmap is therefore drawn;
- on the lesion: whether the hottest cell touches it, and how often a random one would.

`images` explains images of a fifth of the groups of a training side by the others, and says which
share of heatmaps beats random places, by several rules, and which share of heatmaps does that were
made of another image.

A collection is a folder with images/, concepts.csv, split.csv and sources.csv with a column group.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.collection import Collection, read_collection
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.explain.background import blank_cells
from annotator.explain.cases import find_neighborhood
from annotator.explain.deletion import Deletion, highest_tenth
from annotator.explain.explain import explain
from annotator.explain.occlusion import cover
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.indexing.build import build_index
from annotator.phantoms import write_sample
from annotator.phantoms.cases import FINDINGS, NORMAL, STUDIES, Case, draw_cases
from annotator.phantoms.render import drawn_by, render
from annotator.pipeline import Annotator
from benchmarks.records import save
from index.progress import track

# What is added to the anatomy at one place; the others (a large heart) are the anatomy.
LESIONS = {
    *("effusion", "consolidation", "nodule", "pneumothorax", "pacemaker", "hemorrhage"),
    *("infarction", "tumor", "benign mass", "malignant mass", "cyst", "fracture"),
}
# What could be anywhere, unlike a fluid that sinks or a broken bone.
MOVABLE = LESIONS - {"effusion", "pneumothorax", "infarction", "fracture"}
PASTED = ("nodule", "consolidation", "pacemaker")
CONTRASTS = (0.6, 1.4)  # least and most, of a phantom's
FAR = 0.15  # of a side, how far a lesion is moved at most
_CLEARLY = 0.05  # of the range from black to white, as `drawn_by` has it

Mask = NDArray[np.bool_]
Picture = NDArray[np.floating[Any]]
Row = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """An image to explain.

    Attributes:
        ref: The image.
        lesions: Where each of its lesions is, bool[h, w], by name.
    """

    ref: ImageRef
    lesions: Mapping[str, Mask]


def main(arguments: list[str] | None = None) -> None:
    """Explain, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("of", choices=["phantoms", "moved", "films", "images"])
    parser.add_argument("--n", type=int, default=300, help="phantoms, or images")
    parser.add_argument("--every", type=int, default=1, help="explain every so many of them")
    parser.add_argument("--indexed", type=int, default=600, help="phantoms of the index")
    parser.add_argument("--seed", type=int, default=7, help="of the phantoms that are explained")
    parser.add_argument("--embedder", default=DEFAULT, help="for the index")
    parser.add_argument("--collection", type=Path, help="for films and images")
    options = parser.parse_args(arguments)
    if (options.of in ("films", "images")) != (options.collection is not None):
        parser.error("--collection is for films and images")
    with tempfile.TemporaryDirectory() as temporary:
        indexed, queries = _given(options, Path(temporary))
        build_index(indexed, Path(temporary) / "index", make_embedder(options.embedder))
        annotator = Annotator.open(Path(temporary) / "index", engine="torch")
        queries = queries[:: options.every]
        asked = track(queries, total=len(queries), label="Explaining")
        if options.of == "images":
            found = rules(annotator, [query.ref for query in asked])
        else:
            found = summary([row for query in asked for row in measure(annotator, query)])
    record = {"of": options.of, "encoder": annotator.embedder.name, "seed": options.seed}
    record |= {"indexed": len(indexed.images), "images": len(queries), **found}
    print(*(f"{name}: {value}" for name, value in record.items()), sep="\n")
    save("explanations", [record])


def _given(options: argparse.Namespace, folder: Path) -> tuple[Collection, list[Query]]:
    """The labelled images of the index, and the images that are explained."""
    if options.of in ("phantoms", "moved"):
        sample = write_sample(folder / "sample", n=options.indexed)
        indexed = read_collection(
            sample.images,
            sample.concepts,
            groups=str(sample.patients),
            split=str(sample.split),
            only="train",
        )
        cases = draw_cases(options.n, options.seed)
        make = moved if options.of == "moved" else as_drawn
        return indexed, [query for case in cases if (query := make(case)).lesions]
    place = options.collection
    train = read_collection(
        place / "images",
        place / "concepts.csv",
        groups=f"{place / 'sources.csv'}:group",
        split=str(place / "split.csv"),
        only="train",
    )
    out = {ref.id for ref in train.images if zlib.crc32(train.groups[ref.id].encode()) % 5 == 0}
    if options.of == "films":
        return films(train, out, options.seed)
    some = sorted(out, key=lambda id_: zlib.crc32(id_.encode()))[: options.n]
    by_id = {ref.id: ref for ref in train.images}
    kept = [ref for ref in train.images if ref.id not in out]
    return replace(train, images=kept), [Query(by_id[id_], {}) for id_ in some]


def as_drawn(case: Case) -> Query:
    """A phantom with its lesions."""
    lesions = {name: drawn_by(case, name) for name in case.findings if name in LESIONS}
    return Query(as_ref(case.id, render(case)), {n: m for n, m in lesions.items() if m.any()})


def moved(case: Case) -> Query:
    """A phantom whose lesion is elsewhere and has another contrast; without lesions if it has none.

    Of several movable ones the first; the other findings stay where they are.
    """
    movable = [name for name in case.findings if name in MOVABLE]
    if not movable:
        return Query(as_ref(case.id, render(case)), {})
    rng = np.random.default_rng([case.seed, case.index])
    without, layer = parts_of(case, movable[0])
    height, width = layer.shape
    down, right = rng.uniform(-FAR, FAR, 2) * (height, width)
    there = shifted(layer, round(down), round(right)) * rng.uniform(*CONTRASTS)
    return Query(
        as_ref(case.id, np.clip(without + there, 0, 1)), {movable[0]: np.abs(there) > _CLEARLY}
    )


def films(train: Collection, out: set[str], seed: int) -> tuple[Collection, list[Query]]:
    """Normal chest films with lesions of phantoms pasted into them.

    Args:
        train: Labelled images, of which the normal chest films are used.
        out: Ids of those that are explained.
        seed: Of the lesions.
    """
    normal = {*STUDIES["chest"].cuis, NORMAL}
    chosen = [ref for ref in train.images if normal <= set(train.concepts[ref.id])]
    concepts = {ref.id: train.concepts[ref.id] for ref in chosen}
    images, queries = [], []
    for count, ref in enumerate(chosen):
        if ref.id not in out and count % 2:
            images.append(ref)
            continue
        name = PASTED[count // 2 % len(PASTED)]
        query = pasted(ref, name, np.random.default_rng([seed, count]))
        rest = [cui for cui in concepts[ref.id] if cui != NORMAL]
        concepts[ref.id] = (*rest, *FINDINGS[name].cuis)
        if ref.id in out:
            queries.append(query)
        else:
            images.append(query.ref)
    return replace(train, images=images, concepts=concepts), queries


def pasted(ref: ImageRef, name: str, rng: np.random.Generator) -> Query:
    """A chest film with the lesion of a phantom, somewhere over the lungs."""
    (frame,) = decode(ref.read()).frames
    film = np.asarray(frame.convert("L"), np.float32) / 255
    seed = int(rng.integers(2**31))
    case = Case(seed, 0, 0, 0, "chest", "postero-anterior", "", (name,), "png")
    layer = np.asarray(
        Image.fromarray(parts_of(case, name)[1]).resize(frame.size, Image.Resampling.BILINEAR)
    )
    rows, columns = np.nonzero(np.abs(layer) > _CLEARLY)
    height, width = film.shape
    across = rng.uniform(0.22, 0.40)
    row, column = rng.uniform(0.2, 0.6), across if rng.random() < 0.5 else 1 - across
    down, right = row * height - rows.mean(), column * width - columns.mean()
    there = shifted(layer, round(down), round(right)) * rng.uniform(*CONTRASTS)
    return Query(as_ref(ref.id, np.clip(film + there, 0, 1)), {name: np.abs(there) > _CLEARLY})


def parts_of(case: Case, name: str) -> tuple[Picture, Picture]:
    """A phantom without a finding, and what the finding adds, float32[h, w] each."""
    without = render(replace(case, findings=tuple(f for f in case.findings if f != name)))
    return without, (render(case) - without).astype(np.float32)


def shifted(layer: Picture, down: int, right: int) -> Picture:
    """A layer moved by some pixels; what leaves the picture is lost."""
    height, width = layer.shape
    moved = np.zeros_like(layer)
    moved[max(down, 0) : height + down, max(right, 0) : width + right] = layer[
        max(-down, 0) : height - down, max(-right, 0) : width - right
    ]
    return moved


def as_ref(id_: str, picture: Picture) -> ImageRef:
    """A picture in [0, 1] as a PNG in memory."""
    file = io.BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(file, "PNG")
    return ImageRef(id_, f"{id_}.png", partial(bytes, file.getvalue()))


def measure(annotator: Annotator, query: Query) -> Iterator[Row]:
    """One row for each lesion."""
    concepts = {concept.cui: concept for concept in explain(annotator, query.ref).concepts}
    for name, lesion in query.lesions.items():
        chosen = [concepts[cui] for cui in FINDINGS[name].cuis if cui in concepts]
        maps = [c for c in chosen if c.contrast is not None and c.deletion is not None]
        if not lesion.any() or not maps:
            yield {"lesion": name, "found": False}
        for concept in maps if lesion.any() else ():
            assert concept.contrast is not None and concept.deletion is not None
            grid = concept.contrast.grid
            touched = cells(lesion, grid.shape)
            yield {
                "lesion": name,
                "found": True,
                "error": abs(concept.contrast.rest),
                "contrast": concept.contrast.total,
                "fall": concept.deletion.highest,
                "fall of random ones": concept.deletion.mean,
                "drawn": concept.heatmap is not None,
                "on the lesion": bool(touched.flat[np.argmax(grid)]),
                "chance": float(touched[grid != 0].mean()),
            }


def cells(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """bool[shape]: which cells of a grid on a picture hold a pixel of a mask on it."""
    rows, columns = (
        np.arange(count) * size // count for count, size in zip(shape, mask.shape, strict=True)
    )
    counts = np.add.reduceat(np.add.reduceat(mask.astype(int), rows, axis=0), columns, axis=1)
    return counts > 0


def summary(rows: Sequence[Row]) -> Row:
    """Means over the lesions that were found, over those with a heatmap, and by lesion."""
    found = [row for row in rows if row["found"]]
    drawn = [row for row in found if row["drawn"]]
    by: dict[str, list[Row]] = {}
    for row in sorted(found, key=lambda row: row["lesion"]):
        by.setdefault(row["lesion"], []).append(row)
    means = ("contrast", "fall", "fall of random ones", "on the lesion", "chance")
    return {
        "not found": len(rows) - len(found),
        "concepts": len(found),
        "largest error": max(row["error"] for row in found),
        **{key: _mean(key, found) for key in means},
        "drawn": len(drawn),
        "drawn, on the lesion": _mean("on the lesion", drawn),
        "by lesion": {
            name: {
                "concepts": len(some),
                "on the lesion": sum(row["on the lesion"] for row in some),
                "drawn": sum(row["drawn"] for row in some),
                "drawn, on the lesion": sum(row["on the lesion"] and row["drawn"] for row in some),
            }
            for name, some in by.items()
        },
    }


def _mean(key: str, rows: Sequence[Row]) -> float | None:
    return round(float(np.mean([row[key] for row in rows])), 4) if rows else None


def rules(annotator: Annotator, refs: Sequence[ImageRef]) -> Row:
    """How many heatmaps beat random places, of an image's own and of those of the image before."""
    own: list[Deletion] = []
    others: list[Deletion] = []
    before: list[NDArray[np.float64]] = []
    for ref in refs:
        (frame,) = decode(ref.read(), at_least=annotator.embedder.image_size).frames
        (whole,) = annotator.embedder.embed(annotator.embedder.prepare([frame]))
        near = find_neighborhood(annotator, ref.id, whole)
        maps = []
        for i, concept in enumerate(explain(annotator, ref).concepts):
            if concept.contrast is None or concept.deletion is None:
                continue
            map_ = concept.contrast
            maps.append(map_.grid)
            own.append(concept.deletion)
            if before:
                other = Image.fromarray(before[i % len(before)].astype(np.float32))
                grid = np.asarray(other.resize(map_.grid.shape[::-1])).astype(np.float64)
                mask = highest_tenth(grid, blank_cells(frame, map_.grid.shape))
                pixels = annotator.embedder.prepare([cover(frame, mask)])
                (vector,) = annotator.project(annotator.embedder.embed(pixels))
                fall = map_.total - float(near.contrast(concept.cui).vector @ vector)
                others.append(replace(concept.deletion, highest=fall))
        before = maps or before
    passed: dict[str, Callable[[Deletion], bool]] = {
        "mean": lambda d: d.highest > d.mean,
        "upper quartile": lambda d: d.tells,
        "all": lambda d: d.highest > float(d.random.max()),
    }
    return {
        "concepts": len(own),
        "fall": round(float(np.mean([d.highest for d in own])), 4),
        "fall of random ones": round(float(np.mean([d.mean for d in own])), 4),
        **{
            rule: {
                "own": round(float(np.mean([passes(d) for d in own])), 3),
                "of another image": round(float(np.mean([passes(d) for d in others])), 3),
            }
            for rule, passes in passed.items()
        },
    }


if __name__ == "__main__":
    main()
