"""A labelled collection: images matched with their concepts, captions and groups by id."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from annotator.errors import AnnotatorError, FormatError
from annotator.images.ref import ImageRef
from annotator.images.sources import find_images, parquet_concepts
from annotator.tables.formats import (
    read_captions,
    read_column,
    read_concepts,
    read_names,
    select_side,
    split_cuis,
)
from annotator.tables.table import is_cui

OnMismatch = Literal["skip", "fail"]
OnDuplicate = Literal["fail", "first"]


@dataclass(frozen=True)
class Collection:
    """Images with their concepts, matched by id.

    Attributes:
        images: Images sorted by id, all with an entry in `concepts`.
        concepts: CUIs by image id.
        names: Name by CUI, where known.
        captions: Caption by image id, where given.
        groups: Patient, study or figure by image id, where known. Each image without one is a
            group of its own.
        without_image: Ids of the concepts file without an image; left out.
        without_concepts: Images without an entry in the concepts file; left out.
        duplicates: Paths of images with the same id; the first of each is used.
        ignored: Files that are not images.
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

    def report(self) -> list[str]:
        """Describe each kind of mismatch in one line, with a count and examples."""
        lines = []
        for what, where in (
            ("ids of the concepts file have no image and are left out", self.without_image),
            ("images are not in the concepts file and are left out", self.without_concepts),
            ("ids belong to several images; the first is used", list(self.duplicates)),
            ("files are not images and are ignored", self.ignored),
        ):
            if where:
                more = ", …" if len(where) > 3 else ""
                lines.append(f"{len(where)} {what}: {', '.join(where[:3])}{more}")
        return lines


def read_collection(
    images: str | Path | Sequence[str | Path],
    concepts: str | Path | None = None,
    *,
    names: str | Path | None = None,
    captions: str | Path | None = None,
    groups: str | None = None,
    split: str | None = None,
    only: str | None = None,
    on_mismatch: OnMismatch = "skip",
    on_duplicate: OnDuplicate = "fail",
) -> Collection:
    """Find the images, read the tables, and match them by id.

    Args:
        images: A folder, a glob, a list file or Parquet files; see `find_images`.
        concepts: A ground-truth file of any year, ROCO v1 or ROCOv2; None for Parquet files, which
            contain their concepts.
        names: Table of concept names by CUI.
        captions: Table of captions by id.
        groups: "FILE" or "FILE:COLUMN" with the patient or study of each image.
        split: "FILE" or "FILE:COLUMN" with the subset (side) of each image.
        only: Side to keep, such as "train".
        on_mismatch: "skip" leaves out ids without an image and images without an id (see
            `Collection.report`); "fail" raises.
        on_duplicate: "fail" raises if images have the same id; "first" uses the first path.

    Raises:
        AnnotatorError: A file is missing or malformed, nothing matches, or as the options say.
    """
    found = find_images(images, on_duplicate=on_duplicate)
    if concepts is None:
        concepts_by_id, captions_by_id = parquet_tables(images)
    else:
        concepts_by_id, captions_by_id = read_concepts(concepts), {}
    if captions is not None:
        captions_by_id = read_captions(captions)
    known = concepts_by_id.keys()
    kept = select_side(known, split, only)
    with_image = {ref.id for ref in found.images}
    without_image = [id_ for id_ in known if id_ in kept and id_ not in with_image]
    without_concepts = [ref.where for ref in found.images if ref.id not in known]
    matched = [ref for ref in found.images if ref.id in kept]
    if not matched:
        raise AnnotatorError(
            f"None of the {len(found.images)} images matches one of the {len(kept)} ids"
            f"{f' of {only}' if only else ''} in {concepts or images}.",
            f"Image ids are file names without extension, such as {found.images[0].id!r}; "
            f"the table has ids such as {next(iter(known), '')!r}.",
        )
    if on_mismatch == "fail" and (without_image or without_concepts):
        raise AnnotatorError(
            f"{len(without_image)} ids have no image ({', '.join(without_image[:3])}), "
            f"{len(without_concepts)} images have no id ({', '.join(without_concepts[:3])}).",
            "Use --on-mismatch skip to leave them out.",
        )
    return Collection(
        images=matched,
        concepts={ref.id: concepts_by_id[ref.id] for ref in matched},
        names=read_names(names) if names is not None else {},
        captions=captions_by_id,
        groups=read_column(groups) if groups is not None else {},
        without_image=without_image,
        without_concepts=without_concepts,
        duplicates=found.duplicates,
        ignored=found.ignored,
    )


def parquet_tables(
    images: str | Path | Sequence[str | Path],
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Read concepts and captions by image id from Parquet files.

    CUIs are normalised as by `read_concepts`.

    Raises:
        AnnotatorError: No Parquet file, or none with concepts.
    """
    try:
        raw, captions = parquet_concepts(images)
    except FormatError:
        raise
    except AnnotatorError as error:
        raise AnnotatorError(
            f"No concepts file given, and no Parquet file with concepts in {images}.",
            "Give the concepts file after the images.",
        ) from error
    concepts = {id_: split_cuis(";".join(cuis)) for id_, cuis in raw.items()}
    for id_, cuis in concepts.items():
        bad = next((cui for cui in cuis if not is_cui(cui)), None)
        if bad is not None:
            raise FormatError(
                f"{images}, image {id_!r}: {bad!r} is not a CUI",
                "A CUI is C and digits, such as C0817096.",
            )
    return concepts, captions


@contextlib.contextmanager
def sample_collection() -> Iterator[Collection]:
    """Training side of the built-in phantoms, drawn into a temporary folder."""
    from annotator.phantoms import write_sample

    with tempfile.TemporaryDirectory(prefix="annotator-sample-") as folder:
        sample = write_sample(Path(folder) / "sample")
        yield read_collection(
            sample.images,
            sample.concepts,
            names=sample.concept_names,
            captions=sample.captions,
            groups=str(sample.patients),
            split=str(sample.split),
            only="train",
        )
