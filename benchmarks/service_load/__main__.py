"""What `annotator serve` bears, measured on one machine in one run.

a  throughput at 32 clients, against `annotator annotate` on the same images
b  the latency of a lone client, against decode, embed, search and vote in one process
c  the tail of the latency at 8 clients
d  memory over many requests
e  ten times the requests that it can answer, and how soon it recovers
f  reloads under load, half of them of a damaged index
g  from a correction to the answer that has it, in a generated index, by one client and by eight
h  the latency of others while the service is attacked
i  memory, descriptors and answers over a long run of mixed requests

  python -m benchmarks.service_load                         on generated phantoms
  python -m benchmarks.service_load IMAGES --index INDEX    on your images and index
  python -m benchmarks.service_load --only a,b --images 500
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.images import copies
from benchmarks.records import save
from benchmarks.service_load import speed
from benchmarks.service_load.attacks import KINDS, attacks
from benchmarks.service_load.bare import Bare
from benchmarks.service_load.client import image_request
from benchmarks.service_load.corrections import corrections, write_index
from benchmarks.service_load.mixture import mixture
from benchmarks.service_load.reloads import reloads
from benchmarks.service_load.server import Server, writable

PARTS = "abcdefghi"


def main(arguments: list[str] | None = None) -> None:
    """Measure each part that was asked for, and save it."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for part, result in run(options, Path(folder)):
            about = {"source": str(options.source or "sample"), "device": options.device}
            about["index"] = str(options.index or "sample")
            path = save("service_load", [{"part": part, **about, **result}])
            print(json.dumps({"part": part, **result}), flush=True)
    print(f"raw figures: {path}")


def run(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Prepare images and an index in `folder`, and measure each part that was asked for."""
    source, index, parts = options.source, options.index, set(options.only.split(","))
    arguments = ["--device", options.device]
    several = ["--processes", str(options.processes)]
    if "g" in parts:
        generated, vectors = write_index(folder, options.indexed, options.dim)
        for clients in (1, 8):
            copy = folder / f"corrected-by-{clients}"
            shutil.copytree(generated, copy)
            yield "g", corrections(copy, vectors, clients, options.corrections // clients)
    if parts == {"g"}:
        return
    if source is None or index is None:
        from annotator.phantoms import write_sample

        sample = write_sample(folder / "sample", n=options.phantoms)
        source = source or sample.images
        if index is None:
            index = folder / "index"
            command = [sys.executable, "-m", "annotator", "build-index", str(sample.images)]
            command += [str(sample.concepts), "--index", str(index), "--no-cache", "--no-tune"]
            subprocess.run([*command, *arguments], check=True, stderr=subprocess.DEVNULL)
    files = folder / "images"
    images = [path.read_bytes() for path in copies(source, files, options.images)]
    requests = [image_request(image) for image in images]
    if parts & set("ab"):
        with (
            Server(index, *arguments, *several) as server,
            Bare(index, files, options.device) as bare,
        ):
            if "a" in parts:
                command = speed.annotate_command(index, files, options.device)
                result = speed.throughput(server, bare, requests, command, options.rounds)
                yield "a", {"processes": options.processes, **result}
            if "b" in parts:
                yield "b", speed.lone(server, bare, requests, options.lone, options.rounds)
    if parts & set("ce"):
        with Server(index, *arguments) as server:
            if "c" in parts:
                yield "c", speed.eight(server, requests, options.tail)
            if "e" in parts:
                yield "e", speed.overload(server, requests, options.overload_s)
    if "d" in parts:  # by a server of its own: its memory is not that of what came before
        with Server(index, *arguments) as server:
            yield "d", speed.memory(server, requests, options.requests)
    if "h" in parts:
        with Server(index, *arguments) as server:
            for result in attacks(
                server, requests, options.attack_s, options.rounds, options.attack or list(KINDS)
            ):
                yield "h", result
    if "i" in parts:
        ours = folder / "corrected"
        shutil.copytree(index, ours, ignore=shutil.ignore_patterns("*.sqlite*", "lock"))
        with Server(ours, *arguments, *writable(folder / "keys")) as server:
            yield "i", mixture(server, ours, images, options.mixed, options.mixed_s)
    if "f" in parts:
        ours = folder / "reloaded"
        shutil.copytree(index, ours, ignore=shutil.ignore_patterns("*.sqlite*", "lock"))
        yield "f", reloads(ours, images, arguments, folder, options.reloads)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("source", type=Path, nargs="?", help="a folder of images")
    add("--index", type=Path, help="an index; else one is built from phantoms")
    add("--only", default=",".join(PARTS), help="parts, such as a,b")
    add("--images", type=int, default=2000, help="different images to send")
    add("--phantoms", type=int, default=600, help="phantoms to draw, if any")
    add("--processes", type=int, default=1, help="of the server of parts a and b")
    add("--rounds", type=int, default=3, help="of parts a, b and h")
    add("--lone", type=int, default=200, help="images of a round of part b")
    add("--tail", type=int, default=4000, help="requests of part c")
    add("--requests", type=int, default=20000, help="requests of part d")
    add("--overload-s", type=float, default=10, help="seconds of part e")
    add("--attack-s", type=float, default=10, help="seconds of a round of part h")
    add("--attack", choices=KINDS, action="append", help="of part h; else all")
    add("--mixed", type=int, default=50_000, help="requests of part i")
    add("--mixed-s", type=float, default=7200, help="seconds after which part i ends")
    add("--reloads", type=int, default=200, help="reloads of part f")
    add("--indexed", type=int, default=100_000, help="images of the index of part g")
    add("--dim", type=int, default=256, help="of their vectors")
    add("--corrections", type=int, default=400, help="of each half of part g")
    add("--device", default="auto")
    options = parser.parse_args(arguments)
    if not set(options.only.split(",")) <= set(PARTS):
        parser.error(f"--only takes some of {','.join(PARTS)}")
    return options


if __name__ == "__main__":
    main()
