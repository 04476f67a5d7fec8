"""`annotator audit`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import EXIT_PROBLEM, say, write_result
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import EmbeddingOptions, embedding_options
from annotator.cli.options import (
    FindingOptions,
    LocationType,
    file_path,
    finding_options,
    groups_option,
    label_column_option,
    names_option,
    split_option,
)
from annotator.cli.sections import Command, option
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.audit.inputs import AuditLabels, AuditLoader, ReferenceIndex
    from annotator.images.ref import ImageRef
    from annotator.images.sources import FoundImages
    from index.protocols import IndexLocation

_FAIL_ON = "exact,leak,straddle,copy"


@click.command(
    "audit", cls=Command, short_help="Find duplicates, leaks, doubtful labels and outliers."
)
@click.argument("images")
@click.argument("concepts", required=False)
@split_option
@groups_option
@label_column_option
@names_option
@finding_options
@option(
    "Index",
    "--index",
    "place",
    type=LocationType(),
    help="Reference index for duplicates and outliers; supplies the encoder and the cache.",
)
@option(
    "Encoder",
    "--embedder",
    default="efficientnet-lite0",
    metavar="NAME",
    help="Encoder if there is no --index (as for build-index).",
)
@option(
    "Checks",
    "--against",
    metavar="TRAIN",
    help="Images or an index: only search them for the sources of IMAGES.",
)
@option(
    "Checks",
    "--threshold",
    type=click.FloatRange(0.8, 1),
    default=0.88,
    help="Minimum correlation of near duplicates.",
)
@option(
    "Checks",
    "--fail-on",
    metavar="KIND,…",
    default=_FAIL_ON,
    help="Kinds that set exit code 1 (also: near, label, unlike, close; none: never).",
)
@option("Output", "--out", type=file_path(dir_okay=False), help="HTML page with the pictures.")
@option(
    "Output",
    "--format",
    "table_format",
    type=click.Choice(["csv", "json"]),
    default="csv",
    help="Format of the table on stdout.",
)
@option(
    "Output",
    "--limit",
    type=click.IntRange(1),
    default=150,
    help="Maximum rows per kind, by confidence.",
)
@option(
    "Running", "--cache", type=file_path(dir_okay=False), help="Cache file of computed vectors."
)
@embedding_options
def audit_command(
    images: str,
    concepts: str | None,
    split: str | None,
    groups: str | None,
    label_column: tuple[str, ...],
    names: Path | None,
    finding: FindingOptions,
    place: IndexLocation | None,
    embedder: str,
    against: str | None,
    threshold: float,
    fail_on: str,
    out: Path | None,
    table_format: str,
    limit: int,
    cache: Path | None,
    embedding: EmbeddingOptions,
) -> int:
    """Audit IMAGES and their CONCEPTS: a table, an optional page and an exit code.

    Reports exact duplicates; near duplicates (scaled, compressed, cropped, mirrored, brightened);
    duplicates and groups across a split; concepts contradicted by similar images; images unlike any
    other. The exit code is 1 if a kind of --fail-on was found.

    \b
    annotator audit images/ concepts.csv --split split.csv --groups patients.csv --out audit.html
    annotator audit new/ new_concepts.csv --index concept-index --fail-on exact,near
    annotator audit synthetic/ --against train/ --out sources.html
    """
    from annotator.audit.findings import KINDS, limited, to_csv

    failing = {kind.strip() for kind in fail_on.split(",")} - {"", "none"}
    if unknown := sorted(failing - set(KINDS)):
        raise click.UsageError(f"--fail-on: no kind {', '.join(unknown)} ({', '.join(KINDS)}).")
    if against and (concepts or split or groups or names):
        raise click.UsageError("--against takes only images: no CONCEPTS and no tables.")
    found = finding.find_images(images, groups)
    refs = [*found.images, *found.unreadable]
    if against:
        others, index = _others(against, place, finding)
        loader = _loader(index, embedder, cache, embedding)

        from annotator.audit.run import trace_images

        result = trace_images(refs, others, loader, threshold=threshold)
    else:
        labels = _labels(images, found, concepts, label_column, names, groups, split)
        _say_unmatched(found.images, labels)
        index = _reference(place) if place else None
        loader = _loader(index, embedder, cache, embedding)

        from annotator.audit.run import audit_images

        result = audit_images(refs, labels, loader, index=index, threshold=threshold)
    shown, left_out = limited(result.findings, limit)
    if table_format == "json":
        table = json.dumps(result.to_dict(shown), indent=2, ensure_ascii=False) + "\n"
    else:
        table = to_csv(shown)
    write_result(table, None)
    if out:
        from annotator.audit.report import page

        title = f"Audit of {images}" + (f" against {against}" if against else "")
        write_result(page(title, result, shown, left_out, workers=loader.workers), out)
        say(f"Page: {out}")
    for note in result.notes:
        say(note)
    report = ImageReport(result.failed)
    report.say(embedding.report)
    counts = Counter[str](finding.kind for finding in result.findings)
    kinds = [f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]]
    say(f"{len(result.images)} images: {', '.join(kinds) or 'nothing was found'}.")
    say(_hint(counts, has_page=out is not None, traced=against is not None))
    if failing & set(counts):
        return EXIT_PROBLEM
    return report.exit_code


def _labels(
    images: str,
    found: FoundImages,
    concepts: str | None,
    label_column: tuple[str, ...],
    names: Path | None,
    groups: str | None,
    split: str | None,
) -> AuditLabels:
    """The contents of the tables, by image id."""
    from annotator.audit.inputs import AuditLabels
    from annotator.collection import parquet_tables, read_groups
    from annotator.concepts.names import read_names
    from annotator.ids import by_image
    from annotator.tables.formats import read_column
    from annotator.tables.labels import Labels, read_labels

    ids = [ref.id for ref in found.images]
    notes: list[str] = []
    found_labels: Labels | None = None
    if concepts is not None:
        found_labels = read_labels(concepts, column=label_column)
    elif images.endswith(".parquet"):
        found_labels, _ = parquet_tables(images)
    sets: Mapping[str, tuple[str, ...]] | None = None
    words: Mapping[str, str] = {}
    if found_labels is not None:
        notes.append(found_labels.understood)
        sets = by_image(found_labels.concepts, ids, concepts or images, notes)
        words = found_labels.names
    present = {concept for row in (sets or {}).values() for concept in row}
    labels = AuditLabels(
        concepts=sets,
        names={**words, **(read_names(names, only=present) if names else {})},
        groups=read_groups(groups, found, notes),
        sides=by_image(read_column(split), ids, split, notes) if split else {},
    )
    for note in notes:
        say(note)
    return labels


def _say_unmatched(images: Sequence[ImageRef], labels: AuditLabels) -> None:
    known = {ref.id for ref in images}
    for what, ids in (
        ("ids of the concepts have no image", set(labels.concepts or ()) - known),
        ("images have no concepts", known - set(labels.concepts) if labels.concepts else set()),
        ("images have no side", known - set(labels.sides) if labels.sides else set()),
    ):
        if ids:
            say(f"{len(ids)} {what}: {', '.join(sorted(ids)[:3])}{', …' * (len(ids) > 3)}")


def _others(
    against: str, place: IndexLocation | None, finding: FindingOptions
) -> tuple[Sequence[ImageRef] | ReferenceIndex, ReferenceIndex | None]:
    """The possible sources of images, and the index whose encoder and cache are used."""
    from annotator.audit.inputs import is_index

    if is_index(against):
        index = _reference(against)
        return index, index
    encoder = _reference(place) if place else None
    found = finding.find_images(against)
    return [*found.images, *found.unreadable], encoder


def _reference(where: str | IndexLocation) -> ReferenceIndex:
    from annotator.audit.inputs import ReferenceIndex
    from index.folder.location import FolderLocation
    from index.locations import locate

    place = locate(where)
    if not isinstance(place, FolderLocation):
        raise AnnotatorError(
            f"An audit reads all vectors, but {place} is on a server.",
            "Give an index in a folder.",
        )
    return ReferenceIndex.open(place.folder)


def _loader(
    index: ReferenceIndex | None, embedder: str, cache: Path | None, embedding: EmbeddingOptions
) -> AuditLoader:
    """Embeds the images, with the encoder and the cache of an index if there is one."""
    from annotator.audit.inputs import AuditLoader  # torch comes with it, after the cheap checks
    from annotator.encoders.local_runner import default_workers
    from annotator.encoders.registry import make_embedder
    from annotator.indexing.metadata import IndexMetadata

    if index is not None:
        encoder = IndexMetadata.of(index.stored).make_embedder(
            device=embedding.device, engine=embedding.engine
        )
        cache = cache or index.writable_cache
    else:
        encoder = make_embedder(embedder, device=embedding.device, engine=embedding.engine)
    return AuditLoader(
        encoder,
        cache=None if embedding.no_cache else cache,
        batch_size=embedding.batch_size,
        workers=embedding.workers or default_workers(),
        on_error=embedding.on_error,
        runner=embedding.make_runner(),
    )


def _hint(counts: Mapping[str, int], *, has_page: bool, traced: bool) -> str:
    if counts and not has_page:
        return "Next: add --out audit.html to look at the pictures."
    if traced:
        return "Next: look at each copy and close one before the images are published or used."
    if counts.get("leak") or counts.get("straddle"):
        return "Next: put the images of each pair or group on one side, and audit again."
    if counts.get("exact") or counts.get("near"):
        return "Next: leave out one of each pair, or give both one group; then audit again."
    if counts:
        return "Next: look at each proposal, correct the concepts, and audit again."
    return "Next: annotator build-index with the same images and concepts."
