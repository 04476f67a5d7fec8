"""Decodes compressed DICOM frames in a process of its own; see `annotator.images.dicom.plugins`.

Run as a script with the name of a plug-in of pydicom's. Each request on the standard input is a
line of JSON (the frame's length in bytes, its transfer syntax and its description) and the frame;
each answer on the standard output a line of JSON (the type of the values, null if they cannot be
decoded) and the values, row by row.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder


def _decode(
    frame: bytes, syntax: str, plugin: str, description: dict[str, Any]
) -> NDArray[Any] | None:
    options = {"index": 0, "raw": True, "decoding_plugin": plugin, **description}
    try:
        values, _ = get_decoder(syntax).as_array(encapsulate([frame]), **options)
    except Exception:  # libraries fail in many ways on corrupt frames
        return None
    return np.ascontiguousarray(values)


def main() -> None:
    """Serve requests until the input ends."""
    source = sys.stdin.buffer
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print must not get in between
    while line := source.readline():
        request = json.loads(line)
        frame = source.read(request["length"])
        values = _decode(frame, request["syntax"], sys.argv[1], request["description"])
        answer = {"dtype": None if values is None else values.dtype.str}
        sink.write(json.dumps(answer).encode() + b"\n")
        if values is not None:
            sink.write(values.data)
        sink.flush()


if __name__ == "__main__":
    main()
