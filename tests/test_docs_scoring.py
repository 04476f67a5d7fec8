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


def run(command: str, folder: Path) -> tuple[str, str]:
    """What a command prints in `folder`, on stdout and stderr; it may write to a file by `>`."""
    program, *arguments = shlex.split(command)
    assert program == "annotator"
    target = arguments[-1] if ">" in arguments else None
    with contextlib.chdir(folder):
        done = CliRunner().invoke(cli, arguments[:-2] if target else arguments)
    assert done.exit_code == 0, done.output
    if target:
        (folder / target).write_bytes(done.stdout_bytes)
    return "" if target else done.stdout, done.stderr


def play(page: str, folder: Path) -> int:
    """Write the files of a page, named before their blocks, run its commands and compare."""
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
            found, said = run(command, folder)
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


@pytest.mark.slow
def test_finding(tmp_path: Path) -> None:
    assert play("finding.md", tmp_path) == 6
    page = (tmp_path / "brain.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") >= 3 and "Likely missing" in page


def test_concepts(tmp_path: Path) -> None:
    pytest.importorskip("rapidfuzz")
    assert play("concepts.md", tmp_path) == 2
