"""Images that come to an index and go from it: what is found, what is kept, what is forgotten."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import numpy as np
import pytest
from PIL import Image
from versions import numbered

from annotator.annotation import Annotation
from annotator.collection import Collection, read_collection
from annotator.encoders.cache import CACHE_FILE, EmbeddingCache
from annotator.encoders.local_runner import embed_images
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError
from annotator.indexing.build import build_index, tune_index
from annotator.indexing.metadata import IndexMetadata
from annotator.indexing.update import add_images, compact_index, remove_images
from annotator.knn.cross_validation import stored_lists
from annotator.pipeline import Annotator
from annotator.vectors.encoder import VectorEncoder
from annotator.vectors.table import VectorTable
from index import IndexProblem, StoredIndex, open_index
from index.folder.location import FolderLocation
from index.manifest import read_manifest
from index.segments import CONTENT

Draw = Callable[[Path, int, int], None]


def collect(folder: Path, concepts: str = "C7;C8") -> Collection:
    """All images of a folder, each with the same concepts and of the same patient."""
    names = sorted(path.stem for path in folder.glob("*.png"))
    tables = {
        "concepts": "ID,CUIs\n" + "".join(f"{name},{concepts}\n" for name in names),
        "groups": "ID,patient\n" + "".join(f"{name},new\n" for name in names),
        "names": "CUI,Name\nC7,seven\n",
    }
    for key, text in tables.items():
        (folder.parent / f"{key}.csv").write_text(text)
    return read_collection(
        folder,
        folder.parent / "concepts.csv",
        names=folder.parent / "names.csv",
        groups=str(folder.parent / "groups.csv"),
    )


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """A folder of images unlike any of `patterns`, but like each other."""
    folder = tmp_path / "new"
    folder.mkdir()
    for i in range(12):
        rng = np.random.default_rng(i)
        picture = np.tile(np.repeat([0, 255], 20), (32, 1)) + rng.normal(0, 8, (32, 40))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"n{i:02d}.png")
    return folder


def digest(collection: Collection, id_: str) -> bytes:
    (path,) = (Path(ref.where) for ref in collection.images if ref.id == id_)
    return hashlib.sha256(path.read_bytes()).digest()


def known(directory: Path) -> set[bytes]:
    """Content keys in the cache of an index."""
    if not (directory / CACHE_FILE).exists():
        return set()
    with closing(connect(directory / CACHE_FILE)) as cache:
        return {key for (key,) in cache.execute("SELECT content FROM vectors")}


def cached_bytes(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.glob(f"{CACHE_FILE}*"))


def check_lists(stored: StoredIndex) -> None:
    """The lists refer to rows that are there, as far from each other as they say."""
    lists = stored_lists(stored)
    assert lists is not None
    n = len(stored.ids)
    voting = np.isfinite(lists.found.similarities)
    for rows in (lists.queries, lists.found.rows[voting]):
        assert rows.min() >= 0 and rows.max() < n
    groups = np.array(stored.columns["groups"])
    assert np.all((groups[lists.queries][:, None] != groups[lists.found.rows]) | ~voting)


# Adding


def test_an_added_image_is_found_and_votes(
    stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    new = collect(stripes)
    some = dataclasses.replace(new, images=new.images[:10])
    others = new.images[10:]
    cached = known(tuned_index)
    before = Annotator.open(tuned_index, embedder=tiny_embedder).stream(others)
    assert not any({"C7", "C8"} & set(a.cuis) for a in before)
    added = add_images(some, tuned_index, tiny_embedder, use_cache=False)
    assert known(tuned_index) == cached and len(cached) == 120
    assert (numbered(added.change.version), added.change.rows, added.failed) == ("v000002", 130, {})
    stored = open_index(tuned_index)
    assert stored.ids[120:] == tuple(ref.id for ref in some.images)
    assert stored.labels.row(125) == ("C7", "C8") and stored.names == {"C7": "seven"}
    assert stored.columns["groups"][120:] == ("new",) * 10
    assert [stored.content(row) for row in (0, 120)][1] == digest(new, "n00")
    after = Annotator.open(tuned_index, embedder=tiny_embedder)
    for annotation in after.stream(others):
        assert set(annotation.cuis) == {"C7", "C8"}
        assert all(neighbor.image_id in stored.ids[120:] for neighbor in annotation.neighbors[:10])
    (own,) = after.stream(some.images[3:4])
    assert own.neighbors[0].image_id == "n03"
    assert own.neighbors[0].similarity == pytest.approx(1, abs=1e-5)
    assert FolderLocation(tuned_index).problems() == []


def test_added_images_lie_where_a_build_would_have_put_them(
    patterns: Collection, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    """The projection of the index applies to them, so an image of the index equals its copy."""
    ref = dataclasses.replace(patterns.images[5], id="copy")
    copy = dataclasses.replace(
        patterns, images=[ref], concepts={"copy": ["C0"]}, groups={}, captions={}
    )
    add_images(copy, tuned_index, tiny_embedder)
    stored = open_index(tuned_index)
    assert (
        np.abs(stored.vectors(np.array([5, 120])) @ stored.vectors(np.array([5])).T - 1).max()
        < 1e-5
    )
    assert stored.content(5) == stored.content(120) == digest(patterns, "i005")


def test_known_vectors_are_not_computed_again(
    stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    new = collect(stripes)
    add_images(new, tuned_index, tiny_embedder)
    assert {digest(new, ref.id) for ref in new.images} <= known(tuned_index)
    first = open_index(tuned_index).vectors(np.arange(120, 132))

    class Never(type(tiny_embedder)):  # type: ignore[misc]
        def embed(self, *_: object) -> np.ndarray:
            raise AssertionError("embedded again")

    never = Never.__new__(Never)
    never.__dict__ = tiny_embedder.__dict__
    add_images(new, tuned_index, never, replace=True)
    assert np.array_equal(open_index(tuned_index).vectors(np.arange(120, 132)), first)


def test_an_image_may_take_the_place_of_another(
    patterns: Collection, stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    (stripes / "n00.png").rename(stripes / "i007.png")
    new = collect(stripes)
    with pytest.raises(IndexProblem, match=r"1 of the 12 images .* such as i007"):
        add_images(new, tuned_index, tiny_embedder)
    assert numbered(open_index(tuned_index).version) == "v000001"
    change = add_images(new, tuned_index, tiny_embedder, replace=True).change
    assert (change.rows, change.added, change.removed) == (131, 12, 1)
    stored = open_index(tuned_index)
    row = stored.ids.index("i007")
    assert stored.labels.row(row) == ("C7", "C8") and stored.content(row) == digest(new, "i007")
    assert stored.ids.count("i007") == 1
    check_lists(stored)


def test_another_encoder_is_refused(
    stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    class Other(type(tiny_embedder)):  # type: ignore[misc]
        @property
        def fingerprint(self) -> object:
            return dataclasses.replace(tiny_embedder.fingerprint, weights="sha256:other")

    other = Other.__new__(Other)
    other.__dict__ = tiny_embedder.__dict__
    with pytest.raises(AnnotatorError, match="built with another encoder or other settings"):
        add_images(collect(stripes), tuned_index, other)
    assert numbered(open_index(tuned_index).version) == "v000001"


def test_broken_images_are_left_out_with_their_reasons(
    stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    for name in ("n03", "z"):
        (stripes / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\nnot more")
    new = collect(stripes)
    with pytest.raises(AnnotatorError, match=r"n03\.png: .*PNG"):
        add_images(new, tuned_index, tiny_embedder, on_error="fail")
    assert numbered(open_index(tuned_index).version) == "v000001"
    added = add_images(new, tuned_index, tiny_embedder)
    assert [Path(where).stem for where in added.failed] == ["n03", "z"]
    assert all("PNG" in error.message for error in added.failed.values())
    assert added.change.added == 11
    stored = open_index(tuned_index)
    assert "n03" not in stored.ids and "n04" in stored.ids
    assert stored.content(stored.ids.index("n04")) == digest(new, "n04")


@pytest.mark.parametrize("thumbnails", [True, False])
def test_small_pictures_are_made_where_the_index_has_them(
    patterns: Collection, stripes: Path, tmp_path: Path, tiny_embedder: TorchEmbedder,
    thumbnails: bool,
) -> None:  # fmt: skip
    directory = tmp_path / "index"
    few = dataclasses.replace(patterns, images=patterns.images[:20])
    build_index(few, directory, tiny_embedder, adaptation="none", thumbnails=thumbnails)
    add_images(collect(stripes), directory, tiny_embedder)
    for _ in range(2):
        stored = open_index(directory)
        assert stored.has_thumbnails == thumbnails
        for row, id_ in enumerate(stored.ids):
            picture = stored.thumbnail(row)
            assert (picture is not None) == thumbnails
            if picture is not None:
                with Image.open(io.BytesIO(picture)) as small:
                    assert (small.format, small.size) == ("JPEG", (40, 32))
                    contrast = np.asarray(small.convert("L"), float).std()
                assert (contrast > 110) == id_.startswith("n")  # its own: stripes are black, white
        remove_images(directory, ["i000", "n03"], missing_ok=True)
        compact_index(directory)


# Compacting


def fitted(stored: StoredIndex) -> list[object]:
    matrix = {name: array.tolist() for name, array in stored.arrays.items() if "proj" in name}
    about = stored.manifest.about
    return [matrix, IndexMetadata.of(stored).voting, about["adaptation"], about["embedder"]]


def test_the_projection_and_the_voting_stay(
    stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    def answers_of(directory: Path) -> list[Annotation]:
        images = collect(stripes).images
        return list(Annotator.open(directory, embedder=tiny_embedder).stream(images))

    before = fitted(open_index(tuned_index))
    assert before[0]
    add_images(collect(stripes), tuned_index, tiny_embedder)
    remove_images(tuned_index, ["i003", "i100", "n02"])
    assert fitted(open_index(tuned_index)) == before
    answers = answers_of(tuned_index)
    assert compact_index(tuned_index).removed == 3
    assert fitted(open_index(tuned_index)) == before
    assert answers_of(tuned_index) == answers
    assert FolderLocation(tuned_index).problems() == []


def test_it_can_be_tuned_after_every_change(
    stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    gone = [f"i{i:03d}" for i in range(0, 60, 3)]
    changes: Sequence[Callable[[], object]] = (
        lambda: remove_images(tuned_index, gone),
        lambda: add_images(collect(stripes), tuned_index, tiny_embedder),
        lambda: compact_index(tuned_index),
        lambda: remove_images(tuned_index, ["i001", "n00"]),
        lambda: compact_index(tuned_index, index_type="ivf"),
    )
    images = [100, 100, 100, 99, 99]
    for change, n in zip(changes, images, strict=True):
        change()
        check_lists(open_index(tuned_index))
        tuned = tune_index(tuned_index).tuned
        assert tuned.images == n and tuned.f1 > 0.8
        check_lists(open_index(tuned_index))
        assert FolderLocation(tuned_index).problems() == []


def test_lists_name_the_same_images_as_before(tuned_index: Path) -> None:
    def named(stored: StoredIndex) -> dict[str, list[tuple[str, float]]]:
        lists = stored_lists(stored)
        assert lists is not None
        return {
            stored.ids[query]: [
                (stored.ids[row], similarity)
                for row, similarity in zip(rows.tolist(), found.tolist(), strict=True)
                if np.isfinite(similarity)
            ]
            for query, rows, found in zip(
                lists.queries.tolist(), lists.found.rows, lists.found.similarities, strict=True
            )
        }

    gone = {"i000", "i017", "i050", "i119"}
    before = named(open_index(tuned_index))
    remove_images(tuned_index, gone)
    expected = {
        query: [pair for pair in pairs if pair[0] not in gone]
        for query, pairs in before.items()
        if query not in gone
    }
    assert named(open_index(tuned_index)) == expected
    compact_index(tuned_index)
    assert named(open_index(tuned_index)) == expected


def test_an_index_whose_listed_images_are_all_gone_cannot_be_tuned(
    patterns: Collection, stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    add_images(collect(stripes), tuned_index, tiny_embedder)
    remove_images(tuned_index, [ref.id for ref in patterns.images])
    for _ in range(2):
        with pytest.raises(AnnotatorError, match="has no neighbour lists"):
            tune_index(tuned_index)
        (answer,) = Annotator.open(tuned_index, embedder=tiny_embedder).stream(patterns.images[:1])
        assert all(neighbor.image_id.startswith("n") for neighbor in answer.neighbors)
        compact_index(tuned_index)


# What the cache forgets


def test_the_cache_forgets_what_was_removed_and_nothing_else(
    patterns: Collection, tuned_index: Path
) -> None:
    gone = [digest(patterns, id_) for id_ in ("i003", "i050")]
    everything = known(tuned_index)
    with closing(connect(tuned_index / CACHE_FILE)) as cache:
        (vector,) = cache.execute(
            "SELECT vector FROM vectors WHERE content = ?", (gone[0],)
        ).fetchone()
    assert set(gone) <= everything and vector in cached_bytes(tuned_index)
    remove_images(tuned_index, ["i003", "i050"])
    for _ in range(2):
        assert known(tuned_index) == everything - set(gone) and len(known(tuned_index)) == 118
        left = cached_bytes(tuned_index)
        assert vector not in left and not any(key in left for key in gone)
        compact_index(tuned_index)


def test_an_image_that_is_there_twice_is_remembered_until_both_are_gone(
    patterns: Collection, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    ref = dataclasses.replace(patterns.images[5], id="copy")
    copy = dataclasses.replace(patterns, images=[ref], concepts={"copy": ["C0"]}, groups={})
    add_images(copy, tuned_index, tiny_embedder)
    remove_images(tuned_index, ["i005"])
    compact_index(tuned_index)
    assert digest(patterns, "i005") in known(tuned_index)
    remove_images(tuned_index, ["copy"])
    compact_index(tuned_index)
    assert digest(patterns, "i005") not in known(tuned_index)


@pytest.mark.parametrize("later", ["add", "replace"])
def test_the_cache_forgets_images_whose_rows_went_in_a_merge(
    stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder, later: str
) -> None:
    """An add merges small segments and drops what was removed of them, before any compaction."""
    new = collect(stripes)
    gone = digest(new, "n00")
    add_images(dataclasses.replace(new, images=new.images[:1]), tuned_index, tiny_embedder)
    assert gone in known(tuned_index)
    if later == "add":
        remove_images(tuned_index, ["n00"])
        images = new.images[1:2]
    else:
        images = [dataclasses.replace(new.images[1], id="n00")]
    add_images(dataclasses.replace(new, images=images), tuned_index, tiny_embedder, replace=True)
    compact_index(tuned_index)
    assert digest(new, "n01") in known(tuned_index)
    assert gone not in known(tuned_index)


def to_format_2(directory: Path) -> None:
    """The index as annotator 0.1 would have written it: without keys of its images' files."""
    version = read_manifest(directory).version
    folder = directory / version
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("search", "rows", "removed", "segments"):
        del manifest[name]
    manifest["arrays"] = [name for name in manifest["arrays"] if name != CONTENT]
    manifest["files"] = {k: v for k, v in manifest["files"].items() if k != f"{CONTENT}.npy"}
    (folder / f"{CONTENT}.npy").unlink()
    text = json.dumps(manifest | {"format": 2})
    (folder / "manifest.json").write_text(text)
    (directory / "current").write_text(f"{version} {hashlib.sha256(text.encode()).hexdigest()}\n")


