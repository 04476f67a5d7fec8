"""`annotator queue`: new images by what their labels gain, and doubtful ones of an index."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from invoking import done, invoke, problem

from index import open_index

N, WRONG = 120, (5, 22)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of five clusters, some labels wrong; and new images, many of them between two."""
    folder = tmp_path_factory.mktemp("queue")
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(6, 16))
    of = np.arange(N) % 5
    np.save(folder / "known.npy", (centres[of] + rng.normal(size=(N, 16))).astype(np.float32))
    rows = [
        f"known{i},C000000{(k + 1) % 5 if i in WRONG else k};C0000009\n" for i, k in enumerate(of)
    ]
    (folder / "labels.csv").write_text("ID,CUIs\n" + "".join(rows))
    (folder / "known.txt").write_text("".join(f"known{i}\n" for i in range(N)))
    # Ten like the index's, 20 between two of its clusters, a useless one, and one of the index.
    new = [centres[i % 5] + 0.1 * rng.normal(size=16) for i in range(10)]
    new += [(centres[0] + centres[1]) / 2 + 0.2 * rng.normal(size=16) for _ in range(20)]
    new += [np.zeros(16), np.load(folder / "known.npy")[7]]
    np.save(folder / "new.npy", np.array(new, np.float32))
    (folder / "new.txt").write_text("".join(f"new{i}\n" for i in range(32)))
    done(
        invoke(
            *("build-index", "--vectors", folder / "known.npy", "--ids", folder / "known.txt"),
            *(folder / "labels.csv", "--encoder-name", "mine", "--index", folder / "index"),
        )
    )
    return folder


def queue(folder: Path, *options: object, code: int = 3, new: bool = True) -> tuple[str, str]:
    """Its result, and what it says; code 3 for the image that cannot be used."""
    given = ("--vectors", folder / "new.npy", "--ids", folder / "new.txt", "--encoder-name", "mine")
    result = invoke("queue", *(given if new else ()), "--index", folder / "index", *options)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_new_images_that_are_unsure_come_first_and_are_spread(folder: Path) -> None:
    text, said = queue(folder)
    rows = table(text)
    assert list(rows[0]) == ["ID", "gain", "doubt", "CUIs", "reason"]
    first = rows[0]
    assert int(first["ID"].removeprefix("new")) >= 10 and "stands for" in first["reason"]
    gains = [float(row["gain"]) for row in rows]
    assert gains == sorted(gains, reverse=True) and gains[0] > 2 * gains[1]
    assert len(rows) <= 30 and "new30" not in text and "new31" not in text
    assert "1 images are in the index already and left out, such as new31." in said
    assert f"{len(rows)} of 30 images to review." in said
    assert "F1 of the rest" in said
    assert queue(folder)[0] == text
    assert queue(folder, "--budget", 2)[0] == "".join(text.splitlines(True)[:3])


def test_a_corrected_queue_is_the_table_of_labels_to_add(folder: Path, tmp_path: Path) -> None:
    file, index = tmp_path / "queue.csv", shutil.copytree(folder / "index", tmp_path / "index")
    _, said = queue(folder, "--budget", 3, "--output", file)
    assert f"correct the column CUIs of {file}; annotator add takes it" in said
    vectors = ("--vectors", folder / "new.npy", "--ids", folder / "new.txt")
    added = invoke("add", *vectors, file, "--encoder-name", "mine", "--index", index)
    assert added.exit_code in (0, 3), added.output
    rows = {row["ID"]: set(row["CUIs"].split(";")) for row in table(file.read_text())}
    stored = open_index(index)
    assert {id_: set(stored.labels.row(stored.row_of[id_])) for id_ in rows} == rows


def test_the_least_sure_ones(folder: Path) -> None:
    found = json.loads(queue(folder, "--order", "doubt", "--format", "json")[0])
    doubts = [item["doubt"] for item in found["items"]]
    assert doubts == sorted(doubts, reverse=True) and len(doubts) == found["total"] == 30
    left = found["left"]
    assert left[0]["reviewed"] == 0 and left[0]["whole"] <= left[-1]["whole"] <= 1
    for point in left:
        assert sum(1 - doubt < point["below"] - 1e-6 for doubt in doubts) == point["reviewed"]
        rest = [1 - doubt for doubt in doubts[point["reviewed"] :]]
        assert point["expected"] == pytest.approx(np.mean(rest), abs=1e-5)


def test_tasks_for_label_studio(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    queue(folder, "--format", "label-studio", "--budget", 3, "--output", file)
    tasks = json.loads(file.read_text())
    rows = table(queue(folder, "--budget", 3)[0])
    assert [task["data"]["image_id"] for task in tasks] == [row["ID"] for row in rows]
    for task, row in zip(tasks, rows, strict=True):
        (prediction,) = task["predictions"]
        assert prediction["result"][0]["value"]["choices"] == row["CUIs"].split(";")
        assert prediction["score"] == pytest.approx(1 - float(row["doubt"]), abs=1e-3)
        assert task["data"]["image"] == f"/data/local-files/?d={row['ID']}"


def test_doubtful_images_of_the_index_until_they_are_corrected(
    folder: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(folder / "index", tmp_path / "index")
    rows = table(queue(tmp_path, code=0, new=False)[0])
    assert {row["ID"] for row in rows[:2]} == {f"known{i}" for i in WRONG}
    assert "lacks C0000000" in rows[0]["reason"] or "lacks C0000000" in rows[1]["reason"]
    fix = tmp_path / "fix.csv"
    fix.write_text("ID,add,remove\nknown5,C0000000,C0000001\n")
    done(invoke("relabel", fix, "--index", tmp_path / "index"))
    text, said = queue(tmp_path, code=0, new=False)
    assert "known5" not in [row["ID"] for row in table(text)]
    assert "F1 of the rest" not in said


def test_what_is_refused(folder: Path) -> None:
    result = invoke("queue", "--index", folder / "index", "--url-prefix", "x")
    assert "--url-prefix requires --format label-studio." in problem(result, 2)
    of_index = ("--index", folder / "index", "--encoder-name", "mine")
    vectors = ("--vectors", folder / "new.npy", "--ids", folder / "new.txt")
    result = invoke("queue", folder, *vectors, *of_index)
    assert "Give IMAGES or --vectors." in problem(result, 2)
    result = invoke("queue", *vectors, *of_index, "--on-error", "fail")
    assert "new.npy" in problem(result) and "Or leave it out with --on-error skip." in result.stderr
