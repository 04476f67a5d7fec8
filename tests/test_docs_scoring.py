"""docs/captions.md and docs/ranking.md are executed: their files written, their commands run."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"((?:[^\n]+\n)+)?\n?```(\w+)\n(.*?)```", re.DOTALL)


def run(command: str, folder: Path) -> tuple[str, str]:
    """What a command prints on stdout and stderr, with `annotator` this one."""
    script = f'annotator() {{ "{sys.executable}" -m annotator "$@"; }}; {command}'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def play(page: str, folder: Path) -> int:
    """Write the files of a page, named before their blocks, run its commands and compare."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    names: list[str] = []
    played = 0
    for before, kind, body in BLOCK.findall(text):
        if kind != "console":
            names += re.findall(r"`([\w.]+\.(?:csv|txt))`", before)
            (folder / names.pop(0)).write_text(body, encoding="utf-8")
            continue
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, wanted = part.partition("\n")
            found, said = run(command, folder)
            same = doctest.OutputChecker().check_output(wanted, found, doctest.ELLIPSIS)
            assert same, f"{command}\n--- wanted\n{wanted}\n--- found\n{found}"
            if command.startswith(("annotator caption", "annotator evaluate")):
                assert "\nNext: " in f"\n{said}", command
            played += 1
    assert not names
    return played


@pytest.mark.slow
def test_captions(tmp_path: Path) -> None:
    assert play("captions.md", tmp_path) == 7


def test_ranking(tmp_path: Path) -> None:
    assert play("ranking.md", tmp_path) == 2
