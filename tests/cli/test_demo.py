"""`annotator demo`: from nothing to a page in the browser, in one command."""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from pathlib import Path

import pytest
from invoking import invoke, problem
from test_terminal import CODE, Terminal


def serve(folder: Path) -> tuple[Terminal, str]:
    """A running demo, and its address."""
    terminal = Terminal("demo", folder, "--n", 40, "--port", 0, "--no-browser", columns=200)
    terminal.read_until("on the page.")
    found = re.search(r"Serving on (http://\S+)", terminal.written)
    assert found is not None
    return terminal, found[1]


def stop(terminal: Terminal) -> str:
    os.write(terminal.screen, b"\x03")
    written, code = terminal.ended()
    assert code == 0 and "Traceback" not in written
    return CODE.sub("", written)


@pytest.mark.slow
def test_the_page_has_pictures_of_the_cases_and_is_there_again(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    folder = tmp_path / "demo"
    terminal, address = serve(folder)
    scan = (folder / "sample" / "images" / "phantom_0001.jpg").read_bytes()
    asked = urllib.request.Request(
        f"{address}/v1/annotate?neighbors=1", scan, {"Content-Type": "image/jpeg"}
    )
    with urllib.request.urlopen(asked) as answer:
        (result,) = json.load(answer)["results"]
    case = result["neighbors"][0]["id"]
    with urllib.request.urlopen(f"{address}/v1/neighbors/{case}/image") as picture:
        assert picture.read(2) == b"\xff\xd8"  # JPEG
    with urllib.request.urlopen(address) as page:
        assert b"<title>" in page.read()
    said = stop(terminal)
    assert f"Building {folder / 'index'}" in said and '"event"' not in said
    assert f"drop an image of {folder / 'sample' / 'images'} on the page." in said

    terminal, _ = serve(folder)
    said = stop(terminal)
    assert said.startswith(f"{folder / 'index'}: used as it is.") and "Embedding" not in said


def test_without_the_service_nothing_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "service.server", None)
    said = problem(invoke("demo", tmp_path / "demo"))
    assert "is not installed" in said and "[service]" in said
    assert list(tmp_path.iterdir()) == []
