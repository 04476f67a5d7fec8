"""The capacity plan: its document, and its arithmetic as a reader checks it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from benchmarks.scale.__main__ import RESULTS, SIZES, calculated
from benchmarks.scale.figures import Assumptions, Missing, load_figures
from benchmarks.scale.plan import ROWS, column, names
from benchmarks.scale.table import markdown, replaced

DOCUMENT = Path(__file__).parents[2] / "docs" / "scale.md"


def test_the_document_is_what_the_script_prints() -> None:
    document = DOCUMENT.read_text()
    assert document == replaced(document, calculated()), "python -m benchmarks.scale --write"


def test_a_missing_record_is_named(tmp_path) -> None:
    with pytest.raises(Missing, match="throughput"):
        load_figures(tmp_path, Assumptions())


def test_assumptions_change_what_rests_on_them_alone() -> None:
    figures = load_figures(RESULTS, Assumptions())
    other = load_figures(RESULTS, Assumptions(gpu_images_per_s=1000, node_gib=32))
    before, after = (column(10**9, some).values for some in (figures, other))
    assert after["gpu_s"] == 10**9 / 1000 and after["hnsw_nodes"] > before["hnsw_nodes"]
    assert all(before[name] == after[name] for name in ("cpu", "fit_all", "fp32", "scan_q"))
    assert set(figures) <= {name for row in ROWS for name in names(row.formula)}


def test_the_printed_arithmetic_gives_the_printed_results() -> None:
    """As a reader with a calculator does it: shown figures, shown results of other rows."""
    figures = load_figures(RESULTS, Assumptions())
    plan = [column(n, figures) for n in SIZES]
    lines = [line.split(" | ") for line in markdown(figures, plan).splitlines()]
    printed = {line[0].strip("| "): line[2] for line in lines if len(line) == 4 + len(plan)}
    for number, row in enumerate(ROWS, 1):
        for col in plan:
            values = {str(i): col.values[r.name] for i, r in enumerate(ROWS, 1)}
            text = re.sub(r"\((\d+)\)", lambda m, v=values: f"({v[m[1]]!r})", printed[str(number)])
            text = re.sub(r"(\d+) GiB", lambda m: str(int(m[1]) * 2**30), text)
            text = re.sub(r"(\d+) kB", lambda m: str(int(m[1]) * 1000), text)
            text = re.sub(r"(?<=\d),(?=\d{3})", "", text).replace("×", "*").replace("^", "**")
            again = eval(text, {"ceil": math.ceil, "min": min, "max": max, "n": col.n})
            assert again == pytest.approx(col.values[row.name], rel=0.02, abs=1.0), row.what
