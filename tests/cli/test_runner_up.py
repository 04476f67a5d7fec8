"""What competed with the answer, and the image itself in the index, through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import done, invoke

N = 60


@pytest.fixture(scope="module")
def arc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of vectors on an arc, benign on one side and malignant on the other."""
    folder = tmp_path_factory.mktemp("arc")
    angles = np.linspace(0, 3, N)
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    np.save(folder / "train.npy", vectors)
    ids = [f"i{i}" for i in range(N)]
    (folder / "ids.txt").write_text("\n".join(ids) + "\n")
    labels = ["C1;C3" if i < N // 2 else "C2;C3" for i in range(N)]
    rows = "".join(f"{id_},{cuis}\n" for id_, cuis in zip(ids, labels, strict=True))
    (folder / "concepts.csv").write_text(f"ID,CUIs\n{rows}")
    (folder / "names.csv").write_text("CUI,Name\nC1,Benign\nC2,Malignant\nC3,Breast\n")
    # On the border, 6 benign cases and 4 malignant ones are the nearest; and a case of the index.
    border = (angles[N // 2 - 1] * 0.7 + angles[N // 2 - 2] * 0.3).item()
    queries = np.array([[np.cos(border), np.sin(border)], vectors[3]], np.float32)
    np.savez(folder / "test.npz", vectors=queries, ids=["border", "known"])
    build = invoke(
        "build-index", "--vectors", folder / "train.npy", "--ids", folder / "ids.txt",
        folder / "concepts.csv", "--names", folder / "names.csv", "--encoder-name", "angle",
        "--index", folder / "index", "--adaptation", "none", "--no-tune", "--k", 10,
        "--kernel", "uniform", "--decider", "top-r", "--top-r", 2,
    )  # fmt: skip
    done(build)
    return folder


def annotate(arc: Path, *options: object) -> tuple[list[dict[str, Any]], str]:
    made = invoke(
        "annotate", "--vectors", arc / "test.npz", "--index", arc / "index", "--format", "jsonl",
        *options,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    return [json.loads(line) for line in made.stdout.splitlines()], made.stderr


def test_the_runner_up_and_the_doubt_are_in_jsonl_and_in_the_table(arc: Path) -> None:
    (border, known), _ = annotate(arc)
    assert [(c["cui"], c["score"], c["rival"]) for c in border["concepts"]] == [
        ("C3", 1.0, None), ("C1", 0.6, "C2"),
    ]  # fmt: skip
    assert border["considered"] == [
        {"cui": "C2", "name": "Malignant", "score": 0.4, "probability": None}  # not tuned
    ]
    assert border["same_image"] is None
    assert known["considered"] == [] and all(c["rival"] is None for c in known["concepts"])
    table = invoke(
        "annotate", "--vectors", arc / "test.npz", "--index", arc / "index", "--format", "table"
    ).stdout
    assert "  in doubt: Benign 0.60; Malignant 0.40 excludes it\n" in table
    assert "  also considered: Malignant 0.40\n" in table
    assert table.count("in doubt") == 1
    assert "  note: the index has this very image, as i3\n" in table


def test_the_image_itself_is_said_and_left_out_on_request(arc: Path) -> None:
    (border, known), said = annotate(arc, "--explain")
    assert known["same_image"] == known["neighbors"][0]["id"] == "i3"
    assert "1 of 2 images is in the index, such as known" in said and "--exclude-self" in said
    (same, other), said = annotate(arc, "--explain", "--exclude-self")
    assert same == border
    assert other["same_image"] == "i3" and "left out" in said
    ids = [case["id"] for case in other["neighbors"]]
    assert len(ids) == 10 and "i3" not in ids
    assert sum(case["weight"] for case in other["neighbors"]) == pytest.approx(1)


def test_an_index_of_nothing_but_the_image_has_no_say(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.array([[1, 0]], np.float32))
    (tmp_path / "ids.txt").write_text("only\n")
    (tmp_path / "concepts.csv").write_text("ID,CUIs\nonly,C1\n")
    vectors = ("--vectors", tmp_path / "one.npy", "--ids", tmp_path / "ids.txt")
    index = ("--index", tmp_path / "index")
    done(invoke("build-index", *vectors, tmp_path / "concepts.csv", *index, "--encoder-name", "x"))
    made = invoke("annotate", *vectors, *index, "--format", "jsonl", "--explain", "--exclude-self")
    assert made.exit_code == 0, made.output
    answer = json.loads(made.stdout)
    assert answer["concepts"] == answer["neighbors"] == [] and answer["expected_f1"] == 0
