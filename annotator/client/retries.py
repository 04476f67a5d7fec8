"""When a request is sent again: the service is busy, shutting down or away.

Waits grow exponentially with jitter ("Exponential Backoff And Jitter", AWS Architecture Blog,
2015), unless the service says by Retry-After (RFC 9110, section 10.2.3) how long to wait.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from annotator.client.calls import Call
from annotator.client.errors import ImageChanged, ServiceError, ServiceProblem

_BUSY = (429, 503)  # nothing was done
_OF_A_PROXY = (502, 504)  # something may have been
_FIRST_S = 0.5
_LONGEST_S = 8.0
_PROBLEM = "application/problem+json"


class Retries:
    """The attempts at one call.

    Args:
        call: The call.
        patience_s: How long to wait at most, over all waits.
        jitter: Of 0 to 1.
    """

    def __init__(
        self,
        call: Call[Any],
        patience_s: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._call = call
        self._left_s = patience_s
        self._next_s = _FIRST_S
        self._jitter = jitter

    def after(self, answer: httpx.Response) -> float | None:
        """Seconds to wait before the call is sent again; None if the answer is one of success.

        Raises:
            ServiceProblem: The service refuses the call, or is busy for longer than the patience.
            ServiceError: The answer is none of the service's.
        """
        if answer.is_success:
            return None
        again = answer.status_code in _BUSY
        again |= self._call.repeatable and answer.status_code in _OF_A_PROXY
        wait = self._wait(_retry_after(answer)) if again else None
        if wait is None:
            raise _problem(answer)
        return wait

    def after_failure(self, error: httpx.TransportError) -> float:
        """Seconds to wait before the call is sent again, when there was no answer.

        Raises:
            ServiceError: It may not be sent again, or the patience is at an end.
        """
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        timed_out = isinstance(error, httpx.ReadTimeout)
        may = unsent or (self._call.repeatable and not timed_out)
        wait = self._wait(None) if may else None
        if wait is not None:
            return wait
        hint = "See whether it runs, and whether the address is right."
        if timed_out:
            hint = "Send less at once, or give the client a longer timeout_s."
        elif not unsent and not self._call.repeatable:
            hint = "It is not known whether the change was made: look at the image."
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ServiceError(f"The service did not answer ({what}).", hint) from error

    def _wait(self, asked_s: float | None) -> float | None:
        wait = self._next_s * (0.5 + self._jitter() / 2)
        if asked_s is not None:
            wait = asked_s + self._jitter() * 0.1 * asked_s  # no sooner; and not all at once
        if wait > self._left_s:
            return None
        self._next_s = min(2 * self._next_s, _LONGEST_S)
        self._left_s -= wait
        return wait


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds to wait by an answer's Retry-After; None where it has none that can be read."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    with contextlib.suppress(ValueError, TypeError):
        until = parsedate_to_datetime(text)
        return max(0.0, (until.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds())
    return None


def _problem(answer: httpx.Response) -> ServiceError:
    request_id = answer.headers.get("x-request-id", "")
    problem: Any = None
    if answer.headers.get("content-type", "").startswith(_PROBLEM):
        with contextlib.suppress(ValueError):
            problem = answer.json()
    if not isinstance(problem, dict):
        return ServiceError(
            f"{answer.url.host} answered {answer.status_code} {answer.reason_phrase}, "
            "and not as annotator does.",
            "Check the address, and what stands between.",
        )
    kind = ImageChanged if problem.get("code") == "image_changed" else ServiceProblem
    return kind(problem, request_id)
