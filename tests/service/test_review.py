"""Review on the page, in a real browser, against real servers: one saves, one only reads."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking import Server, serving
from bad_dicom import dicom
from browsing import Browser, accessibility_faults, expect, in_a_browser
from click.testing import CliRunner
from pages import Opener, Served, Tab, opening
from PIL import Image

from annotator.cli import cli
from index import open_index

pytestmark = [pytest.mark.slow, in_a_browser]

KEY = "a-key-of-somebody-who-corrects"
HEADERS = {"X-API-Key": KEY}
REVIEWED = 30


@pytest.fixture(scope="module")
def writable(place: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes corrections to a copy of the index, and has the index's files."""
    folder = tmp_path_factory.mktemp("review")
    index = shutil.copytree(place.index, folder / "index")
    keys = folder / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"correct:{KEY} Ada\n")
    options = ("--api-key-file", keys, "--images", place.images[0].parent, "--device", "cpu")
    with serving(index, "--writable", *options) as running:
        running.client.headers.update(HEADERS)
        yield running


@pytest.fixture(scope="module")
def reading(place: Served) -> Iterator[Server]:
    with serving(place.index, "--device", "cpu") as running:
        yield running


@pytest.fixture
def open_page(browser: Browser, writable: Server) -> Iterator[Opener]:
    with opening(browser, writable.url) as opener:
        yield opener


def signed_in(tab: Tab) -> Tab:
    tab.page.get_by_label("Key", exact=True).fill(KEY)
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#info")).to_contain_text("Index v")
    return tab


def review(tab: Tab, *ids: str) -> None:
    """Begin to review some images."""
    tab.page.get_by_role("link", name="Review").click()
    tab.page.get_by_label("Ids of images").fill("\n".join(ids))
    tab.button("Review the list").click()
    shows(tab, ids[0])


def shows(tab: Tab, id_: str) -> None:
    """It shows the review of an image, ready for keys."""
    expect(tab.page.locator("#review-case h2")).to_have_text(id_)
    expect(tab.page.locator(".decision:focus")).to_be_visible()


def decisions(tab: Tab) -> list[tuple[str, str]]:
    """CUI and state of each concept that is shown."""
    script = "rows => rows.map(r => [r.querySelector('code').textContent, r.dataset.state])"
    found = tab.page.locator(".decision").evaluate_all(script)
    return [(cui, state) for cui, state in found]


def labels(server: Server, id_: str) -> list[str]:
    answer = server.client.get(f"/v1/images/{id_}").raise_for_status().json()
    return list(answer["concepts"])


def labels_in(index: Path) -> dict[str, set[str]]:
    stored = open_index(index)
    return {id_: set(stored.labels.row(row)) for row, id_ in enumerate(stored.ids)}


def stored_ids(place: Served) -> list[str]:
    return list(open_index(place.index).ids)


