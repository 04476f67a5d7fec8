"""The same work without a server, in a process of its own that is asked over its standard input.

    python bare.py INDEX IMAGES DEVICE

"lone N THREADS" answers with the seconds that each of N images took alone, "annotate" with those
that `Annotator.annotate` took for all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annotator.images.ref import ImageRef
    from annotator.pipeline import Annotator


class Bare:
    """The process; use as a context manager."""

    def __init__(self, index: Path, images: Path, device: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(index), str(images), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()  # it is ready

    def __enter__(self) -> Bare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, where: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def lone(self, n: int, threads: int) -> list[float]:
        """Seconds of each of n images: decode, embed, search, vote, with so many threads."""
        seconds: list[float] = self._ask(f"lone {n} {threads}")
        return seconds

    def annotate(self) -> float:
        """Seconds that `Annotator.annotate` takes for all images."""
        seconds: float = self._ask("annotate")
        return seconds

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def main() -> None:
    """Open the index, then do what is asked for."""
    from annotator.encoders.torch_setup import threads_per_operation
    from annotator.images.sources import find_images
    from annotator.pipeline import Annotator

    index, images, device = sys.argv[1:]
    annotator = Annotator.open(index, device=device)  # type: ignore[arg-type]
    refs = find_images(images).images
    for _ in annotator.annotate(refs[:64], with_neighbors=True):  # warm up
        pass
    _say("ready")
    for line in sys.stdin:
        match line.split():
            case ["lone", n, threads]:
                with threads_per_operation(int(threads)):
                    _lone(annotator, refs[:3])
                    _say(_lone(annotator, list(islice(cycle(refs), int(n)))))
            case ["annotate"]:
                started = time.perf_counter()
                done = sum(a.error is None for a in annotator.annotate(refs))
                seconds = time.perf_counter() - started
                if done != len(refs):
                    raise SystemExit(f"{done} of {len(refs)} images could be used")
                _say(seconds)


def _lone(annotator: Annotator, refs: list[ImageRef]) -> list[float]:
    from annotator.encoders.local_runner import embed_frames
    from annotator.images.decode import decode

    embedder = annotator.embedder
    seconds = []
    for ref in refs:
        data = ref.read()  # from the page cache: the service gets it over a socket
        started = time.perf_counter()
        frames = decode(data, frames=embedder.frames, at_least=embedder.image_size)
        vectors = embed_frames([embedder.prepare(frames)], embedder, 1)
        annotator.decide([ref.id], annotator.search(vectors))
        seconds.append(time.perf_counter() - started)
    return seconds


def _say(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
