"""Options of the commands that take vectors instead of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import say
from annotator.cli.options import file_path, options_as, refuse
from annotator.cli.sections import option

if TYPE_CHECKING:
    from annotator.vectors.table import VectorTable


#: Parameters of commands that mean nothing for vectors.
ONLY_OF_IMAGES = ("where", "runner", "allow_blank", "embedder", "precision")


@dataclass(frozen=True)
class VectorOptions:
    """Vectors in place of images."""

    vectors: Path | None
    encoder_name: str | None

    def read(
        self, ids: Path | None, *, ids_select: bool = False, unusable: Sequence[str] = ()
    ) -> VectorTable | None:
        """Read the vectors, and say what was understood; None if images are given instead.

        Args:
            ids: File with the id of each row, if the vectors have none.
            ids_select: `ids` may be a selection instead, from vectors that have ids.
            unusable: Parameters of the command that only images have, beside `ONLY_OF_IMAGES`.

        Raises:
            click.UsageError: --encoder-name without --vectors, or one of `unusable` is given.
            AnnotatorError: As `read_vectors`.
        """
        if self.vectors is None:
            if self.encoder_name is not None or (ids is not None and not ids_select):
                raise click.UsageError("--encoder-name and --ids require --vectors.")
            return None
        refuse((*ONLY_OF_IMAGES, *unusable), "--vectors has no images.")
        from annotator.vectors.table import read_vectors

        table = read_vectors(
            self.vectors, ids, encoder=self.encoder_name, prefer_own_ids=ids_select
        )
        say(table.understood)
        return table


def images_or(vectors: VectorTable | None, images: str | None) -> str | VectorTable:
    """What a command works on: vectors or IMAGES, of which exactly one must be given.

    Raises:
        click.UsageError: Both are, or neither.
    """
    source = images if vectors is None else vectors
    if source is None or (vectors is not None and images is not None):
        raise click.UsageError("Give IMAGES or --vectors.")
    _refuse_file_of_vectors(images)
    return source


def labelled(
    vectors: VectorTable | None, images: str | None, concepts: str | None
) -> tuple[str | VectorTable | None, str | None]:
    """What a command is given to index, and CONCEPTS, which are the first argument of vectors.

    Raises:
        click.UsageError: Vectors have no CONCEPTS, or images beside them.
    """
    if vectors is None:
        _refuse_file_of_vectors(images)
        return images, concepts
    if images is None or concepts is not None:
        raise click.UsageError("With --vectors, give one argument: CONCEPTS.")
    return vectors, images


def _refuse_file_of_vectors(images: str | None) -> None:
    if images is not None and images.lower().endswith((".npy", ".npz", ".safetensors")):
        raise click.UsageError(f"{images} has no images: give vectors as --vectors {images}")


vector_options = options_as(
    "given",
    VectorOptions,
    option(
        "Input",
        "--vectors",
        type=file_path(),
        metavar="FILE",
        help="Vectors in place of images, of any encoder: .npy, .npz, .parquet or .safetensors.",
    ),
    option(
        "Input",
        "--encoder-name",
        metavar="NAME",
        help="With --vectors: what you call their encoder; the index takes no others.",
    ),
)

row_ids_option = option(
    "Input",
    "--ids",
    "row_ids",
    type=file_path(),
    metavar="FILE",
    help="With --vectors: the id of each row (a list, a table's first column, or .npy).",
)
