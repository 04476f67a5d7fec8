"""`annotator concepts match`, as a command."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
from pathlib import Path

import pytest
from invoking import PYTHONPATH, command, invoke, problem

ROW = "{}|ENG|P|L1|PF|S1|Y|A1||M1|D1|MSH|MH|D1|{}|0|N|256|\n"
CONSO = ROW.format("C0032285", "Pneumonia") + ROW.format("C0032227", "Pleural Effusion")
REVIEW = (
    "word,count,CUI,name,match,sure,alternatives\n"
    "pneumonia,2,C0032285,Pneumonia,exact,1.00,\n"
    '"Effusion, pleural",1,C0032227,Pleural Effusion,normalised,0.95,\n'
    "thing,1,,,,0.00,\n"
)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("pneumonia\nEffusion, pleural\nPneumonia\nthing\n")
    return path


def test_words_are_matched(words: Path, tmp_path: Path) -> None:
    (tmp_path / "conso.gz").write_bytes(gzip.compress(CONSO.encode()))
    found = invoke("concepts", "match", words, "--mrconso", tmp_path / "conso.gz")
    assert (found.exit_code, found.stdout) == (0, REVIEW)
    assert "a list of 4 words, 3 different" in found.stderr
    assert "3 words: 1 exact, 1 normalised, 0 fuzzy; 1 without a CUI" in found.stderr

    (tmp_path / "names.csv").write_text("CUI,Name\nC0032285,Pneumonia\nC0032227,Pleural Effusion\n")
    review = tmp_path / "review.csv"
    found = invoke(
        "concepts", "match", words, "--names", tmp_path / "names.csv", "--output", review
    )
    assert (found.exit_code, found.stdout, review.read_text()) == (0, "", REVIEW)


def test_several_meanings_are_said(tmp_path: Path) -> None:
    (tmp_path / "MRCONSO.RRF").write_text(ROW.format("C1", "Cold") + ROW.format("C2", "Cold"))
    (tmp_path / "words.txt").write_text("Cold\n")
    found = invoke(
        "concepts", "match", tmp_path / "words.txt", "--mrconso", tmp_path / "MRCONSO.RRF"
    )
    assert found.stdout.endswith("Cold,1,,,exact,0.50,C1 Cold (0.50); C2 Cold (0.50)\n")
    assert "1 may mean several concepts (see alternatives), such as Cold." in found.stderr


def test_wrong_usage(words: Path, tmp_path: Path) -> None:
    assert "Give one of --mrconso and --names" in problem(invoke("concepts", "match", words), 2)
    (tmp_path / "cuis.txt").write_text("C0032285\n")
    (tmp_path / "MRCONSO.RRF").write_text(CONSO)
    mrconso = ("--mrconso", tmp_path / "MRCONSO.RRF")
    assert "no labels in words" in problem(
        invoke("concepts", "match", tmp_path / "cuis.txt", *mrconso)
    )
    (tmp_path / "MRCONSO.RRF").write_text(CONSO + "C1|ENG|P\n")
    assert "MRCONSO.RRF, line 3: 3 columns" in problem(invoke("concepts", "match", words, *mrconso))


def test_an_interrupted_match_leaves_nothing(words: Path, tmp_path: Path) -> None:
    pipe, review = tmp_path / "MRCONSO.RRF", tmp_path / "review.csv"
    pipe.write_text(CONSO)
    arguments = command("concepts", "match", words, "--mrconso", pipe, "--output", review)
    pipe.unlink()
    os.mkfifo(pipe)  # opens when the command reads it
    with (
        subprocess.Popen(
            arguments, env=os.environ | PYTHONPATH, stderr=subprocess.PIPE, text=True
        ) as running,
        pipe.open("w") as file,
    ):
        file.write(CONSO)
        file.flush()
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        said = running.stderr.read()
    assert running.returncode == 130 and "Interrupted." in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MRCONSO.RRF", "words.txt"]