def test_thirty_images_by_keys_alone(open_page: Opener, writable: Server, place: Served) -> None:
    """From the key on nothing but keys: accept, reject, add, undo, zoom, skip back, save."""
    before = {id_: set(labels(writable, id_)) for id_ in stored_ids(place)}
    tab = open_page()
    press, write = tab.page.keyboard.press, tab.page.keyboard.type
    expect(tab.page.get_by_label("Key", exact=True)).to_be_focused()
    write(KEY)
    press("Enter")
    expect(tab.page.locator("#info")).to_contain_text("Index v")
    while tab.page.locator(":focus").inner_text() != "Review":
        press("Shift+Tab")
    press("Enter")
    expect(tab.page.locator("#review-start")).to_be_visible()
    for _ in range(6):  # past the other view and the queue
        if tab.page.locator("#review-ids:focus").count():
            break
        press("Tab")
    expect(tab.page.get_by_label("Ids of images")).to_be_focused()
    queued = writable.client.get("/v1/queue", params={"limit": REVIEWED}).json()["items"]
    ids = list(dict.fromkeys([*(item["id"] for item in queued), *before]))[:REVIEWED]
    tab.page.keyboard.insert_text("\n".join(ids))
    press("Tab")
    press("Tab")
    press("Enter")
    wanted: dict[str, set[str]] = {}
    for number in range(REVIEWED):
        expect(tab.page.locator("#review-summary")).to_have_text(
            f"{number + 1} of {REVIEWED} · {number} reviewed"
        )
        expect(tab.page.locator(".decision:focus")).to_be_visible()
        id_ = ids[number]
        shows(tab, id_)  # the line above changes first
        shown = decisions(tab)
        assert {cui for cui, state in shown if state == "kept"} == before[id_]
        wanted[id_] = set(before[id_])
        if number % 3 == 0:  # the second one away, and the first of the other ones in
            press("ArrowDown")
            press("r")
            wanted[id_].discard(shown[1][0])
            suggested = [i for i, (_, state) in enumerate(shown) if state == "open" and i < 9]
            if suggested:
                press(str(suggested[0] + 1))
                wanted[id_].add(shown[suggested[0]][0])
        elif number % 3 == 1:
            press("n")
            tab.page.keyboard.insert_text("brain")  # at once: Enter takes nothing of older options
            expect(tab.page.locator(".combobox [role=option]").first).to_contain_text("Brain")
            press("Enter")
            expect(tab.page.locator(".decision:focus")).to_contain_text("Brain")
            wanted[id_].add("C0006104")
        else:  # a change of mind: nothing changes
            press("r")
            press("End")
            press("Space")
            press("u")
            press("Control+z")
            assert decisions(tab) == shown
        if number == 4:
            press("ArrowRight")
            expect(tab.page.locator("#review-summary")).to_contain_text("6 of 30")
            press("ArrowLeft")
            shows(tab, id_)
        press("Enter")
    title = tab.page.get_by_role("heading", name=f"All {REVIEWED} images reviewed")
    expect(title).to_be_focused()
    changed = sum(wanted[id_] != before[id_] for id_ in wanted)
    expect(tab.page.locator("#review-case")).to_contain_text(f"{changed} images changed")
    assert {id_: set(labels(writable, id_)) for id_ in wanted} == wanted
    untouched = before.keys() - wanted.keys()
    assert all(set(labels(writable, id_)) == before[id_] for id_ in untouched)
    asked = writable.client.get("/v1/queue", params={"limit": 100}).json()["items"]
    assert not {item["id"] for item in asked} & wanted.keys()  # confirmed ones do not come again


def test_a_conflict(open_page: Opener, writable: Server, place: Served) -> None:
    first, second = stored_ids(place)[-2:]
    tab = signed_in(open_page())
    for id_, choice, word, expected in (
        (first, "Join both and save", "mine", ["C0000001", "MINE"]),
        (second, "Take theirs", "my own", ["C0000001"]),
    ):
        writable.client.patch(
            f"/v1/images/{id_}", json={"concepts": ["C0006104"]}, headers={"If-Match": "*"}
        ).raise_for_status()
        review(tab, id_)
        tab.page.keyboard.press("r")
        tab.page.keyboard.press("n")
        tab.page.keyboard.type(word)
        expect(tab.page.get_by_role("option", name=f"New label “{word}”")).to_be_visible()
        tab.page.keyboard.press("ArrowUp")  # to the last one
        tab.page.keyboard.press("Enter")
        writable.client.patch(
            f"/v1/images/{id_}",
            json={"concepts": ["C0000001", "C0006104"], "reason": "theirs"},
            headers={"If-Match": "*"},
        ).raise_for_status()
        writable.client.patch(
            f"/v1/images/{id_}", json={"remove": ["C0006104"]}, headers={"If-Match": "*"}
        ).raise_for_status()
        tab.page.keyboard.press("Enter")
        notice = tab.page.get_by_role("group", name="Conflict")
        expect(notice.locator(".sides > div")).to_have_count(2)
        theirs, mine = notice.locator(".sides > div").all()
        expect(theirs.locator(".chip")).to_have_text(["C0000001"])
        expect(mine.locator(".chip")).to_have_text([word])
        assert accessibility_faults(tab.page) == []
        assert labels(writable, id_) == ["C0000001"]
        tab.button(choice).click()
        if choice == "Take theirs":
            assert [cui for cui, state in decisions(tab) if state != "open"] == ["C0000001"]
            tab.page.keyboard.press("Enter")
        expect(tab.page.get_by_role("heading", name="1 image reviewed")).to_be_focused()
        assert labels(writable, id_) == expected
        tab.button("Review more").click()


