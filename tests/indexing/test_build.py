"""From a collection to an index: what is in it, what a second build does, what failures cost."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image
from versions import numbered, version_folder

from annotator.collection import Collection, read_collection
from annotator.encoders.local_runner import embed_images
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError
from annotator.evaluation.official_f1 import image_f1
from annotator.indexing.build import CACHE_FILE, Built, build_index, tune_index
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.model import PENALTIES, Adaptation, FittedModel
from annotator.knn.projection import Projection
from annotator.knn.voting import Voting
from annotator.pipeline import Annotator
from annotator.vectors.encoder import VectorEncoder
from index import IndexProblem, StoredIndex, VersionWriter, open_index
from index.progress import Work, reported_by

T = TypeVar("T")


def draw(folder: Path, names: Sequence[str], seed: int = 0) -> None:
    """Images of noise, each another one."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        noise = np.random.default_rng([seed, i]).integers(0, 256, (24, 24), np.uint8)
        Image.fromarray(noise).save(folder / f"{name}.png")


def collect(folder: Path, broken: Sequence[str] = ()) -> Collection:
    """All images of the folder, each with a concept of its own and C0."""
    for name in broken:
        (folder / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\nnot more")
    names = sorted(path.stem for path in folder.glob("*.png"))
    tables = {
        "concepts": "ID,CUIs\n" + "".join(f"{name},C0;C{i + 1}\n" for i, name in enumerate(names)),
        "captions": "ID,Caption\n" + "".join(f'{name},"of {name}, so"\n' for name in names[1:]),
        "groups": "ID,patient\n" + "".join(f"{name},p{i // 2}\n" for i, name in enumerate(names)),
        "names": "CUI,Name\nC0,zero\nC1,one\n",
    }
    paths = {}
    for key, text in tables.items():
        paths[key] = folder.parent / f"{key}.csv"
        paths[key].write_text(text)
    return read_collection(
        folder,
        paths["concepts"],
        names=paths["names"],
        captions=paths["captions"],
        groups=str(paths["groups"]),
    )


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    draw(tmp_path / "images", [f"i{n:02d}" for n in range(20)])
    return collect(tmp_path / "images")


def vectors_of(collection: Collection, embedder: TorchEmbedder) -> np.ndarray:
    results = list(embed_images(collection.images, embedder))
    return np.stack([result.vector for result in results if result.vector is not None])


def interrupt_after(n: int, items: Iterable[T]) -> Iterable[T]:
    for position, item in enumerate(items):
        if position == n:
            raise KeyboardInterrupt
        yield item


def test_everything_is_in_the_index(
    collection: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    built = build_index(
        collection, tmp_path / "index", tiny_embedder, voting=Voting(k=7), adaptation="none"
    )
    unfitted = FittedModel(None, None, {}, Voting(k=7), None, None)
    reason = {"reason": "20 rows are few enough to compare them all"}
    assert numbered(built.version) == "v000001"
    assert built == Built(built.version, 20, 21, 20, 0, {}, {}, unfitted, "flat", reason)
    stored = open_index(tmp_path / "index")
    assert list(stored.ids) == [ref.id for ref in collection.images]
    rows = [stored.labels.row(i) for i in range(20)]
    assert rows == [tuple(sorted(collection.concepts[id_])) for id_ in stored.ids]
    assert stored.names == {"C0": "zero", "C1": "one"}
    assert stored.columns["captions"][:2] == ("", "of i01, so")
    assert stored.columns["groups"][:3] == ("p0", "p0", "p1")
    about = stored.manifest.about
    assert about["voting"]["k"] == 7
    assert about["adaptation"] is None and about["tuning"] is None
    assert stored.arrays == {}
    assert about["embedder"]["name"] == "tiny"
    assert about["embedder"]["fingerprint"] == tiny_embedder.fingerprint.to_dict()
    assert np.array_equal(
        np.load(version_folder(tmp_path / "index") / "vectors.npy"),
        vectors_of(collection, tiny_embedder),
    )


def test_more_images_than_are_written_at_once(tmp_path: Path, tiny_embedder: TorchEmbedder) -> None:
    draw(tmp_path / "images", [f"i{n:03d}" for n in range(300)])
    collection = collect(tmp_path / "images")
    build_index(collection, tmp_path / "index", tiny_embedder, adaptation="none")
    stored = open_index(tmp_path / "index")
    vectors = vectors_of(collection, tiny_embedder)
    assert stored.index.search(vectors, 1).rows[:, 0].tolist() == list(range(300))


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_second_build_embeds_what_is_new(
    collection: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder, use_cache: bool
) -> None:
    def build() -> Built:
        collection = collect(tmp_path / "images")
        return build_index(collection, tmp_path / "index", tiny_embedder, use_cache=use_cache)

    known = 20 if use_cache else 0
    assert build().embedded == 20
    again = build()
    assert (numbered(again.version), again.embedded, again.cached) == ("v000001", 20 - known, known)
    draw(tmp_path / "images", [f"j{n}" for n in range(10)], seed=1)
    more = build()
    assert (numbered(more.version), more.rows) == ("v000002", 30)
    assert (more.embedded, more.cached) == (30 - known, known)
    assert (tmp_path / "index" / CACHE_FILE).exists() == use_cache


def test_an_interrupted_build_publishes_nothing_and_continues(
    collection: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    def interrupted(items: Iterable[T], work: Work) -> Iterable[T]:
        assert (work.total, work.label) == (20, "Embedding")
        return interrupt_after(6, items)

    directory = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt), reported_by(interrupted):
        build_index(collection, directory, tiny_embedder, batch_size=2, workers=1)
    with pytest.raises(IndexProblem, match="no file `current`"):
        open_index(directory)
    assert not list(directory.glob(".writing-*"))
    built = build_index(
        collection, directory, tiny_embedder, batch_size=2, workers=1, adaptation="none"
    )
    assert built.cached >= 6 and built.embedded == 20 - built.cached > 0
    fresh = build_index(collection, tmp_path / "fresh", tiny_embedder, adaptation="none")
    assert fresh.embedded == 20
    one, other = open_index(directory), open_index(tmp_path / "fresh")
    assert (one.ids, one.columns) == (other.ids, other.columns)
    assert one.labels.indices.tolist() == other.labels.indices.tolist()
    # In fp32 the last bit of a vector depends on the size of the batch that it was embedded in.
    vectors = [np.load(version_folder(d) / "vectors.npy") for d in (directory, tmp_path / "fresh")]
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-6


def test_images_that_cannot_be_used_are_left_out(
    collection: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    collection = collect(tmp_path / "images", broken=["i03", "z"])
    with pytest.raises(AnnotatorError, match=r"i03\.png: .*PNG"):
        build_index(collection, tmp_path / "index", tiny_embedder, on_error="fail")
    broken = [ref for ref in collection.images if ref.id in ("i03", "z")]
    with pytest.raises(AnnotatorError, match=r"None of the 2 images could be used.*i03\.png"):
        build_index(
            dataclasses.replace(collection, images=broken), tmp_path / "index", tiny_embedder
        )
    with pytest.raises(IndexProblem):
        open_index(tmp_path / "index")
    built = build_index(collection, tmp_path / "index", tiny_embedder)
    assert built.rows == 19
    assert [Path(where).stem for where in built.failed] == ["i03", "z"]
    assert all("PNG" in error.message for error in built.failed.values())
    stored = open_index(tmp_path / "index")
    assert "i03" not in stored.ids and "z" not in stored.ids
    row = stored.ids.index("i04")
    assert set(stored.labels.row(row)) == set(collection.concepts["i04"])
    assert stored.columns["captions"][row] == "of i04, so"


def test_a_folder_of_other_files_is_refused_before_the_work(
    collection: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    def unwanted(items: Iterable[T], work: Work) -> Iterable[T]:
        raise AssertionError("images were embedded")

    wrong = pytest.raises(IndexProblem, match="not an index and not empty")
    with wrong, reported_by(unwanted):
        build_index(collection, tmp_path / "images", tiny_embedder)


# Fitted to the collection, and tuned


def digests(stored: StoredIndex) -> dict[str, str]:
    return {name: facts.sha256 for name, facts in stored.manifest.files.items()}


def test_the_vectors_are_projected_and_the_fit_is_recorded(
    patterns: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    built = build_index(patterns, tmp_path / "index", tiny_embedder)
    stored = open_index(tmp_path / "index")
    model, about = built.model, stored.manifest.about
    assert model.projection is not None and model.tuned is not None
    projection = Projection.from_arrays(stored.arrays)
    assert projection is not None
    found = np.load(version_folder(tmp_path / "index") / "vectors.npy")
    assert np.array_equal(found, projection.apply(vectors_of(patterns, tiny_embedder)))
    assert about["adaptation"] == {
        "penalty": model.penalty, "f1_by_penalty": dict(model.f1_by_penalty)
    }  # fmt: skip
    assert len(model.f1_by_penalty) == len(PENALTIES)
    assert about["tuning"]["f1"] == model.tuned.f1 > 0.8
    assert about["tuning"]["images"] == 120
    assert IndexMetadata.of(stored).voting == model.voting == model.tuned.voting
    nearest = IndexMetadata.of(stored).nearest
    assert nearest is not None and nearest.tolist() == list(model.tuned.nearest)


def test_the_estimate_is_of_new_images(
    patterns: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    """Half of the patients, held out, earn what the other half expects."""
    first, second = (
        dataclasses.replace(
            patterns, images=[r for i, r in enumerate(patterns.images) if i // 2 % 2 == h]
        )
        for h in (0, 1)
    )
    built = build_index(first, tmp_path / "index", tiny_embedder)
    assert built.model.tuned is not None and built.rows == 60
    annotator = Annotator.open(tmp_path / "index", embedder=tiny_embedder)
    scores = [
        image_f1(patterns.concepts[a.image_id], a.cuis) for a in annotator.stream(second.images)
    ]
    assert np.mean(scores) == pytest.approx(built.model.tuned.f1, abs=0.1)


def test_the_same_collection_gives_the_same_bytes(
    patterns: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    for place in ("one", "other"):
        build_index(patterns, tmp_path / place, tiny_embedder)
    one, other = open_index(tmp_path / "one"), open_index(tmp_path / "other")
    assert one.manifest == other.manifest
    assert numbered(build_index(patterns, tmp_path / "one", tiny_embedder).version) == "v000001"


@pytest.mark.parametrize(
    ("adaptation", "tuning", "arrays"),
    [
        ("auto", True, {"projection", "tuning"}),
        ("auto", False, {"projection"}),
        ("looks", False, {"projection"}),
        ("none", False, set()),
    ],
)
def test_what_is_fitted_and_what_is_left(
    patterns: Collection,
    tmp_path: Path,
    tiny_embedder: TorchEmbedder,
    adaptation: Adaptation,
    tuning: bool,
    arrays: set[str],
) -> None:
    voting = Voting(k=9, beta=7.0)
    built = build_index(
        patterns, tmp_path / "index", tiny_embedder,
        adaptation=adaptation, tuning=tuning, voting=voting, fixed=["beta"],
    )  # fmt: skip
    stored = open_index(tmp_path / "index")
    assert {name.split(".")[0] for name in stored.arrays} == arrays
    vectors = np.load(version_folder(tmp_path / "index") / "vectors.npy")
    kept = np.array_equal(vectors, vectors_of(patterns, tiny_embedder))
    assert kept == (adaptation == "none")
    about = stored.manifest.about
    assert (about["adaptation"] is None) == (adaptation == "none")
    assert (about["tuning"] is None) == (not tuning)
    recorded = IndexMetadata.of(stored).voting
    assert recorded == built.model.voting and recorded.beta == 7.0
    assert tuning or recorded == voting
    if adaptation == "looks":
        assert about["adaptation"]["penalty"] is None
    (annotation,) = Annotator.open(tmp_path / "index", embedder=tiny_embedder).stream(
        patterns.images[:1]
    )
    assert (annotation.familiarity is None) == (not tuning)
    assert annotation.neighbors[0].similarity == pytest.approx(1, abs=1e-5)


def test_a_voting_that_is_tuned_again_shares_the_vectors(tuned_index: Path) -> None:
    before = open_index(tuned_index)
    made = tune_index(tuned_index, voting=Voting(k=5), fixed=["k"])
    version, tuned, after = made.version, made.tuned, open_index(tuned_index)
    assert (numbered(before.version), numbered(version)) == ("v000001", "v000002")
    assert after.version == version
    assert digests(after) == digests(before)
    for name in after.manifest.files:
        inodes = {(version_folder(tuned_index, v) / name).stat().st_ino for v in (1, 2)}
        assert len(inodes) == 1
    assert IndexMetadata.of(after).voting == tuned.voting and tuned.voting.k == 5
    assert after.manifest.about["tuning"] == json.loads(json.dumps(tuned.to_dict()))
    for key in ("embedder", "adaptation"):
        assert after.manifest.about[key] == before.manifest.about[key]


def test_tuning_again_starts_from_what_the_build_knew(
    patterns: Collection, tuned_index: Path, tiny_embedder: TorchEmbedder
) -> None:
    def recorded() -> Voting:
        return IndexMetadata.of(open_index(tuned_index)).voting

    chosen = recorded()
    made = tune_index(tuned_index)
    assert numbered(made.version) == "v000001"  # it says the same, so nothing is published
    assert made.tuned.voting == chosen
    made = tune_index(tuned_index, voting=Voting(decider="top-r"), fixed=["decider"])
    assert numbered(made.version) == "v000002" and recorded().decider == "top-r"
    assert IndexMetadata.of(open_index(tuned_index)).guarantees == tuple(made.guarantees)
    assert numbered(tune_index(tuned_index).version) == "v000003" and recorded() == chosen
    tune_index(tuned_index, voting=Voting(k=5), fixed=["k"])
    again = build_index(patterns, tuned_index, tiny_embedder)
    assert (numbered(again.version), again.embedded) == ("v000005", 0) and recorded() == chosen


def test_more_neighbours_than_the_lists_have_are_not_tuned(
    patterns: Collection, tuned_index: Path, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    many = Voting(k=101)
    with pytest.raises(AnnotatorError, match="101 voting neighbours is not possible") as caught:
        tune_index(tuned_index, voting=many, fixed=["k"])
    assert caught.value.hint.startswith("Give 100 or less")
    with pytest.raises(AnnotatorError, match="101 voting neighbours"):
        build_index(patterns, tmp_path / "index", tiny_embedder, voting=many, fixed=["k"])
    assert not (tmp_path / "index").exists()
    assert numbered(open_index(tuned_index).version) == "v000001"


def test_an_index_without_lists_cannot_be_tuned(
    patterns: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    build_index(patterns, tmp_path / "index", tiny_embedder, tuning=False)
    with pytest.raises(AnnotatorError, match="has no neighbour lists to tune on") as caught:
        tune_index(tmp_path / "index")
    assert "--no-tune" in caught.value.hint and "build it again" in caught.value.hint
    assert numbered(open_index(tmp_path / "index").version) == "v000001"


def test_nothing_is_tuned_while_another_writes_or_on_damaged_lists(tuned_index: Path) -> None:
    with (
        VersionWriter(tuned_index),
        pytest.raises(IndexProblem, match="Another process is writing"),
    ):
        tune_index(tuned_index, voting=Voting(k=5), fixed=["k"])
    path = version_folder(tuned_index) / "tuning.rows.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(IndexProblem, match=r"tuning\.rows\.npy has changed"):
        tune_index(tuned_index)


def test_small_pictures_are_kept_if_wanted(
    collection: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    collection = collect(tmp_path / "images", broken=["i03"])
    build_index(collection, tmp_path / "index", tiny_embedder, thumbnails=True)
    stored = open_index(tmp_path / "index")
    for row, id_ in enumerate(stored.ids):
        with Image.open(io.BytesIO(stored.thumbnail(row) or b"")) as small:
            assert (small.format, small.size) == ("JPEG", (24, 24))
            with Image.open(tmp_path / "images" / f"{id_}.png") as original:
                difference = np.asarray(small.convert("L"), float) - np.asarray(original)
        assert np.abs(difference).mean() < 25  # of its own image: others differ by 85
    assert numbered(build_index(collection, tmp_path / "index", tiny_embedder).version) == "v000002"
    assert not open_index(tmp_path / "index").has_thumbnails


def test_vectors_of_a_fitted_encoder_alone_are_refused(
    collection: Collection, tmp_path: Path, tiny_embedder: TorchEmbedder
) -> None:
    fingerprint = dataclasses.replace(
        tiny_embedder.fingerprint, architecture="tiny, 2 fitted branches"
    )
    vectors = VectorEncoder("fitted:here", fingerprint, (fingerprint.dim,))
    with pytest.raises(AnnotatorError, match="do not say which images it was fitted to"):
        build_index(collection, tmp_path / "index", vectors)
    assert not (tmp_path / "index").exists()
