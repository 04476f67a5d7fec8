"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from annotator.collection import Collection, OnMismatch
    from annotator.encoders.runners import Runner
    from annotator.knn.voting import Voting
    from index.protocols import IndexLocation

_FOLDER_TYPES = ("auto", "flat", "scan", "ivf", "compressed")
_INDEX_TYPES = (*_FOLDER_TYPES, "hnsw", "gpu-flat", "gpu-ivf", "gpu-cagra")  # the last are Milvus's

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def file_path(**options: Any) -> click.Path:
    """The type of a parameter that is a path; the readers of files say what is wrong with one."""
    return click.Path(path_type=Path, **options)


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of `--help`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class PlaceType(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.5
    """Where an index lies."""

    name = "index"

    def convert(self, value: Any, param: Any, ctx: Any) -> IndexLocation:
        """The place that a path or an address names."""
        from index.locations import locate

        return locate(value)


index_option = click.option(
    "--index",
    "place",
    envvar="ANNOTATOR_INDEX",
    default="concept-index",
    show_default=True,
    type=PlaceType(),
    metavar="INDEX",
    help="The index: a folder, or milvus://HOST:PORT/NAME (environment: ANNOTATOR_INDEX).",
)

names_option = click.option("--names", type=file_path(), help="Table with each CUI's name.")

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")

side_options = together(
    click.option("--split", metavar="FILE[:COLUMN]", help="Table with each image's side."),
    click.option("--only", metavar="SIDE", help="The side to use, such as train."),
)

collection_options = together(
    side_options,
    click.option(
        "--groups", metavar="FILE[:COLUMN]", help="Table with each image's patient or study."
    ),
    click.option("--captions", type=file_path(), help="Table with each image's caption."),
    names_option,
)

embedding_options = together(
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where the encoder runs; cuda: and the search.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        help="Images that the encoder takes at once (default: 16; on a GPU 128).",
    ),
    click.option("--workers", type=click.IntRange(1), help="Threads (default: the cores)."),
    click.option(
        "--runner",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Who reads and encodes the images: this process, or the workers of a Ray cluster.",
    ),
    click.option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        metavar="ADDRESS",
        help="For --runner ray: a running cluster, HOST:PORT or auto (environment: RAY_ADDRESS; "
        "default: one is started on this machine for the length of the command).",
    ),
    click.option(
        "--on-duplicate",
        type=click.Choice(["fail", "first"]),
        default="fail",
        show_default=True,
        help="What to do about two images with one id.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(["skip", "fail"]),
        default="skip",
        show_default=True,
        help="What to do about an image that cannot be used.",
    ),
    click.option("--no-cache", is_flag=True, help="Neither use nor keep computed vectors."),
)

voting_options = together(
    click.option("--k", type=click.IntRange(1), help="Neighbours that vote."),
    click.option(
        "--kernel",
        type=click.Choice(["exponential", "inverse", "rank", "uniform"]),
        help="How a neighbour's weight falls with its distance or rank.",
    ),
    click.option("--beta", type=click.FloatRange(0), help="Sharpness of the kernel."),
    click.option(
        "--prior",
        type=click.FloatRange(0),
        help="Weight of all training images against so many typical neighbours.",
    ),
    click.option(
        "--decider",
        type=click.Choice(["expected-f1", "threshold", "top-r"]),
        help="From votes to a set of concepts.",
    ),
    click.option("--threshold", type=click.FloatRange(0, 1), help="For --decider threshold."),
    click.option("--top-r", type=click.IntRange(0), help="For --decider top-r."),
    click.option("--min-score", type=click.FloatRange(0, 1), help="Drop weaker concepts."),
)


verify_option = click.option(
    "--verify", is_flag=True, help="Read files over 512 MiB through before they are believed."
)

index_type_options = together(
    click.option(
        "--index-type",
        type=click.Choice(_INDEX_TYPES),
        help="How vectors are searched: exactly (flat, scan), or approximately (ivf, compressed); "
        "auto chooses by their number. Milvus has hnsw and gpu-... instead of scan.",
    ),
    click.option(
        "--target-recall",
        type=click.FloatRange(0, 1, min_open=True),
        help="Share of the true neighbours that an approximate search is to find (0.98); 1: all.",
    ),
)


def given_collection(
    images: str, concepts: str | None, options: Mapping[str, Any], *, on_mismatch: OnMismatch
) -> Collection:
    """IMAGES and CONCEPTS with what `collection_options` say of them.

    Raises:
        AnnotatorError: As `read_collection`.
    """
    from annotator.collection import read_collection

    return read_collection(
        images,
        concepts,
        names=options["names"],
        captions=options["captions"],
        groups=options["groups"],
        split=options["split"],
        only=options["only"],
        on_mismatch=on_mismatch,
        on_duplicate=options["on_duplicate"],
    )


def given_runner(options: Mapping[str, Any]) -> Runner:
    """What `embedding_options` say of who embeds.

    Raises:
        click.UsageError: An address without --runner ray.
        AnnotatorError: As `make_runner`.
    """
    from annotator.encoders.runners import make_runner

    address = options["ray_address"]
    if options["runner"] != "ray" and address and "RAY_ADDRESS" not in os.environ:
        raise click.UsageError("--ray-address belongs to --runner ray.")
    return make_runner(options["runner"], address=address, device=options["device"])


def given_voting(options: Mapping[str, Any]) -> list[str]:
    """Those of `voting_options` that were given."""
    names = ("k", "kernel", "beta", "prior", "decider", "threshold", "top_r", "min_score")
    return [name for name in names if options.get(name) is not None]


def voting_of(options: Mapping[str, Any], recorded: Voting | None = None) -> Voting:
    """The recorded (or default) voting parameters, with what `voting_options` change.

    Raises:
        click.UsageError: They do not go together.
    """
    from dataclasses import replace

    from annotator.knn.voting import Voting

    changed = {name: options[name] for name in given_voting(options)}
    try:
        voting = replace(recorded or Voting(), **changed)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for name, decider in (("threshold", "threshold"), ("top_r", "top-r")):
        if name in changed and voting.decider != decider:
            raise click.UsageError(f"--{name.replace('_', '-')} belongs to --decider {decider}.")
    return voting
