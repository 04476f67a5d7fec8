"""`annotator fit-encoder`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from annotator.cli.console import say
from annotator.cli.image_report import ImageReport
from annotator.cli.inference import (
    EmbeddingOptions,
    allow_blank_option,
    encoder_option,
    report_option,
    workers_option,
)
from annotator.cli.options import (
    CollectionOptions,
    collection_options,
    device_option,
    file_path,
    options_as,
)
from annotator.cli.sections import Command, option
from annotator.fitting.recipe import ENCODER, Loss, Recipe

if TYPE_CHECKING:
    from annotator.collection import Collection
    from annotator.encoders.torch_setup import Device
    from annotator.fitting.fit import FittedEncoder


@dataclass(frozen=True)
class FittingOptions:
    """How an encoder is fitted."""

    fit_folds: int = 3
    epochs: int = Recipe.epochs
    seed: int = 0
    batch_size: int = Recipe.batch_size
    accumulate: int = Recipe.accumulate
    learning_rate: float = Recipe.learning_rate
    loss: Loss = Recipe.loss
    flip: bool | None = None

    def recipe(self) -> Recipe:
        """The recipe with what was given."""
        own = {field.name for field in fields(self)} & {field.name for field in fields(Recipe)}
        return Recipe(**{name: getattr(self, name) for name in own})


fitting_options = options_as(
    "fitting",
    FittingOptions,
    option(
        "Training",
        "--fit-folds",
        type=click.IntRange(1, 20),
        default=FittingOptions.fit_folds,
        help="Networks that are trained without one fold of the groups each, beside the one that "
        "is trained on all; with 1 there is one in all, and a fifth is held back.",
    ),
    option(
        "Training",
        "--epochs",
        type=click.IntRange(1),
        default=Recipe.epochs,
        help="Most epochs.",
    ),
    option(
        "Training",
        "--seed",
        type=click.IntRange(0),
        default=FittingOptions.seed,
        help="Random seed.",
    ),
    option(
        "Training",
        "--batch-size",
        type=click.IntRange(2),
        default=Recipe.batch_size,
        help="Images of a batch.",
    ),
    option(
        "Training",
        "--accumulate",
        type=click.IntRange(1),
        default=Recipe.accumulate,
        help="Batches of a step, where larger ones do not fit in memory.",
    ),
    option(
        "Training",
        "--learning-rate",
        type=click.FloatRange(0, min_open=True),
        default=Recipe.learning_rate,
        help="Highest learning rate of the network; transformers usually want less.",
    ),
    option(
        "Training",
        "--loss",
        type=click.Choice(get_args(Loss)),
        default=Recipe.loss,
        help="Loss of the concepts.",
    ),
    option(
        "Training",
        "--flip/--no-flip",
        default=None,
        help="Train on mirror images, too (default: only where no concept names left or right).",
    ),
)


@click.command("fit-encoder", cls=Command, short_help="Fine-tune an encoder on labelled images.")
@click.argument("images")
@click.argument("concepts", required=False)
@option(
    "Output",
    "--out",
    required=True,
    type=file_path(file_okay=False),
    metavar="FOLDER",
    help="Folder of the fitted encoder, for --embedder fitted:FOLDER.",
)
@option("Output", "--overwrite", is_flag=True, help="Replace a fitted encoder in that folder.")
@encoder_option(ENCODER)
@fitting_options
@collection_options
@device_option
@workers_option
@allow_blank_option
@report_option
def fit_encoder_command(
    images: str,
    concepts: str | None,
    out: Path,
    overwrite: bool,
    embedder: str,
    fitting: FittingOptions,
    tables: CollectionOptions,
    device: Device,
    workers: int | None,
    allow_blank: bool,
    report: Path | None,
) -> int:
    """Fine-tune an encoder's network on labelled IMAGES and their CONCEPTS.

    One network is trained on all images, and several without one fold of the patients or studies
    (--groups) each, so that an index built with the encoder can be tuned on votes that have not
    seen their images. An interrupted command, started again, goes on from the last epoch.

    \b
    annotator fit-encoder train/ train_concepts.csv --groups patients.csv --out encoder
    annotator build-index train/ train_concepts.csv --groups patients.csv --embedder fitted:encoder
    """
    from annotator.fitting.folder import check_out

    check_out(out, overwrite=overwrite)
    collection = tables.read(images, concepts, on_mismatch="skip")
    for line in collection.report():
        say(line)
    fitted = run_fit(
        collection,
        out,
        embedder,
        fitting,
        device=device,
        workers=workers,
        allow_blank=allow_blank,
        overwrite=overwrite,
    )
    found = ImageReport(fitted.failed, fitted.notes)
    found.say(report)
    say(f"Next: annotator build-index IMAGES CONCEPTS --embedder fitted:{out}")
    return found.exit_code


def run_fit(
    collection: Collection,
    out: Path,
    embedder: str,
    fitting: FittingOptions,
    **options: Any,
) -> FittedEncoder:
    """Fit an encoder, and say how it goes and what came of it.

    Args:
        collection: Images with concepts.
        out: Folder of the fitted encoder.
        embedder: The encoder to fit.
        fitting: How.
        options: Of `fit_encoder`.
    """
    from annotator.fitting.fit import fit_encoder  # imports torch: after the cheap checks

    try:
        fitted = fit_encoder(
            collection,
            out,
            embedder,
            recipe=fitting.recipe(),
            folds=fitting.fit_folds,
            seed=fitting.seed,
            flip=fitting.flip,
            tell=say,
            **options,
        )
    except KeyboardInterrupt:
        say("The same command goes on from the last epoch that has ended.", always=True)
        raise
    say(
        f"{out}: fitted to {fitted.images} images and {fitted.concepts} concepts in "
        f"{fitted.seconds:.0f} s; held-out F1 {fitted.vote_f1:.4f} by the vote of the fitted "
        f"features alone, {fitted.head_f1:.4f} by the head."
    )
    return fitted


def fit_once(collection: Collection, out: Path, embedder: str, embedding: EmbeddingOptions) -> str:
    """Fit an encoder with the default options, unless that was done before.

    Args:
        collection: Images with concepts.
        out: Folder of the fitted encoder.
        embedder: The encoder to fit.
        embedding: Device, threads and what is done with blank images.

    Returns:
        The name of the fitted encoder.
    """
    from annotator.fitting.folder import is_fitted

    if is_fitted(out):
        say(f"{out} holds a fitted encoder, which is used as it is.")
    else:
        run_fit(
            collection,
            out,
            embedder,
            FittingOptions(),
            device=embedding.device,
            workers=embedding.workers,
            allow_blank=embedding.allow_blank,
        )
    return f"fitted:{out}"
