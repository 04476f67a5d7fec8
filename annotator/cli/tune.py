"""`annotator tune`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from annotator.cli.console import EXIT_OK, say, write_result
from annotator.cli.options import VotingOptions, index_option, json_option, voting_options
from annotator.cli.sections import Command

if TYPE_CHECKING:
    from annotator.knn.grid_search import Tuned
    from index.protocols import IndexLocation


@click.command("tune", cls=Command)
@index_option
@voting_options
@json_option
def tune_command(place: IndexLocation, voting: VotingOptions, as_json: bool) -> int:
    """Tune the voting parameters of an index again; those that are given are not tuned.

    `build-index` does it already. Tuning uses the neighbour lists that the build has kept, of
    images of other patients, so it needs no validation set. The parameters chosen, their expected
    F1 and all that were tried go into a new version of the index.

    \b
    annotator tune
    annotator tune --decider threshold
    annotator tune --k 10 --json
    """
    from annotator.indexing.build import tune_index

    version, tuned = tune_index(place, voting=voting.override(), fixed=voting.given)
    if as_json:
        write_result(json.dumps({"version": version, **tuned.to_dict()}, indent=2) + "\n", None)
    say_tuned(tuned)
    say(f"{place}: version {version}.")
    return EXIT_OK


def say_tuned(tuned: Tuned) -> None:
    """Say which voting parameters were chosen, and how good they are."""
    voting, (low, high) = tuned.voting, tuned.interval
    kernel = f"{voting.kernel} kernel, beta {voting.beta:g}"
    decider = voting.decider + (f" {voting.threshold:g}" if voting.decider == "threshold" else "")
    say(
        f"Voting tuned with other patients' images: k {voting.k}, {kernel}, "
        f"prior {voting.prior:g}, {decider}; "
        f"F1 {tuned.f1:.4f} ({low:.3f} to {high:.3f}) on {tuned.images} images."
    )
