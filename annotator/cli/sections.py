"""Headings for options and commands in `--help`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

Heading = Literal[  # in the order of --help
    "Query", "Input", "Index", "Encoder", "Voting", "Checks", "Network", "Limits", "Running",
    "Output", "Options",
]  # fmt: skip

_SHORT = 10  # maximum number of options without headings


class _Option(click.Option):
    def __init__(self, *args: Any, heading: Heading, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


def option(heading: Heading, *names: str, **settings: Any) -> Decorator:
    """`click.option` under a heading; an option of plain `click.option` is under "Options"."""
    return click.option(*names, cls=_Option, heading=heading, **settings)


class Command(click.Command):
    """Command with its options under headings, if there are more than a few."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, options in option_sections(self, ctx).items():
            with formatter.section(heading):
                formatter.write_dl(options)


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
            sections[heading].append(record)
    return {heading: records for heading, records in sections.items() if records}


class CommandGroup(click.Group):
    """Group of commands under headings.

    Args:
        sections: Commands by heading.
        settings: As for `click.Group`.
    """

    def __init__(self, *, sections: Mapping[str, Sequence[click.Command]], **settings: Any) -> None:
        super().__init__(**settings)
        self.sections = sections
        for commands in sections.values():
            for command in commands:
                self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self.commands))
        for heading, commands in self.sections.items():
            rows = [(str(c.name), c.get_short_help_str(width)) for c in commands]
            with formatter.section(heading):
                formatter.write_dl(rows)
