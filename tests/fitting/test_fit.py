"""Whole fits of tiny networks: what comes of them, the same bytes each time, killed or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_models import SAVERS, make_xrv_small

from annotator.collection import Collection
from annotator.encoders.fitted import SEEN_BY_ALL
from annotator.encoders.local_runner import embed_images
from annotator.encoders.registry import make_embedder
from annotator.errors import AnnotatorError
from annotator.fitting.fit import FittedEncoder, fit_encoder
from annotator.fitting.folder import working_folder
from annotator.fitting.recipe import Recipe
from annotator.images.decode import decode
from annotator.images.ref import ImageRef, unusable

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
    assert known is not None and len(known.columns) == 3
    assert set(known.concepts) == {"C0", "C1", "C2", "C9"}
    assert embedder.dim == known.columns[-1][1] == sum(embedder.blocks)
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
    odds = known.log_odds(vectors, 2)[:, kinds]  # of the branch that was trained on all
    everyone = [int(few.concepts[ref.id][0][1]) for ref in few.images]
    assert (odds.argmax(axis=1) == everyone).sum() >= 36


def test_the_folder_tells_what_it_is(fitted: Path) -> None:
    card = (fitted / "README.md").read_text()
    assert "40 images in 20 groups" in card and "F1 of the vote" in card
    assert "| 2, each trained without a fold of its own, and one that was trained on all |" in card
    assert "| 3 | 2 (kept) |" in card or "| 3 | 1 (kept) |" in card
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
        assert "Branch 1 of 3, epoch 1 of 2" in first.stderr.readline()
        first.send_signal(signal.SIGKILL)
        rest = first.stderr.read()
    assert "Branch 2" not in rest and not out.exists()
    said: list[str] = []
    fit(few, out, tell=said.append)
    assert [line.partition(":")[0] for line in said] == [
        "Branch 1 of 3, epoch 2 of 2", "Branch 2 of 3, epoch 1 of 2", "Branch 2 of 3, epoch 2 of 2",
        "Branch 3 of 3, epoch 1 of 2", "Branch 3 of 3, epoch 2 of 2",
    ]  # fmt: skip
    for file in ("model.safetensors", "config.json"):
        assert (out / file).read_bytes() == (fitted / file).read_bytes()
    assert not list(tmp_path.glob("*.partial"))


# --- What else it does, on the smallest of fits ---------------------------------------------------

SMALLEST = Recipe(epochs=1, copies=2)


def smallest(collection: Collection, out: Path, **options: object) -> FittedEncoder:
    few = replace(collection, images=collection.images[:24])
    return fit(few, out, **{"recipe": SMALLEST, "folds": 1} | options)


def test_one_branch_holds_a_fifth_back(patterns: Collection, tmp_path: Path) -> None:
    smallest(patterns, tmp_path / "fitted")
    known = make_embedder(f"fitted:{tmp_path / 'fitted'}", device="cpu").fitted
    assert known is not None and len(known.columns) == 1
    assert sorted(known.folds.tolist()) == [SEEN_BY_ALL] * 18 + [0] * 6


def test_a_file_of_two_folds_has_been_seen(patterns: Collection, tmp_path: Path) -> None:
    copies = [replace(ref, id=f"copy-{ref.id}") for ref in patterns.images[:24]]
    concepts = {ref.id: patterns.concepts[ref.id.removeprefix("copy-")] for ref in copies}
    both = replace(
        patterns,
        images=[*patterns.images[:24], *copies],
        concepts={**patterns.concepts, **concepts},
        groups={},
    )
    fit(both, tmp_path / "fitted", recipe=SMALLEST)
    known = make_embedder(f"fitted:{tmp_path / 'fitted'}", device="cpu").fitted
    assert known is not None and len(known.folds) == 24
    assert set(known.folds.tolist()) == {SEEN_BY_ALL, 0, 1}


def test_unusable_images_are_left_out(patterns: Collection, tmp_path: Path) -> None:
    broken = unusable("i100", "i100.png", "it is broken")
    blank = tmp_path / "blank.png"
    Image.new("L", (40, 40), 9).save(blank)
    flat = ImageRef("i101", str(blank), blank.read_bytes)
    images = [broken, *patterns.images[:22], flat]
    result = smallest(replace(patterns, images=images), tmp_path / "fitted")
    assert result.images == 22
    assert {where: error.code for where, error in result.failed.items()} == {
        "i100.png": "unreadable", str(blank): "blank",
    }  # fmt: skip


def test_another_fit_starts_afresh(patterns: Collection, tmp_path: Path) -> None:
    out, said = tmp_path / "fitted", list[str]()

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smallest(patterns, out, tell=stop)
    assert not out.exists()
    more = {ref.id: (*patterns.concepts[ref.id], "C7") for ref in patterns.images}
    smallest(replace(patterns, concepts=more), out, seed=1, tell=said.append)
    assert said[0].endswith("fitted.partial was of other labels, settings.")
    config = json.loads((out / "config.json").read_text())
    assert config["seed"] == 1 and "C7" in config["concepts"]


def test_what_is_there_is_not_lost(patterns: Collection, tmp_path: Path) -> None:
    out = tmp_path / "fitted"
    smallest(patterns, out)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(AnnotatorError, match="exists already"):
        smallest(patterns, out)
    smallest(patterns, out, seed=3, overwrite=True)
    assert (out / "model.safetensors").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["fitted"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(AnnotatorError, match="is no fitted encoder, so --overwrite"):
        smallest(patterns, tmp_path / "mine", overwrite=True)
    with (
        working_folder(tmp_path / "busy"),
        pytest.raises(AnnotatorError, match="Another process is fitting"),
    ):
        smallest(patterns, tmp_path / "busy")


def test_a_folder_of_someone_else_is_left_alone(patterns: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "fitted.partial"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(AnnotatorError, match=r"holds something else, such as thesis\.tex"):
        smallest(patterns, tmp_path / "fitted")
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_sides_are_not_mirrored(patterns: Collection, tmp_path: Path) -> None:
    named = replace(patterns, names={"C1": "Structure of left lung"})
    for names, out, flips in ((patterns, "a", True), (named, "b", False)):
        smallest(names, tmp_path / out)
        assert json.loads((tmp_path / out / "config.json").read_text())["flip"] is flips


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"images": 19}, {}, "19 usable images are too few"),
        ({"concepts": "each its own"}, {}, "None of the 24 concepts has 2 images"),
        ({"groups": "two"}, {"folds": 3}, "2 groups cannot be split into 3 folds"),
        ({}, {"name": f"{NAME}+timm:resnet18"}, "one is fitted at a time"),
        ({}, {"name": "nonsense"}, "Unknown encoder 'nonsense'"),
    ],
)
def test_what_cannot_be_fitted(
    patterns: Collection, tmp_path: Path, change: dict[str, Any], options: dict[str, Any],
    message: str,
) -> None:  # fmt: skip
    images = patterns.images[: change.get("images", 24)]
    collection = replace(patterns, images=images)
    if "concepts" in change:
        collection = replace(collection, concepts={ref.id: (f"C{ref.id}",) for ref in images})
    if "groups" in change:
        collection = replace(
            collection, groups=dict.fromkeys(collection.groups, "a") | {images[0].id: "b"}
        )
    with pytest.raises(AnnotatorError, match=message):
        smallest(collection, tmp_path / "fitted", **options)
    assert not list(tmp_path.iterdir())


def test_a_fitted_encoder_is_not_fitted_again(
    few: Collection, fitted: Path, tmp_path: Path
) -> None:
    with pytest.raises(AnnotatorError, match="is fitted already"):
        fit(few, tmp_path / "again", name=str(fitted))


@pytest.mark.parametrize("kind", SAVERS)
def test_networks_of_every_library(
    patterns: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "xrv":
        make_xrv_small(monkeypatch)
    name, out = SAVERS[kind](tmp_path / "model"), tmp_path / "fitted"
    if kind == "onnx":
        with pytest.raises(AnnotatorError, match="an ONNX file holds a network that only runs"):
            smallest(patterns, out, name=name)
        return
    smallest(patterns, out, name=name, recipe=replace(SMALLEST, batch_size=8))
    base, embedder = (
        make_embedder(n, device="cpu", precision="fp32") for n in (name, f"fitted:{out}")
    )
    picture = decode(patterns.images[0].read()).frames[0]
    general, vector = (e.embed(e.prepare([picture]))[0] for e in (base, embedder))
    assert embedder.blocks == (base.dim, base.dim)
    assert vector[: base.dim] * 2**0.5 == pytest.approx(general, abs=1e-5)
    own = vector[base.dim :] * 2**0.5
    assert np.linalg.norm(own) == pytest.approx(1, abs=1e-5)
    assert np.abs(own - general).max() > 1e-4  # it has learnt something

    for maps, expected in (
        (embedder.position_contributions(picture), base.position_contributions(picture)),
        (embedder.patch_contributions(picture), base.patch_contributions(picture)),
    ):
        assert (maps is None) == (expected is None)
        if maps is not None and expected is not None:
            assert [m.start for m in maps] == [0, base.dim]
            assert maps[0].values * 2**0.5 == pytest.approx(expected[0].values, abs=1e-5)
