"""Headings for options and commands in `--help`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import click

from annotator.cli.console import shown_progress, table_width, verbosity_options
from annotator.render.text_table import fitted_to

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

Heading = Literal[  # in the order of --help
    "Query", "Scoring", "Captions", "Rankings", "Input", "Index", "Encoder", "Voting", "Checks",
    "Network", "Limits", "Training", "Running", "Output", "Options",
]  # fmt: skip

_SHORT = 12  # maximum number of options without headings
_SUMMARY = 120  # maximum length of a command's summary
_METAVARS = {
    "INTEGER RANGE": "N", "INTEGER": "N", "FLOAT RANGE": "NUMBER", "FLOAT": "NUMBER",
}  # fmt: skip


class _Option(click.Option):
    def __init__(self, *args: Any, heading: Heading, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


def option(heading: Heading, *names: str, **settings: Any) -> Decorator:
    """`click.option` under a heading; an option of plain `click.option` is under "Options"."""
    return click.option(*names, cls=_Option, heading=heading, **settings)


class _Helped(click.Command):
    """Command whose help has a heading for its examples."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        text, examples = split_examples(self.help or "")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)
        if examples:
            with formatter.section(_bold("Examples")):
                for line in examples.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Command(_Helped):
    """Command with its options under headings, if there are more than a few.

    Every command has the options of `verbosity_options`; a terminal shows its progress.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += verbosity_options()

    def invoke(self, ctx: click.Context) -> Any:
        with shown_progress(ctx.params), fitted_to(table_width(ctx.params.get("output"))):
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_sections(formatter, option_sections(self, ctx), formatter.width // 3)


def split_examples(text: str) -> tuple[str, str]:
    """Split the help of a command into its text and its examples, the block after a `\\b`."""
    text, _, examples = inspect.cleandoc(text).partition("\n\n\b\n")
    return text, examples


def option_sections(command: click.Command, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
    """Group the options of a command by heading, as pairs of usage and help."""
    sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in get_args(Heading)}
    options = [p for p in command.get_params(ctx) if isinstance(p, click.Option)]
    for parameter in options:
        heading = "Options"
        if isinstance(parameter, _Option) and len(options) > _SHORT:
            heading = parameter.heading
        record = parameter.get_help_record(ctx)
        if record is not None:
            usage, help_ = record
            for named, short in _METAVARS.items():
                usage = usage.replace(named, short)
            sections[heading].append((usage, help_))
    return {heading: records for heading, records in sections.items() if records}


def _write_sections(
    formatter: click.HelpFormatter, sections: Mapping[str, Sequence[tuple[str, str]]], most: int
) -> None:
    """Write definition lists under headings, with all texts in one column.

    Args:
        formatter: Takes the text.
        sections: By heading, pairs of a term and its text.
        most: Maximum width of the terms' column; longer terms have lines of their own.
    """
    terms = [len(term) for rows in sections.values() for term, _ in rows]
    width = max((length for length in terms if length <= most), default=most)
    for heading, rows in sections.items():
        with formatter.section(_bold(heading)):
            formatter.write_dl([(term.ljust(width), text) for term, text in rows], col_max=width)


def _bold(heading: str) -> str:
    return click.style(heading, bold=True)  # click.echo takes it away where it cannot be shown


class Group(_Helped, click.Group):
    """Group of commands whose help has a heading for its examples."""


class CommandGroup(Group):
    """Group of commands under headings, which imports only the command that it runs.

    Args:
        sections: By heading, the module in `annotator.cli` of each command; the command `add` is
            its `add_command`.
        settings: As for `click.Group`.
    """

    def __init__(self, *, sections: Mapping[str, Mapping[str, str]], **settings: Any) -> None:
        super().__init__(**settings)
        self.params += verbosity_options()
        self.sections = sections

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in self.sections.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for commands in self.sections.values():
            if cmd_name in commands:
                module = importlib.import_module(f"annotator.cli.{commands[cmd_name]}")
                command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
                return command
        return None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections = {
            heading: [
                (name, command.get_short_help_str(limit=_SUMMARY))
                for name in names
                if (command := self.get_command(ctx, name))
            ]
            for heading, names in self.sections.items()
        }
        _write_sections(formatter, sections, formatter.width // 3)
