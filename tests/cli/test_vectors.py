"""Vectors instead of images, through the real commands: the same way, the same results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import check_sound, done, info, invoke, problem

SIDES = ("--split", "split.csv", "--only")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[Path, int, int], None]) -> Path:
    """Drawings with their tables, an index of those to train on, and the vectors of all."""
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "images").mkdir()
    concepts, split, groups = ["ID,CUIs\n"], ["ID,side\n"], ["ID,patient\n"]
    for i in range(36):
        draw(folder / "images" / f"i{i}.png", i % 3, i)
        concepts.append(f"i{i},C{i % 3};C9\n")
        split.append(f"i{i},{'train' if i < 30 else 'test'}\n")
        groups.append(f"i{i},p{i // 2}\n")
    for name, rows in (("concepts", concepts), ("split", split), ("groups", groups)):
        (folder / f"{name}.csv").write_text("".join(rows))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        tables = ("concepts.csv", "--groups", "groups.csv", *SIDES, "train")
        done(invoke("build-index", "images", *tables, "--index", "of-images"))
        said = done(invoke("embed", "images", "--index", "of-images", "--out", "all.parquet"))
        assert "36 vectors of length" in said and "from efficientnet-lite0 (30 known" in said
        done(invoke("build-index", "--vectors", "all.parquet", *tables, "--index", "of-vectors"))
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def annotated(index: str, *source: str, form: str = "2026", side: str = "test") -> bytes:
    explained = ("--explain",) if form == "jsonl" else ()
    arguments = (*source, *SIDES, side, "--index", index, "--format", form, *explained)
    result = invoke("annotate", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout_bytes


@pytest.mark.slow
@pytest.mark.parametrize("form", ["2026", "jsonl"])
def test_an_index_of_exported_vectors_is_that_of_the_images(form: str) -> None:
    expected = annotated("of-images", "images", form=form)
    assert len(expected.splitlines()) == 6 + (form == "2026")
    for index in ("of-images", "of-vectors"):
        assert annotated(index, "--vectors", "all.parquet", form=form) == expected
    assert annotated("of-vectors", "images", form=form) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all.npy", "all.npz", "all.safetensors"])
def test_other_formats(name: str, place: Path) -> None:
    done(invoke("embed", "images", "--index", "of-images", "--out", name, *SIDES, "test"))
    expected = annotated("of-images", "--vectors", "all.parquet")
    assert annotated("of-images", "--vectors", name) == expected


@pytest.mark.slow
def test_searching_and_adding_exported_vectors(place: Path, tmp_path: Path) -> None:
    form = (*SIDES, "test", "--format", "csv", "--index", "of-images")
    by_images = invoke("search", "--image", "images", *form)
    by_vectors = invoke("search", "--vectors", "all.parquet", *form)
    assert by_vectors.exit_code == 0 and by_vectors.stdout == by_images.stdout
    index = shutil.copytree(place / "of-images", tmp_path / "index")
    added = ("--vectors", "all.parquet", "concepts.csv", *SIDES, "test", "--index", index)
    assert "6 images added; 36 in all" in done(invoke("add", *added))
    itself = invoke("search", "--image", "images/i35.png", "--k", 1, "--format", "csv",
                    "--index", index)  # fmt: skip
    assert itself.stdout.splitlines()[1] == "i35,i35"


@pytest.mark.slow
def test_images_that_cannot_be_embedded(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "good.png").write_bytes((place / "images" / "i0.png").read_bytes())
    (tmp_path / "mixed" / "bad.png").write_bytes(b"\x89PNG and no more")
    out, table = tmp_path / "v.npz", tmp_path / "bad.csv"
    result = invoke("embed", tmp_path / "mixed", "--out", out, "--report", table)
    assert result.exit_code == 3 and "1 image could not be used" in result.stderr
    assert np.load(out)["ids"].tolist() == ["good"]
    assert "bad.png" in table.read_text()
    again = invoke("embed", tmp_path / "mixed", "--out", out)
    assert "1 vectors of length 2768 from efficientnet-lite0 (1 known before)" in again.stderr


def test_what_embed_refuses(tmp_path: Path) -> None:
    assert "none of the formats" in problem(invoke("embed", "images", "--out", tmp_path / "v.pt"))
    both = ("--index", "of-images", "--embedder", "efficientnet-lite0")
    result = invoke("embed", "images", "--out", "v.npy", *both)
    assert result.exit_code == 2 and "--embedder cannot be given" in result.stderr


# An encoder of the user's


def clusters(n: int, seed: int, dim: int = 8) -> np.ndarray[Any, Any]:
    """Rows around three directions in turn, of any norm."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(3, dim))
    return 5 * centres[np.arange(n) % 3] + rng.normal(size=(n, dim))


