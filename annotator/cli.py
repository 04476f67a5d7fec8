"""The command line: each command parses, calls, prints.

What a command needs is imported inside it, so that `--help` is immediate and commands that score or
check files never load torch.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from annotator import __version__
from annotator.console import (
    EXIT_INTERRUPTED,
    EXIT_PARTIAL,
    EXIT_PROBLEM,
    say,
    say_failed,
    write_result,
)
from annotator.errors import AnnotatorError
from index.errors import IndexProblem

Command = Callable[..., Any]

EXIT_CODES = """\b
Exit codes:
  0    done
  1    the input or the index is wrong, or a check found something
  2    wrong usage
  3    done, but some images could not be used (their rows have no CUIs)
  130  interrupted with Ctrl-C; what was embedded is kept and not computed again"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
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


def _file(**options: Any) -> click.Path:
    return click.Path(path_type=Path, **options)


def index_option(command: Command) -> Command:
    """--index."""
    return click.option(
        "--index",
        "directory",
        envvar="ANNOTATOR_INDEX",
        default="concept-index",
        show_default=True,
        type=_file(),
        help="Folder of the index (environment: ANNOTATOR_INDEX).",
    )(command)


def side_options(command: Command) -> Command:
    """--split and --only."""
    command = click.option("--only", metavar="SIDE", help="The side to use, such as train.")(
        command
    )
    return click.option("--split", metavar="FILE[:COLUMN]", help="Table with each image's side.")(
        command
    )


def embedding_options(command: Command) -> Command:
    """What shapes the vectors and how fast they come."""
    for option in (
        click.option("--no-cache", is_flag=True, help="Neither use nor keep computed vectors."),
        click.option("--on-error", type=click.Choice(["skip", "fail"]), default="skip",
                     show_default=True, help="What to do about an image that cannot be used."),
        click.option("--on-duplicate", type=click.Choice(["fail", "first"]), default="fail",
                     show_default=True, help="What to do about two images with one id."),
        click.option("--workers", type=click.IntRange(1), help="Threads (default: the cores)."),
        click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True,
                     help="Images that the encoder takes at once."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto",
                     show_default=True, help="Where the encoder runs."),
    ):  # fmt: skip
        command = option(command)
    return command


def voting_options(command: Command) -> Command:
    """How neighbours become concepts."""
    for option in (
        click.option("--min-score", type=click.FloatRange(0, 1), help="Drop weaker concepts."),
        click.option("--top-r", type=click.IntRange(0), help="For --decider top-r."),
        click.option("--threshold", type=click.FloatRange(0, 1), help="For --decider threshold."),
        click.option("--decider", type=click.Choice(["expected-f1", "threshold", "top-r"]),
                     help="From votes to a set of concepts."),
        click.option("--beta", type=click.FloatRange(0), help="Sharpness of the kernel."),
        click.option("--k", type=click.IntRange(1), help="Neighbours that vote."),
    ):  # fmt: skip
        command = option(command)
    return command


@cli.command("build-index")
@click.argument("images", required=False)
@click.argument("concepts", required=False)
@index_option
@click.option("--embedder", default="efficientnet-lite0", show_default=True, metavar="NAME",
              help="The encoder: efficientnet-lite0, timm:MODEL[@FILE], open_clip:MODEL@PRETRAINED, "
              "hf-hub:ORG/MODEL, local-dir:FOLDER or a .safetensors file.")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto",
              show_default=True, help="auto: bf16 where the hardware has it.")  # fmt: skip
@click.option("--frames", type=click.Choice(["middle", "all"]), default="middle",
              show_default=True, help="Of multi-frame images: the middle one, or the mean of all.")  # fmt: skip
@side_options
@click.option("--groups", metavar="FILE[:COLUMN]", help="Table with each image's patient or study.")
@click.option("--captions", type=_file(), help="Table with each image's caption.")
@click.option("--names", type=_file(), help="Table with each CUI's name.")
@click.option("--on-mismatch", type=click.Choice(["skip", "fail"]), default="skip",
              show_default=True, help="About ids without an image and images without an id.")  # fmt: skip
