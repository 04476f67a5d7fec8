"""An annotation is what one gets by hand, and only vectors that compare are compared."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from versions import version_folder

from annotator.annotation import Annotation
from annotator.collection import Collection, read_collection
from annotator.concepts.hierarchy import Hierarchy
from annotator.encoders.local_runner import embed_images
from annotator.encoders.torch_embedder import TorchEmbedder
from annotator.errors import AnnotatorError, ImageError
from annotator.images.ref import in_order_of
from annotator.images.sources import find_images
from annotator.indexing.build import build_index
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.cross_validation import stored_lists
from annotator.knn.projection import ARRAYS, Projection
from annotator.knn.voting import Voting
from annotator.pipeline import Annotator
from annotator.vectors.table import VectorTable
from index import IndexProblem, Neighbors, StoredIndex, open_index
from index.rows import SearchResult
from tests.index.indexes import publish, unit

CONCEPTS = ["C1;C2", "C1", "", "C3", "C2;C3;C4", "C1", "C5", "C2", "C1;C2", "C4"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_embedder: TorchEmbedder) -> Path:
    """Ten indexed images, five others, and the index."""
    folder = tmp_path_factory.mktemp("pipeline")
    rng = np.random.default_rng(0)
    for side, n in (("train", len(CONCEPTS)), ("test", 5)):
        (folder / side).mkdir()
        for i in range(n):
            noise = rng.integers(0, 256, (40, 30), np.uint8)
            Image.fromarray(noise).save(folder / side / f"{side}{i}.png")
    rows = "".join(f"train{i},{cuis}\n" for i, cuis in enumerate(CONCEPTS))
    (folder / "concepts.csv").write_text(f"ID,CUIs\n{rows}")
    (folder / "captions.csv").write_text("ID,Caption\ntrain3,the third\n")
    (folder / "names.csv").write_text("CUI,Name\nC1,one\n")
    collection = read_collection(
        folder / "train",
        folder / "concepts.csv",
        names=folder / "names.csv",
        captions=folder / "captions.csv",
    )
    voting = Voting(k=4, beta=5.0)
    build_index(collection, folder / "index", tiny_embedder, voting=voting, fixed=["beta"])
    return folder


def in_folder(annotator: Annotator) -> StoredIndex:
    """Its index, which lies in a folder."""
    assert isinstance(annotator.stored, StoredIndex)
    return annotator.stored


@pytest.fixture
def annotator(place: Path, tiny_embedder: TorchEmbedder) -> Annotator:
    return Annotator.open(place / "index", embedder=tiny_embedder)


def test_an_annotation_is_what_one_computes_by_hand(place: Path, annotator: Annotator) -> None:
    refs = find_images(place / "test").images
    train = find_images(place / "train").images
    queries, vectors = (
        np.stack([np.asarray(e.vector, np.float64) for e in embed_images(r, annotator.embedder)])
        for r in (refs, train)
    )
    annotations = list(annotator.stream(refs))
    assert [a.image_id for a in annotations] == [ref.id for ref in refs]
    for query, annotation in zip(queries, annotations, strict=True):
        similarities = vectors @ query
        nearest = np.argsort(-similarities)[:4]
        weights = np.exp(5.0 * similarities[nearest])
        weights /= weights.sum()
        assert [n.image_id for n in annotation.neighbors] == [f"train{i}" for i in nearest]
        assert [n.similarity for n in annotation.neighbors] == pytest.approx(similarities[nearest])
        assert [n.weight for n in annotation.neighbors] == pytest.approx(weights, rel=1e-4)
        sets = [set(filter(None, CONCEPTS[i].split(";"))) for i in nearest]
        assert [set(n.cuis) for n in annotation.neighbors] == sets
        captions = ["the third" if i == 3 else "" for i in nearest]
        assert [n.caption for n in annotation.neighbors] == captions
        shares = [
            sum(w for w, s in zip(weights, sets, strict=True) if c in s) for c in annotation.cuis
        ]
        assert annotation.scores == pytest.approx(shares, rel=1e-4)
        chosen = set(annotation.cuis)
        f1 = [2 * len(chosen & s) / (len(chosen) + len(s)) if chosen | s else 1.0 for s in sets]
        assert annotation.expected_f1 == pytest.approx(np.dot(weights, f1), rel=1e-4)
        assert annotation.error is None and annotation.familiarity is None


def test_blocks_that_are_searched_at_once_give_the_same(
    place: Path, annotator: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ["test0", "nowhere", "test1", "gone", "lost", "test2", "test3", "test4"]
    refs = in_order_of(ids, find_images(place / "test").images)

    def answers() -> list[tuple[Annotation, str]]:
        found = annotator.stream(refs)
        return [(dataclasses.replace(a, error=None), str(a.error)) for a in found]

    whole = answers()
    monkeypatch.setattr("annotator.pipeline._SEARCHED_AT_ONCE", 2)
    assert answers() == whole and [a.image_id for a, _ in whole] == ids
    stopped = annotator.stream(refs)
    assert next(stopped) == whole[0][0]
    stopped.close()  # type: ignore[attr-defined]


def test_unusable_images_stay_in_their_place(place: Path, annotator: Annotator) -> None:
    ids = ["test0", "nowhere", "test1", "test2"]
    refs = in_order_of(ids, find_images(place / "test").images)
    annotations = list(annotator.stream(refs))
    assert [a.image_id for a in annotations] == ids
    missing = annotations[1].error
    assert missing is not None and missing.message == "no image has this id"
    assert annotations[1] == Annotation("nowhere", (), (), 0.0, (), error=missing)
    good = list(annotator.stream([ref for ref in refs if ref.id != "nowhere"]))
    assert [(a.image_id, a.cuis) for a in annotations if a.error is None] == [
        (a.image_id, a.cuis) for a in good
    ]
    assert all(a.error is None and a.cuis for a in good)
    assert list(annotator.stream([])) == []


def test_whatever_a_program_has_is_annotated_as_its_file(place: Path, annotator: Annotator) -> None:
    paths = [place / "test" / f"test{i}.png" for i in range(3)]
    files = annotator.annotate(paths)
    assert [a.image_id for a in files] == ["test0", "test1", "test2"]
    assert list(files) == list(annotator.stream(find_images(place / "test").images[:3]))
    opened = [Image.open(path) for path in paths]
    arrays = [np.asarray(picture) for picture in opened]
    for things in (opened, arrays, [path.read_bytes() for path in paths], np.array(paths)):
        answers = [dataclasses.replace(a, image_id="") for a in annotator.annotate(things)]
        assert answers == [dataclasses.replace(a, image_id="") for a in files]
    assert [a.image_id for a in annotator.annotate(arrays)] == ["image-1", "image-2", "image-3"]
    assert len(annotator.annotate(paths[0])) == len(annotator.annotate(arrays[0])) == 1
    whole = annotator.annotate(place / "test")
    assert [a.cuis for a in whole[:3]] == [a.cuis for a in files] and len(whole) == 5
    assert len(annotator.annotate([])) == 0


def test_a_bad_image_costs_the_others_nothing(place: Path, annotator: Annotator) -> None:
    good = str(place / "test" / "test0.png")
    blank = np.zeros((9, 9), np.uint8)
    found = annotator.annotate([good, "nowhere.png", b"no image", None, blank, good])
    assert [a.error is None for a in found] == [True, False, False, False, False, True]
    assert [a.image_id for a in found[1:5]] == ["nowhere", "image-3", "image-4", "image-5"]
    assert found[0] == found[5] == annotator.annotate(good)[0]
    assert found[1].error is not None and "nowhere.png" in found[1].error.message
    (allowed,) = annotator.annotate(blank, allow_blank=True)
    assert allowed.notes == ("blank",) and allowed.neighbors
    with pytest.raises(TypeError, match="is no image"):
        annotator.annotate(None)  # type: ignore[arg-type]


def test_names_and_pictures_come_with_it(place: Path, annotator: Annotator) -> None:
    path = place / "train" / "train1.png"
    (annotation,) = annotator.annotate(path)
    assert dict(zip(annotation.cuis, annotation.names, strict=True)).get("C1", "one") == "one"
    assert annotation.look.picture() == annotator.annotate(path.read_bytes())[0].look.picture()
    assert annotation.look.picture().startswith(b"\xff\xd8")
    assert "data:image/jpeg" in annotation._repr_html_()
    assert next(annotator.stream(find_images(path).images)).names == annotation.names


def test_the_recorded_voting_is_the_default(place: Path, tiny_embedder: TorchEmbedder) -> None:
    assert Annotator.open(place / "index", embedder=tiny_embedder).voting == Voting(k=4, beta=5.0)
    other = Annotator.open(place / "index", embedder=tiny_embedder, voting=Voting(k=1))
    (annotation,) = other.stream(find_images(place / "test" / "test0.png").images)
    assert len(annotation.neighbors) == 1


def test_as_json(place: Path, annotator: Annotator) -> None:
    (annotation,) = annotator.stream(find_images(place / "train" / "train1.png").images)
    plain = annotation.to_dict({"C1": "one"})
    told = {"id", "concepts", "considered", "expected_f1", "familiarity", "same_image"}
    assert set(plain) == told and plain["same_image"] == "train1"
    assert {c["cui"]: c["name"] for c in plain["concepts"]}.get("C1", "one") == "one"
    explained = annotation.to_dict({}, explain=True)
    assert len(explained["neighbors"]) == 4
    assert explained["neighbors"][0]["id"] == "train1"
    assert json.loads(json.dumps(explained)) == explained
    familiar = dataclasses.replace(annotation, familiarity=1 / 3)
    assert (plain["familiarity"], familiar.to_dict({})["familiarity"]) == (None, 0.3333)
    failed = dataclasses.replace(annotation, error=ImageError("broken"))
    assert failed.to_dict({})["error"] == "broken"


# An index whose vectors were fitted to its images


@pytest.fixture
def tuned(tuned_index: Path, tiny_embedder: TorchEmbedder) -> Annotator:
    return Annotator.open(tuned_index, embedder=tiny_embedder)


@pytest.fixture(scope="module")
def others(
    tmp_path_factory: pytest.TempPathFactory, draw_pattern: Callable[[Path, int, int], None]
) -> Path:
    """Images of the patterns that no index holds, and noise."""
    folder = tmp_path_factory.mktemp("others")
    for side in ("patterns", "noise"):
        (folder / side).mkdir()
    for i in range(24):
        draw_pattern(folder / "patterns" / f"pattern{i:02d}.png", i % 3, 1000 + i)
        noise = np.random.default_rng(i).integers(0, 256, (32, 40), np.uint8)
        Image.fromarray(noise).save(folder / "noise" / f"noise{i:02d}.png")
    return folder


def encode(folder: Path, annotator: Annotator) -> np.ndarray:
    results = embed_images(find_images(folder).images, annotator.embedder)
    return np.stack([np.asarray(result.vector) for result in results])


def test_neighbours_are_those_of_projected_vectors(
    tuned: Annotator, tuned_index: Path, patterns: Collection, others: Path
) -> None:
    """The index holds the projected vectors; a query goes through the same projection."""
    projection = Projection.from_arrays(tuned.stored.arrays)
    assert projection is not None
    train = np.stack([np.asarray(r.vector) for r in embed_images(patterns.images, tuned.embedder)])
    held = np.load(version_folder(tuned_index) / "vectors.npy")
    assert held == pytest.approx(projection.apply(train), abs=1e-5)
    queries = encode(others / "patterns", tuned)
    similarities = projection.apply(queries).astype(np.float64) @ held.T
    expected = np.argsort(-similarities, axis=1)[:, :7]
    found = tuned.search(queries, 7).neighbors
    assert np.array_equal(found.rows, expected)
    assert found.similarities == pytest.approx(
        np.take_along_axis(similarities, expected, 1), abs=1e-6
    )
    assert not np.array_equal(expected, np.argsort(-(queries @ train.T), axis=1)[:, :7])
    assert tuned.search(queries).neighbors.rows.shape[1] == tuned.voting.k
    annotations = tuned.decide([str(i) for i in range(len(queries))], tuned.search(queries))
    for annotation, rows in zip(annotations, found.rows, strict=True):
        ids = [n.image_id for n in annotation.neighbors[:5]]
        assert ids == [in_folder(tuned).ids[row] for row in rows[:5]]


def test_it_finds_the_concepts_of_new_images(tuned: Annotator, others: Path) -> None:
    annotations = list(tuned.stream(find_images(others / "patterns").images))
    right = [f"C{i % 3}" in a.cuis for i, a in enumerate(annotations)]
    assert len(right) == 24 and np.mean(right) > 0.9


def test_queries_that_cannot_be_searched_for_are_refused(
    annotator: Annotator, tuned: Annotator
) -> None:
    for some in (annotator, tuned):
        with pytest.raises(IndexProblem, match="3 dimensions, the index has 16"):
            some.search(np.array([[1, 0, 0]], np.float32))
    with pytest.raises(IndexProblem, match="unit norm"):
        tuned.search(np.full((1, 16), 0.5, np.float32))
    held = tuned.stored.manifest.dim
    assert held != 16
    with pytest.raises(IndexProblem, match=f"have {held} dimensions"):
        tuned.search(np.eye(held, dtype=np.float32)[:1])


def test_the_batch_leaves_no_trace(
    tuned: Annotator, others: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = encode(others / "noise", tuned)
    together = tuned.search(queries, 20).neighbors
    for i in range(len(queries)):
        alone = tuned.search(queries[i : i + 1], 20).neighbors
        assert np.array_equal(alone.rows[0], together.rows[i])
        assert np.array_equal(alone.similarities[0], together.similarities[i])
    refs = find_images(others / "noise").images
    annotations = list(tuned.stream(refs))
    monkeypatch.setattr("annotator.pipeline._SEARCHED_AT_ONCE", 2)
    assert list(tuned.stream(refs)) == annotations


def test_familiarity(tuned: Annotator, patterns: Collection, others: Path) -> None:
    """New images of a known kind are as familiar as the index's own, noise less than them all."""

    def familiarity(folder: Path) -> list[float]:
        found = [a.familiarity for a in tuned.stream(find_images(folder).images)]
        return [f for f in found if f is not None]

    known, noise = familiarity(others / "patterns"), familiarity(others / "noise")
    assert len(known) == len(noise) == 24
    assert np.median(known) > 0.3 and np.median(noise) < 0.05
    own = list(tuned.stream(patterns.images[:5]))
    assert all(a.familiarity is not None and a.familiarity > 0.05 for a in own)


