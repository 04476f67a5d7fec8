"""README.md and the example of docs/service.md are executed, so that what they show works."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from annotator.client import ServiceProblem
from annotator.phantoms import write_sample

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
SERVICE = (README.parent / "docs" / "service.md").read_text(encoding="utf-8")
(LIBRARY,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
CLIENT = re.findall(r"```python\n(.*?)```", SERVICE, re.DOTALL)[0]
ADDRESS = "http://127.0.0.1:8000"


def run(code: str, folder: Path) -> list[str]:
    """What an example prints in `folder`."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "README.md", "exec"), {})
    return printed.getvalue().splitlines()


def line(beginning: str) -> str:
    """The first command of README.md that begins so."""
    found = re.search(rf"^    ({re.escape(beginning)}.*)", TEXT, re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the example of the library ran, with its index, and what it printed."""
    folder = tmp_path_factory.mktemp("readme")
    images = write_sample(folder / "sample", n=40).images
    shutil.copy(min(images.glob("*.png")), folder / "scan.png")
    return folder, run(LIBRARY, folder)


@pytest.fixture(scope="module")
def served(library: tuple[Path, list[str]]) -> Iterator[tuple[Path, str]]:
    """That folder, and the address of a server started as README.md says, on a free port."""
    program, *arguments = shlex.split(line("annotator serve --index concept-index"))
    assert program == "annotator"
    with subprocess.Popen(
        [sys.executable, "-m", "annotator", *arguments, "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=library[0],
        env=os.environ | {"PYTHONPATH": str(README.parent)},
    ) as server:  # fmt: skip
        assert server.stdout is not None
        said = server.stdout.readline()  # ends when the server does
        assert said.startswith("Serving on http"), server.communicate()
        yield library[0], said.split()[2]
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0


@pytest.mark.slow
def test_the_python_example_runs(library: tuple[Path, list[str]]) -> None:
    _, printed = library
    assert len(printed) == 6
    assert all(re.match(r"phantom_\d+ \('C\d+'", text) for text in printed[::2])
    assert all(text.startswith("  because of phantom_") for text in printed[1::2])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_example_runs(served: tuple[Path, str]) -> None:
    folder, address = served
    command = line("curl").replace(ADDRESS, address)
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, check=True)
    (result,) = json.loads(done.stdout)["results"]
    assert result["id"] == "scan" and result["concepts"] and result["error"] is None


@pytest.mark.slow
def test_the_http_example_runs(served: tuple[Path, str]) -> None:
    folder, address = served
    assert ADDRESS in CLIENT
    printed = run(CLIENT.replace(ADDRESS, address), folder)
    assert printed and all(re.match(r"scan C\d+ \w.* [01]\.\d\d?$", text) for text in printed)
    (folder / "bad").mkdir()
    (folder / "bad" / "scan.png").write_bytes(b"no picture")
    with pytest.raises(ServiceProblem, match="The image cannot be used: plain text, not an image"):
        run(CLIENT.replace(ADDRESS, address), folder / "bad")


def test_files_that_readme_names_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (README.parent / target).exists(), target


def test_commands_that_readme_names_exist() -> None:
    from annotator.cli import cli

    named = set(re.findall(r"^    annotator ([a-z-]+)", TEXT, re.MULTILINE))
    rows = re.findall(r"^\| (`[^|]*) \|", TEXT, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([a-z-]+)", row)}
    assert named | listed == set(cli.list_commands(click.Context(cli)))