@voting_options
@embedding_options
def build_index_command(
    images: str | None, concepts: str | None, directory: Path, **options: Any
) -> int:
    """Build an index from IMAGES (folder, glob, list file, Parquet) and their CONCEPTS.

    With neither, build it from the built-in sample collection of generated phantoms. Parquet files
    carry their concepts. A build that was stopped continues where it was, and one with ten more
    images embeds ten.

    \b
    annotator build-index train/ train_concepts.csv --names cui_mapping.csv
    annotator build-index images/ concepts.csv --split split.csv --only train --groups patients.csv
    annotator build-index 'roco/train-*.parquet' --embedder timm:resnet50
    """
    from annotator.build import build_index
    from annotator.collection import read_collection
    from annotator.embed.makers import make_embedder
    from annotator.progress import bar

    with contextlib.ExitStack() as stack:
        if images is None:
            from annotator.sample import sample_collection

            say("No images given: building from the built-in sample collection (phantoms).")
            collection = stack.enter_context(sample_collection(progress=bar))
        else:
            collection = read_collection(
                images,
                concepts,
                names=options["names"],
                captions=options["captions"],
                groups=options["groups"],
                split=options["split"],
                only=options["only"],
                on_mismatch=options["on_mismatch"],
                on_duplicate=options["on_duplicate"],
            )
        for line in collection.report():
            say(line)
        built = build_index(
            collection,
            directory,
            make_embedder(
                options["embedder"],
                device=options["device"],
                precision=options["precision"],
                frames=options["frames"],
            ),
            voting=_voting(None, options),
            batch_size=options["batch_size"],
            workers=options["workers"],
            use_cache=not options["no_cache"],
            on_error=options["on_error"],
            progress=bar,
        )
    say_failed(list(built.failed.items()))
    say(
        f"{directory}: version {built.version}, {built.rows} images, {built.concepts} concepts "
        f"({built.embedded} embedded, {built.cached} known before)."
    )
    return EXIT_PARTIAL if built.failed else 0


@cli.command("annotate")
@click.argument("images")
@index_option
@click.option("--format", "year", default="2026", show_default=True,
              type=click.Choice(["2019", "2021", "2024", "2025", "2026", "jsonl"]),
              help="Submission format of that year, or a JSON object a line.")  # fmt: skip
