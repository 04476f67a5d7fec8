"""The capacity plan: its document, its arithmetic, and what it is calculated from."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import capacity
import pytest
from capacity_parts.figures import Assumptions, Missing, load_figures
from capacity_parts.formula import calculate, names, render
from capacity_parts.plan import GROUPS, column, every_row
from capacity_parts.table import BEGIN, END, NoPlace, markdown, replaced
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "scale.md"


FIGURES = load_figures(RESULTS, Assumptions())


@pytest.fixture
def figures():
    return FIGURES


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for path in RESULTS.glob("*.jsonl"):
        shutil.copy(path, folder)
    return folder


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "capacity.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_document_is_what_the_script_prints() -> None:
    assert run("--check", DOCUMENT).returncode == 0, "python benchmarks/capacity.py --write"
    printed = run().stdout
    assert printed.strip() in DOCUMENT.read_text()
    assert "100,000 images | 6,031,814 images | 1,000,000,000 images" in printed


def test_a_document_that_differs_is_found_and_written_anew(tmp_path) -> None:
    document = tmp_path / "scale.md"
    document.write_text(DOCUMENT.read_text().replace("8,115", "9,115", 1))
    found = run("--check", document)
    assert found.returncode == 1
    assert "--write" in found.stderr
    assert run("--write", document).returncode == 0
    assert document.read_text() == DOCUMENT.read_text()


def test_nothing_but_the_tables_is_written() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(document, "new\n") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    for broken in ("", BEGIN, f"{END}\n{BEGIN}\n", document * 2):
        with pytest.raises(NoPlace):
            replaced(broken, "new\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--check", "missing.md"), "missing.md"),
        (("--results", "nowhere"), "benchmarks/throughput.py"),
        (("--images", "0"), "above 0"),
        (("--node-gib", "-1"), "above 0"),
    ],
)
def test_what_cannot_be_calculated_is_said(words, said) -> None:
    found = run(*words)
    assert found.returncode != 0
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_a_missing_record_is_named(results) -> None:
    lines = (results / "row_bytes.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["kind"] != "collection"]
    (results / "row_bytes.jsonl").write_text("\n".join(kept))
    with pytest.raises(Missing, match="row_bytes"):
        load_figures(results, Assumptions())


def test_the_newest_measurement_counts(results, figures) -> None:
    lines = (results / "throughput.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    rates = last["images_per_second"]
    last["images_per_second"] = {k: [v / 2 for v in values] for k, values in rates.items()}
    (results / "throughput.jsonl").write_text("\n".join([*lines, json.dumps(last)]))
    slower = load_figures(results, Assumptions())
    assert slower["core"].value == pytest.approx(figures["core"].value / 2)
    before, after = (column(10**6, f).values["cpu"] for f in (figures, slower))
    assert after == pytest.approx(2 * before)


def test_assumptions_are_marked_and_change_what_rests_on_them(figures) -> None:
    other = load_figures(RESULTS, Assumptions(gpu_images_per_s=1000, node_gib=32))
    assert other["gpu"].key.startswith("A")
    assert "command line" in other["gpu"].source
    measured = [f for f in figures.values() if f.key.startswith("M")]
    assert measured
    assert all("jsonl" in figure.source for figure in measured)
    n = 10**9
    assert column(n, other).values["gpu_s"] == n / 1000
    assert column(n, other).values["hnsw_nodes"] > column(n, figures).values["hnsw_nodes"]
    changed = {
        r.name for r in every_row() if _differs(column(n, figures), column(n, other), r.name)
    }
    assert changed.isdisjoint({"cpu", "fit_all", "fp32", "scan_q"})


def _differs(one, other, name):
    return one.values[name] != other.values[name]


def test_what_nobody_has_measured_is_not_made_up(figures) -> None:
    unknown = {**figures, "core": _unknown(figures["core"])}
    plan = [column(1000, unknown)]
    assert plan[0].values["cpu"] is None
    assert plan[0].values["cpus"] is None  # and what rests on it
    assert plan[0].values["gpu_s"] is not None
    assert "| not measured |" in markdown(unknown, plan)


def test_milvus_may_be_measured_or_not(results) -> None:
    (results / "milvus.jsonl").unlink(missing_ok=True)
    without = column(10**6, load_figures(results, Assumptions())).values
    assert without["sending"] is without["hnsw_all"] is None
    assert without["hnsw_nodes"] is not None
    machine = {"cpu": "a", "cores": 2}
    record = {"kind": "hnsw", "dim": 512, "n": 10, "machine": machine, "rows_per_second": 500}
    for more, nodes in (({}, None), ({"queries_per_second": {"1": 60.0}}, 2)):
        (results / "milvus.jsonl").write_text(json.dumps(record | more))
        values = column(10**6, load_figures(results, Assumptions())).values
        assert values["sending"] == 2000
        assert values["hnsw_all"] == nodes


def _unknown(figure):
    return type(figure)(figure.key, figure.what, None, figure.source)


def test_the_printed_arithmetic_gives_the_printed_results(figures) -> None:
    """As a reader with a calculator does it: shown figures, shown results of other rows."""
    plan = [column(n, figures) for n in capacity.SIZES]
    lines = [line.split(" | ") for line in markdown(figures, plan).splitlines()]
    numbered = {line[0].strip("| "): line for line in lines if len(line) == 4 + len(plan)}
    rows = list(every_row())
    for number, row in enumerate(rows, 1):
        printed = numbered[str(number)][2]
        for col in plan:
            results = {str(i): col.values[r.name] for i, r in enumerate(rows, 1)}
            if col.values[row.name] is None:
                continue
            again = _by_hand(printed, col.n, results)
            assert again == pytest.approx(col.values[row.name], rel=0.02, abs=1.0), printed


def _by_hand(printed, n, results):
    text = re.sub(r"\((\d+)\)", lambda m: f"({results[m[1]]!r})", printed)
    text = re.sub(r"(\d+) GiB", lambda m: str(int(m[1]) * 2**30), text)
    text = re.sub(r"(\d+) kB", lambda m: str(int(m[1]) * 1000), text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text).replace("×", "*").replace("^", "**")
    return eval(text, {"ceil": math.ceil, "min": min, "max": max, "n": n})


@given(n=st.integers(1, 10**10), other=st.integers(1, 10**10))
def test_more_images_never_take_less(n, other) -> None:
    few, many = (column(size, FIGURES).values for size in sorted((n, other)))
    for row in every_row():
        if few[row.name] is None or row.name in ("ivf_made", "tight_made"):
            continue  # (what one of more nodes has to build may be less)
        if row.unit in ("seconds", "bytes", "count"):
            assert few[row.name] <= many[row.name], row.name


@given(n=st.integers(1, 10**10))
def test_nodes_hold_what_lies_on_them(n) -> None:
    values, node = column(n, FIGURES).values, FIGURES["node"].value
    needed = values["fp32"] + values["said"] + values["ivf_own"]
    assert (values["ivf_nodes"] - 1) * node <= needed <= values["ivf_nodes"] * node
    answered = values["ivf_all"] / values["ivf_nodes"] * values["ivf_q"]
    assert answered * FIGURES["node_cores"].value >= FIGURES["wanted"].value * (1 - 1e-9)


def test_formulas() -> None:
    assert names("ceil(a_1 / min(b, 4)) * a_1") == ["a_1", "b"]
    assert calculate("ceil(a / b) ** 2", {"a": 7, "b": 2}) == 16
    assert calculate("a / b", {"a": 7, "b": None}) is None
    assert render("ceil(a / 86400) * b ** c", {"a": "(1)", "b": "2", "c": "3"}) == (
        "ceil((1) / 86,400) × 2 ^ 3"
    )
    with pytest.raises(KeyError):
        calculate("a", {})


def test_every_figure_and_row_is_used_and_named_once(figures) -> None:
    rows = list(every_row())
    used = {name for row in rows for name in names(row.formula)}
    assert set(figures) <= used
    assert len({row.name for row in rows} | set(figures)) == len(rows) + len(figures)
    assert sum(map(len, GROUPS.values())) == len(rows)
