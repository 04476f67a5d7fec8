"""`annotator annotate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import say, to_terminal, write_result
from annotator.cli.ensemble import read_classifiers, with_option
from annotator.cli.guarantee import GuaranteeOptions, guarantee_options
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import InferenceOptions, annotate_images, inference_options
from annotator.cli.options import (
    GROUPS_METAVAR,
    SelectionOptions,
    VotingOptions,
    file_path,
    for_a_run,
    index_option,
    is_given,
    output_option,
    selection_options,
    url_prefix_option,
    voting_options,
    zip_option,
)
from annotator.cli.sections import Command, option
from annotator.cli.semantic_types import TypeOptions, type_options
from annotator.cli.structured_reports import StructuredReports, sr_option
from annotator.cli.vectors import VectorOptions, images_or, vector_options

if TYPE_CHECKING:
    from annotator.annotation import Annotation
    from annotator.images.ref import ImageRef
    from index.protocols import IndexLocation


@click.command(
    "annotate", cls=Command, short_help="Print the concepts of images: a table, a run or JSON."
)
@click.argument("images", required=False)
@index_option
@vector_options
@option(
    "Output",
    "--format",
    "chosen_format",
    type=click.Choice(
        ["table", "2019", "2021", "2024", "2025", "2026", "jsonl", "scores", "label-studio"]
    ),
    help="Table to read, submission format by year, JSON lines, the scores of all concepts "
    "(.npz), or tasks for Label Studio (default: 2026; on a terminal a table).",
)
@url_prefix_option
@zip_option
@option(
    "Output",
    "--explain",
    is_flag=True,
    help="With --format jsonl: include the neighbours and their votes.",
)
@option(
    "Output",
    "--groups",
    metavar=GROUPS_METAVAR,
    help="With --format jsonl: include the patient or study of each image, from a table or an "
    "attribute of DICOM files, such as dicom:PatientID.",
)
@output_option
@sr_option
@selection_options
@inference_options
@voting_options
@option(
    "Voting",
    "--hierarchy",
    type=file_path(),
    help="Choose by hierarchical F1, which gives partial credit: table of concept and parent, "
    "MRREL.RRF or MRHIER.RRF.",
)
@option(
    "Voting",
    "--exclude-self",
    is_flag=True,
    help="Leave out the image itself, where the index has it; other images of its patient vote.",
)
@guarantee_options
@option(
    "Output",
    "--min-familiarity",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="No concepts for images that are less familiar, unlike those of the index; 0.05 is a "
    "good start.",
)
@type_options
@with_option
def annotate_command(
    images: str | None,
    place: IndexLocation,
    given: VectorOptions,
    chosen_format: str | None,
    url_prefix: str,
    zipped: bool,
    explain: bool,
    groups: str | None,
    output: Path | None,
    reports_to: str | None,
    selection: SelectionOptions,
    inference: InferenceOptions,
    voting: VotingOptions,
    hierarchy: Path | None,
    exclude_self: bool,
    guarantee: GuaranteeOptions,
    min_familiarity: float | None,
    type_filter: TypeOptions,
    classifiers: tuple[str, ...],
) -> int:
    """Annotate IMAGES (folder, file, glob, list, Parquet, archive) or --vectors, and print the run.

    A terminal shows a table to read instead of a run. Rows are in the natural order of ids (test_2
    before test_10), or in the order of --ids. An image that cannot be used, is blank, or is less
    familiar than --min-familiarity gets a row without CUIs, its reason goes to stderr, and the exit
    code is 3. Files of a kind without an
    image, such as DICOM structured reports, are skipped.

    \b
    annotator annotate scan.png
    annotator annotate test/ > run.csv
    annotator annotate test/ --ids test_ids.csv --zip > submission.zip
    annotator annotate scan.dcm --format jsonl --explain
    annotator annotate test/ --min-familiarity 0.05 > run.csv
    annotator annotate --vectors test.npy --ids test_ids.csv > run.csv
    annotator annotate study/ --where Modality=DX,CR --groups dicom:PatientID --format jsonl
    annotator annotate 'dicomweb://HOST/dicom-web?Modality=DX' --sr dicomweb://HOST/dicom-web
    annotator annotate test/ --format scores --output votes.npz
    annotator annotate test/ --hierarchy hierarchy.csv > run.csv
    annotator annotate test/ --types T047,T023 --semantic-types MRSTY.RRF > run.csv
    annotator annotate test/ --with probs.npz:0.5 > run.csv
    annotator annotate test/ --guarantee missed=0.1 > run.csv
    annotator annotate archive/ --format label-studio > tasks.json
    """
    from annotator.cli.annotation_table import annotation_lines
    from annotator.concepts.hierarchy import read_hierarchy
    from annotator.indexing.metadata import IndexMetadata
    from annotator.tables.run import id_fault, local_ids_note, render_run, zip_run
    from annotator.tables.scores import Scores

    year = chosen_format or ("table" if to_terminal(output) and not zipped else "2026")
    is_run = year not in ("table", "jsonl", "scores", "label-studio")
    if explain and year != "jsonl":
        raise click.UsageError("--explain requires --format jsonl.")
    if groups is not None and year != "jsonl":
        raise click.UsageError("--groups requires --format jsonl: a run has no groups.")
    if is_given("url_prefix") and year != "label-studio":
        raise click.UsageError("--url-prefix requires --format label-studio.")
    if zipped and not is_run:
        raise click.UsageError("--zip requires a submission format.")
    if hierarchy is not None and classifiers:
        raise click.UsageError("--hierarchy and --with are mutually exclusive.")
    if hierarchy is not None and type_filter.given:  # ancestors may be of other types
        raise click.UsageError("--hierarchy and --types are mutually exclusive.")
    guarantee.check()
    if guarantee.guarantee is not None and year == "scores":
        raise click.UsageError("--guarantee requires another --format: scores have no sets.")
    inference.make_runner()  # fail early
    vectors = given.read(selection.ids_file, ids_select=True, unusable=("reports_to",))
    refs, group_of = selection.find_grouped(images_or(vectors, images), groups)
    if is_run:
        refs = for_a_run(refs)
    stored = place.open(whole=inference.verify, device=inference.device)
    names, vocabulary, above = stored.names, frozenset(stored.concepts), None
    if hierarchy is not None:
        above = read_hierarchy(hierarchy, only=vocabulary)
        for note in (*above.notes, above.describe(vocabulary)):
            say(note)
        names, vocabulary = {**above.names, **names}, above.closure(vocabulary)
    only = type_filter.select(stored.concepts, "the index")
    vocabulary = vocabulary if only is None else only
    rows: list[tuple[str, tuple[str, ...]]] = []
    lines: list[str] = []
    votes: list[tuple[str, Mapping[str, float]]] = []
    tasks: list[dict[str, Any]] = []
    address_of = addresses(refs, images, url_prefix)
    chosen = voting.override(IndexMetadata.of(stored).voting)
    report = ImageReport()
    in_index: list[str] = []
    unfamiliar: list[str] = []
    reports = None
    if reports_to is not None:
        model = f"{str(place).rstrip('/').rpartition('/')[2]} {stored.version}"
        reports = StructuredReports(reports_to, refs, names, model)
    for annotation in annotate_images(
        place,
        stored,
        refs,
        chosen,
        inference,
        report,
        with_neighbors=explain,
        with_votes=year == "scores",
        classifiers=read_classifiers(
            classifiers, [ref.id for ref in refs], stored, only, chosen, str(place)
        ),
        keep_all=selection.ids_file is not None,
        hierarchy=above,
        only=only,
        vectors=vectors,
        exclude_self=exclude_self,
        min_familiarity=min_familiarity,
        with_probabilities=year in ("table", "jsonl", "label-studio"),
        guarantee=guarantee,
    ):
        if annotation.same_image is not None:
            in_index.append(annotation.image_id)
        if annotation.is_unfamiliar and annotation.error is None:
            unfamiliar.append(annotation.image_id)
        if reports is not None:
            reports.add(annotation)
        if year == "scores":
            if annotation.error is None:
                votes.append((annotation.image_id, annotation.votes))
        elif year == "table":
            lines += (f"{line}\n" for line in annotation_lines(annotation, names))
        elif year == "label-studio":
            tasks.append(_task(annotation, names, address_of, f"{place} {stored.version}"))
        elif not is_run:
            record = annotation.to_dict(names, explain=explain)
            if groups is not None:
                record["group"] = group_of.get(annotation.image_id, "")
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        elif not id_fault(annotation.image_id):
            rows.append((annotation.image_id, annotation.cuis))
    if year == "label-studio":
        write_result(json.dumps(tasks, indent=1, ensure_ascii=False) + "\n", output)
        say(f"Next: annotator concepts label-studio --index {place} (the labelling configuration)")
    elif year == "scores":
        write_result(Scores.from_shares(votes, sorted(vocabulary)).to_npz(), output)
    else:
        text = render_run(rows, year) if is_run else "".join(lines).removeprefix("\n")
        write_result(zip_run(text) if zipped else text, output)
        if note := local_ids_note(rows):
            say(note)
    if in_index:
        say(_in_index(in_index, len(refs), exclude_self))
    if unfamiliar and min_familiarity is None:
        say(_are_unfamiliar(unfamiliar, len(refs)))
    report.say(inference.report)
    if reports is not None:
        reports.say()
    return max(report.exit_code, reports.exit_code if reports else 0)


def addresses(refs: Sequence[ImageRef], images: str | None, prefix: str) -> Callable[[str], str]:
    """The address of an image by its id: a prefix, and its path below IMAGES; of vectors its id."""
    from annotator.tables.label_studio import address_of

    where = {ref.id: Path(ref.where) for ref in refs} if images else {}
    folder = Path(images or ".")

    def address(image_id: str) -> str:
        path = where.get(image_id, Path(image_id))
        below = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
        return address_of(prefix, (below if below.name else Path(path.name)).as_posix())

    return address


def _task(
    annotation: Annotation,
    names: Mapping[str, str],
    address_of: Callable[[str], str],
    model: str,
) -> dict[str, Any]:
    from annotator.tables.label_studio import Shown, task

    return task(
        annotation.image_id,
        address_of(annotation.image_id),
        [
            Shown(cui, names.get(cui, ""), score)
            for cui, score in zip(annotation.cuis, annotation.scores, strict=True)
        ],
        score=round(annotation.expected_f1, 4),
        model=model,
        usable=annotation.error is None,
    )


def _in_index(ids: list[str], n: int, excluded: bool) -> str:
    """What is said of images that the index has itself."""
    are = "is" if len(ids) == 1 else "are"
    found = f"{len(ids)} of {n} images {are} in the index, such as {ids[0]}"
    if excluded:
        return f"{found}: left out of the vote on themselves."
    return f"{found}, and vote for their own concepts. --exclude-self leaves them out."


def _are_unfamiliar(ids: list[str], n: int) -> str:
    """What is said of images unlike those of the index."""
    from annotator.knn.familiarity import UNFAMILIAR

    are = "is" if len(ids) == 1 else "are"
    return (
        f"Warning: {len(ids)} of {n} images {are} unlike those of the index (familiarity below "
        f"{UNFAMILIAR:g}), such as {ids[0]}; their concepts are guesses. --min-familiarity "
        f"{UNFAMILIAR:g} leaves them without."
    )