@click.option("--zip", "zipped", is_flag=True, help="A zip that holds submission.csv.")
@click.option(
    "--explain", is_flag=True, help="With --format jsonl: the neighbours and their votes."
)
@click.option("--output", type=_file(dir_okay=False), help="Write there instead of stdout.")
@click.option("--ids", "ids_file", type=_file(), help="These ids, in this order.")
@side_options
@click.option("--embedder", metavar="NAME", help="The encoder, if its weights have moved.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Must be the index's.")
@voting_options
@embedding_options
def annotate_command(images: str, directory: Path, year: str, **options: Any) -> int:
    """Annotate IMAGES (folder, file, glob, list file, Parquet) and print the run.

    Rows are sorted by id, or in the order of --ids. An image that cannot be used gets a row without
    CUIs, its reason goes to stderr, and the exit code is 3.

    \b
    annotator annotate test/ > run.csv
    annotator annotate test/ --ids test_ids.csv --zip > submission.zip
    annotator annotate scan.dcm --format jsonl --explain
    """
    from annotator.embed.cache import EmbeddingCache
    from annotator.tables.formats import read_ids
    from annotator.pipeline import Annotator, recorded_embedder, recorded_voting
    from annotator.collection import in_order_of, select_side
    from annotator.build import CACHE_FILE
    from annotator.progress import bar
    from annotator.tables.run import render_run, zip_run
    from annotator.sources import find_images
    from index import open_index

    if options["explain"] and year != "jsonl":
        raise click.UsageError("--explain belongs to --format jsonl.")
    if options["zipped"] and year == "jsonl":
        raise click.UsageError("--zip belongs to the submission formats.")
    found = find_images(images, on_duplicate=options["on_duplicate"])
    if found.ignored:
        say(f"{len(found.ignored)} files are not images and are ignored: {found.ignored[0]}, …")
    ids = (
        read_ids(options["ids_file"])
        if options["ids_file"] is not None
        else [ref.id for ref in found.images]
    )
    side = select_side(ids, options["split"], options["only"])
    refs = in_order_of([id_ for id_ in ids if id_ in side], found.images)
    stored = open_index(directory)
    embedder = recorded_embedder(
        stored,
        name=options["embedder"],
        device=options["device"],
        precision=options["precision"],
    )
    annotator = Annotator(stored, embedder, _voting(recorded_voting(stored), options))
    annotations = []
    with contextlib.ExitStack() as stack:
        cache = None
        if not options["no_cache"] and _writable(directory):
            path = directory / CACHE_FILE
            cache = stack.enter_context(EmbeddingCache(path, embedder.fingerprint.digest))
        for annotation in annotator.annotate(
            refs,
            cache=cache,
            batch_size=options["batch_size"],
            workers=options["workers"],
            progress=bar,
        ):
            if annotation.error is not None and options["on_error"] == "fail":
                raise AnnotatorError(f"{annotation.image_id}: {annotation.error}")
            annotations.append(annotation)
    if year == "jsonl":
        lines = (a.to_dict(stored.names, explain=options["explain"]) for a in annotations)
        result: str | bytes = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    else:
        result = render_run(((a.image_id, a.cuis) for a in annotations), year)
        if options["zipped"]:
            result = zip_run(result)
    write_result(result, options["output"])
    failed = [(a.image_id, a.error) for a in annotations if a.error is not None]
    say_failed(failed)
    return EXIT_PARTIAL if failed else 0


@cli.command("evaluate")
@click.argument("run", type=_file())
@click.argument("truth", type=_file())
@click.option("--scorer", type=click.Choice(["current", "legacy"]), default="current",
              show_default=True, help="current: 2022-2026; legacy: 2017-2020.")  # fmt: skip
@click.option("--secondary", type=_file(), help="concepts_manual.csv, for the secondary score.")
@click.option("--by", metavar="FILE[:COLUMN]", help="F1 for each value of this column, too.")
@click.option("--names", type=_file(), help="Table with each CUI's name.")
@side_options
@click.option("--json", "as_json", is_flag=True, help="All figures and tables as JSON.")
def evaluate_command(run: Path, truth: Path, as_json: bool, **options: Any) -> None:
    """Score RUN against TRUTH as the task's official evaluator does.

    \b
    annotator evaluate run.csv concepts.csv
    annotator evaluate run.csv concepts.csv --split split.csv --only test --by sources.csv:source
    """
    from annotator.collection import select_side
    from annotator.score.evaluation import evaluate
    from annotator.tables.formats import read_ids, read_names
    from annotator.score.report import render

    restricted = options["split"] is not None or options["only"] is not None
    ids = select_side(read_ids(truth), options["split"], options["only"]) if restricted else None
    evaluation = evaluate(
        run,
        truth,
        scorer=options["scorer"],
        secondary=options["secondary"],
        by=options["by"],
        ids=ids,
        names=read_names(options["names"]) if options["names"] else None,
    )
    click.echo(
        json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False)
        if as_json
        else render(evaluation)
    )


@cli.command("validate")
@click.argument("run", type=_file())
@click.option("--ids", "ids_file", type=_file(), required=True,
              help="The test set's ids, in order: a list, or any table with them first.")  # fmt: skip
def validate_command(run: Path, ids_file: Path) -> int:
    """Check RUN as strictly as the submission check of 2026 does.

    \b
    annotator validate run.csv --ids test_ids.csv
    """
    from annotator.tables.formats import read_ids
    from annotator.tables.run import validate_run

    ids = read_ids(ids_file)
    problems = validate_run(run, ids)
    for problem in problems:
        click.echo(f"{run}:{problem.line}: {problem.message}")
    say(
        f"{len(problems)} problems." if problems else f"{run} is a valid run for {len(ids)} images."
    )
    return EXIT_PROBLEM if problems else 0


