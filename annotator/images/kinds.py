"""Recognition of file formats by content: the images that are read, and names for other files."""

from __future__ import annotations

from annotator.errors import ImageError

_FETCH_HINT = "Fetch or export the image again."
_CONVERT_HINT = "Convert it to PNG, or leave it out."
_UNPACK_HINT = "Unpack it, and give the images inside."

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

# Files that are no images but lie among them: first bytes, what they are, what to do.
_NO_IMAGES: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "zip archive", _UNPACK_HINT),
    (b"PK\x05\x06", "empty zip archive", _FETCH_HINT),
    (b"7z\xbc\xaf\x27\x1c", "7z archive", _UNPACK_HINT),
    (b"Rar!\x1a\x07", "RAR archive", _UNPACK_HINT),
    (b"\x1f\x8b", "gzip file (other than NIfTI)", "Decompress it with gunzip."),
    (b"BZh", "bzip2 file", "Decompress it with bunzip2."),
    (b"\xfd7zXZ\0", "xz file", "Decompress it with unxz."),
    (b"\x28\xb5\x2f\xfd", "Zstandard file", "Decompress it with unzstd."),
    (b"version https://git-lfs", "git-lfs pointer", "Fetch the images with: git lfs pull"),
    (b"%PDF", "PDF document", "Extract its images, for example with pdfimages."),
    (b"%!PS", "PostScript document", _CONVERT_HINT),
    (b"\0\x05\x16\x07", "macOS resource file (AppleDouble)", "Leave it out."),
    (b"\0\0\0\x01Bud1", "macOS folder file (.DS_Store)", "Leave it out."),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file", _CONVERT_HINT),
    (b"CDF", "netCDF file", _CONVERT_HINT),
    (b"\x93NUMPY", "NumPy array", _CONVERT_HINT),
    (b"MATLAB 5.0", "MATLAB file", _CONVERT_HINT),
    (b"\x1aE\xdf\xa3", "Matroska or WebM video", _CONVERT_HINT),
    (b"PAR1", "Parquet file", "Give it as a table of images."),
)
# Images of formats that are not read.
_UNREAD: tuple[tuple[bytes, str], ...] = (
    (b"8BPS", "Photoshop"),
    (b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"\0\0\x01\0", "Windows icon"),
    (b"SIMPLE  =", "FITS"),
    (b"NRRD", "NRRD"),
    (b"ObjectType =", "MetaImage"),
    (b"NDims =", "MetaImage"),
    *((b"P%d%c" % (n, space), "Netpbm") for n in range(1, 8) for space in b" \t\r\n"),
)
# Major brands of ISO base media files (ISO 14496-12) that are HEIF (ISO 23008-12, annex B).
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_PAGE_HINT = "It may be the error page of a failed download: fetch the image again."
_BASE64_HINT = "Decode the base64 text to a file."
# Text, by its start in lower case and without white space.
_TEXTS: tuple[tuple[str, str, str], ...] = (
    ("<!doctype html", "HTML page", _PAGE_HINT),
    ("<html", "HTML page", _PAGE_HINT),
    ("<?xml", "XML document", _PAGE_HINT),
    ("{", "JSON document", _PAGE_HINT),
    ("[", "JSON document", _PAGE_HINT),
    ("data:image/", "base64 text", _BASE64_HINT),
    ("/9j/", "base64 text", _BASE64_HINT),
    ("ivborw0kggo", "base64 text", _BASE64_HINT),
)
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN "
    b"UR US UT UV".split()
)


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file is DICOM, by its first 132 bytes (PS3.10, section 7.1).

    Without "DICM" after the preamble the first data element must be plausible: group 0002 or
    0008, one of its first elements, with a known VR or (implicit VR) a short even length.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    vr_is_known = head[4:6] in _VRS
    if head[:2] == b"\0\x08" and vr_is_known:  # explicit VR big endian
        return head[2] == 0 and head[3] <= 0x18
    if head[:2] not in (b"\x02\0", b"\x08\0") or head[3] != 0 or head[2] > 0x18:
        return False
    length = int.from_bytes(head[4:8], "little")
    return vr_is_known or (length <= 1024 and length % 2 == 0)


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
    unread = next((name for magic, name in _UNREAD if data.startswith(magic)), "")
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        unread = "HEIC"
    if int.from_bytes(data[:4], "little") == 348 or int.from_bytes(data[:4], "big") == 348:
        unread = "Analyze 7.5"  # the header of a volume
    if unread:
        message = f"{unread} image, a format that is not read"
        return ImageError(message, _CONVERT_HINT, "unknown_format")
    what, hint = _name(data)
    if what:
        return ImageError(f"{what}, not an image", hint, "unknown_format")
    message = "not a JPEG, PNG, TIFF, BMP, WebP, GIF, AVIF, JPEG 2000, NIfTI or DICOM image"
    return ImageError(message, _CONVERT_HINT, "unknown_format")


def _name(data: bytes) -> tuple[str, str]:
    """What a file that is no image is, and a hint; "" for both where that cannot be told."""
    for magic, what, hint in _NO_IMAGES:
        if data.startswith(magic):
            return what, hint
    if data[4:8] == b"ftyp":
        return "MP4 or QuickTime file", _CONVERT_HINT
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "AVI video", _CONVERT_HINT
    if data[257:262] == b"ustar":
        return "tar archive", _UNPACK_HINT
    if not any(data[:4096]):
        return "file of zero bytes", _FETCH_HINT
    return _name_of_text(data[:4096])


def _name_of_text(head: bytes) -> tuple[str, str]:
    """What a text is by its first bytes; "" for both for what is not text."""
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if wide else "utf-8-sig", "replace").lstrip().lower()
    text = text[:-1]  # a character that may be cut off
    if text.startswith("<") and "<svg" in text:
        return "SVG drawing", "Render it to PNG, or leave it out."
    for start, what, hint in _TEXTS:
        if text.startswith(start):
            return what, hint
    if all(c.isprintable() or c in "\t\r\n\f" for c in text) and "\ufffd" not in text:
        return "plain text", _PAGE_HINT
    return "", ""