def test_an_index_of_format_2_loses_its_cache_with_the_first_removed_image(
    stripes: Path, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    to_format_2(tuned_index)
    assert FolderLocation(tuned_index).problems() == []
    compact_index(tuned_index)
    assert len(known(tuned_index)) == 120  # nothing was removed
    add_images(collect(stripes), tuned_index, tiny_embedder)
    remove_images(tuned_index, ["i003"])
    assert not list(tuned_index.glob(f"{CACHE_FILE}*"))
    compact_index(tuned_index)
    assert FolderLocation(tuned_index).problems() == [] and len(open_index(tuned_index).ids) == 131
    tune_index(tuned_index)


def test_images_removed_from_an_index_of_vectors_leave_no_cached_vector(
    patterns: Collection, tiny_embedder: TorchEmbedder, tmp_path: Path
) -> None:
    """Which files the vectors are of is not known, so nothing is kept."""
    embedded = [r for r in embed_images(patterns.images, tiny_embedder) if r.vector is not None]
    rows, ids = np.stack([r.vector for r in embedded]), [r.ref.id for r in embedded]
    encoder = VectorEncoder.of(tiny_embedder)
    table = VectorTable(rows, ids, "v.npy", encoder)
    collection = dataclasses.replace(patterns, images=table.found().images)
    build_index(collection, tmp_path, table.embedder, runner=table.embed, use_cache=False)
    annotator = Annotator.open(tmp_path, embedder=tiny_embedder)  # it takes images, too
    with EmbeddingCache(tmp_path / CACHE_FILE, encoder.fingerprint.digest) as cache:
        list(annotator.stream(patterns.images[:3], cache=cache))
    assert len(known(tmp_path)) == 3
    remove_images(tmp_path, [patterns.images[0].id])
    assert not known(tmp_path)