@cli.command("info")
@index_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info_command(directory: Path, as_json: bool) -> None:
    """Show what the index holds and how it was built."""
    from annotator.inspect import describe
    from index import open_index

    facts = describe(open_index(directory), directory)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for key, value in facts.items():
        if key == "most_frequent":
            click.echo("most frequent:")
            for row in value:
                click.echo(f"  {row['images']:7d}  {row['cui']}  {row['name']}")
        else:
            shown = (
                ", ".join(f"{k} {v}" for k, v in value.items())
                if isinstance(value, dict)
                else value
            )
            click.echo(
                f"{key.replace('_', ' ')}: {', '.join(shown) if isinstance(shown, list) else shown}"
            )


@cli.command("verify")
@index_option
def verify_command(directory: Path) -> int:
    """Check the index: checksums, counts, norms, and a probe search. Repairs nothing."""
    from annotator.inspect import verify

    problems = verify(directory)
    for problem in problems:
        click.echo(problem)
    say(f"{directory}: {len(problems)} problems." if problems else f"{directory} is sound.")
    return EXIT_PROBLEM if problems else 0


@cli.command("stats")
@click.argument("concepts", type=_file())
@click.option("--names", type=_file(), help="Table with each CUI's name.")
@click.option("--validation", type=_file(), help="Another concepts file, compared with the first.")
@click.option("--plot", type=_file(dir_okay=False), help="Draw the distributions (.png or .svg).")
def stats_command(
    concepts: Path, names: Path | None, validation: Path | None, plot: Path | None
) -> None:
    """Explore a concepts file: how many, how frequent, how rare.

    \b
    annotator stats train_concepts.csv --names cui_mapping.csv --validation valid_concepts.csv
    """
    from annotator.tables.formats import read_concepts, read_names
    from annotator.score.stats import explore, plot_stats, render_stats

    stats = explore(
        read_concepts(concepts),
        read_names(names) if names else {},
        read_concepts(validation) if validation else None,
    )
    click.echo(render_stats(stats))
    if plot:
        plot_stats(stats, plot)
        say(f"Plot: {plot}")


@cli.command("sample")
@click.argument("directory", type=_file())
@click.option("--n", type=click.IntRange(20), default=600, show_default=True, help="Images.")
@click.option(
    "--seed", type=int, default=2026, show_default=True, help="Another seed, other images."
)
def sample_command(directory: Path, n: int, seed: int) -> None:
    """Write the built-in sample collection: generated phantoms, not patients.

    \b
    annotator sample sample/
    annotator build-index sample/images sample/concepts.csv --split sample/split.csv --only train
    """
    from annotator.progress import bar
    from annotator.sample import write_sample

    paths = write_sample(directory, n=n, seed=seed, progress=bar)
    say(f"{n} phantoms with concepts, captions, patients and a split: {paths.directory}")


def _voting(recorded: Any, options: dict[str, Any]) -> Any:
    """The recorded (or default) voting parameters, with what the options change."""
    from dataclasses import replace

    from annotator.vote.voting import Voting

    names = ("k", "beta", "decider", "threshold", "top_r", "min_score")
    changed = {name: options[name] for name in names if options[name] is not None}
    return replace(recorded or Voting(), **changed)


def _writable(directory: Path) -> bool:
    import os

    return os.access(directory, os.W_OK)


def main() -> None:
    """The `annotator` command; never shows a traceback for something the user can put right."""
    try:
        code = cli.main(standalone_mode=False)
    except (AnnotatorError, IndexProblem) as error:
        say(f"Error: {error}")
        code = EXIT_PROBLEM
    except click.Abort:
        say("Interrupted.")
        code = EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        code = EXIT_PROBLEM
    sys.exit(code if isinstance(code, int) else 0)
