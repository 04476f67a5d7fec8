"""docs/cli.md and the sections of `--help`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

import click
import pytest
from invoking import ROOT, invoke

from annotator.cli import SECTIONS
from annotator.cli.options import options_as
from annotator.cli.reference import render_reference
from annotator.cli.sections import Command, Heading, option


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == render_reference(), "python -m annotator.cli.reference > docs/cli.md"


def test_commands_are_listed_by_section() -> None:
    text = invoke("--help").stdout
    places = [text.index(f"\n{heading}:\n") for heading in SECTIONS]
    assert places == sorted(places)


@pytest.mark.parametrize("name", ["build-index", "add", "annotate", "caption", "search", "audit"])
def test_long_help_is_in_sections(name: str) -> None:
    text = invoke(name, "--help").stdout
    headings = re.findall(r"^(\w+):$", text.partition("Examples:")[2], re.MULTILINE)
    assert headings == [heading for heading in get_args(Heading) if heading in headings]
    assert {"Input", "Index", "Encoder", "Running", "Options"} <= set(headings)
    options = text[text.index("\nOptions:\n") :]
    assert re.findall(r"^  (-.*?)  ", options, re.MULTILINE) == [
        "-q, --quiet", "-v, --verbose", "-h, --help",
    ]  # fmt: skip


def test_few_options_are_one_list() -> None:
    text = invoke("info", "--help").stdout
    assert "\nOptions:\n  --index" in text and "\nIndex:" not in text


@dataclass(frozen=True)
class Pair:
    a: int
    b: int


def test_a_group_of_options_is_one_argument() -> None:
    @click.command(cls=Command)
    @options_as("pair", Pair, option("Query", "--a", type=int), option("Query", "--b", type=int))
    @click.option("--c", type=int)
    def command(pair: Pair, c: int) -> tuple[Pair, int]:
        return pair, c

    values = command.main(["--c", "3", "--b", "2", "--a", "1"], standalone_mode=False)
    assert values == (Pair(1, 2), 3)
