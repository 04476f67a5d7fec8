"""The page of a map: as text, and in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import Browser, Page, expect, in_a_browser
from PIL import Image

from annotator.map.make import Map, make_map
from annotator.map.page import default_side, map_page, read_pictures
from annotator.map.points import Points, read_points
from index import StoredIndex, open_index

HOSTILE = '</script><img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def drawn(stored: StoredIndex) -> Map:
    return make_map(stored, "<an index>")


@pytest.fixture(scope="module")
def page(drawn: Map) -> str:
    return map_page(drawn, read_pictures(drawn.points, 64))


def data_of(page: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    data: dict[str, Any] = json.loads(found)
    return data


# As text


def test_the_page_is_whole_and_fetches_nothing(page: str) -> None:
    assert "default-src 'none'" in page
    assert re.findall(r"https?://\S+", page) == ['http://www.w3.org/2000/svg",']  # a name
    assert "Map of &lt;an index&gt;" in page and "<an index>" not in page
    assert "Not for clinical use" in page and "fitted to the concepts" in page


def test_data_cannot_end_their_script(page: str) -> None:
    assert page.count("</script>") == 2
    assert HOSTILE in data_of(page)["captions"][1]


def test_what_the_page_draws(drawn: Map, page: str, stored: StoredIndex) -> None:
    data = data_of(page)
    assert data["ids"] == list(stored.ids)
    assert [data["concepts"][j][0] for j in data["held"][3]] == list(stored.labels.row(3))
    assert [entry["points"] for entry in data["legend"]] == np.bincount(data["category"]).tolist()
    assert data["legend"][-1]["label"] == "none of these"
    places = np.array([data["x"], data["y"]]).T
    assert places.min() == 0 and places.max() == 1
    span = np.ptp(drawn.layout.positions, axis=0).max()
    np.testing.assert_allclose(
        np.linalg.norm(places[0] - places[5]) * span,
        np.linalg.norm(drawn.layout.positions[0] - drawn.layout.positions[5]),
        atol=1e-4,
    )


# Thumbnails


@pytest.fixture
def points(stored: StoredIndex) -> Points:
    return read_points(stored, limit=20)


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_thumbnails_of_the_index_are_made_smaller_or_kept(
    points: Points, stored: StoredIndex
) -> None:
    smaller = read_pictures(points, 64)
    assert [bool(picture) for picture in smaller] == [id_ != "i007" for id_ in points.ids]
    picture = decoded(next(filter(None, smaller)))
    assert (picture.format, picture.size) == ("JPEG", (64, 40))
    for row, kept in zip(points.rows.tolist(), read_pictures(points, 192), strict=True):
        assert base64.b64decode(kept) == (stored.thumbnail(row) or b"")


def test_a_picture_that_cannot_be_read_costs_no_other(
    points: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = points.pictures() or []
    broken = [sound[0][:150], b"no JPEG", b"", *sound[3:]]
    monkeypatch.setattr(Points, "pictures", lambda self: broken)
    pictures = read_pictures(points, 64)
    assert pictures[:3] == ["", "", ""] and pictures[3]


def test_pictures_made_of_the_images(tmp_path: Path, plain_index: Path) -> None:
    for i in (0, 2):
        Image.new("L", (300, 150), 90 + i).save(tmp_path / f"i{i:03d}.png")
    points = read_points(open_index(plain_index), limit=5)
    assert read_pictures(points, 64) == []
    pictures = read_pictures(points, 64, str(tmp_path))
    assert [bool(picture) for picture in pictures] == [
        id_ in ("i000", "i002") for id_ in points.ids
    ]
    assert {decoded(picture).size for picture in filter(None, pictures)} <= {(64, 32)}


def test_more_points_have_smaller_pictures() -> None:
    sides = [default_side(n) for n in (1, 1000, 1001, 2501, 6001, 10**6)]
    assert sides == [192, 192, 128, 96, 64, 64]


# In a browser


@contextmanager
def opened(browser: Browser, html: str, folder: Path, **options: Any) -> Iterator[Page]:
    """The page in a tab; it may have no errors and ask for nothing but itself."""
    (folder / "map.html").write_text(html, encoding="utf-8")
    tab = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options}).new_page()
    problems: list[str] = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: problems.append(request.url) if "map.html" not in request.url
           and not request.url.startswith("data:") else None)  # fmt: skip
    tab.goto(f"file://{folder}/map.html")
    wait_until(tab, "width > 0")
    yield tab
    assert problems == []
    tab.context.close()


def wait_until(tab: Page, condition: str) -> None:
    """Ask again and again from outside: the page's own policy forbids `wait_for_function` to."""
    for _ in range(600):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"not within 30 seconds: {condition}")


def place(tab: Page, image_id: str) -> tuple[float, float]:
    """Where a point is, in the window."""
    x, y = tab.evaluate("(id) => at(data.ids.indexOf(id))", image_id)
    box = tab.locator("#map").bounding_box()
    assert box is not None
    return box["x"] + x, box["y"] + y


def outermost(tab: Page) -> str:
    """The id of the point on the far right, which lies alone enough to be pointed at."""
    return str(
        tab.evaluate("data.ids[data.x.indexOf(1) < 0 ? data.y.indexOf(1) : data.x.indexOf(1)]")
    )


