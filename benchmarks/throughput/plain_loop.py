"""The loop that a careful person writes first: timm's network, its transform's steps, fp32.

python -m benchmarks.throughput.plain_loop IMAGES       prints images/s, and a CPU second
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from annotator.encoders.torch_setup import make_torchvision_importable

BATCH = 32


def main() -> None:
    """Embed nine batches, the first of them to warm up."""
    make_torchvision_importable()
    import timm

    paths = sorted(Path(sys.argv[1]).iterdir())[: 9 * BATCH]
    batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    start, used = time.perf_counter(), time.process_time()
    for number, batch in enumerate(batches):
        if number == 1:
            start, used = time.perf_counter(), time.process_time()
        tensors = []
        for path in batch:
            with Image.open(path) as image:
                square = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
            tensors.append(torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1)
        with torch.inference_mode():
            model(torch.stack(tensors)).numpy()
    timed = paths[BATCH:] if len(batches) > 1 else paths
    print(len(timed) / (time.perf_counter() - start), len(timed) / (time.process_time() - used))


if __name__ == "__main__":
    main()
