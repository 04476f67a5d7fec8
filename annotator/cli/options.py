"""Shared options of the commands.

A command receives a group of options as one typed argument, such as `voting: VotingOptions`: a
frozen dataclass with one field per option. The decorator made by `options_as` declares the options
and collects their values in the dataclass, so that mypy checks every use.
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
_INDEX_TYPES = (*_FOLDER_TYPES, "hnsw", "gpu-flat", "gpu-ivf", "gpu-cagra")  # from hnsw on: Milvus


def file_path(**options: Any) -> click.Path:
    """Path type without checks, which are left to the reader or writer of the file."""
    return click.Path(path_type=Path, **options)


def stacked(*options: Decorator) -> Decorator:
    """Combine options into one decorator, in the order of `--help`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for add_option in reversed(options):
            command = add_option(command)
        return command

    return decorate


def options_as(argument: str, group: type[Any], *options: Decorator) -> Decorator:
    """Decorator that passes options to a command as one argument.

    Args:
        argument: Name of the command's parameter.
        group: Type of the parameter: a dataclass with one field per option.
        options: The options; the parameter name of each is a field of `group`.
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
    """Location of an index: a folder or an address."""

    name = "index"

    def convert(self, value: Any, param: Any, ctx: Any) -> IndexLocation:
        """Parse a path or an address."""
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
    help="Index: a folder, or milvus://HOST:PORT/NAME (environment: ANNOTATOR_INDEX).",
)

output_option = option(
    "Output", "--output", type=file_path(dir_okay=False), help="Output file instead of stdout."
)

zip_option = option(
    "Output", "--zip", "zipped", is_flag=True, help="Write a zip with submission.csv."
)

json_option = option("Output", "--json", "as_json", is_flag=True, help="Print JSON.")

names_option = option("Input", "--names", type=file_path(), help="Table with the name of each CUI.")

split_option = option(
    "Input", "--split", metavar="FILE[:COLUMN]", help="Table with the subset (side) of each image."
)

only_option = option(
    "Input", "--only", metavar="SIDE", help="Use only images of this side, such as train."
)

side_options = stacked(split_option, only_option)

groups_option = option(
    "Input",
    "--groups",
    metavar="FILE[:COLUMN]",
    help="Table with the patient or study of each image.",
)

on_duplicate_option = option(
    "Input",
    "--on-duplicate",
    type=click.Choice(["fail", "first"]),
    default="fail",
    help="Images with the same id: fail, or use the first.",
)

device_option = option(
    "Running",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Device for the encoder (and search, with cuda).",
)

index_type_options = stacked(
    option(
        "Index",
        "--index-type",
        type=click.Choice(_INDEX_TYPES),
        help="Search index: exact (flat, scan) or approximate (ivf, compressed); auto chooses by "
        "the number of vectors. Milvus has hnsw and gpu-... instead of scan.",
    ),
    option(
        "Index",
        "--target-recall",
        type=click.FloatRange(0, 1, min_open=True),
        help="Recall to reach by approximate search (default: 0.98; 1: exact).",
    ),
)


def find_images_of(images: str, on_duplicate: OnDuplicate) -> list[ImageRef]:
    """Find IMAGES (see `find_images`) and report ignored files on stderr."""
    from annotator.images.sources import find_images

    found = find_images(images, on_duplicate=on_duplicate)
    if found.ignored:
        say(f"Ignored {len(found.ignored)} files that are not images: {found.ignored[0]}, …")
    return found.images


@dataclass(frozen=True)
class SelectionOptions:
    """Selection of a subset of IMAGES."""

    ids_file: Path | None
    split: str | None
    only: str | None
    on_duplicate: OnDuplicate

    def find(self, images: str) -> list[ImageRef]:
        """Find the selected images, sorted by id or in the order of --ids."""
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
        help="File of ids: use these images, in this order.",
    ),
    side_options,
    on_duplicate_option,
)


@dataclass(frozen=True)
class CollectionOptions:
    """Tables accompanying IMAGES and CONCEPTS, and the selection of a subset."""

    split: str | None
    only: str | None
    groups: str | None
    captions: Path | None
    names: Path | None
    on_duplicate: OnDuplicate

    def read(self, images: str, concepts: str | None, *, on_mismatch: OnMismatch) -> Collection:
        """Read the collection (see `read_collection`) and report mismatches on stderr."""
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
    option("Input", "--captions", type=file_path(), help="Table with the caption of each image."),
    names_option,
    on_duplicate_option,
)


@dataclass(frozen=True)
class VotingOptions:
    """Voting parameters; None for the value recorded in the index, or the default."""

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
        """Override the recorded (or default) voting parameters.

        Raises:
            click.UsageError: Inconsistent options.
        """
        from annotator.knn.voting import Voting

        changed = {name: getattr(self, name) for name in self.given}
        try:
            voting = replace(recorded or Voting(), **changed)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if self.threshold is not None and voting.decider != "threshold":
            raise click.UsageError("--threshold requires --decider threshold.")
        if self.top_r is not None and voting.decider != "top-r":
            raise click.UsageError("--top-r requires --decider top-r.")
        return voting


voting_options = options_as(
    "voting",
    VotingOptions,
    option("Voting", "--k", type=click.IntRange(1), help="Number of voting neighbours."),
    option(
        "Voting",
        "--kernel",
        type=click.Choice(["exponential", "inverse", "rank", "uniform"]),
        help="Weight function of a neighbour's distance or rank.",
    ),
    option("Voting", "--beta", type=click.FloatRange(0), help="Sharpness of the kernel."),
    option(
        "Voting",
        "--prior",
        type=click.FloatRange(0),
        help="Weight of the prior (concept frequencies), in typical neighbours.",
    ),
    option(
        "Voting",
        "--decider",
        type=click.Choice(["expected-f1", "threshold", "top-r"]),
        help="Decision rule from votes to concepts.",
    ),
    option(
        "Voting",
        "--threshold",
        type=click.FloatRange(0, 1),
        help="With --decider threshold: minimum share of the votes.",
    ),
    option(
        "Voting",
        "--top-r",
        type=click.IntRange(0),
        help="With --decider top-r: number of concepts (default: mean of the neighbours).",
    ),
    option(
        "Voting",
        "--min-score",
        type=click.FloatRange(0, 1),
        help="Drop concepts with a smaller share of the votes.",
    ),
)
