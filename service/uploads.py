"""The images of a request: a multipart form or a raw body, counted while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.requests import Request

from service.middleware.admission import Ticket
from service.multipart import MultipartReader, Upload, is_image_type
from service.problems import Problem
from service.settings import Settings


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
    """Read the body.

    Returns:
        At least one file.

    Raises:
        Problem: 400 malformed, 408 too slow, 413 too large or too many images, 415 a content type
            that holds no image, 429 no room for so many images.
        ClientDisconnect: The client went away.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_encoding", "The body is compressed.", "Send it as it is.")
    body = _counted(request, settings, ticket)
    try:
        async with asyncio.timeout(settings.read_timeout_s):
            if content_type == b"multipart/form-data":
                reader = MultipartReader(
                    options.get(b"boundary", b""),
                    settings.images_per_request,
                    lambda n: ticket.hold(images=n),
                )
                async for chunk in body:
                    reader.write(chunk)
                return reader.close()
            if is_image_type(content_type.decode("latin-1")):
                data = b"".join([chunk async for chunk in body])
                if not data:
                    raise Problem(400, "no_image", "The body is empty.", "Send an image.")
                return [Upload("", data)]
    except TimeoutError:
        raise Problem(
            408,
            "request_timeout",
            f"The request did not arrive within {settings.read_timeout_s:g} seconds.",
            "Send fewer or smaller images at once.",
            {"Connection": "close"},
        ) from None
    raise Problem(
        415,
        "unsupported_media_type",
        "The Content-Type is none that holds images.",
        "Send multipart/form-data, image/*, application/dicom or application/octet-stream.",
    )


async def _counted(request: Request, settings: Settings, ticket: Ticket) -> AsyncIterator[bytes]:
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
