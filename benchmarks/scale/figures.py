"""What the capacity plan is calculated from: figures of results/, and what has to be assumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from annotator.knn.model import PENALTIES
from benchmarks.records import Record, load

_LINKS = 32  # of a row in the graph that Milvus is asked to build


class Missing(Exception):
    """A result that the plan needs is not there; says which."""


@dataclass(frozen=True)
class Figure:
    """One number of the plan.

    Attributes:
        key: M and a number if it was measured, A and a number if it is assumed.
        what: It is, with its unit.
        value: By itself.
        source: File and machine, or why it is assumed to be so.
        shown: The value as text where digits alone would say little.
    """

    key: str
    what: str
    value: float
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
    value: float
    source: str
    shown: str = ""


def load_figures(results: Path, assumed: Assumptions) -> dict[str, Figure]:
    """All figures by the name that formulas use, measured ones first.

    Raises:
        Missing: A file or a record is not there.
    """
    measured = [*_encoding(results), *_searching(results), *_row_bytes(results), *_milvus(results)]
    return {**_numbered("M", measured), **_numbered("A", _assumed(assumed, results))}


def _numbered(letter: str, entries: Iterable[_Entry]) -> dict[str, Figure]:
    return {
        entry.name: Figure(f"{letter}{number}", *entry[1:])
        for number, entry in enumerate(entries, 1)
    }


def _encoding(results: Path) -> Iterator[_Entry]:
    speed = _last(results, "throughput", lambda r: r["embedder"] == "efficientnet-lite0")
    rates = {name: median(values) for name, values in speed["images_per_cpu_second"].items()}
    dim = speed["fingerprint"]["dim"]
    where = f"{_where('throughput', speed)}, {speed['fingerprint']['precision']}"
    whole, bare = 1 / rates["annotate_warm"], 1 / rates["bare"]
    yield _Entry("core", "images a CPU second: read, decode, encode, vote", 1 / whole, where)
    yield _Entry("feed", "images a CPU second: all of that but encoding", 1 / (whole - bare), where)
    yield _Entry("encoder", "numbers in the encoder's vector", dim, where)
    tuning = _last(results, "tuning", lambda r: r["dim"] == dim)
    lists = len(PENALTIES)  # a build makes them for each penalty that it compares
    each = (tuning["fit_cpu_s"] + tuning["compare_lists_cpu_s"]) / tuning["n"]
    where = f"{_where('tuning', tuning)}, {tuning['n']:,} rows"
    yield _Entry("fit", f"CPU s an image: fit, {lists} × neighbour lists", each, where)


def _searching(results: Path) -> Iterator[_Entry]:
    def default(name: str, system: str) -> Record:
        """The product's default effort, alone on one core."""
        wanted = (system, 512, 1, True)
        keys = ("system", "dim", "threads", "default")
        return _last(results, name, lambda r: tuple(r[key] for key in keys) == wanted)

    scan = _last(results, "index_latency-scan", lambda r: (r["system"], r["dim"]) == ("scan", 512))
    large, small = (default(f"index_latency-{name}", "ivf") for name in ("1m", "peers"))
    tight = default("index_latency-peers", "compressed")
    kinds = {
        "scan": ("index_latency-scan", scan),
        "ivf": ("index_latency-1m", large),
        "compressed": ("index_latency-peers", tight),
    }
    for name, (file, record) in kinds.items():
        where = f"{_where(file, record)}, recall {record['recall']:.3f}"
        rate = record["queries_per_second"]["1"] / record["threads"]
        yield _Entry(name, f"queries/s a core, lone, `{name}`", rate, where)
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
    for name in ("ivf", "compressed"):
        file, record = kinds[name]
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
    record = _last(results, "milvus", _of("hnsw", 512))
    where = f"{_where('milvus', record)}, {record['n']:,} rows"
    rate, sent = record["queries_per_second"]["1"], record["rows_per_second"]
    yield _Entry("hnsw", "queries/s a query node, `hnsw`", rate, where)
    yield _Entry("sent", "rows/s that one client sends to one data node", sent, where)


def _assumed(assumed: Assumptions, results: Path) -> Iterator[_Entry]:
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
    links = f"2 × {_LINKS} links of 4 bytes"
    yield _Entry("links", "bytes a row of a graph in Milvus", 8.0 * _LINKS, links)
    flat = _last(results, "row_bytes", _of("flat", 512))
    fields = flat["id_bytes"] + 8 + 8 * flat["concepts_per_image"] + flat["caption_bytes"] + 2 * 64
    about = "id, number, CUIs, caption, two sha256 in hex; Milvus' overhead is not known"
    yield _Entry("fields", "bytes a row of other fields in Milvus", fields, about)


def _of(kind: str, dim: int | None) -> Callable[[Record], bool]:
    return lambda record: (record["kind"], record["dim"]) == (kind, dim)


def _last(results: Path, name: str, wanted: Callable[[Record], bool]) -> Record:
    """The newest record of NAME.jsonl that is wanted."""
    try:
        found = [record for record in load(name, results) if wanted(record)]
    except FileNotFoundError as error:
        raise Missing(f"{results / name}.jsonl is not there.") from error
    if not found:
        raise Missing(f"{results / name}.jsonl lacks a record that the plan needs.")
    return found[-1]


def _where(name: str, record: Record) -> str:
    machine = record["machine"]
    return f"{name}.jsonl, {machine['cpu']}, {machine['cores']} cores"
