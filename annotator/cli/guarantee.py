"""The options of guarantees, and the table of what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import say
from annotator.cli.options import options_as, refuse
from annotator.cli.sections import option
from annotator.render.text_table import Row, columns, section

if TYPE_CHECKING:
    from annotator.images.ref import ImageRef
    from annotator.knn.guarantees import Cost, Guarantee, Promises
    from index.protocols import Index

# What chooses sets in another way, or mixes in what no neighbour list knows.
_OTHER_SETS = (
    "objective",
    "decider",
    "threshold",
    "top_r",
    "min_score",
    "hierarchy",
    "classifiers",
)


class GuaranteeType(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.5
    """Guarantee such as missed=0.1."""

    name = "guarantee"

    def convert(self, value: Any, param: Any, ctx: Any) -> Guarantee:
        """Parse KIND=RATE."""
        from annotator.knn.guarantees import Guarantee

        try:
            return Guarantee.parse(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@dataclass(frozen=True)
class GuaranteeOptions:
    """What the sets of concepts are to keep on average; None for no guarantee."""

    guarantee: Guarantee | None = None
    guarantee_by: str | None = None

    def check(self) -> None:
        """Check that no other option contradicts.

        Raises:
            click.UsageError: One does.
        """
        if self.guarantee is not None:
            refuse(_OTHER_SETS, "--guarantee chooses the sets of concepts.")
        elif self.guarantee_by is not None:
            raise click.UsageError("--guarantee-by requires --guarantee.")

    def read_by(self, stored: Index, refs: Sequence[ImageRef]) -> dict[str, str] | None:
        """What the images of an index, and others, are counted with, by id.

        Raises:
            AnnotatorError: The table cannot be read, or the index is on a server.
        """
        if self.guarantee_by is None:
            return None
        from annotator.evaluation.measures import read_groups
        from annotator.knn.guarantees import ids_of

        ids = list(dict.fromkeys([*ids_of(stored), *(ref.id for ref in refs)]))
        notes: list[str] = []
        of_id = read_groups(self.guarantee_by, ids, notes)
        for note in notes:
            say(note)
        return {id_: name for id_, name in zip(ids, of_id or (), strict=True) if name}


NO_GUARANTEE = GuaranteeOptions()

guarantee_options = options_as(
    "guarantee",
    GuaranteeOptions,
    option(
        "Voting",
        "--guarantee",
        type=GuaranteeType(),
        metavar="missed=RATE|invented=RATE",
        help="Choose sets that miss at most this share of an image's concepts on average, or of "
        "which at most this share is wrong (conformal risk control on the index's own images; for "
        "new patients like those of the index).",
    ),
    option(
        "Voting",
        "--guarantee-by",
        metavar="FILE[:COLUMN]",
        help="Keep --guarantee within each source, or whatever this table says of the index's "
        "images and of the new ones.",
    ),
)


def say_promises(promises: Promises, refs: Sequence[ImageRef]) -> None:
    """Say how a guarantee is kept for some images.

    Raises:
        AnnotatorError: It cannot be, for one of them.
    """
    for kept in dict.fromkeys(promises.of(ref.id) for ref in refs):
        asked = kept.guarantee
        what = {
            "missed": f"on average at most {asked.rate:.3g} of an image's concepts are missed",
            "invented": f"on average at most {asked.rate:.3g} of an image's set is wrong",
        }[asked.kind]
        say(
            f"Guarantee{f' for {kept.by}' if kept.by else ''}: {what}, for new patients like those "
            f"of {kept.images:,} images of the index ({kept.groups:,} groups). Concepts with a "
            f"share of {kept.voting.threshold:.3g} or more of the vote are chosen."
        )


def render_costs(costs: Sequence[Cost]) -> list[str]:
    """Render what guarantees cost as a table, and which cannot be given; nothing of nothing."""
    if not costs:
        return []
    rows: list[Row] = [
        [cost.guarantee or "none", cost.concepts, cost.f1, cost.missed, cost.invented]
        for cost in costs
        if cost.concepts is not None
        and cost.f1 is not None
        and cost.missed is not None
        and cost.invented is not None
    ]
    lines = columns(["guarantee", "concepts", "F1", "missed", "invented"], rows, decimals=3)
    lines += [
        f"{cost.guarantee} cannot be given: {cost.least:.3f} is the least"
        for cost in costs
        if cost.concepts is None
    ]
    return section("What guarantees cost, on the index's own images", lines)
