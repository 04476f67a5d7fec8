"""`annotator audit`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from annotator.cli.console import (
    EXIT_OK,
    EXIT_PARTIAL,
    EXIT_PROBLEM,
    say,
    say_failed,
    write_result,
)
from annotator.cli.options import PlaceType, embedding_options, file_path, names_option
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.audit.findings import AuditResult, Finding
    from annotator.audit.inputs import AuditLabels, AuditLoader, ReferenceIndex
    from annotator.images.ref import ImageRef
    from index.protocols import IndexLocation

_FAIL_ON = "exact,leak,straddle,copy"


@click.command("audit")
@click.argument("images")
@click.argument("concepts", required=False)
@click.option("--split", metavar="FILE[:COLUMN]", help="Table with each image's side.")
@click.option("--groups", metavar="FILE[:COLUMN]", help="Table with each image's patient or study.")
@names_option
@click.option(
    "--against",
    metavar="TRAIN",
    help="Images or an index: say which of them each of IMAGES comes from, and nothing else.",
)
@click.option(
    "--index",
    "directory",
    type=PlaceType(),
    help="An index: what IMAGES are compared with to find unlike ones; its encoder and cache are "
    "used.",
)
@click.option("--out", type=file_path(dir_okay=False), help="A page with the pictures (.html).")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["csv", "json"]),
    default="csv",
    show_default=True,
    help="Of the table on stdout.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=150,
    show_default=True,
    help="Rows of each kind; of more, the surest.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0.8, 1),
    default=0.88,
    show_default=True,
    help="Correlation of a near duplicate, 0.8 at least.",
)
@click.option(
    "--fail-on",
    metavar="KIND,…",
    default=_FAIL_ON,
    show_default=True,
    help="Kinds that make the exit code 1 (near, label, unlike, close, too; none: never).",
)
@click.option("--cache", type=file_path(dir_okay=False), help="File that keeps computed vectors.")
@click.option(
    "--embedder",
    default="efficientnet-lite0",
    show_default=True,
    metavar="NAME",
    help="The encoder, without --index (as for build-index).",
)
@embedding_options
def audit_command(images: str, concepts: str | None, **options: Any) -> int:
    """Find what is wrong with IMAGES and their CONCEPTS: a table, a page and an exit code.

    Finds exact duplicates; the same picture scaled, compressed, cropped, mirrored or made brighter;
    either on both sides of a split; groups on both sides; concepts that similar images contradict;
    images unlike any other. The exit code is 1 if something of --fail-on was found.

    \b
    annotator audit images/ concepts.csv --split split.csv --groups patients.csv --out audit.html
    annotator audit new/ new_concepts.csv --index concept-index --fail-on exact,near
    annotator audit synthetic/ --against train/ --out sources.html
    """
    from annotator.audit.findings import KINDS, limited, to_csv
    from annotator.images.sources import find_images

    fail_on = {kind.strip() for kind in options["fail_on"].split(",")} - {"", "none"}
    if unknown := sorted(fail_on - set(KINDS)):
        raise click.UsageError(f"--fail-on: no kind {', '.join(unknown)} ({', '.join(KINDS)}).")
    against = options["against"]
    if against and (concepts or any(options[o] for o in ("split", "groups", "names"))):
        raise click.UsageError("--against takes images alone: no CONCEPTS and no tables.")
    found = find_images(images, on_duplicate=options["on_duplicate"])
    if found.ignored:
        say(f"{len(found.ignored)} files are not images and are ignored: {found.ignored[0]}, …")
    if against:
        result = _traced(found.images, options)
    else:
        result = _examined(found.images, _given(images, concepts, options), options)
    shown, left_out = limited(result.findings, options["limit"])
    if options["shape"] == "json":
        table = json.dumps(result.to_dict(shown), indent=2, ensure_ascii=False) + "\n"
    else:
        table = to_csv(shown)
    write_result(table, None)
    if options["out"]:
        _write_page(result, shown, left_out, images, options)
    for note in result.notes:
        say(note)
    say_failed(list(result.failed.items()))
    counts = Counter[str](finding.kind for finding in result.findings)
    kinds = [f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]]
    say(f"{len(result.images)} images: {', '.join(kinds) or 'nothing was found'}.")
    say(_hint(result, counts, options))
    if fail_on & set(counts):
        return EXIT_PROBLEM
    return EXIT_PARTIAL if result.failed else EXIT_OK


def _given(images: str, concepts: str | None, options: Mapping[str, Any]) -> AuditLabels:
    """What the tables say."""
    from annotator.audit.inputs import AuditLabels
    from annotator.collection import parquet_tables
    from annotator.tables.formats import read_column, read_concepts, read_names

    if concepts is not None:
        sets: Mapping[str, tuple[str, ...]] | None = read_concepts(concepts)
    else:
        sets = parquet_tables(images)[0] if images.endswith(".parquet") else None
    return AuditLabels(
        concepts=sets,
        names=read_names(options["names"]) if options["names"] else {},
        groups=read_column(options["groups"]) if options["groups"] else {},
        sides=read_column(options["split"]) if options["split"] else {},
    )


def _examined(
    images: Sequence[ImageRef], given: AuditLabels, options: Mapping[str, Any]
) -> AuditResult:
    from annotator.audit.run import audit_images

    known = {ref.id for ref in images}
    for what, ids in (
        ("ids of the concepts have no image", set(given.concepts or ()) - known),
        ("images have no concepts", known - set(given.concepts) if given.concepts else set()),
        ("images have no side", known - set(given.sides) if given.sides else set()),
    ):
        if ids:
            say(f"{len(ids)} {what}: {', '.join(sorted(ids)[:3])}{', …' * (len(ids) > 3)}")
    cases = _cases(options["directory"]) if options["directory"] else None
    loader = _loader(cases, options)
    return audit_images(images, given, loader, index=cases, threshold=options["threshold"])


def _traced(images: Sequence[ImageRef], options: Mapping[str, Any]) -> AuditResult:
    from annotator.audit.inputs import is_index
    from annotator.audit.run import trace_images
    from annotator.images.sources import find_images

    against = options["against"]
    other: Sequence[ImageRef] | ReferenceIndex
    if is_index(against):
        cases: ReferenceIndex | None = _cases(against)
        assert cases is not None
        other = cases
    else:
        cases = _cases(options["directory"]) if options["directory"] else None
        other = find_images(against, on_duplicate=options["on_duplicate"]).images
    return trace_images(images, other, _loader(cases, options), threshold=options["threshold"])


def _cases(where: str | IndexLocation) -> ReferenceIndex:
    from annotator.audit.inputs import ReferenceIndex
    from index.folder.location import FolderLocation
    from index.locations import locate

    place = locate(where)
    if not isinstance(place, FolderLocation):
        raise AnnotatorError(
            f"An audit needs all vectors, and those of {place} lie on a server.",
            "Give an index that lies in a folder.",
        )
    return ReferenceIndex.open(place.folder)


def _loader(cases: ReferenceIndex | None, options: Mapping[str, Any]) -> AuditLoader:
    """The encoder, that of an index if there is one, and where vectors are kept."""
    from annotator.audit.inputs import AuditLoader  # torch comes with it, after the cheap checks
    from annotator.encoders.local_runner import default_workers
    from annotator.encoders.registry import make_embedder
    from annotator.indexing.metadata import IndexMetadata

    if cases is not None:
        embedder = IndexMetadata.of(cases.stored).make_embedder(device=options["device"])
    else:
        embedder = make_embedder(options["embedder"], device=options["device"])
    cache = options["cache"]
    if cache is None and cases is not None:
        cache = cases.writable_cache
    return AuditLoader(
        embedder,
        cache=None if options["no_cache"] else cache,
        batch_size=options["batch_size"],
        workers=options["workers"] or default_workers(),
        on_error=options["on_error"],
    )


def _write_page(
    result: AuditResult,
    shown: Sequence[Finding],
    left_out: dict[str, int],
    images: str,
    options: Mapping[str, Any],
) -> None:
    from annotator.audit.report import page
    from annotator.encoders.local_runner import default_workers

    title = f"Audit of {images}" + (f" against {options['against']}" if options["against"] else "")
    workers = options["workers"] or default_workers()
    html = page(title, result, shown, left_out, workers=workers)
    write_result(html, options["out"])
    say(f"Page: {options['out']}")


def _hint(result: AuditResult, counts: Mapping[str, int], options: Mapping[str, Any]) -> str:
    """What to do next."""
    if not options["out"] and counts:
        return "Next: add --out audit.html to look at the pictures."
    if options["against"]:
        return "Next: look at each copy and close one before the images are published or used."
    if counts.get("leak") or counts.get("straddle"):
        return "Next: put the images of each pair or group on one side, and audit again."
    if counts.get("exact") or counts.get("near"):
        return "Next: leave out one of each pair, or give both one group; then audit again."
    if counts:
        return "Next: look at each proposal, correct the concepts, and audit again."
    return "Next: annotator build-index with the same images and concepts."
