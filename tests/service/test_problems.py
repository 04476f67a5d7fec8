from __future__ import annotations

import json
from typing import get_args

import pytest

from annotator.errors import ImageError, ImageFault
from service.problems import Problem, unusable_image


@pytest.mark.parametrize("fault", get_args(ImageFault))
def test_the_status_tells_what_was_wrong_with_an_image(fault: ImageFault) -> None:
    # The message says something else on purpose: it must not matter.
    problem = unusable_image(ImageError("not a JPEG over the limit", "Do this.", fault))
    expected = {
        "blank": (422, "blank_image"),
        "unknown_format": (415, "unknown_format"),
        "too_large": (413, "image_too_large"),
        "too_many_frames": (413, "image_too_large"),
        "too_slow": (413, "image_too_slow"),
        "no_vector": (422, "unusable_vector"),
        "unfamiliar": (422, "unfamiliar_image"),
    }
    assert (problem.status, problem.code) == expected.get(fault, (422, "undecodable_image"))
    assert problem.detail == "The image cannot be used: not a JPEG over the limit."
    assert problem.hint == "Do this."


def test_an_image_that_memory_does_not_hold() -> None:
    assert unusable_image(MemoryError()).status == 413


def test_a_problem_as_an_answer() -> None:
    answer = Problem(413, "too_large", "Ü.", headers={"Retry-After": "1"}).response()
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert json.loads(bytes(answer.body)) == {
        "type": "about:blank", "title": "Content Too Large", "status": 413, "code": "too_large",
        "detail": "Ü.", "hint": "",
    }  # fmt: skip
