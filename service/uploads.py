"""Streaming upload of images: a multipart form (RFC 7578) or a raw body.

Starlette's own form parser spools files over 1 MiB to disk, does not bound the bytes of files, and
cannot refuse a file at its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from service.admission import Ticket
from service.problems import Problem, client_closed
from service.settings import Settings

_MAX_PART_HEADERS = 16
_MAX_PART_HEADER_BYTES = 4096
_IMAGE_TYPES = ("application/dicom", "application/octet-stream")


@dataclass(frozen=True)
class Upload:
    """An uploaded file; its name is the client's, or empty."""

    filename: str
    data: bytes


def announced_size(headers: Headers, settings: Settings) -> int:
    """The Content-Length, or 0 where the body comes in chunks.

    Raises:
        Problem: 413, it is over the limit.
    """
    text = headers.get("content-length", "0")
    size = int(text) if text.isascii() and text.isdigit() else 0
    if size > settings.upload_bytes:
        raise _too_large(settings)
    return size


async def read_uploads(request: Request, settings: Settings, ticket: Ticket) -> list[Upload]:
    """Read the images of a request.

    Returns:
        At least one file.

    Raises:
        Problem: 400 malformed, 408 too slow, 413 too large or too many images, 415 a content type
            that holds no image, 429 no room for so many images, 499 the client left.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    async with body_chunks(request, settings, ticket) as body:
        if content_type == b"multipart/form-data":
            reader = MultipartReader(
                options.get(b"boundary", b""),
                settings.images_per_request,
                lambda n: ticket.hold(images=n),
            )
            async for chunk in body:
                reader.write(chunk)
            return reader.close()
        if _is_image_type(content_type.decode("latin-1")):
            data = b"".join([chunk async for chunk in body])
            if not data:
                raise Problem(400, "no_image", "The body is empty.", "Send an image.")
            return [Upload("", data)]
    raise Problem(
        415,
        "unsupported_media_type",
        "The Content-Type is none that holds images.",
        "Send multipart/form-data, image/*, application/dicom or application/octet-stream.",
    )


@asynccontextmanager
async def body_chunks(
    request: Request, settings: Settings, ticket: Ticket
) -> AsyncIterator[AsyncIterator[bytes]]:
    """The body of a request, whose size is counted and whose time is limited in the block.

    Raises:
        Problem: 408 too slow, 413 too large, 415 compressed, 429 no room, 499 the client left.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_encoding", "The body is compressed.", "Send it as it is.")
    try:
        async with asyncio.timeout(settings.read_timeout_s):
            yield _counted_chunks(request, settings, ticket)
    except ClientDisconnect:
        raise client_closed() from None
    except TimeoutError:
        raise Problem(
            408,
            "request_timeout",
            f"The request did not arrive within {settings.read_timeout_s:g} seconds.",
            "Send fewer or smaller images at once.",
            {"Connection": "close"},
        ) from None


async def _counted_chunks(
    request: Request, settings: Settings, ticket: Ticket
) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > settings.upload_bytes:
            raise _too_large(settings)
        ticket.hold(size=size)
        yield chunk


def _too_large(settings: Settings) -> Problem:
    return Problem(
        413,
        "body_too_large",
        f"The request is larger than {settings.max_upload_mb} MiB.",
        "Send fewer images at once, or scale them down.",
    )


class MultipartReader:
    """Parser of multipart/form-data that collects the files.

    Args:
        boundary: The boundary in the Content-Type.
        max_files: Limit on the number of parts.
        on_file: Called with the number of files whenever one begins; may refuse it by raising.

    Raises:
        Problem: 400, the boundary is malformed.
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
                max_header_count=_MAX_PART_HEADERS,
                max_header_size=_MAX_PART_HEADER_BYTES,
            )
        except FormParserError:
            raise _malformed("its boundary is too long") from None

    def write(self, data: bytes) -> None:
        """Parse the next piece of the body.

        Raises:
            Problem: 400, it is malformed; 413, it holds too many files; or what `on_file` raises.
        """
        try:
            self._parser.write(data)
        except FormParserError:
            raise _malformed("it does not follow RFC 7578") from None

    def close(self) -> list[Upload]:
        """Return the files, after the last piece.

        Raises:
            Problem: 400, the body is incomplete, or holds no file.
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
        if b"filename" not in options and not _is_image_type(content_type.decode("latin-1")):
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


def _is_image_type(content_type: str) -> bool:
    """Whether a media type (without parameters, lower case) may be that of an image."""
    return content_type.startswith("image/") or content_type in _IMAGE_TYPES
