"""The list of the index's images over HTTP, and the grid of the page in a real browser."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import Server, problem, serving
from browsing import Browser, accessibility_faults, expect, in_a_browser
from hypothesis import given
from hypothesis import strategies as st
from pages import Opener, Served, Tab, opening
from starlette.testclient import TestClient

from index import open_index
from service.browse import _inside
from service.schemas import MAP_SIZE, ImagesOut


def listed(client: Any, **query: Any) -> dict[str, Any]:
    answer = client.get("/v1/images", params=query)
    assert answer.status_code == 200, answer.text
    return dict(ImagesOut.model_validate(answer.json()).model_dump())


def ids(answer: dict[str, Any]) -> list[str]:
    return [image["id"] for image in answer["images"]]


def test_a_list_and_its_parts(client: TestClient) -> None:
    every = listed(client, limit=100)
    assert ids(every) == [f"train{i:02d}" for i in range(12)] and every["total"] == 12
    assert every["images"][1] == {
        "id": "train01", "concepts": ["C1", "C9"], "group": "", "thumbnail": None,
        "doubt": None, "familiarity": None, "similarity": None,
    }  # fmt: skip
    assert every["facets"] == {"concepts": [], "groups": []}
    assert ids(listed(client, offset=4, limit=3)) == ["train04", "train05", "train06"]
    assert ids(listed(client, offset=11)) == ["train11"] and ids(listed(client, offset=12)) == []


def test_filters_and_facets(client: TestClient) -> None:
    some = listed(client, concept=["C1", "C9"], facets=True)
    assert ids(some) == ["train01", "train04", "train07", "train10"]
    assert some["facets"]["concepts"] == [{"cui": "C1", "images": 4}, {"cui": "C9", "images": 4}]
    assert some["names"] == {"C1": "Ünd <one>", "C9": "In all of them"}
    assert ids(listed(client, q="IN1")) == ["train10", "train11"]
    assert ids(listed(client, q="in1", concept="C1")) == ["train10"]
    for nothing in ({"concept": ["C1", "C2"]}, {"concept": "none"}, {"group": "p1"}, {"q": "xyz"}):
        empty = listed(client, facets=True, **nothing)
        assert (empty["total"], empty["images"]) == (0, [])
        assert empty["facets"] == {"concepts": [], "groups": []}


@pytest.mark.parametrize("query", ["sort=age", "limit=501", "offset=-1", "colour=red"])
def test_parameters_that_are_refused(client: TestClient, query: str) -> None:
    assert problem(client.get(f"/v1/images?{query}")) == (422, "invalid_parameter")


def test_the_most_doubtful_come_first(client: TestClient) -> None:
    answer = listed(client, sort="doubt")
    doubts = [image["doubt"] for image in answer["images"]]
    assert len(doubts) == 12 and doubts == sorted(doubts, reverse=True)
    queue = client.get("/v1/queue").json()
    assert sum(doubt > 0 for doubt in doubts) == queue["total"]
    assert {item["id"] for item in queue["items"]} <= set(ids(answer)[: queue["total"]])
    unknown = listed(client, sort="familiarity")  # the index was not tuned
    assert ids(unknown) == [f"train{i:02d}" for i in range(12)]
    assert {image["familiarity"] for image in unknown["images"]} == {None}


def test_more_like_an_image(client: TestClient, tiny_index: Path) -> None:
    stored = open_index(tiny_index)
    vectors = stored.vectors(np.arange(12))
    answer = listed(client, like="train05", sort="doubt", limit=100)
    by_similarity = np.argsort(-(vectors @ vectors[5]), kind="stable")
    assert ids(answer)[0] == "train05" and answer["images"][0]["similarity"] == 1
    found = [image["similarity"] for image in answer["images"]]
    assert found == pytest.approx((vectors @ vectors[5])[by_similarity].tolist(), abs=1e-4)
    some = listed(client, like="train05", concept="C1", limit=100)  # which it does not have
    assert ids(some) == [id_ for id_ in ids(answer) if id_ in ids(listed(client, concept="C1"))]
    assert ids(listed(client, like="train05", offset=3, limit=2)) == ids(answer)[3:5]
    assert problem(client.get("/v1/images?like=absent")) == (404, "no_such_image")


def test_the_map_and_its_regions(client: TestClient) -> None:
    found = client.get("/v1/map").json()
    places = dict(
        zip(ids(listed(client, limit=100)), zip(found["x"], found["y"], strict=True), strict=True)
    )
    assert found["total"] == len(places) == 12
    assert min(found["x"]) == min(found["y"]) == 0
    assert max(found["x"]) == max(found["y"]) == MAP_SIZE - 1
    assert "principal component" in found["axes"][0]
    some = client.get("/v1/map", params={"concept": "C1"}).json()
    assert list(zip(some["x"], some["y"], strict=True)) == [
        places[id_] for id_ in ids(listed(client, concept="C1"))
    ]
    edge, half = MAP_SIZE, MAP_SIZE // 2
    everywhere = f"0,0,{edge},0,{edge},{edge},0,{edge}"
    assert listed(client, region=everywhere)["total"] == 12
    left = listed(client, region=f"0,0,{half},0,{half},{edge},0,{edge}", limit=100, facets=True)
    assert set(ids(left)) == {id_ for id_, (x, _) in places.items() if x < half}
    assert 0 < left["total"] < 12 and left["facets"]["concepts"][0]["images"] <= left["total"]
    right = listed(client, region=f"{edge},{edge},{half},{edge},{half},0,{edge},0", limit=100)
    assert sorted(ids(left) + ids(right)) == sorted(places)  # either way round, and none twice
    for wrong in ("0,0,5", "0,0,5,5", "a", "0,0,5,5,9,-1", "0,0,5,5,9"):
        assert problem(client.get("/v1/images", params={"region": wrong})) == (
            422,
            "invalid_parameter",
        )


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=7),
    st.integers(0, 6),
)
def test_a_polygon_and_what_is_cut_off_from_it_share_no_point(
    corners: list[tuple[int, int]], cut: int
) -> None:
    points = np.array([(x, y) for x in range(21) for y in range(21)])
    whole = _inside(points, np.array(corners))
    assert (_inside(points, np.array(corners[::-1])) == whole).all()
    cut %= len(corners) - 2
    triangle = [corners[0], corners[cut + 1], corners[cut + 2]]
    parts = [corners[: cut + 2], triangle, [corners[0], *corners[cut + 2 :]]]
    sum_of_parts = np.zeros(len(points), bool)
    for part in parts:
        if len(part) >= 3:
            sum_of_parts ^= _inside(points, np.array(part))
    assert (sum_of_parts == whole).all()  # even-odd: edges that are shared cancel out


def test_a_concave_polygon() -> None:
    horseshoe = np.array([(0, 0), (9, 0), (9, 9), (6, 9), (6, 3), (3, 3), (3, 9), (0, 9)])
    points = np.array([(1, 8), (7, 8), (4, 8), (4, 1), (10, 1)])
    assert _inside(points, horseshoe).tolist() == [True, True, False, True, False]


@pytest.fixture(scope="module")
def reading(place: Served) -> Iterator[Server]:
    with serving(place.index, "--device", "cpu") as running:
        yield running


@pytest.fixture
def open_page(browser: Browser, reading: Server) -> Iterator[Opener]:
    with opening(browser, reading.url) as opener:
        yield opener


def cells(tab: Tab) -> list[str]:
    return tab.page.locator(".grid-cell .case-id").all_inner_texts()


@pytest.mark.slow
@in_a_browser
def test_the_grid(open_page: Opener, reading: Server, place: Served) -> None:
    stored = open_index(place.index)
    by_doubt = listed(reading.client, sort="doubt", limit=100)
    groups = Counter(stored.columns["groups"])
    facets = listed(reading.client, facets=True)["facets"]["groups"]
    assert {one["group"]: one["images"] for one in facets} == dict(groups)

    tab = open_page(viewport={"width": 1200, "height": 500})
    tab.page.get_by_role("link", name="Browse").click()
    expect(tab.page.locator("#browse-total")).to_have_text(f"{len(stored)} images")
    picture = tab.page.locator(".grid-cell img").first
    picture.evaluate("picture => picture.decode()")
    assert cells(tab)[:5] == list(stored.ids[:5])
    assert len(cells(tab)) < len(stored)  # those in sight alone
    tab.page.locator("#browse-grid").evaluate("grid => grid.scrollTop = grid.scrollHeight")
    expect(tab.page.locator(".grid-cell .case-id").last).to_have_text(stored.ids[-1])
    tab.page.get_by_label("Order").select_option("doubtful labels first")
    first = tab.page.locator(".grid-cell .case-id").first
    expect(first).to_have_text(by_doubt["images"][0]["id"])
    assert accessibility_faults(tab.page) == []

    name = "Brain"
    (cui,) = (cui for cui, text in stored.names.items() if text == name)
    holders = listed(reading.client, concept=cui, sort="doubt", limit=100)
    tab.page.locator("#browse-concepts").get_by_role("link", name=name, exact=True).click()
    expect(tab.page.locator("#browse-total")).to_have_text(f"{holders['total']} images")
    tab.page.locator(".grid-cell").first.focus()
    for key in ("Space", "ArrowRight", "ArrowRight", "Space"):
        tab.page.keyboard.press(key)
    expect(tab.page.locator("#browse-selected")).to_have_text("2 images selected")
    assert accessibility_faults(tab.page) == []
    tab.button("Review the selected").click()
    expect(tab.page.locator("#review-summary")).to_contain_text("1 of 2")
    expect(tab.page.locator("#review-case h2")).to_have_text(ids(holders)[0])
    tab.page.keyboard.press("s")
    expect(tab.page.locator("#review-case h2")).to_have_text(ids(holders)[2])
    tab.page.go_back()
    expect(tab.page.locator("#browse-selected")).to_have_text("2 images selected")  # as it was left
    address = tab.page.url
    tab.page.go_back()
    expect(tab.page.locator("#browse-total")).to_have_text(f"{len(stored)} images")
    tab.page.goto(address)
    tab.page.reload()
    expect(tab.page.locator("#browse-total")).to_have_text(f"{holders['total']} images")
    tab.page.get_by_role("button", name=f"Without the filter {name}").click()
    expect(tab.page.locator("#browse-total")).to_have_text(f"{len(stored)} images")
    tab.page.get_by_label("Id has").fill(stored.ids[7])
    expect(tab.page.locator("#browse-total")).to_have_text("1 image")
    tab.page.locator(".grid-cell").first.press("Enter")
    expect(tab.page.locator("#review-case h2")).to_have_text(stored.ids[7])


@pytest.mark.slow
@in_a_browser
def test_the_grid_on_a_phone(open_page: Opener) -> None:
    tab = open_page(viewport={"width": 360, "height": 740})
    tab.page.get_by_role("link", name="Browse").click()
    expect(tab.page.locator(".grid-cell img").first).to_be_visible()
    html = "document.documentElement"
    assert tab.page.evaluate(f"() => {html}.scrollWidth - {html}.clientWidth") == 0
    tab.page.set_viewport_size({"width": 340, "height": 740})  # as many cells in a row, narrower
    tab.page.wait_for_function(
        """() => {
          const right = (element) => element.getBoundingClientRect().right;
          const grid = document.getElementById("browse-grid");
          const cells = [...grid.querySelectorAll(".grid-cell")];
          return cells.every((cell) => right(cell) <= right(grid));
        }"""
    )


def drag(tab: Tab, *places: tuple[float, float]) -> None:
    """Draw a lasso on the map, by shares of its width and height."""
    box = tab.page.locator("#map").bounding_box()
    assert box is not None
    for number, (across, down) in enumerate(places):
        tab.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        if number == 0:
            tab.page.mouse.down()
    tab.page.mouse.up()


@pytest.mark.slow
@in_a_browser
def test_the_map_filters_the_grid(open_page: Opener, reading: Server) -> None:
    places = reading.client.get("/v1/map").json()
    n = places["total"]
    tab = open_page(viewport={"width": 1200, "height": 900})
    total = tab.page.locator("#browse-total")
    tab.page.get_by_role("link", name="Browse").click()
    expect(total).to_have_text(f"{n} images")
    tab.page.get_by_text("Map", exact=True).click()
    expect(tab.page.locator("#map-axes")).to_contain_text(f"{n} images")
    assert accessibility_faults(tab.page) == []
    drag(tab, (0.01, 0.01), (0.5, 0.01), (0.5, 0.99), (0.01, 0.99))
    tab.page.wait_for_url("**region**")
    region = tab.page.evaluate(
        "() => new URLSearchParams(decodeURIComponent(location.hash.split('/')[1])).get('region')"
    )
    some = listed(reading.client, region=region, limit=200)
    assert 0 < some["total"] < n
    expect(total).to_have_text(f"{some['total']} images")
    expect(tab.page.locator(".grid-cell .case-id").first).to_have_text(ids(some)[0])
    address = tab.page.url
    tab.page.go_back()
    expect(total).to_have_text(f"{n} images")
    tab.page.goto(address)
    tab.page.reload()
    expect(total).to_have_text(f"{some['total']} images")
    expect(tab.page.locator("#map")).to_be_visible()
    tab.page.get_by_role("button", name="Without the filter An area of the map").click()
    expect(total).to_have_text(f"{n} images")

    tab.page.locator("#map").focus()  # the same by keys: a frame over the right half
    for key in [*["ArrowRight"] * 10, *["Shift+ArrowRight"] * 5, *["Shift+ArrowUp"] * 15]:
        tab.page.keyboard.press(key)
    right = sum(x >= MAP_SIZE / 2 for x in places["x"])
    expect(tab.page.locator("#status")).to_have_text(re.compile(r"^\d+ images? in the frame\.$"))
    said = tab.page.locator("#status").inner_text().split()[0]
    tab.page.keyboard.press("Enter")
    expect(total).to_have_text(re.compile(f"^{said} images?$"))
    assert abs(int(said) - right) <= n // 4
    tab.page.keyboard.press("Escape")
    expect(total).to_have_text(f"{n} images")

    tab.page.locator(".grid-cell").nth(2).click()
    chosen = cells(tab)[2]
    tab.button("More like this").click()
    expect(tab.page.locator("#browse-filters")).to_contain_text(f"Like {chosen}")
    alike = listed(reading.client, like=chosen)
    expect(tab.page.locator(".grid-cell .case-fact").first).to_have_text("similarity 1.000")
    assert cells(tab)[:3] == ids(alike)[:3]
    assert accessibility_faults(tab.page) == []
    tab.page.go_back()
    expect(tab.page.locator("#browse-filters")).to_have_text("")
