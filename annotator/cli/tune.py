"""`annotator tune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import EXIT_OK, say, write_result
from annotator.cli.options import (
    given_voting,
    index_option,
    json_option,
    voting_of,
    voting_options,
)

if TYPE_CHECKING:
    from annotator.knn.grid_search import Tuned
    from index.protocols import IndexLocation


@click.command("tune")
@index_option
@voting_options
@json_option
def tune_command(place: IndexLocation, as_json: bool, **options: Any) -> int:
    """Choose the voting parameters of an index again; those that are given stay as they are.

    `build-index` does it already. This works on the neighbour lists that the build has kept, of
    images of other patients, so no validation set is needed; the choice, the F1 to be expected and
    everything that was tried go into a new version of the index.

    \b
    annotator tune
    annotator tune --decider threshold
    annotator tune --k 10 --json
    """
    import json

    from annotator.indexing.build import tune_index

    version, tuned = tune_index(place, voting=voting_of(options), fixed=given_voting(options))
    if as_json:
        write_result(json.dumps({"version": version, **tuned.to_dict()}, indent=2) + "\n", None)
    say_tuned(tuned)
    say(f"{place}: version {version}.")
    return EXIT_OK


def say_tuned(tuned: Tuned) -> None:
    """What was chosen, and how good it is."""
    voting, (low, high) = tuned.voting, tuned.interval
    kernel = f"{voting.kernel} kernel, beta {voting.beta:g}"
    decider = voting.decider + (f" {voting.threshold:g}" if voting.decider == "threshold" else "")
    say(
        f"Voting tuned with other patients' images: k {voting.k}, {kernel}, "
        f"prior {voting.prior:g}, {decider}; "
        f"F1 {tuned.f1:.4f} ({low:.3f} to {high:.3f}) on {tuned.images} images."
    )
