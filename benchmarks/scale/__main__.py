"""What 100 thousand, 6 million and a billion images take: nodes, memory, hours.

    python -m benchmarks.scale                           the tables of docs/scale.md
    python -m benchmarks.scale --gpu-images-per-s 2000 --images 500000
    python -m benchmarks.scale --write docs/scale.md     put them there

Calculated from the figures in benchmarks/results/ and, marked as such, from assumptions.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from benchmarks.records import RESULTS
from benchmarks.scale.figures import Assumptions, Missing, load_figures
from benchmarks.scale.plan import column
from benchmarks.scale.table import NoPlace, markdown, replaced

SIZES = (100_000, 6_031_814, 1_000_000_000)  # a challenge, the figures of PubMed Central, beyond


def main(arguments: list[str] | None = None) -> None:
    """Calculate, and print or write."""
    fields = dataclasses.fields(Assumptions)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=SIZES, metavar="N")
    for field in fields:
        name, about = f"--{field.name.replace('_', '-')}", f"assumed: {field.default:g}"
        parser.add_argument(name, type=type(field.default), default=field.default, help=about)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of measurements")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT")
    options = parser.parse_args(arguments)
    assumed = {field.name: getattr(options, field.name) for field in fields}
    if min(*options.images, *assumed.values()) <= 0:
        parser.error("every number has to be above 0")
    try:
        tables = calculated(options.results, Assumptions(**assumed), options.images)
        if options.write:
            document = replaced(options.write.read_text(encoding="utf-8"), tables)
            options.write.write_text(document, encoding="utf-8")
        else:
            print(tables, end="")
    except (Missing, NoPlace, OSError) as error:
        sys.exit(str(error))


def calculated(
    results: Path = RESULTS,
    assumed: Assumptions | None = None,
    images: tuple[int, ...] = SIZES,
) -> str:
    """Both tables as Markdown."""
    figures = load_figures(results, assumed or Assumptions())
    return markdown(figures, [column(n, figures) for n in images])


if __name__ == "__main__":
    main()
