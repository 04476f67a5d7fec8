"""JPEG 2000 that takes long to decode, quickly made."""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
from PIL import Image

SIDE = 512  # of a tile


@cache
def jpeg_2000(tiles: int) -> bytes:
    """A codestream of tiles x tiles, all of them the same noise: 0.26 million pixels each.

    See ISO 15444-1, A.5.1 (SIZ) and A.4.2 (SOT).
    """
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG2000", no_jp2=True, tile_size=(SIDE, SIDE))
    one = file.getvalue()
    start = one.index(b"\xff\x90\x00\x0a")
    head, tile = bytearray(one[:start]), bytearray(one[start:-2])
    struct.pack_into(">II", head, 8, tiles * SIDE, tiles * SIDE)
    parts = [head]
    for number in range(tiles * tiles):
        struct.pack_into(">HI", tile, 4, number, len(tile))
        parts.append(bytearray(tile))
    return b"".join([*parts, b"\xff\xd9"])
