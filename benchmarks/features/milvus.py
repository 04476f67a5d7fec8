"""What the product costs beside bare pymilvus, on one Milvus server, as ratios in one run.

    python -m benchmarks.features.milvus milvus://HOST:19530        100,000 rows of 512 numbers

The product builds an index of made-up rows, and the same ids, vectors and CUIs are sent with
pymilvus alone into a collection with as many fields and the same kind of index: messages one after
the other, then flush, index and load. What a build adds on top are checksums, and tuning.

Then both are asked the same queries in turns, one by one and 256 at once, with the effort that the
product has tuned. Bare pymilvus asks for the ids and CUIs of the neighbours, which annotation
needs; the product's answer includes what it checks, orders and completes, and the concepts as a
table. Both collections are removed at the end.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from benchmarks.index_latency.__main__ import WORK
from benchmarks.index_latency.data import Dataset, Floats, prepare
from benchmarks.index_latency.recall import recall, similarities
from benchmarks.records import save
from index.locations import locate
from index.progress import Work, reported_by

NAME = "annotator_benchmark"
BATCHES = (1, 256)
KINDS: dict[str, dict[str, Any]] = {  # as the product asks for them
    "flat": {"index_type": "FLAT"},
    "hnsw": {"index_type": "HNSW", "params": {"M": 32, "efConstruction": 200}},
}
_ROWS_A_MESSAGE = 2000


def main(arguments: list[str] | None = None) -> None:
    """Build both, ask both, remove both, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("server", help="its address, milvus://HOST:PORT")
    parser.add_argument("--token", default="", help="USER:PASSWORD, if it wants one")
    parser.add_argument("--n", type=int, default=100_000, help="rows")
    parser.add_argument("--dim", type=int, default=512, help="numbers of a vector")
    parser.add_argument("--k", type=int, default=50, help="neighbours")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--calls", type=int, nargs=2, default=(1000, 20), help="lone, of 256")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for the vectors")
    options = parser.parse_args(arguments)
    data = prepare(options.work, options.n, options.dim)
    address = options.server.rstrip("/")
    client: Any = MilvusClient(uri=address.replace("milvus://", "http://"), token=options.token)
    for kind in options.kinds:
        record = {"kind": kind, "n": options.n, "dim": options.dim, "k": options.k}
        record["server"] = client.get_server_version()
        try:
            record |= measure(kind, f"{address}/{NAME}", client, data, options)
        finally:
            for alias in client.list_aliases().get("aliases", []):
                if alias == NAME:
                    client.drop_alias(alias)
            for collection in client.list_collections():
                if collection.startswith(NAME):
                    client.drop_collection(collection)
        for name in ("build", "build_bare", "queries_per_second", "ratio", "recall"):
            print(kind, name, record[name], flush=True)
        print(f"raw figures: {save('milvus', [record])}")


