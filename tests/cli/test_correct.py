"""`annotator relabel` and `annotator history` as they are called."""

from __future__ import annotations

import json
from pathlib import Path

from invoking import check_sound, done, info, invoke, problem
from versions import numbered

from index import open_index


def labels(index: Path, id_: str) -> tuple[str, ...]:
    stored = open_index(index)
    return stored.labels.row(stored.row_of[id_])


def test_relabel_and_history(tuned_index: Path, tmp_path: Path) -> None:
    table = tmp_path / "corrections.csv"
    table.write_text("ID,CUIs,reason\ni003,C0000001;C0000002,second reading\ni004,,\n")
    said = done(invoke("relabel", table, "--index", tuned_index, "--by", "ada", "--reason", "r"))
    assert f"{tuned_index}: version v000002, labels changed on 2 images." in numbered(said)
    assert labels(tuned_index, "i003") == ("C0000001", "C0000002")
    assert labels(tuned_index, "i004") == ()
    check_sound(tuned_index)
    said = done(invoke("relabel", table, "--index", tuned_index))
    assert (
        "version v000002 as before, no labels to change; 2 had these labels already."
        in numbered(said)
    )
    table.write_text("ID,add,remove\ni003,Mass,C0000001\n")
    said = done(invoke("relabel", table, "--index", tuned_index, "--by", "bob"))
    assert "Warning: no image of the index had these concepts: 1 (Mass)." in said
    assert labels(tuned_index, "i003") == ("C0000002", "MASS")
    assert open_index(tuned_index).names["MASS"] == "Mass"

    lines = invoke("history", "--index", tuned_index, "--format", "json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one["id"], one["by"], one["reason"]) for one in found] == [
        ("i003", "ada", "second reading"),
        ("i004", "ada", "r"),
        ("i003", "bob", ""),
    ]
    assert found[2]["before"] == ["C0000001", "C0000002"]
    assert found[2]["after"] == ["C0000002", "MASS"]
    shown = invoke("history", "i003", "--index", tuned_index).stdout.splitlines()
    assert len(shown) == 3 and shown[0].split()[:3] == ["when", "who", "image"]
    assert shown[2].split()[1:] == ["bob", "i003", "MASS", "C0000001"]
    assert info(tuned_index)["corrections"] == {"in all": 3, "after tuning": 3}
    assert (
        "corrections: in all 3, after tuning 3\n" in invoke("info", "--index", tuned_index).stdout
    )

    again = tmp_path / "again.csv"
    done(invoke("history", "--index", tuned_index, "--format", "csv", "--output", again))
    assert again.read_text() == "ID,CUIs\ni003,C0000002;MASS\ni004,\n"
    assert "no labels to change" in done(invoke("relabel", again, "--index", tuned_index))


def test_ids_that_are_not_there(tuned_index: Path, tmp_path: Path) -> None:
    table = tmp_path / "corrections.csv"
    table.write_text("ID,CUIs\nnobody,C0000001\ni003.png,C0000001\n")
    result = invoke("relabel", table, "--index", tuned_index)
    assert result.exit_code == 3
    assert "Warning: not in the index, and left out: 1 (nobody)." in result.stderr
    assert "labels changed on 1 image" in result.stderr
    assert labels(tuned_index, "i003") == ("C0000001",)
    assert "no image 'nobody'" in problem(invoke("history", "nobody", "--index", tuned_index))
    assert "No corrections." in done(invoke("history", "i005", "--index", tuned_index))
