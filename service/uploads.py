"""Streaming upload of images: a multipart form (RFC 7578) or a raw body.

Starlette's own form parser spools files over 1 MiB to disk, does not bound the bytes of files,
cannot refuse a file at its beginning, and takes a step of Python for each byte of hostile bodies,
during which nobody else is answered.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from service.admission import Ticket
from service.problems import Problem, client_closed
from service.settings import Settings

_MAX_PART_HEADERS = 16
_MAX_PART_HEADER_BYTES = 4096
_MAX_BOUNDARY = 256
_MAX_PADDING = 64  # spaces and tabs behind a boundary
_MAX_CONTENT_TYPE = 1024  # to parse longer ones takes a time that grows with their square
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
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


def content_type_of(headers: Headers) -> tuple[str, dict[bytes, bytes]]:
    """Media type, in lower case, and parameters of the Content-Type; of a long one without them."""
    given = headers.get("content-type", "")
    if len(given) > _MAX_CONTENT_TYPE:
        given = given.partition(";")[0]
    media_type, options = parse_options_header(given)
    return media_type.decode("latin-1"), options


async def read_uploads(request: Request, settings: Settings, ticket: Ticket) -> list[Upload]:
    """Read the images of a request.

    Returns:
        At least one file.

    Raises:
        Problem: 400 malformed, 408 too slow, 413 too large or too many images, 415 a content type
            that holds no image, 429 no room for so many images, 499 the client left.
    """
    content_type, options = content_type_of(request.headers)
    async with body_chunks(request, settings, ticket) as body:
        if content_type == "multipart/form-data":
            reader = MultipartReader(
                options.get(b"boundary", b""),
                settings.images_per_request,
                lambda n: ticket.hold(images=n),
            )
            async for chunk in body:
                reader.write(chunk)
            return reader.close()
        if _is_image_type(content_type):
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
    """Parser of multipart/form-data (RFC 7578, RFC 2046) that collects the files.

    Delimiters are found by a regular expression that begins with a fixed text, so a byte takes a
    nanosecond whatever it is, and only delimiters and part headers are looked at one by one, which
    are few. A line of a file that begins with the boundary and is no delimiter ends the form: by
    RFC 2046, 5.1.1, no part may have one.

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
        self._filename = ""
        self._chunks: list[bytes] = []
        if not boundary:
            raise _malformed("its Content-Type has no boundary")
        if len(boundary) > _MAX_BOUNDARY:
            raise _malformed("its boundary is too long")
        line, padding = rb"--" + re.escape(boundary), rb"[ \t]{0,%d}" % _MAX_PADDING
        whole, begun = rb"(--|%b\r\n)" % padding, rb"(-?\Z|%b\r?\Z)" % padding
        self._first = re.compile(line + whole)
        self._delimiter = re.compile(rb"\r\n%b(?:%b|%b|)" % (line, whole, begun))
        self._line = len(b"\r\n--") + len(boundary)
        # A delimiter that has begun may be this long and still not be whole.
        self._longest = len(b"\r\n--\r\n") + len(boundary) + _MAX_PADDING
        self._rest = b""
        self._step: Callable[[bytes], bytes | None] | None = self._preamble

    def write(self, data: bytes) -> None:
        """Parse the next piece of the body.

        Raises:
            Problem: 400, it is malformed; 413, it holds too many files; or what `on_file` raises.
        """
        rest: bytes | None = self._rest + data
        while self._step is not None and rest is not None:
            self._rest = rest
            rest = self._step(rest)

    def close(self) -> list[Upload]:
        """Return the files, after the last piece.

        Raises:
            Problem: 400, the body is incomplete, or holds no file.
        """
        if self._step is not None:
            raise _malformed("it stops before its closing boundary")
        if not self.files:
            raise Problem(400, "no_image", "The form holds no file.", "Attach an image.")
        return self.files

    # Each step takes what has arrived and returns what is left for the next one, or keeps in
    # `_rest` what it needs to see again with more behind it, and returns None.

    def _preamble(self, data: bytes) -> bytes | None:
        """The first boundary; nothing but line ends may stand before it."""
        data = data.lstrip(b"\r\n")
        found = self._first.match(data)
        if found:
            return self._begin(data, found)
        if len(data) >= self._longest:
            raise _malformed("it does not begin with its boundary")
        self._rest = data
        return None

    def _headers(self, data: bytes) -> bytes | None:
        """The headers of a part, to the empty line."""
        if data.startswith(b"\r\n"):
            raise _malformed("a part has no Content-Disposition: form-data")
        end = data.find(b"\r\n\r\n", 0, _MAX_PART_HEADER_BYTES + 4)
        if end < 0:
            if len(data) >= _MAX_PART_HEADER_BYTES + 4:
                raise _malformed(f"the headers of a part have over {_MAX_PART_HEADER_BYTES} bytes")
            self._rest = data
            return None
        self._file_begins(_part_headers(data[:end]))
        self._step = self._content
        return data[end + 4 :]

    def _content(self, data: bytes) -> bytes | None:
        """The content of a part, to the next delimiter."""
        found = self._delimiter.search(data)
        if found is None or found[2] is not None:  # no delimiter, but one may have begun
            whole = found.start() if found else max(0, len(data) - self._line + 1)
            self._chunks.append(data[:whole])
            self._rest = data[whole:]
            return None
        if found[1] is None:
            raise _malformed("a line begins with its boundary, and goes on otherwise")
        self._chunks.append(data[: found.start()])
        self._file_ends()
        return self._begin(data, found)

    def _begin(self, data: bytes, delimiter: re.Match[bytes]) -> bytes | None:
        """Whatever a delimiter is followed by: a part, or the end."""
        if delimiter[1] == b"--":
            self._step, self._rest = None, b""
            return None
        self._parts += 1
        if self._parts > self._max_files:
            raise Problem(
                413,
                "too_many_images",
                f"A request holds at most {self._max_files} images.",
                "Send the rest in further requests.",
            )
        self._step = self._headers
        return data[delimiter.end() :]

    def _file_begins(self, headers: Mapping[bytes, bytes]) -> None:
        disposition, options = parse_options_header(headers.get(b"content-disposition"))
        if disposition != b"form-data":
            raise _malformed("a part has no Content-Disposition: form-data")
        content_type, _ = parse_options_header(headers.get(b"content-type"))
        if b"filename" not in options and not _is_image_type(content_type.decode("latin-1")):
            raise Problem(
                400,
                "not_a_file",
                "A part of the form is not a file.",
                "Send files alone (`curl -F image=@FILE`); options such as k belong to the query.",
            )
        self._filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._on_file(len(self.files) + 1)

    def _file_ends(self) -> None:
        data = b"".join(self._chunks)
        self._chunks = []
        if data or self._filename:  # browsers send neither for a field that was left empty
            self.files.append(Upload(self._filename, data))


def _part_headers(block: bytes) -> dict[bytes, bytes]:
    """The headers of a part by name in lower case.

    Raises:
        Problem: 400, there are too many, or a line is none.
    """
    lines = block.split(b"\r\n")
    if len(lines) > _MAX_PART_HEADERS:
        raise _malformed(f"a part has over {_MAX_PART_HEADERS} headers")
    headers = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise _malformed("a header of a part is none")
        headers[found[1].lower()] = found[2]
    return headers


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
