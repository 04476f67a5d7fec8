"""The records as JSON lines, tables and ratios as Markdown, and the pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.index_latency.adapters import SYSTEMS
from benchmarks.plots import Line, Panel, plot_lines
from benchmarks.records import Record

ENOUGH = 0.98  # recall of the point that tables show of a peer
_MIB = 2**20
_EXACT = (("scan", "faiss-flat"), ("flat", "faiss-flat"), ("cuda-flat", "torch-cuda"))
_PEERS = ("faiss-rabitq", "scann", "svs", "faiss-hnsw", "hnswlib", "usearch")
_NOTES = """\
Vectors are synthetic, fitted to features of radiographs; 1,000 queries from the same distribution.
Each figure is of processes of its own, {repeats} for each system, size and number of threads, which
were started with that many threads. Files had been read once before, so the page cache held them as
far as memory allows. Builds used all cores.

Percentiles are of lone queries pooled over the processes. Queries/s are medians over the processes,
and so are CPU milliseconds, of all threads for one query. Recall counts whatever is as near as the
k-th nearest. Memory is what is resident after searching: of its own, and mapped from files, which
the kernel takes back when it is short.

Of systems with an effort to choose, tables show the product's default and of others the quickest
with recall of 0.98 or more (or the highest there is). The picture has the efforts that no other of
the system beats in both, and the raw figures have all.
"""


def write_report(records: Sequence[Record], folder: Path, name: str) -> str:
    """Write NAME.jsonl, NAME.md and NAME-recall.png; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / f"{name}.jsonl").write_text(lines)
    text = markdown(records)
    most = max(r["k"] for r in records)
    largest = [r for r in records if r["k"] == most]
    plot_lines(list(_by_recall(largest)), folder / f"{name}-recall.png")
    text += f"\n![Recall and queries/s]({name}-recall.png)\n"
    (folder / f"{name}.md").write_text(text)
    return text


def markdown(records: Sequence[Record]) -> str:
    """Notes, then the ratios and the table of each size, with the largest k."""
    machine, k = records[0]["machine"], max(r["k"] for r in records)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    on = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
    on += f", {machine['gpu']}" if machine.get("gpu") else ""
    text = ["# Kinds of index and other libraries", f"{on}. {versions}."]
    text.append(_NOTES.format(repeats=records[0]["repeats"]).strip())
    for (dim, n, threads), some in _by(records, "dim", "n", "threads"):
        here = [r for r in some if r["k"] == k]
        text += [f"## {n:,} rows of {dim} numbers, k {k}, threads: {threads}", _table(here)]
        if found := "\n".join(_ratios(here)):
            head = "| | ratio | ours | theirs |\n| --- | ---: | ---: | ---: |\n"
            text.append(head + found)
    return "\n\n".join(text) + "\n"


def shown(records: Sequence[Record]) -> list[Record]:
    """One record of each system: its default, or the quickest that reaches a recall of 0.98.

    Args:
        records: Of one size, threads and k.
    """
    result = []
    for (_,), own in _by(records, "system"):
        default = [r for r in own if r["default"]]
        good = [r for r in own if (r["recall"] or 0) >= ENOUGH]
        quickest = max(good, key=lambda r: r["queries_per_second"]["1"], default=None)
        result.append(
            default[0] if default else quickest or max(own, key=lambda r: r["recall"] or 0)
        )
    return result


