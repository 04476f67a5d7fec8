"""`annotator add`, `remove` and `compact` as they are called, with the packaged encoder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from invoking import check_sound, done, info, invoke, problem
from versions import numbered

from index import open_index
from index.folder.publish import only_writer

EMBEDS = pytest.mark.slow  # what loads the packaged encoder


def changed(index: Path, *arguments: object) -> str:
    return done(invoke(*arguments, "--index", index))


def refused(index: Path, *arguments: object) -> str:
    return problem(invoke(*arguments, "--index", index))


# remove and compact, on an index whose encoder cannot be made


def test_remove(tuned_index: Path) -> None:
    said = changed(tuned_index, "remove", "i003", "i100", "i003")
    assert numbered(said).endswith(
        f"{tuned_index}: version v000002, 2 images removed, 118 left. "
        "They stay on the disk until: annotator compact\n"
    )
    facts = info(tuned_index)
    assert (facts["images"], facts["added"], facts["removed"]) == (118, 0, 2)
    assert "removed: 2\n" in invoke("info", "--index", tuned_index).stdout
    assert not {"i003", "i100"} & set(open_index(tuned_index).ids)
    check_sound(tuned_index)


def test_remove_ids_of_a_file(tuned_index: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("i000\ni001\n")
    assert "2 images removed, 118 left" in changed(
        tuned_index, "remove", "--ids", tmp_path / "plain.txt"
    )
    (tmp_path / "table.csv").write_text("ID,CUIs\ni002,C1\ni004,C1\n")
    said = changed(tuned_index, "remove", "i005", "--ids", tmp_path / "table.csv")
    assert "3 images removed, 115 left" in said
    check_sound(tuned_index)


def test_ids_that_are_not_there(tuned_index: Path, tmp_path: Path) -> None:
    message = refused(tuned_index, "remove", "i000", "nobody")
    assert "1 of the 2 images are not in the index, such as nobody" in message
    assert "--missing-ok" in message
    assert numbered(info(tuned_index)["version"]) == "v000001"
    said = changed(tuned_index, "remove", "i000", "nobody", "--missing-ok")
    assert "version v000002, 1 images removed, 119 left" in numbered(said)
    said = changed(tuned_index, "remove", "nobody", "--missing-ok")
    assert "version v000002, 0 images removed, 119 left" in numbered(said)
    assert "not in the index" in refused(tuned_index, "remove", "i000")


def test_mistakes_of_remove(tuned_index: Path, tmp_path: Path) -> None:
    assert "No ids given" in refused(tuned_index, "remove")
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert "empty.txt is empty" in refused(tuned_index, "remove", "--ids", empty)
    nowhere = tmp_path / "nowhere"
    assert f"{nowhere}.txt" in refused(tuned_index, "remove", "--ids", f"{nowhere}.txt")
    everyone = [f"i{i:03d}" for i in range(120)]
    assert "No image would be left" in refused(tuned_index, "remove", *everyone)
    for arguments in (("remove", "a"), ("compact",), ("compact", "--index-type", "ivf")):
        message = refused(nowhere, *arguments)
        assert "does not exist" in message and "annotator build-index" in message
        assert "is no index" in refused(tmp_path, *arguments)
    assert numbered(info(tuned_index)["version"]) == "v000001" and not nowhere.exists()


def test_while_another_writes(tuned_index: Path) -> None:
    with only_writer(tuned_index):
        for arguments in (("remove", "i000"), ("compact",)):
            message = refused(tuned_index, *arguments)
            assert "Another process is writing" in message
    check_sound(tuned_index)


def test_compact(tuned_index: Path) -> None:
    invoke("remove", "i003", "i100", "--index", tuned_index)
    said = changed(tuned_index, "compact")
    assert "Index type flat: 120 rows are few enough" in said  # the reason it was built so
    assert numbered(said).endswith(
        f"{tuned_index}: version v000003, 118 images; 2 removed ones are gone from the disk.\n"
    )
    facts = info(tuned_index)
    assert (facts["images"], facts["added"], facts["removed"]) == (118, 0, 0)
    assert [numbered(path.name) for path in tuned_index.glob("v*")] == ["v000003"]
    check_sound(tuned_index)
    assert "0 removed ones are gone" in changed(tuned_index, "compact")
    assert numbered(info(tuned_index)["version"]) == "v000003"
    changed(tuned_index, "tune")


@pytest.mark.parametrize("kind", ["scan", "ivf", "auto"])
def test_compact_to_another_kind(tuned_index: Path, kind: str) -> None:
    invoke("remove", "i003", "--index", tuned_index)
    said = changed(tuned_index, "compact", "--index-type", kind, "--target-recall", 0.9)
    facts = info(tuned_index)
    assert facts["index_type"] == ("flat" if kind == "auto" else kind)
    assert f"Index type {facts['index_type']}: " in said
    if kind == "ivf":
        assert facts["search"]["target_recall"] == 0.9 <= facts["search"]["recall"]
        assert "; recall " in said
    check_sound(tuned_index)
    changed(tuned_index, "remove", "i004")
    check_sound(tuned_index)
    changed(tuned_index, "compact")
    again = info(tuned_index)
    assert (again["images"], again["index_type"]) == (118, facts["index_type"])
    assert again["search"].get("target_recall") == facts["search"].get("target_recall")
    check_sound(tuned_index)


# add


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[Path, int, int], None]) -> Path:
    """Images of two patterns in an index, and images of a third that are not."""
    folder = tmp_path_factory.mktemp("add")
    for name, kinds, n in (("old", (0, 1), 16), ("new", (2,), 8), ("query", (2,), 2)):
        (folder / name).mkdir()
        rows = []
        for i in range(n):
            kind = kinds[i % len(kinds)]
            draw(folder / name / f"{name}{i:02d}.png", kind, len(name) * 100 + i)
            rows.append(f"{name}{i:02d},C{kind};C9\n")
        (folder / f"{name}.csv").write_text("ID,CUIs\n" + "".join(rows))
    (folder / "names.csv").write_text("CUI,Name\nC2,the third\n")
    done(
        invoke("build-index", folder / "old", folder / "old.csv", "--index", folder / "index",
               "--k", 5, "--adaptation", "none")
    )  # fmt: skip
    return folder


@pytest.fixture
def index(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "index", tmp_path / "index"))


def concepts_of(place: Path, index: Path) -> list[set[str]]:
    result = invoke("annotate", place / "query", "--index", index)
    assert result.exit_code == 0, result.output
    return [set(line.split(",")[1].split(";")) for line in result.stdout.splitlines()[1:]]


@EMBEDS
def test_add(place: Path, index: Path) -> None:
    assert not any("C2" in cuis for cuis in concepts_of(place, index))
    said = changed(index, "add", place / "new", place / "new.csv", "--names", place / "names.csv")
    assert numbered(said).endswith(f"{index}: version v000002, 8 images added; 24 in all.\n")
    facts = info(index)
    assert (facts["images"], facts["added"], facts["removed"]) == (24, 8, 0)
    assert "added: 8\n" in invoke("info", "--index", index).stdout
    assert {"cui": "C2", "name": "the third", "images": 8} in facts["most_frequent"]
    assert concepts_of(place, index) == [{"C2", "C9"}] * 2
    check_sound(index)
    changed(index, "compact")
    assert concepts_of(place, index) == [{"C2", "C9"}] * 2
    assert info(index)["added"] == 0
    check_sound(index)


@EMBEDS
def test_add_what_is_there_already(place: Path, index: Path) -> None:
    arguments = ("add", place / "new", place / "new.csv", "--index", index)
    done(invoke(*arguments))
    message = problem(invoke(*arguments))
    assert "8 of the 8 images are in the index already, such as new00" in message
    assert "--replace" in message
    assert numbered(info(index)["version"]) == "v000002"
    said = done(invoke(*arguments, "--replace"))
    assert "version v000003, 8 images added, 8 of them in place of others; 24 in all." in numbered(
        said
    )
    facts = info(index)
    assert (facts["images"], facts["removed"]) == (24, 0)  # merged: none of the eight is left
    check_sound(index)
    corrected = index.parent / "corrected.csv"
    corrected.write_text("ID,CUIs\n" + "".join(f"new{i:02d},C5\n" for i in range(8)))
    changed(index, "add", place / "new", corrected, "--replace")
    assert concepts_of(place, index) == [{"C5"}] * 2
    old = ("add", place / "old", place / "old.csv", "--replace", "--index", index)
    assert "16 of them in place of others; 24 in all." in done(invoke(*old))
    assert info(index)["removed"] == 16
    check_sound(index)


@EMBEDS
def test_a_broken_image_costs_no_other(place: Path, index: Path, tmp_path: Path) -> None:
    new = Path(shutil.copytree(place / "new", tmp_path / "new"))
    (new / "new03.png").write_bytes(b"\x89PNG\r\n\x1a\nnot more")
    failing = invoke("add", new, place / "new.csv", "--on-error", "fail", "--index", index)
    assert "new03.png" in problem(failing)
    assert info(index)["images"] == 16
    result = invoke("add", new, place / "new.csv", "--index", index)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "new03.png" in result.stderr and "7 images added; 23 in all." in result.stderr
    assert "new03" not in open_index(index).ids
    check_sound(index)


@EMBEDS
def test_add_to_an_index_of_another_encoder(place: Path, tuned_index: Path) -> None:
    message = refused(tuned_index, "add", place / "new", place / "new.csv")
    assert "Unknown encoder 'tiny'" in message
    named = problem(
        invoke("add", place / "new", place / "new.csv", "--index", tuned_index,
               "--embedder", "efficientnet-lite0")
    )  # fmt: skip
    assert "another encoder" in named
    assert numbered(info(tuned_index)["version"]) == "v000001"


def test_mistakes_of_add(
    tuned_index: Path, tmp_path: Path, draw: Callable[[Path, int, int], None]
) -> None:
    (tmp_path / "images").mkdir()
    draw(tmp_path / "images" / "a.png", 0, 0)
    images, nowhere = tmp_path / "images", tmp_path / "nowhere"
    (tmp_path / "other.csv").write_text("ID,CUIs\nb,C1\n")
    (tmp_path / "right.csv").write_text("ID,CUIs\na,C1\n")
    for arguments, message in (
        ((nowhere, tmp_path / "right.csv"), f"{nowhere}"),
        ((images, tmp_path / "none.csv"), "none.csv does not exist"),
        ((images,), "Give the concepts file"),
        ((images, tmp_path / "other.csv"), "None of the 1 images matches one of the 1 ids"),
    ):
        assert message in refused(tuned_index, "add", *arguments)
    for place, message in ((nowhere, "does not exist"), (images, "is no index")):
        assert message in refused(place, "add", images, tmp_path / "right.csv")
    assert not nowhere.exists() and numbered(info(tuned_index)["version"]) == "v000001"
