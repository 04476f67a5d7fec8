"""Whatever a program holds an image in, it is the picture that its file is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from annotator.errors import ImageError
from annotator.images.decode import decode
from annotator.images.given import GivenImage, given_images
from annotator.images.sources import find_images

GREY = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
DEEP = np.random.default_rng(2).integers(100, 4000, (30, 40), np.uint16)


def pixels(given: GivenImage) -> NDArray[np.uint8]:
    """What the encoder gets to see."""
    return np.asarray(decode(given.ref.read()).frames[0])


def only(thing: Any) -> NDArray[np.uint8]:
    (given,) = given_images(thing)
    return pixels(given)


def of_file(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    Image.fromarray(values).save(path)
    return np.asarray(decode(path.read_bytes()).frames[0])


def refused(thing: Any) -> ImageError:
    (given,) = given_images([thing])
    with pytest.raises(ImageError) as caught:
        given.ref.read()
    return caught.value


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY),
        (COLOUR, COLOUR),
        (GREY[..., None], GREY),
        (COLOUR[:, ::-1], COLOUR[:, ::-1]),  # not contiguous
        (GREY > 99, np.where(GREY > 99, 255, 0)),
        (COLOUR / 255, COLOUR),
        ((COLOUR / 255).astype(np.float32), COLOUR),
        (np.dstack([COLOUR, np.full((30, 40), 255, np.uint8)]), COLOUR),
        (np.dstack([COLOUR / 255, GREY > 99]), COLOUR * (GREY > 99)[..., None]),
        (torch.from_numpy(GREY.copy()), GREY),
        (torch.from_numpy(COLOUR.copy()).permute(2, 0, 1), COLOUR),
        (torch.from_numpy(COLOUR.copy()), COLOUR),
        (torch.from_numpy(GREY / 255)[None].to(torch.float32), GREY),
        (torch.from_numpy(COLOUR / 255).permute(2, 0, 1).requires_grad_(), COLOUR),
    ],
)  # fmt: skip
def test_arrays_and_tensors_are_shown_as_they_are(array: Any, expected: Any) -> None:
    np.testing.assert_array_equal(only(array), expected)


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "int32", "float32", "float64"])
def test_deep_arrays_are_scaled_as_their_files(dtype: str, tmp_path: Path) -> None:
    expected = of_file(DEEP, tmp_path / "deep.png")
    np.testing.assert_array_equal(only(DEEP.astype(dtype)), expected)


def test_floats_of_two_dimensions_are_measurements(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((30, 40), np.float32) * 0.3
    np.testing.assert_array_equal(only(values), of_file(values, tmp_path / "a.tif"))
    np.testing.assert_array_equal(only(values.astype(np.float16)).shape, (30, 40))
    values[0, 0] = np.nan
    assert only(values)[0, 0] == 0


def test_arrays_of_other_libraries() -> None:
    class Other:
        def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[np.uint8]:
            return COLOUR

    np.testing.assert_array_equal(only(Other()), COLOUR)
    brief = torch.from_numpy(GREY.copy()).to(torch.bfloat16)  # which NumPy does not have
    np.testing.assert_array_equal(only(brief), only(brief.float().numpy()))


def test_what_was_given_is_not_changed() -> None:
    see_through = np.dstack([COLOUR, GREY])
    before = see_through.copy()
    only(see_through)
    np.testing.assert_array_equal(see_through, before)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 20, 30)), "transpose"),
        (np.zeros(5), "[rows, columns]"),
        (np.zeros((9, 9, 2)), "[rows, columns]"),
        (np.zeros((9, 9), complex), "[rows, columns]"),
        (np.zeros((0, 4), np.uint8), "Leave it out"),
        (np.zeros((9, 9, 4)) - 7, "[rows, columns]"),
        (np.broadcast_to(np.uint8(1), (70_000, 70_000)), "Scale the image down"),
    ],
)
def test_arrays_that_are_no_image(array: NDArray[Any], says: str) -> None:
    assert says in refused(array).hint


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A JPEG that the decoder reduces, lying on its side."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "photo.jpg", exif=exif)
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize("loaded", [False, True])
def test_a_pil_image_is_its_file(photo: Path, loaded: bool) -> None:
    with Image.open(photo) as image:
        if loaded:
            image.load()
        (given,) = given_images(image)
        assert (given.ref.id, given.ref.read()) == ("photo", photo.read_bytes())
        (again,) = given_images([image])
        assert again.ref.read() == photo.read_bytes()


def test_a_pil_image_of_bytes_is_its_file(photo: Path) -> None:
    image = Image.open(io.BytesIO(photo.read_bytes()))
    (given,) = given_images(image)
    assert (given.ref.id, given.ref.read()) == ("image-1", photo.read_bytes())
    assert image.size == (400, 300) and np.asarray(image).shape == (300, 400, 3)


@pytest.mark.parametrize("change", ["load", "draft", "thumbnail", "putpixel", "convert"])
def test_a_pil_image_that_was_changed_is_its_pixels(photo: Path, change: str) -> None:
    image: Image.Image = Image.open(io.BytesIO(photo.read_bytes()) if change == "load" else photo)
    if change == "draft":
        image.draft("L", (100, 75))
    elif change == "thumbnail":
        image.thumbnail((64, 64))
    elif change == "putpixel":
        image.putpixel((5, 7), (1, 2, 3))
    elif change == "convert":
        image = image.convert("L")
    else:
        image.load()
    expected = np.rot90(np.asarray(image), -1)  # upright
    np.testing.assert_array_equal(only(image), expected)


def test_modes_of_pil_images(tmp_path: Path) -> None:
    for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "I", "F", "LA", "RGBA"):
        picture = Image.fromarray(COLOUR).convert(mode)
        rgb = np.asarray(picture.convert("RGB").convert("L"), np.float64)
        shown = np.asarray(Image.fromarray(only(picture)).convert("L"), np.float64)
        assert shown.shape == (30, 40)
        assert np.corrcoef(rgb.ravel(), shown.ravel())[0, 1] > 0.95, mode
    deep = Image.fromarray(DEEP)
    np.testing.assert_array_equal(only(deep), of_file(DEEP, tmp_path / "deep.png"))


def test_a_frame_that_was_sought_is_used(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(GREY, 5 * i, axis=1)) for i in range(5)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "stack.tif") as image:
        np.testing.assert_array_equal(only(image), np.asarray(frames[2]))  # the middle one
        image.seek(3)
        np.testing.assert_array_equal(only(image), np.asarray(frames[3]))


def test_closed_and_broken_pil_images(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:5000])
    with Image.open(tmp_path / "cut.jpg") as cut, pytest.raises(ImageError, match="truncated"):
        only(cut)
    closed = Image.open(io.BytesIO(photo.read_bytes()))
    closed.close()
    assert "by Pillow" in refused(closed).message


def test_a_dataset_is_its_file(tmp_path: Path, write_dicom: Callable[..., str]) -> None:
    write_dicom(tmp_path / "scan.dcm", WindowCenter=99, WindowWidth=120)
    dataset = pydicom.dcmread(tmp_path / "scan.dcm")
    before = str(dataset)
    (given,) = given_images(dataset)
    assert given.ref.id == "scan"
    np.testing.assert_array_equal(pixels(given), only(tmp_path / "scan.dcm"))
    assert str(dataset) == before


def test_a_dataset_that_a_program_made() -> None:
    made = pydicom.Dataset()
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    made.Rows, made.Columns, made.SamplesPerPixel = 30, 40, 1
    made.PhotometricInterpretation, made.PixelRepresentation = "MONOCHROME2", 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelData = 7, GREY.tobytes()
    made["PixelData"].VR = "OB"
    np.testing.assert_array_equal(only(made), GREY)
    del made.PixelData
    (given,) = given_images([made])
    with pytest.raises(ImageError):
        pixels(given)


def test_bytes_and_open_files(photo: Path) -> None:
    data = photo.read_bytes()
    with photo.open("rb") as file:
        given = given_images([data, bytearray(data), memoryview(data), io.BytesIO(data), file])
        assert [one.ref.id for one in given] == [
            "image-1",
            "image-2",
            "image-3",
            "image-4",
            "photo",
        ]
        assert all(one.ref.read() == data for one in given)
    assert "as text" in refused(io.StringIO("no picture")).message


def test_ids_and_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        Image.fromarray(GREY).save(tmp_path / f"{name}.png")
    found = find_images(tmp_path)
    things = [str(tmp_path / "b.png"), GREY, tmp_path, found.images[0], GREY, found]
    ids = ["b", "image-2", "a", "b", "a", "image-5", "a", "b"]
    assert [given.ref.id for given in given_images(things)] == ids
    assert [given.ref.id for given in given_images(thing for thing in things)] == ids
    assert [given.ref.id for given in given_images(str(tmp_path / "*.png"))] == ["a", "b"]
    for name in ("a", "b"):  # names repeat
        (tmp_path / name).mkdir()
        Image.fromarray(GREY).save(tmp_path / name / "scan.png")
    ids = [given.ref.id for given in given_images(tmp_path)]
    assert ids == ["a", "a/scan", "b", "b/scan"]


def test_columns_of_paths_and_batches(tmp_path: Path) -> None:
    paths = []
    for i in range(3):
        paths.append(str(tmp_path / f"s{i}.png"))
        Image.fromarray(np.roll(GREY, i)).save(paths[-1])
    table = pd.DataFrame({"path": paths, "kind": ["x", "y", "z"]}, index=[7, 8, 9])
    for column in (table["path"], np.array(paths), np.array(paths, object), pd.Index(paths), paths):
        assert [given.ref.id for given in given_images(column)] == ["s0", "s1", "s2"]
    with pytest.raises(TypeError, match=r"table\['path'\]"):
        given_images(table)
    batch = np.stack([COLOUR, COLOUR[::-1]])
    for several in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2)):
        first, second = given_images(several)
        np.testing.assert_array_equal(pixels(first), COLOUR)
        np.testing.assert_array_equal(pixels(second), COLOUR[::-1])
        assert second.ref.id == "image-2"


def test_what_is_no_image(tmp_path: Path) -> None:
    for thing in (None, 7, {"path": "a.png"}):
        with pytest.raises(TypeError, match="is no image"):
            given_images(thing)  # type: ignore[arg-type]
        assert "is no image" in refused(thing).message
    assert "no such file" in refused(tmp_path / "nowhere.png").message
    assert "no image found" in refused(str(tmp_path / "*.png")).message
    assert refused("").message == "an empty path"
    assert refused(float("nan")).message == "a float is no image"


def test_an_image_that_is_held_is_let_go(photo: Path) -> None:
    (given,) = given_images(COLOUR)
    given.ref.read()
    with Image.open(io.BytesIO(given.picture()())) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (40, 30))
    with pytest.raises(ImageError, match="read before"):
        given.ref.read()
    (given,) = given_images(photo)
    with Image.open(io.BytesIO(given.picture()())) as thumbnail:
        assert thumbnail.size == (144, 192)
