"""An annotation is what one gets by hand, and only vectors that compare are compared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotator.build import build_index
from annotator.collection import in_order_of, read_collection
from annotator.embed.embedder import TorchEmbedder
from annotator.embed.stream import embed_images
from annotator.errors import AnnotatorError
from annotator.images.sources import find_images
from annotator.pipeline import Annotation, Annotator, recorded_embedder
from annotator.vote.voting import Voting
from index import IndexProblem, VersionWriter, open_index

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
    build_index(collection, folder / "index", tiny_embedder, voting=Voting(k=4, beta=5.0))
    return folder


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
    annotations = list(annotator.annotate(refs))
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
        assert annotation.error is None


def test_an_image_of_the_index_finds_itself(place: Path, annotator: Annotator) -> None:
    for annotation in annotator.annotate(find_images(place / "train").images):
        assert annotation.neighbors[0].image_id == annotation.image_id
        assert annotation.neighbors[0].similarity == pytest.approx(1, abs=1e-5)


def test_unusable_images_stay_in_their_place(place: Path, annotator: Annotator) -> None:
    ids = ["test0", "nowhere", "test1", "test2"]
    refs = in_order_of(ids, find_images(place / "test").images)
    annotations = list(annotator.annotate(refs))
    assert [a.image_id for a in annotations] == ids
    assert annotations[1] == Annotation(
        "nowhere", (), (), 0.0, (), error="no image has the id nowhere"
    )
    good = list(annotator.annotate([ref for ref in refs if ref.id != "nowhere"]))
    assert [(a.image_id, a.cuis) for a in annotations if a.error is None] == [
        (a.image_id, a.cuis) for a in good
    ]
    assert all(a.error is None and a.cuis for a in good)


def test_no_images_give_no_annotations(annotator: Annotator) -> None:
    assert list(annotator.annotate([])) == []


def test_annotations_do_not_depend_on_batches(
    place: Path, annotator: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = find_images(place / "test").images
    together = list(annotator.annotate(refs))
    monkeypatch.setattr("annotator.pipeline._SEARCHED_AT_ONCE", 2)
    assert list(annotator.annotate(refs)) == together


def test_the_recorded_voting_is_the_default(place: Path, tiny_embedder: TorchEmbedder) -> None:
    assert Annotator.open(place / "index", embedder=tiny_embedder).voting == Voting(k=4, beta=5.0)
    other = Annotator.open(place / "index", embedder=tiny_embedder, voting=Voting(k=1))
    (annotation,) = other.annotate(find_images(place / "test" / "test0.png").images)
    assert len(annotation.neighbors) == 1


def test_as_json(place: Path, annotator: Annotator) -> None:
    (annotation,) = annotator.annotate(find_images(place / "train" / "train1.png").images)
    plain = annotation.to_dict({"C1": "one"})
    assert set(plain) == {"id", "concepts", "expected_f1"}
    assert {c["cui"]: c["name"] for c in plain["concepts"]}.get("C1", "one") == "one"
    explained = annotation.to_dict({}, explain=True)
    assert len(explained["neighbors"]) == 4
    assert explained["neighbors"][0]["id"] == "train1"
    assert json.loads(json.dumps(explained)) == explained
    failed = dataclasses.replace(annotation, error="broken")
    assert failed.to_dict({})["error"] == "broken"


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


def test_vectors_of_another_length_are_refused(annotator: Annotator) -> None:
    with pytest.raises(IndexProblem, match="3 dimensions, the index has 16"):
        annotator.annotate_vectors(["x"], np.array([[1, 0, 0]], np.float32))


def test_an_encoder_that_cannot_be_made_is_named(place: Path) -> None:
    with pytest.raises(AnnotatorError, match="Unknown encoder 'tiny'"):
        Annotator.open(place / "index")


@pytest.mark.slow
def test_the_recorded_encoder_is_made_with_its_settings(tmp_path: Path) -> None:
    with VersionWriter(tmp_path, 2) as writer:
        writer.add(np.array([[1, 0]], np.float32))
        recorded = {
            "architecture": "", "weights": "", "preprocess": {}, "precision": "bf16",
            "frames": "all", "dim": 2,
        }  # fmt: skip
        about = {"embedder": {"name": "efficientnet-lite0", "fingerprint": recorded}}
        writer.publish(["a"], [[]], names={}, columns={}, about=about)
    stored = open_index(tmp_path)
    made = recorded_embedder(stored, device="cpu")
    assert (made.name, made.fingerprint.precision) == ("efficientnet-lite0", "bf16")
    assert made.frames == made.fingerprint.frames == "all"
    with pytest.raises(AnnotatorError, match=r"architecture: .*weights: sha256"):
        Annotator(stored, made)


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"embedder": None},
        {"embedder": {"name": "x", "fingerprint": {"dim": 2}}},
        {"embedder": {"name": "x", "fingerprint": []}},
    ],
)
def test_an_index_that_does_not_name_its_encoder_is_refused(
    tmp_path: Path, tiny_embedder: TorchEmbedder, about: dict[str, object]
) -> None:
    with VersionWriter(tmp_path, 2) as writer:
        writer.add(np.array([[1, 0]], np.float32))
        writer.publish(["a"], [[]], names={}, columns={}, about=about)
    with pytest.raises(AnnotatorError, match=r"which encoder|fingerprint lacks"):
        Annotator.open(tmp_path, embedder=tiny_embedder)
