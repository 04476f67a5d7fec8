"""Peak memory of `annotator build-index` for collections of different sizes.

python benchmarks/memory.py                          on generated phantoms
python benchmarks/memory.py IMAGES --sizes 1000 10000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import copies, save


def main() -> None:
    """Parse, measure each size in a process of its own, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="?", help="a folder of images")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    options = parser.parse_args()
    records = []
    with tempfile.TemporaryDirectory() as folder:
        images = options.images
        if images is None:
            from annotator.phantoms import write_sample

            images = write_sample(Path(folder) / "sample").images
        for n in options.sizes:
            records.append(measure(images, Path(folder) / str(n), n))
            r = records[-1]
            print(
                f"{n:7d} images: peak {r['peak_mib']:.0f} MiB, vectors {r['vectors_mib']:.0f} MiB"
            )
    print(f"raw figures: {save('memory', records)}")


def measure(images: Path, folder: Path, n: int) -> dict[str, Any]:
    """Build an index of n images and read the process's peak from the kernel."""
    copies(images, folder / "images", n)
    concepts = folder / "concepts.csv"
    names = sorted(path.stem for path in (folder / "images").iterdir())
    concepts.write_text(
        "ID,CUIs\n" + "".join(f"{id_},C{i % 50:07d}\n" for i, id_ in enumerate(names))
    )
    process = subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "annotator",
                "build-index",
                str(folder / "images"),
                str(concepts),
            ),
            *("--index", str(folder / "index")),
        ],
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"build-index ended with {process.returncode}")
    vectors = (folder / "index").glob("v*/vectors.npy")
    return {
        "images": n,
        "peak_mib": usage.ru_maxrss / 1024,
        "vectors_mib": sum(path.stat().st_size for path in vectors) / 2**20,
    }


if __name__ == "__main__":
    main()
