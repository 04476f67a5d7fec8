"""`annotator export fiftyone`: samples of images of an index, and of new ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoking import done, invoke, problem

N = 18


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    draw: Callable[[Path, int, int], None],
    write_dicom: Callable[..., str],
) -> Path:
    """An index of three patterns, in which each patient has a concept that no other one has."""
    folder = tmp_path_factory.mktemp("exported")
    for name in ("images", "new"):
        (folder / name).mkdir()
    labels, patients = ["ID,CUIs\n"], ["ID,patient\n"]
    for i in range(N):
        draw(folder / "images" / f"i{i}.png", i % 3, i)
        labels.append(f"i{i},C000000{i % 3};C000010{i // 6}\n")
        patients.append(f"i{i},p{i // 6}\n")
    (folder / "concepts.csv").write_text("".join(labels))
    (folder / "patients.csv").write_text("".join(patients))
    (folder / "names.csv").write_text("CUI,Name\nC0000000,Waves\nC0000001,Same\nC0000002,Same\n")
    draw(folder / "new" / "n0.png", 0, 100)
    draw(folder / "new" / "n1.png", 1, 101)
    write_dicom(folder / "new" / "n2.dcm")
    (folder / "new" / "n3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "truth.csv").write_text("ID,CUIs\nn0,C0000000\nn1,C0000000\n")
    done(
        invoke(
            *("build-index", folder / "images", folder / "concepts.csv", "--k", 3),
            *("--groups", folder / "patients.csv", "--names", folder / "names.csv"),
            *("--index", folder / "index"),
        )
    )
    return folder


def export(folder: Path, *arguments: object, out: Path) -> Any:
    return invoke("export", "fiftyone", *arguments, "--index", folder / "index", "--out", out)


def samples(out: Path) -> dict[str, Any]:
    text = (out / "samples.json").read_text()
    return {sample["image_id"]: sample for sample in json.loads(text)["samples"]}


def labels(sample: dict[str, Any], field: str, what: str = "cui") -> list[str]:
    return [label[what] for label in sample[field]["classifications"]]


def test_images_of_the_index_are_predicted_by_other_patients(folder: Path, tmp_path: Path) -> None:
    said = done(export(folder, folder / "images", out=tmp_path / "ds"))
    assert f"{N} samples ({N} with known concepts, {N} of the index)" in said
    found = samples(tmp_path / "ds")
    assert list(found) == [f"i{i}" for i in range(N)]
    for i, sample in enumerate(found.values()):
        assert sample["filepath"] == str(folder / "images" / f"i{i}.png")
        assert (sample["group_id"], sample["tags"]) == (f"p{i // 6}", ["indexed"])
        truth = [f"C000000{i % 3}", f"C000010{i // 6}"]
        assert labels(sample, "ground_truth") == truth
        assert truth[1] not in labels(sample, "predictions")  # its patient had no vote
        assert 0 <= sample["f1"] < 1
    shown = {label for one in found.values() for label in labels(one, "ground_truth", "label")}
    assert shown >= {"Waves", "Same (C0000001)", "Same (C0000002)", "C0000100"}
    assert not list((tmp_path / "ds" / "data").iterdir())


def test_new_images_and_their_truth(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ds"
    result = export(folder, folder / "new", folder / "truth.csv", out=out)
    assert result.exit_code == 3 and "n3.png" in result.stderr
    found = samples(out)
    assert list(found) == ["n0", "n1", "n2"]
    assert "C0000000" in labels(found["n0"], "predictions")
    evaluated = dict(
        zip(
            labels(found["n0"], "predictions"),
            labels(found["n0"], "predictions", "eval"),
            strict=True,
        )
    )
    assert evaluated.pop("C0000000") == "tp" and set(evaluated.values()) <= {"fp"}
    assert labels(found["n1"], "ground_truth", "eval") == ["fn"]
    assert found["n2"]["ground_truth"] is None
    assert set(labels(found["n2"], "predictions", "eval")) <= {None}
    picture = out / found["n2"]["filepath"]
    assert picture.is_file() and picture.parent == out / "data"
    assert "embedding" in found["n2"] and not found["n0"]["tags"]

    confidence = {  # without its own patient to leave out, as annotate has it
        one["id"]: [concept["score"] for concept in one["concepts"]]
        for one in map(
            json.loads,
            invoke(
                *("annotate", folder / "new", "--index", folder / "index", "--format", "jsonl")
            ).stdout.splitlines(),
        )
    }
    assert [one["score"] for one in found["n0"]["predictions"]["classifications"]] == pytest.approx(
        confidence["n0"], abs=1e-5
    )


def test_the_folder_is_whole_or_not_there(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ds"
    error = problem(export(folder, folder / "new", "--on-error", "fail", out=out))
    assert "n3.png" in error and not list(tmp_path.iterdir())
    done(export(folder, folder / "images", out=out))
    before = (out / "samples.json").read_bytes()
    assert "exists already" in problem(export(folder, folder / "images", out=out))
    again = ("--overwrite", "--only", "id:i1*")
    assert problem(export(folder, folder / "new", "--overwrite", "--on-error", "fail", out=out))
    assert (out / "samples.json").read_bytes() == before
    done(export(folder, folder / "images", *again, out=out))
    assert list(samples(out)) == ["i1", *(f"i1{i}" for i in range(8))]
    done(export(folder, folder / "images", out=tmp_path / "other"))
    assert (tmp_path / "other" / "samples.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ds", "other"]


def test_an_index_of_one_patient(folder: Path, tmp_path: Path) -> None:
    """Nobody else can vote."""
    (tmp_path / "one.csv").write_text("ID,p\n" + "".join(f"i{i},p\n" for i in range(N)))
    out = tmp_path / "ds"
    done(export(folder, folder / "images", "--groups", tmp_path / "one.csv", out=out))
    assert {one["group_id"] for one in samples(out).values()} == {"p"}
    done(
        invoke(
            *("build-index", folder / "images", folder / "concepts.csv", "--k", 3),
            *("--groups", tmp_path / "one.csv", "--index", tmp_path / "index"),
        )
    )
    done(
        invoke(
            *("export", "fiftyone", folder / "images", "--index", tmp_path / "index"),
            *("--out", out, "--overwrite"),
        )
    )
    assert len(samples(out)) == N
