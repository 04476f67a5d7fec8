"""The script that a practitioner writes for speed: timm, a DataLoader, channels last, bf16, FAISS.

python -m benchmarks.throughput.practitioner IMAGES

The first 256 images are the index, as they are for `annotate` in this benchmark; each image gets
the concepts of its ten nearest by a vote. Settings are as documentation recommends them: two
workers for two cores, batches of 32.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.torch_setup import make_torchvision_importable

BATCH, WORKERS, INDEXED, K = 32, 2, 256, 10


class Images(torch.utils.data.Dataset[torch.Tensor]):
    """Image files, transformed as timm's evaluation does it."""

    def __init__(self, paths: list[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as image:
            return self.transform(image.convert("RGB"))  # type: ignore[no-any-return]


def main() -> None:
    """Encode all images, search, vote, and print a run."""
    make_torchvision_importable()
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    paths = sorted(Path(sys.argv[1]).iterdir())
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    model = model.to(torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    transform = create_transform(**resolve_model_data_config(model), is_training=False)  # type: ignore[no-untyped-call]
    loader = torch.utils.data.DataLoader(
        Images(paths, transform), batch_size=BATCH, num_workers=WORKERS
    )
    parts = []
    with torch.inference_mode():
        for batch in loader:
            pixels = batch.to(torch.bfloat16, memory_format=torch.channels_last)
            parts.append(model(pixels).float().numpy())
    vectors: NDArray[np.float32] = np.concatenate(parts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors[:INDEXED])
    labels = np.ones((INDEXED, 1), np.float32)  # one concept, as the index of the benchmark has
    similarities, rows = index.search(vectors, K)
    votes = np.einsum("nk,nkc->nc", similarities, labels[rows]) / similarities.sum(1)[:, None]
    with Path("/dev/null").open("w") as run:
        for path, share in zip(paths, votes, strict=True):
            run.write(f"{path.stem},{';'.join(str(c) for c in np.flatnonzero(share > 0.5))}\n")


if __name__ == "__main__":
    main()
