"""How soon a correction is in the answers, in an index of many images."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.index_latency.data import Synthetic
from benchmarks.service_load.client import Connection, quantile, request
from benchmarks.service_load.server import KEY, Server, writable

ENCODER = "generated"
_CONCEPTS = 1000  # their frequency falls with their rank (Zipf)
_MOST = 9  # concepts of an image
_PATIENT = 3  # images of a patient


def corrections(
    index: Path, vectors: NDArray[np.float32], clients: int, each: int
) -> dict[str, Any]:
    """Clients that correct images and ask for the answer that has the correction, without pause.

    Args:
        index: From `write_index`.
        vectors: Likewise.
        clients: How many at once.
        each: Corrections of each client.

    Raises:
        SystemExit: A correction is refused, or is not in the answer after it.
    """
    images, dim = vectors.shape
    keys = index.with_name(f"{index.name}-keys.txt")
    with Server(index, *writable(keys), "--device", "cpu") as server:
        rng = np.random.default_rng(1)
        rows = rng.permutation(images)[: clients * each].reshape(clients, each)
        started = time.perf_counter()
        times = asyncio.run(_all(server, vectors, rows))
        seconds = time.perf_counter() - started
        peak = server.mib("VmHWM")
    accepted, seen = np.array(times).T.tolist()
    return {
        "images": images,
        "dim": dim,
        "clients": clients,
        "corrections": len(times),
        "per_second": round(len(times) / seconds, 1),
        **{f"patch_{name}_ms": quantile(accepted, part) for name, part in _QUANTILES.items()},
        **{f"answer_{name}_ms": quantile(seen, part) for name, part in _QUANTILES.items()},
        "peak_mib": peak,
    }


_QUANTILES = {"p50": 0.5, "p95": 0.95, "max": 1.0}


def write_index(folder: Path, images: int, dim: int) -> tuple[Path, NDArray[np.float32]]:
    """An index of generated images of patients, and its vectors, float32[n, dim]."""
    vectors = np.concatenate(list(Synthetic(dim, images).chunks(images)))
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, _CONCEPTS + 1)
    drawn = rng.choice(_CONCEPTS, (images, _MOST), p=frequency / frequency.sum())
    held = rng.integers(1, _MOST + 1, images).tolist()
    ids = [f"image-{i}" for i in range(images)]
    concepts, groups = (folder / f"{name}.csv" for name in ("concepts", "groups"))
    sets = (
        ";".join(sorted({f"C{j:07}" for j in row[:n]}))
        for row, n in zip(drawn.tolist(), held, strict=True)
    )
    lines = (f"{id_},{cuis}\n" for id_, cuis in zip(ids, sets, strict=True))
    concepts.write_text("ID,CUIs\n" + "".join(lines))
    lines = (f"{id_},patient-{i // _PATIENT}\n" for i, id_ in enumerate(ids))
    groups.write_text("ID,group\n" + "".join(lines))
    table, index = folder / "given.npz", folder / "generated"
    np.savez(table, vectors=vectors, ids=np.array(ids))
    command = [
        *(sys.executable, "-m", "annotator", "-q", "build-index", "--vectors", str(table)),
        *(str(concepts), "--encoder-name", ENCODER, "--groups", f"{groups}:group"),
        *("--no-tune", "--adaptation", "none", "--index", str(index)),
    ]
    subprocess.run(command, check=True)
    return index, vectors


async def _all(
    server: Server, vectors: NDArray[np.float32], rows: NDArray[np.int64]
) -> list[tuple[float, float]]:
    clients = (_correct(server, vectors, part.tolist()) for part in rows)
    return [one for times in await asyncio.gather(*clients) for one in times]


async def _correct(
    server: Server, vectors: NDArray[np.float32], rows: list[int]
) -> list[tuple[float, float]]:
    """Seconds until each correction is accepted, and until the answer that has it is there."""
    connection, times = Connection(server.address), []
    headers = (f"X-API-Key: {KEY}", "Content-Type: application/json")
    for row in rows:
        given = base64.b64encode(vectors[row].astype("<f4").tobytes()).decode("ascii")
        body = {"model": {"name": ENCODER}, "ids": ["query"], "vectors": [given]}
        query = request(
            "POST", "/v1/annotate-vectors?neighbors=1", headers, json.dumps(body).encode()
        )
        changed = sorted({f"C{row % _CONCEPTS:07}", f"C{row * 7 % _CONCEPTS:07}"})
        wanted = json.dumps({"concepts": changed, "reviewed": True}).encode()
        patch = request("PATCH", f"/v1/images/image-{row}", (*headers, "If-Match: *"), wanted)
        started = time.perf_counter()
        status, answer = await connection.ask(patch)
        accepted = time.perf_counter() - started
        if status != 200:
            raise SystemExit(f"a correction was refused: {status} {answer[:300]!r}")
        status, answer = await connection.ask(query)
        times.append((accepted, time.perf_counter() - started))
        if status != 200:
            raise SystemExit(f"no answer: {status} {answer[:300]!r}")
        (nearest,) = json.loads(answer)["results"][0]["neighbors"]
        if (nearest["id"], sorted(nearest["cuis"])) != (f"image-{row}", changed):
            raise SystemExit(f"the correction of image-{row} is not in the answer: {nearest}")
    connection.close()
    return times
