"""The notebook of the documentation runs, and shows what it was saved with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def shown(cell: Any) -> list[str]:
    """The kinds of a cell's outputs, without what libraries say on stderr."""
    return sorted(
        kind
        for output in cell.outputs
        for kind in output.get("data", [output.get("name", output.output_type)])
        if kind != "stderr"
    )


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    saved = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(saved)
    ran = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        ran, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises the error of a cell
    pairs = [(a, b) for a, b in zip(saved.cells, ran.cells, strict=True) if a.cell_type == "code"]
    assert len(pairs) >= 8
    for before, after in pairs:
        assert shown(before) == shown(after) != []


def test_the_notebook_is_saved_for_any_reader() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < 300_000
    assert "/home/" not in text and "/tmp" not in text and "Warning" not in text
