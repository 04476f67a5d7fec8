"""The command-line reference, docs/cli.md: `python -m annotator.cli.reference > docs/cli.md`."""

from __future__ import annotations

import inspect

import click

from annotator.cli import EXIT_CODES, SECTIONS, cli
from annotator.cli.sections import option_sections

_HEAD = """# Command line

Generated from the commands by `python -m annotator.cli.reference`; `annotator COMMAND --help` says
the same."""


def render_reference() -> str:
    """All commands with their usage, examples and options, as Markdown."""
    exit_codes = inspect.cleandoc(EXIT_CODES.removeprefix("\b\nExit codes:\n"))
    parts = [_HEAD, f"Exit codes:\n\n```text\n{exit_codes}\n```"]
    with click.Context(cli, info_name="annotator", **cli.context_settings) as group:
        for heading, names in SECTIONS.items():
            parts.append(f"## {heading}")
            for command in filter(None, (cli.get_command(group, name) for name in names)):
                with click.Context(command, parent=group, info_name=command.name) as ctx:
                    parts += _command(command, ctx)
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, ctx: click.Context) -> list[str]:
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    text, _, examples = inspect.cleandoc(command.help or "").partition("\n\n\b\n")
    parts = [f"### annotator {command.name}", f"```text\n{usage}\n```", text]
    parts.append(f"```sh\n{examples}\n```")
    for heading, options in option_sections(command, ctx).items():
        lines = [f"- `{usage}`: {help_}" for usage, help_ in options if usage != "-h, --help"]
        if lines:
            parts.append("\n".join([f"{heading}:", "", *lines]))
    return parts


if __name__ == "__main__":
    click.echo(render_reference(), nl=False)
