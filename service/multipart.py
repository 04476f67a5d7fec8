"""Files out of a multipart/form-data body (RFC 7578), as its pieces come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.problems import Problem

_MAX_HEADERS = 16
_MAX_HEADER_BYTES = 4096
_IMAGE_TYPES = ("application/dicom", "application/octet-stream")


@dataclass(frozen=True)
class Upload:
    """An uploaded file.

    Attributes:
        filename: As the client named it; empty if it did not.
        data: Its content.
    """

    filename: str
    data: bytes


def is_image_type(content_type: str) -> bool:
    """Whether a media type (without parameters, lower case) may be that of an image."""
    return content_type.startswith("image/") or content_type in _IMAGE_TYPES


class MultipartReader:
    """Collects the files of a body.

    Args:
        boundary: From the Content-Type.
        max_files: Most parts.
        on_file: Told how many files there are whenever one begins; may refuse by raising.

    Raises:
        Problem: 400, the boundary is not one.
    """

    def __init__(self, boundary: bytes, max_files: int, on_file: Callable[[int], None]) -> None:
        self.files: list[Upload] = []
        self._max_files = max_files
        self._on_file = on_file
        self._parts = 0
        self._ended = False
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._filename = ""
        self._chunks: list[bytes] = []
        if not boundary:
            raise _malformed("its Content-Type has no boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
                max_header_count=_MAX_HEADERS,
                max_header_size=_MAX_HEADER_BYTES,
            )
        except FormParserError:
            raise _malformed("its boundary is too long") from None

    def write(self, data: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            Problem: 400, it is malformed; 413, it holds too many files; or what `on_file` raises.
        """
        try:
            self._parser.write(data)
        except FormParserError:
            raise _malformed("it does not follow RFC 7578") from None

    def close(self) -> list[Upload]:
        """The files, after the last piece.

        Raises:
            Problem: 400, the body stops before its end, or holds no file.
        """
        if not self._ended:
            raise _malformed("it stops before its closing boundary")
        if not self.files:
            raise Problem(400, "no_image", "The form holds no file.", "Attach an image.")
        return self.files

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_files:
            raise Problem(
                413,
                "too_many_images",
                f"A request holds at most {self._max_files} images.",
                "Send the rest in further requests.",
            )
        self._headers = {}
        self._name = self._value = b""
        self._chunks = []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition != b"form-data":
            raise _malformed("a part has no Content-Disposition: form-data")
        content_type, _ = parse_options_header(self._headers.get(b"content-type"))
        if b"filename" not in options and not is_image_type(content_type.decode("latin-1")):
            raise Problem(
                400,
                "not_a_file",
                "A part of the form is not a file.",
                "Send files alone (`curl -F image=@FILE`); options such as k belong to the query.",
            )
        self._filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._on_file(len(self.files) + 1)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def _part_end(self) -> None:
        data = b"".join(self._chunks)
        self._chunks = []
        if data or self._filename:  # browsers send neither for a field that was left empty
            self.files.append(Upload(self._filename, data))

    def _end(self) -> None:
        self._ended = True


def _malformed(how: str) -> Problem:
    return Problem(
        400,
        "malformed_multipart",
        f"The multipart body cannot be read: {how}.",
        "Let an HTTP library or `curl -F image=@FILE` write it.",
    )
