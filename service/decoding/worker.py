"""Decodes images for `processes`: `python -m service.decoding.worker`.

Each request on the standard input is a line of JSON (the work, its limits and options, and the
file's length in bytes) and the file; each answer on the standard output a line of JSON (what came
of it, or what was raised; mode, width and height of each picture) and the pixels of the pictures.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from annotator.errors import ImageError
from annotator.images.decode import decode, show
from annotator.images.dicom.reader import load_pydicom
from annotator.images.pixels import Window
from service.memory import give_back

# Beside what decoding takes: libraries that are loaded, and the copies of the file.
_OTHER_BYTES = 512 << 20
_COPIES = 4
# The service has its turn first: its answers are waited for by more than one.
_NICENESS = 5


def main() -> None:
    """Serve requests until the input ends."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print must not get in between
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    load_pydicom()
    loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    while line := source.readline():
        work = json.loads(line)
        data = source.read(work["bytes"])
        _limit(work["cpu_seconds"], loaded + _OTHER_BYTES + _COPIES * len(data) + work["memory"])
        answer, pictures = _done(work, data)
        answer["pictures"] = [(picture.mode, *picture.size) for picture in pictures]
        sink.write(json.dumps(answer).encode() + b"\n")
        for picture in pictures:
            sink.write(picture.tobytes())
        sink.flush()
        del data, pictures
        give_back()


def _limit(cpu_seconds: float, memory: int) -> None:
    """Limit the CPU time from now on, and the memory in all (of each process that it starts, too).

    More CPU time ends the process (SIGXCPU), more memory is a MemoryError.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + cpu_seconds)
    for limit, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory)):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(
            limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )


def _done(work: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Image.Image]]:
    options = work["options"]
    try:
        if work["work"] == "decode":
            decoded = decode(data, **options)
            return {"notes": decoded.notes}, decoded.frames
        if options["window"] is not None:
            options["window"] = Window(*options["window"])
        shown = show(data, **options)
    except ImageError as error:
        return {"raised": ["ImageError", error.message, error.hint, error.code]}, []
    except MemoryError:
        return {"raised": ["MemoryError"]}, []
    except IndexError as error:
        return {"raised": ["IndexError", str(error)]}, []
    low, high, window = shown.levels
    answer = {
        "notes": shown.notes,
        "frame": shown.frame,
        "n_frames": shown.n_frames,
        "levels": (low, high, *window),
    }
    return answer, [shown.picture]


if __name__ == "__main__":
    main()
