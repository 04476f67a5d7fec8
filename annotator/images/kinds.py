"""Recognition of file formats by content: the images that are read, and names for other files."""

from __future__ import annotations

from annotator.errors import ImageError
from annotator.images.dicom import looks_like_dicom

_FETCH_HINT = "Fetch or export the image again."
_CONVERT_HINT = "Convert it to PNG, or leave it out."
_UNPACK_HINT = "Unpack it, and give the images inside."
_VOLUME_HINT = "Convert it to NIfTI (.nii.gz), or leave it out."

_MAGIC = (
    (b"\xff\xd8\xff\xf7", ""),  # JPEG-LS, which is named below
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),  # a codestream without the boxes of a file
)
_AVIF_BRANDS = (b"avif", b"avis")
# Some programs write a newline, or the byte order mark of their source, before an image.
_LEADING = b"\xef\xbb\xbf \t\r\n"

# Files of other kinds that are met among images: first bytes, what they are, what to do.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive", _UNPACK_HINT),
    (b"PK\x05\x06", "an empty zip archive", _FETCH_HINT),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK_HINT),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK_HINT),
    (b"\x1f\x8b", "a gzip file other than NIfTI", "Decompress it with gunzip."),
    (b"BZh", "a bzip2 file", "Decompress it with bunzip2."),
    (b"\xfd7zXZ\0", "an xz file", "Decompress it with unxz."),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "Decompress it with unzstd."),
    (
        b"version https://git-lfs",
        "a git-lfs pointer, not the image",
        "Fetch the images with: git lfs pull",
    ),
    (b"%PDF", "a PDF document", "Extract its images, for example with pdfimages."),
    (b"%!PS", "a PostScript document", _CONVERT_HINT),
    (b"8BPS", "a Photoshop document", _CONVERT_HINT),
    (b"\xff\xd8\xff\xf7", "a JPEG-LS image", _CONVERT_HINT),
    (b"\xff\x0a", "a JPEG XL image", _CONVERT_HINT),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", _CONVERT_HINT),
    (b"II\xbc\x01", "a JPEG XR image", _CONVERT_HINT),
    (b"\0\0\x01\0", "a Windows icon", _CONVERT_HINT),
    (b"\0\x05\x16\x07", "a macOS resource file (AppleDouble)", "Leave it out."),
    (b"\0\0\0\x01Bud1", "a macOS folder file (.DS_Store)", "Leave it out."),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _CONVERT_HINT),
    (b"CDF", "a netCDF file", _CONVERT_HINT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT_HINT),
    (b"MATLAB 5.0", "a MATLAB file", _CONVERT_HINT),
    (b"SIMPLE  =", "a FITS image", _CONVERT_HINT),
    (b"NRRD", "an NRRD volume", _VOLUME_HINT),
    (b"ObjectType =", "a MetaImage header", _VOLUME_HINT),
    (b"NDims =", "a MetaImage header", _VOLUME_HINT),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video", _CONVERT_HINT),
    (b"PAR1", "a Parquet file", "Give it as a table of images."),
)
_NETPBM = tuple(b"P%d%c" % (n, space) for n in range(1, 8) for space in b" \t\r\n")
# ISO base media files (ISO 14496-12), by the major brand.
_BRANDS = {
    b"heic": "a HEIC image", b"heix": "a HEIC image", b"heim": "a HEIC image",
    b"heis": "a HEIC image", b"hevc": "a HEIC image", b"hevx": "a HEIC image",
    b"mif1": "a HEIC image", b"msf1": "a HEIC image",
}  # fmt: skip
# Text, by its start in lower case and without white space.
_TEXTS: tuple[tuple[str, str, str], ...] = (
    ("<!doctype html", "an HTML page, not an image", ""),
    ("<html", "an HTML page, not an image", ""),
    ("<svg", "an SVG drawing", _CONVERT_HINT),
    ("<?xml", "an XML document, not an image", ""),
    ("{", "a JSON document, not an image", ""),
    ("[", "a JSON document, not an image", ""),
    ("data:image/", "an image as base64 text", "Decode the base64 text to a file."),
    ("/9j/", "an image as base64 text", "Decode the base64 text to a file."),
    ("ivborw0kggo", "an image as base64 text", "Decode the base64 text to a file."),
)
_PAGE_HINT = "It may be the error page of a failed download: fetch the image again."


