"""The load benchmark, tiny, through the real server; and what it counts with."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import pytest
import serve_load
from serve_load_parts.client import NO_ANSWER, REFUSED, Reply, closed_loop, open_loop
from serve_load_parts.speed import quantile, statuses


def test_quantiles_are_of_the_values_themselves() -> None:
    seconds = [0.004, 0.001, 0.003, 0.002]
    assert [quantile(seconds, part) for part in (0, 0.25, 0.5, 0.51, 0.99, 1)] == [1, 1, 2, 3, 4, 4]


def test_statuses_have_names_where_there_was_no_answer() -> None:
    replies = [Reply(0, 0, status) for status in (200, NO_ANSWER, 200, REFUSED)]
    assert statuses(replies) == {"refused": 1, "no_answer": 1, "200": 2}


async def _talk(answers: Iterator[bytes], requests: list[bytes], n: int) -> list[Any]:
    """Ask a server that gives these answers (none to close the connection)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(100):
            requests.append(request)
            answer = next(answers)
            writer.write(answer)
            if not answer or b"close" in answer:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]
    bodies: list[Any] = []
    replies = await closed_loop(
        address, [b"1", b"2"], 1, n=n, seen=lambda status, body: bodies.append(body)
    )
    server.close()
    (refused,) = await closed_loop(address, [b"3"], 1, n=1)
    return [*((r.status, b) for r, b in zip(replies, bodies, strict=True)), refused.status]


def test_the_client_keeps_connections_and_makes_new_ones() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
    answers = [head + b"\r\nab", head + b"connection: close\r\n\r\ncd", b"", head + b"\r\nef"]
    requests: list[bytes] = []
    got = asyncio.run(_talk(iter(answers), requests, 4))
    assert got == [(200, b"ab"), (200, b"cd"), (NO_ANSWER, b""), (200, b"ef"), REFUSED]
    assert requests == [b"1", b"2", b"1", b"2"]


def test_an_open_loop_does_not_wait_for_answers() -> None:
    async def overloaded() -> tuple[list[Reply], int]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            await asyncio.sleep(0.3)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()[:2]
            return await open_loop(address, [b"1"], rate=100, seconds=0.2, connections=5)

    replies, unsent = asyncio.run(overloaded())
    assert (len(replies), unsent) == (5, 15)
    assert statuses(replies) == {"no_answer": 5}
    assert all(reply.seconds >= 0.3 for reply in replies)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_part_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    small = {
        "images": 24, "phantoms": 20, "rounds": 1, "lone": 4, "tail": 24, "requests": 40,
        "overload-s": 0.5, "reloads": 6, "kills": 1,
    }  # fmt: skip
    arguments = [text for name, value in small.items() for text in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["serve_load.py", *arguments])
    serve_load.main()
    lines = (tmp_path / "results" / "serve_load.jsonl").read_text().splitlines()
    records = {record["part"]: record for record in map(json.loads, lines)}
    assert sorted(records) == list(serve_load.PARTS)
    assert all(record["machine"]["cores"] for record in records.values())

    a, b, c, d, e, f, g = (records[part] for part in serve_load.PARTS)
    assert a["failed"] == 0 and all(rates[0] > 0 for rates in a["images_per_second"].values())
    assert b["requests"] == 4 and b["p50_ms"] > 0 and b["bare_p50_ms_by_threads"]["1"] > 0
    assert c["statuses"] == {"200": 24} and c["p99_ms"] >= c["p50_ms"] > 0
    assert d["statuses"] == {"200": 40} and d["rss"][-1]["requests"] == 40
    assert e["statuses"].keys() <= {"200", "429"} and e["seconds_to_recover"] < 60
    assert f["outcomes"] == {"sound: 200": 3, "damaged: 409": 3}
    assert f["wrong_outcomes"] == f["failed_requests"] == f["mixed_answers"] == 0
    assert g["verify_exit_code"] == 0
    assert [end["exit_code"] for end in g["sigterm"].values()] == [0, 0]
    assert g["sigterm"]["new_connections"]["dropped"] == 0
