"""Options that several commands share.

A command gets a group of options as one typed argument, such as `voting: VotingOptions`: a frozen
dataclass with a field for each option. `options_as` makes the decorator that declares the options,
gathers their values in the dataclass and passes it on, so that mypy checks every use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import say
from annotator.cli.sections import Decorator, option

if TYPE_CHECKING:
    from annotator.collection import Collection, OnDuplicate, OnMismatch
    from annotator.images.ref import ImageRef
    from annotator.knn.voting import Decider, Kernel, Voting
    from index.protocols import IndexLocation

_FOLDER_TYPES = ("auto", "flat", "scan", "ivf", "compressed")
_INDEX_TYPES = (*_FOLDER_TYPES, "hnsw", "gpu-flat", "gpu-ivf", "gpu-cagra")  # the last are Milvus's


def file_path(**options: Any) -> click.Path:
    """Type of a path; it is checked by what reads or writes the file."""
    return click.Path(path_type=Path, **options)


def stacked(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of `--help`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for add_option in reversed(options):
            command = add_option(command)
        return command

    return decorate


def options_as(argument: str, group: type[Any], *options: Decorator) -> Decorator:
    """Options that a command gets as one argument.

    Args:
        argument: Name of the command's parameter.
        group: Type of the parameter: a dataclass with a field for each option.
        options: The options; each has the parameter name of a field.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        groups: dict[str, type[Any]] | None = getattr(command, "option_groups", None)
        if groups is None:
            command, groups = _gathering(command)
        groups[argument] = group
        return stacked(*options)(command)

    return decorate


def _gathering(
    command: Callable[..., Any],
) -> tuple[Callable[..., Any], dict[str, type[Any]]]:
    """A command that gathers option groups, and those groups by argument, to be filled."""
    groups: dict[str, type[Any]] = {}

    @functools.wraps(command)
    def with_groups(**values: Any) -> Any:
        for argument, group in groups.items():
            own = {field.name: values.pop(field.name) for field in fields(group)}
            values[argument] = group(**own)
        return command(**values)

    with_groups.option_groups = groups  # type: ignore[attr-defined]
    return with_groups, groups


