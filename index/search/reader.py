"""Single rows of vectors on disk, read without being mapped."""

from __future__ import annotations

import os
import weakref

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexProblem


class RowReader:
    """Reads rows of a file of vectors as they are asked for.

    A mapped row brings the pages around it into the process's memory, where they stay: some hundred
    queries would make as much of a large file resident as the machine has. What is read leaves
    nothing behind but what the system caches as it sees fit.

    Args:
        vectors: float32[n, dim], mapped from a file.

    Raises:
        OSError: The file is not there any more.
    """

    def __init__(self, vectors: np.memmap[tuple[int, ...], np.dtype[np.float32]]) -> None:
        self._dim, self._offset = vectors.shape[1], vectors.offset
        self._file = os.open(str(vectors.filename), os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[m, dim] for rows int64[m].

        Raises:
            IndexProblem: The file has become shorter.
        """
        size = 4 * self._dim
        result = np.empty((len(rows), self._dim), np.float32)
        for place, row in enumerate(rows.tolist()):
            data = os.pread(self._file, size, self._offset + row * size)
            if len(data) != size:
                raise IndexProblem(
                    f"The vectors end before row {row}.", "Restore the index from a copy."
                )
            result[place] = np.frombuffer(data, "<f4")
        return result
