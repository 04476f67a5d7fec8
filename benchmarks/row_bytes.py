"""What an indexed image costs in bytes: on disk, in the memory of a search, and of a build.

    python benchmarks/row_bytes.py                                   texts of the phantoms
    python benchmarks/row_bytes.py CONCEPTS --captions CAPTIONS      texts of your collection

Vectors are made up (index_latency_parts/synthetic.py); ids have the collection's mean length, and
concepts and captions are its own, over and over. Each kind of index is built at two sizes and
opened in processes of its own, which answer some queries; what is reported is the growth from one
size to the other by row, so that what a process needs anyway does not count.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from common import save
from index_latency_parts.process import memory_now
from index_latency_parts.synthetic import Synthetic

from annotator.tables.formats import read_captions, read_concepts
from index import VersionWriter, open_index
from index.search.build import ANN
from index.segments import CONTENT

KINDS = {512: ("flat", "ivf", "compressed"), 1280: ("ivf", "compressed")}
_QUERIES = 64
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)


def main(arguments: list[str] | None = None) -> None:
    """Parse, measure, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("concepts", type=Path, nargs="?", help="ID,CUIs")
    parser.add_argument("--captions", type=Path, help="ID,Caption")
    parser.add_argument("--sizes", type=int, nargs=2, default=(20_000, 80_000), metavar="N")
    parser.add_argument("--dim", type=int, nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--only", nargs="+", choices=KINDS[512], default=KINDS[512])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        what, folder = options.child
        print(json.dumps({"open": opened, "collection": collected}[what](Path(folder))))
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        texts = texts_of(options, Path(folder))
        source = {"texts": options.concepts.name if options.concepts else "sample"}
        found = measure(texts, options, Path(folder))
        records = [source | about(texts) | record for record in found]
    print(f"raw figures: {save('row_bytes', records)}")


Texts = list[tuple[str, tuple[str, ...], str]]  # id, CUIs, caption


def texts_of(options: argparse.Namespace, folder: Path) -> Texts:
    """Those of the collection; without one, of the phantoms."""
    concepts, captions = options.concepts, options.captions
    if concepts is None:
        from annotator.phantoms import write_sample

        paths = write_sample(folder / "sample")
        concepts, captions = paths.concepts, paths.captions
    said = read_captions(captions) if captions else {}
    return [(id_, tuple(cuis), said.get(id_, "")) for id_, cuis in read_concepts(concepts).items()]


def about(texts: Texts) -> dict[str, Any]:
    """Of what lengths the texts are."""
    return {
        "images": len(texts),
        "id_bytes": round(fmean(len(id_.encode()) for id_, _, _ in texts), 1),
        "concepts_per_image": round(fmean(len(cuis) for _, cuis, _ in texts), 2),
        "caption_bytes": round(fmean(len(caption.encode()) for _, _, caption in texts), 1),
    }


def measure(texts: Texts, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Bytes a row of each kind and length, and of a collection that was read but not embedded."""
    records = []
    for dim in options.dim:
        for kind in filter(options.only.__contains__, KINDS[dim]):
            sizes = []
            for n in options.sizes:
                index = folder / f"{kind}-{dim}-{n}"
                build(index, kind, n, dim, texts)
                sizes.append(files_of(index) | child("open", index))
            records.append({"kind": kind, "dim": dim, **growth(sizes, options.sizes)})
            print(kind, dim, records[-1]["bytes_per_row"], flush=True)
    sizes = []
    few = [n // 4 for n in options.sizes]  # files take longer to make than rows
    for n in few:
        write_collection(folder / f"collection-{n}", n, texts)
        sizes.append(child("collection", folder / f"collection-{n}"))
    records.append({"kind": "collection", "dim": None, **growth(sizes, few)})
    print("collection", records[-1]["bytes_per_row"], flush=True)
    return records


def growth(sizes: list[dict[str, int]], rows: list[int]) -> dict[str, Any]:
    """Bytes a row, from the smaller size to the larger."""
    small, large = sizes
    per_row = {k: round((large[k] - small[k]) / (rows[1] - rows[0]), 1) for k in small}
    return {"rows": list(rows), "bytes": sizes, "bytes_per_row": per_row}


def build(index: Path, kind: str, n: int, dim: int, texts: Texts) -> None:
    """An index of n rows."""
    width = round(fmean(len(id_) for id_, _, _ in texts))
    rows = [texts[i % len(texts)] for i in range(n)]
    with VersionWriter(index) as writer:
        for vectors, _ in Synthetic(dim, n).chunks(n):
            writer.add(vectors)
        writer.publish(
            [f"{i:0{width}d}" for i in range(n)],
            [cuis for _, cuis, _ in rows],
            names={},
            columns={"captions": [caption for _, _, caption in rows]},
            about={},
            arrays={CONTENT: np.zeros((n, 32), np.uint8)},
            index_type=kind,  # type: ignore[arg-type]
        )


def files_of(index: Path) -> dict[str, int]:
    """Bytes on disk: of the vectors, of what searches them, and of the rest."""
    files = open_index(index).manifest.files
    parts = {"vectors": 0, "structure": 0, "texts": 0}
    for name, entry in files.items():
        part = "structure" if name == ANN else "texts"
        parts["vectors" if name == "vectors.npy" else part] += entry.bytes
    return parts


def write_collection(folder: Path, n: int, texts: Texts) -> None:
    """A folder of n images of one pixel, and their concepts and captions."""
    (folder / "images").mkdir(parents=True)
    names = [f"{texts[i % len(texts)][0]}-{i}" for i in range(n)]
    for name in names:
        (folder / "images" / f"{name}.png").write_bytes(_PIXEL)
    for file, header, place in (("concepts", "CUIs", 1), ("captions", "Caption", 2)):
        with (folder / f"{file}.csv").open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(("ID", header))
            for i, name in enumerate(names):
                value = texts[i % len(texts)][place]
                writer.writerow((name, value if isinstance(value, str) else ";".join(value)))


def child(what: str, folder: Path) -> dict[str, int]:
    """What a process of its own found."""
    command = [sys.executable, __file__, "--child", what, str(folder)]
    found: dict[str, int] = json.loads(subprocess.check_output(command, text=True))
    return found


def opened(index: Path) -> dict[str, int]:
    """Memory that an open index has taken for itself, after some queries."""
    from index.search.base import import_faiss

    import_faiss()
    dim = json.loads((index / "v000001" / "manifest.json").read_text())["dim"]
    queries = next(Synthetic(dim, 1000).chunks(_QUERIES, stream=1))[0]
    kept = []
    return grown(lambda: kept.append((stored := open_index(index), stored.find(queries, 50))))


def collected(folder: Path) -> dict[str, int]:
    """Memory that a collection takes which was read to be embedded."""
    from annotator.collection import read_collection

    read = partial(
        read_collection,
        folder / "images",
        folder / "concepts.csv",
        captions=folder / "captions.csv",
    )
    kept = []
    return grown(lambda: kept.append(read()))


def grown(work: Callable[[], object]) -> dict[str, int]:
    """Memory of its own that the process has more of afterwards."""
    before = memory_now()["RssAnon"]
    work()
    return {"memory": memory_now()["RssAnon"] - before}


if __name__ == "__main__":
    main()
