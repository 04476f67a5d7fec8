"""Commands as the tests call them, and what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from annotator.cli import cli

ROOT = Path(__file__).parents[2]
PYTHONPATH = {"PYTHONPATH": str(ROOT)}  # for commands in other folders


def invoke(*arguments: object, **environment: str | None) -> Result:
    return CliRunner(env=environment).invoke(cli, [str(a) for a in arguments])


def command(*arguments: object) -> list[str]:
    """A command as a process is started with it."""
    return [sys.executable, "-m", "annotator", *(str(a) for a in arguments)]


def process(
    arguments: list[str], cwd: Path = ROOT, **options: Any
) -> subprocess.CompletedProcess[str]:
    """A process that has ended."""
    options = {"stdout": subprocess.PIPE, "env": os.environ | PYTHONPATH} | options
    return subprocess.run(arguments, stderr=subprocess.PIPE, text=True, cwd=cwd, **options)


def done(result: Result) -> str:
    """The messages of a command that succeeded and printed no results."""
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    return result.stderr


def problem(result: Result, code: int = 1) -> str:
    """The messages of a command that failed, without a traceback and without results."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Error: " in result.stderr and "Traceback" not in result.stderr
    return result.stderr


def info(index: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(invoke("info", "--index", index, "--json").stdout)
    return facts


def check_sound(index: Path) -> None:
    assert "is sound" in done(invoke("verify", "--index", index))
