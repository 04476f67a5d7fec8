"""What the product costs beside bare pymilvus, on one Milvus server, as ratios in one run.

    python benchmarks/milvus.py milvus://HOST:19530                 100,000 rows of 512 numbers
    python benchmarks/milvus.py milvus://HOST:19530 --only hnsw

The product builds an index of made-up rows (index_latency_parts/synthetic.py), and the same
entities are sent with pymilvus alone into a collection of the same fields and the same kind of
index: messages of as many rows, one after the other, then flush, index and load. What a build adds
on top is told apart: making the entities with their checksums, and tuning.

Then both are asked the same queries in turns, one by one and 256 at once. Bare pymilvus asks for
the ids and CUIs of the neighbours, which annotation needs; and, as a second measure, for ids and
similarities alone. The product's answer includes what it checks, orders and completes, and the
concepts as a table; the vote over it is told apart. Both collections are removed at the end.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from index_latency_parts.data import QUERIES, Dataset, prepare
from index_latency_parts.truth import recall, similarities
from numpy.typing import NDArray
from pymilvus import MilvusClient

from annotator.knn.decision import choose_concepts
from annotator.knn.posterior import weigh
from annotator.knn.voting import Voting
from index.milvus.index import MilvusIndex
from index.milvus.kinds import build_params, search_params
from index.milvus.location import MilvusLocation
from index.milvus.rows import SUMMARY, create_rows, entities, messages
from index.progress import reported_by
from index.segments import Segment

Floats = NDArray[np.float32]
BATCHES = (1, 256)
NAME = "annotator_benchmark"


def main(arguments: list[str] | None = None) -> None:
    """Parse, measure, print."""
    options = _parse(arguments)
    data = prepare(options.work, options.n, options.dim, 0, None)
    labels, _ = data.label_table(np.arange(data.n)[:, None])
    ids = [f"image_{i:09d}" for i in range(data.n)]
    rows = Segment(data.vectors, ids, labels, {}, {}, {})
    records = []
    for kind in options.only:
        record = {"kind": kind, "n": data.n, "dim": data.dim, "k": options.k}
        record |= measure(kind, data, rows, options)
        records.append(record)
        show(record)
    print(f"raw figures: {save('milvus', records)}")


def measure(kind: str, data: Dataset, rows: Segment, options: argparse.Namespace) -> dict[str, Any]:
    """Build both, ask both, remove both."""
    place = MilvusLocation.at(f"{options.server.rstrip('/')}/{NAME}_{kind}")
    client = MilvusClient(uri=place.address.uri, token=place.address.token)
    bare = f"{place.address.name}_bare"
    remove(client, place.address.name)
    try:
        built = build(place, kind, rows)
        alone = build_bare(client, bare, kind, rows)
        index = place.open()
        assert isinstance(index, MilvusIndex)
        asked = ask(index, client, bare, data, options)
        version = client.get_server_version()
    finally:
        remove(client, place.address.name)
    return {
        "server": version,
        "index": build_params(kind, data.n),
        "search": index.manifest.search,
        "rows_per_second": built["rows_per_second"],
        "build": built,
        "build_bare": alone,
        **asked,
    }


def build(place: MilvusLocation, kind: str, rows: Segment) -> dict[str, float]:
    """Seconds of the product's build, by what it says that it does."""
    spent: dict[str, float] = {}

    def track(items: Iterable[Any], *, total: int, label: str) -> Iterator[Any]:
        started = time.perf_counter()
        yield from items
        spent[label] = time.perf_counter() - started

    started = time.perf_counter()
    with reported_by(track), place.writer() as writer:
        writer.add(rows.vectors)
        writer.publish(
            rows.ids,
            rows.labels,
            names={},
            columns={},
            about={},
            index_type=kind,
        )
    whole = time.perf_counter() - started
    return {
        "build_s": whole,
        "sending_s": spent["Sending"],
        "indexing_s": spent["Indexing"],
        "rows_per_second": len(rows) / spent["Sending"],
    }


def build_bare(client: Any, name: str, kind: str, rows: Segment) -> dict[str, float]:
    """Seconds of the same with pymilvus alone; entities are made while no clock runs."""
    create_rows(client, 60, name, rows, "")
    sending = making = 0.0
    for places in messages(rows):
        clock = [time.perf_counter()]
        sent = entities(rows, 0, places)
        clock.append(time.perf_counter())
        client.insert(name, sent)
        clock.append(time.perf_counter())
        making, sending = making + clock[1] - clock[0], sending + clock[2] - clock[1]
    started = time.perf_counter()
    client.flush(name)
    flushed = time.perf_counter()
    wanted = client.prepare_index_params()
    wanted.add_index("vector", **build_params(kind, len(rows)))
    client.create_index(name, wanted)  # returns when it is made
    indexed = time.perf_counter()
    client.load_collection(name)
    loaded = time.perf_counter()
    return {
        "build_s": sending + loaded - started,
        "sending_s": sending,
        "making_entities_s": making,
        "flush_s": flushed - started,
        "indexing_s": indexed - flushed,
        "loading_s": loaded - indexed,
        "rows_per_second": len(rows) / sending,
    }