def test_familiarity_is_a_share_of_the_index(tuned: Annotator) -> None:
    """By the outlier factor; in an index of an earlier version by the nearest."""
    lists = stored_lists(tuned.stored)
    assert lists is not None and tuned.metadata.outlier_factors is not None
    ids = [str(i) for i in lists.queries]
    found = tuned.decide(ids, SearchResult(lists.found, in_folder(tuned)))
    shares = np.sort([a.familiarity for a in found])  # type: ignore[arg-type]
    assert shares == pytest.approx(np.linspace(0, 1, len(shares)), abs=0.02)

    old = copy.copy(tuned)
    old.metadata = dataclasses.replace(tuned.metadata, outlier_factors=None)
    quantiles = old.metadata.nearest
    assert quantiles is not None
    vars(old).pop("_outlier_factor", None)
    rows = np.zeros((len(quantiles), 1), np.int64)
    similarities = quantiles.astype(np.float32)[:, None]
    ids = [str(i) for i in range(len(quantiles))]
    found = old.decide(ids, SearchResult(Neighbors(rows, similarities), in_folder(tuned)))
    nearest = [a.familiarity for a in found]
    assert nearest == pytest.approx(np.linspace(0, 1, len(quantiles)), abs=0.02)
    for similarity, share in ((-1.0, 0.0), (1.0, 1.0)):
        near = Neighbors(rows[:1], np.array([[similarity]], np.float32))
        (one,) = old.decide(["x"], SearchResult(near, in_folder(tuned)))
        assert one.familiarity == share


