"""Captions against the true ones: ROUGE-1 and BERTScore with intervals, alone and paired."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from annotator.errors import FormatError
from annotator.evaluation.measures import Measured, measure
from annotator.evaluation.rouge import normalise, rouge1
from annotator.tables.captions import read_caption_run
from annotator.tables.formats import read_captions, read_column

if TYPE_CHECKING:
    from annotator.evaluation.bertscore import BertScorer

_BERTSCORE = {
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
    ids: Collection[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Measured:
    """Score captions as the task does: normalised, image by image, the mean of all.

    Args:
        run: The captions, `ID,Caption`, text or a zip that holds it.
        truth: The true captions.
        against: Another run, to be compared with on the same images.
        bertscore: Computes BERTScore; None leaves it out. A token's weight (idf) is counted over
            the true captions that are scored.
        by: `FILE:COLUMN`, the column that groups the images.
        ids: Score these images of the truth alone.
        resamples: Number of bootstrap samples, at least 1.
        seed: Of the bootstrap.

    Returns:
        Measures `rouge1` and, with a scorer, `bertscore_f1`, `bertscore_precision` and
        `bertscore_recall`, of the images in the order of the truth.

    Raises:
        FormatError: A file cannot be read, or a run has not exactly the images of the truth.
    """
    everything = read_captions(truth)
    chosen = None if ids is None else set(ids)
    true = {id_: text for id_, text in everything.items() if chosen is None or id_ in chosen}
    if not true:
        raise FormatError(f"{truth} has none of the images to score", "Check the ids.")
    found = _read(run, everything, true)
    other = None if against is None else _read(against, everything, true)
    group_of = read_column(by) if by is not None else None
    groups = None if group_of is None else [group_of.get(id_, "") for id_ in true]

    def scores(captions: Mapping[str, str]) -> dict[str, list[float]]:
        by_name = {"rouge1": [rouge1(text, captions[id_]) for id_, text in true.items()]}
        if bertscore is not None:
            by_name |= _bertscores(bertscore, true, captions)
        return by_name

    mine, others = scores(found), {} if other is None else scores(other)
    empty = sum(not found[id_] for id_ in true)
    return Measured(
        unit="images",
        ids=tuple(true),
        measures={
            name: measure(
                _BERTSCORE.get(name, "ROUGE-1"),
                values,
                groups=groups,
                others=others.get(name),
                resamples=resamples,
                seed=seed,
            )
            for name, values in mine.items()
        },
        notes=(f"{empty:,} captions of the run are empty.",) if empty else (),
        facts={"empty": empty, "bertscore": None if bertscore is None else bertscore.describe()},
    )


def _read(path: Path | str, everything: Collection[str], scored: Collection[str]) -> dict[str, str]:
    run = read_caption_run(path)
    unknown = next((id_ for id_ in run if id_ not in everything), None)
    if unknown is not None:
        raise FormatError(
            f"{path}: the id {unknown!r} is not among the true captions",
            "A run has the images of the truth and no others.",
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
    """Normalised as for ROUGE; two empty captions count as 1."""
    truths = [normalise(text) for text in true.values()]
    found = scorer.score(truths, [normalise(captions[id_]) for id_ in true])
    for i, id_ in enumerate(true):
        if not true[id_] and not captions[id_]:
            found[i] = (1.0, 1.0, 1.0)
    precision, recall, f1 = (list(values) for values in zip(*found, strict=True))
    return {"bertscore_f1": f1, "bertscore_precision": precision, "bertscore_recall": recall}
