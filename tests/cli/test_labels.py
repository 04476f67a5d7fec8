"""Labels in words through the commands: as CUIs go, to the same run and F1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from invoking import done, invoke

pytestmark = pytest.mark.slow

NAMES = {"C1": "Stripes, fine", "C2": "no stripes", "C3": "Dots", "C4": "X-ray", "C5": "axial"}
IDS = {
    "C1": "STRIPES%2C_FINE", "C2": "NO_STRIPES", "C3": "DOTS", "C4": "X-RAY", "C5": "AXIAL",
}  # fmt: skip
N = 36


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[Path, int, int], None]) -> Path:
    """One folder of images for both sides; their labels as CUIs, and in words in a workbook."""
    import openpyxl

    folder = tmp_path_factory.mktemp("words")
    (folder / "images").mkdir()
    book = openpyxl.Workbook()
    book.active.append(["File name", *NAMES.values()])
    lines = ["ID,CUIs\n"]
    for i in range(N):
        id_ = f"clef_{'test' if i % 4 == 3 else 'train'}_{i}"
        draw(folder / "images" / f"{id_}.png", i % 3, i)
        cuis = [f"C{1 + i % 3}", "C4"] + ["C5"] * (i % 5 == 0)
        lines.append(f"{id_},{';'.join(cuis)}\n")
        book.active.append([f"{id_}.png", *(int(cui in cuis) for cui in NAMES)])
    (folder / "concepts.csv").write_text("".join(lines))
    book.save(folder / "labels.xlsx")
    rows = [f"{NAMES[cui]}\t{cui}\n" for cui in ("C1", "C2", "C3", "C4", "C5")]
    (folder / "mapping.tsv").write_text("word\tCUI\n" + "".join(rows))
    for table, index, options in (
        ("concepts.csv", "cuis", ()),
        ("labels.xlsx", "words", ()),
        ("labels.xlsx", "mapped", ("--mapping", folder / "mapping.tsv")),
    ):
        said = done(
            invoke("build-index", folder / "images", folder / table, *options, "--k", 5,
                   "--only", "id:*_train_*", "--index", folder / index)
        )  # fmt: skip
        assert f"{table}: 36 images, 5 labels" in said and "27 images, 5 concepts" in said
    return folder


def run(place: Path, index: str) -> tuple[str, str]:
    result = invoke("annotate", place / "images", "--index", place / index, "--only", "id:*_test_*")
    assert result.exit_code == 0
    return result.stdout, result.stderr


def test_the_same_run_by_whatever_ids(place: Path) -> None:
    (cuis, said), (words, said_of_words) = run(place, "cuis"), run(place, "words")
    assert len(cuis.splitlines()) == 1 + N // 4 and "no CUIs" not in said
    back = words
    for cui, id_ in IDS.items():
        back = back.replace(id_, cui)
    assert back == cuis != words
    assert "concepts of the run are no CUIs" in said_of_words
    assert run(place, "mapped") == (cuis, said)


def test_and_the_same_score(place: Path, tmp_path: Path) -> None:
    scores = []
    for index, table, *options in (
        ("cuis", "concepts.csv"),
        ("words", "labels.xlsx"),
        ("mapped", "labels.xlsx", "--mapping", place / "mapping.tsv"),
    ):
        (tmp_path / "run.csv").write_text(run(place, index)[0])
        result = invoke(
            "evaluate", tmp_path / "run.csv", place / table, "--only", "id:*_test_*", "--json",
            *options,
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        scores.append(json.loads(result.stdout))
    assert scores[0]["images"] == scores[1]["images"] == scores[2]["images"]
    assert scores[0]["f1"] == scores[1]["f1"] == scores[2]["f1"] > 0.6
    named = {concept["cui"]: concept["name"] for concept in scores[1]["per_concept"]}
    assert named["STRIPES%2C_FINE"] == "Stripes, fine"


def test_words_are_found_counted_and_refused_by_the_checker(place: Path, tmp_path: Path) -> None:
    found = invoke("search", "--index", place / "words", "--concept", "stripes, f")
    assert found.exit_code == 0 and "clef_train_0" in found.stdout
    stats = invoke("stats", place / "labels.xlsx", "--label-column", "X-ray")
    assert "X-RAY" in stats.stdout and "36 images, 1 label in words" in stats.stderr
    (tmp_path / "run.csv").write_text(run(place, "words")[0])
    invalid = invoke("validate", tmp_path / "run.csv", "--ids", place / "labels.xlsx")
    assert invalid.exit_code == 1 and "'X-RAY' is not a CUI" in invalid.stdout


def test_a_service_with_words(place: Path) -> None:
    from starlette.testclient import TestClient

    from service.app import create_app
    from service.engine import open_engine
    from service.settings import Settings

    settings = Settings(index=str(place / "words"), device="cpu", workers=1, encoders=1)
    app = create_app(settings, open_engine(settings), None)
    with TestClient(app, "http://127.0.0.1") as client:
        listed = client.get("/v1/concepts", params={"q": "stripes, f"}).json()
        assert "Stripes, fine" in json.dumps(listed) and "STRIPES%2C_FINE" in json.dumps(listed)
        found = client.get("/v1/search", params={"q": "Stripes, fine"})
        assert found.status_code == 200 and "clef_train_0" in found.text
        image = (place / "images" / "clef_test_3.png").read_bytes()
        files = [("image", ("clef_test_3.png", image))]
        answer = client.post("/v1/annotate", files=files, headers={"Accept": "text/csv"})
        assert answer.text == "ID,CUIs\nclef_test_3,X-RAY;STRIPES%2C_FINE\n"
