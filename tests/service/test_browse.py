"""The list of the index's images over HTTP, and the grid of the page in a real browser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from asking import Server, problem, serving
from browsing import Browser, accessibility_faults, expect, in_a_browser
from pages import Opener, Served, Tab, opening
from starlette.testclient import TestClient

from index import open_index
from service.schemas import ImagesOut


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
        "doubt": None, "familiarity": None,
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
