"""Image files for the benchmarks that need many different ones."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path


def sample_images(folder: Path) -> Path:
    """Draw the sample collection into `folder`; the folder of its images."""
    from annotator.phantoms import write_sample

    return write_sample(folder).images


def copies(source: Path, target: Path, n: int) -> list[Path]:
    """Fill `target` with n image files made from those in `source`, no two with the same bytes.

    A few bytes behind the end of a picture change its content hash, so that no cache can help, but
    not what is decoded. DICOM files are left out: they end in tagged data.
    """
    from annotator.images.sources import find_images

    target.mkdir(parents=True)
    pictures = [Path(ref.where) for ref in find_images(source).images]
    pictures = [path for path in pictures if path.suffix != ".dcm"]
    made = []
    for i, path in enumerate(itertools.islice(itertools.cycle(pictures), n)):
        made.append(target / f"{i:06d}{path.suffix}")
        shutil.copyfile(path, made[-1])
        with made[-1].open("ab") as file:
            file.write(f"copy {i}".encode())
    return made
