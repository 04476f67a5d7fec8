"""A small index with everything that a map shows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotator.encoders.fingerprint import Fingerprint
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.voting import Voting
from index import StoredIndex, VersionWriter, open_index
from index.segments import THUMBNAIL_ENDS, THUMBNAILS

HOSTILE = '</script><img src=x onerror="document.title=1">'
NAMES = {
    "C1": "Chest",
    "C2": "Brain, left",
    "C3": f"costs $5_{{ or $9 {HOSTILE}",
    "C4": "Everything",
}
FINGERPRINT = Fingerprint("net", "sha256:0", {}, "fp32", "middle", 8)


def jpeg(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((120, 192), level, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write_map_index(directory: Path, n: int = 60, *, pictures: bool = True) -> None:
    """Three bunches of points in 12 dimensions; the first has the most points."""
    rng = np.random.default_rng(0)
    bunch = np.array([0, 1, 0, 2, 1, 0])[np.arange(n) % 6]
    vectors = np.eye(12, dtype=np.float32)[bunch] + rng.normal(0, 0.08, (n, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    concepts = [["C4", f"C{b + 1}"] if i % 10 else ["C4"] for i, b in enumerate(bunch.tolist())]
    shown = [jpeg(10 * b + 100) if i != 7 else b"" for i, b in enumerate(bunch.tolist())]
    arrays = {
        THUMBNAILS: np.frombuffer(b"".join(shown), np.uint8),
        THUMBNAIL_ENDS: np.cumsum([len(p) for p in shown]).astype(np.int64),
    }
    with VersionWriter(directory) as writer:
        writer.add(vectors)
        writer.publish(
            [f"i{i:03d}" for i in range(n)],
            concepts,
            names=NAMES,
            columns={
                "captions": [f"caption {i} {HOSTILE if i == 1 else ''}" for i in range(n)],
                "groups": [f"p{i // 2}" for i in range(n)],
            },
            about=IndexMetadata("net", FINGERPRINT, Voting(), {"penalty": 1.0}).to_dict(),
            arrays=arrays if pictures else {},
        )


@pytest.fixture(scope="session")
def map_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("map") / "an-index"
    write_map_index(directory)
    return directory


@pytest.fixture(scope="session")
def stored(map_index: Path) -> StoredIndex:
    return open_index(map_index)


@pytest.fixture(scope="session")
def plain_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of five images that keeps no pictures."""
    directory = tmp_path_factory.mktemp("map") / "plain"
    write_map_index(directory, 5, pictures=False)
    return directory
