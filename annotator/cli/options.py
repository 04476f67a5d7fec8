"""Shared options of the commands.

A command receives a group of options as one typed argument, such as `voting: VotingOptions`: a
frozen dataclass with one field per option. The decorator made by `options_as` declares the options
and collects their values in the dataclass, so that mypy checks every use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from annotator.cli.console import say
from annotator.cli.sections import Decorator, option

if TYPE_CHECKING:
    from annotator.collection import Collection, OnDuplicate, OnMismatch
    from annotator.images.ref import ImageRef
    from annotator.images.sources import FoundImages, IdFrom
    from annotator.knn.voting import Decider, Kernel, Objective, Voting
    from annotator.vectors.table import VectorTable
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


def is_given(parameter: str) -> bool:
    """Whether an option of the current command is given, rather than left at its default."""
    return click.get_current_context().get_parameter_source(parameter) not in _NOT_GIVEN


_NOT_GIVEN = (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def refuse(names: Container[str], reason: str) -> None:
    """Refuse options of the current command, by the names of their parameters.

    Raises:
        click.UsageError: One of them is given; ends with the reason.
    """
    context = click.get_current_context()
    for parameter in context.command.get_params(context):
        name = parameter.name or ""
        if name in names and is_given(name):
            raise click.UsageError(f"{parameter.opts[0]} cannot be given: {reason}")


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

url_prefix_option = option(
    "Output",
    "--url-prefix",
    default="/data/local-files/?d=",
    metavar="PREFIX",
    help="With --format label-studio: address of the folder IMAGES for the browser, before the "
    "path of each image in it.",
)

zip_option = option(
    "Output", "--zip", "zipped", is_flag=True, help="Write a zip with submission.csv."
)

json_option = option("Output", "--json", "as_json", is_flag=True, help="Print JSON.")

label_column_option = option(
    "Input",
    "--label-column",
    multiple=True,
    metavar="NAME",
    help="Column of labels, if it is not found by itself (repeatable).",
)

mapping_option = option(
    "Input",
    "--mapping",
    type=file_path(),
    help="Table with the CUI of each word, from `annotator concepts match`.",
)

names_option = option("Input", "--names", type=file_path(), help="Table with the name of each CUI.")

split_option = option(
    "Input", "--split", metavar="FILE[:COLUMN]", help="Table with the subset (side) of each image."
)

only_option = option(
    "Input",
    "--only",
    metavar="SIDE|id:PATTERN",
    help="Use only images of this side of --split, such as train; or those whose ids match, such "
    "as 'id:*_train_*'.",
)

side_options = stacked(split_option, only_option)

GROUPS_METAVAR = "FILE[:COLUMN]|dicom:KEYWORD"

groups_option = option(
    "Input",
    "--groups",
    metavar=GROUPS_METAVAR,
    help="Patient or study of each image: a table, or an attribute of DICOM files, such as "
    "dicom:PatientID.",
)

device_option = option(
    "Running",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Device for the encoder (and search, with cuda).",
)

engine_option = option(
    "Running",
    "--engine",
    type=click.Choice(["auto", "openvino", "torch"]),
    default="auto",
    help="What runs the encoder; auto: OpenVINO on a CPU where it is installed and can, else "
    "torch.",
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


class ConditionType(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.5
    """Condition on a DICOM attribute: its keyword and the values of which it must have one."""

    name = "condition"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, tuple[str, ...]]:
        """Parse KEYWORD=VALUE,…."""
        from annotator.errors import AnnotatorError
        from annotator.images.dicom.tags import check_keyword

        keyword, _, listed = value.partition("=")
        values = tuple(text.strip() for text in listed.split(",") if text.strip())
        if not values:
            self.fail(f"{value!r} is not KEYWORD=VALUE, such as Modality=DX,CR.", param, ctx)
        try:
            check_keyword(keyword.strip())
        except AnnotatorError as error:
            self.fail(f"{error.message} {error.hint}", param, ctx)
        return keyword.strip(), values


@dataclass(frozen=True)
class FindingOptions:
    """How IMAGES are found and identified."""

    id_from: IdFrom
    where: tuple[tuple[str, tuple[str, ...]], ...]
    on_duplicate: OnDuplicate

    @property
    def conditions(self) -> dict[str, tuple[str, ...]]:
        """Values by keyword that --where asks for; those of a repeated keyword all count."""
        conditions: dict[str, tuple[str, ...]] = {}
        for keyword, values in self.where:
            conditions[keyword] = (*conditions.get(keyword, ()), *values)
        return conditions

    def find_images(self, images: str | VectorTable, groups: str | None = None) -> FoundImages:
        """Find IMAGES, with the groups of "dicom:KEYWORD", and report what is left out on stderr.

        Entries that cannot be read are among the images. Rows of vectors are found likewise.
        """
        from annotator.collection import dicom_keyword
        from annotator.images.sources import find_images

        if isinstance(images, str):
            found = find_images(
                images,
                on_duplicate=self.on_duplicate,
                id_from=self.id_from,
                where=self.conditions,
                group_by=dicom_keyword(groups),
            )
        else:
            found = self._rows(images, groups)
        for line in found.report():
            say(line)
        return found

    def _rows(self, vectors: VectorTable, groups: str | None) -> FoundImages:
        """The rows of vectors as images."""
        from annotator.collection import dicom_keyword

        if dicom_keyword(groups) is not None:
            raise click.UsageError(f"--groups {groups}: vectors have no DICOM headers.")
        return vectors.found(on_duplicate=self.on_duplicate, id_from=self.id_from)


def _finding(id_flag: str = "--id") -> tuple[Decorator, ...]:
    return (
        option(
            "Input",
            id_flag,
            "id_from",
            type=click.Choice(["auto", "name", "path", "sop"]),
            default="auto",
            help="Image ids: file name, path below the folder, or SOPInstanceUID of DICOM files; "
            "auto: name, but SOPInstanceUID if names repeat among DICOM files.",
        ),
        option(
            "Input",
            "--where",
            type=ConditionType(),
            multiple=True,
            metavar="KEYWORD=VALUE,…",
            help="Use only DICOM files with one of these values of an attribute, such as "
            "Modality=DX,CR (repeatable: all must hold).",
        ),
        option(
            "Input",
            "--on-duplicate",
            type=click.Choice(["fail", "first"]),
            default="fail",
            help="Images with the same id: fail, or use the first.",
        ),
    )


finding_options = options_as("finding", FindingOptions, *_finding())


@dataclass(frozen=True)
class SelectionOptions(FindingOptions):
    """Selection of a subset of IMAGES."""

    ids_file: Path | None
    split: str | None
    only: str | None

    def find(self, images: str) -> list[ImageRef]:
        """Find the selected images, in the order of --ids or the natural order of their ids."""
        return self.find_grouped(images, None)[0]

    def find_grouped(
        self, images: str | VectorTable, groups: str | None
    ) -> tuple[list[ImageRef], dict[str, str]]:
        """Find the selected images, as `find` does, and the group of each by its id.

        With --ids the images have the ids of that file, of which those of the disk may differ (see
        `annotator.ids`).

        Args:
            images: IMAGES, or vectors of images.
            groups: As for `read_collection`.

        Raises:
            AnnotatorError: As `find_images`, or none of the ids has an image.
        """
        from annotator.collection import nothing_matches, read_groups
        from annotator.ids import match_ids
        from annotator.images.ref import in_order_of
        from annotator.tables.formats import select_side
        from annotator.vectors.formats import read_row_ids

        found = self.find_images(images, groups)
        notes: list[str] = []
        group_of = read_groups(groups, found, notes)
        refs = found.images
        if self.ids_file is not None:
            ids = list(dict.fromkeys(read_row_ids(self.ids_file)))
            match = match_ids(ids, [ref.id for ref in refs])
            if not match.image_of:
                raise nothing_matches(found, ids, str(self.ids_file))
            notes += match.notes(self.ids_file)
            by_id = {ref.id: ref for ref in refs}
            image_of = match.image_of
            refs = in_order_of(
                ids, [replace(by_id[image], id=id_) for id_, image in image_of.items()]
            )
            group_of = {
                id_: group_of[image] for id_, image in image_of.items() if image in group_of
            }
        side = select_side([ref.id for ref in refs], self.split, self.only, notes)
        refs = [ref for ref in refs if ref.id in side]
        for note in notes:
            say(note)
        return refs if self.ids_file is not None else [*refs, *found.unreadable], group_of


def for_a_run(refs: Sequence[ImageRef]) -> list[ImageRef]:
    """The images, of which those with ids that a run cannot hold are unusable.

    The run has no rows for them (`annotator.tables.run.id_fault`).
    """
    from annotator.images.ref import unusable
    from annotator.tables.run import id_fault

    return [
        unusable(ref.id, ref.where, f"a run cannot hold its id, which {fault}", "Rename the image.")
        if (fault := id_fault(ref.id)) and not ref.id.endswith("/")
        else ref
        for ref in refs
    ]


def _selection(id_flag: str = "--id") -> Decorator:
    return options_as(
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
        *_finding(id_flag),
    )


selection_options = _selection()
query_selection_options = _selection("--image-id")  # for `search`, whose --id is a query


@dataclass(frozen=True)
class CollectionOptions(FindingOptions):
    """Tables accompanying IMAGES and CONCEPTS, and the selection of a subset."""

    split: str | None
    only: str | None
    groups: str | None
    captions: Path | None
    label_column: tuple[str, ...]
    mapping: Path | None
    names: Path | None

    def read(
        self, images: str | VectorTable, concepts: str | None, *, on_mismatch: OnMismatch
    ) -> Collection:
        """Read the collection (see `read_collection`) and report mismatches on stderr."""
        from annotator.collection import read_collection
        from annotator.concepts.mapping import read_mapping

        return read_collection(
            images if isinstance(images, str) else self._rows(images, self.groups),
            concepts,
            label_column=self.label_column,
            mapping=read_mapping(self.mapping) if self.mapping else None,
            names=self.names,
            captions=self.captions,
            groups=self.groups,
            split=self.split,
            only=self.only,
            on_mismatch=on_mismatch,
            on_duplicate=self.on_duplicate,
            id_from=self.id_from,
            where=self.conditions,
        )


collection_options = options_as(
    "tables",
    CollectionOptions,
    side_options,
    groups_option,
    option("Input", "--captions", type=file_path(), help="Table with the caption of each image."),
    label_column_option,
    mapping_option,
    names_option,
    *_finding(),
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
    head_weight: float | None = None
    objective: Objective | None = None

    @property
    def given(self) -> list[str]:
        """Names of the parameters that are set."""
        return list(self._changes())

    def override(self, recorded: Voting | None = None) -> Voting:
        """Override the recorded (or default) voting parameters.

        Raises:
            click.UsageError: Inconsistent options.
            AnnotatorError: The recorded parameters have no thresholds for the objective.
        """
        from annotator.errors import AnnotatorError
        from annotator.knn.voting import Voting

        if self.objective is not None and self.decider is not None:
            raise click.UsageError("--objective and --decider are mutually exclusive.")
        if self.objective == "macro-f1" and recorded and recorded.macro_thresholds is None:
            raise AnnotatorError(
                "The index has no thresholds for the objective macro-f1.",
                "`annotator tune` sets them, unless the index was built with --no-tune or from too "
                "few images.",
            )
        recorded = recorded or Voting()
        changed = self._changes()
        if self.objective == "f1" and recorded.decider == "macro-f1":
            changed["decider"] = "expected-f1"
        try:
            voting = replace(recorded, **changed)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if self.threshold is not None and voting.decider != "threshold":
            raise click.UsageError("--threshold requires --decider threshold.")
        if self.top_r is not None and voting.decider != "top-r":
            raise click.UsageError("--top-r requires --decider top-r.")
        return voting

    def _changes(self) -> dict[str, Any]:
        """The parameters that are set; the objective macro-f1 is a decider of its own."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if values.pop("objective") == "macro-f1":
            values["decider"] = "macro-f1"
        return {name: value for name, value in values.items() if value is not None}


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
        "--head-weight",
        type=click.FloatRange(0),
        help="Weight of a fitted encoder's own classifiers in the vote.",
    ),
    option(
        "Voting",
        "--objective",
        type=click.Choice(["f1", "macro-f1"]),
        help="What to maximise: the mean F1 over images (f1, the official score), or that over "
        "concepts (macro-f1), which finds more of the rare ones.",
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
