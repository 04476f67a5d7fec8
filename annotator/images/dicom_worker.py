"""Decodes the frames of one DICOM file in a process of its own; see `annotator.images.dicom`.

Run as a script: the file comes on the standard input, the frames' indices as arguments, and the
stored values, [frames, rows, columns(, samples)], go to the standard output as .npy.
"""

from __future__ import annotations

import io
import sys

import numpy as np
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array

if __name__ == "__main__":
    dataset = dcmread(io.BytesIO(sys.stdin.buffer.read()), force=True)
    frames = [pixel_array(dataset, index=int(index)) for index in sys.argv[1:]]
    np.save(sys.stdout.buffer, np.stack(frames), allow_pickle=False)