def recognise(data: bytes) -> tuple[str, bytes]:
    """Name the format of an image file by its first bytes.

    Returns:
        The format, and the image: ``data``, less white space or a byte order mark before it.

    Raises:
        ImageError: The file is empty or no image that is read; the message says what it is where
            that can be told.
    """
    if not data:
        raise ImageError("empty file", "Fetch or export it again.", "empty")
    kind = _kind(data)
    if kind is None and data[:1] in _LEADING:
        stripped = data.lstrip(_LEADING)
        kind = _by_magic(stripped)
        data = stripped if kind is not None else data
    if kind is None:
        raise _refusal(data)
    return kind, data


def _kind(data: bytes) -> str | None:
    if data[128:132] == b"DICM":  # whose preamble may be the start of a TIFF
        return "DICOM"
    if (kind := _by_magic(data)) is not None:
        return kind
    if data.startswith(b"BM"):
        return "BMP"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and any(brand in _brands(data) for brand in _AVIF_BRANDS):
        return "AVIF"
    if is_nifti(data) or (data.startswith(b"\x1f\x8b") and is_nifti(_inflated_head(data))):
        return "NIfTI"
    return "DICOM" if looks_like_dicom(data[:132]) else None


def _by_magic(data: bytes) -> str | None:
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None) or None


def is_nifti(head: bytes) -> bool:
    """Whether a file is NIfTI, in one part or (nifti1.h, "ni1") the header of two."""
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _inflated_head(data: bytes) -> bytes:
    """The first bytes of a gzip file; none if it is corrupt."""
    import zlib

    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data[:4096], 540)
    except zlib.error:
        return b""


def _brands(data: bytes) -> list[bytes]:
    """The major and the compatible brands of an ISO base media file (ISO 14496-12, 4.3)."""
    size = min(int.from_bytes(data[:4], "big"), 1024)
    return [data[8:12], *(data[i : i + 4] for i in range(16, size - 3, 4))]


def _refusal(data: bytes) -> ImageError:
    """The error for a file that is not read: what it is, where that can be told."""
    what, hint = _name(data)
    if not what:
        what = "not a JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, JPEG 2000, NIfTI or DICOM image"
    return ImageError(what, hint or _CONVERT_HINT, "unknown_format")


def _name(data: bytes) -> tuple[str, str]:
    """What a file that is no image is, and a hint; "" for either where there is nothing to say."""
    for magic, what, hint in _OTHERS:
        if data.startswith(magic):
            return what, hint
    if data.startswith(_NETPBM):
        return "a Netpbm image (PBM, PGM, PPM or PAM)", _CONVERT_HINT
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "an MP4 or QuickTime file"), _CONVERT_HINT
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "an AVI video", _CONVERT_HINT
    if data[257:262] == b"ustar":
        return "a tar archive", _UNPACK_HINT
    if int.from_bytes(data[:4], "little") == 348 or int.from_bytes(data[:4], "big") == 348:
        return "the header of an Analyze 7.5 volume", _VOLUME_HINT
    head = data[:4096]
    if not any(head):
        return "only zero bytes", _FETCH_HINT
    return _name_of_text(head)


def _name_of_text(head: bytes) -> tuple[str, str]:
    """What a text is by its first bytes; "" for what is not text."""
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if wide else "utf-8-sig", "replace").lstrip().lower()
    if "<svg" in text and text.startswith("<"):
        return "an SVG drawing", _CONVERT_HINT
    for start, what, hint in _TEXTS:
        if text.startswith(start):
            return what, hint or _PAGE_HINT
    # One character may be cut off at the end.
    printable = all(c.isprintable() or c in "\t\r\n\f" for c in text[:-1]) and "�" not in text[:-1]
    return ("plain text, not an image", _PAGE_HINT) if printable else ("", "")
