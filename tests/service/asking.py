"""Requests of the tests, and the problems in the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.testclient import TestClient

from service.schemas import ProblemOut

Draw = Callable[..., bytes]
MakeClient = Callable[..., TestClient]


def post(client: TestClient, *files: tuple[str, bytes], **options: Any) -> Any:
    """Annotate files."""
    return client.post("/v1/annotate", files=[("image", file) for file in files], **options)


def problem(answer: Any) -> tuple[int, str]:
    """Status and code of an answer that must be a well-formed problem."""
    described = ProblemOut.model_validate(answer.json())
    assert answer.headers["content-type"] == "application/problem+json"
    assert described.detail and described.hint and described.status == answer.status_code
    return answer.status_code, described.code
