"""README.md is executed, so that what it shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from annotator.sample import write_sample

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    write_sample(tmp_path / "sample", n=40)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 6
    assert all(re.match(r"phantom_\d+ \('C\d+'", line) for line in printed[::2])
    assert all(line.startswith("  because of phantom_") for line in printed[1::2])


def test_files_that_readme_names_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (README.parent / target).exists(), target


def test_commands_that_readme_names_exist() -> None:
    from annotator.cli import cli

    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"^    annotator ([a-z-]+)", text, re.MULTILINE))
    named |= set(re.findall(r"^\| `([a-z-]+)[ `]", text, re.MULTILINE)) & set(cli.commands)
    assert named <= set(cli.commands)
    assert set(cli.commands) - named <= {"info", "verify"}
