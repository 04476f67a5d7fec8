"""Frames as a person looks at them: the picture that is annotated, in any window."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from annotator.errors import ImageError
from annotator.images.decode import decode, show
from annotator.images.pixels import Levels, Window
from tests.images import dicom_cases, raster_cases

pytestmark = pytest.mark.filterwarnings(r"ignore:::pydicom\.", r"ignore:::PIL\.")

FILES = {
    **{f"DICOM: {name}": case.data for name, case in dicom_cases.cases(96).items()},
    **{f"TIFF: {name}": case.data for name, case in raster_cases.tiff_cases().items()},
    **{f"pages: {name}": case.data for name, case in raster_cases.page_cases().items()},
    **{f"PNG: {name}": case.data for name, case in raster_cases.png_cases().items()},
    **{f"NIfTI: {name}": case.data for name, case in raster_cases.nifti_cases().items()},
    **{f"other: {name}": case.data for name, case in raster_cases.other_cases().items()},
}


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(float)


def test_it_is_the_picture_that_is_annotated() -> None:
    usable = 0
    for name, data in FILES.items():
        try:
            decoded = decode(data, allow_blank=True)
        except ImageError as error:
            with pytest.raises(ImageError) as caught:
                show(data)
            assert caught.value.message == error.message, name
            continue
        usable += 1
        shown = show(data)
        assert np.array_equal(array(shown.picture), array(decoded.frames[0])), name
        assert 0 <= shown.frame < shown.n_frames, name
        low, high, window = shown.levels
        assert low <= high and window.width > 0, name
        again = show(data, frame=shown.frame)
        assert np.array_equal(array(again.picture), array(shown.picture)), name
    assert usable > 150


def test_its_own_window_gives_it_again() -> None:
    """But where a look-up table or a table of a curve says more than a window can."""
    alike = []
    for name, data in FILES.items():
        try:
            shown = show(data)
        except ImageError:
            continue
        again = show(data, frame=shown.frame, window=shown.levels.window)
        assert again.levels == shown.levels, name
        alike.append(np.abs(array(again.picture) - array(shown.picture)).mean() < 1.5)
    assert np.mean(alike) > 0.85


def test_dicom_in_a_window() -> None:
    values = np.add.outer(np.arange(64) * 20, np.arange(48) * 10).astype(np.int16)
    ds = dicom_cases.new_dataset(values, RescaleSlope=2, RescaleIntercept=-1000,
                                 WindowCenter=40, WindowWidth=400)  # fmt: skip
    data = dicom_cases.save(ds)
    shown = show(data)
    highest = 2.0 * int(values.max()) - 1000
    assert shown.levels == Levels(-1000.0, highest, Window(40.0, 400.0))
    units = values.astype(float) * 2 - 1000
    for window in (Window(40.0, 400.0), Window(300.0, 1500.0)):
        picture = array(show(data, window=window).picture)
        assert np.abs(picture - dicom_cases.windowed(units, *window)).max() < 0.51
    ds.PhotometricInterpretation = "MONOCHROME1"
    inverted = array(show(dicom_cases.save(ds), window=Window(300.0, 1500.0)).picture)
    assert np.array_equal(inverted, 255 - array(show(data, window=Window(300.0, 1500.0)).picture))
    ds.WindowCenter = ds.WindowWidth = None
    assert show(dicom_cases.save(ds)).levels.window.width > 1000  # between percentiles


def test_volumes_tiffs_and_pictures_in_a_window() -> None:
    values = np.arange(60 * 50 * 4).reshape(60, 50, 4).astype(np.int16)
    volume = raster_cases.nifti(values, affine=np.eye(3, 4), slope=0.5, intercept=-100)
    shown = show(volume, frame=1, window=Window(2000.0, 1000.0))
    assert (shown.frame, shown.n_frames) == (1, 4)
    assert (shown.levels.low, shown.levels.high) == (0.5 - 100, (60 * 50 * 4 - 3) / 2 - 100)
    units = values[:, :, 1].T[::-1, ::-1] / 2 - 100
    expected = np.clip((units - 2000) / 1000 + 0.5, 0, 1) * 255
    assert np.abs(array(shown.picture) - expected).max() < 0.51

    deep = raster_cases.tiff_cases()["tiles"].data
    low, high, _ = show(deep).levels
    assert (low, high) != (0, 255) or show(deep).picture.mode == "RGB"

    grey = raster_cases.saved(raster_cases.GREY, "PNG")
    assert show(grey).levels == Levels(0.0, 255.0, Window(127.5, 255.0))
    brighter = array(show(grey, window=Window(64, 128)).picture)
    assert np.abs(brighter - np.clip(raster_cases.GREY * (255 / 128), 0, 255)).max() < 1.01
    colour = raster_cases.saved(raster_cases.COLOUR, "PNG")
    assert np.array_equal(
        array(show(colour, window=Window(127.5, 255)).picture), raster_cases.COLOUR.astype(float)
    )


def test_frames_sides_and_what_is_refused() -> None:
    frames = [Image.fromarray(np.full((30, 40), 40 + i, np.uint8)) for i in range(5)]
    frames[3] = Image.fromarray(raster_cases.GREY).resize((40, 30))
    data = raster_cases.saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert show(data).frame == 3  # the middle one is blank
    for i in range(5):
        shown = show(data, frame=i)
        assert (shown.frame, shown.n_frames) == (i, 5)
        assert np.array_equal(array(shown.picture), array(frames[i]))
    assert show(data, side=20).picture.size == (20, 15)
    assert show(data, side=4000).picture.size == (40, 30)
    with pytest.raises(IndexError, match="there are 5 frames"):
        show(data, frame=5)
    with pytest.raises(ValueError, match="width above 0"):
        show(data, window=Window(1.0, 0.0))
    with pytest.raises(ImageError, match="over the limit"):
        show(data, max_pixels=100)
    claimed: list[int] = []
    show(data, claim=claimed.append)
    assert max(claimed) >= 20 * 30 * 40
