"""Pages of docs/ whose files are written and whose commands run: captions, ranking, finding, …"""

from __future__ import annotations

import contextlib
import doctest
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from annotator.cli import cli

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"((?:[^\n]+\n)+)?\n?```(\w+)\n(.*?)```", re.DOTALL)


def run(command: str, folder: Path, code: int = 0) -> tuple[str, str, str]:
    """What a command prints in `folder`, on stdout, on stderr, and on both as a terminal shows it.

    It may write to a file by `>`.
    """
    program, *arguments = shlex.split(command)
    assert program == "annotator"
    target = arguments[-1] if ">" in arguments else None
    with contextlib.chdir(folder):
        done = CliRunner().invoke(cli, arguments[:-2] if target else arguments)
    assert done.exit_code == code, done.output
    if target:
        (folder / target).write_bytes(done.stdout_bytes)
        return "", done.stderr, done.stderr
    return done.stdout, done.stderr, done.output


def play(page: str, folder: Path, *, messages: bool = False) -> int:
    """Write the files of a page, named before their blocks, run its commands and compare.

    Args:
        page: Name of the page.
        folder: Where the commands run.
        messages: Whether the page shows messages, too, and not results only.
    """
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    names: list[str] = []
    played = 0
    for before, kind, body in BLOCK.findall(text):
        if kind != "console":
            names += re.findall(r"`([\w.]+\.(?:csv|txt|RRF))`", before)
            (folder / names.pop(0)).write_text(body, encoding="utf-8")
            continue
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, wanted = part.partition("\n")
            found, said, both = run(command, folder, int("Error: " in wanted))
            found = both if messages else found
            same = doctest.OutputChecker().check_output(wanted, found, doctest.ELLIPSIS)
            assert same, f"{command}\n--- wanted\n{wanted}\n--- found\n{found}"
            if re.match(
                "annotator (caption|search|concepts|evaluate .*--(captions|ranking))", command
            ):
                assert "\nNext: " in f"\n{said}", command
            played += 1
    assert not names
    return played


@pytest.mark.slow
def test_captions(tmp_path: Path) -> None:
    assert play("captions.md", tmp_path) == 6


def test_ranking(tmp_path: Path) -> None:
    pytest.importorskip("pytrec_eval")
    assert play("ranking.md", tmp_path) == 2


def test_ensembles(tmp_path: Path) -> None:
    assert play("ensembles.md", tmp_path) == 4


@pytest.mark.slow
def test_start(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    write_dicom_and_spreadsheet(tmp_path)
    assert play("start.md", tmp_path, messages=True) == 7
    lines = (tmp_path / "run.csv").read_text().splitlines()
    assert lines[0] == "ID,CUIs" and lines[1].startswith("scan_060,PLAIN_X-RAY;CHEST;")


def write_dicom_and_spreadsheet(folder: Path) -> None:
    """What the reader of docs/start.md brings: phantoms as DICOM files, their findings in words."""
    from openpyxl import Workbook

    from annotator.phantoms.cases import NAMES, draw_cases
    from annotator.phantoms.encode import _dataset
    from annotator.phantoms.render import render

    book = Workbook()
    book.active.append(["Scan", "Finding"])
    for side in ("scans", "new"):
        (folder / side).mkdir()
    for case in draw_cases(64, 2026):
        name, is_new = f"scan_{case.index:03d}", case.index >= 60
        dataset = _dataset(case, render(case))
        path = folder / ("new" if is_new else "scans") / f"{name}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        if not is_new:
            book.active.append([name, "; ".join(NAMES[cui] for cui in case.cuis)])
    book.save(folder / "findings.xlsx")


@pytest.mark.slow
def test_finding(tmp_path: Path) -> None:
    assert play("finding.md", tmp_path) == 6
    page = (tmp_path / "brain.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") >= 3 and "Likely missing" in page


def test_concepts(tmp_path: Path) -> None:
    pytest.importorskip("rapidfuzz")
    assert play("concepts.md", tmp_path) == 2