def test_unfamiliar_images_get_no_concepts_if_asked(tuned: Annotator, others: Path) -> None:
    refs = find_images(others / "noise").images + find_images(others / "patterns").images
    usual = list(tuned.stream(refs))
    asked = copy.copy(tuned)
    asked.min_familiarity = 0.05
    for before, after in zip(usual, asked.stream(refs), strict=True):
        assert before.familiarity is not None and before.error is None
        if before.familiarity >= 0.05:
            assert after == before
            continue
        assert after.error is not None and after.error.code == "unfamiliar"
        assert (after.cuis, after.scores, after.neighbors) == ((), (), ())
        assert after.familiarity == before.familiarity
        assert after.to_dict()["error"].endswith("(familiarity below 0.05)")


def test_without_familiarity_it_cannot_be_asked_for(annotator: Annotator) -> None:
    with pytest.raises(AnnotatorError, match="does not know how familiar") as caught:
        Annotator(annotator.stored, annotator.embedder, min_familiarity=0.1)
    assert "build it again" in caught.value.hint


def test_other_voting_for_the_same_neighbours(tuned: Annotator, others: Path) -> None:
    found = tuned.search(encode(others / "patterns", tuned), 30)
    ids = [str(i) for i in range(len(found.neighbors.rows))]
    one = tuned.decide(ids, found, voting=Voting(k=1, beta=1.0), with_neighbors=False)
    assert all(a.neighbors == () for a in one)
    labels = tuned.stored.labels
    assert [set(a.cuis) for a in one] == [
        set(labels.row(row)) for row in found.neighbors.rows[:, 0]
    ]
    default = tuned.decide(ids, found)
    assert [len(a.neighbors) for a in default] == [min(30, tuned.voting.k)] * len(ids)


