"""Options of the commands that select concepts by their semantic types."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.options import file_path, options_as
from annotator.cli.sections import option
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.concepts.types import SemanticTypes


@dataclass(frozen=True)
class TypeOptions:
    """Semantic types, and the file that says which concept has which.

    Raises:
        click.UsageError: Types are selected, and there is no file.
    """

    types: tuple[str, ...]
    semantic_types: Path | None

    def __post_init__(self) -> None:
        if self.types and self.semantic_types is None:
            raise click.UsageError("--types requires --semantic-types, such as MRSTY.RRF.")

    @property
    def given(self) -> bool:
        """Whether there is a file."""
        return self.semantic_types is not None

    def read(self, concepts: Collection[str]) -> tuple[SemanticTypes, tuple[str, ...]]:
        """Read the types of some concepts, and the types that are selected (none: all).

        Raises:
            AnnotatorError: The file cannot be read, or lacks a selected type.
        """
        from annotator.concepts.types import read_types

        assert self.semantic_types is not None
        found = read_types(self.semantic_types, only=frozenset(concepts))
        return found, found.parse(self.types)

    def select(self, concepts: Collection[str], where: str) -> frozenset[str] | None:
        """Select concepts of the selected types; None where none are selected.

        Args:
            concepts: The concepts.
            where: What has them, for the message.

        Raises:
            click.UsageError: A file is given without types.
            AnnotatorError: As `read`, or none of the concepts has one of the types.
        """
        if not self.given:
            return None
        if not self.types:
            raise click.UsageError("--semantic-types requires --types, such as T047,T023.")
        types, tuis = self.read(concepts)
        selected = frozenset(types.only(tuis).of)
        if not selected:
            raise AnnotatorError(
                f"None of the {len(concepts):,} concepts of {where} has the semantic type "
                f"{' or '.join(tuis)}.",
                f"{len(types.of):,} of them are in {types.path}. Labels in words have no type: "
                "map them to CUIs first (annotator concepts match).",
            )
        return selected


type_options = options_as(
    "type_filter",
    TypeOptions,
    option(
        "Voting",
        "--types",
        multiple=True,
        metavar="TYPE,…",
        help="Only concepts of these semantic types: TUIs or names, such as T047,T023.",
    ),
    option(
        "Voting",
        "--semantic-types",
        type=file_path(),
        metavar="FILE",
        help="Semantic types of the concepts: MRSTY.RRF, or a table of CUI and TUI.",
    ),
)