@in_a_browser
@pytest.mark.slow
def test_pointing_at_a_point_shows_its_image(browser: Browser, page: str, tmp_path: Path) -> None:
    with opened(browser, page, tmp_path) as tab:
        card, wanted = tab.locator("#point"), outermost(tab)
        expect(card).to_be_hidden()
        tab.mouse.move(*place(tab, wanted))
        expect(card).to_be_visible()
        expect(card.locator("h3")).to_have_text(wanted)
        i = tab.evaluate("(id) => data.ids.indexOf(id)", wanted)
        expect(card).to_contain_text(f"caption {i}")
        expect(card).to_contain_text("Everything C4")
        expect(card).to_contain_text(f"group: p{i // 2}")
        assert (
            card.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)")
            == 64
        )
        tab.mouse.move(5, 5)
        expect(card).to_be_hidden()
        tab.mouse.click(*place(tab, wanted))
        tab.mouse.move(5, 5)
        expect(card).to_be_visible()  # it was kept
        tab.keyboard.press("Escape")
        expect(card).to_be_hidden()


@in_a_browser
@pytest.mark.slow
def test_the_legend_hides_and_shows(browser: Browser, page: str, tmp_path: Path) -> None:
    with opened(browser, page, tmp_path) as tab:
        rows = tab.locator("#legend button")
        expect(rows).to_have_count(4)
        expect(rows.first).to_contain_text("Chest")
        where = place(tab, outermost(tab))
        for i in range(4):
            rows.nth(i).click()
            expect(rows.nth(i)).to_have_attribute("aria-pressed", "false")
        tab.mouse.move(*where)
        tab.wait_for_timeout(100)
        expect(tab.locator("#point")).to_be_hidden()
        empty = tab.evaluate(
            "(draw(), brush.getImageData(0, 0, 900, 500).data.every((v) => v === 0))"
        )
        assert empty
        for i in range(4):
            rows.nth(i).click()
        tab.mouse.move(where[0] + 1, where[1])
        expect(tab.locator("#point")).to_be_visible()


@in_a_browser
@pytest.mark.slow
def test_all_of_it_by_keyboard(browser: Browser, page: str, tmp_path: Path) -> None:
    with opened(browser, page, tmp_path) as tab:
        tab.keyboard.press("Tab")
        expect(tab.locator("#map")).to_be_focused()
        seen = set()
        for key in ("ArrowUp", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
            tab.keyboard.press(key)
            expect(tab.locator("#point")).to_be_visible()
            seen.add(tab.locator("#point h3").inner_text())
        assert len(seen) > 2
        tab.keyboard.press("+")
        assert tab.evaluate("view.zoom") == 1.5
        tab.keyboard.press("0")
        assert tab.evaluate("[view.zoom, view.x, view.y]") == [1, 0, 0]
        tab.keyboard.press("Escape")
        expect(tab.locator("#point")).to_be_hidden()


@in_a_browser
@pytest.mark.slow
def test_finding(browser: Browser, page: str, tmp_path: Path) -> None:
    with opened(browser, page, tmp_path) as tab:
        tab.get_by_label("Find").fill("BRAIN, LEFT")
        held = sum("C2" in (tab_cui[0] for tab_cui in row) for row in concepts_of(page))
        expect(tab.locator("#found")).to_have_text(f"{held} of 60")
        tab.get_by_label("Find").fill("i003")
        expect(tab.locator("#found")).to_have_text("1 of 60")
        tab.locator("#map").focus()
        tab.keyboard.press("ArrowLeft")
        expect(tab.locator("#point h3")).to_have_text("i003")
        tab.get_by_label("Find").fill("nothing like it")
        expect(tab.locator("#found")).to_have_text("0 of 60")
        expect(tab.locator("#point")).to_be_hidden()


def concepts_of(page: str) -> list[list[list[str]]]:
    data = data_of(page)
    return [[data["concepts"][j] for j in row] for row in data["held"]]


@in_a_browser
@pytest.mark.slow
def test_zooming_keeps_what_is_under_the_pointer_and_dragging_moves(
    browser: Browser, page: str, tmp_path: Path
) -> None:
    with opened(browser, page, tmp_path) as tab:
        wanted = outermost(tab)
        before = place(tab, wanted)
        tab.mouse.move(*before)
        tab.mouse.wheel(0, -400)
        wait_until(tab, "view.zoom > 1.5")
        np.testing.assert_allclose(place(tab, wanted), before, atol=1.5)
        tab.mouse.down()
        tab.mouse.move(before[0] - 60, before[1] + 40, steps=4)
        tab.mouse.up()
        np.testing.assert_allclose(place(tab, wanted), (before[0] - 60, before[1] + 40), atol=2)
        tab.get_by_role("button", name="Whole map").click()
        np.testing.assert_allclose(place(tab, wanted), before, atol=0.5)


@in_a_browser
@pytest.mark.slow
def test_what_comes_from_the_index_is_text(browser: Browser, page: str, tmp_path: Path) -> None:
    with opened(browser, page, tmp_path) as tab:
        tab.get_by_label("Find").fill("i001")
        tab.locator("#map").focus()
        tab.keyboard.press("ArrowLeft")
        expect(tab.locator("#point")).to_contain_text(HOSTILE)
        expect(tab.locator("#legend")).to_contain_text(HOSTILE)
        assert tab.title() == "Map of <an index>"


@in_a_browser
@pytest.mark.slow
def test_a_tap_on_a_phone(browser: Browser, page: str, tmp_path: Path) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with opened(browser, page, tmp_path, **phone) as tab:
        tab.touchscreen.tap(*place(tab, outermost(tab)))
        card = tab.locator("#point")
        expect(card).to_be_visible()
        box = card.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 360
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