def test_a_guarantee_is_for_the_vote_that_keeps_it(
    tuned: Annotator, tuned_index: Path, tiny_embedder: TorchEmbedder, others: Path
) -> None:
    keeping = Annotator(tuned.stored, tiny_embedder, guarantee="missed=0.2")
    refs = find_images(others / "noise").images
    kept = [a.guarantee for a in keeping.stream(refs)]
    assert keeping.promises is not None and kept == [keeping.promises.of("any")] * len(refs)
    assert kept[0] is not None
    for a in keeping.stream(refs, with_votes=True):
        chosen = {cui for cui, share in a.votes.items() if share >= kept[0].voting.threshold}
        assert set(a.cuis) == chosen
    found = keeping.search(encode(others / "noise", keeping))
    ids = [ref.id for ref in refs]
    plain = keeping.decide(ids, found, voting=tuned.voting)
    assert plain == tuned.decide(ids, found) and all(a.guarantee is None for a in plain)
    opened = Annotator.open(tuned_index, embedder=tiny_embedder, guarantee="missed=0.2")
    assert list(opened.stream(refs)) == list(keeping.stream(refs))


def test_a_guarantee_knows_no_hierarchy_and_no_classifiers(
    tuned: Annotator, tiny_embedder: TorchEmbedder
) -> None:
    with pytest.raises(ValueError, match="cannot be combined with a hierarchy or classifiers"):
        Annotator(tuned.stored, tiny_embedder, hierarchy=Hierarchy({}), guarantee="missed=0.1")
    with pytest.raises(ValueError, match="no guarantee, such as"):
        Annotator(tuned.stored, tiny_embedder, guarantee="tenth")


