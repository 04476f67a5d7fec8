"""What the capacity plan is calculated from: figures of results/, and what has to be assumed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from index.milvus.kinds import build_params

Record = Mapping[str, Any]


class Missing(Exception):
    """A result that the plan needs is not there; says which, and what measures it."""


@dataclass(frozen=True)
class Figure:
    """One number of the plan.

    Attributes:
        key: M and a number if it was measured, A and a number if it is assumed.
        what: It is, with its unit.
        value: None where nothing has measured it yet.
        source: File and machine, or why it is assumed to be so.
        shown: The value as text where digits alone would say little.
    """

    key: str
    what: str
    value: float | None
    source: str
    shown: str = ""


@dataclass(frozen=True)
class Assumptions:
    """What nobody has measured here, to be set on the command line.

    Attributes:
        gpu_images_per_s: That one GPU encodes.
        gpu_cores: That feed one GPU.
        image_kb: Size of an image file.
        node_gib: Memory of a node that an index may take.
        node_cores: Cores of a node.
        queries_per_s: That are to be answered.
    """

    gpu_images_per_s: float = 8115.0
    gpu_cores: int = 16
    image_kb: float = 100.0
    node_gib: float = 64.0
    node_cores: int = 8
    queries_per_s: float = 100.0


class _Entry(NamedTuple):
    name: str  # in formulas
    what: str
    value: float | None
    source: str
    shown: str = ""


def load_figures(results: Path, assumed: Assumptions) -> dict[str, Figure]:
    """All figures by the name that formulas use, measured ones first.

    Raises:
        Missing: A file or a record is not there.
    """
    measured = [
        *_encoding(results),
        *_searching(results),
        *_row_bytes(results),
        *_milvus(results),
    ]
    return {**_numbered("M", measured), **_numbered("A", _assumed(assumed, results))}


def _numbered(letter: str, entries: Iterable[_Entry]) -> dict[str, Figure]:
    return {
        entry.name: Figure(f"{letter}{number}", *entry[1:])
        for number, entry in enumerate(entries, 1)
    }


def _encoding(results: Path) -> Iterator[_Entry]:
    speed = _last(results, "throughput", lambda r: r["embedder"] == "efficientnet-lite0")
    rates = {name: median(values) for name, values in speed["images_per_second"].items() if values}
    cores, dim = speed["machine"]["cores"], speed["fingerprint"]["dim"]
    where = f"{_where('throughput', speed)}, {speed['fingerprint']['precision']}"
    whole, bare = cores / rates["annotate_warm"], cores / rates["bare"]
    yield _Entry("core", "images/s a core: read, decode, encode, vote", 1 / whole, where)
    yield _Entry("feed", "images/s a core: all of that but encoding", 1 / (whole - bare), where)
    yield _Entry("encoder", "numbers in the encoder's vector", dim, where)
    tuning = _last(results, "tuning", lambda r: r["dim"] == dim)
    each = (tuning["fit_s"] + tuning["neighbour_lists_s"]) / tuning["n"]
    where = f"{_where('tuning', tuning)}, {tuning['n']:,} rows"
    yield _Entry("fit", "s an image on 2 cores: fit, neighbour lists", each, where)


def _searching(results: Path) -> Iterator[_Entry]:
    scan = _last(results, "index_latency-scan", lambda r: (r["system"], r["dim"]) == ("scan", 512))
    large = _last(results, "index_latency-1m", _default("ivf"))
    small = _last(results, "index_latency-peers", _default("ivf"))
    tight = _last(results, "index_latency-peers", _default("compressed"))
    for name, what, file, record in (
        ("scan", "`scan`", "index_latency-scan", scan),
        ("ivf", "`ivf`", "index_latency-1m", large),
        ("compressed", "`compressed`", "index_latency-peers", tight),
    ):
        where = f"{_where(file, record)}, recall {record['recall']:.3f}"
        rate = record["queries_per_second"]["1"] / record["threads"]
        yield _Entry(name, f"queries/s a core, lone, {what}", rate, where)
        yield _Entry(f"{name}_n", "… at rows", record["n"], where)
    rates = [r["queries_per_second"]["1"] for r in (small, large)]
    falls = math.log(rates[0] / rates[1]) / math.log(large["n"] / small["n"])
    yield _Entry(
        "falls",
        "power of the rows by which `ivf` slows down",
        falls,
        f"log({rates[0]:,.0f} / {rates[1]:,.0f}) / log({large['n']:,} / {small['n']:,}); "
        "index_latency-peers.jsonl, index_latency-1m.jsonl",
    )
    for name, file, record in (
        ("ivf", "index_latency-1m", large),
        ("compressed", "index_latency-peers", tight),
    ):
        each, where = (
            record["build_s"] / record["n"],
            f"{_where(file, record)}, {record['n']:,} rows",
        )
        yield _Entry(f"{name}_build", f"s a row on 2 cores: build `{name}`", each, where)


def _row_bytes(results: Path) -> Iterator[_Entry]:
    flat = _last(results, "row_bytes", _of("flat", 512))
    where = _where("row_bytes", flat)
    texts, file = flat["bytes_per_row"]["memory"], flat["bytes_per_row"]["texts"]
    said = (
        f"{where}; ids of {flat['id_bytes']:.0f} bytes, {flat['concepts_per_image']:.1f} concepts, "
        f"captions of {flat['caption_bytes']:.0f} bytes"
    )
    yield _Entry("texts", "bytes a row in memory: id, concepts, caption", texts, said)
    yield _Entry("texts_file", "bytes a row on disk: the same, sha256 of the image", file, said)
    for kind in ("ivf", "compressed"):
        for dim in (512, 1280):
            found = _last(results, "row_bytes", _of(kind, dim))["bytes_per_row"]
            what = f"bytes a row in memory: `{kind}`, {dim:,} numbers"
            yield _Entry(f"{kind}_{dim}", what, found["memory"] - texts, where)
    structure = _last(results, "row_bytes", _of("ivf", 512))["bytes_per_row"]["structure"]
    yield _Entry("ivf_file", "bytes a row on disk: `ivf`, 512 numbers", structure, where)
    found = _last(results, "row_bytes", _of("collection", None))["bytes_per_row"]
    what = "bytes an image in memory of `build-index`: path, texts"
    yield _Entry("collection", what, found["memory"], where)


def _milvus(results: Path) -> Iterator[_Entry]:
    """Of its newest record of a graph; of each key that it lacks, that nobody has measured it."""
    try:
        record = _last(results, "milvus", lambda r: (r.get("kind"), r.get("dim")) == ("hnsw", 512))
        where = f"{_where('milvus', record)}, {record['n']:,} rows"
    except Missing:
        record, where = {}, "no milvus.jsonl with a graph over 512 numbers"
    rates = record.get("queries_per_second", {})
    for name, what, value in (
        ("hnsw", "queries/s a query node, `hnsw`", rates.get("1")),
        ("sent", "rows/s that one client sends to one data node", record.get("rows_per_second")),
    ):
        yield _Entry(name, what, value, where)


def _assumed(assumed: Assumptions, results: Path) -> Iterator[_Entry]:
    links = build_params("hnsw", 1)["params"]["M"]
    gpu = (
        "timm's figure for tf_efficientnet_lite0, RTX 3090, AMP "
        "(huggingface/pytorch-image-models, results/benchmark-infer-amp-nhwc-pt112-cu113-"
        "rtx3090.csv); an H100 gave 9,350 here, once"
    )
    if assumed.gpu_images_per_s != Assumptions.gpu_images_per_s:
        gpu = "given on the command line"
    yield _Entry("gpu", "images/s a GPU encodes", assumed.gpu_images_per_s, gpu)
    yield _Entry("gpu_cores", "cores beside a GPU", assumed.gpu_cores, "as servers often have")
    image, node = assumed.image_kb, assumed.node_gib
    yield _Entry("image", "an image file", 1000 * image, "a JPEG of 1,000 px", f"{image:g} kB")
    yield _Entry("node", "memory of a node", 2**30 * node, "all for the index", f"{node:g} GiB")
    yield _Entry("node_cores", "cores of a node", assumed.node_cores, "each as fast as one alone")
    yield _Entry("wanted", "queries/s that are wanted", assumed.queries_per_s, "a choice")
    yield _Entry(
        "links", "bytes a row of a graph in Milvus", 8.0 * links, f"2 × {links} links of 4 bytes"
    )
    flat = _last(results, "row_bytes", _of("flat", 512))
    fields = flat["id_bytes"] + 8 + 8 * flat["concepts_per_image"] + flat["caption_bytes"] + 2 * 64
    yield _Entry(
        "fields",
        "bytes a row of other fields in Milvus",
        fields,
        "id, number, CUIs, caption, two sha256 in hex; Milvus' overhead is not known",
    )


def _of(kind: str, dim: int | None) -> Callable[[Record], bool]:
    return lambda record: (record["kind"], record["dim"]) == (kind, dim)


def _default(system: str) -> Callable[[Record], bool]:
    """The product's default effort, alone on one core."""
    return lambda r: (r["system"], r["dim"], r["threads"], r["default"]) == (system, 512, 1, True)


def _last(results: Path, name: str, wanted: Callable[[Record], bool]) -> Record:
    """The newest record of results/NAME.jsonl that is wanted."""
    path = results / f"{name}.jsonl"
    script = name.partition("-")[0]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise Missing(f"{path} is not there: run benchmarks/{script}.py.") from error
    found: list[Record] = [record for record in map(json.loads, lines) if wanted(record)]
    if not found:
        raise Missing(f"{path} lacks a record that the plan needs: run benchmarks/{script}.py.")
    return found[-1]


def _where(name: str, record: Record) -> str:
    machine = record["machine"]
    return f"{name}.jsonl, {machine['cpu']}, {machine['cores']} cores"
