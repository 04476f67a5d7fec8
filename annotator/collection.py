"""A labelled collection: images matched with their concepts, captions and groups by id."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from annotator.concepts.names import cuis_of_names, read_names, read_terms
from annotator.errors import AnnotatorError, FormatError
from annotator.ids import by_image, natural_key, printable
from annotator.images.ref import ImageRef
from annotator.images.sources import FoundImages, IdFrom, find_images, parquet_concepts
from annotator.tables.formats import (
    read_captions,
    read_column,
    select_side,
)
from annotator.tables.labels import Labels, labels_of, labels_of_lists, read_labels

if TYPE_CHECKING:
    import pandas as pd

OnMismatch = Literal["skip", "fail"]
OnDuplicate = Literal["fail", "first"]

_LARGE_GROUP = 20, 1 / 3  # images, and share of them, of which a group has more


@dataclass(frozen=True)
class Collection:
    """Images with their concepts, matched by id.

    Attributes:
        images: Images in the natural order of their ids, all with an entry in `concepts`. Those
            that cannot be read, and may be or hold images, have an empty one.
        concepts: Concept ids by image id: CUIs, and local ids of labels in words.
        names: Name by concept id, where known.
        captions: Caption by image id, where given.
        groups: Patient, study or figure by image id, where known. Each image without one is a
            group of its own.
        without_image: Ids of the concepts file without an image; left out.
        without_concepts: Images without an entry in the concepts file; left out.
        duplicates: Paths of images with the same id; the first of each is used.
        ignored: Files that are not images.
        notes: What else is to be said of images and ids, one line each.
        understood: How the table of labels was read, in one line.
    """

    images: Sequence[ImageRef]
    concepts: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str]
    captions: Mapping[str, str]
    groups: Mapping[str, str]
    without_image: Sequence[str]
    without_concepts: Sequence[str]
    duplicates: Mapping[str, Sequence[str]]
    ignored: Sequence[str]
    notes: Sequence[str] = ()
    understood: str = ""

    def report(self) -> list[str]:
        """What was understood, and each kind of mismatch with a count and examples, in lines."""
        lines = [self.understood] if self.understood else []
        for what, where in (
            ("ids of the concepts file have no image and are left out", self.without_image),
            ("images are not in the concepts file and are left out", self.without_concepts),
        ):
            if where:
                more = ", …" if len(where) > 3 else ""
                lines.append(f"{len(where)} {what}: {', '.join(map(printable, where[:3]))}{more}")
        return [*lines, *self.notes]


def read_collection(
    images: str | Path | Sequence[str | Path] | FoundImages,
    concepts: str | Path | pd.DataFrame | Mapping[str, Iterable[str]] | None = None,
    *,
    label_column: str | Sequence[str] | None = None,
    mapping: Mapping[str, Sequence[str]] | None = None,
    names: str | Path | None = None,
    captions: str | Path | None = None,
    groups: str | None = None,
    split: str | None = None,
    only: str | None = None,
    on_mismatch: OnMismatch = "skip",
    on_duplicate: OnDuplicate = "fail",
    id_from: IdFrom = "auto",
    where: Mapping[str, Sequence[str]] | None = None,
) -> Collection:
    """Find the images, read the tables, and match them by id (see `annotator.ids`).

    Args:
        images: A folder, a glob, a list file or Parquet files; see `find_images`. Or what was found
            already, such as the rows of a table of vectors (`VectorTable.found`).
        concepts: A table of labels, such as a ground truth of any year (see
            `annotator.tables.labels`), a file or of pandas; or the labels of each image by its id.
            None for Parquet files, which contain their concepts.
        label_column: Name of the column of labels, or of several, if it is not found by itself.
        mapping: Concepts of labels in words, from `annotator.concepts.mapping.read_mapping`.
        names: Table of concept names by CUI. Labels that are words are their own names; those of an
            export of Label Studio are the CUIs of these names.
        captions: Table of captions by id.
        groups: "FILE" or "FILE:COLUMN" with the patient or study of each image, or
            "dicom:KEYWORD" to read it from the headers of DICOM files, such as "dicom:PatientID".
        split: "FILE" or "FILE:COLUMN" with the subset (side) of each image.
        only: Side to keep, such as "train".
        on_mismatch: "skip" leaves out ids without an image and images without an id (see
            `Collection.report`); "fail" raises.
        on_duplicate: "fail" raises if images have the same id; "first" uses the first path.
        id_from: What the ids of images are; see `find_images`.
        where: Values of DICOM attributes that images must have; see `find_images`.

    Raises:
        AnnotatorError: A file is missing or malformed, nothing matches, or as the options say.
    """
    keyword = dicom_keyword(groups)
    found = (
        images
        if isinstance(images, FoundImages)
        else find_images(
            images, on_duplicate=on_duplicate, id_from=id_from, where=where, group_by=keyword
        )
    )
    image_ids = [ref.id for ref in found.images]
    notes = found.report()
    captions_by_id: dict[str, str] = {}
    if concepts is None:
        if isinstance(images, FoundImages):
            raise AnnotatorError("No concepts file given.", "Give one.")
        labels, captions_by_id = parquet_tables(images, mapping)
    else:
        labels = _labels(concepts, label_column, mapping)
        if labels.shown and labels.names and names is not None:
            by_name = cuis_of_names(labels.names, read_terms(names))
            labels = _labels(concepts, label_column, {**by_name, **(mapping or {})})
    source = "the Parquet files" if concepts is None else labels.path
    concepts_by_id = by_image(labels.concepts, image_ids, source, notes)
    if captions is not None:
        captions_by_id = by_image(read_captions(captions), image_ids, captions, notes)
    known = concepts_by_id.keys()
    kept = select_side(known, split, only, notes)
    with_image = set(image_ids)
    without_image = [id_ for id_ in known if id_ in kept and id_ not in with_image]
    without_concepts = [ref.where for ref in found.images if ref.id not in known]
    matched = [ref for ref in found.images if ref.id in kept]
    if not matched:
        table = f"{f'{only} in ' if only else ''}{images if concepts is None else labels.path}"
        raise nothing_matches(found, kept, table, found.notes)
    if on_mismatch == "fail" and (without_image or without_concepts):
        raise AnnotatorError(
            f"{len(without_image)} ids have no image ({', '.join(without_image[:3])}), "
            f"{len(without_concepts)} images have no id ({', '.join(without_concepts[:3])}).",
            "Use --on-mismatch skip to leave them out.",
        )
    matched += found.unreadable
    concepts_of = {ref.id: concepts_by_id.get(ref.id, ()) for ref in matched}
    wanted = {concept for concepts in concepts_of.values() for concept in concepts}
    return Collection(
        images=matched,
        concepts=concepts_of,
        names={**labels.names, **(read_names(names, only=wanted) if names is not None else {})},
        captions=captions_by_id,
        groups=read_groups(groups, found, notes),
        without_image=without_image,
        without_concepts=without_concepts,
        duplicates=found.duplicates,
        ignored=found.ignored,
        notes=notes,
        understood=labels.understood,
    )


def _labels(
    concepts: str | Path | pd.DataFrame | Mapping[str, Iterable[str]],
    column: str | Sequence[str] | None,
    mapping: Mapping[str, Sequence[str]] | None,
) -> Labels:
    if isinstance(concepts, (str, Path)):
        return read_labels(concepts, column=column, mapping=mapping)
    if isinstance(concepts, Mapping):
        lists = {
            id_: [labels] if isinstance(labels, str) else [*labels]
            for id_, labels in concepts.items()
        }
        return labels_of_lists("the mapping", lists, mapping)
    from annotator.tables.frame import sheet_of_frame

    columns = [column] if isinstance(column, str) else column or ()
    return labels_of(sheet_of_frame(concepts), columns, mapping)


def nothing_matches(
    found: FoundImages, ids: Iterable[str], table: str, notes: Sequence[str] = ()
) -> AnnotatorError:
    """The error that no image matches one of the ids of a table, with examples of both.

    Args:
        found: The images.
        ids: Ids of the table.
        table: The table, for the message.
        notes: What is to be said of the images' ids.
    """
    given = sorted(ids, key=natural_key)
    return AnnotatorError(
        f"None of the {len(found.images)} images matches one of the {len(given)} ids of {table}.",
        f"Image ids are such as {found.images[0].id!r}; the table has ids such as "
        f"{given[0] if given else ''!r}. {' '.join(notes)}".rstrip(),
    )


def dicom_keyword(groups: str | None) -> str | None:
    """The keyword in "dicom:KEYWORD"; None for a table."""
    prefix = "dicom:"
    return groups.removeprefix(prefix) if groups and groups.startswith(prefix) else None


def read_groups(groups: str | None, found: FoundImages, notes: list[str]) -> dict[str, str]:
    """The group of each image, from a table or from the headers that `find_images` has read.

    Args:
        groups: As for `read_collection`.
        found: Images, found with ``group_by=dicom_keyword(groups)``.
        notes: Gets a line where ids of the table differ from the images', or where a group is so
            large that its name may stand for an unknown one.
    """
    if groups is None:
        return found.groups
    of_image = found.groups
    if dicom_keyword(groups) is None:
        ids = (ref.id for ref in found.images)
        of_image = by_image(read_column(groups), ids, groups, notes)
    sizes = Counter(group for group in of_image.values() if group)
    name, size = sizes.most_common(1)[0] if sizes else ("", 0)
    least, share = _LARGE_GROUP
    if size > max(least, share * len(found.images)):
        notes.append(
            f"{size:,} of {len(found.images):,} images are of one group, {name!r} ({groups}). If "
            "that stands for unknown ones, leave these cells empty: images without a group count "
            "as one each."
        )
    return of_image


def parquet_tables(
    images: str | Path | Sequence[str | Path],
    mapping: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Labels, dict[str, str]]:
    """Read labels and captions by image id from Parquet files.

    Args:
        images: As for `read_collection`.
        mapping: As for `read_collection`.

    Raises:
        AnnotatorError: No Parquet file, or none with concepts.
    """
    try:
        lists, captions = parquet_concepts(images)
    except FormatError:
        raise
    except AnnotatorError as error:
        raise AnnotatorError(
            f"No concepts file given, and no Parquet file with concepts in {images}.",
            "Give the concepts file after the images.",
        ) from error
    return labels_of_lists(str(images), lists, mapping), captions


@contextlib.contextmanager
def sample_collection() -> Iterator[Collection]:
    """Training side of the built-in phantoms, drawn into a temporary folder."""
    from annotator.phantoms import write_sample

    with tempfile.TemporaryDirectory(prefix="annotator-sample-") as folder:
        sample = write_sample(Path(folder) / "sample")
        collection = read_collection(
            sample.images,
            sample.concepts,
            names=sample.concept_names,
            captions=sample.captions,
            groups=str(sample.patients),
            split=str(sample.split),
            only="train",
        )
        yield replace(collection, understood="")  # of a file that nobody gave