class LocationType(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.5
    """Location of an index, a folder or an address."""

    name = "index"

    def convert(self, value: Any, param: Any, ctx: Any) -> IndexLocation:
        """The location that a path or an address names."""
        from index.locations import locate

        return locate(value)


index_option = option(
    "Index",
    "--index",
    "place",
    envvar="ANNOTATOR_INDEX",
    default="concept-index",
    type=LocationType(),
    metavar="INDEX",
    help="The index: a folder, or milvus://HOST:PORT/NAME (environment: ANNOTATOR_INDEX).",
)

output_option = option(
    "Output", "--output", type=file_path(dir_okay=False), help="File to write instead of stdout."
)

zip_option = option(
    "Output", "--zip", "zipped", is_flag=True, help="Write a zip that holds submission.csv."
)

json_option = option("Output", "--json", "as_json", is_flag=True, help="Print JSON.")

names_option = option("Input", "--names", type=file_path(), help="Table with each CUI's name.")

split_option = option(
    "Input", "--split", metavar="FILE[:COLUMN]", help="Table with each image's side of a split."
)

only_option = option(
    "Input", "--only", metavar="SIDE", help="Use the images of this side alone, such as train."
)

side_options = stacked(split_option, only_option)

groups_option = option(
    "Input", "--groups", metavar="FILE[:COLUMN]", help="Table with each image's patient or study."
)

on_duplicate_option = option(
    "Input",
    "--on-duplicate",
    type=click.Choice(["fail", "first"]),
    default="fail",
    help="If two images have the same id: stop, or use the first.",
)

device_option = option(
    "Running",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Device for the encoder (and the search, with cuda).",
)

index_type_options = stacked(
    option(
        "Index",
        "--index-type",
        type=click.Choice(_INDEX_TYPES),
        help="Search: exact (flat, scan) or approximate (ivf, compressed); auto chooses by the "
        "number of vectors. Milvus has hnsw and gpu-... instead of scan.",
    ),
    option(
        "Index",
        "--target-recall",
        type=click.FloatRange(0, 1, min_open=True),
        help="Share of the true neighbours that an approximate search should find (0.98); 1: all.",
    ),
)


def find_images_of(images: str, on_duplicate: OnDuplicate) -> list[ImageRef]:
    """The images that IMAGES names (`find_images`); other files are counted on stderr."""
    from annotator.images.sources import find_images

    found = find_images(images, on_duplicate=on_duplicate)
    if found.ignored:
        say(f"{len(found.ignored)} files are not images and are ignored: {found.ignored[0]}, …")
    return found.images


@dataclass(frozen=True)
class SelectionOptions:
    """Which of IMAGES to use."""

    ids_file: Path | None
    split: str | None
    only: str | None
    on_duplicate: OnDuplicate

    def find(self, images: str) -> list[ImageRef]:
        """The selected ones of IMAGES, sorted by id or in the order of --ids."""
        from annotator.images.ref import in_order_of
        from annotator.tables.formats import read_ids, select_side

        found = find_images_of(images, self.on_duplicate)
        ids = [ref.id for ref in found] if self.ids_file is None else read_ids(self.ids_file)
        side = select_side(ids, self.split, self.only)
        return in_order_of([id_ for id_ in ids if id_ in side], found)


selection_options = options_as(
    "selection",
    SelectionOptions,
    option(
        "Input",
        "--ids",
        "ids_file",
        type=file_path(),
        help="Use the images with these ids, in this order.",
    ),
    side_options,
    on_duplicate_option,
)


@dataclass(frozen=True)
class CollectionOptions:
    """Tables that belong to IMAGES and CONCEPTS, and which of the images to use."""

    split: str | None
    only: str | None
    groups: str | None
    captions: Path | None
    names: Path | None
    on_duplicate: OnDuplicate

    def read(self, images: str, concepts: str | None, *, on_mismatch: OnMismatch) -> Collection:
        """IMAGES with their CONCEPTS and the contents of the tables (`read_collection`)."""
        from annotator.collection import read_collection

        return read_collection(
            images,
            concepts,
            names=self.names,
            captions=self.captions,
            groups=self.groups,
            split=self.split,
            only=self.only,
            on_mismatch=on_mismatch,
            on_duplicate=self.on_duplicate,
        )


collection_options = options_as(
    "tables",
    CollectionOptions,
    side_options,
    groups_option,
    option("Input", "--captions", type=file_path(), help="Table with each image's caption."),
    names_option,
    on_duplicate_option,
)


@dataclass(frozen=True)
class VotingOptions:
    """Voting parameters; None stands for what the index records, or for the default."""

    k: int | None = None
    kernel: Kernel | None = None
    beta: float | None = None
    prior: float | None = None
    decider: Decider | None = None
    threshold: float | None = None
    top_r: int | None = None
    min_score: float | None = None

    @property
    def given(self) -> list[str]:
        """Names of the parameters that are set."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def override(self, recorded: Voting | None = None) -> Voting:
        """The recorded (or default) voting parameters, except for those that are set.

        Raises:
            click.UsageError: They do not go together.
        """
        from annotator.knn.voting import Voting

        changed = {name: getattr(self, name) for name in self.given}
        try:
            voting = replace(recorded or Voting(), **changed)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if self.threshold is not None and voting.decider != "threshold":
            raise click.UsageError("--threshold belongs to --decider threshold.")
        if self.top_r is not None and voting.decider != "top-r":
            raise click.UsageError("--top-r belongs to --decider top-r.")
        return voting


voting_options = options_as(
    "voting",
    VotingOptions,
    option("Voting", "--k", type=click.IntRange(1), help="Number of neighbours that vote."),
    option(
        "Voting",
        "--kernel",
        type=click.Choice(["exponential", "inverse", "rank", "uniform"]),
        help="How a neighbour's weight falls with its distance or rank.",
    ),
    option("Voting", "--beta", type=click.FloatRange(0), help="Sharpness of the kernel."),
    option(
        "Voting",
        "--prior",
        type=click.FloatRange(0),
        help="Weight of the concepts' frequencies, in typical neighbours.",
    ),
    option(
        "Voting",
        "--decider",
        type=click.Choice(["expected-f1", "threshold", "top-r"]),
        help="Decision rule, from votes to a set of concepts.",
    ),
    option(
        "Voting",
        "--threshold",
        type=click.FloatRange(0, 1),
        help="With --decider threshold: least share of the votes.",
    ),
    option(
        "Voting",
        "--top-r",
        type=click.IntRange(0),
        help="With --decider top-r: number of concepts (default: the neighbours' mean).",
    ),
    option(
        "Voting",
        "--min-score",
        type=click.FloatRange(0, 1),
        help="Drop concepts with a smaller share of the votes.",
    ),
)