def test_what_was_saved_is_undone(open_page: Opener, writable: Server, place: Served) -> None:
    first, second = stored_ids(place)[-4:-2]
    before = labels(writable, first)
    tab = signed_in(open_page())
    review(tab, first, second)
    tab.page.keyboard.press("r")
    removed = decisions(tab)[0]
    assert removed[1] == "removed"
    tab.page.keyboard.press("Enter")
    shows(tab, second)
    assert labels(writable, first) == [cui for cui in before if cui != removed[0]]
    tab.page.keyboard.press("u")
    shows(tab, first)
    assert decisions(tab)[0] == removed  # open again, to be decided otherwise
    assert labels(writable, first) == before
    tab.page.keyboard.press("u")
    tab.page.keyboard.press("Enter")
    shows(tab, second)
    assert labels(writable, first) == before


def test_where_nothing_can_be_saved_there_is_a_table(
    open_page: Opener, reading: Server, place: Served, tmp_path: Path
) -> None:
    first, second, third = stored_ids(place)[:3]
    tab = open_page(reading.url)
    tab.page.get_by_role("link", name="Review").click()
    expect(tab.page.locator("#review-saved")).to_contain_text("takes no corrections")
    table = tmp_path / "queue.csv"
    table.write_text(f'ID,gain\n{first},0.5\n"{second}",0.4\n{third},0.1\n')
    tab.page.set_input_files("#review-list", table)
    tab.button("Review the list").click()
    shows(tab, first)
    before = labels_in(place.index)
    shown = decisions(tab)
    tab.page.keyboard.press("r")
    tab.page.keyboard.press("Enter")
    shows(tab, second)
    tab.page.keyboard.press("n")
    tab.page.keyboard.type("a sign,")
    expect(tab.page.get_by_role("option", name="New label")).to_be_visible()
    tab.page.keyboard.type(" unheard of")
    tab.page.keyboard.press("Enter")  # too early to take what is offered
    expect(tab.page.get_by_role("option", name="New label “a sign, unheard of”")).to_be_visible()
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Enter")
    shows(tab, third)
    tab.page.keyboard.press("Enter")
    with tab.page.expect_download() as download:
        tab.button("Download corrections.csv").click()
    corrections = tmp_path / "corrections.csv"
    download.value.save_as(corrections)
    index = shutil.copytree(place.index, tmp_path / "index")
    done = CliRunner().invoke(cli, ["relabel", str(corrections), "--index", str(index)])
    assert done.exit_code == 0, done.output
    after = labels_in(index)
    assert after[first] == before[first] - {shown[0][0]}
    (new,) = after[second] - before[second]
    assert open_index(index).names[new] == "a sign, unheard of"
    assert after[third] == before[third]


def test_uploaded_images(open_page: Opener, reading: Server, place: Served, tmp_path: Path) -> None:
    tab = open_page(reading.url)
    tab.annotate(*place.images[:2])
    tab.button("Review").click()
    shows(tab, place.images[0].stem)
    accepted = [cui for cui, state in decisions(tab) if state == "new"]
    assert len(accepted) >= 2
    tab.page.keyboard.press("r")
    tab.page.keyboard.press("Enter")
    shows(tab, place.images[1].stem)
    second = [cui for cui, state in decisions(tab) if state == "new"]
    tab.page.keyboard.press("Enter")
    with tab.page.expect_download() as download:
        tab.button("Download labels.csv").click()
    rows = list(csv.reader(Path(download.value.path()).read_text().splitlines()))
    assert rows == [
        ["ID", "CUIs"],
        [place.images[0].stem, ";".join(sorted(accepted[1:]))],
        [place.images[1].stem, ";".join(sorted(second))],
    ]


def test_an_uploaded_image_is_added_with_its_labels(
    open_page: Opener, writable: Server, place: Served
) -> None:
    tab = signed_in(open_page())
    image = place.images[3]
    tab.annotate(image)
    tab.button("Review").click()
    shows(tab, image.stem)
    accepted = sorted(cui for cui, state in decisions(tab) if state == "new")
    tab.button("Add to the index").click()
    expect(tab.page.get_by_role("heading", name="1 image reviewed")).to_be_focused()
    assert labels(writable, image.stem) == accepted


