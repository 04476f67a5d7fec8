"""Images as browsers show them: their own files, or a picture of what browsers cannot show."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from annotator.errors import ImageError
from annotator.images.decode import show
from annotator.images.kinds import recognise
from annotator.images.ref import ImageRef

_EXTENSIONS = {
    "JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WebP": ".webp", "BMP": ".bmp", "AVIF": ".avif",
}  # fmt: skip
_HEAD = 512  # bytes that tell the format of a file
_SIDE = 1024  # pixels of the longer side of a rendered picture
_QUALITY = 90


@dataclass(frozen=True)
class Viewable:
    """An image that browsers show.

    Attributes:
        path: Absolute path of the file, if the image is one that browsers show; else None.
        data: The content of a file that browsers show, where there is no such path.
        extension: Of that file, such as ".jpg".
    """

    path: Path | None
    data: bytes = b""
    extension: str = ""


def viewable(ref: ImageRef) -> Viewable:
    """An image as browsers show it.

    DICOM, NIfTI, TIFF, JPEG 2000 and PNG of 16 bits a sample are rendered as a JPEG of at most 1024
    pixels a side. An image that is no file of its own (a row of Parquet, an object in a store)
    comes as the bytes that it has there.

    Raises:
        ImageError: It cannot be read.
    """
    path = Path(ref.where)
    is_file = path.is_file()
    if is_file:
        try:
            with path.open("rb") as file:
                data = file.read(_HEAD)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}") from error
    else:
        data = ref.read()
    if extension := _extension(data):
        return Viewable(path.absolute()) if is_file else Viewable(None, data, extension)
    made = io.BytesIO()
    picture = show(ref.read() if is_file else data, side=_SIDE).picture
    picture.save(made, "JPEG", quality=_QUALITY)
    return Viewable(None, made.getvalue(), ".jpg")


def _extension(data: bytes) -> str:
    """The extension of a file that browsers show, by its first bytes; "" for another one."""
    try:
        kind, image = recognise(data)
    except ImageError:
        return ""
    if len(image) != len(data):  # something stands before it
        return ""
    is_deep = kind == "PNG" and data[24:25] == b"\x10"  # its header has the depth there
    return "" if is_deep else _EXTENSIONS.get(kind, "")
