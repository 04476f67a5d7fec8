"""`annotator ensemble`, and the classifiers of `annotate --with`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import EXIT_OK, say, write_result
from annotator.cli.options import file_path, output_option, zip_option
from annotator.cli.sections import Command, option
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.knn.ensemble import ChosenWeights, Rule
    from annotator.knn.members import Classifiers, Member
    from annotator.knn.voting import Voting
    from index.protocols import Index

with_option = option(
    "Voting",
    "--with",
    "classifiers",
    multiple=True,
    metavar="FILE[:WEIGHT|:FILE]",
    help="Mix in a classifier's probabilities (.npz or a table) with this weight, the votes "
    "keeping the rest (default: equal shares), or with the weight that is best on the index's own "
    "images, of which the second file has out-of-fold probabilities (repeatable).",
)


@click.command("ensemble", cls=Command)
@click.argument("members", nargs=-1, required=True, metavar="MEMBER...")
@click.option(
    "--rule",
    type=click.Choice(["weights", "vote", "union", "intersection"]),
    default="weights",
    show_default=True,
    help="weights: the set with the highest expected F1 under the weighted members; vote: "
    "concepts that at least half of them have; union; intersection.",
)
@click.option(
    "--truth",
    metavar="FILE|INDEX",
    help="Concepts of the images on which weights are chosen (default: of the first index among "
    "the MEMBERs).",
)
@click.option(
    "--ids", "ids_file", type=file_path(), help="File of ids: these images, in this order."
)
@click.option(
    "--format",
    "year",
    default="2026",
    show_default=True,
    type=click.Choice(["2019", "2021", "2024", "2025", "2026", "scores"]),
    help="Submission format by year, or the weighted scores of all concepts (.npz).",
)
@zip_option
@output_option
def ensemble_command(
    members: tuple[str, ...],
    rule: Rule,
    truth: str | None,
    ids_file: Path | None,
    year: str,
    zipped: bool,
    output: Path | None,
) -> int:
    """Combine runs and score files of the same images into one run.

    A MEMBER is a run of any year or a file of scores (.npz, or a table with a column for each
    concept), and may be followed by its weight: FILE:2. Or by what the same model says of images
    whose concepts are known, FILE:OTHER, and then the weights are chosen that have the highest F1
    there: OTHER is a run or scores, out of fold, or the index that the scores are from, whose
    neighbour lists tell. Rows are in the order of the first member.

    \b
    annotator ensemble a.csv b.csv c.csv --rule vote > run.csv
    annotator ensemble a.csv:2 probs.npz:1 --zip > submission.zip
    annotator ensemble votes.npz:concept-index probs.npz:out_of_fold.npz > run.csv
    """
    from annotator.knn.members import align, read_member
    from annotator.knn.voting import Voting
    from annotator.tables.formats import read_ids
    from annotator.tables.run import local_ids_note, render_run, zip_run
    from annotator.tables.scores import Scores

    if zipped and year == "scores":
        raise click.UsageError("--zip requires a submission format.")
    if year == "scores" and rule != "weights":
        raise click.UsageError("--format scores requires --rule weights: sets have no scores.")
    specs = [split_member(text) for text in members]
    numbers = _numbers([suffix for _, suffix in specs])
    if truth is not None and numbers is not None:
        raise click.UsageError("--truth requires MEMBERs with a second file: FILE:OTHER.")
    read = [read_member(path) for path, _ in specs]
    voting = Voting()
    if numbers is None:
        weights = _tuned(specs, truth, voting)
    else:
        weights = [1.0 if number is None else number for number in numbers]
    if sum(weights) <= 0:
        raise click.UsageError("At least one weight must be above 0.")
    notes: list[str] = []
    ids = list(read[0].ids) if ids_file is None else read_ids(ids_file)
    aligned = align(read, ids, notes)
    for note in notes:
        say(note)
    if year == "scores":
        decisions = aligned.pool.decide(weights, voting)
        labels = aligned.pool.labels
        rows = ((i, d.by_concept()) for i, d in zip(ids, decisions, strict=True))
        write_result(Scores.from_shares(rows, labels.cuis).to_npz(), output)
        return EXIT_OK
    sets = aligned.combine(rule, weights, voting)
    text = render_run(zip(ids, sets, strict=True), year)
    if note := local_ids_note(zip(ids, sets, strict=True)):
        say(note)
    write_result(zip_run(text) if zipped else text, output)
    return EXIT_OK


def read_classifiers(
    texts: Sequence[str],
    image_ids: Sequence[str],
    stored: Index,
    only: Collection[str] | None,
    voting: Voting,
    source: str,
) -> Classifiers | None:
    """Read the classifiers of `--with`, and say what they are about; None without any.

    Args:
        texts: Values of the option.
        image_ids: Ids of the images to annotate.
        stored: Open index.
        only: The concepts that are voted on; None for all.
        voting: Voting parameters.
        source: The index, for messages.

    Raises:
        click.UsageError: Weights are inconsistent or add up to more than 1.
        AnnotatorError: A file is damaged, or has no image or no concept in common.
    """
    from annotator.knn.members import Classifiers, as_scores, read_member, tune_classifiers

    if not texts:
        return None
    specs = [split_member(text) for text in texts]
    numbers = _numbers([suffix for _, suffix in specs])
    notes: list[str] = []
    scores = []
    concepts = stored.concepts.keys() if only is None else only
    for path, _ in specs:
        given = as_scores(read_member(path))
        scores.append(given.only(image_ids, concepts, path, notes))
    for note in notes:
        say(note)
    if numbers is None:
        out_of_fold = [read_member(suffix or "") for _, suffix in specs]
        labels = stored.labels.only(concepts)
        found = tune_classifiers(stored, labels, voting, out_of_fold, source, [])
        _say_chosen(found, ["votes", *(path for path, _ in specs)])
        return Classifiers(tuple(scores), found.weights)
    if None in numbers and any(number is not None for number in numbers):
        raise click.UsageError("Give all files of --with a weight, or none.")
    share = 1.0 / (len(numbers) + 1)
    weights = [share if number is None else number for number in numbers]
    if sum(weights) > 1 + 1e-9:
        raise click.UsageError(
            f"The weights of --with add up to {sum(weights):g}; the votes have what is left of 1."
        )
    return Classifiers(tuple(scores), (max(1.0 - sum(weights), 0.0), *weights))


def split_member(text: str) -> tuple[str, str | None]:
    """Split FILE:SUFFIX; the suffix is None where there is none or the whole is a file's name."""
    path, colon, suffix = text.rpartition(":")
    if not colon or not path or Path(text).exists():
        return text, None
    return path, suffix


