"""Images as programs have them: paths, arrays, tensors, PIL images, datasets, bytes.

Each becomes an `ImageRef`, so that it goes the same way as a file. Pixels become the file that
holds them without loss: a picture gives the same vector from its file, from `PIL.Image.open` and
from an array of its pixels. (From pixels alone a large JPEG may not: of its file only as much is
decoded as the encoder needs.)

Arrays are [rows, columns], [rows, columns, channels] of 1, 3 or 4 channels, or batches of the
latter; tensors have their channels first. 8-bit values are shown as they are, as are booleans and
fractions of white: floats of 0..1 with channels, as matplotlib and torchvision have them. All else
is taken for measurements and scaled as in a file, by `annotator.images.pixels.stretch`.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from annotator.errors import AnnotatorError, ImageError
from annotator.ids import has_controls, image_id, printable
from annotator.images.frames import Frame
from annotator.images.pixels import MAX_PIXELS, check_size
from annotator.images.raster import upright
from annotator.images.ref import ImageRef, check_file_size, unusable
from annotator.images.samples import frame_of, frame_of_image
from annotator.images.sources import FoundImages, find_images
from annotator.images.thumbnails import make_thumbnail

if TYPE_CHECKING:
    from pydicom import Dataset
    from torch import Tensor

One: TypeAlias = (
    "str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[Any] | Tensor | Dataset"
    " | ImageRef | FoundImages"
)
Images: TypeAlias = "One | Iterable[One]"

_CHANNELS = (1, 3, 4)
_EXIF_ORIENTATION = 0x0112
_KINDS = "A path, bytes, a PIL image, an array, a tensor or a DICOM dataset is an image."
_SHAPES = "An image is [rows, columns] or [rows, columns, 3], of numbers."


class GivenImage:
    """An image that was given.

    Attributes:
        ref: Reference to it.
    """

    def __init__(self, ref: ImageRef) -> None:
        self.ref = ref

    def picture(self) -> Callable[[], bytes]:
        """Returns a thumbnail, which is made from the file when it is asked for."""
        return partial(make_thumbnail, self.ref)


class _Held(GivenImage):
    """An image that a program holds rather than a file.

    It is read once. Then its thumbnail alone is kept: images may be large, and change.
    """

    def __init__(self, id_: str, encode: Callable[[], bytes]) -> None:
        super().__init__(ImageRef(id_, id_, self._read))
        self._encode: Callable[[], bytes] | None = encode
        self._thumbnail = b""

    def _read(self) -> bytes:
        if self._encode is None:
            raise ImageError("it was read before", "Give it again.")
        try:
            data = self._encode()
            check_file_size(len(data))
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # of Pillow, NumPy or pydicom; it may quote the content
            message = f"cannot be read ({type(error).__name__})"
            raise ImageError(message, _KINDS, "broken") from None
        self._encode = None
        self._thumbnail = make_thumbnail(ImageRef(self.ref.id, self.ref.where, lambda: data))
        return data

    def picture(self) -> Callable[[], bytes]:
        thumbnail = self._thumbnail
        return lambda: thumbnail


def given_images(images: Images) -> list[GivenImage]:
    """References to all that was given, in its order.

    Args:
        images: One or several of the following; several as any iterable, a NumPy array of paths, a
            pandas Series, or an array or a tensor of four dimensions.

            - A path, folder, pattern or URL, as for `find_images`. Where names repeat below a
              folder, its images have their paths as ids.
            - The bytes of an image file, or an open one.
            - A PIL image. It is upright by its EXIF orientation, and of an animation or a stack in
              which nothing was sought the middle frame is used, as of a file.
            - An array or a torch tensor, see above; also others that NumPy can convert.
            - A pydicom dataset.
            - An `ImageRef`, or what `find_images` found.

    Raises:
        TypeError: `images` is none of these.
    """
    return [
        given for n, item in enumerate(_items(images), 1) for given in _given(item, f"image-{n}")
    ]


def _items(images: object) -> Iterable[object]:
    """The single things that were given."""
    if _is_single(images):
        return [images]
    array = _array_of(images)
    if array is not None:
        if array.dtype.kind in "OUT":  # paths, or objects
            items: list[object] = array.ravel().tolist()
            return items
        return list(array) if array.ndim == 4 else [array]
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return images
    raise TypeError(f"{_named(images)} is no image. {_KINDS}")


def _is_single(image: object) -> bool:
    """Whether this is one image, or a path, though Python may be able to iterate over it."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, ImageRef, FoundImages)
    return isinstance(image, kinds) or _is_dataset(image) or hasattr(image, "read")


