"""Whole fits of tiny networks: what comes of them, the same bytes each time, killed or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotator.collection import Collection
from annotator.encoders.registry import make_embedder
from annotator.fitting.fit import FittedEncoder, fit_encoder
from annotator.fitting.recipe import Recipe

NAME = "efficientnet-lite0@64"
QUICK = Recipe(epochs=2, copies=3, batch_size=8, learning_rate=1e-3, ema=0.5, neighbor_weight=0.1)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def few(patterns: Collection) -> Collection:
    """40 images of 20 patients."""
    return replace(patterns, images=patterns.images[:40])


def fit(collection: Collection, out: Path, **options: object) -> FittedEncoder:
    options = {"recipe": QUICK, "folds": 2, "name": NAME, "device": "cpu", "workers": 2} | options
    return fit_encoder(collection, out, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def fitted(few: Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "fitted"
    fit(few, out)
    return out


def test_the_branches_learn_the_concepts(few: Collection, fitted: Path) -> None:
    embedder = make_embedder(f"fitted:{fitted}", device="cpu", precision="fp32")
    known = embedder.fitted
    assert known is not None and len(known.columns) == 2
    assert set(known.concepts) == {"C0", "C1", "C2", "C9"}
    assert embedder.dim == known.columns[-1][1] == sum(embedder.blocks)
    from annotator.encoders.local_runner import embed_images

    found = list(embed_images(few.images, embedder))
    vectors = np.stack([result.vector for result in found if result.vector is not None])
    folds = known.folds_of(np.stack([np.frombuffer(r.content, np.uint8) for r in found]))
    assert set(folds.tolist()) == {0, 1}
    patients = [few.groups[ref.id] for ref in few.images]
    assert len(set(zip(patients, folds.tolist(), strict=True))) == len(set(patients))
    kinds = [known.concepts.index(c) for c in ("C0", "C1", "C2")]
    right = 0
    for branch in (0, 1):
        odds = known.log_odds(vectors, branch)[:, kinds]
        unseen = np.flatnonzero(folds == branch)
        truth = [int(few.concepts[few.images[i].id][0][1]) for i in unseen]
        right += int((odds[unseen].argmax(axis=1) == truth).sum())
    assert right >= 30  # of 40; 13 by chance


def test_the_folder_tells_what_it_is(fitted: Path) -> None:
    card = (fitted / "README.md").read_text()
    assert "40 images in 20 groups" in card and "F1 of the vote" in card
    assert not any(f"i{i:03d}" in card for i in range(40))
    assert (fitted / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert make_embedder(str(fitted), device="cpu").name == f"fitted:{fitted}"


# The fit of `fitted` as a process of its own.
SCRIPT = """
import sys
from annotator.collection import read_collection
from annotator.fitting.fit import fit_encoder
from annotator.fitting.recipe import Recipe
folder, out = sys.argv[1:]
few = read_collection(
    folder + "/images", folder + "/concepts.csv", groups=folder + "/groups.csv", only="id:i0[0-3]*"
)
recipe = Recipe(
    epochs=2, copies=3, batch_size=8, learning_rate=1e-3, ema=0.5, neighbor_weight=0.1
)
fit_encoder(few, out, "efficientnet-lite0@64", recipe=recipe, folds=2, device="cpu", workers=2,
            tell=lambda line: print(line, file=sys.stderr, flush=True))
"""


def test_killed_and_gone_on_with_it_is_the_same(
    few: Collection, fitted: Path, tmp_path: Path
) -> None:
    folder, out = Path(few.images[0].where).parents[1], tmp_path / "fitted"
    command = [sys.executable, "-c", SCRIPT, str(folder), str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as first:
        assert first.stderr is not None
        assert "Branch 1 of 2, epoch 1 of 2" in first.stderr.readline()
        while not (tmp_path / "fitted.partial" / "branch0.pt").is_file():
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        rest = first.stderr.read()
    assert "Branch 2" not in rest and not out.exists()
    said: list[str] = []
    fit(few, out, tell=said.append)
    assert [line.partition(":")[0] for line in said] == [
        "Branch 1 of 2, epoch 2 of 2", "Branch 2 of 2, epoch 1 of 2", "Branch 2 of 2, epoch 2 of 2",
    ]  # fmt: skip
    for file in ("model.safetensors", "config.json"):
        assert (out / file).read_bytes() == (fitted / file).read_bytes()
    assert not list(tmp_path.glob("*.partial"))
