"""The benchmarks are scripts: their folder has to be on the path, as when one is run."""

from __future__ import annotations

import io
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

if TYPE_CHECKING:
    from quality_rows.data import Data

KINDS = (("C1", "C2"), ("C1", "C3"), ("C4",), ("C1", "C2", "C4"))


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Data, Data, list[frozenset[str]]]:
    """An easy collection: a training side, a test side, and the test side's labels apart.

    Images of four kinds, each with its own label set, stripes and direction of the vectors. Two
    training images each are of one patient, which is of one kind.
    """
    from quality_rows.cost import Ledger

    rng = np.random.default_rng(0)
    ledger = Ledger()
    train, labels = _side(rng, 48, tmp_path, ledger, "train", np.arange(48) // 2)
    test, truth = _side(rng, 12, tmp_path, ledger, "test", np.arange(12))
    del labels
    return train, test, truth


def _side(rng, n, folder, ledger, side, groups):
    from quality_rows.cost import Cost
    from quality_rows.data import Data, Pictures

    from annotator.images.sources import ImageRef

    kinds = groups % len(KINDS)
    vectors = np.eye(len(KINDS), 16, dtype=np.float32)[kinds]
    vectors += rng.normal(0, 0.05, vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    files = [_striped(rng, int(kind)) for kind in kinds]
    refs = [
        ImageRef(f"{side}{i:03d}", f"{side}{i:03d}.png", partial(bytes, data))
        for i, data in enumerate(files)
    ]
    labels = [frozenset(KINDS[kind]) for kind in kinds]
    pictures = Pictures(refs, vectors, Cost(8.0, 4.0), folder)
    shown = labels if side == "train" else None
    return Data(pictures, groups.astype(np.int64), shown, ledger), labels


def _striped(rng, kind):
    """A PNG of 64 px: vertical or horizontal stripes, narrow or wide, with noise."""
    period = 8 if kind < 2 else 24
    stripes = 200 * (np.arange(64) % period < period / 2)
    picture = np.broadcast_to(stripes if kind % 2 else stripes[:, None], (64, 64))
    noisy = picture + rng.integers(0, 40, (64, 64))
    file = io.BytesIO()
    Image.fromarray(noisy.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
