from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from annotator.errors import ImageError
from annotator.images.frames import Frame, View, choose_frames, frame_indices
from annotator.images.pixels import MAX_PIXELS, MAX_TOTAL_PIXELS


class Stack:
    """A reader of frames that tell their index; those in `blank` are constant."""

    def __init__(self, n_frames: int, blank: Sequence[int], pixels: int = 16) -> None:
        self.n_frames, self.pixels = n_frames, pixels
        self._blank = frozenset(blank)
        self.read_indices: list[int] = []

    def read(self, indices: Sequence[int], view: View | None = None) -> Iterator[Frame]:
        for index in indices:
            self.read_indices.append(index)
            values = np.full((4, 4), index, np.uint8)
            if index not in self._blank:
                values[0] = 255
            yield Frame(Image.fromarray(values))


def index_of(picture: Image.Image) -> int:
    return int(np.asarray(picture)[-1, -1])


@given(st.integers(1, 10_000), st.integers(1, MAX_PIXELS), st.integers(1, 100))
def test_frame_indices(n: int, pixels: int, max_frames: int) -> None:
    assert frame_indices(n, pixels, "middle", max_frames) == [n // 2]
    indices = frame_indices(n, pixels, "all", max_frames)
    assert 1 <= len(indices) <= min(n, max_frames)
    assert len(indices) * pixels <= MAX_TOTAL_PIXELS
    assert indices[0] >= 0 and indices[-1] < n
    assert len(indices) == 1 or np.diff(indices).min() >= 1
    assert len(indices) <= 2 or np.ptp(np.diff(indices)) <= 1  # evenly spaced
    assert indices == sorted(set(indices)) and len(indices) <= max_frames


@given(st.integers(1, 120), st.data())
def test_the_nearest_frame_that_is_not_blank(n: int, data: st.DataObject) -> None:
    blank = data.draw(st.sets(st.integers(0, n - 1), max_size=n - 1))
    stack = Stack(n, sorted(blank))
    decoded = choose_frames(stack, "middle")
    (index,) = map(index_of, decoded.frames)
    shown = set(range(n)) - blank
    assert index in shown
    assert abs(index - n // 2) == min(abs(i - n // 2) for i in shown)
    replaced = n // 2 in blank
    assert decoded.notes == (("frame_replaced",) if replaced else ())
    if not replaced:
        assert stack.read_indices == [n // 2]


def test_of_all_frames_the_blank_ones_are_left_out() -> None:
    decoded = choose_frames(Stack(6, [0, 3]), "all")
    assert [index_of(frame) for frame in decoded.frames] == [1, 2, 4, 5]
    assert decoded.notes == ("frames_left_out",)
    # None of the frames that were to be used shows anything, but another one does.
    decoded = choose_frames(Stack(9, range(8)), "all", max_frames=2)
    assert [index_of(frame) for frame in decoded.frames] == [8]
    assert decoded.notes == ("frame_replaced",)


def test_blank_images_are_refused_unless_they_are_allowed() -> None:
    for frames in ("middle", "all"):
        with pytest.raises(ImageError, match="blank") as caught:
            choose_frames(Stack(3, range(3)), frames)
        assert caught.value.code == "blank" and caught.value.hint
    decoded = choose_frames(Stack(3, range(3)), "all", allow_blank=True)
    assert [index_of(frame) for frame in decoded.frames] == [0, 1, 2]
    assert decoded.notes == ("blank",)


def test_the_search_for_another_frame_is_bounded() -> None:
    stack = Stack(200, range(200), pixels=MAX_TOTAL_PIXELS // 20)
    with pytest.raises(ImageError, match="blank"):
        choose_frames(stack, "middle")
    assert len(stack.read_indices) == 1 + 20


def test_a_broken_frame_ends_the_search() -> None:
    class Broken(Stack):
        def read(self, indices: Sequence[int], view: View | None = None) -> Iterator[Frame]:
            for index, frame in zip(indices, super().read(indices), strict=True):
                if index == 7:
                    raise SyntaxError("broken")
                yield frame

    decoded = choose_frames(Broken(10, [3, 4, 5, 6]), "middle")
    assert [index_of(frame) for frame in decoded.frames] == [2]
    with pytest.raises(ImageError, match="blank"):
        choose_frames(Broken(10, range(7)), "middle")


def test_notes_of_frames_are_said_once() -> None:
    class Noted(Stack):
        def read(self, indices: Sequence[int], view: View | None = None) -> Iterator[Frame]:
            for frame in super().read(indices):
                yield Frame(frame.picture, ("window_ignored",))

    assert choose_frames(Noted(4, [2]), "middle").notes == ("frame_replaced", "window_ignored")
    assert choose_frames(Noted(4, []), "all").notes == ("window_ignored",)
