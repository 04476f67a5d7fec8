"""Evaluation of captions: ROUGE-1 and BERTScore with intervals, alone and paired."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from annotator.errors import FormatError
from annotator.evaluation.measures import Measured, measure, read_group_numbers, read_groups
from annotator.evaluation.rouge import normalise, rouge1
from annotator.ids import unknown_hint
from annotator.tables.captions import read_caption_run
from annotator.tables.formats import read_captions

if TYPE_CHECKING:
    from annotator.evaluation.bertscore import BertScorer

_NAMES = {
    "rouge1": "ROUGE-1",
    "bertscore_f1": "BERTScore F1",
    "bertscore_precision": "BERTScore precision",
    "bertscore_recall": "BERTScore recall",
}


def evaluate_captions(
    run: Path | str,
    truth: Path | str,
    *,
    against: Path | str | None = None,
    bertscore: BertScorer | None = None,
    by: str | None = None,
    groups: str | None = None,
    ids: Collection[str] | None = None,
) -> Measured:
    """Score normalised captions image by image and average, as in the task.

    Args:
        run: Captions, `ID,Caption`, as text or in a zip.
        truth: Ground-truth captions.
        against: Other run to compare with on the same images.
        bertscore: Scorer for BERTScore, with idf over the scored ground truth; None for ROUGE-1
            only.
        by: `FILE[:COLUMN]` with what each image is counted with.
        groups: `FILE[:COLUMN]` with the patient or study of each image, over which intervals are.
        ids: Subset of images to score; None for all.

    Returns:
        Measures `rouge1` and, with a scorer, `bertscore_f1`, `bertscore_precision` and
        `bertscore_recall`, of the images in the order of the truth.

    Raises:
        FormatError: A file cannot be read, or the images of a run and the truth differ.
    """
    everything = read_captions(truth)
    chosen = None if ids is None else set(ids)
    true = {id_: text for id_, text in everything.items() if chosen is None or id_ in chosen}
    if not true:
        raise FormatError(f"{truth} has none of the images to score", "Check the ids.")
    found = _read(run, everything, true)
    other = None if against is None else _read(against, everything, true)
    notes: list[str] = []
    counted_with = read_groups(by, tuple(true), notes)
    numbers = read_group_numbers(groups, tuple(true), notes)

    def scores(captions: Mapping[str, str]) -> dict[str, list[float]]:
        by_name = {"rouge1": [rouge1(text, captions[id_]) for id_, text in true.items()]}
        if bertscore is not None:
            by_name |= _bertscores(bertscore, true, captions)
        return by_name

    mine, others = scores(found), {} if other is None else scores(other)
    empty = sum(not found[id_] for id_ in true)
    if empty:
        notes.append(f"{empty:,} captions of the run are empty.")
    model = None if bertscore is None else {"model": bertscore.model, "layer": bertscore.layer}
    return Measured(
        unit="images",
        ids=tuple(true),
        measures={
            name: measure(
                _NAMES[name], values, by=counted_with, others=others.get(name), groups=numbers
            )
            for name, values in mine.items()
        },
        notes=tuple(notes),
        facts={"empty": empty, "bertscore": model},
    )


def _read(path: Path | str, everything: Collection[str], scored: Collection[str]) -> dict[str, str]:
    run = read_caption_run(path)
    unknown = next((id_ for id_ in run if id_ not in everything), None)
    if unknown is not None:
        raise FormatError(
            f"{path}: the id {unknown!r} is not among the true captions",
            unknown_hint(unknown, everything),
        )
    missing = [id_ for id_ in scored if id_ not in run]
    if missing:
        raise FormatError(
            f"{path} lacks {len(missing)} of {len(scored)} images, such as {missing[0]!r}",
            "A run has one row for each image; an image without caption has its id and a comma.",
        )
    return run


def _bertscores(
    scorer: BertScorer, true: Mapping[str, str], captions: Mapping[str, str]
) -> dict[str, list[float]]:
    """BERTScore of captions normalised as for ROUGE; two empty captions score 1."""
    truths = [normalise(text) for text in true.values()]
    found = scorer.score(truths, [normalise(captions[id_]) for id_ in true])
    for i, id_ in enumerate(true):
        if not true[id_] and not captions[id_]:
            found[i] = (1.0, 1.0, 1.0)
    precision, recall, f1 = (list(values) for values in zip(*found, strict=True))
    return {"bertscore_f1": f1, "bertscore_precision": precision, "bertscore_recall": recall}
