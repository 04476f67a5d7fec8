"""Options and helpers of the commands that embed images or run them against an index."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import detail, say
from annotator.cli.guarantee import NO_GUARANTEE, GuaranteeOptions, say_promises
from annotator.cli.options import device_option, engine_option, file_path, options_as, refuse
from annotator.cli.sections import Decorator, option
from annotator.errors import AnnotatorError, ImageError

if TYPE_CHECKING:
    from annotator.annotation import Annotation
    from annotator.cli.image_report import ImageReport
    from annotator.concepts.hierarchy import Hierarchy
    from annotator.encoders.cache import EmbeddingCache
    from annotator.encoders.embedder import Embedder
    from annotator.encoders.local_runner import Embedded
    from annotator.encoders.runners import Runner
    from annotator.encoders.torch_setup import Device, Engine, Precision
    from annotator.images.frames import Frames
    from annotator.images.ref import ImageRef
    from annotator.indexing.embedding import OnError
    from annotator.indexing.metadata import IndexMetadata
    from annotator.knn.members import Classifiers
    from annotator.knn.voting import Voting
    from annotator.vectors.table import VectorTable
    from index.protocols import Index, IndexLocation


@dataclass(frozen=True)
class EmbeddingOptions:
    """Options for embedding images."""

    device: Device
    engine: Engine
    batch_size: int | None
    workers: int | None
    runner: str
    ray_address: str | None
    on_error: OnError
    allow_blank: bool
    report: Path | None
    no_cache: bool

    def make_runner(self) -> Runner:
        """Make the runner that embeds the images.

        Raises:
            click.UsageError: --ray-address without --runner ray.
            AnnotatorError: As `annotator.encoders.runners.make_runner`.
        """
        from annotator.encoders.runners import make_runner

        if self.runner != "ray" and self.ray_address and "RAY_ADDRESS" not in os.environ:
            raise click.UsageError("--ray-address requires --runner ray.")
        return make_runner(
            self.runner,
            address=self.ray_address,
            device=self.device,
            allow_blank=self.allow_blank,
        )

    def refuse_if_asked(self, ref: ImageRef, error: ImageError, else_: str) -> None:
        """With --on-error fail: refuse an image that cannot be used.

        Args:
            ref: The image.
            error: Why; a file that is no image at all is let pass.
            else_: What --on-error skip does, for the hint.

        Raises:
            AnnotatorError: It is refused.
        """
        if self.on_error == "fail" and not error.is_no_image:
            raise AnnotatorError(
                f"{ref.where}: {error.message}.",
                f"{error.hint} Or {else_} with --on-error skip.".lstrip(),
            )


workers_option = option(
    "Running",
    "--workers",
    type=click.IntRange(1),
    help="Number of threads (default: number of cores).",
)

allow_blank_option = option(
    "Running",
    "--allow-blank",
    is_flag=True,
    help="Use blank images (nearly constant), too, instead of refusing them.",
)

report_option = option(
    "Output",
    "--report",
    type=file_path(dir_okay=False),
    metavar="FILE",
    help="Write the path and reason of each unusable image to this CSV file.",
)

_EMBEDDING = (
    device_option,
    engine_option,
    option(
        "Running",
        "--batch-size",
        type=click.IntRange(1),
        help="Images per batch of the encoder (default: 8 or 16; on a GPU 128).",
    ),
    workers_option,
    option(
        "Running",
        "--runner",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Read and encode images in this process, or on a Ray cluster.",
    ),
    option(
        "Running",
        "--ray-address",
        envvar="RAY_ADDRESS",
        metavar="ADDRESS",
        help="With --runner ray: running cluster, HOST:PORT or auto (environment: RAY_ADDRESS; "
        "default: start a local one for this command).",
    ),
    option(
        "Running",
        "--on-error",
        type=click.Choice(["skip", "fail"]),
        default="skip",
        help="Unusable images: skip or fail.",
    ),
    allow_blank_option,
    report_option,
    option("Running", "--no-cache", is_flag=True, help="Neither read nor write cached vectors."),
)

embedding_options = options_as("embedding", EmbeddingOptions, *_EMBEDDING)


@dataclass(frozen=True)
class EncoderOptions:
    """Which encoder to use."""

    embedder: str
    precision: Precision
    frames: Frames

    def make_embedder(self, device: Device, engine: Engine) -> Embedder:
        """Load the encoder; of one that is no part of the house, say how it sees images.

        Raises:
            AnnotatorError: It cannot be loaded.
        """
        from annotator.encoders.registry import make_embedder

        made = make_embedder(
            self.embedder,
            device=device,
            precision=self.precision,
            frames=self.frames,
            engine=engine,
        )
        say_engine(made)
        seen = made.fingerprint.preprocess
        if ":" in made.name and "resize" in seen:
            words = {"letterbox": "letterboxed", "crop": "cropped", "stretch": "stretched"}
            say(
                f"Encoder {made.name}: {made.dim} numbers from images {words[seen['resize']]} to "
                f"{seen['size']} x {seen['size']} pixels ({seen['interpolation']}), "
                f"mean {_numbers(seen['mean'])}, deviation {_numbers(seen['std'])}."
            )
        return made

    def refuse_with(self, other: str) -> None:
        """Refuse these options where another one names the encoder.

        Raises:
            click.UsageError: One of them is given.
        """
        refuse(("embedder", "precision", "frames"), f"{other} says which encoder.")


def say_engine(embedder: Embedder) -> None:
    """With --verbose: say what runs an encoder, and in which precision."""
    detail(
        f"encoder: {embedder.name}, run by {embedder.engine} in {embedder.fingerprint.precision}"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def encoder_option(default: str) -> Decorator:
    """The option that names an encoder."""
    return option(
        "Encoder",
        "--embedder",
        default=default,
        metavar="NAME",
        help="Encoder: efficientnet-lite0[@SIZE], -lite1, -lite2, timm:MODEL[@FILE], "
        "open_clip:MODEL@PRETRAINED, hf-hub:ORG/MODEL, local-dir:FOLDER, transformers:ORG/MODEL, "
        "transformers:FOLDER, onnx:FILE, xrv:WEIGHTS[@FILE], fitted:FOLDER, a folder or file of "
        "one of these, or several joined by +.",
    )


encoder_options = options_as(
    "encoder",
    EncoderOptions,
    encoder_option("efficientnet-lite0"),
    option(
        "Encoder",
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        help="Precision of the encoder; auto: bf16 if the hardware supports it, else fp32.",
    ),
    option(
        "Encoder",
        "--frames",
        type=click.Choice(["middle", "all"]),
        default="middle",
        help="Multi-frame images: the middle frame, or the mean vector of all frames.",
    ),
)


@dataclass(frozen=True)
class InferenceOptions(EmbeddingOptions):
    """Options for running images against an index, with its encoder unless overridden."""

    embedder: str | None
    precision: Precision | None
    verify: bool

    def load_embedder(self, stored: Index, vectors: VectorTable | None = None) -> Embedder:
        """Load the encoder recorded in an index, with the options' overrides; or that of vectors.

        Raises:
            AnnotatorError: It cannot be loaded, takes no images, or is not that of the vectors.
        """
        from annotator.indexing.metadata import IndexMetadata

        metadata = IndexMetadata.of(stored)
        if vectors is not None:
            return metadata.encoder_of(vectors)
        embedder = check_pixels(metadata).make_embedder(
            name=self.embedder, device=self.device, precision=self.precision, engine=self.engine
        )
        say_engine(embedder)
        return embedder

    @contextlib.contextmanager
    def open_cache(
        self, place: IndexLocation, embedder: Embedder, vectors: VectorTable | None = None
    ) -> Iterator[EmbeddingCache | None]:
        """Open the cache of vectors beside an index; None if disabled, read-only or not needed."""
        from annotator.encoders.cache import CACHE_FILE, EmbeddingCache

        if vectors is not None or self.no_cache or not os.access(place.folder, os.W_OK):
            yield None
            return
        with EmbeddingCache(place.folder / CACHE_FILE, embedder.fingerprint.digest) as cache:
            yield cache


embedder_option = option(
    "Encoder", "--embedder", metavar="NAME", help="Encoder, if its weights have moved."
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


def check_pixels(metadata: IndexMetadata) -> IndexMetadata:
    """The metadata of an index, whose encoder must be one that takes images.

    Raises:
        AnnotatorError: It is the user's, of which there are only vectors.
    """
    if metadata.fingerprint.is_own:
        from annotator.vectors.encoder import no_pixels

        raise no_pixels(metadata.encoder)
    return metadata


def annotate_images(
    place: IndexLocation,
    stored: Index,
    refs: list[ImageRef],
    voting: Voting,
    inference: InferenceOptions,
    report: ImageReport,
    *,
    with_neighbors: bool,
    with_votes: bool = False,
    classifiers: Classifiers | None = None,
    keep_all: bool = False,
    hierarchy: Hierarchy | None = None,
    only: Collection[str] | None = None,
    vectors: VectorTable | None = None,
    exclude_self: bool = False,
    min_familiarity: float | None = None,
    with_probabilities: bool = False,
    guarantee: GuaranteeOptions = NO_GUARANTEE,
) -> Iterator[Annotation]:
    """Annotate images with an open index, yielding in their order.

    Args:
        place: Location of the index and its cache of vectors.
        stored: Open index.
        refs: Images.
        voting: Voting parameters.
        inference: Embedding options.
        report: Takes errors and notes.
        with_neighbors: Include the neighbours that voted.
        with_votes: Include the scores of all concepts with a vote.
        classifiers: Their probabilities are pooled with the votes.
        keep_all: Also yield files without an image (a DICOM structured report), without concepts.
        hierarchy: As for `Annotator`.
        only: The concepts that are voted on; None for all.
        vectors: Where `refs` are from, if they are rows of vectors.
        exclude_self: As for `Annotator`.
        min_familiarity: Likewise.
        with_probabilities: Say so if there are none because the vote is not that of the index.
        guarantee: What the sets are to keep.

    Raises:
        AnnotatorError: An image cannot be used and --on-error is "fail"; or as `Annotator`.
    """
    from annotator.pipeline import Annotator

    relabel = None if only is None else lambda labels: labels.only(only)
    embedder = inference.load_embedder(stored, vectors)
    annotator = Annotator(
        stored,
        embedder,
        voting,
        relabel=relabel,
        hierarchy=hierarchy,
        classifiers=classifiers,
        exclude_self=exclude_self,
        guarantee=guarantee.guarantee,
        guarantee_by=guarantee.read_by(stored, refs),
        min_familiarity=min_familiarity,
    )
    promises = annotator.promises
    if promises is not None:
        say_promises(promises, refs)
    calibrated = annotator.metadata.calibration is not None
    if with_probabilities and calibrated and not (promises or annotator.calibration()):
        say(
            "The index is calibrated for its own vote, not for this one: no probabilities, and "
            "expected F1 is that of the votes."
        )
    with inference.open_cache(place, annotator.embedder, vectors) as cache:
        annotations = annotator.stream(
            refs,
            cache=cache,
            batch_size=inference.batch_size,
            workers=inference.workers,
            runner=vectors.embed if vectors else inference.make_runner(),
            with_neighbors=with_neighbors,
            with_votes=with_votes,
        )
        for ref, annotation in zip(refs, annotations, strict=True):
            error = annotation.error
            is_no_image = error is not None and error.is_no_image
            if error is not None and error.code != "unfamiliar":
                inference.refuse_if_asked(ref, error, "write an empty row for it")
            report.add(ref.where, error, annotation.notes)
            if keep_all or not is_no_image:
                yield annotation


def reported(
    embedded: Iterable[Embedded], inference: InferenceOptions, report: ImageReport
) -> Iterator[Embedded]:
    """The images, whose errors and notes go to a report.

    Raises:
        AnnotatorError: An image cannot be used, and --on-error is "fail".
    """
    for one in embedded:
        error = one.error
        if error is not None:
            inference.refuse_if_asked(one.ref, error, "leave it out")
        report.add(one.ref.where, error, one.notes)
        yield one
