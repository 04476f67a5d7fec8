"""The same work without a server, in a process of its own that is asked over its standard input.

    python -m benchmarks.service_load.bare INDEX IMAGES DEVICE

"lone N THREADS" answers with the seconds that each of N images took alone, "annotate" with those
that `Annotator.stream` took for all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.service_load.server import cpu_seconds

if TYPE_CHECKING:
    from annotator.images.ref import ImageRef
    from annotator.pipeline import Annotator


class Bare:
    """The process; use as a context manager."""

    def __init__(self, index: Path, images: Path, device: str) -> None:
        command = [sys.executable, "-m", "benchmarks.service_load.bare"]
        self._process = subprocess.Popen(
            [*command, str(index), str(images), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._read()  # it is ready

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def ask(self, line: str) -> Any:
        """What the process answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def cpu_seconds(self) -> float:
        """CPU time so far."""
        return cpu_seconds(self._process.pid)

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
    for _ in annotator.stream(refs[:64], with_neighbors=True):  # warm up
        pass
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        result: Any
        match line.split():
            case ["lone", n, threads]:
                with threads_per_operation(int(threads)):
                    _lone(annotator, refs[:3])
                    result = _lone(annotator, list(islice(cycle(refs), int(n))))
            case ["annotate"]:
                started = time.perf_counter()
                done = sum(a.error is None for a in annotator.stream(refs))
                result = time.perf_counter() - started
                if done != len(refs):
                    raise SystemExit(f"{done} of {len(refs)} images could be used")
        print(json.dumps(result), flush=True)


def _lone(annotator: Annotator, refs: list[ImageRef]) -> list[float]:
    """Seconds of each image: decode, embed, search, vote."""
    from annotator.encoders.local_runner import embed_frames
    from annotator.images.decode import decode

    embedder = annotator.embedder
    seconds = []
    for ref in refs:
        data = ref.read()  # from the page cache: the service gets it over a socket
        started = time.perf_counter()
        frames = decode(data, frames=embedder.frames, at_least=embedder.image_size).frames
        vectors = embed_frames([embedder.prepare(frames)], embedder, 1)
        annotator.decide([ref.id], annotator.search(vectors))
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
