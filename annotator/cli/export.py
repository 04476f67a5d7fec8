"""`annotator export fiftyone`."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import say
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import InferenceOptions, inference_options, reported
from annotator.cli.options import (
    SelectionOptions,
    file_path,
    groups_option,
    index_option,
    label_column_option,
    mapping_option,
    names_option,
    selection_options,
)
from annotator.cli.sections import Command, Group, option
from annotator.errors import ImageError
from index.progress import track

if TYPE_CHECKING:
    from annotator.encoders.local_runner import Embedded
    from annotator.images.ref import ImageRef
    from annotator.images.viewable import Viewable
    from annotator.pipeline import Annotator
    from annotator.tables.fiftyone import FiftyOneSample
    from index.protocols import Index, IndexLocation

_AT_ONCE = 256


@click.group("export", cls=Group, short_help="Images, concepts and vectors for other programs.")
def export_command() -> None:
    """Write images with their concepts and vectors for another program.

    \b
    annotator export fiftyone train/ --out train-fiftyone
    """


@export_command.command("fiftyone", cls=Command)
@click.argument("images")
@click.argument("concepts", required=False)
@index_option
@option(
    "Output",
    "--out",
    required=True,
    type=file_path(file_okay=False),
    help="Folder of the dataset, to be loaded as fo.types.FiftyOneDataset.",
)
@option("Output", "--overwrite", is_flag=True, help="Replace a dataset of an earlier export.")
@groups_option
@label_column_option
@mapping_option
@names_option
@selection_options
@inference_options
def fiftyone_command(
    images: str,
    concepts: str | None,
    place: IndexLocation,
    out: Path,
    overwrite: bool,
    groups: str | None,
    label_column: tuple[str, ...],
    mapping: Path | None,
    names: Path | None,
    selection: SelectionOptions,
    inference: InferenceOptions,
) -> int:
    """Write IMAGES as a dataset of FiftyOne, which is not needed for it.

    Each sample has the concepts that the index predicts, their confidence and that of all together,
    its vector, and its known concepts: those in CONCEPTS, a table of labels, or else those of the
    index, for images that it has. The cases of an image's own patient (--groups, or as the index
    has them) and the image itself do not vote, so that images of the index are predicted as new
    ones are. What browsers cannot show (DICOM, NIfTI, TIFF) gets a picture in FOLDER/data;
    other files stay where they are.

    \b
    annotator export fiftyone train/ --out train-fiftyone
    annotator export fiftyone test/ test_concepts.csv --out test-fiftyone
    annotator export fiftyone study/ --where Modality=DX --groups dicom:PatientID --out fo
    """
    from annotator.files import whole_folder
    from annotator.pipeline import Annotator
    from annotator.tables.fiftyone import PICTURES, check_out, write_dataset

    check_out(out, overwrite=overwrite)
    runner = inference.make_runner()  # fail early
    refs, group_of = selection.find_grouped(images, groups)
    stored = place.open(whole=inference.verify, device=inference.device)
    known = _Known.of(stored, refs, group_of)
    if concepts is not None:
        known = known.by_table(concepts, refs, label_column, mapping, names)
    embedder = inference.load_embedder(stored)
    annotator = Annotator(stored, embedder)
    report = ImageReport()
    info = {"index": str(place), "version": stored.version, "encoder": embedder.name}
    with inference.open_cache(place, embedder) as cache, whole_folder(out) as folder:
        (folder / PICTURES).mkdir()
        results = runner(
            refs,
            embedder,
            cache=cache,
            batch_size=inference.batch_size,
            workers=inference.workers,
        )
        with contextlib.closing(results):
            embedded = reported(
                track(results, total=len(refs), label="Annotating"), inference, report
            )
            samples = _samples(embedded, annotator, known, folder, report)
            n = write_dataset(folder, samples, name=out.resolve().name, info=info)
    report.say(inference.report)
    known_by = f"{len(known.truth):,} with known concepts, {len(known.indexed):,} of the index"
    say(f"{out}: {n:,} samples ({known_by}).")
    say(
        f"Next, in Python: fiftyone.Dataset.from_dir({str(out)!r}, "
        "dataset_type=fiftyone.types.FiftyOneDataset)"
    )
    return report.exit_code


@dataclass(frozen=True)
class _Known:
    """What is known of the images.

    Attributes:
        truth: Concepts by image id.
        names: Name by concept.
        groups: Patient or study by image id.
        indexed: Ids of images of the index.
    """

    truth: Mapping[str, Sequence[str]]
    names: Mapping[str, str]
    groups: Mapping[str, str]
    indexed: frozenset[str]

    @classmethod
    def of(cls, stored: Index, refs: Sequence[ImageRef], group_of: Mapping[str, str]) -> _Known:
        """As the index has it; groups that are given count first."""
        rows = stored.with_ids([ref.id for ref in refs])
        groups = dict(zip(rows.ids, rows.columns.get("groups", ()), strict=False))
        truth = {id_: rows.labels.row(row) for row, id_ in enumerate(rows.ids)}
        return cls(truth, stored.names, {**groups, **group_of}, frozenset(rows.ids))

    def by_table(
        self,
        concepts: str,
        refs: Sequence[ImageRef],
        label_column: tuple[str, ...],
        mapping: Path | None,
        names: Path | None,
    ) -> _Known:
        """With the concepts of a table instead of those of the index."""
        from annotator.collection import read_collection
        from annotator.concepts.mapping import read_mapping
        from annotator.images.sources import FoundImages

        table = read_collection(
            FoundImages(list(refs)),
            concepts,
            label_column=label_column,
            mapping=read_mapping(mapping) if mapping else None,
            names=names,
        )
        for line in (table.understood, *table.notes):
            say(line)
        return replace(self, truth=table.concepts, names={**self.names, **table.names})

    def labels(self) -> Callable[[str], str]:
        """What people read for a concept: its name, with its id where others have that name."""
        times = Counter(self.names.values())

        def label(concept: str) -> str:
            name = self.names.get(concept) or concept
            return name if times[name] < 2 else f"{name} ({concept})"

        return label


def _samples(
    embedded: Iterable[Embedded],
    annotator: Annotator,
    known: _Known,
    folder: Path,
    report: ImageReport,
) -> Iterator[FiftyOneSample]:
    """The samples of images that can be used; pictures are written as they come."""
    import numpy as np

    from annotator.encoders.local_runner import default_workers
    from annotator.evaluation.official_f1 import image_score
    from annotator.images.ordered_map import ordered_map
    from annotator.knn.neighbors import nearest_others
    from annotator.tables.fiftyone import PICTURES, FiftyOneSample, Label

    label = known.labels()
    k = annotator.needed(annotator.voting, False)
    usable = (one for one in embedded if one.vector is not None)
    n = 0
    while block := list(islice(usable, _AT_ONCE)):
        ids = [one.ref.id for one in block]
        vectors = np.stack([one.vector for one in block if one.vector is not None])
        groups = [known.groups.get(id_, "") for id_ in ids]
        (found,) = nearest_others(annotator.search, vectors, ids, groups, k)
        annotations = annotator.decide(ids, found, with_neighbors=False)
        shown = ordered_map(_viewed, [one.ref for one in block], workers=default_workers())
        for one, annotation, vector, group, picture in zip(
            block, annotations, annotator.project(vectors), groups, shown, strict=True
        ):
            if isinstance(picture, ImageError):  # it was there a moment ago
                report.add(one.ref.where, picture)
                continue
            if picture.path is None:
                file = f"{PICTURES}/{n:07}{picture.extension}"
                (folder / file).write_bytes(picture.data)
            truth = known.truth.get(annotation.image_id)
            yield FiftyOneSample(
                image_id=annotation.image_id,
                filepath=file if picture.path is None else str(picture.path),
                embedding=vector,
                predictions=[
                    Label(cui, label(cui), round(score, 6), round(score if p is None else p, 6))
                    for cui, _, score, p in annotation.each
                ],
                expected_f1=round(annotation.expected_f1, 6),
                familiarity=_rounded(annotation.familiarity),
                ground_truth=None if truth is None else [Label(cui, label(cui)) for cui in truth],
                f1=None if truth is None else image_score(truth, annotation.cuis),
                group=group,
                tags=["indexed"] if annotation.image_id in known.indexed else [],
            )
            n += 1


def _viewed(ref: ImageRef) -> Viewable | ImageError:
    from annotator.images.viewable import viewable

    try:
        return viewable(ref)
    except ImageError as error:
        return error


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
