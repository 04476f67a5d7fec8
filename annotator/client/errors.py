"""Errors of a service, and of the way to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annotator.errors import AnnotatorError


class ServiceError(AnnotatorError):
    """The service cannot be reached, or what answers is none."""


class ServiceProblem(ServiceError):
    """The service refused a request (RFC 9457).

    Args:
        problem: The body of its answer.
        request_id: Of the request, as it is in the service's log.

    Attributes:
        status: HTTP status.
        code: Stable, for programs: docs/service.md lists all.
        problem: The whole body of the answer.
        request_id: See above.
    """

    def __init__(self, problem: Mapping[str, Any], request_id: str = "") -> None:
        super().__init__(str(problem.get("detail", "")), str(problem.get("hint", "")))
        self.status = int(problem.get("status", 0))
        self.code = str(problem.get("code", ""))
        self.problem = problem
        self.request_id = request_id


class ImageChanged(ServiceProblem):
    """Somebody else has changed an image since: nothing was done."""

    @property
    def etag(self) -> str:
        """The state of now, for another try."""
        return str(self.problem["present"]["etag"])

    @property
    def concepts(self) -> list[str]:
        """The labels of now."""
        return list(self.problem["present"]["concepts"])
