"""The records as JSON lines, tables as Markdown, and what one has to know to read them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from index_latency_parts.files import write_text
from index_latency_parts.plots import plot_batches, plot_recall, plot_sizes
from index_latency_parts.ratios import auto, ratios, shown
from index_latency_parts.runner import sources

Record = dict[str, Any]

_MIB = 2**20
_LEAST = 1000  # lone queries behind a percentile, or it is marked


def write_report(records: Sequence[Record], folder: Path, name: str) -> str:
    """Write NAME.jsonl, NAME.md and the pictures NAME-{n,recall,batch}.png; returns the Markdown.

    Args:
        records: As `records.pooled` gives them.
        folder: Created if it is not there.
        name: Of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    write_text(folder / f"{name}.jsonl", lines)
    pictures = {"n": plot_sizes, "recall": plot_recall, "batch": plot_batches}
    for part, plot in pictures.items():
        plot(records, folder / f"{name}-{part}.png")
    text = markdown(records)
    titles = ("Latency by number of rows", "Recall and queries/s", "Batch and queries/s")
    links = zip(titles, pictures, strict=True)
    text += "".join(f"\n![{title}]({name}-{part}.png)\n" for title, part in links)
    write_text(folder / f"{name}.md", text)
    return text


def markdown(records: Sequence[Record]) -> str:
    """Notes, ratios, and a table of each size, with the most threads and the largest k."""
    k = max(r["k"] for r in records)
    by_size: dict[tuple[int, int, int], list[Record]] = defaultdict(list)
    for record in records:
        if record["k"] == k:
            by_size[record["dim"], record["n"], record["threads"]].append(record)
    sizes = sorted(by_size)
    most = max(size[2] for size in sizes)
    parts = ["# Kinds of index and other libraries\n", *_notes(records, k), "## Ratios\n"]
    for dim, n, threads in sizes:
        if found := ratios(by_size[dim, n, threads]):
            parts.append(f"{n:,} rows of {dim}, k {k}, {_threads(threads)}:\n")
            parts.append(_ratio_table(found))
    for dim, n, threads in sizes:
        if threads == most:
            parts.append(f"## {n:,} rows of {dim} numbers, k {k}, {_threads(threads)}\n")
            parts.append(_table(by_size[dim, n, threads]))
    return "\n".join(parts)


def _notes(records: Sequence[Record], k: int) -> list[str]:
    first = records[0]
    machine = first["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = machine.get("gpu")
    graphics = f"; {gpu['name']}, {gpu['memory_gib']} GiB" if gpu else ""
    limits = {
        (r["device"], r["threads"]): r["bandwidth_bytes_per_second"]
        for r in records
        if r["bandwidth_bytes_per_second"]
    }
    reading = "; ".join(
        f"{value / 1e9:.1f} GB/s {'on the GPU' if on == 'cuda' else f'with {_threads(threads)}'}"
        for (on, threads), value in sorted(limits.items())
    )
    notes = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
        f"{graphics}. {versions}.",
        f"Memory is read at {reading}, measured in the same run." if reading else "",
        "Vectors are synthetic, fitted to features of radiographs"
        + (", with those of a collection among them" if _is_real(records) else "")
        + "; 1,000 queries from the same distribution. Each figure is of processes of its own, "
        f"{first['repeats']} for each system, size and number of threads, which were started with "
        "that many threads. Files had been read once before, so the page cache held them as far "
        "as memory allows. Builds used all cores.",
        "Percentiles are of lone queries pooled over the processes; a star marks fewer than "
        f"{_LEAST:,}. Queries/s are medians over the processes. Recall counts whatever is as near "
        "as the k-th nearest. F1 is that of the product's voting, its change against exact "
        "neighbours. Memory is the most that was resident while searching: of its own, and mapped "
        "from files, which the kernel takes back when it is short. Memory share: bytes of all "
        "vectors over the time of a call, against what memory gives; above 1 where fewer bytes "
        "are read.",
        "Of systems with an effort to choose, tables show the product's default and of others the "
        "quickest with recall of 0.98 or more (or the highest there is); the picture of recall and "
        "the raw figures have all.",
    ]
    outdated = [r for r in records if r["sources"] and r["sources"] != [sources()]]
    if outdated:
        named = ", ".join(sorted({r["system"] for r in outdated}))
        notes.append(f"**Measured with other sources of index/backends than these: {named}.**")
    return [note + "\n" for note in notes if note]


def _is_real(records: Sequence[Record]) -> bool:
    return any(r["real_recall"] is not None for r in records)


def _table(records: Sequence[Record]) -> str:
    chosen = auto(records)
    batches = sorted({b for r in records for b in r["queries_per_second"]}, key=int)
    real = _is_real(records)
    head = ["", "effort", "build s", "files MiB", "memory MiB", "load s", "cold ms"]
    head += ["p50 ms", "p95", "p99", *(f"q/s at {b}" for b in batches), "recall", "F1 change"]
    head += ["recall, real", "F1 change, real"] if real else []
    head += [f"memory share at {b}" for b in batches if int(b) in (1, 32)]
    lines = [f"| {' | '.join(head)} |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for r in sorted(shown(records), key=lambda r: r["p50_ms"]):
        label = f"**{r['label']}**" if chosen and r["system"] == chosen["system"] else r["label"]
        memory = f"{r['peak_anonymous_bytes'] / _MIB:.0f} + {r['peak_mapped_bytes'] / _MIB:.0f}"
        if r["device_bytes"]:
            memory += f", GPU {r['device_bytes'] / _MIB:.0f}"
        star = "" if r["lone_queries"] >= _LEAST else "*"
        cells = [label, r["point"], f"{r['build_s']:.1f}", f"{r['file_bytes'] / _MIB:.0f}", memory]
        cells += [f"{r['load_s']:.2f}", _digits(r["cold_ms"]), _digits(r["p50_ms"]) + star]
        cells += [_digits(r["p95_ms"]), _digits(r["p99_ms"])]
        cells += [_digits(r["queries_per_second"].get(b)) for b in batches]
        cells += [_fixed(r["recall"], 4), _fixed(r["f1_change"], 4, "+")]
        if real:
            cells += [_fixed(r["real_recall"], 4), _fixed(r["real_f1_change"], 4, "+")]
        share = r["bandwidth_share"] or {}
        cells += [_fixed(share.get(b), 2) for b in batches if int(b) in (1, 32)]
        lines.append(f"| {' | '.join(cells)} |")
    if chosen:
        lines.append(f"\nIn bold what the product chooses by itself: {chosen['system']}.")
    return "\n".join(lines) + "\n"


def _ratio_table(found: Sequence[dict[str, Any]]) -> str:
    lines = ["| | ratio | ours | theirs | of |", "| --- | ---: | ---: | ---: | --- |"]
    for entry in found:
        ours, theirs, unit = entry["ours"], entry["theirs"], entry["of"]
        if unit == "bytes":
            ours, theirs, unit = ours / _MIB, theirs / _MIB, "MiB"
        value = "not reached by them" if entry["value"] is None else f"{entry['value']:.2f}"
        lines.append(
            f"| {entry['what']} | {value} | {_digits(ours)} | {_digits(theirs)} | {unit} |"
        )
    return "\n".join(lines) + "\n"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _digits(value: float | None) -> str:
    """Three digits that count, without an exponent."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _fixed(value: float | None, digits: int, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.{digits}f}"
