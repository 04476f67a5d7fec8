"""A process that takes corrections, killed at any moment: no answered one is lost, none is twice.

This file is also the script whose children are killed: it imports once, and forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking import cpu_settings, serving

from annotator.collection import read_collection
from annotator.indexing.build import build_index
from annotator.knn.voting import Voting
from annotator.vectors.table import VectorTable
from index.corrections import NewRow
from index.folder.location import FolderLocation
from index.manifest import number_of
from service import corrections as module
from service.corrections import Corrections, opened_for_writing
from service.engine import open_engine

DIM = 8
IMAGES = [f"v{i}" for i in range(4)]
COMING = [f"new{i}" for i in range(2)]  # come and go
ROUNDS = 30
_LONGEST_S = 0.25


def vector(seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal(DIM)
    return (found / np.linalg.norm(found)).astype(np.float32)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    rows = np.stack([vector(i) for i in range(12)])
    table = VectorTable.of(rows, [f"v{i}" for i in range(12)], encoder="my net")
    concepts = {f"v{i}": ["N0"] for i in range(12)}
    build_index(
        read_collection(table.found(), concepts),
        tmp_path / "index",
        table.embedder,
        voting=Voting(k=3),
        tuning=False,
        runner=table.embed,
        use_cache=False,
    )
    return tmp_path / "index"


# The process that is killed


def work(index: Path, told: int) -> None:
    """Correct images without end, and tell of each answer in a line."""
    module._FOLDED_AT_ONCE, module._TICK_SECONDS = 7, 0.005
    given = cpu_settings(index, writable=True, api_key_file=Path("keys.txt"))
    with opened_for_writing(given) as store:
        engine = open_engine(given)
        counted = Counter(one.image_id for one in store.place.history())
        os.write(told, b"ready 0\n")
        asyncio.run(_correct(Corrections(store, engine, lambda _: None), counted, told))


async def _correct(corrections: Corrections, counted: Counter[str], told: int) -> None:
    async with corrections:
        ids = [*IMAGES, *COMING]
        await asyncio.gather(*(_count_up(corrections, id_, counted[id_] + 1, told) for id_ in ids))


async def _count_up(corrections: Corrections, id_: str, number: int, told: int) -> None:
    """Each correction of an image counts one up; every third of some removes or adds it."""
    while True:
        present = corrections.labels_of(id_)
        gone = id_ in COMING and number % 3 == 0 and present is not None
        row = NewRow(vector(number), bytes(32)) if present is None else None
        after = None if gone else (f"N{number}",)
        await corrections.accept(id_, after, by=str(number), row=row)
        os.write(told, f"{id_} {number}\n".encode())
        number += 1
        await asyncio.sleep(0)


# The process that kills it


def kill_often(index: Path, rounds: int, seed: int) -> dict[str, int]:
    """Kill a child `rounds` times, and look at the index each time."""
    rng = random.Random(seed)
    answers = kills = 0
    answered: dict[str, int] = {}
    for number in range(rounds):
        told, ours = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(told)
                work(index, ours)
            finally:
                os._exit(1)
        os.close(ours)
        with os.fdopen(told) as lines:
            if rng.random() < 0.8:  # else while it replays the journal
                assert lines.readline() == "ready 0\n"
                time.sleep(rng.random() * _LONGEST_S)
            else:
                time.sleep(rng.random() * 0.05)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            for line in lines:
                id_, number = line.split()
                if id_ != "ready":
                    answered[id_] = int(number)
                    answers += 1
        kills += 1
        if number == rounds - 1 or rng.random() < 0.6:  # else the next one finds the journal
            check(index, answered, kills)
            kills = 0
    version = FolderLocation(index).manifest().version
    return {"answers": answers, "versions": number_of(version)}


def check(index: Path, answered: dict[str, int], kills: int) -> None:
    """Every answer is in the history once, and the labels are those of the last correction."""
    place = FolderLocation(index)
    place.settle()
    assert place.problems() == []
    history, stored = place.history(), place.open()
    assert [one.number for one in history] == sorted({one.number for one in history})
    counted: dict[str, list[int]] = defaultdict(list)
    state: dict[str, tuple[str, ...] | None] = dict.fromkeys(IMAGES, ("N0",))
    for one in history:
        assert one.before == state.get(one.image_id), one
        state[one.image_id] = one.after
        counted[one.image_id].append(int(one.by))
    for id_ in [*IMAGES, *COMING]:
        assert counted[id_] == list(range(1, len(counted[id_]) + 1)), id_
        # At each kill, one correction of it at most was written and not answered.
        assert answered.get(id_, 0) <= len(counted[id_]), id_
        assert len(counted[id_]) <= answered.get(id_, 0) + kills, id_
        row = stored.row_of.get(id_)
        assert (None if row is None else stored.labels.row(row)) == state.get(id_), id_
        answered[id_] = len(counted[id_])


def test_corrections_killed_at_any_moment(index: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, str(index), str(ROUNDS), "5"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["answers"] > 5 * counts["versions"] > 0  # many were published together


@pytest.mark.slow
def test_a_server_that_is_killed(index: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"correct:{'k' * 20} Ada\n")
    keys.chmod(0o600)
    options = ("--writable", "--api-key-file", keys)
    key = {"X-API-Key": "k" * 20}
    made = 0
    with serving(index, *options) as server:
        threading.Timer(0.5, server.process.kill).start()
        with contextlib.suppress(httpx.TransportError):
            while True:
                body = {"concepts": [f"N{made + 1}"], "reason": "r"}
                answer = server.client.patch(
                    "/v1/images/v3", json=body, headers={**key, "If-Match": "*"}
                )
                assert answer.status_code == 200
                made += 1
        server.wait()
    assert made > 0 and number_of(FolderLocation(index).manifest().version) == 1
    with serving(index, *options) as server:
        found = server.client.get("/v1/images/v3", headers=key).json()
        assert found["concepts"] in ([f"N{made}"], [f"N{made + 1}"])
        assert number_of(found["index_version"]) == 2
    history = FolderLocation(index).history()
    assert [one.after for one in history] == [(f"N{i + 1}",) for i in range(len(history))]
    assert len(history) in (made, made + 1) and history[0].by == "Ada"


if __name__ == "__main__":
    print(json.dumps(kill_often(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
