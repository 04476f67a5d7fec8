"""`annotator caption`, and `annotator evaluate` with --captions and --ranking."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from click.testing import Result
from invoking import command, done, invoke, problem, process

from annotator.phantoms import write_sample


def rows(text: str) -> dict[str, str]:
    header, *found = csv.reader(text.splitlines())
    assert header == ["ID", "Caption"]
    return dict(found)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sample collection and an index of its training side with captions."""
    folder = tmp_path_factory.mktemp("built")
    write_sample(folder / "sample", n=40)
    built = invoke(
        "build-index", folder / "sample/images", folder / "sample/concepts.csv",
        "--captions", folder / "sample/captions.csv", "--split", folder / "sample/split.csv",
        "--only", "train", "--index", folder / "index",
    )  # fmt: skip
    done(built)
    return folder


def caption(built: Path, *options: object) -> Result:
    side = ("--split", built / "sample/split.csv", "--only", "test")
    return invoke("caption", built / "sample/images", "--index", built / "index", *side, *options)


@pytest.mark.slow
def test_caption_and_score(built: Path, tmp_path: Path) -> None:
    result = caption(built)
    assert result.exit_code == 0, result.stderr
    assert "Next: annotator evaluate captions.csv" in result.stderr
    found = rows(result.stdout)
    with (built / "sample/captions.csv").open() as file:
        true = rows(file.read())
    with (built / "sample/split.csv").open() as file:
        sides = {row["ID"]: row["split"] for row in csv.DictReader(file)}
    assert list(found) == sorted(id_ for id_, side in sides.items() if side == "test")
    known = {true[id_] for id_, side in sides.items() if side == "train"}
    assert set(found.values()) <= known  # what somebody wrote
    assert caption(built).stdout_bytes == result.stdout_bytes

    done(caption(built, "--method", "nearest", "--output", tmp_path / "nearest.csv"))
    # One neighbour has nobody to agree with.
    assert rows(caption(built, "--k", 1).stdout) == rows((tmp_path / "nearest.csv").read_text())

    (tmp_path / "captions.csv").write_bytes(result.stdout_bytes)
    scored = invoke(
        "evaluate", tmp_path / "captions.csv", built / "sample/captions.csv", "--captions",
        "--split", built / "sample/split.csv", "--only", "test", "--json",
        "--against", tmp_path / "nearest.csv",
    )  # fmt: skip
    facts = json.loads(scored.stdout)["measures"]["rouge1"]
    # Phantoms' captions have few words in common by chance: the right study alone gives 0.6.
    assert facts["mean"] > 0.6 and facts["n"] == len(found)
    low, high = facts["against"]["interval"]
    assert low <= facts["against"]["difference"] <= high


@pytest.mark.slow
def test_neighbours_are_weighted_as_wanted(built: Path) -> None:
    sharp, flat = caption(built, "--beta", 1000), caption(built, "--beta", 0)
    nearest = caption(built, "--method", "nearest")
    assert rows(sharp.stdout) == rows(nearest.stdout)
    assert len(set(rows(flat.stdout).values())) < len(set(rows(sharp.stdout).values()))
    assert caption(built, "--beta", "nan").exit_code == 2