def unbeaten(curve: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Efforts that no other one beats in recall and queries/s, the highest recall first."""
    best: list[tuple[float, float]] = []
    for point in sorted(curve, key=lambda p: (-p[0], -p[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def at_recall(curve: Sequence[tuple[float, float]], recall: float) -> float | None:
    """Queries/s that a curve of efforts reaches at a recall; None where none reaches it.

    Only efforts that no other one beats in both count. Between two of them, the logarithm of the
    queries/s is taken to be linear in the recall.

    Args:
        curve: Recall and queries/s of each effort.
        recall: That is wanted.
    """
    best = unbeaten(curve)
    above = [point for point in best if point[0] >= recall]
    if not above:
        return None
    (high, rate), below = above[-1], best[len(above) : len(above) + 1]
    if not below or high == recall:
        return rate
    ((less, faster),) = below
    share = (high - recall) / (high - less)
    return math.exp(math.log(rate) * (1 - share) + math.log(faster) * share)


def _ratios(records: Sequence[Record]) -> Iterator[str]:
    """Each of two figures from one run: exact kinds, then approximate ones at equal recall."""
    of = {r["system"]: r for r in shown(records)}
    for key, peer in _EXACT:
        if key in of and peer in of:
            yield from _beside(of[key], of[peer], rates(of[peer]))
    for key in ("ivf", "compressed", "cuda-ivf"):
        for peer in _PEERS if key in of else ():
            own = [r for r in records if r["system"] == peer]
            wanted = of[key]["recall"]
            reached = {
                what: at_recall([(r["recall"], rates(r)[what]) for r in own], wanted)
                for what in rates(of[key])
                if all(what in rates(r) for r in own)
            }
            if own:
                yield from _beside(of[key], of[peer], reached)


def rates(record: Record) -> dict[str, float]:
    """Queries a second and, where it was measured, a CPU second of all threads, by what they are.

    The first does not hold where other work shares the cores; the second nearly does.
    """
    result = {}
    for batch, rate in record["queries_per_second"].items():
        result["lone queries/s" if batch == "1" else f"queries/s, {batch} at once"] = rate
    for batch, cpu_ms in record.get("cpu_ms", {}).items():
        what = "lone queries a CPU second"
        result[what if batch == "1" else f"queries a CPU second, {batch} at once"] = 1000 / cpu_ms
    return result


def _beside(ours: Record, theirs: Record, reached: Mapping[str, float | None]) -> Iterator[str]:
    pair = f"{ours['system']} / {theirs['system']}"
    pair += "" if ours["recall"] == 1 else f" at recall {ours['recall']:.3f}"
    for what, rate in rates(ours).items():
        other = reached.get(what)
        ratio = f"{rate / other:.2f}" if other else "not reached by them"
        yield f"| {pair}, {what} | {ratio} | {_digits(rate)} | {_digits(other)} |"
    for name, what, unit in (
        ("build_s", "build, s", 1), ("anonymous_bytes", "memory of its own, MiB", _MIB)
    ):  # fmt: skip
        a, b = ours[name] / unit, theirs[name] / unit
        if b:
            yield f"| {pair}, {what} | {a / b:.2f} | {_digits(a)} | {_digits(b)} |"


def _table(records: Sequence[Record]) -> str:
    batches = sorted({b for r in records for b in r["queries_per_second"]}, key=int)
    head = ["", "effort", "build s", "files MiB", "memory MiB", "load s", "cold ms", "p50 ms"]
    timed = sorted({b for r in records for b in r.get("cpu_ms", {})}, key=int)
    head += ["p95", "p99", *(f"q/s at {b}" for b in batches)]
    head += [*(f"CPU ms at {b}" for b in timed), "recall"]
    lines = [f"| {' | '.join(head)} |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for r in sorted(shown(records), key=lambda r: r["p50_ms"]):
        memory = f"{r['anonymous_bytes'] / _MIB:.0f} + {r['mapped_bytes'] / _MIB:.0f}"
        memory += f", GPU {r['device_bytes'] / _MIB:.0f}" if r["device_bytes"] else ""
        cells = [r["label"], r["point"], f"{r['build_s']:.1f}", f"{r['file_bytes'] / _MIB:.0f}"]
        cells += [memory, f"{r['load_s']:.2f}"]
        cells += [_digits(r[name]) for name in ("cold_ms", "p50_ms", "p95_ms", "p99_ms")]
        cells += [_digits(r["queries_per_second"].get(b)) for b in batches]
        cells += [_digits(r.get("cpu_ms", {}).get(b)) for b in timed]
        lines.append(f"| {' | '.join(cells)} | {r['recall'] or 0:.4f} |")
    return "\n".join(lines)


def _by_recall(records: Sequence[Record]) -> Iterator[Panel]:
    ticks = {0.3: "0.7", 0.1: "0.9", 0.03: "0.97", 0.01: "0.99", 1e-3: "0.999", 1e-4: "all"}
    options = {"xscale": "log", "yscale": "log", "xlim": (0.5, 0.7e-4)}
    for (dim, n, threads), here in _by(records, "dim", "n", "threads"):
        for batch in dict.fromkeys(["1", max(here[0]["queries_per_second"], key=int)]):
            lines = []
            for (key,), own in _by(here, "system"):
                best = unbeaten((r["recall"], r["queries_per_second"][batch]) for r in own)
                # What is missed, so that 0.99 and 0.999 are as far apart as 0.9 and 0.99.
                missed = tuple(max(1 - recall, 1e-4) for recall, _ in best)
                rates = tuple(rate for _, rate in best)
                lines.append(Line(SYSTEMS[key].label, missed, rates, ours=SYSTEMS[key].ours))
            title = f"{n:,} rows of {dim}, threads: {threads}"
            yield Panel(title, "recall", f"queries/s, {batch} at once", lines, ticks, options)


def _by(records: Sequence[Record], *names: str) -> Iterator[tuple[tuple[Any, ...], list[Record]]]:
    """Records with the same values of some names; systems in their order, sizes ascending."""
    order = list(SYSTEMS)
    keys = {tuple(r[name] for name in names) for r in records}
    for key in sorted(keys, key=lambda key: [order.index(v) if v in order else v for v in key]):
        yield key, [r for r in records if tuple(r[name] for name in names) == key]


def _digits(value: float | None) -> str:
    """Three digits that count, without an exponent."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
