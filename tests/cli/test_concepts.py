"""`annotator concepts match`, and `--types` of other commands."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from invoking import done, info, invoke, problem

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
    names = {"C1": "Cold", "C2": "Cold", "C3": "Effusion", "C4": "Effusions"}
    (tmp_path / "MRCONSO.RRF").write_text("".join(ROW.format(*pair) for pair in names.items()))
    (tmp_path / "words.txt").write_text("Cold\nCold\nefusion\n")
    found = invoke(
        "concepts", "match", tmp_path / "words.txt", "--mrconso", tmp_path / "MRCONSO.RRF"
    )
    assert found.stdout.splitlines()[1:] == [
        "Cold,2,,,exact,0.50,C1 Cold (0.50); C2 Cold (0.50)",
        "efusion,1,C3,Effusion,fuzzy,0.79,C4 Effusions (0.70)",
    ]
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


def test_an_interrupted_match_leaves_nothing(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(items: Iterable[bytes], **_: object) -> Iterator[bytes]:
        yield next(iter(items))
        raise KeyboardInterrupt

    (tmp_path / "MRCONSO.RRF").write_text(CONSO)
    monkeypatch.setattr("annotator.concepts.rrf.track", interrupted)
    match = ("concepts", "match", words, "--mrconso", tmp_path / "MRCONSO.RRF")
    found = invoke(*match, "--output", tmp_path / "review.csv")
    assert (found.exit_code, found.stdout) == (130, "") and "Interrupted." in found.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MRCONSO.RRF", "words.txt"]


# Semantic types

TYPES = """\
C0000001|T047|B2|Disease or Syndrome|A1||
C0000002|T023|A1|Body Part, Organ, or Organ Component|A2||
C0000002|T047|B2|Disease or Syndrome|A3||
C0000099|T060|B1|Diagnostic Procedure|A4||
"""


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    for name, text in {
        "truth.csv": "ID,CUIs\na,C0000001;C0000009\nb,C0000002\nc,C0000009\n",
        "run.csv": "ID,CUIs\na,C0000001\nb,C0000001\nc,C0000009\n",
        "types": TYPES,
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_evaluate_by_type(tables: Path) -> None:
    run = ("evaluate", tables / "run.csv", tables / "truth.csv")
    types = ("--semantic-types", tables / "types")
    plain = invoke(*run).stdout
    found = invoke(*run, *types)
    assert found.exit_code == 0 and found.stdout.startswith(plain.rstrip("\n"))
    rows = [line.split() for line in found.stdout.removeprefix(plain.rstrip("\n")).splitlines()]
    assert rows[-2] == [
        "T047",
        *["Disease", "or", "Syndrome", "2", "2", "0.5000", "0.0000", "1.0000"],
    ]
    assert rows[-1][0] == "T023" and rows[-1][-3:] == ["0.0000"] * 3

    facts = json.loads(invoke(*run, *types, "--types", "T023", "--json").stdout)
    assert [(row["tui"], row["n_images"], row["f1"]) for row in facts["per_type"]] == [
        ("T023", 1, 0.0)
    ]
    none = invoke(*run, *types, "--types", "Diagnostic procedure")
    assert none.exit_code == 0 and none.stdout.endswith("\n  none\n")


def test_stats_by_type(tables: Path) -> None:
    stats = ("stats", tables / "truth.csv", "--semantic-types", tables / "types")
    rows = [line.split() for line in invoke(*stats).stdout.splitlines()]
    assert ["Semantic", "types:", "2"] in rows
    assert rows[-2] == ["T047", "Disease", "or", "Syndrome", "2", "2", "2"]
    assert rows[-1] == [
        "T023",
        "Body",
        "Part,",
        "Organ,",
        "or",
        "Organ",
        "Component",
        "1",
        "1",
        "1",
    ]
    some = invoke(*stats, "--types", "t023").stdout
    assert some.startswith("3 images, 2 of them without concepts\n1 concepts, 1 annotations\n")
    assert "T047" not in some


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stats", "truth.csv", "--types", "T047"), "--types requires --semantic-types"),
        (("evaluate", "run.csv", "truth.csv", "--types", "T047"), "--types requires"),
        (
            ("evaluate", "run.csv", "truth.csv", "--captions", "--semantic-types", "types.csv"),
            "--semantic-types belongs to plain runs",
        ),
    ],
)
def test_types_without_their_file(arguments: tuple[str, ...], said: str) -> None:
    assert said in problem(invoke(*arguments), 2)


@pytest.mark.slow
def test_from_words_to_annotations_of_some_types(tables: Path, draw) -> None:
    (tables / "images").mkdir()
    for i in range(9):
        draw(tables / "images" / f"i{i}.png", i % 3, i)
    words = ("colds; people", "Hand;people", "people")
    labels = ("C0000001;C0000009", "C0000002;C0000009", "C0000009")
    rows = "".join(f"i{i},{words[i % 3]}\n" for i in range(9))
    (tables / "labels.csv").write_text(f"ID,labels\n{rows}")
    names = {"C0000001": "Cold", "C0000002": "Hand", "C0000009": "People"}
    conso = "".join(ROW.format(cui, name) for cui, name in names.items())
    (tables / "MRCONSO.RRF").write_text(conso)
    mrconso, review = tables / "MRCONSO.RRF", tables / "review.csv"
    table = (tables / "labels.csv", "--label-column", "labels")
    said = done(invoke("concepts", "match", *table, "--mrconso", mrconso, "--output", review))
    assert "9 images, 3 labels" in said and "3 words: 2 exact, 1 normalised" in said
    index = ("--index", tables / "index")
    mapped = ("--mapping", review, "--names", mrconso)
    done(invoke("build-index", tables / "images", *table, *mapped, "--no-tune", *index))
    assert {row["cui"]: row["name"] for row in info(tables / "index")["most_frequent"]} == names
    annotate = ("annotate", tables / "images", *index, "--k", "1")
    types = ("--semantic-types", tables / "types")

    def concepts(*arguments: object) -> list[str]:
        result = invoke(*annotate, *arguments)
        assert result.exit_code == 0, result.output
        return [line.partition(",")[2] for line in result.stdout.splitlines()[1:]]

    assert [set(row.split(";")) for row in concepts()] == [
        set(labels[i % 3].split(";")) for i in range(9)
    ]
    assert concepts(*types, "--types", "T047") == ["C0000001", "C0000002", ""] * 3
    assert (
        concepts(*types, "--types", "Body Part, Organ, or Organ Component")
        == [
            "",
            "C0000002",
            "",
        ]
        * 3
    )
    assert "None of the 3 concepts of the index has the semantic type T060" in problem(
        invoke(*annotate, *types, "--types", "T060")
    )
    assert "has no semantic type 'T999'" in problem(invoke(*annotate, *types, "--types", "T999"))
    assert "--semantic-types requires --types" in problem(invoke(*annotate, *types), 2)
    both = ("--types", "T047", "--hierarchy", tables / "types")
    assert "mutually exclusive" in problem(invoke(*annotate, *types, *both), 2)