def write(folder: Path, name: str, n: int, seed: int, first: int = 0) -> tuple[str, ...]:
    """An .npy file, its ids and its concepts; returns the options that name them."""
    order = np.random.default_rng(seed).permutation(n)
    np.save(folder / f"{name}.npy", clusters(n, seed)[order])
    ids = [f"{name}{first + i}" for i in range(n)]
    (folder / f"{name}.txt").write_text("".join(f"{ids[i]}\n" for i in order))
    rows = (f"{ids[i]},C{i % 3};C9\n" for i in range(n))
    (folder / f"{name}.csv").write_text("ID,CUIs\n" + "".join(rows))
    return "--vectors", f"{folder / name}.npy", "--ids", f"{folder / name}.txt"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An index of vectors of `my net`."""
    given = write(tmp_path, "train", 60, 1)
    named = ("--encoder-name", "my net", "--index", tmp_path / "index")
    said = done(invoke("build-index", *given, tmp_path / "train.csv", *named))
    assert "train.npy: 60 vectors of length 8 of my net (float64); ids from" in said
    assert "60 x vector scaled to unit norm\n" in said
    assert "60 images, 4 concepts (vectors of my net)" in said
    return tmp_path / "index"


def test_own_vectors_go_the_way_of_images(own: Path, tmp_path: Path) -> None:
    facts = info(own)
    assert (facts["embedder"], facts["images"]) == ("my net", 60)
    assert (facts["vector_length"], facts["own_vectors"]) == (8, True)
    check_sound(own)
    given = write(tmp_path, "test", 9, 2)
    result = invoke("annotate", *given, "--index", own, "--encoder-name", "my net")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    ids = (tmp_path / "test.txt").read_text().split()
    assert lines[0] == "ID,CUIs" and [line.split(",")[0] for line in lines[1:]] == ids
    (tmp_path / "run.csv").write_text(result.stdout)
    scored = invoke("evaluate", tmp_path / "run.csv", tmp_path / "test.csv", "--json")
    assert json.loads(scored.stdout)["f1"] == 1.0

    found = invoke("search", *given, "--index", own, "--k", 2, "--format", "csv")
    assert found.exit_code == 0 and found.stdout.splitlines()[1].startswith(f"{ids[0]},train")
    more = write(tmp_path, "more", 3, 3, first=100)
    assert "3 images added; 63 in all" in done(
        invoke("add", *more, tmp_path / "more.csv", "--index", own)
    )
    assert "1 images removed" in done(invoke("remove", "more100", "--index", own))
    assert "tuned" in done(invoke("tune", "--k", 3, "--index", own))
    assert "62 images" in done(invoke("compact", "--index", own))


def test_the_order_of_rows_does_not_matter(own: Path, tmp_path: Path) -> None:
    rows, ids = clusters(9, 5), [f"q{i}" for i in range(9)]
    runs = []
    for order in (range(9), [8, 3, 1, 0, 2, 7, 5, 6, 4]):
        np.savez(tmp_path / "q.npz", vectors=rows[list(order)], ids=[ids[i] for i in order])
        runs.append(invoke("annotate", "--vectors", tmp_path / "q.npz", "--index", own).stdout)
    assert runs[0] == runs[1] and runs[0].startswith("ID,CUIs\nq0,")


def test_bad_rows_get_empty_rows(own: Path, tmp_path: Path) -> None:
    rows = clusters(4, 5)
    rows[1], rows[2, 3] = 0, np.nan
    np.savez(tmp_path / "q.npz", vectors=rows, ids=list("abcd"))
    result = invoke("annotate", "--vectors", tmp_path / "q.npz", "--index", own)
    assert result.exit_code == 3
    lines = result.stdout.splitlines()
    assert lines[2:4] == ["b,", "c,"] and lines[1] != "a," and lines[4] != "d,"
    assert "2 x its vector is zero or not finite" in result.stderr
    assert "q.npz row 1\n" in result.stderr


def test_ids_in_an_array(own: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", clusters(3, 5))
    np.save(tmp_path / "ids.npy", ["b", "a", "c"])
    given = ("--vectors", tmp_path / "q.npy", "--ids", tmp_path / "ids.npy", "--index", own)
    lines = invoke("annotate", *given).stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["ID", "b", "a", "c"]


def test_a_selection_of_vectors_with_ids(own: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "q.npz", vectors=clusters(4, 5), ids=["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "some.txt").write_text("c\na\n")
    given = ("--vectors", tmp_path / "q.npz", "--ids", tmp_path / "some.txt", "--index", own)
    lines = invoke("annotate", *given).stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["ID", "c", "a"]


def test_what_an_index_of_own_vectors_refuses(own: Path, place: Path, tmp_path: Path) -> None:
    given = write(tmp_path, "test", 9, 2)
    for command in ("annotate", "search"):
        said = problem(invoke(command, *given, "--index", own, "--encoder-name", "your net"))
        assert "holds vectors of 'my net' of length 8, not of 'your net' of length 8" in said
    np.savez(tmp_path / "short.npz", vectors=clusters(3, 1, dim=7), ids=list("abc"))
    said = problem(invoke("annotate", "--vectors", tmp_path / "short.npz", "--index", own))
    assert "of length 8, not of 'my net' of length 7" in said
    said = problem(invoke("annotate", "--vectors", "all.parquet", "--index", own))
    assert "not of 'efficientnet-lite0' of length 2768" in said
    for arguments in (
        ("annotate", "images"),
        ("search", "images"),
        ("add", "images", "concepts.csv"),
        ("annotate", "images", "--embedder", "my net"),
    ):
        said = problem(invoke(*arguments, "--index", own))
        assert "built from vectors of 'my net', an encoder that is not ours to run" in said
        assert "--vectors FILE" in said
    said = problem(invoke("search", "--text", "a wrist", "--index", own))
    assert "text" in said


def test_an_index_of_images_takes_only_vectors_of_its_encoder(tmp_path: Path) -> None:
    given = write(tmp_path, "test", 9, 2)
    for name in ((), ("--encoder-name", "efficientnet-lite0")):
        said = problem(invoke("annotate", *given, *name, "--index", "of-images"))
        assert "does not say that it has the same" in said and "annotator embed" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("build-index", "--vectors", "all.parquet"),
        ("build-index", "images", "concepts.csv", "--vectors", "all.parquet"),
        ("build-index", "--vectors", "all.parquet", "concepts.csv", "--thumbnails"),
        ("build-index", "--vectors", "all.parquet", "concepts.csv", "--embedder", "x"),
        ("build-index", "--vectors", "all.parquet", "concepts.csv", "--groups", "dicom:PatientID"),
        ("build-index", "--encoder-name", "x", "images", "concepts.csv"),
        ("build-index", "--ids", "ids.txt", "images", "concepts.csv"),
        ("add", "--vectors", "all.parquet"),
        ("annotate",),
        ("annotate", "all.npy"),
        ("build-index", "all.npz", "concepts.csv"),
        ("annotate", "images", "--vectors", "all.parquet"),
        ("annotate", "--vectors", "all.parquet", "--where", "Modality=DX"),
        ("search", "images", "--vectors", "all.parquet"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "") and "Usage:" in result.stderr


def test_ids_and_names_that_do_not_fit(tmp_path: Path) -> None:
    given = write(tmp_path, "train", 9, 2)
    (tmp_path / "train.txt").write_text("a\nb\n")
    build = ("build-index", "--index", tmp_path / "index", tmp_path / "train.csv")
    said = problem(invoke(*build, *given))
    assert "train.txt has 2 ids, but" in said and "train.npy has 9 vectors" in said
    (tmp_path / "train.txt").write_text("".join(f"z{i}\n" for i in range(9)))
    assert "None of the 9 images matches" in problem(invoke(*build, *given))
    said = problem(invoke(*build, "--vectors", "all.parquet", "--ids", tmp_path / "train.txt"))
    assert "has ids of its own" in said
    assert not (tmp_path / "index").exists()
