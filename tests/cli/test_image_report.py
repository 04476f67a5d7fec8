from __future__ import annotations

import csv
from pathlib import Path

import pytest

from annotator.cli.image_report import ImageReport
from annotator.errors import ImageError


def report() -> ImageReport:
    made = ImageReport()
    for i in range(12):
        made.add(f"lossless/{i:02d}.dcm", ImageError("no decoder", "pip install it", "unsupported"))
    made.add("cut, off.png", ImageError("truncated PNG", "Fetch it again.", "broken"))
    made.add("SR1", ImageError("DICOM without an image", "Leave it out.", "no_pixels"))
    made.add("fine.png")
    made.add("dark.dcm", None, ("window_ignored", "frame_replaced"))
    made.add("dim.dcm", None, ("window_ignored",))
    return made


def test_images_are_grouped_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    made = report()
    made.say()
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("2 x window or VOI LUT not applied")
    assert lines[1:3] == ["    dark.dcm", "    dim.dcm"]
    assert lines[3].startswith("1 x middle frame is blank") and lines[4] == "    dark.dcm"
    assert lines[5:7] == ["1 x no image in the file; skipped", "    SR1"]
    assert lines[7] == "12 x no decoder. pip install it"
    assert lines[8:18] == [f"    lossless/{i:02d}.dcm" for i in range(10)]
    assert lines[18] == "    … and 2 more (--report FILE lists all)"
    assert lines[19:] == [
        "1 x truncated PNG. Fetch it again.",
        "    cut, off.png",
        "13 images could not be used.",
    ]
    assert made.exit_code == 3


def test_files_without_an_image_are_no_failures(capsys: pytest.CaptureFixture[str]) -> None:
    made = ImageReport({"SR1": ImageError("no image", "", "no_pixels")})
    made.say()
    assert "could not be used" not in capsys.readouterr().err
    assert made.exit_code == 0


def test_a_file_lists_everything(tmp_path: Path) -> None:
    report().say(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 + 1 + 1 + 3
    assert rows[12] == {
        "path": "cut, off.png",
        "code": "broken",
        "reason": "truncated PNG",
        "hint": "Fetch it again.",
    }
    assert [row["code"] for row in rows[13:]] == [
        "no_pixels",
        "window_ignored",
        "frame_replaced",
        "window_ignored",
    ]
