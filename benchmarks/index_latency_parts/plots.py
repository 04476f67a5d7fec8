"""Latency by rows, recall and queries/s, batch and queries/s, as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from index_latency_parts.ratios import shown
from index_latency_parts.systems import SYSTEMS

Record = dict[str, Any]

# The product in strong colours and solid lines; exact peers grey, others in colour, both dashed.
_STYLES: dict[str, tuple[str, str]] = {
    "scan": ("#1f5f99", "o"),
    "gpu": ("#1f5f99", "o"),
    "gpu-torch": ("#6aaed6", "s"),
    "flat": ("#6aaed6", "s"),
    "ivf": ("#d9480f", "o"),
    "compressed": ("#f08c00", "s"),
    "hnsw": ("#7048a8", "D"),
    "faiss-flat": ("#343a40", "^"),
    "faiss-cuda": ("#343a40", "^"),
    "torch": ("#868e96", "v"),
    "torch-cuda": ("#868e96", "v"),
    "torch-cuda-tf32": ("#b8860b", "v"),
    "sklearn": ("#b5bcc4", "P"),
    "faiss-ivf": ("#e377a2", "^"),
    "faiss-hnsw": ("#9c6fd6", "^"),
    "hnswlib": ("#2b8a3e", "X"),
    "usearch": ("#66a80f", "v"),
    "usearch-i8": ("#12a5a5", "P"),
}


def plot_sizes(records: Sequence[Record], path: Path) -> None:
    """The latency of a lone query (p50, and up to p99) against the number of rows."""

    def draw(axes: Any, here: Sequence[Record]) -> None:
        for key in _systems(here):
            of_size = [
                next(r for r in shown([r for r in here if r["n"] == n]) if r["system"] == key)
                for n in sorted({r["n"] for r in here if r["system"] == key})
            ]
            x, y = [r["n"] for r in of_size], [r["p50_ms"] for r in of_size]
            _line(axes, key, x, y)
            axes.vlines(x, y, [r["p99_ms"] for r in of_size], _STYLES[key][0], alpha=0.5, lw=1)
        sizes = sorted({r["n"] for r in here})
        axes.set(xscale="log", yscale="log", xlabel="rows")
        axes.set_xticks(sizes, [_short(size) for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set_ylabel("a lone query, ms: p50, bar to p99")

    _panels(records, path, draw, lambda r: (r["dim"], None, r["threads"]))


def plot_recall(records: Sequence[Record], path: Path) -> None:
    """Recall against queries/s, lone and in the largest batch, one row of panels a size."""
    largest = max((b for r in records for b in r["queries_per_second"]), key=int)
    batches = ["1", largest] if largest != "1" else ["1"]
    most = max(r["threads"] for r in records)
    some = [{**r, "batch": b} for r in records if r["threads"] == most for b in batches]

    def draw(axes: Any, here: Sequence[Record]) -> None:
        batch = here[0]["batch"]
        for key in _systems(here):
            points = sorted(
                (r["recall"], r["queries_per_second"][batch])
                for r in here
                if r["system"] == key and r["recall"] and batch in r["queries_per_second"]
            )
            if points:
                # What is missed, so that 0.99 and 0.999 are as far apart as 0.9 and 0.99.
                missed = [max(1 - recall, 1e-4) for recall, _ in points]
                _line(axes, key, missed, [rate for _, rate in points])
        ticks = {0.5: "0.5", 0.3: "0.7", 0.1: "0.9", 0.03: "0.97", 0.01: "0.99", 1e-3: "0.999"}
        least = max((1 - r["recall"] for r in here if r["recall"]), default=0)
        left = next((missed for missed in reversed(ticks) if missed >= least), 1.0)
        axes.set(xscale="log", yscale="log")
        axes.set_xticks([*ticks, 1e-4], [*ticks.values(), "all"])
        axes.set_xticks([], minor=True)
        axes.set_xlim(1.3 * left, 0.7e-4)
        asked = "lone queries" if batch == "1" else f"batches of {batch}"
        axes.set(xlabel=f"recall at {here[0]['k']}", ylabel=f"queries/s, {asked}")

    _panels(some, path, draw, lambda r: (r["dim"], r["n"], r["threads"], r["batch"]), len(batches))


def plot_batches(records: Sequence[Record], path: Path) -> None:
    """Queries/s against the number of queries in a call, one row of panels a number of rows."""

    def draw(axes: Any, here: Sequence[Record]) -> None:
        for record in shown(here):
            rates = sorted((int(b), rate) for b, rate in record["queries_per_second"].items())
            _line(axes, record["system"], [b for b, _ in rates], [rate for _, rate in rates])
        sizes = sorted({int(b) for r in here for b in r["queries_per_second"]})
        axes.set(xscale="log", yscale="log", xlabel="queries in a call", ylabel="queries/s")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xticks([], minor=True)

    threads = len({r["threads"] for r in records})
    _panels(records, path, draw, lambda r: (r["dim"], r["n"], r["threads"]), max(threads, 2))


def _panels(
    records: Sequence[Record],
    path: Path,
    draw: Callable[[Any, Sequence[Record]], None],
    key: Callable[[Record], tuple[Any, ...]],
    columns: int = 2,
) -> None:
    """A panel for each dimension, number of rows and of threads, of the largest k."""
    from matplotlib.figure import Figure

    k = max(r["k"] for r in records)
    records = [r for r in records if r["k"] == k]
    keys = sorted({key(r) for r in records}, key=lambda parts: [int(p or 0) for p in parts])
    columns = min(columns, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(5.4 * columns + 2.4, 4.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axes, wanted in zip(panels, keys, strict=False):
        here = [r for r in records if key(r) == wanted]
        draw(axes, here)
        dim, n, threads = wanted[:3]
        title = f"{n:,} rows of {dim}" if n else f"{dim} numbers a row"
        on = "GPU" if here[0]["device"] == "cuda" else f"{threads} thread{'s' * (threads > 1)}"
        axes.set_title(f"{title}, {on}, k {k}", fontsize=10)
        axes.grid(True, which="major", color="#e3e6ea", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    labels = [s.label for s in SYSTEMS.values() if s.label in handles]
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside right upper",
        frameon=False,
        fontsize=9,
    )
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _systems(records: Sequence[Record]) -> list[str]:
    present = {r["system"] for r in records}
    return [key for key in SYSTEMS if key in present]


def _short(n: int) -> str:
    """Such as "100k" or "6M"."""
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if n >= unit:
            return f"{n / unit:g}{name}"
    return str(n)


def _line(axes: Any, key: str, x: Sequence[float], y: Sequence[float]) -> None:
    colour, marker = _STYLES[key]
    system = SYSTEMS[key]
    axes.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=5,
        linestyle="-" if system.ours else "--",
        linewidth=2 if system.ours else 1.2,
        label=system.label,
    )
