"""Headings for options and commands in `--help`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
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
    """Group of commands under headings, which imports only the command that it runs.

    Args:
        sections: By heading, the module in `annotator.cli` of each command; the command `add` is
            its `add_command`.
        settings: As for `click.Group`.
    """

    def __init__(self, *, sections: Mapping[str, Mapping[str, str]], **settings: Any) -> None:
        super().__init__(**settings)
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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        for heading, names in self.sections.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(heading):
                formatter.write_dl(
                    [(name, c.get_short_help_str(width)) for name, c in commands if c]
                )