def _numbers(suffixes: Sequence[str | None]) -> list[float | None] | None:
    """Weights by member, None where none is given; None altogether if the suffixes are files.

    Raises:
        click.UsageError: A weight is negative, or some members have a second file and others not.
    """
    numbers = [None if suffix is None else _number(suffix) for suffix in suffixes]
    given = [number for number in numbers if number is not None]
    if any(number < 0 or number == float("inf") for number in given):
        raise click.UsageError("A weight cannot be negative or infinite.")
    others = [suffix for suffix, n in zip(suffixes, numbers, strict=True) if suffix and n is None]
    if others and len(others) < len(suffixes):
        raise click.UsageError("Give all files a second file, or none.")
    return None if others else numbers


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number == number else None  # a file may be called "nan"


def _tuned(
    specs: Sequence[tuple[str, str | None]], truth: str | None, voting: Voting
) -> Sequence[float]:
    """Weights chosen on images whose concepts are known."""
    from annotator.indexing.metadata import IndexMetadata
    from annotator.knn.members import index_member, read_member, tune_members
    from index.locations import locate

    members: list[Member] = []
    known: Mapping[str, Sequence[str]] | None = None
    source = ""
    for _, suffix in specs:
        if suffix is None or not Path(suffix).is_dir():
            members.append(read_member(suffix or ""))
            continue
        stored = locate(suffix).open()
        members.append(index_member(stored, IndexMetadata.of(stored).voting, suffix))
        if known is None:
            known, source = _concepts_of(suffix), suffix
    if truth is not None:
        known, source = _concepts_of(truth), truth
    if known is None:
        raise AnnotatorError(
            "Nothing says which concepts the images of the second files have.",
            "Give a table of them, or the index, by --truth.",
        )
    found = tune_members(members, known, voting, source)
    _say_chosen(found, [path for path, _ in specs])
    return found.weights


def _concepts_of(source: str) -> Mapping[str, Sequence[str]]:
    """Concepts by image id, of an index in a folder or of a table."""
    from annotator.tables.labels import read_labels
    from index import open_index

    if not Path(source).is_dir():
        return read_labels(source).concepts
    stored = open_index(Path(source))
    return {image_id: stored.labels.row(row) for row, image_id in enumerate(stored.ids)}


def _say_chosen(found: ChosenWeights, names: Sequence[str]) -> None:
    from annotator.evaluation.measures import bootstrap_interval

    parts = ", ".join(
        f"{name} {weight:g} (alone {alone.mean():.4f})"
        for name, weight, alone in zip(names, found.weights, found.alone, strict=True)
    )
    best = max(found.alone, key=lambda scores: float(scores.mean()))
    low, high = bootstrap_interval((found.f1 - best).tolist())
    say(
        f"Weights chosen on {len(found.f1)} images: {parts}; F1 {found.f1.mean():.4f}, "
        f"{(found.f1 - best).mean():+.4f} over the best alone "
        f"(paired 95% interval {low:+.4f} to {high:+.4f})."
    )
