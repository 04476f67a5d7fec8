"""What `annotator concepts match` costs on a Metathesaurus of full size, and how often it is right.

    python -m benchmarks.features.concepts                     15 million lines, as a full release
    python -m benchmarks.features.concepts --lines 1000000

A made-up MRCONSO.RRF is written to a temporary folder: concepts with one to six English names of
made-up words, and names in other languages and suppressed ones between them. Words are names of
it: preferred ones and synonyms, some changed in case, order, punctuation and number, some with one
or two typing errors, and some that are not there at all. The real command matches them, in a
process of its own; its peak memory and CPU time are the kernel's. Beside them stands what reading
the lines of the same file takes in Python in the same run, which no reader can save.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import cost_of
from benchmarks.records import save

LINES = 15_000_000
WORDS = 1000
CHANGES = ["preferred", "synonym", "case", "order", "plural", "one typo", "two typos", "absent"]
_SYLLABLES = [c + v for c in "bcdfghlmnprst" for v in ("a", "e", "i", "o", "al", "er", "in", "os")]
_LENGTHS = {1: 0.03, 2: 0.2, 3: 0.27, 4: 0.2, 5: 0.15, 6: 0.1, 8: 0.05}  # words of a name
_BLOCK = 100_000  # lines written at once
_LANGUAGES = ("SPA", "FRE", "GER", "JPN")


def main(arguments: list[str] | None = None) -> None:
    """Write, match, count, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=LINES)
    parser.add_argument("--words", type=int, default=WORDS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        conso = folder / "MRCONSO.RRF"
        names = write_conso(conso, options.lines, options.words, rng)
        wanted = perturbed(names, rng)
        (folder / "words.txt").write_text("".join(f'"{word}"\n' for word in wanted))
        started = time.perf_counter()
        with conso.open("rb") as file:
            lines = sum(1 for _ in file)
        reading = time.perf_counter() - started
        review = folder / "review.csv"
        cost = cost_of(
            ["concepts", "match", folder / "words.txt", "--mrconso", conso, "--output", review],
            folder,
        )
        record = {
            "what": "concepts match",
            "lines": lines,
            "bytes": conso.stat().st_size,
            "words": len(wanted),
            "seconds": round(cost.seconds, 1),
            "cpu_seconds": round(cost.cpu_seconds, 1),
            "seconds_to_read_lines": round(reading, 1),
            "peak_mib": round(cost.peak_mib),
            "by_change": outcomes(review, wanted),
        }
    print(record)
    print(f"raw figures: {save('concepts', [record])}")


def write_conso(
    path: Path, lines: int, words: int, rng: np.random.Generator
) -> list[tuple[str, str, str]]:
    """Write a made-up MRCONSO.RRF; returns CUI, preferred name and a synonym of some concepts."""
    vocabulary = sorted(
        {"".join(rng.choice(_SYLLABLES, n)) for n in rng.integers(2, 6, 60_000).tolist()}
    )
    chosen: list[tuple[str, str, str]] = []
    cui = 0
    every, due = max(lines // 4 // words, 1), 0  # a concept has four lines on average
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, lines, _BLOCK):
            some = min(_BLOCK, lines - start)
            lengths = rng.choice(list(_LENGTHS), some, p=list(_LENGTHS.values()))
            picks = rng.integers(0, len(vocabulary), int(lengths.sum())).tolist()
            kinds = rng.random(some).tolist()
            rows, at = [], 0
            own: list[str] = []
            for i, length in enumerate(lengths.tolist()):
                name = " ".join(vocabulary[j] for j in picks[at : at + length]).capitalize()
                at += length
                if kinds[i] < 0.25 or not own:  # the next concept
                    if len(own) > 1 and cui >= due and len(chosen) < words:
                        chosen.append((f"C{cui:07d}", own[0], own[1]))
                        due += every
                    cui, own = cui + 1, [name]
                    rows.append(_row(cui, name, "P|L0000001|PF|S0000001|Y"))
                elif kinds[i] < 0.65:
                    own.append(name)
                    rows.append(_row(cui, name, "S|L0000002|VO|S0000002|N"))
                elif kinds[i] < 0.75:
                    rows.append(_row(cui, name, "S|L0000003|PF|S0000003|Y", suppress="O"))
                else:
                    language = _LANGUAGES[i % len(_LANGUAGES)]
                    rows.append(_row(cui, name, "P|L0000004|PF|S0000004|Y", language))
            file.writelines(rows)
    return chosen


def _row(cui: int, name: str, form: str, language: str = "ENG", suppress: str = "N") -> str:
    return (
        f"C{cui:07d}|{language}|{form}|A{cui:08d}|{cui:07d}|M{cui:07d}|D{cui:06d}|MADEUP|MH"
        f"|D{cui:06d}|{name}|0|{suppress}|256|\n"
    )


def perturbed(
    names: Sequence[tuple[str, str, str]], rng: np.random.Generator
) -> dict[str, tuple[str, str]]:
    """Words with the change that made each, and the CUI that is right ("" for none)."""
    changes: dict[str, Callable[[str, str], str]] = {
        "preferred": lambda name, synonym: name,
        "synonym": lambda name, synonym: synonym,
        "case": lambda name, synonym: name.title().replace(" ", "-"),
        "order": lambda name, synonym: ", ".join(name.split(" ", 1)[::-1]),
        "plural": lambda name, synonym: f"{name}s",
        "one typo": lambda name, synonym: _typo(name, rng),
        "two typos": lambda name, synonym: _typo(_typo(name, rng), rng),
        "absent": lambda name, synonym: " ".join(word[::-1] for word in name.split()),
    }
    words = {}
    for i, (cui, name, synonym) in enumerate(names):
        change = CHANGES[i % len(CHANGES)]
        words[changes[change](name, synonym)] = (change, "" if change == "absent" else cui)
    return words


def _typo(name: str, rng: np.random.Generator) -> str:
    """A name with a letter left out, doubled, replaced, or two letters swapped."""
    letters = [i for i in range(len(name) - 1) if name[i : i + 2].isalpha()]
    i = letters[int(rng.integers(0, len(letters)))]
    letter = "abcdefghijklmnopqrstuvwxyz"[int(rng.integers(0, 26))]
    edits = (
        name[:i] + name[i + 1 :],
        name[:i] + name[i] + name[i:],
        name[:i] + letter + name[i + 1 :],
        name[:i] + name[i + 1] + name[i] + name[i + 2 :],
    )
    return edits[int(rng.integers(0, len(edits)))]


def outcomes(review: Path, wanted: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """How many words of each change got the right CUI, a wrong one or none, and the right one as
    an alternative."""
    counts: dict[str, Counter[str]] = {change: Counter() for change in CHANGES}
    with review.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            change, cui = wanted[row["word"]]
            outcome = "right" if row["CUI"] == cui else "wrong" if row["CUI"] else "none"
            if outcome == "none" and cui in row["alternatives"]:
                outcome = "alternative"
            counts[change][outcome] += 1
    return {change: dict(sorted(count.items())) for change, count in counts.items()}


if __name__ == "__main__":
    main()