def _is_dataset(image: object) -> TypeGuard[Dataset]:
    pydicom = sys.modules.get("pydicom")
    return pydicom is not None and isinstance(image, pydicom.Dataset)


def _given(item: Any, id_: str) -> Iterator[GivenImage]:
    """The images that one thing stands for; what is none yields an error when it is read."""
    if isinstance(item, ImageRef):
        yield GivenImage(item)
    elif isinstance(item, FoundImages):
        yield from map(GivenImage, [*item.images, *item.unreadable])
    elif isinstance(item, (str, os.PathLike)):
        yield from map(GivenImage, _found(os.fsdecode(item), id_))
    elif isinstance(item, (bytes, bytearray, memoryview)):
        yield _Held(id_, partial(bytes, item))
    elif isinstance(item, Image.Image):
        yield _given_pillow(item, id_)
    elif _is_dataset(item):
        yield _Held(_id_of_file(getattr(item, "filename", None), id_), partial(_dicom_file, item))
    elif hasattr(item, "read"):
        name = getattr(item, "name", None)
        yield _Held(_id_of_file(name, id_), partial(_read_open, item))
    elif (array := _array_of(item)) is not None:
        yield _Held(id_, lambda: _lossless(_frame_of_array(array)))
    else:
        yield GivenImage(unusable(id_, id_, f"{_named(item)} is no image", _KINDS))


def _found(path: str, id_: str) -> list[ImageRef]:
    if not path:
        return [unusable(id_, id_, "an empty path", "Give the path of an image.")]
    problem: AnnotatorError | None = None
    for id_from in ("auto", "path"):
        try:
            found = find_images(path, id_from=id_from)
        except AnnotatorError as error:
            problem = problem or error
        else:
            return [*found.images, *found.unreadable]
    assert problem is not None
    named = _id_of_file(path, id_)
    return [unusable(named, printable(path), problem.message.rstrip("."), problem.hint)]


def _id_of_file(path: object, otherwise: str) -> str:
    """The id of a file by its path, if it has one."""
    if not path or not isinstance(path, (str, bytes, os.PathLike)):
        return otherwise
    id_ = image_id(os.fsdecode(path))
    return otherwise if not id_ or has_controls(id_) else id_


def _read_open(file: Any) -> bytes:
    data = file.read()
    if isinstance(data, str):
        raise ImageError("a file opened as text", 'Open it with mode "rb".')
    return bytes(data)


def _given_pillow(image: Image.Image, id_: str) -> GivenImage:
    named = _id_of_file(getattr(image, "filename", None), id_)
    try:
        path = _own_file(image)
        if path is not None:
            (ref,) = find_images(path).images
            return GivenImage(ref)
        data = _own_bytes(image)
        if data is not None:
            return _Held(named, lambda: data)
        check_size(*image.size, MAX_PIXELS)
        image.load()
    except ImageError as error:
        return GivenImage(unusable(named, named, error.message, error.hint))
    except Exception as error:
        reason = f"cannot be read by Pillow ({type(error).__name__})"
        return GivenImage(unusable(named, named, reason, "Open it again."))
    return _Held(named, lambda: _lossless(_frame_of_pillow(image)))


