"""docs/measured.md quotes what benchmarks/results holds, and no figure besides."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

from annotator.knn.model import PENALTIES
from benchmarks.records import load

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MEASURED = ROOT / "docs" / "measured.md"


def last_run(name: str) -> list[dict[str, Any]]:
    """The records of a JSONL file that were saved together with its last one."""
    records = load(name, RESULTS)
    return [r for r in records if r["when"] == records[-1]["when"]]


def claims() -> list[str]:
    """Every passage that holds a figure, as the results have it."""
    record = json.loads((RESULTS / "quality-radiology.json").read_text())
    noisy = json.loads((RESULTS / "quality-roco.json").read_text())
    figures, roco = noisy["collection"], {row["key"]: row for row in noisy["rows"]}
    ahead = roco["ours-fitted"]["against"]
    rows = {row["key"]: row for row in record["rows"]}
    sides, ours, cnn = record["collection"], rows["ours"], rows["cnn-tuned"]
    f1 = {key: f"{row['f1']:.3f}" for key, row in rows.items()}
    (low, high), side = ours["interval"], ours["chosen"]["interval_on_training_side"]
    recipes = [f1[k] for k in ("top-r", "relative-drop", "rank-weights", "rank-weights-tuned")]
    cheaper = cnn["build"]["cpu_seconds"] / ours["build"]["cpu_seconds"]
    (throughput,), (tuning,) = last_run("throughput"), last_run("tuning")
    (turns,) = last_run("tuning_before")
    wall, cpu = (
        {name: median(values) for name, values in throughput[key].items()}
        for key in ("images_per_second", "images_per_cpu_second")
    )
    starts = {name: median(values) for name, values in throughput["start_cpu_seconds"].items()}
    load_of = {record["part"]: record for record in load("service_load", RESULTS)}
    lone, clients = load_of["b"], load_of["a"]
    times = {key: rows[key]["build"]["cpu_seconds"] / ours["build"]["cpu_seconds"] for key in rows}
    (mixed,) = [r["runs"] for r in last_run("ensembles") if r["what"] == "test side"]
    spent, rates = (
        {name: median(values) for name, values in clients[key].items()}
        for key in ("cpu_ms_per_image", "images_per_second")
    )
    last = load_of["d"]["rss"][-1]
    return [
        f"{sides['train'] + sides['test']:,} radiological images from six public sources "
        f"({sides['train']:,} train, {sides['test']} test",
        f"F1 **{f1['ours']}** (95 % interval {low:.3f} to {high:.3f})",
        f"expected {ours['chosen']['f1_on_training_side']:.3f} ({side[0]:.3f} to {side[1]:.3f})",
        "| " + " | ".join(f"{v['f1']:.3f}" for _, v in sorted(ours["by"].items())) + " |",
        f"two encoders at two sizes {f1['ours-several']}",
        f"1-NN {f1['nearest']}",
        f"published kNN recipes {min(recipes)} to {max(recipes)}",
        f"MLkNN {f1['mlknn']}",
        f"logistic regression {max(f1['logistic'], f1['logistic-expected-f1'])}",
        f"the CNN of the MQ-CSIRO paper {f1['cnn-tuned']} at its best threshold and {f1['cnn']} at "
        f"the paper's, for {cheaper:.0f} times the CPU time",
        f"{f1['ours-fitted']} with an encoder fitted to the training side, for "
        f"{times['ours-fitted']:.0f} times",
        f"fine-tuned in one piece has {f1['finetuned-expected-f1']} for "
        f"{times['finetuned-expected-f1']:.0f} times the CPU time of the index",
        f"three of them have {f1['finetuned-seeds']} for {times['finetuned-seeds']:.0f} times",
        f"with the votes, {mixed['votes and finetuned, half']['f1']:.3f}",
        f"{figures['train'] + figures['test']:,} figures of articles with ROCO's CUIs "
        f"({figures['train']:,} train, {figures['test']} test, "
        f"{figures['concepts'] + figures['unseen_concepts']:,} concepts",
        f"F1 **{roco['ours-fitted']['f1']:.3f}** with a fitted encoder, the fine-tuned network "
        f"{roco[noisy['against']]['f1']:.3f} (ours is ahead by {ahead['difference']:.3f}, "
        f"{ahead['interval'][0]:.3f} to {ahead['interval'][1]:.3f})",
        f"ours without fitting {roco['ours']['f1']:.3f}, the published kNN recipes "
        f"{roco['top-r']['f1']:.3f} and {roco['rank-weights-tuned']['f1']:.3f}, the same network "
        f"at a threshold of 0.5 {roco['finetuned-half']['f1']:.3f}",
        *(
            f"{what} | {wall[name]:.0f} | {cpu[name]:.0f} |"
            for name, what in (
                ("plain", "| a plain fp32 timm loop with PIL"),
                ("script", "FAISS, a vote in NumPy"),
            )
        ),
        *(
            f"{what} | {wall[name]:.0f} | {cpu[name]:.0f} | {cpu[torch]:.0f} |"
            for name, torch, what in (
                ("bare", "bare_torch", "| the bare encoder on ready-made batches (OpenVINO)"),
                ("annotate", "annotate_torch", "| `annotator annotate`, start-up and all"),
                ("annotate_warm", "annotate_torch_warm", "| the same without its start-up"),
            )
        ),
        f"in {starts['annotate']:.2f} CPU seconds, {starts['annotate_torch']:.2f} by torch",
        *(f"{r['peak_mib']:.0f} MiB for {r['images']:,} images" for r in last_run("memory")),
        f"{tuning['n']:,} images and {tuning['concepts']:,} concepts: "
        f"{tuning['fit_cpu_s']:.0f} CPU s to fit, {tuning['compare_lists_cpu_s']:.0f} for the "
        f"neighbour lists of all {len(PENALTIES)} penalties, {tuning['choose_voting_cpu_s']:.0f} "
        f"to choose ({tuning['build_cpu_s']:.0f} in all), {tuning['vote_with_prior_ms']:.2f} ms "
        f"for a vote with a prior, {tuning['vote_ms']:.2f} without",
        f"{turns['n']:,} images of {turns['concepts']:,} concepts: "
        + ", ".join(
            f"{turns[key]:.{digits}f} instead of {turns['before'][key]:.{digits}f} {what}"
            for key, digits, what in (
                ("compare_lists_cpu_s", 1, "CPU seconds for the neighbour lists"),
                ("build_cpu_s", 1, "for all"),
            )
        ),
        f"with 32 clients an image takes {spent['service']:.1f} CPU ms, {spent['annotate']:.1f} by",
        f"{rates['service']:.0f} images/s are {rates['service'] / rates['annotate']:.2f} of its",
        f"a lone client waits {lone['p50_ms']:.1f} ms, {lone['difference_ms']:.1f} ms longer",
        f"with 8 clients p99 is {load_of['c']['p99_over_p50']:.1f} times p50",
        f"recovers in {load_of['e']['seconds_to_recover']:.1f} s",
        f"{load_of['f']['reloads']} reloads under load",
        f"After {last['requests']:,} requests it holds {last['mib']:.0f} MiB",
    ]


def test_every_figure_is_in_the_results() -> None:
    text = " ".join(MEASURED.read_text().split())
    for claim in claims():
        assert claim in text, f"docs/measured.md does not say {claim!r}"
        text = text.replace(claim, "")
    text = re.sub(r"`[^`]*`|\[[^]]*\]\([^)]*\)", "", text)
    # What is no measurement: names of instructions and formats, an HTTP status.
    assert set(re.findall(r"\d+(?:[.,]\d+)?", text)) <= {"512", "16", "19", "429"}


def test_the_figures_of_heatmaps_are_in_the_results() -> None:
    records = load("explanations", RESULTS)
    rows: dict[str, list[str]] = {}
    for of in ("phantoms", "moved", "films"):
        same = [r for r in records if r["of"] == of and "not found" in r]
        lesions = [lesion for r in same for lesion in r["by lesion"].values()]
        found, hit, drawn, right = (
            sum(lesion[key] for lesion in lesions)
            for key in ("concepts", "on the lesion", "drawn", "drawn, on the lesion")
        )
        means = [
            sum(r[key] * r["concepts"] for r in same) / found
            for key in ("chance", "fall", "fall of random ones")
        ]
        rows[of] = [
            f"{hit} of {found}: {hit / found:.2f}",
            f"{right} of {drawn}: {right / drawn:.2f}",
            f"{means[0]:.2f}",
            f"{means[1]:.3f}",
            f"{means[2]:.3f}",
        ]
    text = (ROOT / "docs" / "explain.md").read_text()
    for what, cells in zip(
        ("the hottest cell touches the lesion", "the same, of heatmaps that are drawn",
         "a random cell does", "d(c) falls by", "by, for random tenths"),
        zip(*rows.values(), strict=True),
        strict=True,
    ):  # fmt: skip
        line = f"| {what} | {' | '.join(cells)} |"
        assert line in text, f"docs/explain.md does not say {line!r}"
    (rules,) = [r for r in records if r["of"] == "images" and "upper quartile" in r][-1:]
    for rule, words in (("mean", "mean"), ("upper quartile", "upper quartile"), ("all", "highest")):
        own, other = rules[rule]["own"], rules[rule]["of another image"]
        line = f"| the {words} | {own:.2f} | {other:.2f} |"
        assert line in text, f"docs/explain.md does not say {line!r}"
