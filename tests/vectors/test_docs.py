"""The example of docs/vectors.md is executed, and says what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from annotator.cli import cli
from tests.versions import numbered

TEXT = (Path(__file__).parents[2] / "docs" / "vectors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.slow
def test_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = ""
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "docs/vectors.md", "exec"), {})
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "annotator"
            result = CliRunner().invoke(cli, arguments)
            assert result.exit_code == 0, result.output
            said += result.output
    for line in ("mine.npy: 60 vectors of length 128", "42 x vector scaled", "mine: version v00"):
        (shown,) = re.findall(rf"^    ({line}.*)$", TEXT, re.MULTILINE)
        assert numbered(shown) in numbered(said)
    assert re.search(r"^F1 0\.[78]\d+ \(95% interval", said, re.MULTILINE)
    assert re.match(r"a \('C\d+'.*\nb \('C\d+'", capsys.readouterr().out)
