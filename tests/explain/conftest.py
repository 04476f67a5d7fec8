"""A small sample collection with an index of it, by a small size of the packaged encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from annotator.phantoms import SamplePaths

SMALL = "efficientnet-lite0@64"


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SamplePaths:
    from annotator.phantoms import write_sample

    return write_sample(tmp_path_factory.mktemp("explain") / "sample", n=60)


@pytest.fixture(scope="session")
def sample_index(sample: SamplePaths) -> Path:
    """Of the training side; it keeps small pictures."""
    from annotator.collection import read_collection
    from annotator.encoders.registry import make_embedder
    from annotator.indexing.build import build_index

    train = read_collection(
        sample.images,
        sample.concepts,
        names=sample.concept_names,
        groups=str(sample.patients),
        split=str(sample.split),
        only="train",
    )
    directory = sample.directory.parent / "index"
    build_index(train, directory, make_embedder(SMALL, precision="fp32"), thumbnails=True)
    return directory
