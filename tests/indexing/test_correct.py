"""Corrected labels: the vote has them at once, tuning uses them, and their history is kept."""

from __future__ import annotations

import getpass
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from versions import numbered

from annotator.collection import Collection
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.indexing.build import build_index, tune_index
from annotator.indexing.correct import relabel_images, undone_corrections
from annotator.indexing.metadata import describe
from annotator.knn.cross_validation import stored_lists
from annotator.pipeline import Annotator
from annotator.tables.corrections import WantedLabels
from index import IndexProblem, open_index
from index.folder.location import FolderLocation
from index.milvus.location import MilvusLocation


def swapped(directory: Path) -> dict[str, WantedLabels]:
    """All images, with the concept NEW instead of each C0."""
    stored = open_index(directory)
    return {
        id_: WantedLabels(None, ("NEW",), ("C0",))
        for i, id_ in enumerate(stored.ids)
        if "C0" in stored.labels.row(i)
    }


def test_the_vote_has_the_new_labels_at_once(
    patterns: Collection, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    wanted = swapped(tuned_index)
    refs = [ref for ref in patterns.images if ref.id in wanted]
    before = list(Annotator.open(tuned_index, embedder=tiny_embedder).stream(refs))
    assert sum("C0" in a.cuis for a in before) > len(refs) / 2
    done = relabel_images(tuned_index, wanted, reason="a new name", names={"NEW": "new"})
    assert (len(done.corrections), done.unchanged, done.unknown) == (len(refs), 0, ())
    assert numbered(done.change.version) == "v000002"
    after = list(Annotator.open(tuned_index, embedder=tiny_embedder).stream(refs))
    for was, now in zip(before, after, strict=True):
        swap = {"C0": "NEW"}
        assert sorted(swap.get(cui, cui) for cui in was.cuis) == sorted(now.cuis)
        assert [n.similarity for n in was.neighbors] == [n.similarity for n in now.neighbors]
    assert open_index(tuned_index).names["NEW"] == "new"
    first = FolderLocation(tuned_index).history()[0]
    assert (first.number, first.by, first.reason) == (1, getpass.getuser(), "a new name")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.at)
    assert first.before is not None and "C0" in first.before


def test_the_same_input_twice_changes_nothing(tuned_index: Path) -> None:
    wanted = {"i003": WantedLabels(("C5", "C1")), "i004": WantedLabels(())}
    assert len(relabel_images(tuned_index, wanted, by="x").corrections) == 2
    again = relabel_images(tuned_index, wanted, by="y")
    assert (numbered(again.change.version), again.corrections, again.unchanged) == (
        "v000002",
        (),
        2,
    )


def test_unknown_ids_cost_the_others_nothing(tuned_index: Path) -> None:
    wanted = {id_: WantedLabels(("C5",)) for id_ in ("nobody", "folder/i003.png", "i004")}
    done = relabel_images(tuned_index, wanted)
    assert done.unknown == ("nobody",) and len(done.corrections) == 2
    assert "'folder/i003.png' -> 'i003'" in done.notes[0]
    stored = open_index(tuned_index)
    assert stored.labels.row(stored.row_of["i003"]) == ("C5",)


def test_tuning_uses_the_new_labels(tuned_index: Path) -> None:
    place = FolderLocation(tuned_index)
    before = place.open()
    tuned = tune_index(tuned_index).tuned
    rng = np.random.default_rng(0)
    ids = list(before.ids)
    shuffled = dict(zip(ids, rng.permutation(ids).tolist(), strict=True))
    wanted = {
        id_: WantedLabels(before.labels.row(before.row_of[other]))
        for id_, other in shuffled.items()
    }
    changed = len(relabel_images(tuned_index, wanted).corrections)
    assert changed > 20
    expected = {"in all": changed, "after tuning": changed}
    assert describe(place.open(), place)["corrections"] == expected
    lists = [stored_lists(stored) for stored in (before, place.open())]
    assert lists[0] is not None and lists[1] is not None
    assert np.array_equal(lists[0].found.rows, lists[1].found.rows)
    retuned = tune_index(tuned_index).tuned
    assert retuned.f1 < tuned.f1 - 0.1  # nothing can be learnt of shuffled labels
    described = describe(place.open(), place)
    assert described["corrections"] == {"in all": changed, "after tuning": 0}
    assert described["estimate"]["f1"] == retuned.f1


def test_a_new_build_says_what_it_undid(
    patterns: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    place = FolderLocation(tmp_path / "index")

    def build() -> Any:
        return build_index(patterns, place, tiny_embedder, adaptation="none", tuning=False)

    build()
    wanted = {"i003": WantedLabels(("X",)), "i004": WantedLabels(("Y",))}
    relabel_images(place, wanted)
    assert undone_corrections(place) == []
    build()
    assert [one.image_id for one in undone_corrections(place)] == ["i003", "i004"]
    assert describe(place.open(), place)["corrections"] == {"in all": 2, "after tuning": 0}
    relabel_images(place, wanted)
    assert undone_corrections(place) == [] and len(place.history()) == 4


def test_an_index_without_corrections_says_nothing_of_them(tuned_index: Path) -> None:
    place = FolderLocation(tuned_index)
    assert "corrections" not in describe(place.open(), place)
    assert place.manifest().about.get("corrections") is None
    with pytest.raises(IndexProblem, match="does not exist"):
        relabel_images(tuned_index.with_name("nowhere"), {})
    milvus = MilvusLocation.at("milvus://127.0.0.1:1/x")
    with pytest.raises(IndexProblem, match="cannot be corrected"):
        milvus.correct([])
