"""Processes that decode one image at a time, and are killed when it takes too long.

OpenJPEG, by way of Pillow, holds Python's lock while it decodes: in a thread it would stop the
whole service, for seconds, and nothing can end a thread. What `annotator.images.decode` marks so
(`FrameReader.needs_process`) is decoded here instead. A process has a limit on its CPU time and on
its memory for each image, so that a busy machine takes no image's time away; and it is killed when
the request is given up, because its time is up or its client has left. Another one takes its place
when it is needed. Libraries for pools of processes (pebble, loky) would pickle what they send.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from annotator.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

    from annotator.images.decode import Decoded, Shown

# A reader of a pipe has to get hold of Python's lock after each piece: few and large ones.
_PIPE_BYTES = 1 << 20
_VIEWER_HINT = "Open it in an image viewer to check it, and fetch or export it again."
_SMALLER_HINT = "Scale it down, or convert it to PNG."


class DecodingProcesses:
    """Processes that decode, as many as are needed at once; close it at the end.

    Args:
        cpu_seconds: CPU time that an image may take, rounded up to seconds.
    """

    def __init__(self, cpu_seconds: float) -> None:
        self._cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._ended = False

    def close(self) -> None:
        """End them, once no task is under way."""
        with self._lock:
            self._ended = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def task(self) -> DecodingTask:
        """A task for one of the processes, which can be cancelled."""
        return DecodingTask(self)

    def run(
        self, task: DecodingTask, work: Mapping[str, Any], data: bytes
    ) -> tuple[dict[str, Any], list[Image.Image]]:
        """What a process makes of a file; see `worker` for the work and what comes of it."""
        if not task.may_wait:
            raise ProcessNeeded
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or _Process()
        try:
            try:
                task.given_to(process)
                answer = process.ask({**work, "cpu_seconds": self._cpu_seconds}, data)
            finally:
                task.given_to(None)
        except (EOFError, OSError, ValueError):
            if -process.end() == signal.SIGXCPU:
                message = f"decoding it takes more than {self._cpu_seconds:g} seconds"
                raise ImageError(message, _SMALLER_HINT, "too_slow") from None
            # Or it was killed for a task that is cancelled: then nobody looks at what is raised.
            raise ImageError("its decoder has crashed", _VIEWER_HINT, "broken") from None
        except BaseException:
            process.end()
            raise
        with self._lock:
            keep = not self._ended and not task.is_cancelled
            if keep:
                self._idle.append(process)
        if not keep:
            process.end()
        match answer[0].get("raised"):
            case ["ImageError", *arguments]:
                raise ImageError(*arguments)
            case ["MemoryError"]:
                raise MemoryError
            case ["IndexError", message]:
                raise IndexError(message)
        return answer


class ProcessNeeded(Exception):
    """An image needs a process, for which this thread must not wait."""


class DecodingTask:
    """An image that may have to be decoded in a process; `cancel` ends that.

    Attributes:
        may_wait: Whether threads that need a process may wait for it; at first not.
        is_cancelled: Whether nobody wants it any more.
    """

    def __init__(self, processes: DecodingProcesses) -> None:
        self._processes = processes
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self.may_wait = self.is_cancelled = False

    def cancel(self) -> None:
        """Kill the process that is at work on it, now or later; from any thread."""
        with self._lock:
            self.is_cancelled = True
            if self._process is not None:
                self._process.kill()

    def given_to(self, process: _Process | None) -> None:
        """A process begins with it, or no process is at work on it any more."""
        with self._lock:
            self._process = process
            if process is not None and self.is_cancelled:
                process.kill()

    def decode(self, data: bytes, memory: int, **options: Any) -> Decoded:
        """`annotator.images.decode.decode` in a process; blocks.

        Args:
            data: The whole file.
            memory: The most bytes that decoding may take.
            options: Of `decode`.

        Raises:
            ImageError: As `decode`; or it takes longer than it may (too_slow), or the decoder
                crashes, or the task was cancelled.
            MemoryError: It takes more memory than it may.
            ProcessNeeded: The thread may not wait.
        """
        from annotator.images.decode import Decoded

        work = {"work": "decode", "memory": memory, "options": options}
        answer, pictures = self._processes.run(self, work, data)
        return Decoded(pictures, tuple(answer["notes"]))

    def show(self, data: bytes, memory: int, **options: Any) -> Shown:
        """`annotator.images.decode.show` in a process; blocks.

        Args:
            data: The whole file.
            memory: The most bytes that decoding may take.
            options: Of `show`.

        Raises:
            ImageError, MemoryError, ProcessNeeded: As `decode`.
        """
        from annotator.images.decode import Shown
        from annotator.images.pixels import Levels, Window

        work = {"work": "show", "memory": memory, "options": options}
        answer, (picture,) = self._processes.run(self, work, data)
        low, high, *window = answer["levels"]
        levels = Levels(low, high, Window(*window))
        return Shown(picture, answer["frame"], answer["n_frames"], levels, tuple(answer["notes"]))


class _Process:
    def __init__(self) -> None:
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "service.decoding.worker"],  # -P: not from where one is
            stdin=pipe, stdout=pipe, stderr=null,
            process_group=0,  # with the processes that it starts; and Ctrl-C is not for it
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._sink, self._source = self._process.stdin, self._process.stdout
        for file in (self._sink, self._source):
            try:
                fcntl.fcntl(file.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            except OSError:  # there is a limit on what a user's pipes hold in all
                break

    def ask(self, work: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], list[Image.Image]]:
        """Have work done on a file: the answer, and its pictures.

        Raises:
            EOFError, OSError, ValueError: The process has ended.
        """
        from PIL import Image

        self._sink.write(json.dumps({**work, "bytes": len(data)}).encode() + b"\n")
        self._sink.write(data)
        self._sink.flush()
        answer = json.loads(self._source.readline())
        pictures = []
        for mode, width, height in answer.get("pictures", ()):
            pixels = bytearray(width * height * len(mode))
            if self._source.readinto(pixels) < len(pixels):  # type: ignore[attr-defined]
                raise EOFError
            pictures.append(Image.frombytes(mode, (width, height), pixels))
        return answer, pictures

    def kill(self) -> None:
        """Kill it and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kill it unless it has ended; its exit code."""
        self.kill()
        with contextlib.suppress(BrokenPipeError):  # it ended with part of a file unread
            self._process.__exit__(None, None, None)
        return self._process.wait()
