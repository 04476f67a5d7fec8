"""Notes on what was done to a picture that its file did not ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

#: Stable codes.
Note = Literal[
    "window_ignored",
    "rescale_ignored",
    "alpha_ignored",
    "frame_replaced",
    "frames_left_out",
    "blank",
    "vector_scaled",
]

#: Each note in words.
NOTES: Mapping[Note, str] = {
    "window_ignored": "window or VOI LUT not applied, since it leaves a blank picture",
    "rescale_ignored": "rescale or modality LUT not applied, since it leaves a blank picture",
    "alpha_ignored": "transparency not applied, since it leaves a blank picture",
    "frame_replaced": "middle frame is blank; the nearest one that is not is used",
    "frames_left_out": "blank frames left out",
    "blank": "blank: all pixels have (nearly) the same value",
    "vector_scaled": "vector scaled to unit norm",
}
