"""What does a picture cost to decode, in memory and time, by the kind of its file?

    python -m benchmarks.features.decoding               pictures of 79 megapixels, at the limit
    python -m benchmarks.features.decoding --side 2000

A file of each kind is written and decoded in a process of its own. Memory is the peak of the
resident set less what the process held before, less the bytes that the stored values take once
decompressed; the bytes of the file, which the process reads, count. It is given in bytes a pixel.
Decoders of DICOM that run in another process are not counted.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotator.images.decode import decode
from benchmarks.records import save
from index.progress import track

SIDE = 8900
_STATUS = Path("/proc/self/status")


def main(arguments: list[str] | None = None) -> None:
    """Write, measure, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--side", type=int, default=SIDE, help="width and height in pixels")
    parser.add_argument("--only", help="kinds, with commas between them")
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(_measured(*options.measure)))
        return
    kinds = options.only.split(",") if options.only else list(KINDS)
    record = {"side": options.side, "kinds": {}}
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        for kind in track(kinds, total=len(kinds), label="Decoding"):
            write, depth = KINDS[kind]
            small.write_bytes(write(_ramp(64)))
            large.write_bytes(write(_ramp(options.side)))
            command = [sys.executable, "-m", "benchmarks.features.decoding"]
            command += ["--measure", str(small), str(large)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peak, seconds = json.loads(done.stdout)
            pixels = options.side**2
            record["kinds"][kind] = {
                "decoded": depth,
                "beyond": round(peak / pixels - depth, 2),
                "seconds": round(seconds, 3),
            }
    for kind, row in record["kinds"].items():
        print(f"{kind:24s} {row['beyond']:6.2f} bytes a pixel  {row['seconds']:7.3f} s")
    save("decoding", [record])


def _measured(small: Path, large: Path) -> tuple[int, float]:
    """Bytes at the peak of decoding `large` beyond those held before, and its seconds."""
    import time

    decode(small.read_bytes())  # imports
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    started = time.perf_counter()
    decode(large.read_bytes())
    return _memory("VmHWM") - before, time.perf_counter() - started


def _memory(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def _ramp(side: int) -> NDArray[np.uint16]:
    """uint16[side, side] of 12 bits, without a symmetry."""
    across = np.arange(side, dtype=np.uint32) * 2600 // side
    ramp: NDArray[np.uint16] = np.add.outer(across // 2, across).astype(np.uint16)
    return ramp


def _saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _pillow(form: str, mode: str, **options: Any) -> Callable[[NDArray[np.uint16]], bytes]:
    def write(values: NDArray[np.uint16]) -> bytes:
        if mode == "I;16":
            return _saved(Image.fromarray(values), form, **options)
        if mode == "F":
            return _saved(Image.fromarray(values.astype(np.float32)), form, **options)
        return _saved(
            Image.fromarray((values >> 4).astype(np.uint8)).convert(mode), form, **options
        )

    return write


def _dicom(**attributes: Any) -> Callable[[NDArray[np.uint16]], bytes]:
    """A writer of a CT image of these values, or with SamplesPerPixel=3 of three times 8 bits."""

    def write(values: NDArray[np.uint16]) -> bytes:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "1.2.3"
        ds.Rows, ds.Columns = values.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelData = values.tobytes()
        if attributes.get("SamplesPerPixel") == 3:
            ds.PhotometricInterpretation, ds.PlanarConfiguration = "RGB", 0
            ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
            ds.PixelData = np.repeat((values >> 4).astype(np.uint8), 3).tobytes()
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        file = io.BytesIO()
        ds.save_as(file, enforce_file_format=True)
        return file.getvalue()

    return write


_WINDOW = {"WindowCenter": 1000, "WindowWidth": 3000}
#: For each kind of file its writer, and the bytes a pixel of its values once decompressed: those of
#: the decoder's own picture, which has 4 for colours.
KINDS: Mapping[str, tuple[Callable[[NDArray[np.uint16]], bytes], int]] = {
    "PNG grey": (_pillow("PNG", "L"), 1),
    "PNG colour": (_pillow("PNG", "RGB"), 4),
    "PNG alpha": (_pillow("PNG", "RGBA"), 4),
    "PNG 16 bit": (_pillow("PNG", "I;16"), 2),
    "JPEG grey": (_pillow("JPEG", "L"), 1),
    "JPEG colour": (_pillow("JPEG", "RGB"), 4),
    "JPEG CMYK": (_pillow("JPEG", "CMYK"), 4),
    "JPEG 2000 grey": (_pillow("JPEG2000", "L", tile_size=(1024, 1024)), 1),
    "TIFF grey": (_pillow("TIFF", "L"), 1),
    "TIFF colour": (_pillow("TIFF", "RGB"), 3),
    "TIFF 16 bit": (_pillow("TIFF", "I;16"), 2),
    "TIFF 16 bit deflate": (_pillow("TIFF", "I;16", compression="tiff_adobe_deflate"), 2),
    "TIFF float": (_pillow("TIFF", "F"), 4),
    "BMP colour": (_pillow("BMP", "RGB"), 4),
    "GIF": (_pillow("GIF", "L"), 1),
    "WebP colour": (_pillow("WEBP", "RGB", method=0, quality=50), 4),
    "AVIF colour": (_pillow("AVIF", "RGB", speed=10), 4),
    "DICOM": (_dicom(), 2),
    "DICOM window": (_dicom(**_WINDOW), 2),
    "DICOM rescale": (_dicom(RescaleSlope=2, RescaleIntercept=-9, **_WINDOW), 2),
    "DICOM lost window": (_dicom(WindowCenter=-9000, WindowWidth=100), 2),
    "DICOM padding": (_dicom(PixelPaddingValue=0, **_WINDOW), 2),
    "DICOM colour": (_dicom(SamplesPerPixel=3), 3),
}


if __name__ == "__main__":
    main()
