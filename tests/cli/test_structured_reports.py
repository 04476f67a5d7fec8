"""`annotate --sr` on files; tests/integrations has an archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from invoking import invoke, problem

pytest.importorskip("highdicom", reason="the extra `dicomweb` is not installed")


@pytest.fixture
def study(tmp_path: Path, write_dicom: Callable[..., str]) -> Path:
    """A folder with two images of a study, one without it, and a picture that is no DICOM."""
    from PIL import Image

    folder = tmp_path / "study"
    for i in range(2):
        uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
        write_dicom(folder / f"scan {i}.dcm", seed=i, **uids)
    write_dicom(folder / "homeless.dcm", seed=3)
    Image.effect_noise((64, 64), 90).save(folder / "picture.png")
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[Path, int, int], None]) -> Path:
    folder = tmp_path_factory.mktemp("reported")
    (folder / "images").mkdir()
    rows = []
    for i in range(6):
        draw(folder / "images" / f"i{i}.png", i % 3, i)
        rows.append(f"i{i},C{i % 3};C9\n")
    (folder / "concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    built = invoke(
        *("build-index", folder / "images", folder / "concepts.csv", "--k", 3),
        *("--index", folder / "index"),
    )
    assert built.exit_code == 0, built.stderr
    return folder / "index"


def test_reports_in_a_folder(study: Path, index: Path, tmp_path: Path) -> None:
    from pydicom import dcmread

    folder = tmp_path / "new" / "reports"
    command = ("annotate", study, "--index", index, "--format", "2026", "--sr", folder)
    done = invoke(*command)
    assert done.exit_code == 3
    assert len(done.stdout.splitlines()) == 5  # the run has all of them
    assert f"{folder}: 2 structured reports." in done.stderr
    assert "1 x no report: its header has no StudyInstanceUID" in done.stderr
    assert "1 x no report: the image is no DICOM" in done.stderr
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == ["scan 0.dcm", "scan 1.dcm"]
    for i, path in enumerate(paths):
        ds = dcmread(path)
        assert ds.SOPClassUID.name == "Comprehensive SR Storage"
        uid = dcmread(study / f"scan {i}.dcm").SOPInstanceUID
        assert uid in str(ds.CurrentRequestedProcedureEvidenceSequence)
    first = [path.read_bytes() for path in paths]
    assert invoke(*command).stdout == done.stdout
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == first


def test_a_folder_of_reports_has_no_images(study: Path, index: Path, tmp_path: Path) -> None:
    invoke("annotate", study, "--index", index, "--sr", study / "reports")
    again = invoke("annotate", study, "--index", index, "--format", "2026")
    assert again.exit_code == 0 and len(again.stdout.splitlines()) == 5
    assert "2 DICOM files without an image are skipped" in again.stderr


def test_where_reports_cannot_go(study: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = problem(invoke("annotate", study, "--index", index, "--sr", tmp_path / "file"))
    assert "cannot be a folder of reports" in said
    said = problem(invoke("annotate", study, "--index", index, "--sr", "dicomweb://a:b@h/x"))
    assert "ANNOTATOR_DICOMWEB_PASSWORD" in said
    arguments = ("annotate", "--vectors", "v.npy", "--index", index, "--sr", tmp_path)
    assert "--vectors has no images" in problem(invoke(*arguments), 2)
