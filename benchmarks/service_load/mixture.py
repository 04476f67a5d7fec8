"""A long run: good and bad requests, corrections, reloads, and clients that stall."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from benchmarks.service_load.client import Address, Connection, post, request
from benchmarks.service_load.server import KEY, Server
from index import open_index

_HEADER = f"X-API-Key: {KEY}"
_CLIENTS = 8
_STALLING = 6
_POINTS = 40  # at which memory and descriptors are looked at


def mixture(
    server: Server, index: Path, images: Sequence[bytes], n: int, most_seconds: float
) -> dict[str, Any]:
    """i: n requests, or as many as fit into the time.

    Args:
        server: Takes corrections with `KEY`.
        index: Its index.
        images: To send.
        n: Requests.
        most_seconds: After which it ends.
    """
    return asyncio.run(_mixture(server, index, images, n, most_seconds))


async def _mixture(
    server: Server, index: Path, images: Sequence[bytes], n: int, most_seconds: float
) -> dict[str, Any]:
    kinds = _kinds(open_index(index).ids, images)
    names, shares = list(kinds), np.array([share for share, _ in kinds.values()])
    rng = np.random.default_rng(0)
    order = rng.choice(len(names), n, p=shares / shares.sum())
    picks = rng.integers(0, 1 << 30, n)
    statuses: Counter[str] = Counter()
    unannounced: Counter[str] = Counter()
    points: list[dict[str, float]] = []
    started = time.perf_counter()
    done = reloads = 0

    def look() -> None:
        points.append(
            {
                "requests": done,
                "mib": server.mib("VmRSS"),
                "descriptors": server.descriptors(),
                "seconds": round(time.perf_counter() - started, 1),
            }
        )

    async def client() -> None:
        nonlocal done, reloads
        connection = Connection(server.address)
        while done < n and time.perf_counter() - started < most_seconds:
            number, done = done, done + 1
            name = names[order[number]]
            requests = kinds[name][1]
            status, body = await connection.ask(requests[picks[number] % len(requests)])
            statuses[f"{name}: {status or 'no answer'}"] += 1
            if status >= 500 and (status, _code_of(body)) != (503, "timeout"):
                unannounced[f"{status} {_code_of(body)}"] += 1
            if number % 500 == 250:
                server.process.send_signal(signal.SIGHUP)
                reloads += 1
            if number % (n // _POINTS) == 0:
                look()
        connection.close()

    stalling = [asyncio.create_task(_stall(server.address, i)) for i in range(_STALLING)]
    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    for task in stalling:
        task.cancel()
    await asyncio.gather(*stalling, return_exceptions=True)
    look()
    second = [point for point in points if point["requests"] >= done / 2]
    return {
        "requests": done,
        "reloads": reloads,
        "stalling_clients": _STALLING,
        "statuses": dict(sorted(statuses.items())),
        "unannounced": dict(unannounced),
        "points": points,
        "second_half_mib": _range(second, "mib"),
        "second_half_descriptors": _range(second, "descriptors"),
        "peak_mib": server.mib("VmHWM"),
    }


def _range(points: Sequence[dict[str, float]], what: str) -> dict[str, float]:
    values = [point[what] for point in points]
    return {"first": values[0], "last": values[-1], "least": min(values), "most": max(values)}


def _code_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return "no problem"


async def _stall(address: Address, number: int) -> None:
    """Connections that stop in the headers or in the body, or do not take their answer."""
    texts = (
        b"GET /v1/info HTTP/1.1\r\nHost: lo",
        post("/v1/annotate", [_HEADER, "Content-Type: image/png"], b"x" * 1000)[:-900],
        _get("/openapi.json") * 60,
    )
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(*address, limit=1 << 12)
            with contextlib.closing(writer):
                writer.write(texts[number % len(texts)])
                if number % len(texts) == 2:
                    await asyncio.sleep(40)
                else:
                    await reader.read()


def _get(path: str) -> bytes:
    return request("GET", path, [_HEADER])


def _form(*files: bytes) -> bytes:
    body = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="%d.png"\r\n\r\n' % i
        + file + b"\r\n" for i, file in enumerate(files)
    )  # fmt: skip
    headers = [_HEADER, "Content-Type: multipart/form-data; boundary=B"]
    return post("/v1/annotate", headers, body + b"--B--\r\n")


def _image(data: bytes, path: str = "/v1/annotate") -> bytes:
    return post(path, [_HEADER, "Content-Type: application/octet-stream"], data)


def _jpeg_2000(image: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("L").save(file, "JPEG2000")
    return file.getvalue()


def _correction(image_id: str, **changes: Any) -> bytes:
    headers = [_HEADER, "If-Match: *", "Content-Type: application/json"]
    return request("PATCH", f"/v1/images/{quote(image_id)}", headers, json.dumps(changes).encode())


def _kinds(ids: Sequence[str], images: Sequence[bytes]) -> dict[str, tuple[float, Sequence[bytes]]]:
    """Kinds of requests: their share, and requests of the kind."""
    some = list(ids[:50])
    rng = np.random.default_rng(1)
    cut = [image[: len(image) // 2] for image in images[:20]]
    noise = [rng.bytes(2000) for _ in range(20)]
    spoilt = []
    for image in images[:50]:
        data = bytearray(image)
        for at in rng.integers(0, len(data), 20):
            data[at] = rng.integers(256)
        spoilt.append(bytes(data))
    bodies = [*cut, *noise, *spoilt]
    good_form = [_form(*images[i : i + 3]) for i in range(0, 30, 3)]
    malformed = [
        _get("/nowhere"),
        _get("/v1/search?k=-1"),
        _get("/v1/images/no-such-image"),
        _get("/v1/annotate?id=no-such-image"),
        _image(images[0], "/v1/annotate?k=0"),
        _image(b""),
        b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        post("/v1/annotate", ["Content-Type: image/png"], images[0]),  # without a key
        good_form[0].replace(b"\r\n--B--\r\n", b"\r\n--C--\r\n"),
    ]
    reads = [
        _get(path)
        for i in some
        for path in (
            "/v1/info", "/v1/concepts?q=a", f"/v1/images/{quote(i)}", f"/v1/similar?id={quote(i)}",
            f"/v1/annotate?id={quote(i)}", "/v1/images?limit=20", "/metrics", "/livez", "/",
        )
    ]  # fmt: skip
    return {
        "images": (0.3, [_image(image) for image in images]),
        "forms": (0.05, good_form),
        "JPEG 2000": (0.02, [_image(_jpeg_2000(image)) for image in images[:20]]),
        "pictures": (0.02, [_image(image, "/v1/pictures?side=256") for image in images[:50]]),
        "reads": (0.35, reads),
        "bad images": (0.12, [_image(data) for data in bodies]),
        "malformed": (0.1, malformed),
        "corrections": (
            0.04,
            [_correction(i, **{what: ["C0000001"]}) for i in some for what in ("add", "remove")],
        ),
    }
