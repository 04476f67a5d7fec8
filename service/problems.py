"""Error responses: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from annotator.errors import ImageError, ImageFault

MEDIA_TYPE = "application/problem+json"

# RFC 9110's names, where Python's differ between versions; and nginx's for a client that left.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content", 499: "Client Closed Request"}

# All other faults: a known format, but the image cannot be decoded.
_IMAGE_FAULTS: Mapping[ImageFault, tuple[int, str]] = {
    "unknown_format": (415, "unknown_format"),
    "blank": (422, "blank_image"),
    "too_large": (413, "image_too_large"),
    "too_many_frames": (413, "image_too_large"),
    "too_slow": (413, "image_too_slow"),
    "unfamiliar": (422, "unfamiliar_image"),
    "no_vector": (422, "unusable_vector"),
}


class Problem(Exception):
    """The error of a request, or of one of its images.

    Args:
        status: HTTP status.
        code: Stable identifier in snake_case; also in the log and the metrics.
        detail: What was wrong, in one sentence.
        hint: What to do about it.
        headers: Headers of the response.
        more: Further members of the body (RFC 9457, section 3.2).
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "about:blank",
            "title": _TITLES.get(self.status) or HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint,
            **self.more,
        }

    def response(self) -> Response:
        body = json.dumps(self.to_dict(), ensure_ascii=False).encode()
        return Response(body, self.status, self.headers, MEDIA_TYPE)


async def send_problem(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem from a middleware, and name it in the log."""
    scope.setdefault("state", {})["code"] = problem.code
    await problem.response()(scope, receive, send)


def no_such_image(hint: str) -> Problem:
    """404: the index has no such image."""
    return Problem(404, "no_such_image", "The index has no image of this id.", hint)


def busy(detail: str) -> Problem:
    """429: no capacity; the client may try again after a second."""
    return Problem(429, "overloaded", detail, "Try again after a moment.", {"Retry-After": "1"})


def unreachable() -> Problem:
    """503: the index server is down; its address is not disclosed."""
    return Problem(
        503,
        "index_unreachable",
        "The index cannot be reached at the moment.",
        "Try again after a moment.",
        {"Retry-After": "5"},
    )


def no_encoder(name: str) -> Problem:
    """409: images where the encoder is the user's."""
    return Problem(
        409,
        "no_encoder",
        f"The index holds vectors of {name!r}, an encoder that the service cannot run on images.",
        "Encode the images with it, and send the vectors to POST /v1/annotate-vectors.",
    )


def client_closed() -> Problem:
    """499: the client left; only the log and the metrics see it."""
    return Problem(499, "client_closed_request", "The client closed the connection.")


def unusable_image(error: ImageError | MemoryError) -> Problem:
    """The problem of an undecodable image."""
    if isinstance(error, MemoryError):
        return Problem(
            413, "image_too_large", "There is not enough memory to decode it.", "Scale it down."
        )
    status, code = _IMAGE_FAULTS.get(error.code, (422, "undecodable_image"))
    return Problem(status, code, f"The image cannot be used: {error.message}.", error.hint)
