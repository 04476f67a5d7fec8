"""Pages of search results show every case, and nothing from outside is markup in them."""

from __future__ import annotations

from annotator.errors import ImageError
from annotator.explore.concept import ConceptReview
from annotator.explore.search_page import concept_page, rankings_page
from annotator.knn.neighbors import Case, Ranking

HOSTILE = "</h2><script>alert('x')</script>\"&"
NAMES = {"C1": "Lung", "C2": f"Chest {HOSTILE}"}
NEAR = Case("near", 0.98765432, ("C2", "C1", "C4"), f"A caption {HOSTILE}")
FAR = Case(f"far{HOSTILE}", -0.25, ())
RANKINGS = [
    Ranking(f"q1{HOSTILE}", (NEAR, FAR)),
    Ranking("q2", (), ImageError(f"it is empty {HOSTILE}")),
    Ranking("q3", (FAR,)),
]


def thumbnails(image_id: str) -> bytes:
    return b"" if image_id == FAR.image_id else b"\xff\xd8jpeg of " + image_id.encode()


def test_similar_cases_have_pictures_and_facts() -> None:
    page = rankings_page(RANKINGS, NAMES, thumbnails, thumbnails)
    assert page.count("data:image/jpeg;base64,") == 3  # two queries and a case
    assert "1 · similarity 0.988" in page and "2 · similarity -0.250" in page
    assert page.count("the query image") == 2 and "it is empty" in page
    assert page.count("no picture: far") == 2
    assert "the query image" not in rankings_page(RANKINGS, NAMES, thumbnails, None)


def test_a_concept_s_images_by_kind() -> None:
    page = concept_page(ConceptReview("C1", 2, 2, 0.5, (NEAR,), (), (FAR,)), NAMES, thumbnails)
    assert "<h1>Lung (C1): 2 images</h1>" in page
    assert "They have it, and so have their neighbours." in page
    assert "<h2>Likely missing</h2>" in page and "<p>None.</p>" in page
    assert "1 · 0.988 of the votes" in page
    assert page.index('class="sought">Lung</li>') < page.index('<li title="C2">')
    rare = concept_page(ConceptReview("C9", 1, 1, 0.1, (FAR,), (), ()), {}, thumbnails)
    assert "Not judged: its images support each other too little (0.10)." in rare


def test_what_comes_from_outside_is_text() -> None:
    found = ConceptReview("C2", 2, 2, 0.5, (NEAR,), (FAR,), ())
    for page in (
        rankings_page(RANKINGS, NAMES, thumbnails, thumbnails),
        concept_page(found, NAMES, thumbnails),
    ):
        assert "<script" not in page and "alert(&#39;x&#39;)" in page