def test_the_prior_is_no_neighbour(tuned: Annotator, others: Path) -> None:
    """Its rows have a share of the vote but are not shown as similar cases."""
    found = tuned.search(encode(others / "patterns", tuned), 5)
    ids = [str(i) for i in range(len(found.neighbors.rows))]
    for k in (3, 5, 9):  # 9: more than were found
        voting = Voting(k=k, beta=4.0, prior=2.0, typical=0.9)
        for annotation, rows in zip(
            tuned.decide(ids, found, voting=voting), found.neighbors.rows, strict=True
        ):
            assert [n.image_id for n in annotation.neighbors] == [
                in_folder(tuned).ids[row] for row in rows[:k]
            ]
            assert 0 < sum(n.weight for n in annotation.neighbors) < 0.9


def test_a_damaged_projection_is_refused(tuned: Annotator, tiny_embedder: TorchEmbedder) -> None:
    arrays = {name: a for name, a in tuned.stored.arrays.items() if name != f"{ARRAYS}matrix"}
    with pytest.raises(AnnotatorError, match="projection of the index is damaged"):
        Annotator(dataclasses.replace(in_folder(tuned), arrays=arrays), tiny_embedder)


def test_another_encoder_is_refused_and_the_difference_named(
    place: Path, tiny_embedder: TorchEmbedder
) -> None:
    class Other(TorchEmbedder):
        def __init__(self) -> None:
            self.__dict__.update(tiny_embedder.__dict__)
            self.fingerprint = dataclasses.replace(
                tiny_embedder.fingerprint, precision="bf16", frames="all"
            )

    with pytest.raises(AnnotatorError) as caught:
        Annotator.open(place / "index", embedder=Other())
    assert "frames: all, not middle" in caught.value.message
    assert "precision: bf16, not fp32" in caught.value.message
    assert "dim" not in caught.value.message
    assert "--precision" in caught.value.hint


