"""From image files to a scored run, through the real command: the same bytes as ever.

`tests/frozen/run.csv` is the run of 120 phantoms in fp32, which does not depend on the processor's
kind. If a change is meant to alter what is annotated, write it anew and say so in CHANGELOG.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FROZEN = Path(__file__).with_name("frozen") / "run.csv"


def annotator(folder: Path, command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "annotator", *command.split()],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_run_and_its_score_are_the_frozen_ones(tmp_path: Path) -> None:
    annotator(tmp_path, "sample s --n 120 --seed 3")
    side = "--split s/split.csv --only"
    build = "build-index s/images s/concepts.csv --groups s/patients.csv --precision fp32"
    annotator(tmp_path, f"{build} {side} train")
    run = annotator(tmp_path, f"annotate s/images {side} test")
    assert run == FROZEN.read_text()
    (tmp_path / "run.csv").write_text(run)
    score = annotator(tmp_path, f"evaluate run.csv s/concepts.csv {side} test")
    assert score.startswith(
        "F1 0.8306 (95% interval 0.784 to 0.878, 28 images)\n"
        "   0.8306405895691612 by the current scorer, all digits\n"
    )