def test_pictures_move_together(open_page: Opener, writable: Server, place: Served) -> None:
    tab = signed_in(open_page(viewport={"width": 1500, "height": 950}))
    review(tab, stored_ids(place)[5])
    pictures = tab.page.locator("#review-case .viewer img")
    expect(pictures).to_have_count(5)
    larger = """() => [...document.querySelectorAll("#review-case .viewer img")]
      .every(picture => Math.max(picture.naturalWidth, picture.naturalHeight) > 192)"""
    tab.page.wait_for_function(larger)  # than thumbnails are

    def all_are(x: float, y: float, scale: float) -> None:
        """All pictures come to this place, in per cent of their frames, and scale."""
        script = """wanted => [...document.querySelectorAll("#review-case .viewer img")]
          .map(picture => picture.style.transform.match(/-?[\\d.]+/g).map(Number))
          .every(([x, y, scale]) => Math.abs(x - wanted[0]) < 1 && Math.abs(y - wanted[1]) < 1
            && Math.abs(scale - wanted[2]) < 0.01)"""
        tab.page.wait_for_function(script, arg=[x, y, scale])

    all_are(0, 0, 1)
    tab.page.keyboard.press("+")
    tab.page.keyboard.press("+")
    all_are(0, 0, 1.5625)
    tab.page.keyboard.press("Shift+ArrowLeft")
    all_are(10, 0, 1.5625)
    tab.button("Fit").click()
    box = tab.page.locator(".beside .viewer").first.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(*middle)
    tab.page.mouse.wheel(0, -400)
    all_are(0, 0, 2)
    tab.page.mouse.down()
    tab.page.mouse.move(middle[0] - box["width"] / 4, middle[1])
    tab.page.mouse.up()
    all_are(-25, 0, 2)
    tab.page.mouse.dblclick(*middle)
    all_are(0, 0, 1)


def pixels(tab: Tab, picture: str) -> np.ndarray:
    """The grey values of a picture that is shown."""
    script = """async picture => {
      await picture.decode();
      const canvas = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight);
      const context = canvas.getContext("2d");
      context.drawImage(picture, 0, 0);
      const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
      return [canvas.width, canvas.height, [...data].filter((_, i) => i % 4 === 0)];
    }"""
    width, height, values = tab.page.locator(picture).evaluate(script)
    return np.array(values).reshape(height, width)


def test_dicom_and_tiff_are_seen(
    open_page: Opener, reading: Server, place: Served, tmp_path: Path
) -> None:
    deep = np.add.outer(np.arange(64) * 40, np.arange(48) * 20).astype(np.uint16)
    frames = np.stack([np.roll(deep, 5 * i, axis=0) for i in range(3)])
    file = tmp_path / "stack.dcm"
    file.write_bytes(
        dicom(frames.tobytes(), BitsAllocated=16, BitsStored=16, HighBit=15, NumberOfFrames=3,
              RescaleSlope=1, RescaleIntercept=-1000, WindowCenter=40, WindowWidth=401)
    )  # fmt: skip
    tiff = tmp_path / "deep.tif"
    Image.fromarray(deep).save(tiff)
    tab = open_page(reading.url)
    tab.annotate(file, tiff)
    thumb = tab.tabs().first.locator("img")
    expect(thumb).to_have_js_property("naturalWidth", 48)
    shown = "#panel .viewer img"
    assert np.abs(pixels(tab, shown) - window(frames[1], 40, 401)).max() <= 1
    frame = tab.page.get_by_label("Frame")
    expect(tab.page.locator("#panel output").first).to_have_text("2 of 3")
    frame.press("ArrowRight")
    expect(tab.page.locator("#panel output").first).to_have_text("3 of 3")
    tab.page.get_by_label("Window width").fill("2000")
    outputs = tab.page.locator("#panel output")
    expect(outputs).to_have_text(["3 of 3", "40", "2000"])
    tab.page.get_by_label("Window centre").fill("500")
    expect(outputs).to_have_text(["3 of 3", "500", "2000"])
    assert np.abs(pixels(tab, shown) - window(frames[2], 500, 2000)).max() <= 1
    tab.button("Back to the file's window").click()
    expect(outputs).to_have_text(["3 of 3", "40", "401"])
    assert np.abs(pixels(tab, shown) - window(frames[2], 40, 401)).max() <= 1
    assert accessibility_faults(tab.page) == []
    tab.tabs().nth(1).click()
    expect(outputs).to_have_count(2)
    assert pixels(tab, shown).shape == deep.shape