def _own_file(image: Image.Image) -> str | None:
    """The path of the file that an image was opened from, if that is what the image still is."""
    path = getattr(image, "filename", None)
    if not path or not isinstance(image, ImageFile.ImageFile) or image.tell() != 0:
        return None
    path = os.fsdecode(path)
    if not os.path.isfile(path):  # noqa: PTH113
        return None
    with Image.open(path) as again:
        is_untouched = bool(image.tile) and (again.size, again.mode) == (image.size, image.mode)
        return path if is_untouched or again == image else None


def _own_bytes(image: Image.Image) -> bytes | None:
    """The file in memory that an image was opened from, if nothing has been read of it."""
    file = getattr(image, "fp", None)
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.tell() != 0:
        return None
    if file is None:
        return None
    position = file.tell()
    file.seek(0)
    data = bytes(file.read())
    file.seek(position)
    return data


def _frame_of_pillow(image: Image.Image) -> Frame:
    frame = frame_of_image(image)
    return Frame(upright(frame.picture, image.getexif().get(_EXIF_ORIENTATION, 1)), frame.notes)


def _array_of(thing: Any) -> NDArray[Any] | None:
    """An array, a tensor with its channels moved last, or anything that NumPy converts."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(thing, torch.Tensor):
        tensor = thing.detach().cpu()
        array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        is_first = array.ndim in (3, 4) and array.shape[-3] in _CHANNELS
        return np.moveaxis(array, -3, -1) if is_first else array
    if hasattr(thing, "iloc") and getattr(thing, "ndim", 1) == 2:
        raise TypeError("A table is no image. Give its column of paths, such as table['path'].")
    return np.asarray(thing) if hasattr(thing, "__array__") else None


def _frame_of_array(array: NDArray[Any]) -> Frame:
    """See the module.

    Raises:
        ImageError: The array is no image, or too large.
    """
    shape = "[" + ", ".join(map(str, array.shape)) + "]"
    channels = array.shape[2] if array.ndim == 3 else 0
    if (
        array.ndim not in (2, 3)
        or channels not in (0, *_CHANNELS)
        or array.dtype.kind not in "biuf"
    ):
        message = f"an array {array.dtype}{shape} is no image"
        first = array.ndim == 3 and array.shape[0] in _CHANNELS
        hint = "Move its channels last: array.transpose(1, 2, 0)." if first else _SHAPES
        raise ImageError(message, hint, "unsupported")
    check_size(array.shape[1], array.shape[0], MAX_PIXELS)
    values = _levels(array, is_picture=channels > 0)
    if channels == 1:
        values = values[..., 0]
    if channels < 4:
        return frame_of(values)
    if values.dtype.kind != "u":
        raise ImageError(f"a fourth channel of {array.dtype} is no opacity", _SHAPES, "unsupported")
    return frame_of(values[..., :3].copy(), values[..., 3])  # it may be overwritten


def _levels(array: NDArray[Any], *, is_picture: bool) -> NDArray[Any]:
    """Booleans and, in a picture with channels, fractions of white as uint8; others as they are."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind != "f":
        return array
    if is_picture and array.min() >= 0 and array.max() <= 1:
        return np.rint(array * np.float32(255)).astype(np.uint8)
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def _lossless(frame: Frame) -> bytes:
    """A picture of 8 bits as a TIFF, uncompressed, which is quick."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(frame.picture)).save(file, "TIFF")  # without metadata
    return file.getvalue()


def _dicom_file(dataset: Dataset) -> bytes:
    from pydicom import dcmwrite

    meta = getattr(dataset, "file_meta", None)
    known = meta is not None and "TransferSyntaxUID" in meta
    file = io.BytesIO()
    if known or dataset.original_encoding != (None, None):
        dcmwrite(file, dataset)
    else:  # made by a program
        dcmwrite(file, dataset, implicit_vr=False, little_endian=True)
    return file.getvalue()


def _named(thing: object) -> str:
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
