"""Options and helpers of the commands that embed images or run them against an index."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from annotator.cli.options import device_option, options_as
from annotator.cli.sections import option
from annotator.errors import AnnotatorError

if TYPE_CHECKING:
    from annotator.encoders.cache import EmbeddingCache
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.runners import Runner
    from annotator.encoders.torch_setup import Device, Precision
    from annotator.images.ref import ImageRef
    from annotator.indexing.embedding import OnError
    from annotator.knn.voting import Voting
    from annotator.pipeline import Annotation
    from index.protocols import Index, IndexLocation


@dataclass(frozen=True)
class EmbeddingOptions:
    """How images are embedded."""

    device: Device
    batch_size: int | None
    workers: int | None
    runner: str
    ray_address: str | None
    on_error: OnError
    no_cache: bool

    def make_runner(self) -> Runner:
        """The runner that embeds the images.

        Raises:
            click.UsageError: An address without --runner ray.
            AnnotatorError: As `annotator.encoders.runners.make_runner`.
        """
        from annotator.encoders.runners import make_runner

        if self.runner != "ray" and self.ray_address and "RAY_ADDRESS" not in os.environ:
            raise click.UsageError("--ray-address belongs to --runner ray.")
        return make_runner(self.runner, address=self.ray_address, device=self.device)


_EMBEDDING = (
    device_option,
    option(
        "Running",
        "--batch-size",
        type=click.IntRange(1),
        help="Images that are encoded at once (default: 16; on a GPU 128).",
    ),
    option(
        "Running",
        "--workers",
        type=click.IntRange(1),
        help="Threads (default: the number of cores).",
    ),
    option(
        "Running",
        "--runner",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Read and encode the images in this process, or by the workers of a Ray cluster.",
    ),
    option(
        "Running",
        "--ray-address",
        envvar="RAY_ADDRESS",
        metavar="ADDRESS",
        help="With --runner ray: a running cluster, HOST:PORT or auto (environment: RAY_ADDRESS; "
        "default: start one on this machine for this command).",
    ),
    option(
        "Running",
        "--on-error",
        type=click.Choice(["skip", "fail"]),
        default="skip",
        help="If an image cannot be used: go on without it, or stop.",
    ),
    option("Running", "--no-cache", is_flag=True, help="Neither use nor keep computed vectors."),
)

embedding_options = options_as("embedding", EmbeddingOptions, *_EMBEDDING)


@dataclass(frozen=True)
class InferenceOptions(EmbeddingOptions):
    """How images are run against an index: with its encoder, unless that is overridden."""

    embedder: str | None
    precision: Precision | None
    verify: bool

    def load_embedder(self, stored: Index) -> Embedder:
        """The encoder that an index records, with what the options override."""
        from annotator.indexing.metadata import IndexMetadata

        return IndexMetadata.of(stored).make_embedder(
            name=self.embedder, device=self.device, precision=self.precision
        )

    @contextlib.contextmanager
    def open_cache(
        self, place: IndexLocation, embedder: Embedder
    ) -> Iterator[EmbeddingCache | None]:
        """The cache of vectors beside an index; None if it is unwanted or cannot be written."""
        from annotator.encoders.cache import CACHE_FILE, EmbeddingCache

        if self.no_cache or not os.access(place.folder, os.W_OK):
            yield None
            return
        with EmbeddingCache(place.folder / CACHE_FILE, embedder.fingerprint.digest) as cache:
            yield cache


embedder_option = option(
    "Encoder", "--embedder", metavar="NAME", help="The encoder, if its weights have moved."
)

inference_options = options_as(
    "inference",
    InferenceOptions,
    embedder_option,
    option(
        "Encoder",
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        help="Override the recorded precision (must match the index).",
    ),
    option("Index", "--verify", is_flag=True, help="Also verify checksums of files over 512 MiB."),
    *_EMBEDDING,
)


def annotate_images(
    place: IndexLocation,
    stored: Index,
    refs: list[ImageRef],
    voting: Voting,
    inference: InferenceOptions,
    failed: list[tuple[str, str]],
    *,
    with_neighbors: bool,
) -> Iterator[Annotation]:
    """Annotate images with an opened index, in their order.

    Args:
        place: Location of the index; its folder has the cache of vectors.
        stored: The index.
        refs: The images.
        voting: Voting parameters.
        inference: How the images are embedded.
        failed: Gets the id of each image that could not be used, and the reason.
        with_neighbors: Include the neighbours that voted.

    Raises:
        AnnotatorError: An image cannot be used and --on-error is "fail"; or as `Annotator`.
    """
    from annotator.pipeline import Annotator

    annotator = Annotator(stored, inference.load_embedder(stored), voting)
    with inference.open_cache(place, annotator.embedder) as cache:
        for annotation in annotator.annotate(
            refs,
            cache=cache,
            batch_size=inference.batch_size,
            workers=inference.workers,
            runner=inference.make_runner(),
            with_neighbors=with_neighbors,
        ):
            if annotation.error is not None:
                if inference.on_error == "fail":
                    raise AnnotatorError(
                        f"{annotation.image_id}: {annotation.error}.",
                        "Put it right, or give such images an empty row with --on-error skip.",
                    )
                failed.append((annotation.image_id, annotation.error))
            yield annotation
