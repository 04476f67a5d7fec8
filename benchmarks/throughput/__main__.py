"""How fast images become annotations, against the bare encoder and against two usual scripts.

These are measured in turns, several rounds in one run, since machines are shared and noisy; each by
the clock and by the CPU seconds that the kernel counts, which others on the machine change less:

  plain     a plain fp32 timm loop: PIL opens, converts and resizes, the network runs, one batch
            after the other, as most scripts do it
  script    what a practitioner writes for speed (practitioner.py): timm, a DataLoader of two
            workers, channels last, bf16, FAISS, a vote in NumPy; start-up and all
  bare      the product's encoder on ready-made batches: nothing but encoding; the better of one
            caller with all cores and of one caller a core
  annotate  the whole command in a process of its own: start-up, index, reading, hashing, decoding,
            encoding, searching, voting, writing; `start` is what it takes for a single image

`bare` and `annotate` are also measured with the engine torch, where another one is the default.

    python -m benchmarks.throughput                      on generated phantoms
    python -m benchmarks.throughput IMAGES --n 4000      on your images
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.embedder import Embedder
from annotator.encoders.registry import DEFAULT, make_embedder
from annotator.encoders.torch_setup import on_gpu, threads_per_operation
from annotator.images.decode import decode
from benchmarks.images import copies, sample_images
from benchmarks.records import save
from index.cores import usable_cores

_CALLS = 32  # of the encoder, by each caller
_MODULE = [sys.executable, "-m"]


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
        for record in measure(options, Path(folder)):
            path = save("throughput", [record])  # a long run that is cut keeps its rounds
    wall, middle = (
        {name: statistics.median(values) for name, values in record[key].items() if values}
        for key in ("images_per_second", "images_per_cpu_second")
    )
    for name, value in middle.items():
        print(
            f"{name:20s} {wall[name]:8.1f} images/s, {value:8.1f} a CPU second, "
            f"{value / middle['bare']:.3f} of the bare encoder"
        )
    for name, values in record["start_cpu_seconds"].items():
        print(f"{name:20s} starts in {statistics.median(values):.2f} CPU seconds")
    print(f"raw figures: {path}")


def measure(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Prepare images and an index in `folder`, time everything in turns; yield after each round."""
    source = options.images or sample_images(folder / "sample")
    images = copies(source, folder / "images", options.n)
    concepts = folder / "concepts.csv"
    concepts.write_text("ID,CUIs\n" + "".join(f"{path.stem},C0817096\n" for path in images))
    # The index is built from the first few hundred: a search among few is not what is timed.
    few = folder / "few.txt"
    few.write_text("".join(f"{path}\n" for path in images[:256]))
    index = ["--index", str(folder / "index"), "--no-cache", "--device", options.device]
    run("build-index", str(few), str(concepts), *index, "--embedder", options.embedder)
    own = make_embedder(options.embedder, device=options.device)
    embedders = {"": own}
    if own.engine != "torch":
        embedders["_torch"] = make_embedder(options.embedder, device=options.device, engine="torch")
    files = [path.read_bytes() for path in images[: own.batch_size]]
    batch = np.concatenate([own.prepare(decode(data).frames) for data in files])
    is_cuda = on_gpu(options.device)
    rates, starts = Rates(), Rates()
    for _ in range(options.rounds):
        if options.embedder == DEFAULT:
            # In processes of their own: the product's settings of the allocator would help them.
            there = str(folder / "images")
            said = subprocess.check_output([*_MODULE, "benchmarks.throughput.plain_loop", there])
            wall, cpu = map(float, said.split())
            rates.wall["plain"].append(wall)
            rates.cpu["plain"].append(cpu)
            script = [*_MODULE, "benchmarks.throughput.practitioner", there]
            rates.add("script", options.n, spent(partial(subprocess.check_call, script)))
        for kind, embedder in embedders.items():
            rates.add(f"bare{kind}", *bare(embedder, batch, is_cuda))
            engine = ["--engine", "torch"] if kind else []
            given = [*index, *engine]
            every = partial(run, "annotate", str(folder / "images"), *given, rows=options.n)
            whole = spent(every)
            start = spent(partial(run, "annotate", str(images[0]), *given, rows=1))
            rates.add(f"annotate{kind}", options.n, whole)
            warm = Spent(whole.wall - start.wall, whole.cpu - start.cpu)
            rates.add(f"annotate{kind}_warm", options.n, warm)
            starts.cpu[f"annotate{kind}"].append(start.cpu)
        yield {
            "images": str(options.images or "sample"),
            "n": options.n,
            "batch": own.batch_size,
            "engine": own.engine,
            "embedder": options.embedder,
            "fingerprint": own.fingerprint.to_dict(),
            "images_per_second": rates.wall,
            "images_per_cpu_second": rates.cpu,
            "start_cpu_seconds": starts.cpu,
        }


class Spent(NamedTuple):
    """Seconds by the clock, and CPU seconds of this process and of those that it waited for."""

    wall: float
    cpu: float


class Rates:
    """Images per second by name, one for each round, by the clock and by the CPU."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = defaultdict(list)
        self.cpu: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, images: int, spent: Spent) -> None:
        self.wall[name].append(images / spent.wall)
        self.cpu[name].append(images / spent.cpu)


def run(*arguments: str, rows: int | None = None) -> None:
    """Run `annotator`; where it annotates, see that it wrote so many rows."""
    command = [sys.executable, "-m", "annotator", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    written = done.stdout.count(b"\n") - 1
    if rows is not None and written != rows:
        raise SystemExit(f"annotate wrote {written} rows for {rows} images")


class Work(NamedTuple):
    """Encoded images, and what it took."""

    images: int
    cost: Spent


def bare(embedder: Embedder, batch: NDArray[np.uint8], is_cuda: bool) -> Work:
    """The faster of one caller on all cores and of one caller a core."""
    with threads_per_operation(usable_cores()):
        embedder.embed(batch)
        one = spent(lambda: [embedder.embed(batch) for _ in range(_CALLS)])
    calls = _CALLS if is_cuda else _CALLS * usable_cores()  # a GPU takes one at a time
    with threads_per_operation(1), ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(embedder.embed, [batch] * usable_cores()))
        many = spent(lambda: list(pool.map(embedder.embed, [batch] * calls)))
    works = [Work(len(batch) * _CALLS, one), Work(len(batch) * calls, many)]
    return max(works, key=lambda work: work.images / work.cost.cpu)


def spent(work: Callable[[], object]) -> Spent:
    """What a piece of work takes."""
    before, start = _cpu_seconds(), time.perf_counter()
    work()
    return Spent(time.perf_counter() - start, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    main()
