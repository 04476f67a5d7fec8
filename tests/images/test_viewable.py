"""Images as browsers show them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotator.errors import ImageError
from annotator.images.ref import ImageRef
from annotator.images.viewable import viewable

GREY = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8))


def ref(path: Path) -> ImageRef:
    return ImageRef("x", str(path), path.read_bytes)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "wrong.dcm"])
def test_files_that_browsers_show_stay_where_they_are(tmp_path: Path, name: str) -> None:
    GREY.save(tmp_path / name, None if name != "wrong.dcm" else "PNG")
    found = viewable(ref(tmp_path / name))
    assert (found.path, found.data) == (tmp_path / name, b"")


def test_others_get_a_picture(tmp_path: Path, write_dicom: Callable[..., str]) -> None:
    write_dicom(tmp_path / "scan")
    GREY.save(tmp_path / "a.tiff")
    deep = np.random.default_rng(0).integers(0, 4000, (2000, 1000), np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    buffer = io.BytesIO()
    GREY.save(buffer, "PNG")
    (tmp_path / "late.png").write_bytes(b"\n" + buffer.getvalue())
    sizes = {"scan": (32, 32), "a.tiff": (40, 30), "deep.png": (512, 1024), "late.png": (40, 30)}
    for name, size in sizes.items():
        found = viewable(ref(tmp_path / name))
        assert found.path is None and found.extension == ".jpg"
        picture = Image.open(io.BytesIO(found.data))
        assert (picture.format, picture.size) == ("JPEG", size)
        values = np.asarray(picture)
        assert values.max() - values.min() > 100  # also of 12 bits


def test_what_is_no_file_comes_as_its_bytes(tmp_path: Path) -> None:
    GREY.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    found = viewable(ImageRef("x", "table.parquet row 3", lambda: data))
    assert (found.path, found.data, found.extension) == (None, data, ".png")


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError):
        viewable(ref(tmp_path / "a.png"))