def window(stored: np.ndarray, center: float, width: float) -> np.ndarray:
    units = stored.astype(float) - 1000
    return np.clip((units - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255


def test_the_queue(open_page: Opener, reading: Server) -> None:
    items = httpx.get(f"{reading.url}/v1/queue", params={"limit": 3}).json()["items"]
    tab = open_page(reading.url)
    tab.page.get_by_role("link", name="Review").click()
    tab.page.get_by_role("spinbutton", name="Images").fill("3")
    tab.button("Review the queue").click()
    for item in items:
        shows(tab, item["id"])
        expect(tab.page.locator(".verdict")).to_contain_text(f"Asked because: {item['reason']}")
        tab.button("Keep and next").click()
    expect(tab.page.get_by_role("heading", name="All 3 images reviewed")).to_be_focused()


def test_likely_errors_of_a_concept_are_reviewed(open_page: Opener, reading: Server) -> None:
    wanted = httpx.get(f"{reading.url}/v1/search", params={"q": "Brain", "k": 8}).json()["cases"]
    tab = open_page(reading.url)
    tab.find("Brain")
    tab.button("Review these: Exemplars").click()
    shows(tab, wanted[0]["id"])
    expect(tab.page.locator("#review-summary")).to_contain_text(f"1 of {len(wanted)}")
    tab.page.go_back()
    expect(tab.page.locator("#found .neighbor").first).to_be_visible()
    tab.page.go_forward()
    shows(tab, wanted[0]["id"])


def test_a_link_to_an_image_and_what_is_not_there(
    open_page: Opener, writable: Server, place: Served
) -> None:
    id_ = stored_ids(place)[4]
    tab = open_page()
    tab.page.goto(f"{writable.url}/#review/{id_}")
    tab.page.reload()
    tab.page.get_by_label("Key", exact=True).fill(KEY)
    tab.page.keyboard.press("Enter")
    shows(tab, id_)
    tab.page.goto(f"{writable.url}/#review/nobody%2Fat%20all")
    error = tab.page.locator("#review-case .notice.error")
    expect(error).to_contain_text("The index has no image of this id")


def test_no_rule_of_accessibility_is_broken(
    open_page: Opener, writable: Server, place: Served
) -> None:
    tab = open_page(reduced_motion="reduce")

    def check() -> None:
        assert accessibility_faults(tab.page) == []
        tab.page.emulate_media(color_scheme="dark")
        assert accessibility_faults(tab.page, "color-contrast") == []
        tab.page.emulate_media(color_scheme="light")

    check()  # where it asks for the key
    signed_in(tab)
    tab.annotate(place.images[0], place.broken, failed=1)
    tab.find("Brain")
    tab.page.get_by_text("Options").click()
    check()
    tab.page.get_by_role("link", name="Review").click()
    check()
    review(tab, *stored_ids(place)[6:8])
    tab.page.get_by_text("Keys", exact=True).click()
    tab.page.locator(".decision").first.focus()
    tab.page.keyboard.press("r")
    tab.page.keyboard.press("n")
    tab.page.keyboard.type("br")
    expect(tab.page.locator(".combobox [role=option]").first).to_be_visible()
    check()


@pytest.mark.parametrize(
    ("width", "height", "scale"), [(360, 740, 1), (640, 400, 2)], ids=["phone", "zoom-200"]
)
def test_small_windows(
    open_page: Opener, writable: Server, place: Served, width: int, height: int, scale: int
) -> None:
    tab = signed_in(
        open_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
    )
    html = "document.documentElement"
    tab.page.get_by_role("link", name="Review").click()
    assert tab.page.evaluate(f"() => {html}.scrollWidth - {html}.clientWidth") == 0
    review(tab, stored_ids(place)[8])
    assert tab.page.evaluate(f"() => {html}.scrollWidth - {html}.clientWidth") == 0
    for key in ("End", "Home"):
        tab.page.keyboard.press(key)
        expect(tab.page.locator(".decision:focus")).to_be_in_viewport()


def test_nothing_is_kept_in_the_browser(open_page: Opener, writable: Server, place: Served) -> None:
    tab = signed_in(open_page())
    review(tab, stored_ids(place)[9])
    kept = tab.page.evaluate("() => [{...localStorage}, {...sessionStorage}, document.cookie]")
    assert json.dumps(kept) == '[{}, {}, ""]'
