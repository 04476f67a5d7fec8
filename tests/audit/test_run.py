"""Whole audits of drawn pictures, with an encoder that sees their large structure."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.audit.findings import AuditResult, to_csv
from annotator.audit.inputs import AuditLabels, AuditLoader, ReferenceIndex
from annotator.audit.run import audit_images, trace_images
from annotator.collection import Collection
from annotator.errors import AnnotatorError
from annotator.images.ref import ImageRef
from annotator.indexing.build import build_index
from annotator.knn.voting import Voting

ODD = ['a,b "c"', "é ü", "=1+1", "-x", "i'm <b>"]  # ids of the first images
N = 60


@pytest.fixture(scope="module")
def images(draw: Callable, encode: Callable, changed: Callable) -> list[ImageRef]:
    """60 images of two kinds and what was planted: two copies and a picture of another kind."""
    pictures = draw(N, seed=1, side=96)
    half = np.linspace(0, 90, 96)[None, :].repeat(96, axis=0).astype(np.uint8)
    pictures = [p // 2 + (half if i % 2 else half[:, ::-1]) for i, p in enumerate(pictures)]
    files = {(ODD[i] if i < len(ODD) else f"i{i:02d}"): encode(p) for i, p in enumerate(pictures)}
    files |= {
        "mirrored": changed(pictures[1], "mirrored"),
        "again": files["i10"],
        "odd": encode(np.indices((96, 96)).sum(axis=0).astype(np.uint8) // 12 % 2 * 255),
    }
    return [ImageRef(id_, id_, lambda d=d: d) for id_, d in files.items()]


@pytest.fixture(scope="module")
def labels(images: list[ImageRef]) -> AuditLabels:
    ids = [ref.id for ref in images]
    concepts = {id_: (f"C{i % 2}", "C9") for i, id_ in enumerate(ids[:N])}
    concepts["i20"], concepts["i33"] = ("C1", "C9"), ("C0", "C9")  # wrong
    groups = {id_: f"p{i // 2}" for i, id_ in enumerate(ids[:N])}
    sides = {id_: "train" if i < 40 else "test" for i, id_ in enumerate(ids)}
    sides["i31"], sides["again"] = "test", "train"
    return AuditLabels(concepts, {"C1": "right"}, groups, sides)


@pytest.fixture(scope="module")
def loader(pixel_embedder: Any) -> AuditLoader:
    return AuditLoader(pixel_embedder, workers=1)


@pytest.fixture(scope="module")
def result(images: list[ImageRef], labels: AuditLabels, loader: AuditLoader) -> AuditResult:
    return audit_images(images, labels, loader)


def found(result: AuditResult) -> list[tuple[str, str, str]]:
    return [(f.kind, f.image_id, f.other_id) for f in result.findings]


def test_all_that_was_planted_is_found_and_nothing_else(result: AuditResult) -> None:
    rows = found(result)
    assert rows[:3] == [
        ("leak", "é ü", "mirrored"),
        ("straddle", "i31", "i30"),
        ("exact", "i10", "again"),
    ]
    assert {row[:2] for row in rows[3:5]} == {("label", "i20"), ("label", "i33")}
    assert rows[5:] == [("unlike", "odd", "")]
    details = {f.image_id: f.detail for f in result.findings}
    assert details["é ü"] == "mirrored; train and test"
    assert details["i31"] == "group p15: 1 in test, 1 in train"
    assert details["i20"].startswith("lacks C0 (") and "; holds C1 right (" in details["i20"]
    assert result.notes == [] and not result.failed and result.others is None


def test_the_number_of_threads_changes_nothing(
    images: list[ImageRef], labels: AuditLabels, loader: AuditLoader, result: AuditResult
) -> None:
    again = audit_images(images, labels, replace(loader, workers=4))
    assert to_csv(again.findings) == to_csv(result.findings)


def test_the_order_of_the_images_changes_no_finding(
    images: list[ImageRef], labels: AuditLabels, loader: AuditLoader, result: AuditResult
) -> None:
    again = audit_images(images[::-1], labels, loader)

    def unordered(result: AuditResult) -> set[tuple[str, frozenset[str]]]:
        return {(kind, frozenset(ids)) for kind, *ids in found(result)}

    assert unordered(again) == unordered(result)


def test_copies_of_an_outlier_do_not_vouch_for_it(
    images: list[ImageRef], loader: AuditLoader
) -> None:
    odd = [ImageRef(f"odd{n}", f"odd{n}", images[-1].read) for n in range(6)]
    result = audit_images([*images[:N], *odd], AuditLabels(), loader)
    assert {f.image_id for f in result.findings if f.kind == "unlike"} == {ref.id for ref in odd}


def test_an_image_alone_and_one_that_cannot_be_read(
    images: list[ImageRef], loader: AuditLoader
) -> None:
    broken = ImageRef("broken", "broken.png", lambda: b"broken")
    result = audit_images([images[0], broken], AuditLabels({images[0].id: ("C1",)}), loader)
    assert [ref.id for ref in result.images] == [images[0].id]
    assert result.findings == [] and list(result.failed) == ["broken.png"]
    assert len(result.notes) == 2  # neither concepts nor outliers could be checked
    with pytest.raises(AnnotatorError, match="None of the 1 images"):
        audit_images([broken], AuditLabels(), loader)


def test_images_are_traced_to_another_collection(
    images: list[ImageRef], loader: AuditLoader
) -> None:
    by_id = {ref.id: ref for ref in images}
    result = trace_images([by_id["mirrored"], by_id["again"], by_id["i50"]], images[:12], loader)
    assert found(result)[:2] == [("copy", "again", "i10"), ("copy", "mirrored", "é ü")]
    assert result.findings[0].score == 1.0 and result.findings[0].detail.startswith("same pixels; ")
    assert result.findings[2].kind != "copy" and result.findings[2].image_id == "i50"
    assert all(len(f.sources) == 5 for f in result.findings)
    assert result.others is not None and len(result.images) == 3


@pytest.mark.parametrize("turned", [False, True])
def test_neither_collection_may_be_unreadable(
    turned: bool, images: list[ImageRef], loader: AuditLoader
) -> None:
    broken = [ImageRef("broken", "broken.png", lambda: b"broken")]
    first, second = (broken, images[:1]) if turned else (images[:1], broken)
    with pytest.raises(AnnotatorError, match="of one of the two"):
        trace_images(first, second, loader)


@pytest.fixture(scope="module")
def indexes(
    images: list[ImageRef], labels: AuditLabels, pixel_embedder: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, ReferenceIndex]:  # fmt: skip
    """Of the 60 images, all concepts right; with and without thumbnails."""
    refs = images[:N]
    concepts = {ref.id: (f"C{i % 2}", "C9") for i, ref in enumerate(refs)}
    collection = Collection(refs, concepts, {}, {}, labels.groups, [], [], {}, [])
    folder = tmp_path_factory.mktemp("indexes")
    made = {}
    for name, thumbnails in (("pictures", True), ("plain", False)):
        build_index(
            collection, folder / name, pixel_embedder,
            adaptation="none", voting=Voting(k=5), tuning=False, thumbnails=thumbnails,
        )  # fmt: skip
        made[name] = ReferenceIndex.open(folder / name)
    return made


def test_new_images_are_judged_by_an_index(
    images: list[ImageRef], labels: AuditLabels, loader: AuditLoader,
    indexes: dict[str, ReferenceIndex],
) -> None:  # fmt: skip
    by_id = {ref.id: ref for ref in images}
    new = [by_id["odd"], by_id["mirrored"], by_id["i20"], by_id["i24"]]
    copies = [ImageRef(f"new-{ref.id}", ref.where, ref.read) for ref in new]
    sets = {"new-i20": ("C1", "C9"), "new-i24": ("C0", "C9")}  # i20 looks like C0
    result = audit_images(copies, AuditLabels(sets), loader, index=indexes["pictures"])
    assert found(result) == [("label", "new-i20", ""), ("unlike", "new-odd", "")]
    assert "fifth nearest case of the index" in result.findings[1].detail
    # If the index holds half of the images, they judge each other; of which there are too few.
    given, index = AuditLabels(sets), indexes["pictures"]
    half = audit_images([new[3], copies[2]], given, loader, index=index)
    assert found(half)[1:] == [] and half.notes[0].startswith("Concepts were not checked")
    third = audit_images(
        [new[3], *copies[2:]], AuditLabels(sets), loader, index=indexes["pictures"]
    )
    assert ("label", "new-i20", "") in found(third) and third.notes == []


def test_outliers_take_the_vectors_in_the_cache_of_the_index(
    images: list[ImageRef], loader: AuditLoader, indexes: dict[str, ReferenceIndex], tmp_path: Path
) -> None:
    shutil.copytree(indexes["plain"].directory, tmp_path / "index")
    index = ReferenceIndex.open(tmp_path / "index")
    assert index.writable_cache == index.cache_file
    index.cache_file.unlink()
    result = audit_images(images[-1:], AuditLabels(), loader, index=index)
    assert (
        result.findings == [] and len(result.notes) == 1 and "not in its cache" in result.notes[0]
    )


def test_images_are_traced_to_an_index(
    images: list[ImageRef], loader: AuditLoader, indexes: dict[str, ReferenceIndex]
) -> None:
    mirrored, again, odd = images[-3:]
    result = trace_images([mirrored, again, odd], indexes["pictures"], loader)
    assert found(result)[:2] == [("copy", "again", "i10"), ("copy", "mirrored", "é ü")]
    assert result.findings[0].score > 0.95 and result.findings[1].detail.startswith("mirrored; ")
    assert result.findings[2].kind == "source" and result.notes == []
    plain = trace_images([mirrored, again], indexes["plain"], loader)
    assert {f.kind for f in plain.findings} <= {"close", "source"}
    assert len(plain.notes) == 1 and "keeps no small pictures" in plain.notes[0]
