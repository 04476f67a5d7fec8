"""The way through a real archive, Orthanc: found by a query, annotated, reported, found again."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from invoking import invoke
from servers import free_port, require, wait_until

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
LOGIN = ("reader", "a secret of the tests")
STUDIES = 10

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Archive:
    """A running Orthanc.

    Attributes:
        url: Of its DICOMweb service.
        images: UIDs of the images of ten studies, the first eight of which are DX.
    """

    url: str
    images: list[str]

    @property
    def address(self) -> str:
        return f"dicomweb+{self.url}"

    def ask(self, path: str) -> Any:
        answer = httpx.get(
            f"{self.url}{path}", auth=LOGIN, headers={"Accept": "application/dicom+json"}
        )
        answer.raise_for_status()
        return answer.json()


def image(folder: Path, write_dicom: Callable[..., str], i: int) -> Any:
    """The image of a study, of the kind that i says."""
    import numpy as np
    from pydicom import dcmread

    y, x = np.mgrid[0:64, 0:64] / 10 + i
    waves = (np.sin(3 * x), np.sin(x) * np.sin(y), np.sin(4 * y))[i % 3]
    path = folder / f"{i}.dcm"
    write_dicom(
        path,
        Rows=64,
        Columns=64,
        PixelData=(waves * 90 + 128).astype(np.uint8).tobytes(),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
        Modality="DX" if i < 8 else "CR",
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Müller^Jörg",
        PatientID=f"P{i // 2}",
        StudyInstanceUID=f"1.2.3.{i}",
        SeriesInstanceUID=f"1.2.3.{i}.1",
    )
    ds = dcmread(path)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    return ds


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory, write_dicom: Callable[..., str]
) -> Iterator[Archive]:
    from dicomweb_client import DICOMwebClient
    from dicomweb_client.session_utils import create_session_from_user_pass

    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
    require("Orthanc", program is not None and PLUGIN.exists())
    assert program is not None
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "db"),
                "IndexDirectory": str(folder / "db"),
                "HttpPort": port,
                "RemoteAccessAllowed": False,
                "DicomServerEnabled": False,
                "AuthenticationEnabled": True,
                "RegisteredUsers": {LOGIN[0]: LOGIN[1]},
                "Plugins": [str(PLUGIN)],
            }
        )
    )
    log = folder / "log"
    with log.open("wb") as file:
        server = subprocess.Popen([program, folder / "orthanc.json"], stdout=file, stderr=file)
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/system", auth=LOGIN).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(server, log, is_ready)
        with create_session_from_user_pass(*LOGIN) as session:
            images = [image(folder, write_dicom, i) for i in range(STUDIES)]
            DICOMwebClient(f"{url}/dicom-web", session).store_instances(images)
        yield Archive(f"{url}/dicom-web", [str(one.SOPInstanceUID) for one in images])
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, archive: Archive) -> Path:
    """Built from the archive itself."""
    folder = tmp_path_factory.mktemp("of-the-archive")
    kinds = ("C0000001", "C0000002", "C0000003")
    rows = [f"{uid},{kinds[i % 3]};C0000009\n" for i, uid in enumerate(archive.images)]
    (folder / "concepts.csv").write_text("ID,CUIs\n" + "".join(rows))
    (folder / "names.csv").write_text("CUI,Name\nC0000009,In all of them\n")
    built = run(
        *("build-index", archive.address, folder / "concepts.csv", "--names", folder / "names.csv"),
        *("--groups", "dicom:PatientID", "--index", folder / "index"),
    )
    assert built.exit_code == 0, built.stderr
    assert "10 images are in 5 groups by PatientID" in built.stderr
    return folder / "index"


def run(*arguments: object) -> Any:
    return invoke(
        *arguments, ANNOTATOR_DICOMWEB_USER=LOGIN[0], ANNOTATOR_DICOMWEB_PASSWORD=LOGIN[1]
    )


def test_from_a_query_to_reports_in_the_archive(
    archive: Archive, index: Path, tmp_path: Path
) -> None:
    command = (
        *("annotate", f"{archive.address}?Modality=DX", "--index", index),
        *("--sr", archive.address, "--format", "2026"),
    )
    done = run(*command)
    assert done.exit_code == 0, done.stderr
    found = [line.partition(",")[0] for line in done.stdout.splitlines()[1:]]
    assert sorted(found) == sorted(archive.images[:8])
    assert f"{archive.address}: 8 structured reports." in done.stderr

    reports = archive.ask("/instances?Modality=SR&includefield=SeriesDescription")
    assert len(reports) == 8
    assert {one["0020000D"]["Value"][0] for one in reports} == {f"1.2.3.{i}" for i in range(8)}
    study, series, uid = (
        reports[0][tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")
    )
    (report,) = archive.ask(f"/studies/{study}/series/{series}/instances/{uid}/metadata")
    text = json.dumps(report, ensure_ascii=False)
    assert '"UMLS"' in text and '"C0000009"' in text and "In all of them" in text
    assert "Not for clinical use" in text and "Müller^Jörg" in text
    assert archive.images[int(study.rpartition(".")[2])] in text

    again = run(*command)  # what is there stays
    assert (again.exit_code, again.stdout) == (0, done.stdout), again.stderr
    assert len(archive.ask("/instances?Modality=SR")) == 8

    if shutil.which("dciodvfy"):
        answer = httpx.get(
            f"{archive.url}/studies/{study}/series/{series}/instances/{uid}",
            auth=LOGIN,
            headers={"Accept": 'multipart/related; type="application/dicom"'},
        )
        start = answer.content.index(b"\r\n\r\n") + 4
        (tmp_path / "sr.dcm").write_bytes(answer.content[start : answer.content.rindex(b"\r\n--")])
        checked = subprocess.run(
            ["dciodvfy", "-new", tmp_path / "sr.dcm"], capture_output=True, text=True, check=False
        )
        said = (checked.stdout + checked.stderr).splitlines()
        assert "ComprehensiveSR" in said
        assert not [line for line in said if line.startswith("Error")]


def test_reports_are_no_images(archive: Archive, index: Path, tmp_path: Path) -> None:
    """Also where all is asked for, and where some values are."""
    for query, n in (("", 10), ("?Modality=DX&Modality=CR", 10), ("?PatientID=P4&limit=1", 1)):
        done = run("annotate", archive.address + query, "--index", index, "--format", "2026")
        assert done.exit_code == 0, done.stderr
        assert len(done.stdout.splitlines()) == 1 + n
    one = f"{archive.address}/studies/1.2.3.4"
    done = run("annotate", one, "--index", index, "--sr", tmp_path / "sr", "--format", "2026")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in (tmp_path / "sr").iterdir()] == [f"{archive.images[4]}.dcm"]


def test_who_is_not_let_in(archive: Archive, index: Path) -> None:
    done = invoke("annotate", archive.address, "--index", index, ANNOTATOR_DICOMWEB_USER=None)
    assert done.exit_code == 1
    assert "does not let us (401)" in done.stderr and "ANNOTATOR_DICOMWEB_TOKEN" in done.stderr
