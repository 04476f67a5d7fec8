"""What `annotator serve` bears, measured on one machine in one run.

a  throughput at 32 clients, against `annotator annotate` on the same images
b  the latency of a lone client, against decode, embed, search and vote in one process
c  the tail of the latency at 8 clients
d  memory over many requests
e  ten times the requests that it can answer, and how soon it recovers
f  reloads under load, half of them of a damaged index
g  kill -9 and a new start, and SIGTERM, under load

  python benchmarks/serve_load.py                         on generated phantoms
  python benchmarks/serve_load.py IMAGES --index INDEX    on your images and index
  python benchmarks/serve_load.py --only a,b --images 500
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import copies, save
from serve_load_parts import speed, upheaval
from serve_load_parts.bare import Bare
from serve_load_parts.client import image_request
from serve_load_parts.server import Server

PARTS = "abcdefg"


def main() -> None:
    """Parse, prepare, measure, report."""
    options = _parse()
    with tempfile.TemporaryDirectory() as folder:
        for record in run(options, Path(folder)):
            path = save("serve_load", [record])
            print(json.dumps(record), flush=True)
    print(f"raw figures: {path}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source", type=Path, nargs="?", help="a folder of images")
    parser.add_argument("--index", type=Path, help="an index; else one is built from phantoms")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, such as a,b")
    parser.add_argument("--images", type=int, default=2000, help="different images to send")
    parser.add_argument("--phantoms", type=int, default=600, help="phantoms to draw, if any")
    parser.add_argument("--rounds", type=int, default=3, help="of parts a and b")
    parser.add_argument("--lone", type=int, default=200, help="images of a round of part b")
    parser.add_argument("--tail", type=int, default=4000, help="requests of part c")
    parser.add_argument("--requests", type=int, default=20000, help="requests of part d")
    parser.add_argument("--overload-s", type=float, default=10, help="seconds of part e")
    parser.add_argument("--reloads", type=int, default=200, help="reloads of part f")
    parser.add_argument("--kills", type=int, default=3, help="kills of part g")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    options.parts = set(options.only.split(","))
    if not options.parts <= set(PARTS):
        parser.error(f"--only takes some of {','.join(PARTS)}")
    return options


def run(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Prepare images and an index in `folder`, and measure each part that was asked for."""
    source, index = options.source, options.index
    if source is None or index is None:
        from annotator.phantoms import write_sample

        sample = write_sample(folder / "sample", n=options.phantoms)
        source = source or sample.images
        index = index or _build(sample.images, sample.concepts, folder / "index", options.device)
    copies(source, folder / "images", options.images)
    about = {
        "source": str(options.source or "sample"),
        "index": str(options.index or "sample"),
        "device": options.device,
    }
    for part, result in _measure(options, index, folder):
        yield {"part": part, **about, **result}


def _build(images: Path, concepts: Path, index: Path, device: str) -> Path:
    command = [sys.executable, "-m", "annotator", "build-index", str(images), str(concepts)]
    command += ["--index", str(index), "--no-cache", "--no-tune", "--device", device]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return index


def _measure(
    options: argparse.Namespace, index: Path, folder: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    parts, arguments = options.parts, ["--device", options.device]
    files = sorted((folder / "images").iterdir())
    images = [path.read_bytes() for path in files]
    requests = [image_request(image) for image in images]
    if parts & set("ab"):
        with (
            Server(index, *arguments) as server,
            Bare(index, folder / "images", options.device) as bare,
        ):
            if "a" in parts:
                command = speed.annotate_command(index, folder / "images", options.device)
                yield "a", speed.throughput(server, bare, requests, command, options.rounds)
            if "b" in parts:
                threads = sorted({1, len(os.sched_getaffinity(0))})
                lone = options.lone
                yield "b", speed.lone(server, bare, requests, threads, lone, options.rounds)
    if parts & set("ce"):
        with Server(index, *arguments) as server:
            if "c" in parts:
                yield "c", speed.eight(server, requests, options.tail)
            if "e" in parts:
                yield "e", speed.overload(server, requests, options.overload_s)
    if "d" in parts:  # by a server of its own: its memory is not that of what came before
        with Server(index, *arguments) as server:
            yield "d", speed.memory(server, requests, options.requests)
    if "f" in parts:
        ours = folder / "reloaded"
        shutil.copytree(index, ours, ignore=shutil.ignore_patterns("*.sqlite*", "lock"))
        yield "f", upheaval.reloads(ours, images, arguments, folder, options.reloads)
    if "g" in parts:
        killed = upheaval.kills(index, requests, arguments, options.kills)
        yield "g", killed | {"sigterm": upheaval.termination(index, requests, arguments)}


if __name__ == "__main__":
    main()
