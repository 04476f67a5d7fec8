from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import drawing, wait_for
from bad_dicom import JPEG_2000, dicom
from PIL import Image
from slow_images import jpeg_2000

from annotator.errors import ImageError
from annotator.images.decode import decode, show
from annotator.images.pixels import Window
from service.decoding.processes import DecodingProcesses, DecodingTask, ProcessNeeded

MEMORY = 1 << 29


@pytest.fixture(scope="module")
def processes() -> Iterator[DecodingProcesses]:
    each = DecodingProcesses(60)
    yield each
    each.close()


def waiting(processes: DecodingProcesses) -> DecodingTask:
    task = processes.task()
    task.may_wait = True
    return task


def children() -> set[int]:
    """Processes of this one that decode, and live."""
    found = set()
    for file in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, file.read_text().split()):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"service.decoding.worker" in command:  # nothing of one that has ended
                found.add(pid)
    return found


def picture(format: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(drawing(1))).convert(mode).save(file, format, **options)
    return file.getvalue()


def compressed_dicom() -> bytes:
    stream = picture("JPEG2000", "L", no_jp2=True)
    return dicom([stream], JPEG_2000, Rows=40, Columns=48)


FILES = {
    "grey": picture("JPEG2000", "L"),
    "colours": picture("JPEG2000"),
    "tiles": jpeg_2000(1),
    "DICOM": compressed_dicom(),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_as_in_a_thread(processes: DecodingProcesses, name: str) -> None:
    data, asked = FILES[name], []

    def apart(memory: int) -> Any:
        asked.append(memory)
        return waiting(processes).decode(data, memory, frames="all", allow_blank=True)

    there = decode(data, frames="all", allow_blank=True, apart=apart)
    here = decode(data, frames="all", allow_blank=True)
    assert len(asked) == 1 and there.notes == here.notes
    for one, other in zip(there.frames, here.frames, strict=True):
        assert (one.mode, one.tobytes()) == (other.mode, other.tobytes())
    options = {"frame": 0, "window": Window(100.0, 55.5), "side": 32}
    shown = show(data, **options, apart=lambda n: waiting(processes).show(data, n, **options))
    expected = show(data, **options)
    assert shown.picture.tobytes() == expected.picture.tobytes()
    assert (shown.frame, shown.n_frames) == (0, 1)
    assert shown.levels == expected.levels and shown.notes == expected.notes
    with pytest.raises(IndexError, match="1 frames"):
        waiting(processes).show(data, MEMORY, frame=1, window=None)


def test_formats_that_threads_decode() -> None:
    for data in (picture("PNG"), picture("JPEG"), picture("TIFF"), dicom(bytes(64 * 48))):
        decode(data, allow_blank=True, apart=lambda memory: pytest.fail("asked for a process"))


def test_a_thread_that_must_not_wait(processes: DecodingProcesses) -> None:
    with pytest.raises(ProcessNeeded):
        processes.task().decode(FILES["grey"], MEMORY)


def test_a_process_outlives_bad_images(processes: DecodingProcesses) -> None:
    waiting(processes).decode(FILES["grey"], MEMORY)
    before = children()
    assert before
    for bad, code in ((b"no image", "unknown_format"), (FILES["grey"][:200], "broken")):
        with pytest.raises(ImageError) as raised:
            waiting(processes).decode(bad, MEMORY)
        assert raised.value.code == code and raised.value.hint
    with pytest.raises(ImageError, match="over the limit"):
        waiting(processes).decode(jpeg_2000(2), MEMORY, max_pixels=1000)
    assert children() == before


def test_time_and_memory_have_limits_and_a_killed_process_is_replaced() -> None:
    processes, before = DecodingProcesses(0.5), children()
    try:
        with pytest.raises(ImageError, match=r"more than 0.5 seconds") as raised:
            waiting(processes).decode(jpeg_2000(10), 2 * MEMORY)
        assert raised.value.code == "too_slow" and raised.value.hint
        small = waiting(processes).decode(FILES["grey"], MEMORY)
        assert small.frames[0].size == (48, 40)
        (process,) = children() - before
        # Less than libraries and file take.
        with pytest.raises(MemoryError):
            waiting(processes).decode(jpeg_2000(8), -(600 << 20))
        os.kill(process, 9)
        wait_for(lambda: children() == before)
        with pytest.raises(ImageError, match="crashed"):
            waiting(processes).decode(FILES["grey"], MEMORY)
        assert waiting(processes).decode(FILES["grey"], MEMORY).frames[0].size == (48, 40)
    finally:
        processes.close()
    assert children() == before


def test_a_task_can_be_cancelled_before_and_while_it_is_under_way() -> None:
    processes = DecodingProcesses(600)
    task = waiting(processes)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            task.decode(jpeg_2000(10), 2 * MEMORY)
        except ImageError as error:
            raised.append(error)

    before = children()
    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: children() - before)
    time.sleep(0.5)
    task.cancel()
    thread.join(60)
    assert len(raised) == 1 and children() == before
    with pytest.raises(ImageError):
        task.decode(FILES["grey"], MEMORY)
    assert children() == before
    processes.close()


def test_a_process_that_is_done_after_the_end_goes_with_it() -> None:
    processes = DecodingProcesses(60)
    before = children()
    processes.close()
    assert np.array(waiting(processes).decode(FILES["grey"], MEMORY).frames[0]).shape == (40, 48)
    assert children() == before