def measure(
    kind: str, address: str, client: Any, data: Dataset, options: argparse.Namespace
) -> dict[str, Any]:
    """Seconds of both builds and of each call, of both ways to ask in turns."""
    ids = [f"image_{row:09d}" for row in range(options.n)]
    cuis = [[f"C{row % 1000 + i:07d}" for i in range(5)] for row in range(options.n)]
    built = build(kind, address, ids, cuis, data.vectors)
    alone = build_bare(kind, client, ids, cuis, data.vectors)
    index, k = locate(address).open(), options.k
    effort = dict(index.manifest.search.get("params") or {})
    if "ef" in effort:
        effort["ef"] = max(effort["ef"], k)  # graphs keep k candidates at least
    search = {"metric_type": "IP", "params": effort}

    def bare(queries: Floats) -> Any:
        return client.search(
            f"{NAME}_bare", data=list(queries), limit=k, output_fields=["cuis"],
            search_params=search, consistency_level="Bounded",
        )  # fmt: skip

    ways: dict[str, Callable[[Floats], Any]] = {
        "bare": bare,
        "product": lambda queries: index.find(queries, k),
    }
    seconds: dict[int, dict[str, list[float]]] = {}
    for size, calls in zip(BATCHES, options.calls, strict=True):
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for call in range(-3, calls):  # the first ones are to warm up
            places = np.arange(call * size, (call + 1) * size) % len(data.queries)
            clock = [time.perf_counter()]
            for way in ways.values():
                way(data.queries[places])
                clock.append(time.perf_counter())
            for name, spent in zip(taken, np.diff(clock).tolist(), strict=True):
                taken[name] += [spent] if call >= 0 else []
        seconds[size] = taken
    found = index.find(data.queries, k)
    rows = np.array([int(id_.removeprefix("image_")) for id_ in found.cases.ids])
    rows = np.where(np.isfinite(found.neighbors.similarities), rows[found.neighbors.rows], -1)
    near = similarities(data.vectors, data.queries, rows)
    rates = {
        name: {str(size): size / statistics.median(seconds[size][name]) for size in BATCHES}
        for name in ways
    }
    return {
        "search": dict(index.manifest.search),
        "rows_per_second": built["rows_per_second"],
        "build": built,
        "build_bare": alone,
        "queries_per_second": rates["product"],
        "others_per_second": {"bare": rates["bare"]},
        # Of each call to that right before it.
        "ratio": {
            str(size): float(np.median(np.divide(seconds[size]["product"], seconds[size]["bare"])))
            for size in BATCHES
        },
        "lone_ms": {
            name: {f"p{p}": 1000 * float(np.percentile(taken, p)) for p in (50, 95, 99)}
            for name, taken in seconds[1].items()
        },
        "recall": recall(rows, near, data.exact[:, :k]),
    }


def build(
    kind: str, address: str, ids: list[str], cuis: list[list[str]], vectors: Floats
) -> dict[str, float]:
    """Seconds of the product's build, by what it says that it does."""
    spent: dict[str, float] = {}

    def track(items: Iterable[Any], work: Work) -> Iterator[Any]:
        started = time.perf_counter()
        yield from items
        spent[work.label] = time.perf_counter() - started

    started = time.perf_counter()
    with reported_by(track), locate(address).writer() as writer:
        writer.add(vectors)
        writer.publish(ids, cuis, names={}, columns={}, about={}, index_type=kind)
    return {
        "build_s": time.perf_counter() - started,
        "sending_s": spent["Sending"],
        "rows_per_second": len(ids) / spent["Sending"],
    }


def build_bare(
    kind: str, client: Any, ids: list[str], cuis: list[list[str]], vectors: Floats
) -> dict[str, float]:
    """Seconds of the same with pymilvus alone; entities are made while no clock runs."""
    name, text = f"{NAME}_bare", {"datatype": DataType.VARCHAR, "max_length": 256}
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", is_primary=True, **text)
    schema.add_field("row", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    many = {"element_type": DataType.VARCHAR, "max_capacity": 100, "max_length": 64}
    schema.add_field("cuis", DataType.ARRAY, **many)
    schema.add_field("digest", **text)
    client.create_collection(name, schema=schema)
    sending = 0.0
    for start in range(0, len(ids), _ROWS_A_MESSAGE):
        rows = range(start, min(start + _ROWS_A_MESSAGE, len(ids)))
        sent = [
            {"id": ids[r], "row": r, "vector": vectors[r], "cuis": cuis[r], "digest": 64 * "0"}
            for r in rows
        ]
        started = time.perf_counter()
        client.insert(name, sent)
        sending += time.perf_counter() - started
    clock = [time.perf_counter()]
    client.flush(name)
    clock.append(time.perf_counter())
    wanted = client.prepare_index_params()
    wanted.add_index("vector", metric_type="IP", **KINDS[kind])
    client.create_index(name, wanted)  # returns when it is made
    clock.append(time.perf_counter())
    client.load_collection(name)
    clock.append(time.perf_counter())
    flush, indexing, loading = np.diff(clock).tolist()
    return {
        "build_s": sending + clock[-1] - clock[0],
        "sending_s": sending,
        "flush_s": flush,
        "indexing_s": indexing,
        "loading_s": loading,
        "rows_per_second": len(ids) / sending,
    }


if __name__ == "__main__":
    main()
