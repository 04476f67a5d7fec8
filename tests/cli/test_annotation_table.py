"""`annotator annotate --format table`, which is what a terminal shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invoking import done, invoke
from test_terminal import Terminal

from annotator.annotation import Annotation
from annotator.cli.annotation_table import annotation_lines
from annotator.errors import ImageError

NAMES = {
    "C1": "Chest",
    "IN_WORDS": "In words",
    "C2": "Structure of the left lower lobe of the lung",
}


def test_concepts_have_names_and_scores() -> None:
    made = Annotation("scan", ("C1", "IN_WORDS", "C3"), (0.987, 0.5, 0.4), 0.9, (), 0.62)
    assert annotation_lines(made, NAMES) == [
        "",
        "scan  (familiarity 0.62)",
        "  score  concept   CUI",
        "   0.99  Chest     C1",
        "   0.50  In words",
        "   0.40            C3",
    ]
    words = Annotation("scan", ("IN_WORDS",), (0.5,), 0.9, ())
    assert annotation_lines(words, NAMES)[2:] == ["  score  concept", "   0.50  In words"]


def test_what_is_unusual_is_said() -> None:
    far = Annotation("far", ("C1",), (1.0,), 1.0, (), familiarity=0.01, notes=("window_ignored",))
    lines = annotation_lines(far, NAMES)
    assert lines[1] == "far  (familiarity 0.01: unlike the cases of the index)"
    assert lines[-1].startswith("  note: window or VOI LUT not applied")
    assert annotation_lines(Annotation("bare", (), (), 0.0, ()), NAMES) == [
        "", "bare", "  no concepts",
    ]  # fmt: skip
    broken = Annotation("bad", (), (), 0.0, (), error=ImageError("truncated PNG", "Fetch it."))
    assert annotation_lines(broken, NAMES) == ["", "bad", "  not used: truncated PNG. Fetch it."]


@pytest.fixture
def circle(tmp_path: Path) -> Path:
    """An index of vectors, and vectors to annotate."""
    angles = np.linspace(0, 3, 12)
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    np.save(tmp_path / "train.npy", vectors)
    np.savez(tmp_path / "test.npz", vectors=vectors[[0, 11]], ids=["first", "last"])
    ids = [f"i{i}" for i in range(12)]
    (tmp_path / "ids.txt").write_text("\n".join(ids) + "\n")
    (tmp_path / "concepts.csv").write_text(
        "ID,CUIs\n" + "".join(f"{id_},{'C1' if i < 6 else 'C2'}\n" for i, id_ in enumerate(ids))
    )
    (tmp_path / "names.csv").write_text(
        "CUI,Name\n" + "".join(f"{cui},{name}\n" for cui, name in NAMES.items())
    )
    build = invoke(
        "build-index", "--vectors", tmp_path / "train.npy", "--ids", tmp_path / "ids.txt",
        tmp_path / "concepts.csv", "--names", tmp_path / "names.csv", "--encoder-name", "angle",
        "--index", tmp_path / "index",
    )  # fmt: skip
    done(build)
    return tmp_path


def test_a_terminal_shows_the_table_and_a_pipe_takes_the_run(circle: Path) -> None:
    asked = ("annotate", "--vectors", circle / "test.npz", "--index", circle / "index")
    run = invoke(*asked)
    assert run.stdout == "ID,CUIs\nfirst,C1\nlast,C2\n"
    table = invoke(*asked, "--format", "table").stdout
    assert table.startswith("first") and f"  1.00  {NAMES['C2']}  C2\n" in table
    written, code = Terminal(*asked, columns=40).ended()
    assert code == 0 and "  1.00  Structure of the left low…  C2\n" in written
    kept = circle / "run.csv"
    assert Terminal(*asked, "--output", kept).ended()[1] == 0
    assert kept.read_text() == run.stdout
