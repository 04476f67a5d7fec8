"""Peak memory of `annotator build-index` for collections of different sizes.

python -m benchmarks.throughput.memory                          on generated phantoms
python -m benchmarks.throughput.memory IMAGES --sizes 1000 10000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.images import copies, sample_images
from benchmarks.processes import cost_of
from benchmarks.records import save


def main(arguments: list[str] | None = None) -> None:
    """Measure each size in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="?", help="a folder of images")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    options = parser.parse_args(arguments)
    records = []
    with tempfile.TemporaryDirectory() as folder:
        images = options.images or sample_images(Path(folder) / "sample")
        for n in options.sizes:
            records.append(measure(images, Path(folder) / str(n), n))
            print(f"{n:7d} images: peak {records[-1]['peak_mib']:.0f} MiB")
    print(f"raw figures: {save('memory', records)}")


def measure(images: Path, folder: Path, n: int) -> dict[str, Any]:
    """Build an index of n images and read the process's peak from the kernel."""
    made = copies(images, folder / "images", n)
    concepts = folder / "concepts.csv"
    rows = [f"{path.stem},C{i % 50:07d}\n" for i, path in enumerate(made)]
    concepts.write_text("ID,CUIs\n" + "".join(rows))
    arguments: list[str | Path] = ["build-index", folder / "images", concepts]
    arguments += ["--index", folder / "index"]
    cost = cost_of(arguments, folder, quiet=True)
    vectors = (folder / "index").glob("v*/vectors.npy")
    return {
        "images": n,
        "peak_mib": cost.peak_mib,
        "vectors_mib": sum(path.stat().st_size for path in vectors) / 2**20,
    }


if __name__ == "__main__":
    main()
