"""`annotator tune`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, say, write_result
from annotator.cli.guarantee import render_costs
from annotator.cli.options import VotingOptions, index_option, json_option, voting_options
from annotator.cli.sections import Command
from annotator.render.text_table import Row, columns, section

if TYPE_CHECKING:
    from annotator.knn.grid_search import Tuned
    from index.protocols import IndexLocation


@click.command("tune", cls=Command, short_help="Tune the voting parameters of an index again.")
@index_option
@voting_options
@json_option
def tune_command(place: IndexLocation, voting: VotingOptions, as_json: bool) -> int:
    """Retune the voting parameters of an index; parameters given as options are fixed.

    `build-index` already tunes them. Tuning is a grid search over the neighbour lists stored by the
    build, across patients, so it needs no validation set. The chosen parameters, their expected F1
    and the tried grid are stored in a new version of the index, with what the guarantees of
    `annotate --guarantee` cost. What the build said of a new source (--holdout-groups) is kept only
    if the parameters stay the same.

    \b
    annotator tune
    annotator tune --decider threshold
    annotator tune --k 10 --json
    annotator tune --objective macro-f1
    """
    from annotator.indexing.build import tune_index

    start = voting.override()  # also checks the options
    made = tune_index(place, voting=start if voting.given else None, fixed=voting.given)
    if as_json:
        guarantees = [cost.to_dict() for cost in made.guarantees]
        facts = {"version": made.version, **made.tuned.to_dict(), "guarantees": guarantees}
        write_result(json.dumps(facts, indent=2) + "\n", None)
    say_tuned(made.tuned)
    for line in render_costs(made.guarantees):
        say(line)
    say(f"{place}: version {made.version}.")
    return EXIT_OK


def say_tuned(tuned: Tuned) -> None:
    """Print the chosen voting parameters and their F1; for macro F1, what it gains and costs."""
    from annotator.knn.voting import BANDS

    voting = tuned.voting
    kernel = f"{voting.kernel} kernel, beta {voting.beta:g}"
    decider: str = voting.decider
    if voting.decider == "threshold":
        decider += f" {voting.threshold:g}"
    elif voting.decider == "macro-f1":
        decider += " " + "/".join(f"{share:.3f}" for share in voting.macro_thresholds or ())
    heads = f"weight of the heads {voting.head_weight:g}, " if voting.head_weight else ""
    estimate, expected = estimate_in_words(tuned.to_dict())
    say(
        f"Voting tuned across patients: k {voting.k}, {kernel}, "
        f"{heads}prior {voting.prior:g}, {decider}; {estimate}."
    )
    say(f"Expect {expected}.")
    if voting.assume_incomplete:
        say(
            "All this is measured against the labels that were given: as some are missing, it is "
            "too low."
        )
    if voting.decider == "macro-f1":
        rows: list[Row] = [
            [
                "f1 (the default)" if objective == "f1" else objective,
                earned["f1"],
                earned["macro_f1"],
                *("-" if recall is None else f"{recall:.3f}" for recall in earned["recall"]),
            ]
            for objective, earned in tuned.objectives.items()
        ]
        header = ["objective", "mean F1 of images", "mean F1 of concepts", *BANDS]
        title = "What each objective earns; recall of the concepts with so many images"
        for line in section(title, columns(header, rows))[1:]:
            say(line)


def estimate_in_words(tuning: Mapping[str, Any]) -> list[str]:
    """The F1 of the index's own images with its interval, and what to expect of new ones.

    Args:
        tuning: `Tuned.to_dict`; that of an earlier version has no groups, and predicts nothing.
    """
    low, high = tuning["interval"]
    over = f" over {tuning['groups']:,} groups" if "groups" in tuning else ""
    estimate = (
        f"F1 {tuning['f1']:.4f} (95% interval {low:.3f} to {high:.3f}{over}) "
        f"on {tuning['images']} images"
    )
    if "predicted" not in tuning:
        return [estimate]
    low, high = tuning["predicted"]
    return [
        estimate,
        f"{low:.3f} to {high:.3f} on {tuning['predicted_images']:,} new images like these",
    ]


def new_source_in_words(new_source: Mapping[str, Any]) -> str:
    """The F1 to expect of a new source, and that of each that was left out.

    Args:
        new_source: `NewSource.to_dict`.
    """
    each = ", ".join(
        f"{name} {found['f1']:.3f} ({found['images']:,} images)"
        for name, found in new_source["sources"].items()
    )
    return (
        f"F1 {new_source['f1']:.3f} on {new_source['images']:,} images, each annotated by those of "
        f"other sources: {each}"
    )