@pytest.mark.slow
def test_images_that_cannot_be_used_have_an_empty_caption(built: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.png").write_bytes(b"no picture")
    good = min((built / "sample/images").glob("*.png"))
    (images / "good.png").write_bytes(good.read_bytes())
    partly = process(command("caption", images, "--index", built / "index"), tmp_path)
    assert partly.returncode == 3, partly.stderr
    found = rows(partly.stdout)
    assert found["broken"] == "" and found["good"].startswith("Phantom")
    assert "1 x plain text" in partly.stderr and "1 image could not be used." in partly.stderr
    strict = invoke("caption", images, "--index", built / "index", "--on-error", "fail")
    assert "broken.png: plain text" in problem(strict)

    (tmp_path / "ids.csv").write_text("ID\nnowhere\ngood\n")
    zipped = invoke(
        "caption", images, "--index", built / "index", "--ids", tmp_path / "ids.csv", "--zip",
        "--output", tmp_path / "submission.zip",
    )  # fmt: skip
    assert zipped.exit_code == 3 and "no image has this id" in zipped.stderr
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert archive.namelist() == ["submission.csv"]
        text = archive.read("submission.csv").decode()
    assert list(rows(text).items()) == [("nowhere", ""), ("good", found["good"])]


@pytest.mark.slow
def test_an_index_with_few_captions_or_none(built: Path, tmp_path: Path) -> None:
    sample = built / "sample"
    index = shutil.copytree(built / "index", tmp_path / "index")  # knows the vectors
    build = (
        "build-index", sample / "images", sample / "concepts.csv", "--split", sample / "split.csv",
        "--only", "train", "--index", index,
    )  # fmt: skip
    assert invoke(*build).exit_code == 0
    without = problem(invoke("caption", sample / "images", "--index", index))
    assert "has no captions" in without and "--captions captions.csv" in without

    with (sample / "captions.csv").open() as file:
        first = next(iter(rows(file.read()).items()))
    (tmp_path / "few.csv").write_text(f'ID,Caption\n{first[0]},"{first[1]}"\n')
    assert invoke(*build, "--captions", tmp_path / "few.csv").exit_code == 0
    result = invoke("caption", sample / "images", "--index", index, "--k", 3)
    assert result.exit_code == 0
    empty = [id_ for id_, text in rows(result.stdout).items() if not text]
    assert empty and set(rows(result.stdout).values()) == {"", first[1]}
    assert f"Warning: {len(empty)} images have an empty caption" in result.stderr


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    texts = {
        "truth.csv": "ID,Caption\na,chest radiograph\nb,ct of the head\n",
        "run.csv": "ID,Caption\na,chest radiograph\nb,mri\n",
        "other.csv": "ID,Caption\na,chest\nb,mri\n",
        "concepts.csv": "ID,CUIs\na,C1;C2\nb,C1\nc,C2\n",
        "concepts_run.csv": "ID,CUIs\na,C1;C2\nb,C1\nc,C1\n",
        "concepts_other.csv": "ID,CUIs\na,C1\nb,C2\nc,C2\n",
        "similar.csv": "ID,Similar\na,b;c\nb,a\n",
        "split.csv": "ID,split\na,test\nb,train\nc,train\n",
        "run.txt": "1 Q0 x 1 0.9 t\n",
        "qrels.txt": "1 0 x 1\n2 0 x 1\n",
        "sides.csv": "ID,split\n1,test\n2,train\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_evaluate_captions(tables: Path) -> None:
    arguments = ("evaluate", tables / "run.csv", tables / "truth.csv", "--captions")
    plain = invoke(*arguments)
    assert plain.exit_code == 0 and plain.stdout.startswith("ROUGE-1 0.5000 ")
    assert "Next: " in plain.stderr and "--against OTHER" in plain.stderr
    paired = invoke(*arguments, "--against", tables / "other.csv")
    assert "this one higher by +0.1667 (paired 95% interval" in paired.stdout
    as_json = invoke(*arguments, "--json")
    assert as_json.stderr == "" and json.loads(as_json.stdout)["measures"]["rouge1"]["mean"] == 0.5


def test_evaluate_a_ranking(tables: Path) -> None:
    pytest.importorskip("pytrec_eval")
    plain = invoke("evaluate", tables / "run.txt", tables / "qrels.txt", "--ranking", "--k", 5)
    assert plain.exit_code == 0 and plain.stdout.startswith("nDCG@5 0.5000 ")
    side = ("--split", tables / "sides.csv", "--only", "test")
    one = invoke("evaluate", tables / "run.txt", tables / "qrels.txt", "--ranking", *side)
    assert one.stdout.startswith("nDCG@10 1.0000 ") and "1 queries" in one.stdout
    side = ("--split", tables / "split.csv", "--only", "test")
    arguments = ("evaluate", tables / "similar.csv", tables / "concepts.csv", "--ranking")
    found = json.loads(invoke(*arguments, *side, "--json").stdout)
    assert found["n_queries"] == 1 and found["measures"]["ndcg"]["mean"] == pytest.approx(1.0)
    assert found["relevant"] == 0.5 and found["queries"]["a"]["map"] == 1.0


def test_evaluate_concepts_against_another_run(tables: Path) -> None:
    arguments = ("evaluate", tables / "concepts_run.csv", tables / "concepts.csv")
    plain = invoke(*arguments)
    paired = invoke(*arguments, "--against", tables / "concepts_other.csv")
    assert paired.stdout.startswith(plain.stdout.rstrip("\n"))
    assert "higher by +0.1111" in paired.stdout and "better on 2, worse on 1" in paired.stdout
    facts = json.loads(invoke(*arguments, "--against", tables / "concepts.csv", "--json").stdout)
    assert facts["against"]["difference"] == pytest.approx(-1 / 3)


@pytest.mark.parametrize(
    "options",
    [
        ("--captions", "--ranking"),
        ("--captions", "--k", "3"),
        ("--captions", "--scorer", "legacy"),
        ("--captions", "--names", "x"),
        ("--captions", "--bertscore-layer", "3"),
        ("--ranking", "--bertscore", "x"),
        ("--ranking", "--secondary", "x"),
        ("--items", "x"),
        ("--ranking", "--relevant", "0"),
        ("--k", "0"),
    ],
)
def test_options_that_do_not_go_together(tables: Path, options: tuple[str, ...]) -> None:
    result = invoke("evaluate", tables / "run.csv", tables / "truth.csv", *options)
    assert "Usage:" in problem(result, code=2)


def test_problems_name_the_file(tables: Path) -> None:
    wrong = invoke("evaluate", tables / "run.csv", tables / "concepts.csv", "--captions")
    assert "lacks 1 of 3 images, such as 'c'" in problem(wrong)
    foreign = invoke("evaluate", tables / "run.txt", tables / "concepts.csv", "--ranking")
    assert "None of the 1 queries of" in problem(foreign)
