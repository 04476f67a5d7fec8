from __future__ import annotations

import pytest

from service.admission import Admission
from service.problems import Problem


def test_a_request_holds_its_room_until_it_is_done() -> None:
    admission = Admission(max_images=3, max_bytes=100)
    with admission.enter(announced=60) as ticket:
        ticket.hold(images=2, size=30)  # less than announced: nothing more is taken
        assert (admission.images, admission.bytes) == (2, 60)
        with admission.enter() as other:
            with pytest.raises(Problem, match="overloaded"):
                other.hold(images=2)
            with pytest.raises(Problem, match="overloaded"):
                other.hold(size=41)
            other.hold(size=40)
            assert (admission.images, admission.bytes) == (3, 100)
        with pytest.raises(Problem) as caught, admission.enter(announced=41):
            pass
        assert caught.value.status == 429 and caught.value.headers["Retry-After"] == "1"
    assert (admission.images, admission.bytes) == (0, 0)


def test_what_fails_gives_its_room_back() -> None:
    admission = Admission(max_images=1, max_bytes=100)
    for _ in range(3):
        with pytest.raises(RuntimeError), admission.enter(announced=90):
            raise RuntimeError
    assert (admission.images, admission.bytes) == (0, 0)
