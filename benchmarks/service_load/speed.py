"""Throughput, the latency of a lone client and of eight, memory, overload."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.service_load.bare import Bare
from benchmarks.service_load.client import (
    Reply,
    answered,
    closed_loop,
    open_loop,
    quantile,
    statuses,
)
from benchmarks.service_load.server import Server

_CONNECTIONS = 400  # of an overload


def ask(server: Server, requests: Sequence[bytes], clients: int, n: int) -> list[Reply]:
    """n requests by so many clients."""
    return asyncio.run(closed_loop(server.address, requests, clients, n=n))


def throughput(
    server: Server, bare: Bare, requests: Sequence[bytes], command: Sequence[str], rounds: int
) -> dict[str, Any]:
    """a: all images from 32 clients, against `annotate` without and with its start, in turns."""
    n = len(requests)
    ask(server, requests, 32, min(n, 256))  # warm up
    rates: dict[str, list[float]] = {"service": [], "annotate": [], "annotate_with_start": []}
    cpu: dict[str, list[float]] = {"service": [], "annotate": []}
    failed = 0
    for _ in range(rounds):
        before = server.cpu_seconds()
        started = time.perf_counter()
        replies = ask(server, requests, 32, n)
        rates["service"].append(n / (time.perf_counter() - started))
        cpu["service"].append(round(1000 * (server.cpu_seconds() - before) / n, 3))
        failed += n - len(answered(replies))
        before = bare.cpu_seconds()
        rates["annotate"].append(n / bare.ask("annotate"))
        cpu["annotate"].append(round(1000 * (bare.cpu_seconds() - before) / n, 3))
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rates["annotate_with_start"].append(n / (time.perf_counter() - started))
    return {
        "clients": 32, "images": n, "failed": failed, "images_per_second": rates,
        "cpu_ms_per_image": cpu,
    }  # fmt: skip


def lone(
    server: Server, bare: Bare, requests: Sequence[bytes], n: int, rounds: int
) -> dict[str, Any]:
    """b: one client, against the bare way of one image, in turns.

    The bare way is timed with one thread and with one a core; the better one counts.
    """
    service: list[float] = []
    without: dict[int, list[float]] = {1: [], len(os.sched_getaffinity(0)): []}
    ask(server, requests, 1, 10)  # warm up
    for _ in range(rounds):
        service += answered(ask(server, requests, 1, n))
        for threads in without:
            without[threads] += bare.ask(f"lone {n} {threads}")
    bare_p50 = {str(threads): quantile(seconds, 0.5) for threads, seconds in without.items()}
    p50 = quantile(service, 0.5)
    return {
        "requests": len(service),
        "p50_ms": p50,
        "bare_p50_ms_by_threads": bare_p50,
        "difference_ms": round(p50 - min(bare_p50.values()), 3),
    }


def eight(server: Server, requests: Sequence[bytes], n: int) -> dict[str, Any]:
    """c: the tail of the latency at eight clients."""
    ask(server, requests, 8, 64)  # warm up
    replies = ask(server, requests, 8, n)
    p50, p99 = (quantile(answered(replies), part) for part in (0.5, 0.99))
    return {
        "clients": 8, "statuses": statuses(replies), "p50_ms": p50, "p99_ms": p99,
        "p99_over_p50": round(p99 / p50, 3),
    }  # fmt: skip


def memory(server: Server, requests: Sequence[bytes], n: int, points: int = 20) -> dict[str, Any]:
    """d: resident memory while n requests of 16 clients go by."""
    ask(server, requests, 16, min(n, 256))  # warm up
    rss = [{"requests": 0, "mib": server.mib("VmRSS")}]
    counts: Counter[str] = Counter()
    for point in range(1, points + 1):
        counts.update(statuses(ask(server, requests, 16, n // points)))
        rss.append({"requests": point * (n // points), "mib": server.mib("VmRSS")})
    return {
        "clients": 16, "statuses": dict(counts), "rss": rss, "peak_mib": server.mib("VmHWM"),
        "growth_mib": round(rss[-1]["mib"] - rss[0]["mib"], 1),
        "growth_of_second_half_mib": round(rss[-1]["mib"] - rss[points // 2]["mib"], 1),
    }  # fmt: skip


def overload(server: Server, requests: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """e: ten times what it can do, then the time until a lone request is as quick as before.

    Recovered means: three requests in a row succeed, each within twice the earlier median.
    """
    started = time.perf_counter()
    sustained = answered(ask(server, requests, 32, max(64, len(requests) // 4)))
    rate = len(sustained) / (time.perf_counter() - started)
    usual = quantile(answered(ask(server, requests, 1, 20)), 0.5)
    started = time.perf_counter()
    replies, unsent = asyncio.run(
        open_loop(server.address, requests, 10 * rate, seconds, _CONNECTIONS)
    )
    spent = time.perf_counter() - started
    last = max(reply.due for reply in replies)
    recovered = _recover(server, requests, 2 * usual / 1000)
    return {
        "sustained_per_second": round(rate, 1),
        "offered_per_second": round(10 * rate, 1),
        "sent_per_second": round(len(replies) / seconds, 1),
        "not_sent": unsent,
        "statuses": statuses(replies),
        "accepted_per_second": round(len(answered(replies)) / spent, 1),
        "accepted_p50_ms": quantile(answered(replies), 0.5),
        "accepted_p99_ms": quantile(answered(replies), 0.99),
        "seconds_to_recover": round(recovered - last, 3),
    }


def _recover(server: Server, requests: Sequence[bytes], limit: float) -> float:
    """When the first of three quick answers in a row was asked for."""
    in_a_row: list[float] = []
    deadline = time.perf_counter() + 120
    while len(in_a_row) < 3:
        (reply,) = ask(server, requests, 1, 1)
        quick = reply.status == 200 and reply.seconds <= limit
        in_a_row = [*in_a_row, reply.due] if quick else []
        if time.perf_counter() > deadline:
            raise SystemExit("it has not recovered within two minutes")
    return in_a_row[0]


def annotate_command(index: Path, images: Path, device: str) -> list[str]:
    """`annotator annotate`, without its cache."""
    command = [sys.executable, "-m", "annotator", "annotate", str(images), "--index", str(index)]
    return [*command, "--no-cache", "--device", device]
