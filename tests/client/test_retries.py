"""When a client asks again, and how long it waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from annotator.client import ImageChanged, ServiceError, ServiceProblem
from annotator.client.calls import Call, info, relabel
from annotator.client.retries import Retries

PROBLEM = "application/problem+json"
CORRECTION = relabel("a", '"1"', ["C1"], [], [], "")
LOST = (httpx.ReadError("gone"), httpx.RemoteProtocolError("cut"))


def answer(status: int, code: str = "overloaded", **headers: str) -> httpx.Response:
    body = {"status": status, "code": code, "detail": "It is busy.", "hint": "Wait."}
    headers = {"content-type": PROBLEM, "x-request-id": "a1"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    request = httpx.Request("GET", "http://host/v1/info")
    return httpx.Response(status, json=body, headers=headers, request=request)


def retries(call: Call[object] = info(), patience_s: float = 30.0) -> Retries:  # type: ignore[assignment] # noqa: B008
    return Retries(call, patience_s, jitter=lambda: 1.0)


def test_waits_grow_until_the_patience_is_at_an_end() -> None:
    tried, waits = retries(), []
    with pytest.raises(ServiceProblem) as caught:
        while True:
            waits.append(tried.after(answer(429)))
    assert waits == [0.5, 1, 2, 4, 8, 8]  # and not 8 more
    assert (caught.value.status, caught.value.code) == (429, "overloaded")
    assert (caught.value.message, caught.value.hint) == ("It is busy.", "Wait.")
    assert caught.value.request_id == "a1"


def test_waits_are_jittered() -> None:
    for jitter, wait in ((0.0, 0.25), (1.0, 0.5)):
        assert Retries(info(), 30, lambda jitter=jitter: jitter).after(answer(503)) == wait


@pytest.mark.parametrize("status", [429, 503])
def test_the_service_says_how_long_to_wait(status: int) -> None:
    assert retries().after(answer(status, retry_after="5")) == 5.5
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    wait = retries(patience_s=100).after(answer(status, retry_after=until))
    assert wait is not None and 0 <= wait <= 22
    assert retries().after(answer(status, retry_after="Mon, 01 Jan 2001 00:00:00 GMT")) == 0
    for odd in ("soon", "-1", "1.5", ""):
        assert retries().after(answer(status, retry_after=odd)) == 0.5
    with pytest.raises(ServiceProblem):
        retries().after(answer(status, retry_after="31"))


def test_refusals_and_successes_are_not_repeated() -> None:
    assert retries().after(httpx.Response(200)) is None
    for status in (400, 401, 403, 404, 409, 413, 415, 422, 428, 500):
        with pytest.raises(ServiceProblem):
            retries().after(answer(status))
    body = {"code": "image_changed", "present": {"etag": '"2"', "concepts": ["C2"]}}
    changed = httpx.Response(412, json=body, headers={"content-type": PROBLEM})
    with pytest.raises(ImageChanged) as caught:
        retries().after(changed)
    assert (caught.value.etag, caught.value.concepts) == ('"2"', ["C2"])


def test_what_may_have_been_done_is_not_done_twice() -> None:
    assert retries(CORRECTION).after(answer(503)) == 0.5  # the service says that it was not
    for error in (httpx.ConnectError("refused"), httpx.ConnectTimeout("slow")):
        assert retries(CORRECTION).after_failure(error) == 0.5
    for error in LOST:
        assert retries().after_failure(error) == 0.5
        with pytest.raises(ServiceError, match="did not answer") as caught:
            retries(CORRECTION).after_failure(error)
        assert "not known whether the change was made" in caught.value.hint
    assert retries().after(answer(502)) == 0.5
    with pytest.raises(ServiceProblem):
        retries(CORRECTION).after(answer(502))
    with pytest.raises(ServiceError) as caught:  # it would take as long again
        retries().after_failure(httpx.ReadTimeout("slow"))
    assert "timeout_s" in caught.value.hint


def test_what_answers_may_be_something_else() -> None:
    request = httpx.Request("GET", "http://host/v1/info")
    for page in (
        httpx.Response(404, html="<h1>nginx</h1>", request=request),
        httpx.Response(404, content=b"[]", headers={"content-type": PROBLEM}, request=request),
    ):
        with pytest.raises(ServiceError, match="host answered 404 Not Found") as caught:
            retries().after(page)
        assert not isinstance(caught.value, ServiceProblem)
    with pytest.raises(ServiceError, match="sends no JSON"):
        info().read(httpx.Response(200, html="<h1>nginx</h1>", request=request))