def test_vectors_are_annotated_as_their_images(place: Path, tiny_embedder: TorchEmbedder) -> None:
    annotator = Annotator.open(place / "index", embedder=tiny_embedder)
    refs = find_images(place / "test").images
    expected = list(annotator.stream(refs))
    vectors = np.stack(
        [r.vector for r in embed_images(refs, tiny_embedder) if r.vector is not None]
    )
    annotations = annotator.annotate_vectors(vectors, [ref.id for ref in refs])
    assert list(annotations) == expected
    (numbered,) = annotator.annotate_vectors(vectors[:1].tolist(), with_neighbors=False)
    assert (numbered.image_id, numbered.neighbors) == ("vector-1", ())
    assert numbered.cuis == expected[0].cuis
    vectors[1] = np.nan
    (first, second) = annotator.annotate_vectors(vectors[:2], ["b", "a"])
    assert (first.image_id, second.image_id) == ("b", "a")  # in the order of the rows
    assert first.error is None and second.error is not None


def test_vectors_that_do_not_fit_are_refused(place: Path, tiny_embedder: TorchEmbedder) -> None:
    annotator = Annotator.open(place / "index", embedder=tiny_embedder)
    with pytest.raises(AnnotatorError, match="length 3, tiny has 16"):
        annotator.annotate_vectors(unit(2, 3))
    with pytest.raises(AnnotatorError, match="1 ids, but 2 vectors"):
        annotator.annotate_vectors(unit(2, 16), ["a"])
    with pytest.raises(AnnotatorError, match=r"not floats \[n, dim\]"):
        annotator.annotate_vectors([1.0, 2.0])  # type: ignore[list-item]
    with pytest.raises(AnnotatorError, match="does not say that it has the same"):
        annotator.annotate_vectors(VectorTable.of(unit(2, 16), encoder="tiny"))


def test_an_encoder_that_cannot_be_made_is_named(place: Path) -> None:
    with pytest.raises(AnnotatorError, match="Unknown encoder 'tiny'"):
        Annotator.open(place / "index")


@pytest.mark.slow
def test_the_recorded_encoder_is_made_with_its_settings(tmp_path: Path) -> None:
    recorded = {
        "architecture": "", "weights": "", "preprocess": {}, "precision": "bf16",
        "frames": "all", "dim": 2,
    }  # fmt: skip
    embedder = {"name": "efficientnet-lite0", "fingerprint": recorded}
    publish(tmp_path, unit(1, 2), about={"embedder": embedder, "voting": {}})
    stored = open_index(tmp_path)
    made = IndexMetadata.of(stored).make_embedder(device="cpu")
    assert (made.name, made.fingerprint.precision) == ("efficientnet-lite0", "bf16")
    assert made.frames == made.fingerprint.frames == "all"
    with pytest.raises(AnnotatorError, match=r"architecture: .*weights: sha256"):
        Annotator(stored, made)


def test_with_a_hierarchy_sets_are_the_best_by_hierarchical_f1(
    place: Path, tiny_embedder: TorchEmbedder, annotator: Annotator, tmp_path: Path
) -> None:
    table = tmp_path / "hierarchy.csv"
    table.write_text("concept,parent\nC1,Low\nC2,Low\nC3,High\nC4,High\nLow,All\nHigh,All\n")
    with_one = Annotator.open(place / "index", embedder=tiny_embedder, hierarchy=table)
    hierarchy = with_one.hierarchy
    assert hierarchy is not None and annotator.hierarchy is None
    refs = find_images(place / "test").images
    partial, flat = list(with_one.stream(refs)), list(annotator.stream(refs))
    assert [a.neighbors for a in partial] == [a.neighbors for a in flat]
    assert any(a.cuis != b.cuis for a, b in zip(partial, flat, strict=True))

    def expected(annotation: Annotation) -> float:
        chosen = hierarchy.closure(annotation.cuis)
        sets = [hierarchy.closure(n.cuis) for n in annotation.neighbors]
        f1 = [2 * len(chosen & s) / (len(chosen) + len(s)) if chosen | s else 1.0 for s in sets]
        return float(np.dot([n.weight for n in annotation.neighbors], f1))

    for a, b in zip(partial, flat, strict=True):
        assert a.expected_f1 == pytest.approx(expected(a))
        assert a.expected_f1 >= expected(b) - 1e-12
