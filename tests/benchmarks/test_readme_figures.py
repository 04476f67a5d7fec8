"""README.md quotes no figure that benchmarks/results does not hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MEASURED = re.search(r"^## Measured\n(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)


def last_run(name: str) -> list[dict[str, Any]]:
    """The records of a JSONL file that were saved together with its last one."""
    records = [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()]
    return [r for r in records if r["when"] == records[-1]["when"]]


def quality() -> dict[str, Any]:
    record: dict[str, Any] = json.loads((RESULTS / "quality-radiology.json").read_text())
    return record | {"rows": {row["key"]: row for row in record["rows"]}}


def claims() -> list[str]:
    """Every passage of the section that holds a figure, as the results have it."""
    record = quality()
    rows = record["rows"]
    ours, several = rows["ours"], rows["ours-several"]
    f1 = {key: f"{row['f1']:.3f}" for key, row in rows.items()}
    low, high = ours["interval"]
    side = ours["chosen"]["interval_on_training_side"]
    recipes = [rows[key]["f1"] for key in ("top-r", "relative-drop", "rank-weights")]
    recipes.append(rows["rank-weights-tuned"]["f1"])
    logistic = max(rows["logistic"]["f1"], rows["logistic-expected-f1"]["f1"])
    cnn = rows["cnn-tuned"]
    cheaper = cnn["build"]["cpu_seconds"] / ours["build"]["cpu_seconds"]
    collection = record["collection"]
    total = collection["train"] + collection["test"]
    (throughput,) = last_run("throughput")
    speed = {key: median(values) for key, values in throughput["images_per_second"].items()}
    memory = {r["images"]: r for r in last_run("memory")}
    tuning = last_run("tuning")[0]
    lines = (RESULTS / "serve_load.jsonl").read_text().splitlines()
    load = {record["part"]: record for record in map(json.loads, lines)}
    lone = load["b"]
    rates = load["a"]["images_per_second"]
    service, annotate = median(rates["service"]), median(rates["annotate"])
    last = load["d"]["rss"][-1]
    return [
        f"{total:,} radiological images from six public sources "
        f"({collection['train']:,} train, {collection['test']} test",
        f"F1 **{f1['ours']}** (95 % interval {low:.3f} to {high:.3f})",
        f"expected {ours['chosen']['f1_on_training_side']:.3f} ({side[0]:.3f} to {side[1]:.3f})",
        "| " + " | ".join(f"{v['f1']:.3f}" for _, v in sorted(ours["by"].items())) + " |",
        f"two encoders at two sizes {several['f1']:.3f}",
        f"1-NN {f1['nearest']}",
        f"published kNN recipes {min(recipes):.3f} to {max(recipes):.3f}",
        f"MLkNN {f1['mlknn']}",
        f"logistic regression {logistic:.3f}",
        f"the CNN of the MQ-CSIRO paper {f1['cnn-tuned']} at its best threshold and {f1['cnn']} at "
        f"the paper's, for {cheaper:.0f} times the CPU time",
        f"| a plain fp32 timm loop with PIL | {speed['plain']:.0f} |",
        f"| the bare encoder on ready-made batches | {speed['bare']:.0f} |",
        f"| `annotator annotate`, start-up and all | {speed['annotate']:.0f} |",
        f"| the same without its start-up | {speed['annotate_warm']:.0f} |",
        *(f"{r['peak_mib']:.0f} MiB for {n:,} images" for n, r in memory.items()),
        f"{tuning['n']:,} images and {tuning['concepts']:,} concepts: "
        f"{tuning['fit_s']:.0f} s to fit, {tuning['choose_voting_s']:.0f} s to choose",
        f"with 32 clients {service:.0f} images/s, {service / annotate:.2f} of `annotate`",
        f"a lone client waits {lone['p50_ms']:.1f} ms, {lone['difference_ms']:.1f} ms longer",
        f"with 8 clients p99 is {load['c']['p99_over_p50']:.1f} times p50",
        f"recovers in {load['e']['seconds_to_recover']:.1f} s",
        f"{load['f']['reloads']} reloads under load",
        f"After {last['requests']:,} requests it holds {last['mib']:.0f} MiB",
    ]


def test_every_figure_is_in_the_results() -> None:
    assert MEASURED is not None
    text = " ".join(MEASURED[1].split())
    for claim in claims():
        passage = " ".join(claim.split())
        assert passage in text, f"README.md does not say {passage!r}, which is what was measured"
        text = text.replace(passage, "")
    text = re.sub(r"`[^`]*`|\[[^]]*\]\([^)]*\)", "", text)
    left = re.findall(r"\d+(?:[.,]\d+)?", text)
    # What is no measurement: names of instructions and formats, an HTTP status.
    assert set(left) <= {"512", "16", "19", "429"}, f"no result stands behind {left}"
