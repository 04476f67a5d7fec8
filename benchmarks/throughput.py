"""How fast images become annotations, against the bare encoder and against a plain loop.

Three things are timed in turns, several rounds in one run, since machines are shared and noisy:

  plain     a plain fp32 timm loop: PIL opens, converts and resizes, the network runs, one batch
            after the other, as most scripts do it
  bare      the product's encoder on ready-made batches: nothing but encoding; the better of one
            caller with all cores and of one caller a core
  annotate  the whole command in a process of its own: start-up, index, reading, hashing, decoding,
            encoding, searching, voting, writing

    python benchmarks/throughput.py                      on generated phantoms
    python benchmarks/throughput.py IMAGES --n 4000      on your images
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import copies, save
from numpy.typing import NDArray
from PIL import Image

from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import cpu_count
from annotator.encoders.registry import make_embedder
from annotator.encoders.torch_setup import (
    choose_device,
    make_torchvision_importable,
    threads_per_operation,
)
from annotator.images.decode import decode
from annotator.images.ref import ImageRef
from annotator.images.sources import find_images

BATCH = 32  # of the plain loop
_CALLS = 32  # of the encoder, by each caller


def main() -> None:
    """Parse, prepare, time, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="?", help="a folder of images")
    parser.add_argument("--n", type=int, default=2000, help="images that annotate gets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--embedder", default="efficientnet-lite0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only-plain", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_plain:
        refs = find_images(options.images).images[: 9 * BATCH]
        plain = PlainLoop()
        plain(refs[:BATCH])
        print(rate(lambda: plain(refs[BATCH:]), len(refs) - BATCH))
        return
    with tempfile.TemporaryDirectory() as folder:
        report(run(options, Path(folder)))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prepare images and an index in `folder`, and time the three."""
    images = options.images
    if images is None:
        from annotator.phantoms import write_sample

        images = write_sample(folder / "sample").images
    copies(images, folder / "images", options.n)
    refs = find_images(folder / "images").images
    concepts = folder / "concepts.csv"
    concepts.write_text("ID,CUIs\n" + "".join(f"{ref.id},C0817096\n" for ref in refs))
    # The index is built from the first few hundred: a search among few is not what is timed.
    few = folder / "few.txt"
    few.write_text("".join(f"{ref.where}\n" for ref in refs[:256]))
    command = [sys.executable, "-m", "annotator"]
    index = ["--index", str(folder / "index"), "--no-cache", "--device", options.device]
    name = ["--embedder", options.embedder]
    subprocess.run(
        [*command, "build-index", str(few), str(concepts), *index, *name],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    embedder = make_embedder(options.embedder, device=options.device)
    on_gpu = choose_device(options.device).type == "cuda"  # which takes one batch at a time
    calls = _CALLS if on_gpu else _CALLS * cpu_count()
    batch = ready_batch(refs[: embedder.batch_size], embedder)
    timed: dict[str, list[float]] = {"plain": [], "bare": [], "annotate": [], "annotate_warm": []}
    for _ in range(options.rounds):
        if options.embedder == "efficientnet-lite0":
            # In a process of its own: the product's settings of the allocator would speed it up.
            plain = [sys.executable, __file__, str(folder / "images"), "--only-plain"]
            timed["plain"].append(float(subprocess.check_output(plain, stderr=subprocess.DEVNULL)))
        timed["bare"].append(
            max(bare_one_caller(embedder, batch), bare_one_a_core(embedder, batch, calls))
        )
        n, seconds, startup = annotate([*command, "annotate", str(folder / "images"), *index], refs)
        timed["annotate"].append(n / seconds)
        timed["annotate_warm"].append(n / (seconds - startup))
    return {
        "images": str(options.images or "sample"),
        "n": len(refs),
        "batch": embedder.batch_size,
        "plain_batch": BATCH,
        "embedder": options.embedder,
        "fingerprint": embedder.fingerprint.to_dict(),
        "images_per_second": timed,
    }


def report(record: dict[str, Any]) -> None:
    """Save the raw figures and print medians and ratios."""
    path = save("throughput", [record])
    middle = {k: statistics.median(v) for k, v in record["images_per_second"].items() if v}
    for name, value in middle.items():
        print(f"{name:14s} {value:8.1f} images/s")
    print(f"annotate / bare encoder          {middle['annotate'] / middle['bare']:.3f}")
    print(f"the same without start-up        {middle['annotate_warm'] / middle['bare']:.3f}")
    if "plain" in middle:
        print(f"annotate / plain fp32 timm loop  {middle['annotate'] / middle['plain']:.2f}")
    print(f"raw figures: {path}")


class PlainLoop:
    """The loop that a careful person writes first: timm's network, its transform's steps, fp32."""

    def __init__(self) -> None:
        make_torchvision_importable()
        import timm

        self.model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()

    def __call__(self, refs: list[ImageRef]) -> None:
        """Embed images, one batch after the other."""
        for start in range(0, len(refs), BATCH):
            tensors = []
            for ref in refs[start : start + BATCH]:
                with Image.open(ref.where) as image:
                    square = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
                tensors.append(
                    torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1
                )
            with torch.inference_mode():
                self.model(torch.stack(tensors)).numpy()


def ready_batch(refs: list[ImageRef], embedder: Embedder) -> NDArray[np.uint8]:
    """uint8[batch, size, size, 3], decoded and resized beforehand."""
    return np.concatenate([embedder.prepare(decode(ref.read())) for ref in refs])


def bare_one_caller(embedder: Embedder, batch: NDArray[np.uint8]) -> float:
    """Images a second, one batch at a time on all cores."""
    with threads_per_operation(cpu_count()):
        embedder.embed(batch)
        return rate(lambda: [embedder.embed(batch) for _ in range(_CALLS)], _CALLS * len(batch))


def bare_one_a_core(embedder: Embedder, batch: NDArray[np.uint8], calls: int) -> float:
    """Images a second, one batch a core at a time."""
    with threads_per_operation(1), ThreadPoolExecutor(cpu_count()) as pool:
        work = [batch] * calls
        list(pool.map(embedder.embed, work[: cpu_count()]))
        return rate(lambda: list(pool.map(embedder.embed, work)), len(work) * len(batch))


def annotate(command: list[str], refs: list[ImageRef]) -> tuple[int, float, float]:
    """Images, seconds of the whole process, and seconds of one that annotates a single image."""
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    rows = done.stdout.count(b"\n") - 1
    if rows != len(refs):
        raise SystemExit(f"annotate wrote {rows} rows for {len(refs)} images")
    single = [*command]
    single[single.index("annotate") + 1] = refs[0].where
    start = time.perf_counter()
    subprocess.run(single, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return rows, seconds, time.perf_counter() - start


def rate(work: Callable[[], object], n: int) -> float:
    """Images a second of a piece of work on n images."""
    start = time.perf_counter()
    work()
    return n / (time.perf_counter() - start)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
