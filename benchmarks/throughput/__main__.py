"""How fast images become annotations, against the bare encoder and against a plain loop.

Three things are timed in turns, several rounds in one run, since machines are shared and noisy:

  plain     a plain fp32 timm loop: PIL opens, converts and resizes, the network runs, one batch
            after the other, as most scripts do it
  bare      the product's encoder on ready-made batches: nothing but encoding; the better of one
            caller with all cores and of one caller a core
  annotate  the whole command in a process of its own: start-up, index, reading, hashing, decoding,
            encoding, searching, voting, writing

    python -m benchmarks.throughput                      on generated phantoms
    python -m benchmarks.throughput IMAGES --n 4000      on your images
"""

from __future__ import annotations

import argparse
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
from numpy.typing import NDArray

from annotator.encoders.embedder import Embedder
from annotator.encoders.local_runner import cpu_count
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.encoders.torch_setup import choose_device, threads_per_operation
from annotator.images.decode import decode
from benchmarks.images import copies, sample_images
from benchmarks.records import save

_CALLS = 32  # of the encoder, by each caller


def main(arguments: list[str] | None = None) -> None:
    """Time, and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="?", help="a folder of images")
    parser.add_argument("--n", type=int, default=2000, help="images that annotate gets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--embedder", default=DEFAULT)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        record = measure(options, Path(folder))
    path = save("throughput", [record])
    middle = {k: statistics.median(v) for k, v in record["images_per_second"].items() if v}
    for name, value in middle.items():
        print(f"{name:14s} {value:8.1f} images/s, {value / middle['bare']:.3f} of the bare encoder")
    print(f"raw figures: {path}")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prepare images and an index in `folder`, and time the three in turns."""
    source = options.images or sample_images(folder / "sample")
    images = copies(source, folder / "images", options.n)
    concepts = folder / "concepts.csv"
    concepts.write_text("ID,CUIs\n" + "".join(f"{path.stem},C0817096\n" for path in images))
    # The index is built from the first few hundred: a search among few is not what is timed.
    few = folder / "few.txt"
    few.write_text("".join(f"{path}\n" for path in images[:256]))
    index = ["--index", str(folder / "index"), "--no-cache", "--device", options.device]
    run("build-index", str(few), str(concepts), *index, "--embedder", options.embedder)
    embedder = make_embedder(options.embedder, device=options.device)
    files = [path.read_bytes() for path in images[: embedder.batch_size]]
    batch = np.concatenate([embedder.prepare(decode(data).frames) for data in files])
    timed: dict[str, list[float]] = {"plain": [], "bare": [], "annotate": [], "annotate_warm": []}
    for _ in range(options.rounds):
        if options.embedder == DEFAULT:
            # In a process of its own: the product's settings of the allocator would speed it up.
            plain = [sys.executable, "-m", "benchmarks.throughput.plain_loop"]
            said = subprocess.check_output([*plain, folder / "images"], stderr=subprocess.DEVNULL)
            timed["plain"].append(float(said))
        timed["bare"].append(bare(embedder, batch, choose_device(options.device).type))
        whole = seconds(lambda: run("annotate", str(folder / "images"), *index, rows=options.n))
        startup = seconds(lambda: run("annotate", str(images[0]), *index, rows=1))
        timed["annotate"].append(options.n / whole)
        timed["annotate_warm"].append(options.n / (whole - startup))
    return {
        "images": str(options.images or "sample"),
        "n": options.n,
        "batch": embedder.batch_size,
        "embedder": options.embedder,
        "fingerprint": embedder.fingerprint.to_dict(),
        "images_per_second": timed,
    }


def run(*arguments: str, rows: int | None = None) -> None:
    """Run `annotator`; where it annotates, see that it wrote so many rows."""
    command = [sys.executable, "-m", "annotator", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    written = done.stdout.count(b"\n") - 1
    if rows is not None and written != rows:
        raise SystemExit(f"annotate wrote {written} rows for {rows} images")


def bare(embedder: Embedder, batch: NDArray[np.uint8], device: str) -> float:
    """Images/s of the encoder: the better of one caller on all cores and of one caller a core."""
    with threads_per_operation(cpu_count()):
        embedder.embed(batch)
        one = seconds(lambda: [embedder.embed(batch) for _ in range(_CALLS)])
    calls = _CALLS if device == "cuda" else _CALLS * cpu_count()  # a GPU takes one at a time
    with threads_per_operation(1), ThreadPoolExecutor(cpu_count()) as pool:
        list(pool.map(embedder.embed, [batch] * cpu_count()))
        many = seconds(lambda: list(pool.map(embedder.embed, [batch] * calls)))
    return len(batch) * max(_CALLS / one, calls / many)


def seconds(work: Callable[[], object]) -> float:
    """Seconds of a piece of work."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