def ask(
    index: MilvusIndex, client: Any, bare: str, data: Dataset, options: argparse.Namespace
) -> dict[str, Any]:
    """Seconds of each call, of all ways to ask in turns; recall of the product's answers."""
    k, voting = options.k, Voting(k=options.k)

    def pymilvus(fields: list[str]) -> Callable[[Floats], Any]:
        params = search_params(index.entries["search"]["params"], k)
        return lambda queries: client.search(
            bare, data=list(queries), limit=k, output_fields=fields, search_params=params,
            consistency_level="Bounded",
        )  # fmt: skip

    ways: dict[str, Callable[[Floats], Any]] = {
        "bare_ids": pymilvus([]),
        "bare": pymilvus([SUMMARY]),
        "product": lambda queries: index.find(queries, k),
    }
    seconds: dict[int, dict[str, list[float]]] = {}
    for size in BATCHES:
        taken: dict[str, list[float]] = {name: [] for name in (*ways, "decide")}
        calls = options.lone if size == 1 else options.calls
        for call in range(-3, calls):  # the first ones are to warm up
            queries = batch(data.queries[:QUERIES], call, size)
            for name, way in ways.items():
                started = time.perf_counter()
                found = way(queries)
                if call >= 0:
                    taken[name].append(time.perf_counter() - started)
            started = time.perf_counter()
            choose_concepts(weigh(found.neighbors, found.cases.labels, voting), voting)
            if call >= 0:
                taken["decide"].append(time.perf_counter() - started)
        seconds[size] = taken
    rates = {
        name: {str(size): size / statistics.median(seconds[size][name]) for size in BATCHES}
        for name in (*ways, "decide")
    }
    return {
        "queries_per_second": rates.pop("product"),
        "others_per_second": rates,
        "ratio": {
            str(size): _ratio(seconds[size]["product"], seconds[size]["bare"]) for size in BATCHES
        },
        "ratio_to_ids": {
            str(size): _ratio(seconds[size]["product"], seconds[size]["bare_ids"])
            for size in BATCHES
        },
        "lone_ms": {
            name: {f"p{p}": 1000 * float(np.percentile(seconds[1][name], p)) for p in (50, 95, 99)}
            for name in (*ways, "decide")
        },
        "recall": _recall(index, data, k),
        "lone_us": {n: np.round(1e6 * np.array(s)).tolist() for n, s in seconds[1].items()},
        "batch_us": {n: np.round(1e6 * np.array(s)).tolist() for n, s in seconds[256].items()},
    }


def batch(queries: Floats, call: int, size: int) -> Floats:
    """`size` of the queries, others with each call."""
    return queries[np.arange(call * size, (call + 1) * size) % len(queries)]


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of what a call takes, over that of the call right before it."""
    return float(np.median(np.array(ours) / np.array(theirs)))


def _recall(index: MilvusIndex, data: Dataset, k: int) -> float:
    """By distance, of all queries."""
    queries = data.queries[:QUERIES]
    found = index.find(queries, k)
    number = np.array([int(id_.removeprefix("image_")) for id_ in found.cases.ids])
    rows = number[found.neighbors.rows]
    rows[~np.isfinite(found.neighbors.similarities)] = -1
    return recall(rows, similarities(data.vectors, queries, rows), data.exact[:QUERIES, :k])


def remove(client: Any, name: str) -> None:
    """Whatever a run left there, this one or one before."""
    for alias in client.list_aliases().get("aliases", []):
        if alias == name:
            client.drop_alias(alias)
    for collection in client.list_collections():
        if collection.startswith(name):
            client.drop_collection(collection)


def show(record: dict[str, Any]) -> None:
    """The figures in a few lines."""
    built, alone, lone = record["build"], record["build_bare"], record["lone_ms"]
    print(f"{record['kind']}, {record['n']:,} x {record['dim']}, Milvus {record['server']}")
    print(
        f"  rows/s sent {built['rows_per_second']:,.0f} (bare {alone['rows_per_second']:,.0f}; "
        f"making them {alone['making_entities_s']:.1f} s); "
        f"build {built['build_s']:.0f} s (bare {alone['build_s']:.0f} s)"
    )
    for name in ("product", "bare", "bare_ids", "decide"):
        print(f"  lone {name:13s} p50 {lone[name]['p50']:7.2f} ms  p95 {lone[name]['p95']:7.2f} ms")
    print(
        f"  256 at once: {record['queries_per_second']['256']:,.0f} queries/s, bare "
        f"{record['others_per_second']['bare']['256']:,.0f}, ids alone "
        f"{record['others_per_second']['bare_ids']['256']:,.0f}"
    )
    print(
        f"  product / bare: lone {record['ratio']['1']:.2f}, 256 at once "
        f"{record['ratio']['256']:.2f}; recall {record['recall']:.4f}"
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    work = Path.home() / ".cache" / "annotator-index-latency"
    add("server", help="its address, milvus://HOST:PORT")
    add("--n", type=int, default=100_000, help="rows")
    add("--dim", type=int, default=512, help="numbers of a vector")
    add("--k", type=int, default=50, help="neighbours")
    add("--only", default="flat,hnsw", help="kinds of index")
    add("--lone", type=int, default=1000, help="lone queries")
    add("--calls", type=int, default=20, help="calls with 256 queries")
    add("--work", type=Path, default=work, help=f"folder for the vectors (default: {work})")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    options.work.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
