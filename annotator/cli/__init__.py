"""The command line: each command parses, calls, prints.

What a command needs is imported inside it, so that `--help` is immediate and commands that score or
check files never load torch.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from annotator import __version__
from annotator.cli.console import EXIT_INTERRUPTED, EXIT_OK, EXIT_PROBLEM, say
from annotator.cli.sections import CommandGroup
from annotator.errors import AnnotatorError

EXIT_CODES = """\b
Exit codes:
  0    done
  1    invalid input or index, or problems found by a check
  2    usage error
  3    done, but some images could not be used (their rows are empty)
  130  interrupted with Ctrl-C; computed vectors stay in the cache"""


# Module of each command, by heading; a module is imported when its command is asked for.
SECTIONS = {
    "Try it": {"demo": "demo", "sample": "build"},
    "Index": {
        "build-index": "build",
        "fit-encoder": "fit_encoder",
        "tune": "tune",
        "add": "change",
        "remove": "change",
        "relabel": "correct",
        "history": "correct",
        "compact": "change",
        "embed": "embed",
        "info": "check",
        "verify": "check",
    },
    "Annotate": {
        "annotate": "annotate",
        "ensemble": "ensemble",
        "caption": "caption",
        "serve": "serve",
    },
    "Evaluate": {"evaluate": "score", "validate": "score", "drift": "drift"},
    "Look inside": {"search": "search", "explain": "explain", "map": "map"},
    "Data": {
        "audit": "audit",
        "queue": "queue",
        "export": "export",
        "stats": "check",
        "concepts": "concepts",
    },
}


class _Commands(CommandGroup):
    """Group whose commands return their exit code; expected errors show no traceback."""

    def make_context(self, *args: Any, **settings: Any) -> click.Context:
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            settings["color"] = False  # None: where the stream is a terminal
        return super().make_context(*args, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
        except AnnotatorError as error:
            say(f"Error: {error}", always=True)
            code = EXIT_PROBLEM
        except KeyboardInterrupt:
            say("Interrupted.", always=True)
            code = EXIT_INTERRUPTED
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click exits silently on a closed pipe
            where = f"{error.filename}: " if error.filename else ""
            say(f"Error: {where}{error.strerror or error}", always=True)
            code = EXIT_PROBLEM
        ctx.exit(code or EXIT_OK)


@click.group(
    cls=_Commands,
    sections=SECTIONS,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="annotator")
def cli() -> None:
    """UMLS concepts for medical images, voted by the most similar labelled images.

    Not for clinical use.

    \b
    annotator build-index train/ train_concepts.csv
    annotator annotate test/ > run.csv
    annotator evaluate run.csv test_concepts.csv
    """


def main() -> None:
    """Entry point of the `annotator` command."""
    from annotator.encoders.allocator import keep_freed_memory
    from index.cores import limit_threads

    limit_threads()
    keep_freed_memory()  # before numpy and torch start threads
    try:
        cli(prog_name="annotator")
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            # Already reported; Python would flush stdout again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
