"""Output of the commands: results on stdout, messages on stderr."""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from annotator import __version__
from annotator.errors import AnnotatorError
from annotator.files import whole_file
from index.progress import Work, progress_line

EXIT_OK = 0
EXIT_PROBLEM = 1  # invalid input or index, or problems found by validate or verify
EXIT_USAGE = 2  # click's own
EXIT_PARTIAL = 3  # finished, but some images could not be used
EXIT_INTERRUPTED = 130

_VERBOSITY = "annotator.verbosity"
_STARTED = time.perf_counter()
_COLOURS = {"Error:": "red", "Warning:": "yellow", "Next:": "cyan"}

NO_THUMBNAILS = (
    "The index has no thumbnails: give --images, or rebuild it with --thumbnails (nothing is "
    "embedded again)."
)


def verbosity_options() -> list[click.Option]:
    """The options --quiet and --verbose, of every command."""

    def keep(ctx: click.Context, option: click.Parameter, given: bool) -> None:
        if given:
            ctx.meta[_VERBOSITY] = option.name

    return [
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, callback=keep,
            help="Print results and errors only.",
        ),
        click.Option(
            ["-v", "--verbose"], is_flag=True, expose_value=False, callback=keep,
            help="Print details: versions, paths, and the time of each stage.",
        ),
    ]  # fmt: skip


def say(message: str, *, always: bool = False) -> None:
    """Print a message on stderr; with --quiet only if `always`, as errors are."""
    if always or not is_quiet():
        beginning, colon, rest = message.partition(":")
        if colour := _COLOURS.get(beginning + colon):
            message = click.style(beginning + colon, fg=colour, bold=True) + rest
        click.echo(message, err=True)


def detail(message: str) -> None:
    """Print a message on stderr, with the seconds since the command began, if --verbose."""
    if is_verbose():
        say(click.style(f"[{time.perf_counter() - _STARTED:6.1f} s] {message}", dim=True))


def is_quiet() -> bool:
    """Whether --quiet was given."""
    return _verbosity() == "quiet"


def is_verbose() -> bool:
    """Whether --verbose was given."""
    return _verbosity() == "verbose"


def _verbosity() -> str | None:
    context = click.get_current_context(silent=True)
    return context.meta.get(_VERBOSITY) if context is not None else None


@contextlib.contextmanager
def shown_progress(params: Mapping[str, Any]) -> Iterator[None]:
    """Show the progress of a command on a line of the terminal.

    With --verbose also versions, the paths among its parameters, and what each stage took.
    """
    if is_quiet():
        yield
        return
    if is_verbose():
        detail(_versions())
        for name, value in params.items():
            path = getattr(value, "folder", value)  # of an index
            if isinstance(path, Path):
                detail(f"{name}: {path.resolve()}")
    with progress_line(_say_stage):
        yield
    detail(f"done; at most {_peak_megabytes():,.0f} MB of memory")


def _say_stage(work: Work, seconds: float) -> None:
    rate = f" ({work.total / seconds:,.0f}/s)" if seconds else ""
    detail(f"{work.label}: {work.total:,} {work.unit} in {seconds:.1f} s{rate}")


def _versions() -> str:
    """Versions of what decides about results and speed, without importing it."""
    from importlib.metadata import distributions

    wanted = ("numpy", "torch", "timm", "faiss-cpu", "faiss-gpu", "pydicom", "pillow")
    found = {d.metadata["Name"].lower(): d.version for d in distributions()}
    listed = [f"{name} {found[name]}" for name in wanted if name in found]
    return ", ".join([f"annotator {__version__}", f"Python {platform.python_version()}", *listed])


def _peak_megabytes() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table_width(output: Path | None) -> int | None:
    """Width of the terminal that takes the results; None where they go to a file or a pipe."""
    return shutil.get_terminal_size().columns if to_terminal(output) else None


def to_terminal(output: Path | None) -> bool:
    """Whether a person sees the results, rather than a file or a program."""
    return output is None and sys.stdout.isatty()


def search_in_words(search: Mapping[str, Any]) -> str:
    """Reason for the index type, and the recall measured by the build."""
    reason = str(search.get("reason", ""))
    if "recall" in search:
        reason += f"; recall {search['recall']:.1%}"
        if search["recall"] < search["target_recall"]:
            reason += f", below the target of {search['target_recall']:.1%}"
    return reason


def write_result(data: str | bytes, output: Path | None) -> None:
    """Write a complete result to stdout, or atomically to a file.

    Raises:
        AnnotatorError: The file cannot be written.
    """
    raw = data.encode() if isinstance(data, str) else data
    if output is None:
        if isinstance(data, bytes) and sys.stdout.isatty():
            raise click.UsageError("Cannot write a zip to a terminal: redirect or give --output.")
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        return
    try:
        if output.exists() and not output.is_file():
            output.write_bytes(raw)  # a device or pipe: never replaced
        else:
            with whole_file(output) as temporary:
                temporary.write_bytes(raw)
    except OSError as error:
        raise AnnotatorError(
            f"{output} cannot be written: {error.strerror}.",
            "Check that its folder exists, is writable and has free space.",
        ) from error
