"""What 100 thousand, 6 million and a billion images take: nodes, memory, hours.

    python benchmarks/capacity.py                                 the tables of docs/scale.md
    python benchmarks/capacity.py --gpu-images-per-s 2000 --images 500000
    python benchmarks/capacity.py --write docs/scale.md           put them there
    python benchmarks/capacity.py --check docs/scale.md           say whether they are there

Calculated from the figures in benchmarks/results/ and, marked as such, from assumptions.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from capacity_parts.figures import Assumptions, Missing, load_figures
from capacity_parts.plan import column
from capacity_parts.table import NoPlace, markdown, replaced
from common import RESULTS

SIZES = (100_000, 6_031_814, 1_000_000_000)  # a challenge, the figures of PubMed Central, beyond


def main(arguments: list[str] | None = None) -> None:
    """Parse, calculate, print."""
    options = _parse(arguments)
    assumed = Assumptions(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(Assumptions)}
    )
    try:
        figures = load_figures(options.results, assumed)
        tables = markdown(figures, [column(n, figures) for n in options.images])
        path = options.write or options.check
        if path is None:
            print(tables, end="")
            return
        document = path.read_text(encoding="utf-8")
        wanted = replaced(document, tables)
    except Missing as error:
        sys.exit(str(error))
    except (OSError, NoPlace) as error:
        sys.exit(f"{path}: {error}")
    if options.write:
        path.write_text(wanted, encoding="utf-8")
    elif document != wanted:
        sys.exit(f"{path} differs: python benchmarks/capacity.py --write {path}")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=SIZES, metavar="N")
    for field in dataclasses.fields(Assumptions):
        name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(
            name, type=kind, default=field.default, help=f"assumed: {field.default:g}"
        )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of measurements")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--write", type=Path, metavar="DOCUMENT")
    where.add_argument("--check", type=Path, metavar="DOCUMENT")
    options = parser.parse_args(arguments)
    positive = [
        *options.images,
        *(getattr(options, f.name) for f in dataclasses.fields(Assumptions)),
    ]
    if min(positive) <= 0:
        parser.error("every number has to be above 0")
    return options


if __name__ == "__main__":
    main()
