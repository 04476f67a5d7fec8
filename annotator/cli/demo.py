"""`annotator demo`."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import click

from annotator.cli.build import build_index_command
from annotator.cli.console import is_verbose, say
from annotator.cli.options import file_path
from annotator.cli.sections import Command
from annotator.cli.serve import run_service, service_settings
from index.protocols import IndexLocation


@click.command("demo", cls=Command, short_help="Try it: sample images, an index, and its page.")
@click.argument("directory", type=file_path(file_okay=False), default="demo")
@click.option("--n", type=click.IntRange(20), default=600, help="Number of sample images.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, help="Port; 0 for any free one."
)
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
@click.pass_context
def demo_command(ctx: click.Context, directory: Path, n: int, port: int, no_browser: bool) -> int:
    """Draw the sample images into DIRECTORY, index some of them, and serve the page.

    The images are generated phantoms, not patients. What DIRECTORY already holds is used again.
    Ctrl-C stops the server.

    \b
    annotator demo
    annotator demo somewhere/ --port 0 --no-browser
    """
    from annotator.phantoms import write_sample
    from index.locations import locate

    index = directory / "index"
    settings = service_settings(  # fails early
        index=str(index), images=str(directory / "sample" / "images"), host="127.0.0.1", port=port
    )
    sample = write_sample(directory / "sample", n=n)
    place = locate(index)
    if _is_whole(place):
        say(f"{place}: used as it is.")
    else:
        say(f"Building {place} from the training side of {n} phantoms.")
        ctx.invoke(
            build_index_command,
            images=str(sample.images),
            concepts=str(sample.concepts),
            split=str(sample.split),
            only="train",
            groups=str(sample.patients),
            names=sample.concept_names,
            captions=sample.captions,
            thumbnails=True,
            place=place,
        )

    def started(url: str) -> None:
        images = directory / "sample" / sample.images.name
        say(f"Next: open {url} in a browser, and drop an image of {images} on the page.")
        if not no_browser and _has_display():
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    code = run_service(settings, started, log_requests=is_verbose())
    say(f"Next: annotator demo {directory} serves it again; the folder may be deleted.")
    return code


def _is_whole(place: IndexLocation) -> bool:
    """Whether there is an index with thumbnails."""
    from index.errors import IndexProblem

    try:
        return place.open().has_thumbnails
    except IndexProblem:
        return False


def _has_display() -> bool:
    """Whether a browser opens a window, rather than taking the terminal."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
